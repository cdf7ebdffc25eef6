//! The README's way into a cluster, command by command.

use std::time::Instant;

use tidings_tests::process::in_workspace;
use tokio::process::Command;

use crate::shell::{attempt, helm, kubectl, until};
use crate::stage;

/// The commands below the README's heading "In a cluster": its first block.
fn commands() -> Vec<String> {
    let readme = std::fs::read_to_string(in_workspace("README.md")).expect("the README");
    let (_, section) = readme.split_once("### In a cluster").expect("its heading");
    let block =
        section.lines().skip_while(|line| !line.starts_with("    ")).take_while(|line| !line.is_empty());
    block.map(|line| line.split(" # ").next().unwrap_or_default().trim().to_owned()).collect()
}

async fn shell(command: &str) -> String {
    let output = Command::new("bash")
        .args(["-ec", command])
        .current_dir(in_workspace(""))
        .output()
        .await
        .expect("bash runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("$ {command}\n{said}");
    assert!(output.status.success(), "{command}\n{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_says_installs_it_and_delivers_an_event() {
    // As on a fresh cluster, whatever ran before.
    stage::disturbed().await;
    for release in ["tidings", "tidings-crds"] {
        helm(&["uninstall", release, "-n", stage::SYSTEM, "--ignore-not-found", "--wait"]).await;
    }
    let commands = commands();
    assert!(commands.iter().any(|command| command.starts_with("helm")), "{commands:?}");
    let (began, mut ready_after) = (Instant::now(), None);
    for command in &commands {
        shell(command).await;
        if command.contains("condition=Ready") {
            ready_after = Some(began.elapsed());
        }
    }
    println!(
        "from the first command to Ready: {:.1} s",
        ready_after.expect("it waits for Ready").as_secs_f64()
    );
    let delivered = "-o=jsonpath={.status.delivered}";
    until("kubectl shows the delivery", async || {
        let count = kubectl(&["get", "webhook", "welcome-mail", "-n", "shop", delivered]).await;
        (count.trim() == "1").then_some(())
    })
    .await;
    let log = kubectl(&["logs", "deploy/mail", "-n", "shop"]).await;
    assert!(log.contains("PostSignIn") && log.contains("verified"), "{log}");
    println!("{}", kubectl(&["get", "pods,authservers,webhooks", "-A"]).await);
    stage::measured_memory("auth", "logto").await;
    kubectl(&["delete", "--wait=false", "-k", "examples/quickstart"]).await;
    gone("shop").await;
    gone("auth").await;
}

async fn gone(namespace: &str) {
    until(&format!("namespace {namespace} is gone"), async || {
        let (found, _) = attempt("kubectl", &["get", "namespace", namespace]).await;
        (!found).then_some(())
    })
    .await;
}
