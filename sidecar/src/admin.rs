//! The admin surface, on a port of its own: health, metrics, recent attempts, dead letters, and one action.
//!
//! It shows no body, no secret and no URL. Its pages are read; the one action is `POST /test`, which sends
//! one marked event to a Webhook's endpoint and changes nothing here. A browser's page may not cause it:
//! a request with an `Origin` is refused.
//!
//! In a pod the kubelet and Prometheus come from outside: health and metrics answer anyone. Everything else
//! tells of one team's deliveries, and answers only who is in the pod, as `kubectl port-forward` is; so the
//! right to it is RBAC's. From outside of the pod the operator alone is answered, by its signature
//! ([`crate::admit`]), and only about one Webhook: it has asked the API server for the rights of the person.

mod scrapes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;
use tidings_plan::ObjectName;
use tidings_store::{Store, wall_ms};

use crate::admit::{Admission, Refused};
use crate::front::Surface;
use crate::lane::spec::Spec;
use crate::serve::Peer;
use crate::sidecar::Parts;
use crate::test_event::Busy;

pub(crate) use scrapes::Scrapes;

/// How many dead letters one answer lists at the most.
const MAX_DEAD_LETTERS: usize = 1000;

/// How long an auth server's start waits for the store and the plan. Without them its events are refused; but
/// a store that never opens, or a plan that is never made, must not keep people from signing in.
const PATIENCE: Duration = Duration::from_secs(10);

/// A write or a sync that takes longer than this does not end any more.
const STUCK: Duration = Duration::from_secs(30);

/// The pages that answer anyone.
const OPEN_PAGES: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];

/// The pages that tell of one Webhook, which the operator may ask for from outside of the pod.
const PAGES_OF_ONE: [&str; 4] = ["/deliveries", "/deadletters", "/webhooks", "/test"];

/// Answers one request to the admin port.
pub(crate) async fn answer<S: Store, B>(
    surface: Arc<Surface<S>>,
    request: Request<B>,
) -> Response<Full<Bytes>> {
    if let Err(refused) = admit(&surface.admission, &request) {
        let is_of_key = !matches!(refused, Refused::LoopbackOnly);
        let status = if is_of_key { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        return refusal(status, refused.as_str(), &refused.to_string());
    }
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    match request.uri().path() {
        "/livez" if is_read => alive(&surface),
        "/readyz" if is_read => ready(&surface),
        "/startupz" if is_read => may_start(&surface),
        "/metrics" if is_read => metrics(scrapes::page(&surface).await),
        _ => of_deliveries(&surface, request).await,
    }
}

/// The pages on deliveries, which need the store.
async fn of_deliveries<S: Store, B>(surface: &Surface<S>, request: Request<B>) -> Response<Full<Bytes>> {
    let Some(parts) = surface.parts().map(Arc::clone) else {
        let why = surface.problem().map(|problem| problem.to_string()).unwrap_or_default();
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable", &why);
    };
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
        "/deliveries" => deliveries(&parts, query),
        "/deadletters" => dead_letters(parts, query).await,
        "/replays" => json_of(&parts.engine.replays()),
        "/webhooks" => webhooks(&parts, query),
        _ => refusal(
            StatusCode::NOT_FOUND,
            "NotFound",
            "there are /livez, /readyz, /startupz, /metrics, /webhooks, /replays, /deliveries?webhook=NAMESPACE/NAME, /deadletters?webhook=NAMESPACE/NAME, and POST /test?webhook=NAMESPACE/NAME",
        ),
    }
}

/// Whether a request is answered: open pages always, others to who is in the pod, and those of one Webhook to the
/// operator.
fn admit<B>(admission: &Admission, request: &Request<B>) -> Result<(), Refused> {
    let page = request.uri().path();
    let is_local = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_local());
    if is_local || OPEN_PAGES.contains(&page) {
        return Ok(());
    }
    let is_of_one = webhook_of(request.uri().query().unwrap_or_default()).is_ok();
    if !is_of_one || !PAGES_OF_ONE.contains(&page) {
        return Err(Refused::LoopbackOnly);
    }
    admission.check(request.method(), request.uri(), request.headers(), wall_ms() / 1000)
}

/// How all Webhooks stand, or the one that is named.
fn webhooks<S: Store>(parts: &Parts<S>, query: &str) -> Response<Full<Bytes>> {
    let all = parts.engine.snapshots();
    if query.is_empty() {
        return json_of(&all);
    }
    match webhook_of(query) {
        Ok(one) => json_of(
            &all.into_iter().filter(|snapshot| snapshot.webhook == one.to_string()).collect::<Vec<_>>(),
        ),
        Err(refused) => *refused,
    }
}

/// Whether the auth server beside it may start: a plan runs, or the store or the plan did not come in time.
fn may_start<S: Store>(surface: &Surface<S>) -> Response<Full<Bytes>> {
    let missing = match surface.parts() {
        None => surface.problem().map(|problem| format!("without a store, events are refused: {problem}")),
        Some(parts) => {
            no_plan(surface, parts).map(|why| format!("without a plan, events are refused: {why}"))
        }
    };
    match missing {
        Some(missing) if surface.started.elapsed() < PATIENCE => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("it would start {missing}\n"))
        }
        missing => {
            surface.gives_way();
            text(
                StatusCode::OK,
                missing.map_or_else(|| "ok\n".to_owned(), |missing| format!("ok {missing}\n")),
            )
        }
    }
}

/// Why no plan runs, when none does.
fn no_plan<S: Store>(surface: &Surface<S>, parts: &Parts<S>) -> Option<String> {
    (!parts.receiver.takes_events()).then(|| format!("no plan yet: {}", surface.no_plan_because()))
}

/// Whether the disk answers. One that does not keeps the writer for ever, and every sender with it: a process that
/// starts anew says within a second what is wrong, and refuses events instead of leaving them without an answer.
fn alive<S: Store>(surface: &Surface<S>) -> Response<Full<Bytes>> {
    let running = surface.parts().and_then(|parts| parts.engine.store().commits().running);
    match running.filter(|running| *running >= STUCK) {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(running) => {
            let what = "the store has waited for its disk for";
            let then = "look whether the volume of the data folder answers";
            let body = format!("{what} {} s, and takes no event meanwhile: {then}\n", running.as_secs());
            text(StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

/// Ready once the store is open, a plan runs and events are taken; the reasons stand in the answer.
fn ready<S: Store>(surface: &Surface<S>) -> Response<Full<Bytes>> {
    let no_plan = surface.parts().and_then(|parts| no_plan(surface, parts));
    let problem = surface.problem().map(|problem| problem.to_string());
    let reasons: Vec<_> = no_plan.into_iter().chain(problem).collect();
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

fn metrics(page: Option<Bytes>) -> Response<Full<Bytes>> {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match page {
        Some(page) => with_type(StatusCode::OK, TYPE, page),
        None => {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "EncodingFailed", "the metrics could not be encoded")
        }
    }
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
