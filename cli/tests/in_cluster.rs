//! `tidings replay` and `tidings doctor` against a real API server, run as kubectl's plugin too.
//!
//!     tests/controlplane/run -- cargo test -p tidings-cli --features controlplane --test in_cluster

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// The definitions belong to the whole cluster: one world after another.
static CLUSTER: Mutex<()> = Mutex::new(());

/// A cluster with the definitions, for one test at a time.
struct World {
    _alone: MutexGuard<'static, ()>,
    namespace: String,
}

// === impl World ===

impl World {
    /// A namespace of this test's own, with the definitions installed.
    fn with_definitions(namespace: &str) -> Self {
        let world = Self::alone(namespace);
        kubectl(&["apply", "-f", crds().to_str().unwrap()]);
        kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", crds().to_str().unwrap()]);
        kubectl(&["create", "namespace", namespace]);
        world
    }

    fn alone(namespace: &str) -> Self {
        assert!(
            std::env::var_os("KUBECONFIG").is_some(),
            "these tests need an API server: tests/controlplane/run -- cargo test -p tidings-cli --features controlplane --test in_cluster"
        );
        let alone = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        Self { _alone: alone, namespace: namespace.to_owned() }
    }

    /// Applies an object in the namespace, with its status.
    fn apply(&self, mut object: Value) {
        object["metadata"]["namespace"] = json!(self.namespace);
        apply(&object);
    }

    fn auth_server(&self) {
        self.apply(json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "AuthServer", "metadata": {"name": "logto"}, "spec": {},
        }));
    }

    fn webhook(&self) {
        self.apply(json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Webhook", "metadata": {"name": "mail"},
            "spec": {
                "authServerRef": {"name": "logto"}, "events": ["PostSignIn"],
                "endpoint": {"url": "https://mail.example.com/hook"}, "secretRef": {"name": "mail"},
            },
        }));
    }

    fn secret(&self) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mail"},
            "stringData": {"signingKey": "a-key-that-is-long-enough-and-nobody-sees"},
        }));
    }

    /// An operator's Lease, renewed just now.
    fn operator(&self) {
        let now = jiff::Timestamp::now();
        self.apply(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "tidings-operator"},
            "spec": {"holderIdentity": "operator-0", "leaseDurationSeconds": 15, "renewTime": format!("{now:.6}")},
        }));
    }

    /// What a sidecar reports that runs a plan.
    fn report(&self) {
        self.apply(json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "DeliveryReport",
            "metadata": {"name": "logto-0", "labels": {"tidings.dev/auth-server": "logto"}},
            "spec": {
                "authServerRef": {"name": "logto"}, "pod": "logto-0", "store": "s", "plan": {"generation": 1, "digest": "d"},
                "time": jiff::Timestamp::now().to_string(), "events": {"received": 0, "unmatched": 0},
            },
        }));
    }

    /// Runs `tidings`; its exit code and both outputs.
    fn tidings(&self, line: &str) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command.args(line.split_whitespace()).args(["-n", &self.namespace]);
        said(&command.output().unwrap())
    }

    fn doctor(&self, more: &str) -> (Option<i32>, String) {
        self.tidings(&format!("doctor {more} --operator-namespace {}", self.namespace))
    }

    fn replays(&self) -> Vec<Value> {
        let list = kubectl(&["get", "webhookreplays", "-n", &self.namespace, "-o", "json"]);
        serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().clone()
    }
}

