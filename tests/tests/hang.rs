//! A disk that no longer answers: a sync that does not end returns no error, and is seen all the same. The sync is
//! held up for one process, by a small library that is loaded into it.

use tidings_signature::SigningKey;
use tidings_tests::plan::{plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::Receiver;
use tidings_tests::{capture, client, until};

/// A sync waits as long as a file is there.
const SHIM: &str = r#"
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>
static void wait_for_disk(void) {
    while (getenv("HANG_FILE") && access(getenv("HANG_FILE"), F_OK) == 0) usleep(10000);
}
int fdatasync(int file) { wait_for_disk(); return (int)syscall(SYS_fdatasync, file); }
int fsync(int file) { wait_for_disk(); return (int)syscall(SYS_fsync, file); }
"#;

async fn start(home: &Home) -> Process {
    let mut command = home.sidecar(&[]);
    command.env("LD_PRELOAD", home.library(SHIM).await).env("HANG_FILE", home.path("hang"));
    Process::start(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_does_not_end_is_in_the_metrics_and_fails_the_liveness_probe_until_it_ends() {
    let (home, receiver) = (Home::default(), Receiver::start().await);
    home.put(&plan([webhook("all", &receiver)]));
    let sidecar = start(&home).await;
    let livez = async || client::get(sidecar.admin, "/livez").await.unwrap();
    assert_eq!(livez().await.status, 200);

    std::fs::write(home.path("hang"), "").unwrap();
    let body = br#"{"event":"User.Created","createdAt":"t"}"#;
    let signature = SigningKey::new(&capture::signing_key()).unwrap().logto_signature(body);
    let headers = format!("logto-signature-sha-256: {signature}\r\n");
    let mut sender = sidecar.sender().await;
    let answer = tokio::spawn(async move { sender.post("/events", &headers, body).await });
    until("the metrics show how long it has taken", async || {
        let page = client::get(sidecar.admin, "/metrics").await?;
        let line =
            page.body.lines().find(|line| line.starts_with("tidings_store_commit_running_seconds "))?;
        (line.split(' ').nth(1)?.parse::<f64>().unwrap() > 2.0).then_some(())
    })
    .await;
    assert_eq!(livez().await.status, 200, "a slow disk is none that hangs");
    let dead =
        until("the liveness probe fails", async || Some(livez().await).filter(|page| page.status == 503));
    assert!(dead.await.body.contains("has waited for its disk"));
    assert!(!answer.is_finished(), "nothing is claimed of the event");

    std::fs::remove_file(home.path("hang")).unwrap();
    assert_eq!(answer.await.unwrap().unwrap().status, 200);
    receiver.wait_for(1).await;
    assert_eq!(livez().await.status, 200);
    assert!(sidecar.metric("tidings_store_commits_total ").await.is_some_and(|commits| commits > 0));
}
