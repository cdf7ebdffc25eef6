//! `tidings test`: one marked event to a Webhook's endpoint, and what its answer means.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::connect::Failure;
use super::exchange::SidecarFailure;
use super::sidecars::{Target, Way, in_words};
use super::{SidecarArguments, TextOutput, put};

/// The longest deadline that a Webhook may have, and what the sidecar needs around it.
const PATIENCE: Duration = Duration::from_secs(120 + 10);

/// Sends one marked test event to a Webhook's endpoint, and says what the answer means.
///
/// It goes the real way: a sidecar signs it with the Webhook's keys, and sends it under its address policy,
/// TLS and timeout. The event is named Tidings.Test and carries the header `tidings-test: true`. It is sent
/// once, also while the Webhook is suspended or its circuit is open, and counts in no tally.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES\n  \
    tidings test welcome-mail -n shop\n  \
    tidings test shop/welcome-mail --admin http://127.0.0.1:8788    without a cluster\n\n\
    EXIT CODES\n  0  the endpoint answered 2xx\n  1  it did not, or the event could not be sent\n  2  bad usage")]
pub(crate) struct Arguments {
    /// The Webhook: NAME or NAMESPACE/NAME.
    #[arg(value_name = "WEBHOOK")]
    webhook: String,
    /// How the answer is printed.
    #[arg(short, long, value_enum, default_value_t = TextOutput::Text)]
    output: TextOutput,
    #[command(flatten)]
    sidecars: SidecarArguments,
}

/// What came of it, as the sidecar tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tested {
    /// Which sidecar sent it; the sidecar itself does not say.
    #[serde(default)]
    sidecar: String,
    event: String,
    webhook: String,
    webhook_id: String,
    endpoint_host: Option<String>,
    outcome: String,
    status_code: Option<u16>,
    phase: Option<String>,
    message: String,
    duration_milliseconds: u64,
    timeout_seconds: u64,
}

/// What an answer means, and what to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meaning {
    means: &'static str,
    look_at: &'static str,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    super::run("test", async {
        let target = Target::find(&arguments.webhook, &arguments.sidecars).await?;
        let tested = send(&target).await?;
        match arguments.output {
            TextOutput::Text => put(&in_text(&tested)),
            TextOutput::Json => put(&format!("{:#}\n", serde_json::json!(tested))),
        }
        Ok(tested.was_taken())
    })
}

/// Sends it from the first sidecar that can be reached.
async fn send(target: &Target) -> Result<Tested, Failure> {
    let sidecars = match &target.way {
        Way::Operator(gateway) => return gateway.post(&target.webhook, "/test", PATIENCE).await,
        Way::Sidecars(sidecars) => &sidecars.each,
    };
    let page = target.page("/test");
    let mut last = None;
    for sidecar in sidecars {
        match sidecar.post::<Tested>(&page, PATIENCE).await {
            Ok(tested) => return Ok(Tested { sidecar: sidecar.name.clone(), ..tested }),
            // It may have been sent: a second one from elsewhere would not be one event.
            Err(failure @ SidecarFailure::Timeout(PATIENCE)) => {
                return Err(in_words((sidecar.name.clone(), failure)));
            }
            Err(failure) => last = Some((sidecar.name.clone(), failure)),
        }
    }
    Err(last.map_or_else(|| Failure::Other("no sidecar is there".to_owned()), in_words))
}

fn in_text(tested: &Tested) -> String {
    let Tested { sidecar, event, webhook, webhook_id, endpoint_host, message, .. } = tested;
    let host = endpoint_host.as_deref().unwrap_or("the endpoint");
    let Meaning { means, look_at } = meaning(tested);
    let advice = if look_at.is_empty() { String::new() } else { format!("look at  {look_at}\n") };
    format!(
        "sent     {event} ({webhook_id}) of Webhook {webhook} to {host}, signed with its keys, by sidecar {sidecar}\n\
         answer   {message}, after {} ms of at most {} s\n\
         means    {means}\n\
         {advice}",
        tested.duration_milliseconds, tested.timeout_seconds
    )
}

// === impl Tested ===

impl Tested {
    fn was_taken(&self) -> bool {
        self.status_code.is_some_and(|code| (200..300).contains(&code))
    }
}

// === impl Meaning ===

impl Meaning {
    const fn of(means: &'static str, look_at: &'static str) -> Self {
        Self { means, look_at }
    }
}