fn crds() -> PathBuf {
    // Beside the YAML stand the sources of the generator.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crds");
    let copy = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("crds");
    std::fs::create_dir_all(&copy).unwrap();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|extension| extension == "yaml") {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    copy
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn kubectl(arguments: &[&str]) -> String {
    let output = Command::new("kubectl").args(arguments).output().unwrap();
    assert!(output.status.success(), "kubectl {arguments:?}: {}", said(&output).1);
    String::from_utf8(output.stdout).unwrap()
}

fn apply(object: &Value) {
    let mut child = Command::new("kubectl")
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{object}");
}

/// Replaces an object's status, as its controller does.
fn put_status(namespace: &str, kind: &str, name: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    kubectl(&["patch", kind, name, "-n", namespace, "--subresource=status", "--type=merge", "-p", &patch]);
}

// === replay ===

#[test]
fn replay_makes_an_object_that_the_api_server_takes() {
    let world = World::with_definitions("replay-made");
    world.webhook();
    let (code, output) =
        world.tidings("replay mail --since 2h --until 30m --events PostSignIn,User.* --all --rate 7");
    assert_eq!(code, Some(0), "{output}");
    let [replay] = world.replays().try_into().unwrap();
    let name = replay["metadata"]["name"].as_str().unwrap();
    assert!(
        name.starts_with("mail-") && output.contains(&format!("webhookreplay.tidings.dev/{name} created")),
        "{output}"
    );
    assert!(output.contains(&format!("kubectl get webhookreplay {name} -n replay-made -w")), "{output}");
    let spec = &replay["spec"];
    assert_eq!(
        (&spec["webhookRef"]["name"], &spec["only"], &spec["ratePerSecond"]),
        (&json!("mail"), &json!("All"), &json!(7))
    );
    assert_eq!((&spec["events"], &spec["dryRun"]), (&json!(["PostSignIn", "User.*"]), &json!(false)));
    let time = |field: &str| spec[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time("to").duration_since(time("from")).as_mins(), 90);
}

#[test]
fn replay_passes_on_a_dry_run_and_means_failures_by_itself() {
    let world = World::with_definitions("replay-dry");
    world.webhook();
    let (code, output) = world.tidings("replay mail --since 2026-01-01T00:00:00Z --dry-run");
    assert_eq!(code, Some(0), "{output}");
    let spec = &world.replays()[0]["spec"];
    assert_eq!((&spec["dryRun"], &spec["only"], &spec["to"]), (&json!(true), &json!("Failed"), &Value::Null));
    assert_eq!(spec["from"], "2026-01-01T00:00:00.000Z");
}

#[test]
fn replay_refuses_what_it_cannot_mean_and_makes_nothing() {
    let world = World::with_definitions("replay-refused");
    world.webhook();
    for (line, code, expected) in [
        ("replay mail --since soon", 2, "90s, 15m, 1h or 2d"),
        ("replay mail --since 1h --until 2h", 2, "the window is empty"),
        ("replay mail --since 1h --failed --all", 2, "cannot be used with"),
        (
            "replay nobody --since 1h",
            1,
            "there is no webhooks.tidings.dev nobody in namespace replay-refused: `kubectl get webhooks.tidings.dev -n replay-refused`",
        ),
    ] {
        let (found, output) = world.tidings(line);
        assert_eq!((found, output.contains(expected)), (Some(code), true), "{line}: {output}");
    }
    assert_eq!(world.replays(), Vec::<Value>::new());
}

#[test]
fn replay_waits_until_it_is_complete_and_says_what_is_no_longer_there() {
    let world = World::with_definitions("replay-wait");
    world.webhook();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(["replay", "mail", "-n", "replay-wait", "--since", "1h", "--wait"]).stdout(Stdio::piped());
    let waiting = command.spawn().unwrap();
    let replay = loop {
        if let Some(replay) = world.replays().first() {
            break replay["metadata"]["name"].as_str().unwrap().to_owned();
        }
    };
    put_status(
        "replay-wait",
        "webhookreplay",
        &replay,
        &json!({
            "matched": 9, "replayed": 4, "oldestAvailableTime": "2026-01-31T00:00:00Z",
            "conditions": [{"type": "Complete", "status": "True", "reason": "Complete", "message": "done", "lastTransitionTime": "2026-01-31T00:00:00Z"}],
        }),
    );
    let (code, output) = said(&waiting.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("complete: 9 events matched, 4 put in line for delivery"), "{output}");
    assert!(output.contains("what was received before 2026-01-31T00:00:00Z is no longer there"), "{output}");
}

// === doctor ===

#[test]
fn doctor_finds_that_the_definitions_are_not_installed() {
    let world = World::with_definitions("no-definitions");
    kubectl(&["delete", "--wait", "-f", crds().to_str().unwrap()]);
    let (code, output) = world.doctor("mail");
    assert_eq!((code, output.contains("the definitions are not installed")), (Some(1), true), "{output}");
    let (code, output) = world.tidings("deliveries mail");
    assert_eq!((code, output.contains("install Tidings' definitions first")), (Some(1), true), "{output}");
}

#[test]
fn doctor_finds_what_is_missing_one_after_another() {
    let world = World::with_definitions("broken");
    let problem = |output: &str, expected: &str| {
        assert!(
            output.lines().any(|line| line.contains("problem") && line.contains(expected)),
            "{expected}: {output}"
        );
    };
    let (code, output) = world.doctor("mail");
    assert_eq!(code, Some(1), "{output}");
    problem(&output, "the operator is not running, and never did");
    problem(&output, "there is none of this name");
    world.webhook();
    let (_, output) = world.doctor("mail");
    problem(&output, "it names AuthServer broken/logto, which is not there");
    problem(&output, "there is no Secret broken/mail");
    problem(&output, "it has no status: the operator has not seen it");
    world.auth_server();
    world.secret();
    let (_, output) = world.doctor("mail");
    assert!(output.contains("the spec is in order, and AuthServer broken/logto allows it"), "{output}");
    assert!(output.contains("Secret mail is there") && !output.contains("nobody-sees"), "{output}");
    problem(&output, "no plan was published: there is no Secret tidings-plan-logto in broken");
    problem(&output, "no sidecar has reported");
}

#[test]
fn doctor_finds_nothing_where_all_is_well_and_a_stale_lease_where_it_is_not() {
    let world = World::with_definitions("healthy");
    world.webhook();
    world.auth_server();
    world.secret();
    world.operator();
    world.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tidings-plan-logto"}}));
    world.report();
    let ready = json!({
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "it runs", "lastTransitionTime": "2026-01-31T00:00:00Z"}],
    });
    put_status("healthy", "webhook", "mail", &ready);
    put_status("healthy", "authserver", "logto", &ready);
    let (code, output) = world.doctor("mail");
    assert_eq!((code, output.contains("no problem found")), (Some(0), true), "{output}");
    let (code, output) = world.doctor("-o json");
    assert_eq!(
        (code, serde_json::from_str::<Value>(&output).unwrap()["problems"].clone()),
        (Some(0), json!(0)),
        "{output}"
    );
    kubectl(&["create", "namespace", "beside"]);
    apply(&json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Webhook", "metadata": {"name": "lost", "namespace": "beside"},
        "spec": {
            "authServerRef": {"name": "nowhere"}, "events": ["*"],
            "endpoint": {"url": "https://example.com/"}, "secretRef": {"name": "x"},
        },
    }));
    let (code, output) = world.doctor("");
    assert_eq!((code, output.contains("beside/lost")), (Some(0), false), "another namespace: {output}");
    let (code, output) = world.doctor("-A");
    let both = output.contains("webhook beside/lost") && output.contains("webhook healthy/mail");
    assert_eq!((code, both), (Some(1), true), "{output}");
    kubectl(&[
        "patch",
        "lease",
        "tidings-operator",
        "-n",
        "healthy",
        "--type=merge",
        "-p",
        r#"{"spec":{"renewTime":"2026-01-01T00:00:00.000000Z"}}"#,
    ]);
    let (code, output) = world.doctor("mail");
    assert_eq!(
        (code, output.contains("operator-0 holds the Lease in healthy, and renewed it")),
        (Some(1), true),
        "{output}"
    );
    // With no node there is no pod to reach: the failure names the pod.
    let (code, output) = world.tidings("deliveries mail");
    assert_eq!((code, output.contains("sidecar logto-0 is gone")), (Some(1), true), "{output}");
}

