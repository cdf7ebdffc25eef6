//! The requests for one Lease, and what their answers mean.
//!
//! It must never write without a `resourceVersion`, and never tell a write that may have been applied from one that
//! was not: only "someone else was faster" is certain.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::candidate::{Answer, Request};
use crate::record::{Claim, Record};

/// One Lease on the API server, and what we write into it.
#[derive(Debug)]
pub(crate) struct Store {
    api: Api<Lease>,
    namespace: String,
    name: String,
    claim: Claim,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the API server did not answer in time")]
    TimedOut,
    #[error(
        "the API server forbids it; grant this service account get, create and update on leases.coordination.k8s.io"
    )]
    Forbidden(#[source] kube::Error),
    #[error("the request failed: {0}")]
    Failed(#[source] kube::Error),
    #[error("the answer has no resourceVersion, so that no write could be guarded")]
    Unversioned,
}

// === impl Store ===

impl Store {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, claim: Claim) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, namespace: namespace.to_owned(), name: name.to_owned(), claim }
    }

    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, RequestError> {
        match request {
            Request::Read => self.read().await,
            Request::Claim(None) => {
                let lease = self.claim.created(&self.namespace, &self.name, Timestamp::now());
                written(self.api.create(&PostParams::default(), &lease).await)
            }
            Request::Claim(Some(record)) => self.replace(record.claimed(&self.claim, Timestamp::now())).await,
            Request::Release(record) => self.replace(record.released(Timestamp::now())).await,
        }
    }

    async fn read(&self) -> Result<Answer, RequestError> {
        match self.api.get_opt(&self.name).await {
            Ok(Some(lease)) => Record::new(lease).map(Answer::Found).ok_or(RequestError::Unversioned),
            Ok(None) => Ok(Answer::Absent),
            Err(error) => Err(RequestError::from(error)),
        }
    }

    async fn replace(&self, lease: Lease) -> Result<Answer, RequestError> {
        written(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }
}

fn written(result: kube::Result<Lease>) -> Result<Answer, RequestError> {
    match result {
        Ok(lease) => Record::new(lease).map(Answer::Written).ok_or(RequestError::Unversioned),
        Err(kube::Error::Api(status)) if is_outpaced(&status) => Ok(Answer::Outpaced),
        Err(error) => Err(RequestError::from(error)),
    }
}

/// Changed (409 Conflict), created (409 `AlreadyExists`) or deleted (404) by someone else.
fn is_outpaced(status: &kube::core::Status) -> bool {
    status.is_conflict() || status.is_already_exists() || status.is_not_found()
}

// === impl RequestError ===

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden(error),
            _ => Self::Failed(error),
        }
    }
}
