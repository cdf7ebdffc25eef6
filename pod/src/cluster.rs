//! The way to the API server, and its refusals in words that name what to do.

use std::error::Error as _;
use std::time::Duration;

use kube::{Client, Config};

/// How long a connection to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request may take; a watch is bounded apart from this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the sidecar's rights are written down.
const RIGHTS: &str = "config/sidecar/rbac.yaml has the rights that the sidecar's ServiceAccount needs";

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The sidecar may not.
    #[error("not allowed to {verb} {object}: {RIGHTS}")]
    Forbidden {
        /// What was asked: get, watch, patch, delete.
        verb: &'static str,
        /// Of what.
        object: String,
    },
    /// The token is not known, or has expired.
    #[error("the API server does not accept the sidecar's token")]
    Unauthorized,
    /// There is none.
    #[error("{object} is not there")]
    Absent {
        /// What.
        object: String,
    },
    /// The API server refused.
    #[error("the API server refused to {verb} {object}: {message}")]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// Of what.
        object: String,
        /// The API server's word.
        message: String,
    },
    /// There was no answer.
    #[error("the API server is not reachable: {0}")]
    Unreachable(String),
    /// The answer is not what was asked for. Not quoted: it could be a Secret.
    #[error("the API server's answer about {object} is not readable")]
    Unreadable {
        /// About what.
        object: String,
    },
}

/// Why there is no way to an API server at all.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Neither a pod's token nor a kubeconfig.
    #[error(
        "there is no way to an API server: {0}. In a pod its ServiceAccount's token must be mounted; elsewhere set KUBECONFIG, or use --plan DIR"
    )]
    NoConfig(#[from] Box<kube::config::InferConfigError>),
    /// The configuration cannot be used.
    #[error("the way to the API server cannot be used: {0}")]
    Client(#[from] kube::Error),
}

/// A client as KUBECONFIG or the pod tells it. Nothing is asked yet.
pub async fn connect() -> Result<Client, ClusterError> {
    let mut config = Config::infer().await.map_err(Box::new)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // What fails is tried again here, with the newest there is to ask or to say.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Asks once, within a bound.
pub(crate) async fn ask<T>(
    verb: &'static str,
    object: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Trouble::of(verb, object, error)),
        Err(_) => Err(Trouble::Unreachable(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))),
    }
}

// === impl Trouble ===

impl Trouble {
    /// What an error of the client means.
    pub(crate) fn of(verb: &'static str, object: &str, error: kube::Error) -> Self {
        let object = object.to_owned();
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Unauthorized,
                403 => Self::Forbidden { verb, object },
                404 => Self::Absent { object },
                _ => Self::Refused { verb, object, message: status.message },
            },
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Unreadable { object },
            other => Self::Unreachable(innermost(&other)),
        }
    }
}

/// The innermost cause in its own words; those around it say only that there was an error.
fn innermost(error: &kube::Error) -> String {
    std::iter::successors(error.source(), |&error| error.source())
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string)
}