#[test]
fn as_kubectls_plugin_it_is_found_by_its_name_in_the_path() {
    let world = World::with_definitions("plugin");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tidings"), folder.path().join("kubectl-tidings")).unwrap();
    let mut path = vec![folder.path().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let kubectl = |line: &str| {
        let mut command = Command::new("kubectl");
        command.args(line.split_whitespace()).env("PATH", std::env::join_paths(&path).unwrap());
        said(&command.output().unwrap())
    };
    let (code, output) = kubectl(&format!("tidings doctor mail -n {}", world.namespace));
    assert_eq!((code, output.contains("webhook plugin/mail")), (Some(1), true), "{output}");
    let (code, output) = kubectl("tidings doctor --help");
    assert_eq!((code, output.contains("Usage: kubectl tidings doctor")), (Some(0), true), "{output}");
}

#[test]
fn who_may_read_webhooks_alone_is_told_what_is_missing() {
    let world = World::with_definitions("barred");
    world.webhook();
    world.auth_server();
    let namespace = world.namespace.as_str();
    kubectl(&["create", "serviceaccount", "reader", "-n", namespace]);
    kubectl(&[
        "create",
        "role",
        "reader",
        "-n",
        namespace,
        "--verb=get,list",
        "--resource=webhooks.tidings.dev",
    ]);
    kubectl(&[
        "create",
        "rolebinding",
        "reader",
        "-n",
        namespace,
        "--role=reader",
        "--serviceaccount=barred:reader",
    ]);
    let token = kubectl(&["create", "token", "reader", "-n", namespace]);
    let kubeconfig = kubeconfig_of(&token);
    let flags = format!("--kubeconfig {}", kubeconfig.path().display());
    let (code, output) = world.tidings(&format!("deliveries mail {flags}"));
    let expected = "you may not list deliveryreports.tidings.dev in namespace barred: have an administrator grant you the verb list on deliveryreports (API group tidings.dev)";
    assert_eq!((code, output.contains(expected)), (Some(1), true), "{output}");
    kubectl(&[
        "create",
        "role",
        "reports",
        "-n",
        namespace,
        "--verb=list",
        "--resource=deliveryreports.tidings.dev",
    ]);
    kubectl(&[
        "create",
        "rolebinding",
        "reports",
        "-n",
        namespace,
        "--role=reports",
        "--serviceaccount=barred:reader",
    ]);
    world.report();
    let (code, output) = world.tidings(&format!("deliveries mail {flags}"));
    let expected = "grant you the verbs get and create on pods/portforward";
    assert_eq!((code, output.contains(expected)), (Some(1), true), "{output}");
    let (code, output) = world.tidings(&format!("replay mail --since 1h {flags}"));
    assert_eq!(
        (code, output.contains("grant you the verb create on webhookreplays")),
        (Some(1), true),
        "{output}"
    );
    let (code, output) = world.tidings(&format!("doctor mail {flags}"));
    assert_eq!(code, Some(1), "{output}");
    for expected in ["grant you the verb get on secrets", "--operator-namespace", "get on authservers"] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
}

/// The cluster of $KUBECONFIG, with another user.
fn kubeconfig_of(token: &str) -> tempfile::NamedTempFile {
    let whole: Value = serde_json::from_str(&kubectl(&["config", "view", "--raw", "-o", "json"])).unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "other",
        "clusters": [{"name": "cluster", "cluster": whole["clusters"][0]["cluster"]}],
        "users": [{"name": "other", "user": {"token": token.trim()}}],
        "contexts": [{"name": "other", "context": {"cluster": "cluster", "user": "other"}}],
    });
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(kubeconfig.to_string().as_bytes()).unwrap();
    file
}
