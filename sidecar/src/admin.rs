//! The admin surface, on a port of its own: health, metrics, recent attempts, dead letters, and one action.
//!
//! It shows no body, no secret and no URL. Its pages are read; the one action is `POST /test`, which sends
//! one marked event to a Webhook's endpoint and changes nothing here. A browser's page may not cause it:
//! a request with an `Origin` is refused.
//!
//! In a pod the kubelet and Prometheus come from outside: health and metrics answer anyone. Everything else
//! tells of one team's deliveries, and answers only who is in the pod, as `kubectl port-forward` is; so the
//! right to it is RBAC's.

mod scrapes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;
use tidings_plan::ObjectName;
use tidings_store::Store;

use crate::lane::spec::Spec;
use crate::serve::Peer;
use crate::sidecar::Parts;
use crate::test_event::Busy;

pub(crate) use scrapes::Scrapes;

/// How many dead letters one answer lists at the most.
const MAX_DEAD_LETTERS: usize = 1000;

/// How long an auth server's start waits for the plan. Without one its events are refused; but a plan that
/// is never made must not keep people from signing in.
const PLAN_PATIENCE: Duration = Duration::from_secs(10);

/// The pages that answer anyone.
const OPEN_PAGES: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];

/// Answers one request to the admin port.
pub(crate) async fn answer<S: Store, B>(parts: Arc<Parts<S>>, request: Request<B>) -> Response<Full<Bytes>> {
    let is_local = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_local());
    if !is_local && !OPEN_PAGES.contains(&request.uri().path()) {
        return refusal(
            StatusCode::FORBIDDEN,
            "LoopbackOnly",
            "this page answers who is in the pod: use kubectl tidings, or kubectl port-forward",
        );
    }
    if request.uri().path() == "/test" {
        return match to_test(&parts, &request) {
            Ok(spec) => test(&parts, &spec).await,
            Err(refused) => *refused,
        };
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the admin surface is read with GET",
        );
    }
    let query = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => ready(&parts),
        "/startupz" => may_start(&parts),
        "/metrics" => match scrapes::page(&parts).await {
            Some(page) => metrics(page),
            None => refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "EncodingFailed",
                "the metrics could not be encoded",
            ),
        },
        "/deliveries" => deliveries(&parts, query),
        "/deadletters" => dead_letters(parts, query).await,
        "/replays" => json_of(&parts.engine.replays()),
        "/webhooks" => json_of(&parts.engine.snapshots()),
        _ => refusal(
            StatusCode::NOT_FOUND,
            "NotFound",
            "there are /livez, /readyz, /startupz, /metrics, /webhooks, /replays, /deliveries?webhook=NAMESPACE/NAME, /deadletters?webhook=NAMESPACE/NAME, and POST /test?webhook=NAMESPACE/NAME",
        ),
    }
}

/// Whether the auth server beside it may start: a plan runs, or none came in time.
fn may_start<S: Store>(parts: &Parts<S>) -> Response<Full<Bytes>> {
    match no_plan(parts) {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(reason) if parts.started.elapsed() < PLAN_PATIENCE => {
            text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n")
        }
        Some(reason) => text(StatusCode::OK, format!("ok without a plan, events are refused: {reason}\n")),
    }
}

/// Why no plan runs, when none does.
fn no_plan<S: Store>(parts: &Parts<S>) -> Option<String> {
    if parts.receiver.takes_events() {
        return None;
    }
    let waiting = || "waiting for one".to_owned();
    let because = parts.surroundings.get().map_or_else(waiting, |around| around.no_plan_because());
    Some(format!("no plan yet: {because}"))
}

/// Ready once a plan runs and events are taken; the reasons stand in the answer.
fn ready<S: Store>(parts: &Parts<S>) -> Response<Full<Bytes>> {
    let mut reasons: Vec<_> = no_plan(parts).into_iter().collect();
    if let Err(error) = parts.engine.store().writable() {
        reasons.push(error.to_string());
    }
    if reasons.is_empty() {
        return text(StatusCode::OK, "ok\n".to_owned());
    }
    text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
}