fn meaning(tested: &Tested) -> Meaning {
    match tested.status_code {
        Some(code) => of_status(code),
        None => of_failure(&tested.outcome, tested.phase.as_deref().unwrap_or_default(), &tested.message),
    }
}

fn of_status(code: u16) -> Meaning {
    match code {
        200..=299 => Meaning::of("the endpoint takes what is sent", ""),
        300..=399 => Meaning::of(
            "the endpoint redirects, and a delivery follows no redirect",
            "the Webhook's URL: write the one that it redirects to",
        ),
        401 => Meaning::of(
            "the receiver does not accept the signature: its key differs from the Webhook's",
            "the Secret of secretRef and the receiver's own copy of the key (a line break at its end counts); `tidings verify` tells which part of a captured request differs",
        ),
        403 => Meaning::of(
            "the receiver, or a gateway before it, does not let the request in",
            "the signature key as for 401, headers that a gateway asks for (endpoint.headers), and address lists",
        ),
        404 => Meaning::of(
            "the host is right, and there is nothing at this path",
            "the path of the Webhook's URL, and whether the receiver's version with that route is rolled out",
        ),
        405 => Meaning::of("the path is not one for POST", "the path of the Webhook's URL"),
        408 | 504 => Meaning::of(
            "the receiver, or a gateway before it, gave up waiting",
            "how long the receiver works before it answers: take the event, answer 2xx, and work afterwards",
        ),
        410 => Meaning::of(
            "the endpoint is gone for good: a delivery that is answered 410 stops the Webhook until it is changed",
            "the Webhook's URL, or whether the Webhook is still wanted",
        ),
        413 => Meaning::of(
            "the receiver takes no body of this size",
            "the size limit of the receiver or its gateway",
        ),
        415 => Meaning::of(
            "the receiver takes no body of this type",
            "the receiver's content types; the Webhook's format Native is application/json, CloudEvents is application/cloudevents+json",
        ),
        429 => Meaning::of(
            "the receiver is sent too much; deliveries wait as its Retry-After asks",
            "delivery.ratePerSecond and delivery.concurrency of the Webhook",
        ),
        502 | 503 => Meaning::of(
            "a gateway answers, and the receiver behind it does not",
            "whether the receiver's pods are ready, and its Service selects them",
        ),
        500..600 => {
            Meaning::of("the receiver failed over this event", "the receiver's logs, by the webhook-id above")
        }
        _ => Meaning::of(
            "the receiver refuses the event",
            "the receiver's logs, by the webhook-id above: it may not know events named Tidings.Test, then answer 2xx to what carries the header tidings-test",
        ),
    }
}

/// `message` is looked at for hints alone: which of the TLS handshake's failures it was.
fn of_failure(outcome: &str, phase: &str, message: &str) -> Meaning {
    match (outcome, phase) {
        ("AddressBlocked", _) => Meaning::of(
            "the address is one that deliveries may not go to",
            "the AuthServer's egress: the platform team opens a range with egress.allow, and plain http with egress.allowInsecure; an endpoint in the own namespace is named with serviceRef",
        ),
        ("DnsFailed", _) | ("Timeout", "Dns") => Meaning::of(
            "the host's name has no address",
            "the host in the Webhook's URL, and the cluster's DNS: `kubectl run -it --rm dns --image=busybox --restart=Never -- nslookup HOST`",
        ),
        ("ConnectFailed", _) => Meaning::of(
            "nobody takes connections at this host and port",
            "whether the receiver runs, its port, its Service's endpoints, and NetworkPolicies",
        ),
        ("Timeout", "Connect") => Meaning::of(
            "the connection is neither taken nor refused: something drops its packets",
            "NetworkPolicies and firewalls between the sidecar's pod and the endpoint, and the port",
        ),
        ("TlsFailed", _) => of_tls(message),
        ("Timeout", "Tls") => Meaning::of(
            "something takes the connection and speaks no TLS",
            "whether the port is the one for https",
        ),
        ("Timeout", "Reading") => Meaning::of(
            "the receiver begins an answer and does not end it",
            "the receiver: it has to end its answer; a body is not needed",
        ),
        ("Timeout", _) => Meaning::of(
            "the receiver took the request and did not answer in time",
            "how long the receiver works before it answers: take the event, answer 2xx, and work afterwards; or raise delivery.timeoutSeconds",
        ),
        ("ConnectionClosed", _) => Meaning::of(
            "the receiver closed the connection in place of an answer",
            "the receiver's logs (did it crash?), and whether its port speaks plain http or https",
        ),
        ("InvalidAnswer", _) => Meaning::of(
            "what answers there is no HTTP server",
            "the port: it may be one for https, for gRPC, or for something else",
        ),
        _ => Meaning::of("the event did not reach the receiver", "the sentence above"),
    }
}

