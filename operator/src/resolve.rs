//! Resolves what objects refer to: Secrets, namespaces, defaults.
//!
//! In: an object beside all the others. Out: what it refers to, or the first thing that is missing, by
//! field. A Secret is always of the object's own namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tidings_crds::{
    AuthServer, AuthServerSpec, DeliverySpec, EndpointSpec, From, GenericEvents, Operator, SecretPolicy,
    Selector, SentAgain as SentAgainSpec, SigningKeyRef, TlsSpec, Webhook, WebhookSpec,
};
use tidings_egress::Egress;
use tidings_plan::{Ingest, ObjectName, Pointer, SecretText, SentAgain, Tls, shards};

use crate::bounds::Bounds;
use crate::objects::{CERTIFICATE_BYTES, KEY_BYTES, SECRET_LABEL, Text, Texts};
use crate::{Finding, Objects, Reason, grants};

/// The key that also signs while keys are rotated.
const PREVIOUS: &str = "previousSigningKey";

/// The keys of a Secret of type kubernetes.io/tls.
const CERT: &str = "tls.crt";
const CERT_KEY: &str = "tls.key";

/// What an `AuthServer` gives to all of its Webhooks.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) ingest: Ingest,
    pub(crate) egress: Egress,
    pub(crate) defaults: DeliverySpec,
    pub(crate) bounds: Bounds,
    pub(crate) secret_policy: SecretPolicy,
}

/// What a Webhook refers to.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The endpoint's URL where that is a secret.
    pub(crate) url: Option<SecretText>,
    pub(crate) signing_keys: Vec<SecretText>,
    pub(crate) headers: BTreeMap<String, SecretText>,
    pub(crate) tls: Tls,
    /// What may be dialled for a Service; `None` for a URL, and where no cluster tells.
    pub(crate) addresses: Option<Vec<IpAddr>>,
}

/// Resolves an `AuthServer`; every finding at once.
pub(crate) fn auth_server(
    objects: &Objects,
    name: &ObjectName,
    server: &AuthServer,
) -> Result<Frame, Vec<Finding>> {
    let spec = &server.spec;
    let mut findings = crate::named::of_server(name, spec);
    let mut keys = Vec::new();
    if let Some(ingest) = &spec.ingest {
        let (key, field) = (&ingest.signing_key_ref, "spec.ingest.signingKeyRef");
        let secret = Secret { objects, namespace: &name.namespace, policy: SecretPolicy::Any };
        match secret.signing_keys(&SigningKeyRef { name: key.name.clone(), key: key.key.clone() }, field) {
            Ok(found) => keys = found,
            Err(finding) => findings.push(finding),
        }
    }
    let mut ingest = Ingest { signing_keys: keys, ..Ingest::default() };
    if let Some(generic) = &spec.generic {
        findings.extend(point(&mut ingest, generic));
    }
    let mut egress = Egress { control_plane: objects.services.control_plane(), ..Egress::default() };
    if let Some(spec) = &spec.egress {
        egress.allow_insecure = spec.allow_insecure;
        findings.extend(cidrs(&spec.allow, "spec.egress.allow", &mut egress.allow));
        findings.extend(cidrs(&spec.deny, "spec.egress.deny", &mut egress.deny));
    }
    let defaults = spec.defaults.clone().and_then(|defaults| defaults.delivery).unwrap_or_default();
    let bounds = Bounds::of(spec);
    let secret_policy = spec.secret_policy.unwrap_or_default();
    findings.extend(spec.allowed_namespaces.as_ref().and_then(|allowed| grants::check(allowed).err()));
    let frame = Frame { ingest, egress, defaults, bounds, secret_policy };
    if findings.is_empty() { Ok(frame) } else { Err(findings) }
}

