//! Whether the person behind a token may ask a question: the API server is asked, with that very token.
//!
//! In: a token and a question. Out: yes, or why not. A `SelfSubjectAccessReview` may be created by whoever is
//! authenticated, so the operator needs no right to review others. Answers count for [`KEPT`], by a hash of the token
//! and the question. It must never keep, log or send on a token to anybody but the API server.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, header};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::question::Question;
use super::refusal::Refusal;

/// The header with the token; the API server's proxy drops `Authorization`.
pub(super) const TOKEN_HEADER: &str = "tidings-authorization";

/// How long an answer of the API server counts: a right that is taken away is gone within it.
const KEPT: Duration = Duration::from_secs(10);

/// How many answers are kept.
const MAX_KEPT: usize = 4096;

/// How many reviews are under way at once, and how long one may take, its wait for a place included.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// A person's token. It has no `Debug` and no `Display`.
pub(super) struct Token(String);

/// Asks the API server.
pub(super) struct Authorizer {
    /// Has no credentials of its own.
    client: Client,
    kept: Mutex<HashMap<[u8; 32], (Instant, Verdict)>>,
    slots: Semaphore,
}

/// The API server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Denied,
    Unauthenticated,
}

// === impl Token ===

impl Token {
    /// The token of a request. An empty one, or one with a blank in it, would be anonymous to the API server.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let value = headers.get(TOKEN_HEADER).ok_or(Refusal::NoToken)?;
        let text = value.to_str().map_err(|_| Refusal::InvalidToken)?;
        let token = text.strip_prefix("Bearer ").ok_or(Refusal::InvalidToken)?;
        let is_one = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        is_one.then(|| Self(token.to_owned())).ok_or(Refusal::InvalidToken)
    }

    fn header(&self) -> Result<HeaderValue, Refusal> {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", self.0)).map_err(|_| Refusal::InvalidToken)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// What is remembered in its place.
    fn hash(&self, question: &Question) -> [u8; 32] {
        let page = question.page;
        let asked = format!("\n{} {} {}", question.webhook, page.verb(), page.subresource());
        Sha256::new().chain_update(&self.0).chain_update(asked).finalize().into()
    }
}

// === impl Authorizer ===

impl Authorizer {
    /// `client` must have no credentials: what it sends carries the person's.
    pub(super) fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default(), slots: Semaphore::new(AT_ONCE) }
    }

    /// Whether this may be asked.
    pub(super) async fn authorize(&self, token: &Token, question: &Question) -> Result<(), Refusal> {
        let hash = token.hash(question);
        let kept = self.kept(&hash);
        let verdict = if let Some(verdict) = kept { verdict } else { self.review(token, question).await? };
        if kept.is_none() {
            self.keep(hash, verdict);
        }
        match verdict {
            Verdict::Allowed => Ok(()),
            Verdict::Denied => Err(Refusal::forbidden(question)),
            Verdict::Unauthenticated => Err(Refusal::Unauthenticated),
        }
    }

    async fn review(&self, token: &Token, question: &Question) -> Result<Verdict, Refusal> {
        let request = request(token, question)?;
        let asking = async {
            let _slot = self.slots.acquire().await;
            self.client.request::<SelfSubjectAccessReview>(request).await
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        match answer.map_err(|_| Refusal::ReviewUnavailable)? {
            Ok(review) if review.status.as_ref().is_some_and(|status| status.allowed) => Ok(Verdict::Allowed),
            Ok(_) => Ok(Verdict::Denied),
            Err(kube::Error::Api(status)) if status.code == 401 => Ok(Verdict::Unauthenticated),
            // Who may not even ask for itself may do nothing.
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(Verdict::Denied),
            Err(_) => Err(Refusal::ReviewUnavailable),
        }
    }

    fn kept(&self, hash: &[u8; 32]) -> Option<Verdict> {
        let kept = self.lock();
        kept.get(hash).filter(|(until, _)| Instant::now() < *until).map(|(_, verdict)| *verdict)
    }

    fn keep(&self, hash: [u8; 32], verdict: Verdict) {
        let (mut kept, now) = (self.lock(), Instant::now());
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (until, _)| now < *until);
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(hash, (now + KEPT, verdict));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], (Instant, Verdict)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request(token: &Token, question: &Question) -> Result<Request<Vec<u8>>, Refusal> {
    let Question { webhook, page } = question;
    let attributes = ResourceAttributes {
        verb: Some(page.verb().to_owned()),
        group: Some("tidings.dev".to_owned()),
        resource: Some("webhooks".to_owned()),
        subresource: Some(page.subresource().to_owned()),
        namespace: Some(webhook.namespace.clone()),
        name: Some(webhook.name.clone()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    Request::post(REVIEWS)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, token.header()?)
        .body(serde_json::to_vec(&review).unwrap_or_default())
        .map_err(|_| Refusal::ReviewUnavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> Result<Token, Refusal> {
        Token::of(&HeaderMap::from_iter([(
            TOKEN_HEADER.parse().unwrap(),
            HeaderValue::from_str(header).unwrap(),
        )]))
    }

    #[test]
    fn only_a_bearer_token_that_the_api_server_reads_as_one_is_sent_on() {
        assert!(token("Bearer eyJ.x-y_z").is_ok());
        for wrong in ["", "Bearer", "Bearer ", "Bearer a b", "Bearer  a", "bearer a", "Basic YTpi"] {
            assert!(token(wrong).is_err(), "{wrong:?}");
        }
        assert!(matches!(Token::of(&HeaderMap::new()), Err(Refusal::NoToken)));
    }
}
