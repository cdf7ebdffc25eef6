//! The URL that an endpoint means, built from its parts and never from text.
//!
//! In: an endpoint's spec and the Webhook's namespace. Out: a URL whose host is what the spec names, or what is
//! not in order, by field. It must never put a URL's path or query into a message.

use http::Uri;
use tidings_crds::{EndpointSpec, Scheme, ServiceRef};
use tidings_plan::{SecretText, dns};
use url::Url;

use crate::{Finding, Reason};

/// The most bytes of a host (RFC 1035): what a status holds, and what DNS takes.
const MAX_HOST: usize = 253;

/// The most bytes of a URL.
const MAX_URL: usize = 2048;

/// The URL of an endpoint; a Service is spoken to in the Webhook's own namespace. `None` where it stands in a
/// Secret, `secret` is what that holds, and it holds nothing yet.
pub(crate) fn url_of(
    namespace: &str,
    endpoint: &EndpointSpec,
    secret: Option<&SecretText>,
) -> Result<Option<Url>, Finding> {
    match (&endpoint.url, &endpoint.url_from, &endpoint.service_ref) {
        (Some(text), None, None) => parse(text, field(endpoint)).map(Some),
        (None, Some(_), None) => secret.map(|text| parse(text.reveal(), field(endpoint))).transpose(),
        (None, None, Some(service)) => service_url(namespace, service).map(Some),
        _ => Err(refused("spec.endpoint", "write exactly one of url, urlFrom and serviceRef")),
    }
}

/// The field that says where an endpoint is.
pub(crate) fn field(endpoint: &EndpointSpec) -> &'static str {
    match (&endpoint.url, &endpoint.url_from) {
        (Some(_), _) => "spec.endpoint.url",
        (None, Some(_)) => "spec.endpoint.urlFrom",
        (None, None) => "spec.endpoint.serviceRef",
    }
}

/// The host of an endpoint, with its port where one is written; never its path or query. Of a URL that is a
/// secret, the Secret's name.
pub(crate) fn host_of(namespace: &str, endpoint: &EndpointSpec) -> Option<String> {
    if let Some(from) = &endpoint.url_from {
        return Some(format!("(from Secret {})", from.secret_key_ref.name));
    }
    let url = url_of(namespace, endpoint, None).ok()??;
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn parse(text: &str, field: &str) -> Result<Url, Finding> {
    if text.len() > MAX_URL {
        return Err(refused(field, format!("the URL has more than {MAX_URL} characters")));
    }
    let url =
        Url::parse(text).map_err(|error| refused(field, format!("this is not a valid URL: {error}")))?;
    // A text that is no URL can have a secret before its colon.
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused(field, "this is not a valid URL: it begins with neither https:// nor http://"));
    }
    if url.host_str().is_some_and(|host| host.len() > MAX_HOST) {
        return Err(refused(
            field,
            format!("the host has more than {MAX_HOST} characters, which DNS forbids"),
        ));
    }
    // What is sent is read once more, by the rules of HTTP.
    match Uri::try_from(url.as_str()) {
        Ok(_) => Ok(url),
        Err(error) => Err(refused(field, format!("this URL cannot be sent in a request: {error}"))),
    }
}

/// The host comes from names alone, and the path goes behind it whatever it holds.
fn service_url(namespace: &str, service: &ServiceRef) -> Result<Url, Finding> {
    let field = |name: &str| format!("spec.endpoint.serviceRef.{name}");
    let ServiceRef { name, port, path, scheme } = service;
    let host = dns::service_host(namespace, name).ok_or_else(|| {
        let message = "this is not a Service's name: write the name of a Service of the Webhook's namespace, lower-case letters, digits and dashes, a letter first, at most 63";
        refused(&field("name"), message)
    })?;
    let port = u16::try_from(*port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| refused(&field("port"), "write a port from 1 to 65535"))?;
    if !is_path(path) {
        let message = "write a path that begins with / and holds no #, backslash, space or control character; a query may follow a ?";
        return Err(refused(&field("path"), message));
    }
    let scheme = if *scheme == Scheme::Https { "https" } else { "http" };
    let mut url = parse(&format!("{scheme}://{host}"), "spec.endpoint.serviceRef")?;
    // A URL with a host takes a port.
    let _ = url.set_port(Some(port));
    let (path, query) =
        path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query);
    Ok(url)
}

fn is_path(path: &str) -> bool {
    let is_foreign = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '#' | '\\');
    path.starts_with('/') && path.len() <= 1024 && !path.contains(is_foreign)
}

fn refused(field: &str, message: impl Into<String>) -> Finding {
    Finding::new(Reason::InvalidEndpoint, field, message)
}
