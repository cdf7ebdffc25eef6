//! What is asked: a page of one Webhook, and the right that it takes.

use http::{HeaderMap, Method, header};
use tidings_plan::ObjectName;

use super::refusal::Refusal;

/// A page of a Webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// The recent attempts.
    Deliveries,
    /// The events that were given up.
    DeadLetters,
    /// One test event.
    Test,
}

/// A question about one Webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) webhook: ObjectName,
    pub(super) page: Page,
}

// === impl Page ===

impl Page {
    fn of(name: &str) -> Option<Self> {
        match name {
            "deliveries" => Some(Self::Deliveries),
            "deadletters" => Some(Self::DeadLetters),
            "test" => Some(Self::Test),
            _ => None,
        }
    }

    /// The method, here and at the sidecar.
    pub(super) fn method(self) -> Method {
        if self == Self::Test { Method::POST } else { Method::GET }
    }

    /// The verb of the right.
    pub(super) fn verb(self) -> &'static str {
        if self == Self::Test { "create" } else { "get" }
    }

    /// The subresource of the right: who may see deliveries may see those that were given up.
    pub(super) fn subresource(self) -> &'static str {
        if self == Self::Test { "test" } else { "deliveries" }
    }

    /// The sidecar's page.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Deliveries => "/deliveries",
            Self::DeadLetters => "/deadletters",
            Self::Test => "/test",
        }
    }

    /// The list in the sidecar's page, and the field of its rows that holds their time.
    pub(super) fn list(self) -> (&'static str, &'static str) {
        match self {
            Self::DeadLetters => ("deadLetters", "at_ms"),
            Self::Deliveries | Self::Test => ("deliveries", "timeMs"),
        }
    }
}

// === impl Question ===

impl Question {
    /// Reads `/v1/namespaces/NAMESPACE/webhooks/NAME/PAGE`.
    pub(super) fn of(method: &Method, path: &str, headers: &HeaderMap) -> Result<Self, Refusal> {
        // The API server's proxy asks for a directory with a slash at its end.
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let ["v1", "namespaces", namespace, "webhooks", name, page] = parts[..] else {
            return Err(Refusal::NotFound);
        };
        let page = Page::of(page).ok_or(Refusal::NotFound)?;
        if !is_name(namespace, 63) || !is_name(name, 253) {
            return Err(Refusal::InvalidName);
        }
        if *method != page.method() {
            return Err(Refusal::MethodNotAllowed(page.method()));
        }
        if headers.contains_key(header::ORIGIN) {
            return Err(Refusal::OriginRefused);
        }
        Ok(Self { webhook: ObjectName::new(namespace, name), page })
    }

    /// The sidecar's path and query. A name holds nothing that a query must escape.
    pub(super) fn target(&self) -> String {
        format!("{}?webhook={}", self.page.path(), self.webhook)
    }
}

/// Whether it can be an object's name: nothing else goes into a path or a query.
fn is_name(text: &str, longest: usize) -> bool {
    !text.is_empty()
        && text.len() <= longest
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &Method, path: &str) -> Result<Question, Refusal> {
        Question::of(method, path, &HeaderMap::new())
    }

    #[test]
    fn a_page_of_a_webhook_takes_the_right_to_its_subresource() {
        let cases = [
            (Method::GET, "deliveries", ("get", "deliveries")),
            (Method::GET, "deadletters", ("get", "deliveries")),
            (Method::POST, "test", ("create", "test")),
        ];
        for (method, page, right) in cases {
            let question = of(&method, &format!("/v1/namespaces/shop/webhooks/mail/{page}")).unwrap();
            assert_eq!(question.webhook, ObjectName::new("shop", "mail"));
            assert_eq!((question.page.verb(), question.page.subresource()), right);
            assert_eq!(question.target(), format!("/{page}?webhook=shop/mail"));
        }
    }

    #[test]
    fn what_is_no_page_no_name_or_another_method_is_refused() {
        let path =
            |namespace: &str, name: &str| format!("/v1/namespaces/{namespace}/webhooks/{name}/deliveries");
        for (namespace, name) in [("shop", "a%2Fb"), ("", "mail"), ("shop", "A"), ("shop", "a&webhook=b")] {
            assert!(of(&Method::GET, &path(namespace, name)).is_err(), "{namespace} {name}");
        }
        assert!(of(&Method::GET, &path("shop", &"a".repeat(254))).is_err());
        assert!(matches!(of(&Method::POST, &path("shop", "mail")), Err(Refusal::MethodNotAllowed(_))));
        assert!(matches!(
            of(&Method::GET, "/v1/namespaces/shop/webhooks/mail/replays"),
            Err(Refusal::NotFound)
        ));
        assert!(matches!(of(&Method::GET, "/"), Err(Refusal::NotFound)));
    }
}
