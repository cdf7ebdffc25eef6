//! The objects that a judgement looks at, by name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use tidings_crds::{AuthServer, Webhook};
use tidings_plan::{ObjectName, SecretText};

/// The texts of one Secret, by key.
pub type Texts = BTreeMap<String, SecretText>;

/// Every object there is.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// The `AuthServers`.
    pub auth_servers: BTreeMap<ObjectName, AuthServer>,
    /// The Webhooks.
    pub webhooks: BTreeMap<ObjectName, Webhook>,
    /// The Secrets' texts.
    pub secrets: BTreeMap<ObjectName, Texts>,
    /// The namespaces' labels.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

// === impl Objects ===

impl Objects {
    /// Adds a Secret.
    pub fn add_secret(&mut self, name: ObjectName, secret: Secret) {
        self.secrets.insert(name, texts(secret));
    }
}

/// A Secret's `data`, and its `stringData`, which wins as it does in the API server. A value that is no
/// text is left out; nothing here could use it.
pub fn texts(secret: Secret) -> Texts {
    let data = secret.data.unwrap_or_default().into_iter();
    let texts = data.filter_map(|(key, bytes)| Some((key, String::from_utf8(bytes.0).ok()?)));
    let all = texts.chain(secret.string_data.unwrap_or_default());
    all.map(|(key, text)| (key, SecretText::new(text))).collect()
}
