//! The operator's API, by the API server's service proxy: the way for whoever has a token and a right in the Webhook's
//! own namespace.
//!
//! In: the kubeconfig, and where the operator's Service is. Out: a Webhook's pages, as the operator merged them. The
//! proxy drops `Authorization`, so the token that kube makes of the kubeconfig (static, from a file, of a plugin) is
//! copied into a header of our own. It must never print one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderName, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidings_plan::ObjectName;
use tower::{BoxError, ServiceBuilder};

use super::connect::{Ask, Failure};
use super::exchange::{PAGE, SidecarFailure};
use super::sidecars::Answer;

/// The header with the token.
const TOKEN: HeaderName = HeaderName::from_static("tidings-authorization");

/// The most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// The operator's API.
pub(super) struct Gateway {
    client: Client,
    /// The path of the proxy, before the API's own.
    proxy: String,
    service: ObjectName,
    /// How many sidecars the last answer named.
    sidecars: AtomicUsize,
}

/// Why it cannot be used; another way may be open.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoGateway {
    #[error(
        "the kubeconfig's user has no token, such as one with a client certificate alone, and it can know nobody else"
    )]
    NoToken,
    #[error("the kubeconfig impersonates somebody, which cannot be passed on")]
    Impersonates,
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Away(String),
}

/// What an answer says beside a page: the operator's refusal, or the API server's.
#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// How a sidecar took part.
#[derive(Debug, Deserialize)]
struct Part {
    name: String,
    answered: bool,
    #[serde(default)]
    message: String,
}

// === impl Gateway ===

impl Gateway {
    /// Finds out whether the API can be used: a token is there, and the operator answers.
    pub(super) async fn reach(config: &Config, service: &ObjectName) -> Result<Self, NoGateway> {
        if config.auth_info.impersonate.is_some() {
            return Err(NoGateway::Impersonates);
        }
        let has_token = Arc::new(AtomicBool::new(false));
        let client =
            client(config, Arc::clone(&has_token)).map_err(|error| NoGateway::Failed(error.to_string()))?;
        let ObjectName { namespace, name } = service;
        let proxy = format!("/api/v1/namespaces/{namespace}/services/https:{name}:api/proxy");
        let gateway = Self { client, proxy, service: service.clone(), sidecars: AtomicUsize::new(0) };
        // A path that it does not have is answered in its own words, and asks nobody about anything.
        let answer = gateway.send(Method::GET, "/v1", PAGE).await;
        if !has_token.load(Ordering::Relaxed) {
            return Err(NoGateway::NoToken);
        }
        match answer {
            Ok(_) => Err(gateway.away("it answers something else")),
            Err(SidecarFailure::Refused { reason, .. }) if reason == "NotFound" => Ok(gateway),
            Err(failure) => Err(gateway.away(&failure.to_string())),
        }
    }

    /// How many sidecars the last answer named.
    pub(super) fn sidecars(&self) -> usize {
        self.sidecars.load(Ordering::Relaxed)
    }

    /// A page of a Webhook, apart by sidecar.
    pub(super) async fn all<T: DeserializeOwned>(&self, webhook: &ObjectName, page: &str) -> Vec<Answer<T>> {
        match self.send(Method::GET, &path(webhook, page), PAGE).await {
            Ok(answer) => {
                let answers =
                    apart(&answer, if page == "/deadletters" { "deadLetters" } else { "deliveries" });
                self.sidecars.store(answers.len(), Ordering::Relaxed);
                answers
            }
            Err(failure) => vec![Answer { sidecar: "operator".to_owned(), result: Err(self.of(failure)) }],
        }
    }

    /// Has the operator cause an action; the answer names the sidecar.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        webhook: &ObjectName,
        page: &str,
        patience: Duration,
    ) -> Result<T, Failure> {
        let answer = self.send(Method::POST, &path(webhook, page), patience).await;
        let answer = answer.map_err(|failure| Failure::Other(self.of(failure).to_string()))?;
        serde_json::from_value(answer)
            .map_err(|error| Failure::Other(format!("the operator's answer: {error}")))
    }

    async fn send(&self, method: Method, path: &str, patience: Duration) -> Result<Value, SidecarFailure> {
        let unreachable = |error: &dyn std::fmt::Display| SidecarFailure::Unreachable(error.to_string());
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.proxy))
            .body(Body::empty())
            .map_err(|error| unreachable(&error))?;
        let asking = async {
            let (head, body) =
                self.client.send(request).await.map_err(|error| unreachable(&error))?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| SidecarFailure::Unreadable(error.to_string()))?;
            read(head.status, &body.to_bytes())
        };
        tokio::time::timeout(patience, asking).await.map_err(|_| SidecarFailure::Timeout(patience))?
    }

    fn away(&self, why: &str) -> NoGateway {
        NoGateway::Away(format!("Service {} does not lead to it: {why}", self.service))
    }

    /// The operator's refusal in its own words.
    fn of(&self, failure: SidecarFailure) -> SidecarFailure {
        match failure {
            SidecarFailure::Refused { message, .. } => SidecarFailure::Cluster(Failure::Other(message)),
            SidecarFailure::Cluster(failure) => SidecarFailure::Cluster(failure),
            other => {
                SidecarFailure::Cluster(Failure::Other(format!("the operator {}: {other}", self.service)))
            }
        }
    }
}

