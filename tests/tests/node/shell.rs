//! Commands as a user types them: kubectl, helm, and our own.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidings_tests::process::{binary, in_workspace};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// How long a pod may take to be as it should; the machine is small and does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// What is shown when a condition never holds.
const SHOWN: &str = "pods,persistentvolumes,persistentvolumeclaims,webhooks,authservers";

/// Runs a command, and gives what it prints, both outputs together.
pub(crate) async fn attempt(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(in_workspace(""))
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Runs a command that must succeed.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> String {
    let (worked, said) = attempt(program, arguments).await;
    assert!(worked, "{program} {}\n{said}", arguments.join(" "));
    said
}

/// kubectl; must succeed.
pub(crate) async fn kubectl(arguments: &[&str]) -> String {
    run("kubectl", arguments).await
}

/// helm; must succeed.
pub(crate) async fn helm(arguments: &[&str]) -> String {
    run("helm", arguments).await
}

/// Our command line, as built for the tests; must succeed.
pub(crate) async fn tidings(arguments: &[&str]) -> String {
    let program = binary("tidings");
    run(program.to_str().expect("a path in UTF-8"), arguments).await
}

/// Applies objects.
pub(crate) async fn apply(objects: &[Value]) {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let mut child = Command::new("kubectl")
        .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl runs");
    child.stdin.take().expect("its input").write_all(list.as_bytes()).await.expect("it reads");
    let output = child.wait_with_output().await.expect("kubectl ends");
    assert!(output.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
}

/// What kubectl gets, as JSON.
pub(crate) async fn get(arguments: &[&str]) -> Value {
    let text = kubectl(&[&["get", "-o", "json"], arguments].concat()).await;
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("kubectl get {}: {error}\n{text}", arguments.join(" ")))
}

/// Asks until the answer is `Some`; panics with what was waited for, with the pods and the events there are then.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        if began.elapsed() > PATIENCE {
            let (_, pods) = attempt("kubectl", &["get", SHOWN, "-A", "-o", "wide"]).await;
            let (_, events) = attempt("kubectl", &["get", "events", "-A", "--sort-by=.lastTimestamp"]).await;
            panic!("still not so after {PATIENCE:?}: {what}\n{pods}\n{events}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
