//! Containers that die, pods that are deleted or evicted, and what is on which volume.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::ledgers::volume;
use crate::objects::push;
use crate::shell::{apply, attempt, get, kubectl, run, until};
use crate::stage::{Copy, condition};
use crate::two_pods::{sidecar_of, signal};

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_dir_outlives_its_container_and_not_its_pod() {
    let copy = Copy::deployed("lost", |_| {}).await;
    let pod = copy.ready_pods(1).await.remove(0);
    copy.ledgers.fail();
    copy.sign_in(&pod).await;
    copy.wait_status("it waits", |status| status["pending"] == 1).await;

    signal(sidecar_of(&pod), "KILL").await;
    until("the sidecar was started again, and the auth server was not", async || {
        let status = get(&["pod", &pod, "-n", &copy.auth]).await["status"].clone();
        let (sidecar, auth_server) = (&status["initContainerStatuses"][0], &status["containerStatuses"][0]);
        assert_eq!(auth_server["restartCount"], 0, "the auth server goes on");
        (sidecar["restartCount"] == 1 && sidecar["ready"] == true).then_some(())
    })
    .await;
    copy.ledgers.recover();
    copy.wait_status("what waited is delivered", |status| status["delivered"] == 1).await;

    copy.ledgers.fail();
    copy.sign_in(&pod).await;
    copy.wait_status("it waits", |status| status["pending"] == 1).await;
    let follow = ["logs", "-f", &pod, "-n", &copy.auth, "-c", "tidings", "--tail=1"];
    let following =
        Command::new("kubectl").args(follow).stdout(std::process::Stdio::piped()).spawn().expect("kubectl");
    kubectl(&["delete", "pod", &pod, "-n", &copy.auth]).await;
    let log = following.wait_with_output().await.expect("it ends with the pod");
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(log.contains("ERROR") && log.contains("lost unless the volume stays"), "the loss is said: {log}");
    copy.ledgers.recover();
    let pod = copy.ready_pods(1).await.remove(0);
    copy.sign_in(&pod).await;
    copy.wait_status("the next one is delivered", |status| status["delivered"] == 2).await;
    copy.removed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_outlives_its_pod_deleted_or_evicted() {
    let copy = stateful().await;
    copy.ledgers.fail();
    for _ in 0..3 {
        copy.sign_in("logto-0").await;
    }
    copy.wait_status("three wait", |status| status["pending"] == 3).await;
    kubectl(&["delete", "pod", "logto-0", "-n", &copy.auth]).await;
    copy.ready_pods(1).await;
    copy.sign_in("logto-0").await;
    copy.wait_status("four wait", |status| status["pending"] == 4).await;
    evicted(&copy).await;
    copy.sign_in("logto-0").await;
    copy.ledgers.recover();
    copy.wait_status("all five are delivered", |status| status["delivered"] == 5).await;
    assert_eq!(copy.ledgers.received(), 5, "each once");
    copy.removed().await;
}

/// The stateful example, its claim a folder of the node, sending when it is told to alone.
async fn stateful() -> Copy {
    let copy = Copy::of("examples/statefulset", "kept", |objects| {
        let set = objects.object("StatefulSet", "logto");
        set["spec"]["replicas"] = json!(1);
        set["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] = json!("");
        let pod = &mut set["spec"]["template"]["spec"];
        pod["containers"][0]["args"] = json!(["demo", "auth-server"]);
        push(&mut pod["volumes"], json!({"name": "scratch", "emptyDir": {}}));
        push(&mut pod["containers"][0]["volumeMounts"], json!({"name": "scratch", "mountPath": "/scratch"}));
    })
    .await;
    let folder = copy.ledgers.folder("store");
    let mut disk = volume(&copy.auth, "tidings-data-logto-0", &folder).remove(0);
    disk["spec"]["accessModes"] = json!(["ReadWriteOnce"]);
    disk["spec"]["capacity"] = json!({"storage": "2Gi"});
    apply(&[disk]).await;
    copy.ready_pods(1).await;
    copy.ready().await;
    copy
}

/// Fills the node's disk from within the pod until the kubelet evicts it, and waits until it is back.
async fn evicted(copy: &Copy) {
    let pod = get(&["pod", "logto-0", "-n", &copy.auth]).await;
    let uid = pod["metadata"]["uid"].as_str().expect("a UID").to_owned();
    let node = pod["spec"]["nodeName"].as_str().expect("a node").to_owned();
    let disk = PathBuf::from(
        std::env::var_os("TIDINGS_NODE_DISK").expect("tests/node/run says where the node's disk is"),
    );
    let scratch = disk.join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/scratch"));
    fill(&scratch.join("filler")).await;
    until("the kubelet evicts it", async || {
        let (_, events) = attempt(
            "kubectl",
            &["get", "events", "-n", &copy.auth, "--field-selector=reason=Evicted", "-o", "name"],
        )
        .await;
        events.contains("event/").then_some(())
    })
    .await;
    until("it is back with another UID", async || {
        let (found, text) =
            attempt("kubectl", &["get", "pod", "logto-0", "-n", &copy.auth, "-o", "json"]).await;
        let pod: Value = serde_json::from_str(&text).ok().filter(|_| found)?;
        (pod["metadata"]["uid"] != *uid).then_some(())
    })
    .await;
    until("the node has room again", async || {
        let status = get(&["node", &node]).await["status"].clone();
        (condition(&status, "DiskPressure") == Some("False")).then_some(())
    })
    .await;
    copy.ready_pods(1).await;
}

/// Writes a file until the disk has next to nothing left.
async fn fill(file: &std::path::Path) {
    let path = file.to_str().expect("a path in UTF-8").to_owned();
    let folder = file.parent().and_then(std::path::Path::to_str).expect("a folder").to_owned();
    let free = run("df", &["--output=avail", "-B1", &folder]).await;
    let free: u64 = free.lines().last().and_then(|line| line.trim().parse().ok()).expect("bytes");
    run("fallocate", &["-l", &(free - free / 50).to_string(), &path]).await;
}