fn deliveries<S: Store>(parts: &Parts<S>, query: &str) -> Response<Full<Bytes>> {
    let webhook = match webhook_of(query) {
        Ok(webhook) => webhook,
        Err(refused) => return *refused,
    };
    match parts.engine.recent(&webhook) {
        Some(attempts) => json_of(&json!({ "webhook": webhook.to_string(), "deliveries": attempts })),
        None => unknown(&webhook),
    }
}

async fn dead_letters<S: Store>(parts: Arc<Parts<S>>, query: &str) -> Response<Full<Bytes>> {
    let webhook = match webhook_of(query) {
        Ok(webhook) => webhook,
        Err(refused) => return *refused,
    };
    let name = webhook.to_string();
    let read =
        tokio::task::spawn_blocking(move || parts.engine.dead_letters(&webhook, MAX_DEAD_LETTERS)).await;
    match read {
        Ok(Ok(letters)) => json_of(&json!({ "webhook": name, "deadLetters": letters })),
        Ok(Err(error)) => refusal(StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable", &error.to_string()),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable", "the look-up was cut short"),
    }
}

/// The Webhook that a test event is asked for.
fn to_test<S: Store, B>(
    parts: &Parts<S>,
    request: &Request<B>,
) -> Result<Arc<Spec>, Box<Response<Full<Bytes>>>> {
    let refused = |status, reason: &str, message: &str| Err(Box::new(refusal(status, reason, message)));
    if request.method() != Method::POST {
        let message = "a test event is sent with POST /test?webhook=NAMESPACE/NAME";
        return refused(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
    }
    if request.headers().contains_key(header::ORIGIN) {
        let message = "a browser's page may not send test events: use kubectl tidings test, or curl";
        return refused(StatusCode::FORBIDDEN, "OriginRefused", message);
    }
    let webhook = webhook_of(request.uri().query().unwrap_or_default())?;
    if let Some(spec) = parts.engine.spec(&webhook) {
        return Ok(spec);
    }
    match parts.engine.applied().rejected.iter().find(|(name, _)| *name == webhook) {
        Some((_, why)) => refused(StatusCode::CONFLICT, "WebhookLeftOut", why),
        None => Err(Box::new(unknown(&webhook))),
    }
}

/// Sends one test event, and answers with what came of it.
async fn test<S: Store>(parts: &Parts<S>, spec: &Spec) -> Response<Full<Bytes>> {
    match parts.tester.send(spec).await {
        Ok(tested) => json_of(&tested),
        Err(Busy) => refusal(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyTests",
            "a few test events are under way: wait for them, and ask again",
        ),
    }
}

fn webhook_of(query: &str) -> Result<ObjectName, Box<Response<Full<Bytes>>>> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "webhook")
        .and_then(|(_, value)| ObjectName::parse(&value))
        .ok_or_else(|| {
            Box::new(refusal(
                StatusCode::BAD_REQUEST,
                "MissingWebhook",
                "name a Webhook: ?webhook=NAMESPACE/NAME",
            ))
        })
}

fn unknown(webhook: &ObjectName) -> Response<Full<Bytes>> {
    let message = format!("the plan holds no Webhook {webhook}; /webhooks lists those that it holds");
    refusal(StatusCode::NOT_FOUND, "UnknownWebhook", &message)
}

fn refusal(status: StatusCode, reason: &str, message: &str) -> Response<Full<Bytes>> {
    let mut response = json_of(&json!({ "reason": reason, "message": message }));
    *response.status_mut() = status;
    response
}

fn json_of(value: &impl Serialize) -> Response<Full<Bytes>> {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    with_type(StatusCode::OK, "application/json", Bytes::from(body))
}

fn metrics(page: Bytes) -> Response<Full<Bytes>> {
    with_type(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", page)
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", Bytes::from(body))
}

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