/// Whether the `AuthServer` allows Webhooks of this one's namespace, and the events that this one selects.
pub(crate) fn allows(
    objects: &Objects,
    server_name: &ObjectName,
    server: &AuthServer,
    webhook: &ObjectName,
    object: &Webhook,
) -> Result<(), Finding> {
    let allowed = server.spec.allowed_namespaces.clone().unwrap_or_default();
    let labels = objects.namespaces.get(&webhook.namespace).cloned().unwrap_or_default();
    let is_allowed = webhook.namespace == server_name.namespace
        || match allowed.from {
            From::Same => false,
            From::All => true,
            From::Selector => {
                let selector = allowed.selector.as_ref();
                selector.is_some_and(|selector| selects(selector, &webhook.namespace, labels))
            }
        };
    if is_allowed {
        let is_own = webhook.namespace == server_name.namespace;
        return if is_own {
            Ok(())
        } else {
            grants::allow(&allowed, server_name, webhook, &object.spec.events)
        };
    }
    let message = format!(
        "AuthServer {server_name} does not allow Webhooks of namespace {}: have the platform team widen its spec.allowedNamespaces",
        webhook.namespace
    );
    Err(Finding::new(Reason::NotAllowedByAuthServer, "spec.authServerRef", message))
}

/// Resolves a Webhook.
pub(crate) fn webhook(
    objects: &Objects,
    name: &ObjectName,
    webhook: &Webhook,
    policy: SecretPolicy,
) -> Result<Resolved, Finding> {
    let secret = Secret { objects, namespace: &name.namespace, policy };
    let spec = &webhook.spec;
    Ok(Resolved {
        url: secret.url(&spec.endpoint)?,
        signing_keys: secret.signing_keys(&spec.secret_ref, "spec.secretRef")?,
        headers: secret.headers(&spec.endpoint)?,
        tls: secret.tls(spec.endpoint.tls.as_ref())?,
        addresses: addresses(objects, name, &spec.endpoint)?,
    })
}

fn addresses(
    objects: &Objects,
    name: &ObjectName,
    endpoint: &EndpointSpec,
) -> Result<Option<Vec<IpAddr>>, Finding> {
    let Some(service) = &endpoint.service_ref else { return Ok(None) };
    objects.services.resolve(&ObjectName::new(&name.namespace, &service.name), service.port)
}

/// The Service that a Webhook refers to.
pub(crate) fn service_of(webhook: &ObjectName, spec: &WebhookSpec) -> Option<ObjectName> {
    let service = spec.endpoint.service_ref.as_ref()?;
    Some(ObjectName::new(&webhook.namespace, &service.name))
}

/// What an object refers to: the names of Secrets, and the keys in each.
pub(crate) type SecretKeys<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// The Secrets that a Webhook refers to.
pub(crate) fn secrets_of(spec: &WebhookSpec) -> SecretKeys<'_> {
    let WebhookSpec { endpoint, secret_ref, .. } = spec;
    let mut keys = SecretKeys::new();
    for from in endpoint.headers.iter().filter_map(|header| header.value_from.as_ref()) {
        keys.entry(&from.secret_key_ref.name).or_default().insert(&from.secret_key_ref.key);
    }
    if let Some(from) = &endpoint.url_from {
        keys.entry(&from.secret_key_ref.name).or_default().insert(&from.secret_key_ref.key);
    }
    keys.entry(&secret_ref.name).or_default().extend([secret_ref.key.as_str(), PREVIOUS]);
    if let Some(TlsSpec { ca_secret_ref, client_cert_secret_ref, server_name: _ }) = &endpoint.tls {
        if let Some(ca) = ca_secret_ref {
            keys.entry(&ca.name).or_default().insert(&ca.key);
        }
        if let Some(cert) = client_cert_secret_ref {
            keys.entry(&cert.name).or_default().extend([CERT, CERT_KEY]);
        }
    }
    without_plans(keys)
}

/// A plan changes with what is in it: whoever read one to make it would never come to an end.
fn without_plans(mut keys: SecretKeys<'_>) -> SecretKeys<'_> {
    keys.retain(|name, _| !shards::is_part_of_a_plan(name));
    keys
}

/// The Secrets that an `AuthServer` refers to and that a judgement looks at.
pub(crate) fn secrets_of_server(spec: &AuthServerSpec) -> SecretKeys<'_> {
    let keys = spec.ingest.iter().map(|ingest| &ingest.signing_key_ref);
    without_plans(keys.map(|key| (key.name.as_str(), BTreeSet::from([key.key.as_str(), PREVIOUS]))).collect())
}

