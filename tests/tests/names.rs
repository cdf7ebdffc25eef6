//! Every event name that Logto knows, and one that it does not know yet.

use std::collections::BTreeSet;

use tidings_tests::capture::{self, Capture};
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, in_workspace};
use tidings_tests::receiver::Receiver;

fn all() -> Vec<Capture> {
    [capture::captured(), capture::read("logto-written")].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_is_taken_matched_exactly_and_by_wildcard_and_delivered_byte_for_byte() {
    let requests = all();
    let names: BTreeSet<_> = requests.iter().map(|request| request.event.as_str()).collect();
    assert_eq!(names.len(), 32, "31 names and one of the future");
    let (everything, exact) = (Receiver::start().await, Receiver::start().await);
    let exactly: Vec<_> = names.iter().copied().collect();
    let home = Home::default();
    home.put(&plan([webhook("everything", &everything), webhook("exact", &exact).selecting(&exactly)]));
    let sidecar = home.start().await;
    let mut sender = sidecar.sender().await;
    for request in &requests {
        let answer = sender.send(request).await;
        assert_eq!(answer.status, 200, "{}: {}", request.name, answer.body);
    }
    for receiver in [&everything, &exact] {
        let received = receiver.wait_for(requests.len()).await;
        for request in &requests {
            assert!(received.iter().any(|one| one.body == request.body), "{}", request.name);
        }
    }
}

#[test]
fn the_written_requests_are_what_their_script_writes() {
    let folder = tempfile::tempdir().unwrap();
    let script = in_workspace("tests/fixtures/logto-written/generate.py");
    let made = std::process::Command::new("python3").arg(&script).arg(folder.path()).status().unwrap();
    assert!(made.success());
    let mut compared = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
        let committed = std::fs::read(script.with_file_name(entry.file_name())).unwrap_or_default();
        assert!(
            std::fs::read(entry.path()).unwrap() == committed,
            "{:?} is stale: run {}",
            entry.file_name(),
            script.display()
        );
        compared += 1;
    }
    assert_eq!(compared, 16);
}
