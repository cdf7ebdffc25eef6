//! A wall clock that is set by days: nothing is deleted, nothing is dead-lettered without an attempt, and
//! nothing stalls. The clock is moved for one process, by a small library that is loaded into it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use tidings_signature::SigningKey;
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Receiver, Reply};
use tidings_tests::{capture, until};

const DAY: i64 = 24 * 3600;

/// What is added to the wall clock is read from a file at each call.
const SHIM: &str = r#"
#include <time.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>
#include <sys/syscall.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, id, now);
    char text[32] = {0};
    int file = id == CLOCK_REALTIME && getenv("CLOCK_FILE") ? open(getenv("CLOCK_FILE"), O_RDONLY) : -1;
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
        close(file);
    }
    return result;
}
"#;

/// A home whose sidecars have a wall clock of their own.
struct Moved {
    home: Home,
    library: PathBuf,
}

impl Moved {
    async fn new() -> Self {
        let home = Home::default();
        let library = home.library(SHIM).await;
        let moved = Self { home, library };
        moved.set(0);
        moved
    }

    /// Sets the clock so many seconds ahead, or behind.
    fn set(&self, seconds: i64) {
        std::fs::write(self.home.path("clock.new"), seconds.to_string()).unwrap();
        std::fs::rename(self.home.path("clock.new"), self.home.path("clock")).unwrap();
    }

    async fn start(&self) -> Process {
        let mut command = self.home.sidecar(&[]);
        command.env("LD_PRELOAD", &self.library).env("CLOCK_FILE", self.home.path("clock"));
        Process::start(command).await
    }
}

const EVENTS: usize = 3;

/// A sidecar that has events whose first attempts failed.
async fn with_failed_attempts(moved: &Moved, receiver: &Receiver) -> Process {
    let days = u32::try_from(3 * DAY).unwrap();
    moved.home.put(&plan([webhook("all", receiver).retrying_within(1, 1, days)]));
    let sidecar = moved.start().await;
    let mut sender = sidecar.sender().await;
    let key = SigningKey::new(&capture::signing_key()).unwrap();
    for number in 0..EVENTS {
        let body = format!(r#"{{"event":"User.Created","createdAt":"t{number}"}}"#).into_bytes();
        let headers = format!("logto-signature-sha-256: {}\r\n", key.logto_signature(&body));
        assert_eq!(sender.post("/events", &headers, &body).await.unwrap().status, 200);
    }
    sidecar
        .wait_webhook("shop/all", "each was tried, some time ago, and so saved", |webhook| {
            webhook["failed"].as_u64() >= Some(7)
        })
        .await;
    sidecar
}

/// All are delivered, and the log has them yet.
async fn all_delivered(sidecar: &Process) {
    let done = |webhook: &serde_json::Value| webhook["pending"] == 0;
    let webhook = sidecar.wait_webhook("shop/all", "nothing waits", done).await;
    let numbers = (&webhook["delivered"], &webhook["deadLettered"], &webhook["expired"]);
    assert_eq!(numbers, (&EVENTS.into(), &0.into(), &0.into()), "{webhook}");
    assert_eq!(sidecar.metric("tidings_store_oldest").await, Some(1), "the log has them yet");
}

async fn failing() -> Receiver {
    Receiver::answering(|_, _| Reply::Status(503)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_ahead_by_more_than_retention_deletes_nothing_and_gives_nothing_up() {
    let (moved, receiver) = (Moved::new().await, failing().await);
    let sidecar = with_failed_attempts(&moved, &receiver).await;
    moved.set(8 * DAY);
    until("the jump is counted", async || {
        (sidecar.metric("tidings_clock_jumps_total").await? == 1).then_some(())
    })
    .await;
    let output = sidecar.output();
    let line = output.lines().find(|line| line.contains("the wall clock was set")).unwrap();
    assert!(line.contains("WARN"), "{line}");
    let seconds: i64 = line.rsplit("seconds=").next().unwrap().trim().parse().unwrap();
    assert!((seconds - 8 * DAY).abs() < 5, "{line}");
    receiver.now_answering(|_, _| Reply::Status(200));
    all_delivered(&sidecar).await;
    // A receiver refuses what is not of its own time.
    let last = receiver.received().pop().unwrap();
    let stamp: i64 = last.header("webhook-timestamp").parse().unwrap();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    assert!((stamp - now - 8 * DAY).abs() < 300, "{stamp} is of the wall clock, which is {now} and 8 days");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_clock_that_is_days_ahead_keeps_the_log_and_tries_each_event_once_more() {
    let (moved, receiver) = (Moved::new().await, failing().await);
    let sidecar = with_failed_attempts(&moved, &receiver).await;
    sidecar.kill().await;
    receiver.now_answering(|_, _| Reply::Status(200));
    moved.set(8 * DAY);
    let sidecar = moved.start().await;
    all_delivered(&sidecar).await;
    assert!(sidecar.output().contains("removes nothing for its age"), "{}", sidecar.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_stalls_no_retry_neither_under_way_nor_after_a_restart() {
    let (moved, receiver) = (Moved::new().await, failing().await);
    let sidecar = with_failed_attempts(&moved, &receiver).await;
    moved.set(-3 * DAY);
    let sent = receiver.count();
    until("it is sent again", async || (receiver.count() > sent + 3).then_some(())).await;
    sidecar.kill().await;
    moved.set(-6 * DAY);
    receiver.now_answering(|_, _| Reply::Status(200));
    let sidecar = moved.start().await;
    all_delivered(&sidecar).await;
}
