//! Manifests as people write them: read, judged, and rendered.
//!
//! Whatever is read is judged by the schema, the rules and the operator; what is in order makes a plan that a
//! sidecar can read.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidings_operator::lint::{Schemas, judge};
use tidings_operator::{manifests, reconcile};
use tidings_plan::Plan;

thread_local! {
    static SCHEMAS: Schemas = Schemas::new();
}

fuzz_target!(|text: &str| {
    let loaded = SCHEMAS.with(|schemas| manifests::read(text, Path::new("fuzz.yaml"), schemas));
    let report = judge(&loaded);
    let lines = text.lines().count().max(1);
    assert!(report.errors.iter().all(|found| (1..=lines).contains(&found.line)));
    for server in loaded.objects.auth_servers.keys() {
        if let Some(plan) = reconcile(&loaded.objects, server).plan {
            assert!(Plan::from_json(&plan.to_json()).is_ok_and(|read| read == plan));
        }
    }
});