/// The Secrets of one namespace.
struct Secret<'a> {
    objects: &'a Objects,
    namespace: &'a str,
    policy: SecretPolicy,
}

// === impl Secret ===

impl Secret<'_> {
    fn all(&self, name: &str, field: &str) -> Result<&Texts, Finding> {
        let name = ObjectName::new(self.namespace, name);
        let refused = |reason, message| Finding::new(reason, format!("{field}.name"), message);
        if shards::is_part_of_a_plan(&name.name) {
            let message =
                format!("Secret {name} has the name of a plan, which the operator writes: name another one");
            return Err(refused(Reason::SecretNotAllowed, message));
        }
        if self.objects.forbidden_secrets.contains(&name) {
            let message = format!(
                "the operator may not read Secret {name}: give its role get on Secrets in this namespace"
            );
            return Err(refused(Reason::SecretForbidden, message));
        }
        let texts = self.objects.secrets.get(&name).ok_or_else(|| {
            let message = format!("there is no Secret {name}: create it, or name another one");
            refused(Reason::SecretNotFound, message)
        })?;
        if self.policy == SecretPolicy::Labelled && !self.objects.labelled_secrets.contains(&name) {
            let (key, value) = SECRET_LABEL;
            let message = format!(
                "the AuthServer lets Webhooks use labelled Secrets alone: have whoever owns Secret {name} label it {key}: {value}"
            );
            return Err(refused(Reason::SecretNotAllowed, message));
        }
        Ok(texts)
    }

    /// The text under a key, of at most so many bytes.
    fn text(&self, name: &str, key: &str, field: &str, most: usize) -> Result<SecretText, Finding> {
        self.text_opt(name, key, field, most)?.ok_or_else(|| {
            let message = format!("Secret {}/{name} has no key {key:?} that holds text", self.namespace);
            Finding::new(Reason::SecretKeyNotFound, format!("{field}.key"), message)
        })
    }

    fn text_opt(
        &self,
        name: &str,
        key: &str,
        field: &str,
        most: usize,
    ) -> Result<Option<SecretText>, Finding> {
        let bytes = match self.all(name, field)?.get(key) {
            None => return Ok(None),
            Some(Text::Kept(text)) if text.reveal().len() <= most => return Ok(Some(text.clone())),
            Some(Text::Kept(text)) => text.reveal().len(),
            Some(Text::TooLarge(bytes)) => *bytes,
        };
        let message = format!(
            "key {key:?} of Secret {}/{name} holds {bytes} bytes, at most {most} bytes can be used here: make it smaller, or name another key",
            self.namespace
        );
        Err(Finding::new(Reason::TooLarge, format!("{field}.key"), message))
    }

    /// The current key first, then the one before it where there is one.
    fn signing_keys(&self, reference: &SigningKeyRef, field: &str) -> Result<Vec<SecretText>, Finding> {
        let SigningKeyRef { name, key } = reference;
        let current = self.text(name, key, field, KEY_BYTES)?;
        let previous = self.text_opt(name, PREVIOUS, field, KEY_BYTES)?;
        let previous = previous.filter(|previous| !previous.reveal().is_empty());
        Ok([Some(current), previous].into_iter().flatten().collect())
    }

    fn url(&self, endpoint: &EndpointSpec) -> Result<Option<SecretText>, Finding> {
        let Some(from) = &endpoint.url_from else { return Ok(None) };
        let (from, field) = (&from.secret_key_ref, "spec.endpoint.urlFrom.secretKeyRef");
        let text = self.text(&from.name, &from.key, field, KEY_BYTES)?;
        // A Secret made from a file ends in a line break.
        Ok(Some(SecretText::new(text.reveal().trim_end_matches(['\r', '\n']))))
    }

    fn headers(&self, endpoint: &EndpointSpec) -> Result<BTreeMap<String, SecretText>, Finding> {
        let mut headers = BTreeMap::new();
        for (at, header) in endpoint.headers.iter().enumerate() {
            let value = match (&header.value, &header.value_from) {
                (_, Some(from)) => {
                    let field = format!("spec.endpoint.headers[{at}].valueFrom.secretKeyRef");
                    let from = &from.secret_key_ref;
                    let value = self.text(&from.name, &from.key, &field, KEY_BYTES)?;
                    // A Secret made from a file ends in a line break, which no header can hold.
                    SecretText::new(value.reveal().trim_end_matches(['\r', '\n']))
                }
                (value, None) => SecretText::new(value.clone().unwrap_or_default()),
            };
            headers.insert(header.name.to_ascii_lowercase(), value);
        }
        Ok(headers)
    }

    fn tls(&self, spec: Option<&TlsSpec>) -> Result<Tls, Finding> {
        let Some(TlsSpec { ca_secret_ref, client_cert_secret_ref, server_name }) = spec else {
            return Ok(Tls::default());
        };
        let mut tls = Tls { server_name: server_name.clone(), ..Tls::default() };
        if let Some(ca) = ca_secret_ref {
            let field = "spec.endpoint.tls.caSecretRef";
            tls.ca = Some(self.text(&ca.name, &ca.key, field, CERTIFICATE_BYTES)?.reveal().to_owned());
        }
        if let Some(cert) = client_cert_secret_ref {
            let field = "spec.endpoint.tls.clientCertSecretRef";
            tls.client_cert =
                Some(self.text(&cert.name, CERT, field, CERTIFICATE_BYTES)?.reveal().to_owned());
            tls.client_key = Some(self.text(&cert.name, CERT_KEY, field, CERTIFICATE_BYTES)?);
        }
        Ok(tls)
    }
}

