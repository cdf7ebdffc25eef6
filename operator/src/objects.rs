//! The objects that a judgement looks at, by name.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use tidings_crds::{AuthServer, Webhook};
use tidings_plan::{ObjectName, SecretText};

use crate::services::Services;

/// The label of a Secret that Webhooks may use, and its value.
pub const SECRET_LABEL: (&str, &str) = ("tidings.dev/webhooks", "allowed");

/// The most bytes of a signing key or a header's value.
pub const KEY_BYTES: usize = 32 << 10;

/// The most bytes of a certificate, a chain of them, or a certificate's key.
pub const CERTIFICATE_BYTES: usize = 64 << 10;

/// The texts of one Secret, by key.
pub type Texts = BTreeMap<String, Text>;

/// A text of a Secret, where it is no larger than anything that could be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// The text.
    Kept(SecretText),
    /// It has so many bytes, and was not kept.
    TooLarge(usize),
}

/// Every object there is.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// The `AuthServers`.
    pub auth_servers: BTreeMap<ObjectName, AuthServer>,
    /// The Webhooks.
    pub webhooks: BTreeMap<ObjectName, Webhook>,
    /// The Secrets' texts.
    pub secrets: BTreeMap<ObjectName, Texts>,
    /// Those of them that carry the label by which Webhooks may use them.
    pub labelled_secrets: BTreeSet<ObjectName>,
    /// Secrets that the operator may not read.
    pub forbidden_secrets: BTreeSet<ObjectName>,
    /// The Services, and the addresses behind them.
    pub services: Services,
    /// The namespaces' labels.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

// === impl Objects ===

impl Objects {
    /// Adds a Secret.
    pub fn add_secret(&mut self, name: ObjectName, secret: Secret) {
        let is_labelled = is_labelled(&secret);
        self.put_secret(name, texts(secret, |_| true), is_labelled);
    }

    /// Takes what is kept of a Secret.
    pub(crate) fn put_secret(&mut self, name: ObjectName, texts: Texts, is_labelled: bool) {
        self.forget_secret(&name);
        if is_labelled {
            self.labelled_secrets.insert(name.clone());
        }
        self.secrets.insert(name, texts);
    }

    /// A Secret is gone, or of no use any more.
    pub(crate) fn forget_secret(&mut self, name: &ObjectName) {
        self.secrets.remove(name);
        self.labelled_secrets.remove(name);
        self.forbidden_secrets.remove(name);
    }
}

// === impl Text ===

impl Text {
    fn of(text: String) -> Self {
        if text.len() > CERTIFICATE_BYTES { Self::TooLarge(text.len()) } else { SecretText::new(text).into() }
    }
}

impl From<SecretText> for Text {
    fn from(text: SecretText) -> Self {
        Self::Kept(text)
    }
}

/// Whether Webhooks may use a Secret where its label is asked for.
pub fn is_labelled(secret: &Secret) -> bool {
    let (key, value) = SECRET_LABEL;
    let labels = secret.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(key)).is_some_and(|found| found == value)
}

/// Of a Secret's `data`, and its `stringData`, which wins as it does in the API server, the texts under the
/// keys that are wanted. A value that is no text is left out; nothing here could use it.
pub fn texts(secret: Secret, is_wanted: impl Fn(&str) -> bool) -> Texts {
    let data = secret.data.unwrap_or_default().into_iter().filter(|(key, _)| is_wanted(key));
    let texts = data.filter_map(|(key, bytes)| Some((key, String::from_utf8(bytes.0).ok()?)));
    let more = secret.string_data.unwrap_or_default().into_iter().filter(|(key, _)| is_wanted(key));
    texts.chain(more).map(|(key, text)| (key, Text::of(text))).collect()
}
