//! A store that cannot be opened, or fails, keeps nobody from signing in: the sidecar stays up, lets the
//! auth server start, names the cause and the fix, and takes events as soon as it can.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tidings_signature::SigningKey;
use tidings_tests::client::{Answer, get};
use tidings_tests::plan::{plan, webhook};
use tidings_tests::process::{Home, Process, bound_line};
use tidings_tests::receiver::Receiver;
use tidings_tests::{capture, until};
use tokio::process::Command;

/// How long an auth server's start may wait, and a little for a busy machine.
const PATIENCE: Duration = Duration::from_secs(13);

/// Starts a sidecar, and waits only until its ports are bound.
async fn start(command: Command) -> Process {
    Process::start_until(command, bound_line).await
}

/// A folder whose plan takes events.
fn home() -> Home {
    let home = Home::default();
    home.put(&plan([]));
    home
}

async fn post(sidecar: &Process, number: usize) -> Option<Answer> {
    let body = format!(r#"{{"event":"User.Created","createdAt":"t{number}"}}"#).into_bytes();
    let key = SigningKey::new(&capture::signing_key()).unwrap();
    let headers = format!("logto-signature-sha-256: {}\r\n", key.logto_signature(&body));
    sidecar.sender().await.post("/events", &headers, &body).await
}

/// An auth server's start is let through in time, events are refused, and both the cause and the fix are named.
async fn gives_way_and_names(sidecar: &mut Process, reason: &str, words: &[&str]) {
    let began = Instant::now();
    let page = async |path: &str| get(sidecar.admin, path).await.unwrap();
    until("its cause is known", async || page("/readyz").await.body.contains(reason).then_some(())).await;
    let ready = page("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.body);
    for word in words {
        assert!(ready.body.contains(word), "no {word:?} in {}", ready.body);
    }
    until("the start may go on", async || (page("/startupz").await.status == 200).then_some(())).await;
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    let refused = post(sidecar, 0).await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.body);
    let body: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(body["reason"], "StoreUnavailable", "{body}");
    assert!(body["message"].as_str().unwrap().contains(words[0]), "{body}");
    assert_eq!(page("/livez").await.status, 200);
    available(sidecar, 0).await;
    assert!(sidecar.is_running());
}

/// Waits for the metric, which is shown for a second.
async fn available(sidecar: &Process, value: u64) {
    until("the metric says so", async || {
        (sidecar.metric("tidings_store_available").await? == value).then_some(())
    })
    .await;
}

/// Events are taken in the same process.
async fn takes_events(sidecar: &mut Process) {
    until("events are taken", async || (post(sidecar, 1).await?.status == 200).then_some(())).await;
    assert_eq!(get(sidecar.admin, "/readyz").await.unwrap().status, 200);
    available(sidecar, 1).await;
    assert!(sidecar.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_lets_the_auth_server_start_and_is_named_with_its_fix() {
    let home = home();
    let sidecar = home.start().await;
    assert_eq!(post(&sidecar, 1).await.unwrap().status, 200);
    sidecar.terminate().await;
    std::fs::write(home.data().join("tidings.db"), "no database at all".repeat(1000)).unwrap();
    let mut sidecar = start(home.sidecar(&[])).await;
    gives_way_and_names(&mut sidecar, "StoreDamaged", &["tidings.db", "damaged", "move it away"]).await;
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "it ends in order: {output}");
    assert!(output.contains("ERROR"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_later_version_lets_the_auth_server_start_and_is_named_with_its_fix() {
    use std::os::unix::fs::FileExt as _;
    let home = home();
    home.start().await.terminate().await;
    // Where SQLite keeps the version in the file's first bytes.
    let database = std::fs::File::options().write(true).open(home.data().join("tidings.db")).unwrap();
    database.write_all_at(&99_u32.to_be_bytes(), 60).unwrap();
    let mut sidecar = start(home.sidecar(&[])).await;
    gives_way_and_names(&mut sidecar, "StoreNewer", &["version 99", "run the later", "restart"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_process_holds_is_taken_as_soon_as_that_one_ends() {
    let home = home();
    std::fs::create_dir(home.data()).unwrap();
    let lock = std::fs::File::create(home.data().join("lock")).unwrap();
    lock.lock().unwrap();
    let mut sidecar = start(home.sidecar(&[])).await;
    gives_way_and_names(&mut sidecar, "StoreLocked", &["in use by another process", "end that one"]).await;
    lock.unlock().unwrap();
    takes_events(&mut sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_start_is_waited_for() {
    let home = home();
    std::fs::create_dir(home.data()).unwrap();
    let script =
        r#"mount -t tmpfs -o size=1m none "$0" && { head -c 2m /dev/zero > "$0/ballast"; exec "$@"; }"#;
    let sidecar = home.sidecar(&["--min-free-bytes", "0"]);
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(home.data());
    command.arg(sidecar.as_std().get_program()).args(sidecar.as_std().get_args());
    let mut sidecar = start(command).await;
    gives_way_and_names(&mut sidecar, "StoreFull", &["is full", "free space", "enlarge the volume"]).await;
    let data = home.data();
    let seen = Path::new("/proc").join(sidecar.id().to_string()).join("root");
    std::fs::remove_file(seen.join(data.strip_prefix("/").unwrap()).join("ballast")).unwrap();
    takes_events(&mut sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_permission_is_named_and_taken_once_it_is_given() {
    let home = home();
    std::fs::create_dir(home.data()).unwrap();
    open_to_all(&home);
    let sidecar = home.sidecar(&[]);
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    }
    std::fs::set_permissions(home.data(), std::fs::Permissions::from_mode(0o555)).unwrap();
    command.arg(sidecar.as_std().get_program()).args(sidecar.as_std().get_args());
    let mut sidecar = start(command).await;
    gives_way_and_names(&mut sidecar, "StoreForbidden", &["ermission denied", "fsGroup"]).await;
    std::fs::set_permissions(home.data(), std::fs::Permissions::from_mode(0o777)).unwrap();
    takes_events(&mut sidecar).await;
}

/// Another user may read what a sidecar reads.
fn open_to_all(home: &Home) {
    for (path, mode) in [("", 0o755), ("plan", 0o755), ("plan/plan.json", 0o644)] {
        std::fs::set_permissions(home.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_does_not_answer_holds_nobody_up() {
    let home = home();
    std::fs::create_dir(home.data()).unwrap();
    // Opening a pipe waits until somebody reads from it.
    let pipe = home.data().join("lock");
    assert!(Command::new("mkfifo").arg(&pipe).status().await.unwrap().success());
    let mut sidecar = start(home.sidecar(&[])).await;
    gives_way_and_names(&mut sidecar, "StoreOpening", &["being opened", "volume"]).await;
    let _reader = tokio::task::spawn_blocking(move || std::fs::File::open(pipe).unwrap()).await.unwrap();
    takes_events(&mut sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_whose_store_never_opens_ends_at_once_when_it_is_told_to() {
    let home = home();
    std::fs::create_dir(home.data()).unwrap();
    let pipe = home.data().join("lock");
    assert!(Command::new("mkfifo").arg(&pipe).status().await.unwrap().success());
    let sidecar = start(home.sidecar(&[])).await;
    let began = Instant::now();
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "{output}");
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
}

/// Overwrites a file in place: the process under way has it mapped.
fn scramble(path: &Path) {
    use std::io::Write as _;
    let length = usize::try_from(std::fs::metadata(path).unwrap().len()).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().write_all(&vec![0xa5; length]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_at_once_ends_the_process_only_after_the_auth_server_may_start() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver)]));
    let mut sidecar = home.start().await;
    for file in ["tidings.db-wal", "tidings.db", "tidings.db-shm"] {
        scramble(&home.data().join(file));
    }
    until("it notices", async || (post(&sidecar, 1).await?.status == 503).then_some(())).await;
    let page = async |path: &str| get(sidecar.admin, path).await.unwrap();
    until("it is named", async || page("/readyz").await.body.contains("StoreFailed").then_some(())).await;
    assert_eq!(page("/startupz").await.status, 200);
    until("it ends", async || (!sidecar.is_running()).then_some(())).await;
    let (status, output) = sidecar.wait().await;
    assert!(!status.success() && output.contains("the sidecar ends"), "{output}");
    // The next one comes up, whatever it finds.
    let sidecar = start(home.sidecar(&[])).await;
    until("the start may go on", async || {
        (get(sidecar.admin, "/startupz").await?.status == 200).then_some(())
    })
    .await;
}