/// A client of which each request carries the person's token twice: for the API server, and for the operator.
fn client(config: &Config, has_token: Arc<AtomicBool>) -> kube::Result<Client> {
    let connector = config.rustls_https_connector()?;
    let namespace = config.default_namespace.clone();
    let copy = move |mut request: Request<Body>| {
        let token = request.headers().get(header::AUTHORIZATION).cloned();
        if let Some(token) = token.filter(|value| value.as_bytes().starts_with(b"Bearer ")) {
            has_token.store(true, Ordering::Relaxed);
            request.headers_mut().insert(TOKEN, token);
        }
        request
    };
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .map_request(copy)
        .service(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, namespace))
}

/// The API's own path. Names of objects hold nothing that a path must escape, but a user may write anything.
fn path(webhook: &ObjectName, page: &str) -> String {
    let escape = super::sidecars::escape;
    format!("/v1/namespaces/{}/webhooks/{}{page}", escape(&webhook.namespace), escape(&webhook.name))
}

fn read(status: StatusCode, body: &[u8]) -> Result<Value, SidecarFailure> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| SidecarFailure::Unreadable(error.to_string()));
    }
    let Ok(Said { kind, reason, message }) = serde_json::from_slice(body) else {
        return Err(SidecarFailure::Unreadable(format!("it answered {status}")));
    };
    if kind != "Status" {
        return Err(SidecarFailure::Refused { reason, message });
    }
    // The API server's own refusal.
    Err(SidecarFailure::Cluster(match status {
        StatusCode::UNAUTHORIZED => Failure::Unauthenticated,
        StatusCode::FORBIDDEN => Failure::Forbidden(Ask::new("get and create", "", "services/proxy")),
        _ => Failure::Other(message),
    }))
}

/// The rows of one answer, as if each sidecar had been asked by itself.
fn apart<T: DeserializeOwned>(answer: &Value, list: &str) -> Vec<Answer<T>> {
    let parts: Vec<Part> = serde_json::from_value(answer["sidecars"].clone()).unwrap_or_default();
    let rows = answer[list].as_array().cloned().unwrap_or_default();
    let of = |name: &str| -> Vec<_> { rows.iter().filter(|row| row["sidecar"] == name).cloned().collect() };
    let answers = parts.into_iter().map(|Part { name, answered, message }| {
        let result = if answered {
            serde_json::from_value(json!({ list: of(&name) }))
                .map_err(|error| SidecarFailure::Unreadable(error.to_string()))
        } else {
            Err(SidecarFailure::Refused { reason: String::new(), message })
        };
        Answer { sidecar: name, result }
    });
    answers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_answer_is_taken_apart_by_sidecar_and_who_is_silent_is_named() {
        let answer = json!({
            "webhook": "shop/mail", "deliveries": [{ "n": 1, "sidecar": "a" }, { "n": 2, "sidecar": "a" }],
            "sidecars": [{ "name": "a", "answered": true }, { "name": "b", "answered": false, "message": "away" }],
        });
        let answers: Vec<Answer<Value>> = apart(&answer, "deliveries");
        assert_eq!(answers[0].result.as_ref().unwrap()["deliveries"].as_array().unwrap().len(), 2);
        assert_eq!(answers[1].result.as_ref().unwrap_err().to_string(), "away");
    }

    #[test]
    fn the_operators_refusal_is_told_from_the_api_servers() {
        let forbidden = StatusCode::FORBIDDEN;
        let ours =
            read(forbidden, br#"{"reason":"Forbidden","message":"forbidden: the verb get"}"#).unwrap_err();
        assert_eq!(ours.to_string(), "forbidden: the verb get");
        let theirs = read(forbidden, br#"{"kind":"Status","reason":"Forbidden","message":"x"}"#).unwrap_err();
        assert!(theirs.to_string().contains("services/proxy"), "{theirs}");
    }
}
