//! Where deliveries may connect to.
//!
//! ```text
//! URL -> judge_url (scheme, user, IP literal) -> resolver -> judge (each address) -> the same address is dialled
//! ```
//!
//! In: the platform team's policy, and a URL or an address. Out: go, or [`Blocked`] with the rule
//! and the way out. A resolver is never asked for an IP literal, so both judgements are needed.
//!
//! It must never resolve a name, and never judge by a name alone but for `localhost`.

mod blocked;
mod embedded;
mod ranges;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

pub use blocked::Blocked;
use ranges::Kind;

/// The platform team's policy: what is open besides the public internet, and what is closed.
///
/// ```
/// # use tidings_egress::Egress;
/// let policy = Egress { allow: vec!["10.1.0.0/16".parse().unwrap()], ..Egress::default() };
/// assert!(policy.judge("10.1.2.3".parse().unwrap(), false).is_ok());
/// let blocked = policy.judge("10.2.0.1".parse().unwrap(), false).unwrap_err();
/// assert_eq!(blocked.reason(), "SpecialUseAddress");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Egress {
    /// Opens special-use ranges. An IPv4 CIDR opens the IPv4-mapped and NAT64 spellings as well.
    pub allow: Vec<IpNet>,
    /// Closes any range, and wins over everything else. It sees IPv4 addresses inside of IPv6 ones.
    pub deny: Vec<IpNet>,
    /// Permits plain http.
    pub allow_insecure: bool,
    /// Addresses of the cluster's control plane: refused unless `allow` names them. The process that
    /// dials learns them from its surroundings; they are no part of the written policy.
    #[serde(skip)]
    pub control_plane: Vec<IpAddr>,
}

// === impl Egress ===

impl Egress {
    /// The policy with one more address of the cluster's control plane.
    #[must_use]
    pub fn with_control_plane(mut self, address: IpAddr) -> Self {
        self.control_plane.push(address);
        self
    }

    /// Judges an address that is about to be dialled.
    ///
    /// `in_cluster` tells that it stands for a Service of the Webhook's own namespace: private
    /// addresses are then in order; loopback, link-local, metadata and multicast are not.
    pub fn judge(&self, ip: IpAddr, in_cluster: bool) -> Result<(), Blocked> {
        let address = embedded::plain(ip);
        let inner = embedded::behind_nat64(address).map(IpAddr::V4);
        if let Some(&cidr) = self.deny.iter().find(|cidr| closes(**cidr, address)) {
            return Err(Blocked::Denied { address: ip, cidr });
        }
        let opens = |cidr: &IpNet| holds(*cidr, address) || inner.is_some_and(|v4| holds(*cidr, v4));
        if self.allow.iter().any(opens) {
            return Ok(());
        }
        if self.control_plane.iter().any(|plane| is_or_carries(address, embedded::plain(*plane))) {
            return Err(Blocked::ControlPlane { address: ip });
        }
        // What an address carries is judged as well: a private prefix does not open what is inside.
        let meant = std::iter::once(inner.unwrap_or(address));
        meant
            .chain(embedded::carried(address).map(IpAddr::V4))
            .try_for_each(|one| judge_range(ip, one, in_cluster))
    }

    /// Judges a URL before anything is resolved: scheme, user part, host, and IP literals.
    ///
    /// A host name that passes here still has to have each of its addresses judged by
    /// [`Egress::judge`]. `in_cluster` also permits plain http.
    pub fn judge_url(&self, url: &Url, in_cluster: bool) -> Result<(), Blocked> {
        match url.scheme() {
            "https" => {}
            "http" if self.allow_insecure || in_cluster => {}
            "http" => return Err(Blocked::Insecure),
            other => return Err(Blocked::UnsupportedScheme { scheme: other.to_owned() }),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Blocked::UserInfo);
        }
        match url.host().ok_or(Blocked::NoHost)? {
            Host::Ipv4(v4) => self.judge(v4.into(), in_cluster),
            Host::Ipv6(v6) => self.judge(v6.into(), in_cluster),
            Host::Domain(name) if is_localhost(name) => self.judge(Ipv4Addr::LOCALHOST.into(), in_cluster),
            Host::Domain(name) if name.trim_matches('.').is_empty() => Err(Blocked::NoHost),
            Host::Domain(_) => Ok(()),
        }
    }
}

fn judge_range(given: IpAddr, address: IpAddr, in_cluster: bool) -> Result<(), Blocked> {
    let Some(range) = ranges::range_of(address) else { return Ok(()) };
    match range.kind {
        Kind::Private if in_cluster => Ok(()),
        Kind::Metadata => Err(Blocked::Metadata { address: given, name: range.name }),
        Kind::Private | Kind::Special => {
            Err(Blocked::SpecialUse { address: given, name: range.name, source_document: range.source })
        }
    }
}

/// RFC 6761: `localhost` and what ends in `.localhost`, with or without the root's dot.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

/// Whether a CIDR, an IPv4-mapped one taken as IPv4, holds an address.
fn holds(cidr: IpNet, address: IpAddr) -> bool {
    plain_cidr(cidr).contains(&address)
}

/// As [`holds`], and by whatever the address carries, and in its IPv4-mapped spelling: to close too much is safe.
fn closes(cidr: IpNet, address: IpAddr) -> bool {
    let mapped = |v4: Ipv4Addr| cidr.contains(&IpAddr::V6(v4.to_ipv6_mapped()));
    holds(cidr, address)
        || matches!(address, IpAddr::V4(v4) if mapped(v4))
        || embedded::carried(address).any(|v4| holds(cidr, IpAddr::V4(v4)))
}

fn is_or_carries(address: IpAddr, other: IpAddr) -> bool {
    address == other || embedded::carried(address).any(|v4| IpAddr::V4(v4) == other)
}

fn plain_cidr(cidr: IpNet) -> IpNet {
    let IpNet::V6(v6) = cidr else { return cidr };
    let (Some(address), Some(prefix)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) else {
        return cidr;
    };
    Ipv4Net::new(address, prefix).map_or(cidr, IpNet::V4)
}
