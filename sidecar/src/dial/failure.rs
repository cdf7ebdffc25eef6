//! Turns a client's error into a reason and a sentence.
//!
//! The sentence ends with the innermost cause in its own words; those are the system's, the TLS
//! library's or the HTTP parser's, and hold nothing of the request or the answer.

use std::error::Error;
use std::io;

use super::resolve::{Forbidden, Unresolved};
use super::{Outcome, Phase};
use crate::words::words;

words! {
    /// Why an attempt had no answer.
    FailureReason {
        /// The policy forbids the address.
        AddressBlocked: "Name a public https endpoint or a serviceRef of the own namespace, or have the platform team open the address in the AuthServer's spec.egress.allow.",
        /// The name has no address.
        DnsFailed: "Look whether the host's name is right and the Service exists, and whether the pod's DNS answers.",
        /// Nobody took the connection.
        ConnectFailed: "Look whether the receiver runs and listens on this port, and whether a NetworkPolicy or firewall lets the auth server's pod reach it.",
        /// The TLS handshake failed.
        TlsFailed: "Look at the receiver's certificate: its name, its expiry and its issuer; a private issuer belongs into spec.endpoint.tls.caSecretRef, another name into serverName.",
        /// The connection broke before the answer was complete.
        ConnectionClosed: "Look at the receiver's log for a crash or restart, and at the limits of proxies before it.",
        /// The answer is not HTTP.
        InvalidAnswer: "Look whether the port speaks HTTP/1.1, and TLS where the URL says https and not where it says http.",
        /// The deadline passed.
        Timeout: "Have the receiver answer first and work later, or raise spec.delivery.timeoutSeconds; the phase tells what was waited for.",
    }
}

/// What was found in an error's chain.
enum Cause<'a> {
    Forbidden(&'a Forbidden),
    Unresolved(&'a Unresolved),
    Tls(&'a rustls::Error),
    TooLarge,
    Parse,
    Other,
}

/// The outcome of an exchange that ended in an error while it was in this phase.
pub(super) fn outcome(error: &(dyn Error + 'static), phase: Phase) -> Outcome {
    let (reason, phase, message) = match cause(error) {
        Cause::Forbidden(Forbidden(blocked)) => {
            (FailureReason::AddressBlocked, Phase::Dns, blocked.to_string())
        }
        Cause::Unresolved(unresolved) => (FailureReason::DnsFailed, Phase::Dns, unresolved.to_string()),
        Cause::Tls(error) => {
            (FailureReason::TlsFailed, Phase::Tls, format!("the TLS handshake failed: {error}"))
        }
        Cause::TooLarge => {
            let message = format!("the answer's head is larger than {} KiB", super::MAX_HEAD_BYTES >> 10);
            (FailureReason::InvalidAnswer, phase, message)
        }
        Cause::Parse => {
            (FailureReason::InvalidAnswer, phase, format!("the answer is not HTTP: {}", innermost(error)))
        }
        Cause::Other if phase == Phase::Tls => {
            let message = format!("the TLS handshake failed: {}", innermost(error));
            (FailureReason::TlsFailed, phase, message)
        }
        Cause::Other if matches!(phase, Phase::Dns | Phase::Connect) => {
            let message = format!("the connection could not be opened: {}", innermost(error));
            (FailureReason::ConnectFailed, Phase::Connect, message)
        }
        Cause::Other => {
            let message = format!("the connection broke while {}: {}", phase.doing(), innermost(error));
            (FailureReason::ConnectionClosed, phase, message)
        }
    };
    Outcome::Failed { phase, reason, message }
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Cause<'a> {
    for error in chain(error) {
        if let Some(forbidden) = error.downcast_ref::<Forbidden>() {
            return Cause::Forbidden(forbidden);
        }
        if let Some(unresolved) = error.downcast_ref::<Unresolved>() {
            return Cause::Unresolved(unresolved);
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Cause::Tls(tls);
        }
        let hyper = error.downcast_ref::<hyper::Error>();
        if hyper.is_some_and(hyper::Error::is_parse_too_large) {
            return Cause::TooLarge;
        }
        if hyper.is_some_and(hyper::Error::is_parse) {
            return Cause::Parse;
        }
    }
    Cause::Other
}

/// The error and what it comes from, down to what an I/O error wraps.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}
