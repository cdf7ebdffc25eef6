use serde_json::{Value, json};
use tidings_crds::Webhook;
use tidings_plan::SecretText;

use super::super::evidence::Patient;
use super::*;

const NOW: &str = "2026-01-31T12:00:00Z";

/// A world in which all is well, of which each test breaks one thing.
fn healthy() -> Evidence {
    let server_name = ObjectName::new("auth", "logto");
    let server = Server {
        object: Look::Seen(object(json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "AuthServer",
            "metadata": {"name": "logto", "namespace": "auth", "generation": 2},
            "spec": {"allowedNamespaces": {"from": "All"}, "ingest": {"signingKeyRef": {"name": "hook", "key": "k"}}},
            "status": {"observedGeneration": 2, "conditions": [condition("Ready", "True", "Ready", "")]},
        }))),
        plan: Look::Seen(()),
        reports: Look::Seen(vec![report("logto-0", 7)]),
    };
    let patient = Patient {
        name: ObjectName::new("shop", "mail"),
        webhook: Look::Seen(webhook(&json!([]))),
        namespace: Look::Seen([].into()),
        secrets: [("mail".to_owned(), Look::Seen(secret("signingKey")))].into(),
    };
    Evidence {
        now: NOW.parse().unwrap(),
        scope: "namespace shop".to_owned(),
        definitions: Look::Seen(DEFINITIONS.map(str::to_owned).into()),
        operator: Look::Seen(Operator {
            namespace: "tidings".to_owned(),
            holder: Some("operator-0".to_owned()),
            renewed: Some("2026-01-31T11:59:57Z".parse().unwrap()),
            lease_seconds: 15,
            replicas: Some((2, 2)),
        }),
        webhooks: Look::Seen(vec![patient]),
        servers: [(server_name, server)].into(),
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW})
}

fn webhook(conditions: &Value) -> Webhook {
    object(json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Webhook",
        "metadata": {"name": "mail", "namespace": "shop", "generation": 3, "uid": "u"},
        "spec": {
            "authServerRef": {"name": "logto", "namespace": "auth"}, "events": ["PostSignIn"],
            "endpoint": {"url": "https://mail.example.com/hook"}, "secretRef": {"name": "mail"},
        },
        "status": {
            "observedGeneration": 3, "conditions": conditions, "delivered": 0, "failed": 0, "pending": 0,
            "deadLettered": 0, "consecutiveFailures": 0, "sources": [],
        },
    }))
}

fn secret(key: &str) -> tidings_operator::objects::Texts {
    [(key.to_owned(), SecretText::new("a-key-that-is-long-enough-for-all").into())].into()
}

fn report(pod: &str, plan: i64) -> DeliveryReport {
    object(json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "DeliveryReport", "metadata": {"name": pod, "namespace": "auth"},
        "spec": {
            "authServerRef": {"name": "logto"}, "pod": pod, "store": "s", "plan": {"generation": plan, "digest": "d"},
            "time": "2026-01-31T11:59:00Z", "events": {"received": 4, "unmatched": 0},
            "webhooks": [{
                "namespace": "shop", "name": "mail", "uid": "u", "generation": 3, "delivered": 4, "failed": 0, "pending": 0,
                "deadLettered": 0, "consecutiveFailures": 0, "circuit": "Closed",
            }],
        },
    }))
}

// === changes of the world ===

impl Evidence {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn server(&mut self) -> &mut Server {
        self.servers.values_mut().next().unwrap()
    }

    fn patient(&mut self) -> &mut Patient {
        let Look::Seen(patients) = &mut self.webhooks else { panic!("there is one") };
        &mut patients[0]
    }

    /// Changes the Webhook as JSON.
    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let Look::Seen(webhook) = &self.patient().webhook else { panic!("it is there") };
        let mut value = json!(webhook);
        change(&mut value);
        self.patient().webhook = Look::Seen(object(value));
    }

    /// Changes the one report as JSON.
    fn edit_report(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = json!(report("logto-0", 7));
        change(&mut value["spec"]);
        self.server().reports = Look::Seen(vec![object(value)]);
    }
}

/// Each finding as `about/check verdict: message -> way out`.
fn told(evidence: &Evidence, verdict: Verdict) -> Vec<String> {
    judge(evidence)
        .into_iter()
        .filter(|finding| finding.verdict == verdict)
        .map(|Finding { about, check, message, way_out, .. }| {
            format!("{about}/{check}: {message} -> {}", way_out.unwrap_or_default())
        })
        .collect()
}

