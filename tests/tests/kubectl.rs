//! `tidings deliveries`, `deadletters` and `test` against real sidecars, without a cluster.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tidings_signature::SigningKey;
use tidings_tests::capture::of_event;
use tidings_tests::client::{Answer, Client, get_json};
use tidings_tests::plan::{Change as _, KEY, plan, webhook, webhook_to};
use tidings_tests::process::{Home, Process, binary, run};
use tidings_tests::receiver::{Receiver, Reply};
use tidings_tests::until;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

/// `tidings COMMAND … --admin URL`, where no API server could be found.
fn tidings(arguments: &[&str], sidecars: &[&Process]) -> Command {
    let mut command = Command::new(binary("tidings"));
    command.args(arguments).env("KUBECONFIG", "/nowhere").env("HOME", "/nowhere");
    for sidecar in sidecars {
        command.arg("--admin").arg(format!("http://{}", sidecar.admin));
    }
    command
}

async fn sidecar(plan: &tidings_plan::Plan) -> (Home, Process) {
    let home = Home::default();
    home.put(plan);
    let process = home.start().await;
    (home, process)
}

#[tokio::test(flavor = "multi_thread")]
async fn test_sends_one_signed_marked_event_that_leaves_no_trace() {
    let receiver = Receiver::start().await;
    let (_home, process) = sidecar(&plan([webhook("mail", &receiver)])).await;
    let (status, output) = run(tidings(&["test", "shop/mail"], &[&process])).await;
    assert!(status.success(), "{output}");
    let [received] = receiver.received().try_into().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(
        (&body["event"], &body["test"], &body["webhook"]),
        (&"Tidings.Test".into(), &true.into(), &"shop/mail".into())
    );
    assert_eq!(received.header("tidings-test"), "true");
    let key = SigningKey::new(KEY).unwrap();
    assert_eq!(received.header("logto-signature-sha-256"), key.logto_signature(&received.body));
    standardwebhooks::Webhook::new(KEY).unwrap().verify(&received.body, &received.headers).unwrap();
    for expected in [
        "sent     Tidings.Test",
        received.header("webhook-id"),
        "the endpoint answered 200",
        "takes what is sent",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
    assert!(!output.contains("/hook"), "of the URL only the host is told: {output}");
    let numbers = process.webhook("shop/mail").await;
    assert_eq!(
        (&numbers["delivered"], &numbers["failed"], &numbers["pending"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert_eq!(
        get_json(process.admin, "/deliveries?webhook=shop/mail").await["deliveries"],
        serde_json::json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn test_says_what_a_refusal_means_and_fails() {
    let receiver = Receiver::answering(|_, _| Reply::Status(401)).await;
    let silent = Receiver::answering(|_, _| Reply::Never).await;
    let (_home, process) = sidecar(&plan([
        webhook("refused", &receiver),
        webhook("silent", &silent).delivering(|delivery| delivery.timeout_seconds = 1),
        webhook_to("closed", "http://127.0.0.1:1/hook?token=secret"),
        webhook_to("nameless", "http://no-such-host.invalid/hook"),
    ]))
    .await;
    for (webhook, expected) in [
        ("shop/refused", ["401", "signature", "secretRef"]),
        ("shop/silent", ["no answer within 1 s", "did not answer in time", "timeoutSeconds"]),
        ("shop/closed", ["127.0.0.1:1,", "nobody takes connections", "NetworkPolicies"]),
        ("shop/nameless", ["no-such-host.invalid", "has no address", "DNS"]),
    ] {
        let (status, output) = run(tidings(&["test", webhook], &[&process])).await;
        assert_eq!(status.code(), Some(1), "{webhook}: {output}");
        for expected in expected {
            assert!(output.contains(expected), "{webhook}: {expected}: {output}");
        }
        assert!(!output.contains("token"), "{output}");
    }
    let (status, output) = run(tidings(&["test", "shop/refused", "-o", "json"], &[&process])).await;
    let tested: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        (status.code(), &tested["outcome"], &tested["statusCode"]),
        (Some(1), &"HttpStatus".into(), &401.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn test_tells_what_the_policy_forbids() {
    let mut forbidding =
        plan([webhook_to("mail", "http://localhost:9/hook"), webhook_to("literal", "http://127.0.0.1:9/")]);
    forbidding.egress.allow.clear();
    let (_home, process) = sidecar(&forbidding).await;
    let (status, output) = run(tidings(&["test", "shop/mail"], &[&process])).await;
    assert_eq!((status.code(), output.contains("egress.allow")), (Some(1), true), "{output}");
    let (status, output) = run(tidings(&["test", "shop/literal"], &[&process])).await;
    assert_eq!(
        (status.code(), output.contains("127.0.0.1")),
        (Some(1), true),
        "left out of the plan: {output}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn test_goes_also_to_a_suspended_webhook() {
    let receiver = Receiver::start().await;
    let mut suspended = webhook("mail", &receiver);
    suspended.suspend = true;
    let (_home, process) = sidecar(&plan([suspended])).await;
    let (status, output) = run(tidings(&["test", "mail", "-n", "shop"], &[&process])).await;
    assert!(status.success() && receiver.count() == 1, "{output}");
}

async fn post_test(admin: SocketAddr, headers: &str) -> Answer {
    let mut client = Client::connect(admin).await;
    client.post("/test?webhook=shop/mail", headers, b"").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_action_is_bounded_and_not_for_browsers() {
    let slow = Receiver::answering(|_, _| Reply::Never).await;
    let (_home, process) =
        sidecar(&plan([webhook("mail", &slow).delivering(|delivery| delivery.timeout_seconds = 2)])).await;
    let refused = post_test(process.admin, "origin: https://evil.example\r\n").await;
    assert_eq!((refused.status, refused.body.contains("OriginRefused")), (403, true));
    let got = tidings_tests::client::get(process.admin, "/test?webhook=shop/mail").await.unwrap();
    assert_eq!(got.status, 405);
    let admin = process.admin;
    let all: JoinSet<_> = (0..12).map(|_| async move { post_test(admin, "").await.status }).collect();
    let statuses = all.join_all().await;
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert!(slow.count() <= 4, "{} at once", slow.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_of_two_sidecars_are_merged_by_time() {
    let receiver = Receiver::answering(|nth, _| Reply::Status(if nth == 0 { 503 } else { 200 })).await;
    let plan = plan([webhook("mail", &receiver).retrying_within(1, 1, 60)]);
    let ((_one, first), (_two, second)) = (sidecar(&plan).await, sidecar(&plan).await);
    assert_eq!(first.sender().await.send(&of_event("PostSignIn")).await.status, 200);
    receiver.wait_for(2).await;
    assert_eq!(second.sender().await.send(&of_event("PostRegister")).await.status, 200);
    receiver.wait_for(3).await;
    let list = until("all three attempts are listed", async || {
        let (status, output) =
            run(tidings(&["deliveries", "shop/mail", "-o", "json"], &[&first, &second])).await;
        assert!(status.success(), "{output}");
        let page: serde_json::Value = serde_json::from_str(&output).unwrap();
        Some(page["deliveries"].as_array().unwrap().clone()).filter(|list| list.len() == 3)
    })
    .await;
    let seen: Vec<_> = list
        .iter()
        .map(|line| {
            (
                line["event"].as_str().unwrap(),
                line["statusCode"].as_u64().unwrap(),
                line["attempt"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(seen, [("PostSignIn", 503, 1), ("PostSignIn", 200, 2), ("PostRegister", 200, 1)]);
    let (_, table) = run(tidings(&["deliveries", "shop/mail"], &[&first, &second])).await;
    assert!(table.starts_with("TIME ") && table.lines().next().unwrap().ends_with("SIDECAR"), "{table}");
    assert!(table.contains(&first.admin.to_string()) && table.contains("HttpStatus"), "{table}");
    let (_, alone) = run(tidings(&["deliveries", "shop/mail"], &[&second])).await;
    assert!(alone.lines().next().unwrap().ends_with("WEBHOOK-ID"), "one sidecar needs no column: {alone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_prints_each_attempt_once_and_ends_with_ctrl_c() {
    let receiver = Receiver::start().await;
    let (_home, process) = sidecar(&plan([webhook("mail", &receiver)])).await;
    let mut command = tidings(&["deliveries", "shop/mail", "--watch", "-o", "json"], &[&process]);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut sender = process.sender().await;
    for event in ["PostSignIn", "PostRegister"] {
        assert_eq!(sender.send(&of_event(event)).await.status, 200);
        let line =
            tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.unwrap().unwrap().unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["event"], event, "each once, in order");
    }
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.unwrap().unwrap();
    assert_eq!((status.code(), lines.next_line().await.unwrap()), (Some(0), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn deadletters_lists_what_was_given_up() {
    let receiver = Receiver::answering(|_, _| Reply::Status(500)).await;
    let (_home, process) = sidecar(&plan([webhook("mail", &receiver).retrying_within(1, 1, 1)])).await;
    let (status, output) = run(tidings(&["deadletters", "shop/mail"], &[&process])).await;
    assert_eq!(
        (status.code(), output.contains("no event of shop/mail was given up")),
        (Some(0), true),
        "{output}"
    );
    assert_eq!(process.sender().await.send(&of_event("PostSignIn")).await.status, 200);
    process.wait_webhook("shop/mail", "given up", |webhook| webhook["deadLettered"] == 1).await;
    let output = until("it is listed", async || {
        let (status, output) = run(tidings(&["deadletters", "shop/mail"], &[&process])).await;
        assert!(status.success(), "{output}");
        output.contains("PostSignIn").then_some(output)
    })
    .await;
    assert!(output.starts_with("GIVEN-UP") && output.contains("replay mail -n shop --failed"), "{output}");
    let (_, output) = run(tidings(&["deadletters", "shop/mail", "-o", "json"], &[&process])).await;
    let page: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        (&page["deadLetters"][0]["event"], &page["deadLetters"][0]["statusCode"]),
        (&"PostSignIn".into(), &500.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told_with_the_way_out() {
    let receiver = Receiver::start().await;
    let (_home, process) = sidecar(&plan([webhook("mail", &receiver)])).await;
    let unknown = run(tidings(&["deliveries", "shop/nobody"], &[&process])).await;
    assert_eq!(
        (unknown.0.code(), unknown.1.contains("holds no Webhook shop/nobody")),
        (Some(1), true),
        "{}",
        unknown.1
    );
    let nameless = run(tidings(&["deliveries", "mail"], &[&process])).await;
    assert_eq!(
        (nameless.0.code(), nameless.1.contains("Write NAMESPACE/mail")),
        (Some(2), true),
        "{}",
        nameless.1
    );
    let https = run(tidings(&["test", "shop/mail", "--admin", "https://127.0.0.1:1"], &[])).await;
    assert_eq!((https.0.code(), https.1.contains("write http://HOST:PORT")), (Some(2), true), "{}", https.1);
    let nobody = run(tidings(&["test", "shop/mail", "--admin", "http://127.0.0.1:1"], &[])).await;
    assert_eq!(
        (nobody.0.code(), nobody.1.contains("sidecar 127.0.0.1:1: it cannot be reached")),
        (Some(1), true),
        "{}",
        nobody.1
    );
    let clusterless = run(tidings(&["deliveries", "mail"], &[])).await;
    assert_eq!(
        (clusterless.0.code(), clusterless.1.contains("--kubeconfig")),
        (Some(1), true),
        "{}",
        clusterless.1
    );
    // One of two answers: it is shown, and the other is told.
    let mut half = tidings(&["deliveries", "shop/mail"], &[&process]);
    half.args(["--admin", "http://127.0.0.1:1"]);
    let half = run(half).await;
    assert_eq!(
        (half.0.code(), half.1.contains("127.0.0.1:1: it cannot be reached")),
        (Some(1), true),
        "{}",
        half.1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn as_kubectls_plugin_its_help_names_the_command_that_was_typed() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-tidings");
    std::os::unix::fs::symlink(binary("tidings"), &plugin).unwrap();
    let help = async |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        run(command).await.1
    };
    let output = help(&plugin, &["deliveries", "--help"]).await;
    assert!(output.contains("Usage: kubectl tidings deliveries [OPTIONS] <WEBHOOK>"), "{output}");
    assert!(output.contains("  kubectl tidings deliveries welcome-mail -n shop"), "{output}");
    let output = help(&plugin, &["--help"]).await;
    assert!(output.contains("Usage: kubectl tidings <COMMAND>"), "{output}");
    let output = help(&plugin, &["deliveries", "mail", "--kubeconfig", "/nowhere"]).await;
    assert!(output.starts_with("kubectl tidings deliveries: "), "{output}");
    for command in ["deliveries", "deadletters", "replay", "test", "doctor"] {
        let output = help(&binary("tidings"), &[command, "--help"]).await;
        assert!(output.contains("EXAMPLES") && output.contains("EXIT CODES"), "{command}: {output}");
        assert!(output.contains(&format!("Usage: tidings {command}")), "{command}: {output}");
    }
    let completions = help(&binary("tidings"), &["completions", "bash"]).await;
    assert!(["deliveries", "deadletters", "replay", "doctor"].iter().all(|word| completions.contains(word)));
}
