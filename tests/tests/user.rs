//! The sidecar under a user that the cluster assigns, as `OpenShift` does: one that no file of the image names, in group 0,
//! with a volume that belongs to root and that the group may write to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tidings_tests::capture::captured;
use tidings_tests::plan::{plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::Receiver;
use tokio::process::Command;

/// A user of the kind that `OpenShift` gives a namespace.
const ASSIGNED: u32 = 1_000_680_000;

fn may(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The sidecar's command line under that user. Who is not root has such a user in a namespace of its own, where the volume is
/// the user's.
fn assigned(home: &Home) -> Command {
    std::fs::create_dir_all(home.data()).unwrap();
    let mut sidecar = home.sidecar(&[]);
    if is_root() {
        // Only the volume is closed to others.
        may(home.data().parent().unwrap(), 0o755);
        may(&home.data(), 0o770);
        sidecar.uid(ASSIGNED).gid(0);
        return sidecar;
    }
    let mut command = Command::new("unshare");
    command.arg(format!("--map-user={ASSIGNED}")).arg("--map-group=0");
    command.arg(sidecar.as_std().get_program()).args(sidecar.as_std().get_args());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_under_any_user_stores_and_delivers_and_finds_its_events_again() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver)]));
    let captures = captured();
    for (nth, capture) in captures.iter().take(2).enumerate() {
        let sidecar = Process::start(assigned(&home)).await;
        let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.id())).unwrap();
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        assert!(!is_root() || user.contains(&ASSIGNED.to_string()), "{user}");
        assert_eq!(sidecar.sender().await.send(capture).await.status, 200);
        assert_eq!(receiver.wait_for(nth + 1).await.last().unwrap().body, capture.body);
        let (ended, output) = sidecar.terminate().await;
        assert!(ended.success(), "{output}");
    }
}
