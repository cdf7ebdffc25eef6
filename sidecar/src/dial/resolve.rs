//! Resolves names, and hands out only addresses that the policy lets pass.
//!
//! The client dials what it gets from here and asks nobody else, so the address that was judged is the
//! address that is dialled; a name that resolves elsewhere the next time is judged again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tidings_egress::{Blocked, Egress};
use tower_service::Service;

use super::lookup::LOOKUPS;
use super::trace::{Phase, namespace, reached};

/// A name that has no address.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address: {0}")]
pub(super) struct Unresolved(String);

/// Every address of a name is forbidden; the first one tells why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Forbidden(pub(super) Blocked);

/// Resolves under a policy.
#[derive(Clone)]
pub(super) struct JudgingResolver {
    egress: Arc<Egress>,
    in_cluster: bool,
    /// What a name stands for, where the plan has it.
    addresses: Option<Arc<[IpAddr]>>,
}

type Answer = Result<std::vec::IntoIter<SocketAddr>, Box<dyn std::error::Error + Send + Sync>>;

// === impl JudgingResolver ===

impl JudgingResolver {
    pub(super) fn new(egress: Arc<Egress>, in_cluster: bool, addresses: Option<Arc<[IpAddr]>>) -> Self {
        Self { egress, in_cluster, addresses }
    }
}

impl Service<Name> for JudgingResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { egress, in_cluster, addresses } = self.clone();
        Box::pin(async move {
            reached(Phase::Dns);
            let found = match addresses {
                Some(addresses) => planned(addresses)?,
                None => look_up(&name).await?,
            };
            let passed = judge(&egress, in_cluster, &found)?;
            reached(Phase::Connect);
            Ok(passed.into_iter())
        })
    }
}

/// The addresses of a Service as the plan has them: nobody is asked.
fn planned(addresses: Arc<[IpAddr]>) -> Result<Arc<[IpAddr]>, Unresolved> {
    match &*addresses {
        [] => Err(Unresolved("no Pod of the Service is ready".to_owned())),
        _ => Ok(addresses),
    }
}

async fn look_up(name: &Name) -> Result<Arc<[IpAddr]>, Unresolved> {
    let found = LOOKUPS.find(name.as_str(), &namespace()).await;
    found.map_err(|error| Unresolved(error.to_string()))
}

/// The addresses that may be dialled; an error when there is none.
fn judge(
    egress: &Egress,
    in_cluster: bool,
    found: &[IpAddr],
) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut passed, mut refused) = (Vec::with_capacity(found.len()), None);
    for &address in found {
        match egress.judge(address, in_cluster) {
            Ok(()) => passed.push(SocketAddr::new(address, 0)),
            Err(blocked) => refused = refused.or(Some(blocked)),
        }
    }
    match refused {
        Some(blocked) if passed.is_empty() => Err(Forbidden(blocked).into()),
        None if passed.is_empty() => Err(Unresolved("the answer is empty".to_owned()).into()),
        _ => Ok(passed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_addresses_that_pass_are_handed_out() {
        let passed = judge(&Egress::default(), false, &at(&["127.0.0.1", "93.184.216.34", "::1"])).unwrap();
        assert_eq!(passed, ["93.184.216.34:0".parse().unwrap()]);
    }

    #[test]
    fn a_name_with_forbidden_addresses_alone_is_refused_with_the_rule() {
        let error = judge(&Egress::default(), false, &at(&["10.0.0.1", "169.254.169.254"])).unwrap_err();
        assert!(error.to_string().contains("RFC 1918"), "{error}");
    }
}
