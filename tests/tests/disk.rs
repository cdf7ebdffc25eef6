//! A disk that fills up: a small tmpfs in a mount namespace of the sidecar's own, with a ballast file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use tidings_signature::SigningKey;
use tidings_tests::client::get;
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Receiver, Reply};
use tidings_tests::{capture, until};
use tokio::process::Command;

/// Starts the sidecar with its data on a tmpfs of 32 MiB, of which a ballast takes 20.
async fn on_a_small_disk(home: &Home, arguments: &[&str]) -> Process {
    std::fs::create_dir_all(home.data()).unwrap();
    let script =
        r#"mount -t tmpfs -o size=32m none "$0" && head -c 20971520 /dev/zero > "$0/ballast" && exec "$@""#;
    let sidecar = home.sidecar(arguments);
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(home.data());
    command.arg(sidecar.as_std().get_program()).args(sidecar.as_std().get_args());
    Process::start(command).await
}

/// The ballast, as it is seen from outside of the namespace.
fn ballast(home: &Home, sidecar: &Process) -> PathBuf {
    let data = home.data();
    PathBuf::from(format!("/proc/{}/root", sidecar.id()))
        .join(data.strip_prefix("/").unwrap())
        .join("ballast")
}

fn event(number: usize) -> (String, Vec<u8>) {
    let fill = "x".repeat(100_000);
    let body = format!(r#"{{"event":"User.Created","createdAt":"t{number}","fill":"{fill}"}}"#).into_bytes();
    let key = SigningKey::new(&capture::signing_key()).unwrap();
    (format!("logto-signature-sha-256: {}\r\n", key.logto_signature(&body)), body)
}

/// Fills the disk until an event is refused, frees it, and goes on: what was answered 200 arrives, whole.
async fn fills_and_recovers(arguments: &[&str]) {
    let receiver = Receiver::start().await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver)]));
    let sidecar = on_a_small_disk(&home, arguments).await;
    let (mut taken, mut sender) = (Vec::new(), sidecar.sender().await);
    let refused = loop {
        let (headers, body) = event(taken.len());
        let answer = sender.post("/events", &headers, &body).await.unwrap();
        if answer.status != 200 {
            break answer;
        }
        taken.push(body);
        assert!(taken.len() < 1000, "the disk never filled up");
    };
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(
        refused.head.contains("retry-after: ") && refused.body.contains("NoSpace"),
        "{} {}",
        refused.head,
        refused.body
    );
    assert!(taken.len() > 10, "{} were taken before", taken.len());
    assert_eq!(get(sidecar.admin, "/livez").await.unwrap().status, 200, "it goes on living");
    std::fs::remove_file(ballast(&home, &sidecar)).unwrap();
    let (headers, body) = event(taken.len());
    until("events are taken again", async || {
        (sidecar.sender().await.post("/events", &headers, &body).await?.status == 200).then_some(())
    })
    .await;
    taken.push(body);
    let received = receiver.wait_for(taken.len()).await;
    for body in &taken {
        assert!(received.iter().any(|one| one.body == body), "an acknowledged event is missing");
    }
    sidecar.wait_webhook("shop/all", "all delivered", |webhook| webhook["pending"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_refused_before_the_disk_is_full_and_taken_again_when_there_is_space() {
    fills_and_recovers(&["--min-free-bytes", "4194304"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_really_full_loses_nothing_either() {
    fills_and_recovers(&["--min-free-bytes", "0"]).await;
}

/// Posts events until some are refused in a row for want of space.
async fn fill(sidecar: &Process, from: usize) -> usize {
    let (mut sender, mut refused) = (sidecar.sender().await, 0);
    for number in from.. {
        let (headers, body) = event(number);
        let answer = sender.post("/events", &headers, &body).await.expect("an answer: it goes on living");
        refused = if answer.status == 200 { 0 } else { refused + 1 };
        if refused == 3 {
            return number;
        }
        assert!(number < from + 2000, "the disk never filled up");
    }
    unreachable!("it counts for ever")
}

/// Takes all space that is left on the sidecar's disk, as another program does.
fn take_the_rest(home: &Home, sidecar: &Process) -> PathBuf {
    let path = ballast(home, sidecar).with_file_name("rest");
    let zeros = vec![0; 64 << 20];
    // It writes what there is room for.
    let _ = std::fs::write(&path, zeros);
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_finds_the_disk_full_waits_and_the_sidecar_goes_on() {
    let home = Home::default();
    home.put(&plan([]));
    let limits = ["--min-free-bytes", "0", "--max-age-seconds", "6"];
    let mut sidecar = on_a_small_disk(&home, &limits).await;
    let taken = fill(&sidecar, 0).await;
    let rest = take_the_rest(&home, &sidecar);
    let oldest = async || sidecar.metric("tidings_store_oldest").await.unwrap();
    assert_eq!(oldest().await, 1, "nothing is old yet");
    // What is old is to be removed now, which needs space that there is not.
    until("retention was due", async || {
        sidecar.output().contains("retention finds the disk full").then_some(())
    })
    .await;
    assert!(sidecar.is_running());
    assert_eq!(get(sidecar.admin, "/livez").await.unwrap().status, 200);
    for file in [rest, ballast(&home, &sidecar)] {
        std::fs::remove_file(file).unwrap();
    }
    let (headers, body) = event(taken);
    until("events are taken again", async || {
        (sidecar.sender().await.post("/events", &headers, &body).await?.status == 200).then_some(())
    })
    .await;
    until("retention goes on", async || (sidecar.metric("tidings_store_oldest").await? > 1).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_told_to_end_on_a_full_disk_ends_in_time_and_says_what_was_not_saved() {
    let receiver = Receiver::answering(|_, _| Reply::Status(503)).await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver).retrying_within(1, 1, 36_000)]));
    let sidecar = on_a_small_disk(&home, &["--min-free-bytes", "0", "--drain-seconds", "3"]).await;
    let mut sender = sidecar.sender().await;
    for number in 0..3 {
        let (headers, body) = event(number);
        assert_eq!(sender.post("/events", &headers, &body).await.unwrap().status, 200);
    }
    take_the_rest(&home, &sidecar);
    // Each failed attempt is to be saved, and cannot be.
    let sent = receiver.count();
    until("they are sent again", async || (receiver.count() > sent + 2).then_some(())).await;
    let began = std::time::Instant::now();
    let (status, output) = sidecar.terminate().await;
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "it took {:?}", began.elapsed());
    assert!(!status.success(), "{output}");
    assert!(output.contains("ERROR") && output.contains("could not be saved"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_of_a_disk_that_is_nearly_full() {
    let home = Home::default();
    home.put(&plan([]));
    let sidecar = home.start_with(&["--min-free-bytes", "18446744073709551615"]).await;
    let ready = get(sidecar.admin, "/readyz").await.unwrap();
    assert_eq!((ready.status, ready.body.contains("--min-free-bytes")), (503, true), "{}", ready.body);
}

/// What `du` says of the data folder, as the kubelet measures an emptyDir.
async fn size_of_data(home: &Home) -> u64 {
    let mut command = Command::new("du");
    command.args(["--summarize", "--block-size=1"]).arg(home.data());
    let output = command.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

const LIMIT: u64 = 32 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_size_limit_is_never_larger_however_much_the_disk_has_free() {
    let home = Home::default();
    home.put(&plan([]));
    let sidecar = home.start_with(&["--data-size-limit", "32Mi", "--min-free-bytes", "12Mi"]).await;
    let mut sender = sidecar.sender().await;
    let mut taken = 0;
    let refused = loop {
        let (headers, body) = event(taken);
        let answer = sender.post("/events", &headers, &body).await.unwrap();
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(size_of_data(&home).await < LIMIT, "after {taken} events");
    };
    assert_eq!((refused.status, refused.body.contains("NoSpace")), (503, true), "{}", refused.body);
    assert!(taken > 50, "{taken} were taken before");
    assert_eq!(get(sidecar.admin, "/livez").await.unwrap().status, 200, "it goes on living");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_quarter_of_the_limit_for_events_the_oldest_go_and_none_is_refused() {
    let home = Home::default();
    home.put(&plan([]));
    let limits = ["--data-size-limit", "128Mi", "--min-free-bytes", "8Mi", "--max-bytes", "32Mi"];
    let sidecar = home.start_with(&limits).await;
    let mut sender = sidecar.sender().await;
    for number in 0..1300 {
        let (headers, body) = event(number);
        let answer = sender.post("/events", &headers, &body).await.unwrap();
        assert_eq!(answer.status, 200, "event {number}: {}", answer.body);
    }
    assert!(size_of_data(&home).await < 4 * LIMIT);
}