fn point(ingest: &mut Ingest, generic: &GenericEvents) -> Vec<Finding> {
    let GenericEvents { event_pointer, id_pointer, time_pointer, sent_again } = generic;
    ingest.sent_again = match sent_again {
        SentAgainSpec::Never => SentAgain::Never,
        SentAgainSpec::Id => SentAgain::Id,
        SentAgainSpec::IdAndTime => SentAgain::IdAndTime,
        SentAgainSpec::Body => SentAgain::Body,
    };
    // A pointer to nothing: an object's keys are never all of these.
    let nowhere = "/\u{0}".to_owned();
    let wanted = [
        ("eventPointer", event_pointer.clone(), &mut ingest.event_pointer),
        ("idPointer", id_pointer.clone().unwrap_or_else(|| nowhere.clone()), &mut ingest.id_pointer),
        ("timePointer", time_pointer.clone().unwrap_or(nowhere), &mut ingest.time_pointer),
    ];
    let mut findings = Vec::new();
    for (field, text, place) in wanted {
        match Pointer::parse(&text) {
            Ok(pointer) => *place = pointer,
            Err(error) => {
                let field = format!("spec.generic.{field}");
                findings.push(Finding::new(Reason::AuthServerInvalid, field, error.to_string()));
            }
        }
    }
    findings
}

fn cidrs<C: std::str::FromStr>(texts: &[String], field: &str, into: &mut Vec<C>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        if let Ok(cidr) = text.parse() {
            into.push(cidr);
        } else {
            let message = format!("{text:?} is no CIDR: write an address and a prefix, as in 10.0.0.0/8");
            findings.push(Finding::new(Reason::InvalidCidr, format!("{field}[{at}]"), message));
        }
    }
    findings
}

/// Whether a selector selects a namespace; each one carries its name as a label, as Kubernetes has it.
fn selects(selector: &Selector, namespace: &str, mut labels: BTreeMap<String, String>) -> bool {
    labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
    let Selector { match_labels, match_expressions } = selector;
    match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && match_expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            match expression.operator {
                Operator::In => value.is_some_and(|value| expression.values.contains(value)),
                Operator::NotIn => value.is_none_or(|value| !expression.values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
}
