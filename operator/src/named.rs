//! Validates the names in a spec: each of them becomes a piece of a path, a host, an object's name or a selector.
//!
//! In: a spec, as it could stand in an object that is older than the schema. Out: the first name that is not
//! one, by field. It must never let a name through that the API server would not give to an object.

use tidings_crds::{
    AuthServerRef, AuthServerSpec, LabelExpression, Operator, SecretKeyRef, Selector, SigningKeyRef, TlsSpec,
    WebhookSpec,
};
use tidings_plan::{ObjectName, dns};

use crate::{Finding, Reason};

/// The most bytes of an `AuthServer`'s name: those of its plan's Secrets begin with more, and end at 253.
pub(crate) const MAX_SERVER_NAME: usize = 200;

const OBJECT: &str = "an object's name: write lower-case letters, digits, dashes and dots, at most 253";
const LABEL: &str = "a namespace's name: write lower-case letters, digits and dashes, at most 63";
const KEY: &str = "a key of a Secret: write letters, digits, dashes, dots and underscores, at most 253";
const HOST: &str = "a host's name: write letters, digits, dashes and dots, at most 253";

/// The names in a Webhook's spec.
pub(crate) fn of_webhook(spec: &WebhookSpec) -> Result<(), Finding> {
    let AuthServerRef { name, namespace } = &spec.auth_server_ref;
    object(name, "spec.authServerRef.name")?;
    if let Some(namespace) = namespace {
        require(dns::is_label(namespace), "spec.authServerRef.namespace", namespace, LABEL)?;
    }
    let SigningKeyRef { name, key } = &spec.secret_ref;
    secret_key(name, key, "spec.secretRef")?;
    for (at, header) in spec.endpoint.headers.iter().enumerate() {
        if let Some(from) = &header.value_from {
            let SecretKeyRef { name, key } = &from.secret_key_ref;
            secret_key(name, key, &format!("spec.endpoint.headers[{at}].valueFrom.secretKeyRef"))?;
        }
    }
    if let Some(from) = &spec.endpoint.url_from {
        secret_key(
            &from.secret_key_ref.name,
            &from.secret_key_ref.key,
            "spec.endpoint.urlFrom.secretKeyRef",
        )?;
    }
    spec.endpoint.tls.as_ref().map_or(Ok(()), tls)
}

fn tls(spec: &TlsSpec) -> Result<(), Finding> {
    let TlsSpec { ca_secret_ref, client_cert_secret_ref, server_name } = spec;
    if let Some(SecretKeyRef { name, key }) = ca_secret_ref {
        secret_key(name, key, "spec.endpoint.tls.caSecretRef")?;
    }
    if let Some(certificate) = client_cert_secret_ref {
        object(&certificate.name, "spec.endpoint.tls.clientCertSecretRef.name")?;
    }
    match server_name {
        Some(name) => require(is_host(name), "spec.endpoint.tls.serverName", name, HOST),
        None => Ok(()),
    }
}

/// The names in an `AuthServer`, and its own.
pub(crate) fn of_server(name: &ObjectName, spec: &AuthServerSpec) -> Vec<Finding> {
    let ingest = spec.ingest.as_ref().map(|ingest| {
        let SecretKeyRef { name, key } = &ingest.signing_key_ref;
        secret_key(name, key, "spec.ingest.signingKeyRef")
    });
    let selector = spec.pod_selector.as_ref().map(|selector| of_selector(selector, "spec.podSelector"));
    let own = (name.name.len() > MAX_SERVER_NAME).then(|| {
        let message = format!("the name has more than {MAX_SERVER_NAME} characters, and the Secrets of its plan have longer ones: take a shorter name");
        Err(Finding::new(Reason::InvalidName, "metadata.name", message))
    });
    [own, ingest, selector].into_iter().flatten().filter_map(Result::err).collect()
}

/// A label selector, which becomes text in a query.
pub(crate) fn of_selector(selector: &Selector, field: &str) -> Result<(), Finding> {
    let Selector { match_labels, match_expressions } = selector;
    let refused = |field: String| {
        let message = "this is not a label selector: keys are labels' keys, values are labels' values, In and NotIn have at least one value, Exists and DoesNotExist none";
        Finding::new(Reason::InvalidName, field, message)
    };
    let are_labels = match_labels.iter().all(|(key, value)| is_label_key(key) && is_label_value(value));
    if !are_labels {
        return Err(refused(format!("{field}.matchLabels")));
    }
    match match_expressions.iter().position(|expression| !is_expression(expression)) {
        Some(at) => Err(refused(format!("{field}.matchExpressions[{at}]"))),
        None => Ok(()),
    }
}

fn is_expression(LabelExpression { key, operator, values }: &LabelExpression) -> bool {
    let takes_values = matches!(operator, Operator::In | Operator::NotIn);
    is_label_key(key) && takes_values != values.is_empty() && values.iter().all(|value| is_label_value(value))
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(dns::is_object_name) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let is_end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && is_end(value.chars().next())
        && is_end(value.chars().next_back())
}

fn is_secret_key(key: &str) -> bool {
    let is_in_order = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=253).contains(&key.len()) && key.chars().all(is_in_order)
}

/// A DNS name, or an address, which certificates may carry too.
fn is_host(name: &str) -> bool {
    let is_in_order = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    (1..=253).contains(&name.len()) && name.chars().all(is_in_order)
}

fn secret_key(name: &str, key: &str, field: &str) -> Result<(), Finding> {
    object(name, &format!("{field}.name"))?;
    require(is_secret_key(key), &format!("{field}.key"), key, KEY)
}

fn object(name: &str, field: &str) -> Result<(), Finding> {
    require(dns::is_object_name(name), field, name, OBJECT)
}

fn require(is_so: bool, field: &str, text: &str, what: &str) -> Result<(), Finding> {
    if is_so {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(Finding::new(Reason::InvalidName, field, format!("{shown:?} is not {what}")))
}