fn of_tls(message: &str) -> Meaning {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["not valid for name", "NotValidForName"]) {
        return Meaning::of(
            "the certificate is for another name than the URL's host",
            "the host in the Webhook's URL, or endpoint.tls.serverName with the name that the certificate carries",
        );
    }
    if says(&["expired", "Expired"]) {
        return Meaning::of("the certificate has expired", "the receiver's certificate: renew it");
    }
    if says(&["not valid yet", "NotValidYet"]) {
        return Meaning::of("the certificate is not valid yet", "the receiver's certificate, and the clocks");
    }
    if says(&["UnknownIssuer"]) {
        return Meaning::of(
            "the certificate was issued by nobody that is trusted here",
            "endpoint.tls.caSecretRef: the receiver's own CA belongs there; for a public CA, whether the receiver sends its whole chain",
        );
    }
    if says(&["CertificateRequired", "certificate required"]) {
        return Meaning::of("the receiver asks for a client certificate", "endpoint.tls.clientCertSecretRef");
    }
    Meaning::of(
        "no TLS connection came about",
        "whether the port is the one for https, and which TLS versions the receiver speaks (1.2 or 1.3 is needed)",
    )
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError as Wrong;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn tested(outcome: &str, status_code: Option<u16>, phase: Option<&str>, message: &str) -> Tested {
        Tested {
            sidecar: "logto-0".to_owned(),
            event: "Tidings.Test".to_owned(),
            webhook: "shop/mail".to_owned(),
            webhook_id: "msg_1".to_owned(),
            endpoint_host: Some("mail.example.com".to_owned()),
            outcome: outcome.to_owned(),
            status_code,
            phase: phase.map(str::to_owned),
            message: message.to_owned(),
            duration_milliseconds: 12,
            timeout_seconds: 15,
        }
    }

    #[test]
    fn each_answer_has_a_meaning_and_something_to_look_at() {
        let cases = [
            (tested("HttpStatus", Some(401), None, ""), "signature", "secretRef"),
            (tested("HttpStatus", Some(404), None, ""), "nothing at this path", "path"),
            (tested("HttpStatus", Some(410), None, ""), "stops the Webhook", "URL"),
            (tested("HttpStatus", Some(302), None, ""), "redirect", "URL"),
            (tested("HttpStatus", Some(503), None, ""), "behind it", "pods"),
            (tested("AddressBlocked", None, Some("Dns"), ""), "may not go", "egress.allow"),
            (tested("DnsFailed", None, Some("Dns"), ""), "no address", "DNS"),
            (tested("ConnectFailed", None, Some("Connect"), ""), "nobody takes", "NetworkPolicies"),
            (tested("Timeout", None, Some("Connect"), ""), "drops its packets", "firewalls"),
            (tested("Timeout", None, Some("Waiting"), ""), "did not answer in time", "timeoutSeconds"),
        ];
        for (tested, means, look_at) in cases {
            let text = in_text(&tested);
            assert!(text.contains(means) && text.contains(look_at), "{text}");
            assert!(!tested.was_taken());
        }
    }

    #[test]
    fn a_taken_event_needs_no_advice() {
        let text = in_text(&tested("Delivered", Some(204), None, "the endpoint answered 204"));
        assert!(text.contains("answer   the endpoint answered 204, after 12 ms of at most 15 s"), "{text}");
        assert!(!text.contains("look at"), "{text}");
    }

    /// The words are the TLS library's: should it change them, this tells.
    #[test]
    fn the_tls_librarys_words_are_understood() {
        let second = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expected = ServerName::try_from("mail.example.com").unwrap();
        let other_name = Wrong::NotValidForNameContext { expected, presented: vec!["other".to_owned()] };
        let cases = [
            (Wrong::ExpiredContext { time: second(2), not_after: second(1) }, "has expired"),
            (Wrong::NotValidYetContext { time: second(1), not_before: second(2) }, "not valid yet"),
            (other_name, "another name"),
            (Wrong::UnknownIssuer, "nobody that is trusted"),
        ];
        for (wrong, expected) in cases {
            let message = rustls::Error::InvalidCertificate(wrong).to_string();
            assert!(of_tls(&message).means.contains(expected), "{message}");
        }
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired).to_string();
        assert!(of_tls(&alert).means.contains("client certificate"), "{alert}");
    }
}
