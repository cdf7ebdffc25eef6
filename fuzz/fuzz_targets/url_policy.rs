//! URLs as a Webhook's author writes them: none that passes names an address that is not public.
//!
//! The standard library says what is not public; it has never seen the policy's tables.

#![no_main]

#[path = "../../egress/tests/special/mod.rs"]
mod special;

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use special::is_special;
use tidings_egress::Egress;
use url::{Host, Url};

fuzz_target!(|text: &str| {
    let Ok(url) = Url::parse(text) else { return };
    let egress = Egress::default();
    let judged = egress.judge_url(&url, false);
    // A Service of the own namespace may be more, never less.
    assert!(judged.is_err() || egress.judge_url(&url, true).is_ok());
    let denied = Egress {
        deny: vec!["0.0.0.0/0".parse().expect("a CIDR"), "::/0".parse().expect("a CIDR")],
        ..Egress::default()
    };
    let address = match url.host() {
        Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
        Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
        Some(Host::Domain(name)) => {
            // A resolver that is asked for a literal dials it unjudged.
            assert!(judged.is_err() || name.parse::<IpAddr>().is_err());
            return;
        }
        None => return assert!(judged.is_err()),
    };
    assert!(denied.judge_url(&url, true).is_err());
    if judged.is_ok() {
        assert!(!is_special(address), "{address} passed");
        assert!(egress.judge(address, false).is_ok());
        assert_eq!(url.scheme(), "https");
        assert!(url.username().is_empty() && url.password().is_none());
    }
});
