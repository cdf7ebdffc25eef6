//! `tidings` as its users run it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use tidings_tests::capture::{self, of_event};
use tidings_tests::process::{Process, binary, in_workspace, run};
use tidings_tests::receiver::{Receiver, Reply};
use tidings_tests::until;
use tokio::process::Command;

fn tidings(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("tidings"));
    command.args(arguments);
    command
}

/// The demo's manifests with the captures' hook key, and both Webhooks at these receivers.
fn manifests(mail: &Receiver, sync: &Receiver) -> String {
    let text = std::fs::read_to_string(in_workspace("examples/demo/manifests.yaml")).unwrap();
    text.replace("demo-key-of-the-hook-in-logto", &capture::signing_key())
        .replace("9101", &mail.port().to_string())
        .replace("9102", &sync.port().to_string())
}

async fn dev(folder: &Path, more: &[&str]) -> Process {
    let mut command = tidings(&["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "-f"]);
    command.arg(folder.join("manifests.yaml")).arg("--data-dir").arg(folder.join("data")).args(more);
    Process::start(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_delivers_from_manifests_follows_their_changes_and_ends_cleanly() {
    let (mail, sync, moved) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifests.yaml");
    std::fs::write(&file, manifests(&mail, &sync)).unwrap();
    let process = dev(folder.path(), &[]).await;
    assert_eq!(process.sender().await.send(&of_event("PostSignIn")).await.status, 200);
    mail.wait_for(1).await;
    sync.wait_for(1).await;
    until("a line tells of it", async || {
        process.output().contains("shop/welcome-mail Ready=True Delivering=True").then_some(())
    })
    .await;
    // A broken edit changes nothing, and is told with file and line.
    std::fs::write(&file, manifests(&mail, &sync).replace("kind: AuthServer", "kind: [")).unwrap();
    until("the mistake is told", async || process.output().contains("manifests.yaml:").then_some(())).await;
    assert_eq!(process.sender().await.send(&of_event("PostRegister")).await.status, 200);
    mail.wait_for(2).await;
    std::fs::write(&file, manifests(&moved, &sync)).unwrap();
    let port = moved.port().to_string();
    until("the change is live", async || process.output().contains(&port).then_some(())).await;
    let mut again = of_event("PostRegister");
    again.body = String::from_utf8(again.body).unwrap().replace("2026-11-23T", "2026-11-24T").into_bytes();
    let signature =
        tidings_signature::SigningKey::new(&capture::signing_key()).unwrap().logto_signature(&again.body);
    let headers = format!("logto-signature-sha-256: {signature}\r\n");
    assert_eq!(process.sender().await.post("/events", &headers, &again.body).await.unwrap().status, 200);
    assert_eq!(moved.wait_for(1).await[0].body, again.body);
    let (status, output) = process.terminate().await;
    assert!(status.success(), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_survives_a_kill_and_delivers_what_waited() {
    let (mail, sync) = (Receiver::answering(|_, _| Reply::Status(503)).await, Receiver::start().await);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("manifests.yaml"), manifests(&mail, &sync)).unwrap();
    let process = dev(folder.path(), &[]).await;
    assert_eq!(process.sender().await.send(&of_event("PostSignIn")).await.status, 200);
    mail.wait_for(1).await;
    process.kill().await;
    mail.now_answering(|_, _| Reply::Status(200));
    let process = dev(folder.path(), &[]).await;
    let received = mail.wait_for(2).await;
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    process.wait_webhook("shop/welcome-mail", "delivered", |webhook| webhook["delivered"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_prints_json_objects_by_line() {
    let (mail, sync) = (Receiver::start().await, Receiver::start().await);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("manifests.yaml"), manifests(&mail, &sync)).unwrap();
    let mut command =
        tidings(&["dev", "-o", "json", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "-f"]);
    command.arg(folder.path().join("manifests.yaml")).arg("--data-dir").arg(folder.path().join("data"));
    let mut child = command.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    let ready: serde_json::Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(ready["type"], "ready");
    let events = ready["events"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://")
        .trim_end_matches("/events")
        .parse()
        .unwrap();
    let mut client = tidings_tests::client::Client::connect(events).await;
    assert_eq!(client.send(&of_event("PostSignIn")).await.status, 200);
    loop {
        let row: serde_json::Value =
            serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!((&row["type"], &row["ready"]), (&"webhook".into(), &"True".into()));
        if row["name"] == "data-sync" && row["delivered"] == 1 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_says_what_it_needs_when_the_auth_server_is_not_clear() {
    let (mail, sync) = (Receiver::start().await, Receiver::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifests.yaml");
    let second = "\n---\napiVersion: tidings.dev/v1alpha1\nkind: AuthServer\nmetadata: {name: other, namespace: auth}\nspec: {}\n";
    std::fs::write(&file, manifests(&mail, &sync) + second).unwrap();
    let (status, output) = run(tidings(&["dev", "-f", file.to_str().unwrap()])).await;
    assert_eq!(
        (status.code(), output.contains("--auth-server: auth/logto, auth/other")),
        (Some(2), true),
        "{output}"
    );
    std::fs::write(&file, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n").unwrap();
    let (status, output) = run(tidings(&["dev", "-f", file.to_str().unwrap()])).await;
    assert_eq!((status.code(), output.contains("no AuthServer")), (Some(1), true), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_first_picture_is_verified_by_both_services() {
    let (status, output) = run(tidings(&[
        "dev",
        "--demo",
        "--once",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]))
    .await;
    assert!(status.success(), "{output}");
    for expected in [
        "ready events=",
        "welcome-mail  verified PostSignIn",
        "data-sync     verified PostSignIn",
        "NAMESPACE",
        "DELIVERED",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lint_names_file_line_field_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("webhook.yaml");
    let good = std::fs::read_to_string(in_workspace("examples/demo/manifests.yaml")).unwrap();
    let cases = [
        (
            good.replace(
                "url: http://127.0.0.1:9101/mail",
                "url: http://127.0.0.1:9101/mail\n    serviceRef: {name: x, port: 1}",
            ),
            "  endpoint:",
            "spec.endpoint: InvalidSchema: write exactly one of url, urlFrom and serviceRef",
        ),
        (
            good.replace("events: [PostRegister, PostSignIn]", "event: [PostRegister]"),
            "event: [PostRegister]",
            "spec.event: InvalidSchema: there is no field \"event\"",
        ),
        (
            good.replace("http://127.0.0.1:9101/mail", "https://169.254.169.254/"),
            "https://169.254",
            "spec.endpoint.url: AddressBlocked",
        ),
        (
            good.replace("secretRef: {name: data-sync}", "secretRef: {name: nowhere}"),
            "name: nowhere",
            "spec.secretRef.name: SecretNotFound",
        ),
        (
            good.replace("events: [PostRegister, PostSignIn]", "events: [\"User*\"]"),
            "User*",
            "spec.events[0]: InvalidSchema",
        ),
        (
            good.replace("concurrency", "x").replace("timeoutSeconds: 5", "timeoutSeconds: five"),
            "timeoutSeconds: five",
            "spec.defaults.delivery.timeoutSeconds: InvalidSchema: a whole number is expected here, not a text",
        ),
    ];
    for (text, marker, expected) in cases {
        let line = 1 + text.lines().position(|line| line.contains(marker)).unwrap();
        std::fs::write(&file, text).unwrap();
        let (status, output) = run(tidings(&["lint", "-f", folder.path().to_str().unwrap()])).await;
        assert_eq!(status.code(), Some(1), "{expected}: {output}");
        assert!(
            output.contains(&format!("webhook.yaml:{line}: error: ")) && output.contains(expected),
            "{line} {expected}: {output}"
        );
    }
    std::fs::write(&file, &good).unwrap();
    let (status, output) = run(tidings(&["lint", "-o", "json", "-f", file.to_str().unwrap()])).await;
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        (status.code(), &report["objects"], &report["errors"]),
        (Some(0), &6.into(), &serde_json::json!([]))
    );
    let (status, _) = run(tidings(&["lint", "-f", folder.path().join("nowhere").to_str().unwrap()])).await;
    assert_eq!(status.code(), Some(1), "a path that is not there is a finding");
    let without_secrets = good.split("---\n").filter(|one| !one.contains("kind: Secret"));
    std::fs::write(&file, without_secrets.collect::<Vec<_>>().join("---\n")).unwrap();
    let lint = ["lint", "-f", file.to_str().unwrap(), "--external-secrets"];
    let (status, output) = run(tidings(&lint[..3])).await;
    assert!(status.code() == Some(1) && output.contains("SecretNotFound"), "{output}");
    let (status, output) = run(tidings(&lint)).await;
    assert_eq!(status.code(), Some(0), "Secrets stand elsewhere: {output}");
    let (status, _) = run(tidings(&["lint"])).await;
    assert_eq!(status.code(), Some(2), "bad usage");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_passes_each_captured_request_and_finds_a_flipped_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (head, body) = (folder.path().join("head"), folder.path().join("body"));
    let verify = async |request: &capture::Capture| {
        std::fs::write(&head, &request.head).unwrap();
        std::fs::write(&body, &request.body).unwrap();
        let key = capture::signing_key();
        run(tidings(&[
            "verify",
            "--secret",
            &key,
            "--headers",
            head.to_str().unwrap(),
            "--body",
            body.to_str().unwrap(),
        ]))
        .await
    };
    for request in capture::captured() {
        let (status, output) = verify(&request).await;
        assert!(
            status.success() && output.contains("logto-signature-sha-256  ok"),
            "{}: {output}",
            request.name
        );
    }
    let (status, output) = verify(&of_event("PostSignIn").flipped_at(40)).await;
    assert_eq!((status.code(), output.contains("differs")), (Some(1), true), "{output}");
    assert!(!output.contains(&capture::signing_key()));
    let (status, _) =
        run(tidings(&["verify", "--secret", "x", "--headers", "/nowhere", "--body", "/nowhere"])).await;
    assert_eq!(status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_help_teach() {
    let (status, output) = run(tidings(&["completions", "bash"])).await;
    assert!(status.success() && output.contains("_tidings"));
    for command in ["dev", "lint", "verify"] {
        let (status, output) = run(tidings(&[command, "--help"])).await;
        assert!(status.success() && output.contains("EXIT CODES"), "{command}: {output}");
    }
}