/// The one problem that there is.
fn problem(evidence: &Evidence) -> String {
    let problems = told(evidence, Verdict::Problem);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

#[test]
fn where_all_is_well_nothing_is_found() {
    let evidence = healthy();
    assert_eq!(told(&evidence, Verdict::Problem), Vec::<String>::new());
    assert_eq!(told(&evidence, Verdict::Unseen), Vec::<String>::new());
    let checks: BTreeSet<_> = judge(&evidence).iter().map(|finding| finding.check).collect();
    let all = ["conditions", "definitions", "endpoint", "operator", "plan", "secrets", "sidecars", "spec"];
    assert_eq!(checks, all.into());
}

#[test]
fn without_definitions_nothing_else_is_blamed() {
    let evidence = healthy().with(|world| world.definitions = Look::Missing);
    assert!(problem(&evidence).contains("not installed -> install them"), "{}", problem(&evidence));
    let evidence = healthy().with(|world| {
        world.definitions =
            Look::Seen(["webhooks", "authservers", "deliveryreports"].map(str::to_owned).into());
    });
    assert!(problem(&evidence).contains("not installed: webhookreplays"));
}

#[test]
fn an_operator_that_does_not_run_is_found_by_its_lease() {
    let cases: [(Look<Operator>, &str); 3] = [
        (Look::Missing, "never did"),
        (
            lease(None, "2026-01-31T11:59:57Z"),
            "nobody holds the Lease tidings/tidings-operator, 2 of 2 replicas",
        ),
        (
            lease(Some("operator-0"), "2026-01-31T11:50:00Z"),
            "operator-0 holds the Lease in tidings, and renewed it 10m ago",
        ),
    ];
    for (operator, expected) in cases {
        let evidence = healthy().with(|world| world.operator = operator);
        assert!(problem(&evidence).contains(expected), "{}", problem(&evidence));
    }
    let ahead = healthy().with(|world| world.operator = lease(Some("operator-0"), "2026-01-31T12:00:30Z"));
    assert_eq!(told(&ahead, Verdict::Problem), Vec::<String>::new(), "clocks may be apart");
}

fn lease(holder: Option<&str>, renewed: &str) -> Look<Operator> {
    let Look::Seen(operator) = healthy().operator else { panic!("it runs") };
    Look::Seen(Operator { holder: holder.map(str::to_owned), renewed: renewed.parse().ok(), ..operator })
}

#[test]
fn an_auth_server_that_is_not_there_is_told_once_with_its_consequence() {
    let evidence = healthy().with(|world| world.server().object = Look::Missing);
    let problems = told(&evidence, Verdict::Problem);
    assert!(problems[0].starts_with("authserver auth/logto/exists: there is none"), "{problems:#?}");
    assert!(problems[1].contains("it names AuthServer auth/logto, which is not there"), "{problems:#?}");
}

#[test]
fn a_namespace_that_is_not_allowed_is_found_without_an_operator() {
    let selecting = |labels: Look<_>| {
        healthy().with(|world| {
            let Look::Seen(server) = &mut world.server().object else { panic!("it is there") };
            server.spec.allowed_namespaces =
                Some(object(json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}})));
            world.patient().namespace = labels;
        })
    };
    assert!(problem(&selecting(Look::Seen([].into()))).contains("NotAllowedByAuthServer"));
    let allowed = selecting(Look::Seen([("team".to_owned(), "a".to_owned())].into()));
    assert_eq!(told(&allowed, Verdict::Problem), Vec::<String>::new());
    let barred = selecting(Look::Barred("you may not get namespaces shop".to_owned()));
    assert_eq!(told(&barred, Verdict::Problem), Vec::<String>::new());
    assert!(
        told(&barred, Verdict::Unseen)[0].contains("by their labels, and you may not get namespaces shop")
    );
}

#[test]
fn a_spec_that_is_wrong_is_told_in_the_operators_words() {
    let evidence = healthy().with(|world| {
        world.edit(|webhook| webhook["spec"]["endpoint"]["url"] = json!("http://mail.example.com"));
    });
    assert!(
        problem(&evidence).starts_with("webhook shop/mail/spec: spec.endpoint.url: AddressBlocked"),
        "{}",
        problem(&evidence)
    );
    let evidence =
        healthy().with(|world| world.edit(|webhook| webhook["spec"]["filter"] = json!("event.a ==")));
    assert!(problem(&evidence).contains("spec.filter: InvalidFilter"));
}

#[test]
fn a_secret_is_missing_or_lacks_its_key_or_may_not_be_read() {
    let with = |secret: Look<_>| {
        healthy().with(|world| drop(world.patient().secrets.insert("mail".to_owned(), secret)))
    };
    assert!(problem(&with(Look::Missing)).contains("there is no Secret shop/mail -> create it"));
    assert!(
        problem(&with(Look::Seen(secret("other"))))
            .contains("SecretKeyNotFound: Secret shop/mail has no key \"signingKey\"")
    );
    let barred = with(Look::Barred("you may not get secrets".to_owned()));
    assert_eq!(told(&barred, Verdict::Problem), Vec::<String>::new());
    assert!(told(&barred, Verdict::Unseen)[0].contains("you may not get secrets"));
}

