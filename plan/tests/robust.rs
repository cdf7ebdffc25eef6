//! A plan is outside bytes too: whatever stands in the file, reading it ends in a plan or an error.

use proptest::prelude::*;
use tidings_plan::{Egress, Ingest, ObjectName, PLAN_VERSION, Plan, PlanError, SecretText};

fn plan() -> Plan {
    let ingest =
        Ingest { signing_keys: vec![SecretText::new("hush-hush-hush-hush-hush")], ..Ingest::default() };
    let auth_server = ObjectName::new("auth", "logto");
    Plan {
        version: PLAN_VERSION,
        auth_server,
        ingest,
        egress: Egress::default(),
        webhooks: vec![],
        replays: vec![],
    }
}

#[test]
fn a_plan_of_another_version_is_refused_with_both_versions() {
    let error = Plan::from_json(br#"{"version":99,"anything":"else"}"#).unwrap_err();
    assert!(matches!(error, PlanError::Version { found: 99 }));
    assert!(
        error.to_string().contains("99") && error.to_string().contains(&PLAN_VERSION.to_string()),
        "{error}"
    );
}

#[test]
fn a_plan_comes_back_as_it_was_and_its_debug_shows_no_secret() {
    assert_eq!(Plan::from_json(&plan().to_json()).unwrap(), plan());
    assert!(!format!("{:?}", plan()).contains("hush"));
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Plan::from_json(&bytes);
    }

    #[test]
    fn a_plan_with_changed_bytes_is_a_plan_or_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = plan().to_json();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Plan::from_json(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(Plan::from_json(&bytes).is_err(), "half a plan is none");
    }
}
