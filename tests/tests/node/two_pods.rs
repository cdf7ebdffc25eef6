//! Two pods of one auth server: each has its own report, and a Webhook is Programmed once both run it.

use serde_json::{Value, json};

use crate::shell::{attempt, get, kubectl, run, tidings, until};
use crate::stage::{Copy, condition, name};

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_pods_reports_and_programmed_waits_for_both() {
    let copy = Copy::deployed("two", |_| {}).await;
    kubectl(&["scale", "deployment/logto", "--replicas=2", "-n", &copy.auth]).await;
    let pods = copy.ready_pods(2).await;
    until("both report", async || {
        let reports = get(&["deliveryreports", "-n", &copy.auth]).await;
        let mut names: Vec<_> = reports["items"].as_array()?.iter().map(name).collect();
        names.sort();
        let mut pods = pods.clone();
        pods.sort();
        (names == pods).then_some(())
    })
    .await;
    until("the AuthServer counts both", async || {
        let sidecars = get(&["authserver", "logto", "-n", &copy.auth]).await["status"]["sidecars"].clone();
        (sidecars == json!({"ready": 2, "total": 2})).then_some(())
    })
    .await;
    frozen_sidecar(&copy, &pods[0]).await;
    for pod in &pods {
        copy.sign_in(pod).await;
    }
    copy.wait_status("events of both are delivered", |status| status["delivered"] == 2).await;
    surfaces(&copy, &pods[0]).await;
    copy.removed().await;
}

/// A sidecar that does nothing for a while does not run what is new, and is named.
async fn frozen_sidecar(copy: &Copy, pod: &str) {
    let sidecar = sidecar_of(pod);
    signal(sidecar, "STOP").await;
    let edit = r#"{"spec":{"events":["PostRegister","PostSignIn","User.Created"]}}"#;
    kubectl(&["patch", "webhook", "welcome-mail", "-n", &copy.shop, "--type=merge", "-p", edit]).await;
    let status = copy
        .wait_status("Programmed waits", |status| {
            status["observedGeneration"] == 2 && condition(status, "Programmed") == Some("False")
        })
        .await;
    let said = message(&status, "Programmed");
    assert!(said.contains(pod), "the pod is named: {said}");
    signal(sidecar, "CONT").await;
    copy.wait_status("Programmed", |status| condition(status, "Programmed") == Some("True")).await;
}

/// Health and metrics answer the node; what tells of deliveries answers kubectl's port-forward alone.
async fn surfaces(copy: &Copy, pod: &str) {
    let address =
        get(&["pod", pod, "-n", &copy.auth]).await["status"]["podIP"].as_str().expect("its IP").to_owned();
    let page = async |path: &str| {
        let url = format!("http://{address}:8788{path}");
        attempt("curl", &["-sS", "-m", "10", "-w", "\n%{http_code}", &url]).await.1
    };
    for open in ["/livez", "/readyz", "/startupz", "/metrics"] {
        assert!(page(open).await.ends_with("\n200"), "{open}");
    }
    for closed in
        ["/webhooks", "/replays", "/deliveries?webhook=a/b", "/deadletters?webhook=a/b", "/test?webhook=a/b"]
    {
        let answer = page(closed).await;
        assert!(answer.contains("LoopbackOnly") && answer.ends_with("\n403"), "{closed}: {answer}");
    }
    let deliveries = tidings(&["deliveries", "welcome-mail", "-n", &copy.shop]).await;
    assert_eq!(deliveries.matches("PostSignIn").count(), 2, "{deliveries}");
}

/// The process of a pod's sidecar, found by its environment.
pub(crate) fn sidecar_of(pod: &str) -> u32 {
    let wanted = format!("POD_NAME={pod}");
    let processes = std::fs::read_dir("/proc")
        .expect("processes")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut found = processes.filter(|pid| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let is_sidecar = read("comm").starts_with(b"tidings-sidecar");
        is_sidecar && read("environ").split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    });
    found.next().unwrap_or_else(|| panic!("a sidecar runs in {pod}"))
}

pub(crate) async fn signal(pid: u32, which: &str) {
    run("kill", &[&format!("-{which}"), &pid.to_string()]).await;
}

fn message(status: &Value, of_type: &str) -> String {
    let conditions = status["conditions"].as_array().expect("conditions");
    let condition = conditions.iter().find(|condition| condition["type"] == of_type).expect("the condition");
    condition["message"].as_str().expect("a message").to_owned()
}
