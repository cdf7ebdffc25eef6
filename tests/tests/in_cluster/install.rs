//! A release from its installation to its end, and what is left then.

use tidings_tests::charts::{SYSTEM, helm_works};
use tidings_tests::cluster::{ControlPlane, apply, kubectl, try_kubectl};

const WEBHOOK: &str = r#"
{apiVersion: tidings.dev/v1alpha1, kind: Webhook, metadata: {name: kept, namespace: default},
 spec: {authServerRef: {name: logto}, events: ["*"], secretRef: {name: keys}, endpoint: {url: "https://mail.example.com"}}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn definitions_and_webhooks_outlive_their_releases() {
    // Alone, since the definitions are taken from everyone for a moment.
    let plane = ControlPlane::alone().await;
    plane.undefine().await;
    helm_works(&["install", "tidings-crds", "charts/tidings-crds"]);
    kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd/webhooks.tidings.dev"]).await;
    let notes = helm_works(&[
        "install",
        "tidings",
        "charts/tidings",
        "-n",
        SYSTEM,
        "--create-namespace",
        "--take-ownership",
    ]);
    assert!(notes.contains("No AuthServer is named yet"), "{notes}");
    apply(WEBHOOK).await;

    kubectl(&["get", "poddisruptionbudget/tidings-operator", "-n", SYSTEM]).await;
    helm_works(&["upgrade", "tidings-crds", "charts/tidings-crds"]);
    let set = ["--set", "operator.replicas=1,authServers[0].namespace=default,authServers[0].name=logto"];
    let notes = helm_works(&[&["upgrade", "tidings", "charts/tidings", "-n", SYSTEM][..], &set].concat());
    assert!(notes.contains("AuthServer default/logto"), "{notes}");
    kubectl(&["get", "role/tidings-sidecar-logto", "-n", "default"]).await;
    assert!(!try_kubectl(&["get", "poddisruptionbudget/tidings-operator", "-n", SYSTEM]).await.0);

    helm_works(&["rollback", "tidings", "1", "-n", SYSTEM]);
    kubectl(&["get", "poddisruptionbudget/tidings-operator", "-n", SYSTEM]).await;
    assert!(!try_kubectl(&["get", "role/tidings-sidecar-logto", "-n", "default"]).await.0);

    helm_works(&["uninstall", "tidings", "-n", SYSTEM]);
    helm_works(&["uninstall", "tidings-crds"]);
    for gone in ["deployment", "role", "clusterrole", "clusterrolebinding", "serviceaccount"] {
        let (there, said) = try_kubectl(&["get", gone, "tidings-operator", "-n", SYSTEM]).await;
        assert!(!there, "left: {said}");
    }
    kubectl(&["get", "crd/webhooks.tidings.dev", "crd/authservers.tidings.dev"]).await;
    kubectl(&["get", "webhook/kept", "-n", "default"]).await;
    kubectl(&["delete", "webhook/kept", "-n", "default"]).await;
}
