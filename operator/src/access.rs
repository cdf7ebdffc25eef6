//! The API by which a team looks at its own deliveries, with no right in the auth server's namespace.
//!
//! ```text
//! kubectl tidings --> API server's service proxy --https--> serve: question -> authorize -> locate -> ask --> sidecars
//!                                                                               |                     |
//!                                                     API server <--- the person's own token   signed by admin.key
//! ```
//!
//! In: a question about one Webhook, with the person's token in a header of our own, since the proxy drops
//! `Authorization`. Out: what the Webhook's sidecars say of it, merged, and who of them said nothing. Whether it may be
//! asked is the API server's to decide: it is asked with that very token, so the operator needs no right for it.
//!
//! Every replica serves it. Everything is bounded: connections, time, bytes, questions at once, in all and for one
//! namespace. It must never log, keep or send on a token (it keeps a hash for some seconds), and never answer anything
//! of a Webhook before the API server said yes. docs/decisions/0004-team-access.md has the reasons.

mod ask;
mod authorize;
mod keys;
mod question;
mod refusal;
mod serve;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;
use tidings_plan::ObjectName;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;
use crate::world::{Location, NotLocated, Place};
use authorize::{Authorizer, Token};
use keys::Keys;
use question::{Page, Question};
use refusal::Refusal;
use serve::Server;
use slots::Slots;

pub use serve::ServeError;

/// How many questions wait for the model.
const LOOKUPS: usize = 64;

/// How long the model may take: it is busy for some hundred milliseconds when thousands of Webhooks change.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);

/// Sidecars that are asked for one question; an auth server has a handful of pods.
const MAX_SIDECARS: usize = 64;

/// Asks the model where a Webhook's sidecars are.
#[derive(Debug)]
pub struct Lookup {
    webhook: ObjectName,
    answer: oneshot::Sender<Result<Location, NotLocated>>,
}

/// The API, ready to serve.
pub struct Access {
    authorizer: Authorizer,
    lookups: mpsc::Sender<Lookup>,
    client: Client,
    keys: Keys,
    slots: Arc<Slots>,
    metrics: Metrics,
}

// === impl Lookup ===

impl Lookup {
    /// Answers it; whoever asked may have gone.
    pub(crate) fn answer(self, find: impl FnOnce(&ObjectName) -> Result<Location, NotLocated>) {
        let _ = self.answer.send(find(&self.webhook));
    }
}

// === impl Access ===

impl Access {
    /// `client` is the operator's own; `nobody` has no credentials, and takes a person's token with each request.
    pub fn new(client: Client, nobody: Client, metrics: Metrics) -> (Self, mpsc::Receiver<Lookup>) {
        let (lookups, asked) = mpsc::channel(LOOKUPS);
        let (authorizer, keys) = (Authorizer::new(nobody), Keys::new(client.clone()));
        (Self { authorizer, lookups, client, keys, slots: Arc::default(), metrics }, asked)
    }

    /// Serves until it is dropped.
    pub async fn serve(self, listener: TcpListener) -> Result<(), ServeError> {
        Server::new(listener)?.run(Arc::new(self)).await;
        Ok(())
    }

    /// Answers one request.
    async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let result = self.try_answer(request).await;
        self.metrics.asked(result.as_ref().err().map_or("Answered", Refusal::reason));
        match result {
            Ok(value) => json(StatusCode::OK, &value),
            Err(refusal) => json(refusal.status(), &refusal.body()),
        }
    }

    async fn try_answer<B>(&self, request: &Request<B>) -> Result<Value, Refusal> {
        let question = Question::of(request.method(), request.uri().path(), request.headers())?;
        let token = Token::of(request.headers())?;
        self.authorizer.authorize(&token, &question).await?;
        let _slot = self.slots.take(&question)?;
        let location = self.locate(&question.webhook).await?;
        let key = self.keys.of(&location.auth_server).await?;
        let places = self.with_addresses(&location).await;
        match question.page {
            Page::Test => ask::one(&key, &question, &places).await,
            Page::Deliveries | Page::DeadLetters => ask::all(&key, &question, &places).await,
        }
    }

    async fn locate(&self, webhook: &ObjectName) -> Result<Location, Refusal> {
        let (answer, answered) = oneshot::channel();
        let lookup = Lookup { webhook: webhook.clone(), answer };
        self.lookups.try_send(lookup).map_err(|_| Refusal::Busy)?;
        let found = tokio::time::timeout(LOOKUP_PATIENCE, answered).await;
        let mut location = found.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Busy)??;
        location.places.truncate(MAX_SIDECARS);
        Ok(location)
    }

    /// Without `spec.podSelector` the model knows those pods only by their reports: they are asked for by name.
    async fn with_addresses(&self, location: &Location) -> Vec<Place> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &location.auth_server.namespace);
        let each = location.places.iter().map(async |place| match place.admin {
            Some(_) => place.clone(),
            None => Place { admin: find(&pods, &place.pod).await, ..place.clone() },
        });
        futures_util::future::join_all(each).await
    }
}

async fn find(pods: &Api<Pod>, name: &str) -> Option<std::net::SocketAddr> {
    // It may list pods, not get them. What is no name of a pod matches nothing.
    let which = ListParams::default().fields(&format!("metadata.name={name}"));
    let listed = tokio::time::timeout(LOOKUP_PATIENCE, pods.list(&which)).await.ok()?.ok()?;
    listed.items.first().and_then(|pod| crate::watch::state(pod).admin)
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
