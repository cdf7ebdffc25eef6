//! Why a delivery may not go where it would.
//!
//! Each message names the rule that refused and the way out. It must never hold a URL: its query or
//! its user part may be a secret.

use std::net::IpAddr;

use ipnet::IpNet;

/// Why an address or a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Blocked {
    /// An address that is not on the public internet.
    #[error(
        "{address} is {name} ({source_document}), not the public internet; name a public address, a serviceRef of the own namespace, or have the platform team add its CIDR to the AuthServer's egress.allow"
    )]
    SpecialUse {
        /// The address as it was given.
        address: IpAddr,
        /// The range's name in the registry.
        name: &'static str,
        /// The document that sets it apart, such as `RFC 1918`.
        source_document: &'static str,
    },
    /// An address at which a cloud hands out credentials.
    #[error(
        "{address} is the {name} address, which hands out credentials; no webhook belongs there: only its CIDR in the AuthServer's egress.allow opens it"
    )]
    Metadata {
        /// The address as it was given.
        address: IpAddr,
        /// Whose metadata.
        name: &'static str,
    },
    /// The cluster's own control plane.
    #[error(
        "{address} is the cluster's control plane; only its CIDR in the AuthServer's egress.allow opens it"
    )]
    ControlPlane {
        /// The address as it was given.
        address: IpAddr,
    },
    /// An address in the deny list, which wins over everything.
    #[error(
        "{address} lies in {cidr}, which the AuthServer's egress.deny closes; ask the platform team to take it out, or name another endpoint"
    )]
    Denied {
        /// The address as it was given.
        address: IpAddr,
        /// The CIDR that closes it.
        cidr: IpNet,
    },
    /// Plain http to outside of the namespace.
    #[error(
        "plain http is refused: write https, use a serviceRef of the own namespace, or have the platform team set the AuthServer's egress.allowInsecure"
    )]
    Insecure,
    /// Neither http nor https.
    #[error("the scheme {scheme:?} cannot carry a webhook: write https")]
    UnsupportedScheme {
        /// The URL's scheme.
        scheme: String,
    },
    /// A user or password in the URL.
    #[error(
        "the URL holds a user or a password: take them out and send an authorization header from a Secret"
    )]
    UserInfo,
    /// A URL without a host.
    #[error("the URL names no host: write https://HOST/PATH")]
    NoHost,
}

impl Blocked {
    /// One word for conditions and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SpecialUse { .. } => "SpecialUseAddress",
            Self::Metadata { .. } => "MetadataAddress",
            Self::ControlPlane { .. } => "ControlPlaneAddress",
            Self::Denied { .. } => "DeniedAddress",
            Self::Insecure => "InsecureScheme",
            Self::UnsupportedScheme { .. } => "UnsupportedScheme",
            Self::UserInfo => "UserInfoInUrl",
            Self::NoHost => "NoHost",
        }
    }
}
