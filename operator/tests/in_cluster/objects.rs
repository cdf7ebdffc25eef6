//! Objects as users write them, changed word by word.

use serde_json::{Value, json};
use tidings_tests::receiver::Receiver;

/// A Webhook that selects everything.
pub(crate) fn webhook(namespace: &str, name: &str, url: &str, auth: &str) -> Value {
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Webhook",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "authServerRef": { "name": "logto", "namespace": auth },
            "events": ["*"],
            "endpoint": { "url": url },
            "secretRef": { "name": "keys" },
        },
    })
}

/// An `AuthServer` that lets deliveries go to loopback.
pub(crate) fn auth_server(auth: &str) -> Value {
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "AuthServer",
        "metadata": { "name": "logto", "namespace": auth },
        "spec": {
            "ingest": { "signingKeyRef": { "name": "logto-hook", "key": "signingKey" } },
            "allowedNamespaces": { "from": "All" },
            "egress": { "allow": ["127.0.0.0/8", "::1/128"], "allowInsecure": true },
            "defaults": { "delivery": {
                "timeoutSeconds": 5, "retry": { "initialBackoffSeconds": 1, "maxBackoffSeconds": 1 },
            } },
        },
    })
}

/// A Secret.
pub(crate) fn secret(namespace: &str, name: &str, texts: &[(&str, &str)]) -> Value {
    let data = texts.iter().map(|(key, text)| {
        let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
        ((*key).to_owned(), serde_json::to_value(bytes).unwrap())
    });
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": namespace },
        "data": data.collect::<serde_json::Map<_, _>>(),
    })
}

/// Changes an object word by word.
pub(crate) trait Change {
    /// Another value at a place, as in `/spec/suspend`.
    #[must_use]
    fn with(self, pointer: &str, value: Value) -> Self;
    /// Delivers there.
    #[must_use]
    fn to(self, receiver: &Receiver) -> Self;
}

impl Change for Value {
    fn with(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self;
        for key in pointer.split('/').skip(1) {
            if place.is_null() {
                *place = json!({});
            }
            place = &mut place[key];
        }
        *place = value;
        self
    }

    fn to(self, receiver: &Receiver) -> Self {
        self.with("/spec/endpoint/url", json!(receiver.url()))
    }
}
