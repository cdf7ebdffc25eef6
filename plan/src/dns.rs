//! Names as Kubernetes and DNS have them, and the one host that a Service has.
//!
//! In: text that somebody wrote. Out: whether it is a name, and the host made from names alone. The operator
//! writes a Service's host, and the sidecar checks it: both do it here. It must never take a piece of a URL
//! for a name.

/// A Service's host ends in this: `NAME.NAMESPACE.svc`.
const SERVICE_SUFFIX: &str = ".svc";

/// The most bytes of a label, and of a whole name (RFC 1035).
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 253;

/// A label as a Service's name has it (RFC 1035): letters, digits and dashes, a letter first.
///
/// ```
/// # use tidings_plan::dns;
/// assert!(dns::is_service_name("mailer-2") && !dns::is_service_name("10.99.0.1:9999/v1/admin?"));
/// ```
pub fn is_service_name(text: &str) -> bool {
    is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// A label as a namespace's name has it (RFC 1123): letters, digits and dashes.
pub fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL && is_part(text)
}

/// Labels between dots, as most objects' names are (RFC 1123).
pub fn is_object_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// The host of a Service, `NAME.NAMESPACE.svc`; `None` where one of the two is not a name.
pub fn service_host(namespace: &str, name: &str) -> Option<String> {
    let are_names = is_service_name(name) && is_label(namespace);
    are_names.then(|| format!("{name}.{namespace}{SERVICE_SUFFIX}"))
}

/// Whether a host is that of a Service of this namespace.
///
/// ```
/// # use tidings_plan::dns;
/// assert!(dns::is_service_of("shop", "mailer.shop.svc"));
/// assert!(!dns::is_service_of("shop", "mailer.auth.svc") && !dns::is_service_of("shop", "10.99.0.1"));
/// ```
pub fn is_service_of(namespace: &str, host: &str) -> bool {
    let name = host.split('.').next().unwrap_or_default();
    service_host(namespace, name).is_some_and(|expected| expected == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_name_is_labels_between_dots() {
        for name in ["a", "keys", "my-keys.v2", "0", "a--b", "x.y.z"] {
            assert!(is_object_name(name), "{name}");
        }
        for text in ["", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "A", "a/b", "../a", "a?b", "a b", "ä"]
        {
            assert!(!is_object_name(text), "{text}");
        }
        assert!(is_object_name(&"a".repeat(253)) && !is_object_name(&"a".repeat(254)));
    }

    #[test]
    fn a_service_of_another_namespace_or_of_the_whole_internet_is_none_of_ours() {
        for host in
            ["mailer.shop.svc.example.com", "x.mailer.shop.svc", "mailer.shop", "shop.svc", "", "[::1]"]
        {
            assert!(!is_service_of("shop", host), "{host}");
        }
        assert_eq!(service_host("shop/../auth", "mailer"), None);
        assert_eq!(service_host("shop", "1mailer"), None);
    }
}