#[test]
fn a_status_that_speaks_of_an_older_spec_points_at_the_operator() {
    let evidence = healthy().with(|world| world.edit(|webhook| webhook["metadata"]["generation"] = json!(4)));
    assert!(
        problem(&evidence).contains("speaks of generation 3, its spec is at 4 -> is the operator running?")
    );
    let evidence = healthy().with(|world| world.edit(|webhook| webhook["status"] = json!(null)));
    assert!(problem(&evidence).contains("the operator has not seen it"));
}

#[test]
fn of_the_conditions_the_first_that_is_not_true_is_the_reason() {
    let conditions = json!([
        condition("Accepted", "True", "Accepted", ""),
        condition("Programmed", "False", "Pending", "the sidecars run generation 2"),
        condition("Ready", "False", "Pending", "the sidecars run generation 2"),
    ]);
    let evidence = healthy().with(|world| world.patient().webhook = Look::Seen(webhook(&conditions)));
    assert!(
        problem(&evidence)
            .contains("Programmed is False: Pending: the sidecars run generation 2 -> see the sidecars")
    );
}

#[test]
fn a_plan_or_a_sidecar_that_is_missing_or_behind_is_told() {
    let evidence = healthy().with(|world| world.server().plan = Look::Missing);
    assert!(problem(&evidence).contains("there is no Secret tidings-plan-logto in auth"));
    let evidence = healthy().with(|world| world.server().reports = Look::Seen(vec![]));
    assert!(problem(&evidence).contains("no sidecar has reported"));
    let evidence = healthy().with(|world| {
        world.server().reports = Look::Seen(vec![report("logto-0", 7), report("logto-1", 6)]);
    });
    assert!(problem(&evidence).contains("logto-1 runs plan 6, another one runs 7"));
}

#[test]
fn an_endpoint_that_fails_is_told_with_its_last_failure_and_what_waits() {
    let failure = json!({
        "time": "2026-01-31T11:58:00Z", "event": "PostSignIn", "reason": "HttpStatus", "statusCode": 500,
        "durationMilliseconds": 3, "timeoutSeconds": 15, "attempt": 1, "message": "the endpoint answered 500",
    });
    let failing = |circuit: &'static str| {
        healthy().with(|world| {
            world.edit_report(|spec| {
                let webhook = &mut spec["webhooks"][0];
                webhook["circuit"] = json!(circuit);
                webhook["consecutiveFailures"] = json!(6);
                webhook["pending"] = json!(9);
                webhook["oldestPendingTime"] = json!("2026-01-31T11:00:00Z");
                webhook["nextAttemptTime"] = json!("2026-01-31T12:00:30Z");
                webhook["lastFailure"] = failure.clone();
            });
        })
    };
    let told = problem(&failing("Open"));
    for expected in [
        "6 failures in a row, so probes alone",
        "the last 2m ago: HttpStatus: the endpoint answered 500",
        "9 events wait, the oldest for 60m, the next attempt at 2026-01-31T12:00:30Z",
        "test mail -n shop",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(problem(&failing("Gone")).contains("410 Gone"));
    assert!(problem(&failing("Closed")).contains("6 failures in a row, the last"));
    assert_eq!(super::super::count(&judge(&failing("Suspended")), Verdict::Problem), 0);
}

#[test]
fn a_webhook_that_a_sidecar_could_not_run_is_told() {
    let evidence = healthy().with(|world| {
        world.edit_report(|spec| {
            spec["webhooks"] = json!([]);
            spec["rejected"] = json!([{"namespace": "shop", "name": "mail", "message": "endpoint: no"}]);
        });
    });
    assert!(problem(&evidence).contains("logto-0 cannot run it: endpoint: no"));
}

#[test]
fn without_reports_the_operators_word_for_the_endpoint_stands() {
    let conditions = json!([condition("Delivering", "False", "CircuitOpen", "the endpoint answered 500")]);
    let evidence = healthy().with(|world| {
        world.server().reports = Look::Barred("you may not list deliveryreports".to_owned());
        world.patient().webhook = Look::Seen(webhook(&conditions));
    });
    assert!(problem(&evidence).contains("Delivering is False: CircuitOpen: the endpoint answered 500"));
    assert!(told(&evidence, Verdict::Unseen)[0].contains("you may not list deliveryreports"));
}

#[test]
fn a_webhook_that_is_not_there_is_all_there_is_to_say() {
    let evidence = healthy().with(|world| world.patient().webhook = Look::Missing);
    assert!(problem(&evidence).contains("webhook shop/mail/exists: there is none of this name"));
    let evidence = healthy().with(|world| world.webhooks = Look::Seen(vec![]));
    assert_eq!(told(&evidence, Verdict::Problem), Vec::<String>::new());
}
