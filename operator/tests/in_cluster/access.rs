//! A team looks at its own deliveries through the operator's API: who asks is decided by the API server, with the
//! person's own token; and nobody but the operator is answered by a sidecar from outside of its pod.
//!
//! There is no pod network here: the operator's port is asked directly, where the API server's proxy would pass the
//! request on, and a pod's address is one of this machine that is not loopback. A sidecar's trust ends at loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::client::Body;
use kube::{Client, Config};
use serde_json::{Value, json};
use tidings_crds::Webhook;
use tidings_plan::shards::{self, ADMIN_KEY};
use tidings_signature::question::{
    AdminKey, KEY_BYTES, NONCE_HEADER, Question, SIGNATURE_HEADER, TIMESTAMP_HEADER,
};
use tidings_tests::client::Answer;
use tidings_tests::cluster::{apply, manifest};
use tidings_tests::process::{Process, binary};
use tidings_tests::receiver::Receiver;
use tidings_tests::{client, until};
use tokio::process::Command;

use crate::objects::Change as _;
use crate::stage::{Stage, send, until_told};

/// An address of this machine that is not loopback; nothing is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("198.51.100.1:9").expect("the machine has an address beside loopback");
    socket.local_addr().unwrap().ip()
}

/// The object of a pod, which no node runs: its sidecar's admin port is there.
async fn pod(stage: &Stage, (namespace, account): (&str, &str), name: &str, admin: SocketAddr) {
    let pods: Api<Pod> = Api::namespaced(stage.admin(), namespace);
    let ports = json!([{ "name": "tidings-admin", "containerPort": admin.port() }]);
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "serviceAccountName": account,
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "main", "image": "none", "ports": ports,
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    stage.put(&object).await;
    let status = json!({ "status": { "podIP": admin.ip(), "podIPs": [{ "ip": admin.ip() }] } });
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

/// A sidecar whose admin port is open beyond loopback, as in a pod, and its pod.
async fn sidecar_in_pod(stage: &Stage, name: &str) -> (Process, SocketAddr) {
    let sidecar = stage.sidecar_at(name, "0.0.0.0:0").await;
    let admin = SocketAddr::new(own_address(), sidecar.admin.port());
    pod(stage, (&stage.auth, "logto"), name, admin).await;
    (sidecar, admin)
}

/// Gives a team's `ServiceAccount` rights to subresources of Webhooks in its own namespace.
async fn grant(stage: &Stage, namespace: &str, account: &str, rules: &[(&str, &str)]) -> Value {
    let rules: Vec<_> = rules
        .iter()
        .map(|(verb, sub)| {
            json!({ "apiGroups": ["tidings.dev"], "resources": [format!("webhooks/{sub}")], "verbs": [verb] })
        })
        .collect();
    let metadata = json!({ "name": account, "namespace": namespace });
    let api = "rbac.authorization.k8s.io/v1";
    stage.put(&json!({ "apiVersion": api, "kind": "Role", "metadata": metadata, "rules": rules })).await;
    let binding = json!({
        "apiVersion": api, "kind": "RoleBinding", "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": namespace }],
    });
    stage.put(&binding).await;
    binding
}

/// A `ServiceAccount`'s token, as its pods have it.
async fn token(stage: &Stage, namespace: &str, account: &str) -> String {
    let file = stage.plane.kubeconfig_of(namespace, account).await;
    let kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    kubeconfig["users"][0]["user"]["token"].as_str().unwrap().to_owned()
}

/// Asks the operator as the API server's proxy would: without its certificate being verified.
async fn ask(operator: &Process, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut config = Config::new(format!("https://{}", operator.events).parse().unwrap());
    config.accept_invalid_certs = true;
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response =
        Client::try_from(config).unwrap().send(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{status} {body:?}")))
}

/// The same with a token.
async fn ask_as(operator: &Process, token: &str, method: &str, path: &str) -> (u16, Value) {
    ask(operator, method, path, &[("tidings-authorization", &format!("Bearer {token}"))]).await
}

fn page(namespace: &str, webhook: &str, page: &str) -> String {
    format!("/v1/namespaces/{namespace}/webhooks/{webhook}/{page}")
}

/// Waits until the operator's key came to the sidecars.
async fn until_answered(operator: &Process, token: &str, path: &str) -> Value {
    until("the operator is answered by the sidecars", async || {
        let (status, answer) = ask_as(operator, token, "GET", path).await;
        (status == 200).then_some(answer)
    })
    .await
}

async fn until_delivered(stage: &Stage, webhook: &str) {
    let has = |webhook: &Webhook| webhook.status.as_ref().is_some_and(|status| status.delivered == 1);
    stage.wait_webhook(webhook, "1 delivered", has).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_sees_the_deliveries_of_its_own_webhook_and_of_no_other() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let operator = stage.operator_with_api("operator-0").await;
    let (sidecar, _) = sidecar_in_pod(&stage, "logto-0").await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    stage.wait_ready("mail").await;
    send(&sidecar, "PostSignIn").await;
    until_delivered(&stage, "mail").await;
    let crm = stage.plane.namespace("crm").await;
    let everything = [("get", "deliveries"), ("create", "test")];
    grant(&stage, &stage.shop, "shop-team", &everything).await;
    grant(&stage, &crm, "crm-team", &everything).await;
    grant(&stage, &stage.shop, "viewer", &[("get", "deliveries")]).await;
    let (shop, other) =
        (token(&stage, &stage.shop, "shop-team").await, token(&stage, &crm, "crm-team").await);
    let viewer = token(&stage, &stage.shop, "viewer").await;
    let mut answers = Vec::new();

    let deliveries = page(&stage.shop, "mail", "deliveries");
    let answer = until_answered(&operator, &shop, &deliveries).await;
    assert_eq!(answer["sidecars"], json!([{ "name": "logto-0", "answered": true }]), "{answer}");
    let rows = answer["deliveries"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{answer}");
    assert_eq!((&rows[0]["event"], &rows[0]["sidecar"]), (&json!("PostSignIn"), &json!("logto-0")));
    answers.push(answer);
    let (status, answer) = ask_as(&operator, &shop, "GET", &page(&stage.shop, "mail", "deadletters")).await;
    assert_eq!((status, &answer["deadLetters"]), (200, &json!([])), "{answer}");
    let test = page(&stage.shop, "mail", "test");
    let (status, answer) = ask_as(&operator, &shop, "POST", &test).await;
    assert_eq!(
        (status, &answer["outcome"], &answer["sidecar"]),
        (200, &json!("Delivered"), &json!("logto-0"))
    );
    assert_eq!(receiver.wait_for(2).await[1].headers["tidings-test"], "true");

    let (status, answer) = ask_as(&operator, &other, "GET", &deliveries).await;
    let message = answer["message"].as_str().unwrap();
    assert_eq!((status, &answer["reason"]), (403, &json!("Forbidden")));
    assert!(
        message.contains("verb get on webhooks/deliveries") && message.contains(&stage.shop),
        "{message}"
    );
    answers.push(answer);
    let (status, answer) = ask_as(&operator, &viewer, "POST", &test).await;
    assert_eq!(status, 403);
    assert!(answer["message"].as_str().unwrap().contains("verb create on webhooks/test"), "{answer}");
    assert_eq!(ask_as(&operator, &viewer, "GET", &deliveries).await.0, 200);
    // What is not theirs they cannot tell from what is not there.
    assert_eq!(ask_as(&operator, &other, "GET", &page(&stage.shop, "none", "deliveries")).await.0, 403);

    let bearer = format!("Bearer {shop}");
    for (headers, reason) in [
        (&[][..], "NoToken"),
        // The proxy drops this one, so it never counts.
        (&[("authorization", bearer.as_str())][..], "NoToken"),
        (&[("tidings-authorization", "Bearer ")][..], "InvalidToken"),
        (&[("tidings-authorization", "Bearer garbage")][..], "Unauthenticated"),
    ] {
        let (status, answer) = ask(&operator, "GET", &deliveries, headers).await;
        assert_eq!((status, &answer["reason"]), (401, &json!(reason)), "{answer}");
        answers.push(answer);
    }
    assert_eq!(receiver.count(), 2, "nobody but the team caused anything");

    let metrics = client::get(operator.admin, "/metrics").await.unwrap().body;
    let told = format!("{}{}{metrics}{}", operator.output(), sidecar.output(), json!(answers));
    for secret in [&shop, &other, &viewer] {
        assert!(!told.contains(secret.as_str()), "a token is in what was printed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_is_gone_within_seconds() {
    let stage = Stage::new().await;
    let operator = stage.operator_with_api("operator-0").await;
    let _sidecar = sidecar_in_pod(&stage, "logto-0").await;
    stage.put(&stage.webhook("mail")).await;
    stage.wait_ready("mail").await;
    let binding = grant(&stage, &stage.shop, "shop-team", &[("get", "deliveries")]).await;
    let team = token(&stage, &stage.shop, "shop-team").await;
    let deliveries = page(&stage.shop, "mail", "deliveries");
    until_answered(&operator, &team, &deliveries).await;
    let refused = async |status: u16| {
        let asked = until("it is refused", async || {
            (ask_as(&operator, &team, "GET", &deliveries).await.0 == status).then_some(())
        });
        tokio::time::timeout(Duration::from_secs(30), asked)
            .await
            .expect("within the time that answers are kept");
    };
    stage.delete(&binding).await;
    refused(403).await;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "shop-team", "namespace": stage.shop } });
    stage.delete(&account).await;
    refused(401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_away_is_named_and_the_others_answer() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let operator = stage.operator_with_api("operator-0").await;
    let (sidecar, _) = sidecar_in_pod(&stage, "logto-0").await;
    let (gone, _) = sidecar_in_pod(&stage, "logto-1").await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    stage.wait_ready("mail").await;
    send(&sidecar, "PostSignIn").await;
    receiver.wait_for(1).await;
    grant(&stage, &stage.shop, "shop-team", &[("get", "deliveries")]).await;
    let team = token(&stage, &stage.shop, "shop-team").await;
    let deliveries = page(&stage.shop, "mail", "deliveries");
    until_answered(&operator, &team, &deliveries).await;
    gone.kill().await;
    let answer = until("one of two answers", async || {
        let (status, answer) = ask_as(&operator, &team, "GET", &deliveries).await;
        (status == 200 && answer["sidecars"][1]["answered"] == false).then_some(answer)
    })
    .await;
    assert_eq!(answer["sidecars"][0], json!({ "name": "logto-0", "answered": true }), "{answer}");
    assert_eq!(answer["sidecars"][1]["name"], "logto-1");
    assert!(answer["sidecars"][1]["message"].as_str().unwrap().contains("cannot be reached"), "{answer}");
    assert_eq!(answer["deliveries"].as_array().unwrap().len(), 1, "{answer}");
}

/// A question to a sidecar with a signature of one's own.
struct Signed {
    key: Vec<u8>,
    pod: &'static str,
    nonce: &'static str,
    age_seconds: i64,
}

impl Signed {
    async fn get(&self, admin: SocketAddr, target: &str) -> Answer {
        let now = i64::try_from(
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
        )
        .unwrap();
        let timestamp = (now - self.age_seconds).to_string();
        let question =
            Question { pod: self.pod, method: "GET", target, timestamp: &timestamp, nonce: self.nonce };
        let signature = AdminKey::new(&self.key).unwrap().sign(&question);
        let mut client = client::Client::connect(admin).await;
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: x\r\n{SIGNATURE_HEADER}: {signature}\r\n{TIMESTAMP_HEADER}: {timestamp}\r\n{NONCE_HEADER}: {}\r\n\r\n",
            self.nonce
        );
        client.write(head.as_bytes()).await.unwrap();
        client.read().await.expect("an answer")
    }
}

async fn admin_key(stage: &Stage) -> Option<Vec<u8>> {
    let secret = stage.secrets().get_opt(&shards::head_name(&stage.server)).await.unwrap()?;
    Some(secret.data?.get(ADMIN_KEY)?.0.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_outside_of_its_pod_a_sidecar_answers_what_is_signed_once_and_of_one_webhook() {
    let stage = Stage::new().await;
    let _operator = stage.operator("operator-0").await;
    let (sidecar, admin) = sidecar_in_pod(&stage, "logto-0").await;
    stage.put(&stage.webhook("mail")).await;
    stage.put(&stage.webhook("other")).await;
    stage.wait_ready("mail").await;
    stage.wait_ready("other").await;
    let key = admin_key(&stage).await.expect("the operator writes admin.key");
    let target = format!("/deliveries?webhook={}/mail", stage.shop);
    let loopback = SocketAddr::from(([127, 0, 0, 1], sidecar.admin.port()));

    let unsigned = client::get(admin, &target).await.unwrap();
    assert_eq!(unsigned.status, 403, "{}", unsigned.body);
    assert!(unsigned.body.contains("LoopbackOnly"), "{}", unsigned.body);
    assert_eq!(client::get(loopback, &target).await.unwrap().status, 200, "who is in the pod is answered");
    assert_eq!(client::get(admin, "/livez").await.unwrap().status, 200);

    let good = Signed { key: key.clone(), pod: "logto-0", nonce: "n1", age_seconds: 0 };
    let answer = until("the key came", async || {
        let answer = good.get(admin, &target).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert!(answer.body.contains(&format!("{}/mail", stage.shop)), "{}", answer.body);
    let cases = [
        (Signed { key: key.clone(), pod: "logto-0", nonce: "n1", age_seconds: 0 }, "Replayed"),
        (Signed { key: key.clone(), pod: "logto-0", nonce: "n2", age_seconds: 3600 }, "Expired"),
        (Signed { key: key.clone(), pod: "logto-1", nonce: "n3", age_seconds: 0 }, "WrongSignature"),
        (Signed { key: vec![0; KEY_BYTES], pod: "logto-0", nonce: "n4", age_seconds: 0 }, "WrongSignature"),
    ];
    for (signed, reason) in cases {
        let answer = signed.get(admin, &target).await;
        assert_eq!(answer.status, 401, "{}", answer.body);
        assert!(answer.body.contains(reason), "{}", answer.body);
    }
    for (page, nonce) in [("/webhooks", "n5"), ("/replays", "n6"), ("/deliveries", "n7")] {
        let signed = Signed { key: key.clone(), pod: "logto-0", nonce, age_seconds: 0 };
        let answer = signed.get(admin, page).await;
        assert_eq!(answer.status, 403, "{page}: {}", answer.body);
    }
    let of_one = Signed { key: key.clone(), pod: "logto-0", nonce: "n8", age_seconds: 0 };
    let answer = of_one.get(admin, &format!("/webhooks?webhook={}/mail", stage.shop)).await;
    let listed: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(listed.len(), 1, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_stays_over_plans_and_is_made_again_where_an_older_operator_dropped_it() {
    let stage = Stage::new().await;
    let operator = stage.operator("operator-0").await;
    let _sidecar = stage.sidecar("logto-0").await;
    stage.put(&stage.webhook("mail")).await;
    stage.wait_ready("mail").await;
    let key = admin_key(&stage).await.expect("the operator writes admin.key");
    assert_eq!(key.len(), KEY_BYTES);
    stage.put(&stage.webhook("second")).await;
    stage.wait_ready("second").await;
    assert_eq!(admin_key(&stage).await, Some(key.clone()), "another plan has the same key");

    let generation = stage.plan().await.unwrap().0.generation;
    let without = json!({ "data": { ADMIN_KEY: null } });
    let name = shards::head_name(&stage.server);
    stage.secrets().patch(&name, &PatchParams::default(), &Patch::Merge(&without)).await.unwrap();
    let again = until("there is a key again", async || admin_key(&stage).await).await;
    assert_ne!(again, key);
    assert_eq!(stage.plan().await.unwrap().0.generation, generation, "the plan is the same");
    operator.kill().await;
    let _next = stage.operator("operator-1").await;
    stage.put(&stage.webhook("third")).await;
    stage.wait_ready("third").await;
    assert_eq!(admin_key(&stage).await, Some(again), "the next leader keeps it");
}

/// The operator's Service as the chart makes it, but that no node's pod stands behind it; and the Role that lets whoever
/// is authenticated reach it.
async fn service(stage: &Stage, operator: &Process) {
    let system = &stage.system;
    let metadata = json!({ "name": "tidings-operator", "namespace": system });
    let port = operator.events.port();
    // The proxy goes to no address that is not a pod's of the Service's own namespace.
    pod(stage, (system, "tidings-operator"), "operator-0", SocketAddr::new(own_address(), port)).await;
    stage
        .put(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": { "ports": [{ "name": "api", "port": 443, "targetPort": port }] },
        }))
        .await;
    stage
        .put(&json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
            "subsets": [{
                "addresses": [{ "ip": own_address(), "targetRef": { "kind": "Pod", "name": "operator-0", "namespace": system } }],
                "ports": [{ "name": "api", "port": port }],
            }],
        }))
        .await;
    let roles = manifest("config/default/roles.yaml", &[("tidings-system", system)]);
    let ours: Vec<_> = roles.split("\n---\n").filter(|one| one.contains("tidings-operator-api")).collect();
    assert_eq!(ours.len(), 2, "a Role and its binding");
    apply(&ours.join("\n---\n")).await;
}

/// Runs the command line as this user; whether it succeeds, what it prints, and its warnings.
async fn tidings(stage: &Stage, kubeconfig: &Path, line: &str) -> (bool, String, String) {
    let operator = format!("{}/tidings-operator", stage.system);
    let mut command = Command::new(binary("tidings"));
    command.args(line.split(' ')).args(["-n", &stage.shop, "--operator", &operator]);
    let output = command.arg("--kubeconfig").arg(kubeconfig).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_tidings_goes_by_the_api_servers_proxy_with_the_teams_own_token() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let operator = stage.operator_with_api_at("operator-0", "0.0.0.0:0").await;
    service(&stage, &operator).await;
    // Built before anything waits for it.
    binary("tidings");
    let (sidecar, _) = sidecar_in_pod(&stage, "logto-0").await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    stage.wait_ready("mail").await;
    send(&sidecar, "PostSignIn").await;
    until_delivered(&stage, "mail").await;
    grant(&stage, &stage.shop, "shop-team", &[("get", "deliveries"), ("create", "test")]).await;
    let team = stage.plane.kubeconfig_of(&stage.shop, "shop-team").await;
    let stranger = stage.plane.kubeconfig_of(&stage.auth, "stranger").await;

    let mut last = String::new();
    let shown = until_told("the operator is answered by the sidecar", async || {
        let (worked, table, told) = tidings(&stage, &team, "deliveries mail").await;
        last.clone_from(&told);
        worked.then_some((table, told))
    })
    .await;
    let (table, told) = shown.unwrap_or_else(|what| panic!("{what}: {last}"));
    assert!(table.contains("PostSignIn") && table.contains("Delivered"), "{table}");
    assert_eq!(told, "", "nothing is forwarded");
    let (worked, list, told) = tidings(&stage, &team, "deliveries mail -o json").await;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert!(worked, "{told}");
    assert_eq!(list["deliveries"][0]["sidecar"], "logto-0");
    let (worked, _, told) = tidings(&stage, &team, "deadletters mail").await;
    assert!(worked && told.contains("no event of"), "{told}");
    let (worked, text, told) = tidings(&stage, &team, "test mail").await;
    assert!(worked && text.contains("by sidecar logto-0"), "{text}{told}");

    let (worked, text, told) = tidings(&stage, &stranger, "deliveries mail").await;
    assert!(!worked && text.is_empty(), "{text}");
    assert!(told.contains("the verb get on webhooks/deliveries") && told.contains(&stage.shop), "{told}");
    assert!(!told.contains("forwarded"), "a right that is missing is no reason for another way: {told}");

    // Without a token, as with a client certificate alone, the operator cannot know who asks.
    let mut nobody: Value = serde_json::from_str(&std::fs::read_to_string(&team).unwrap()).unwrap();
    nobody["users"][0]["user"] = json!({});
    let without_token = stage.plane.path("nobody.kubeconfig");
    std::fs::write(&without_token, nobody.to_string()).unwrap();
    let (worked, _, told) = tidings(&stage, &without_token, "deliveries mail").await;
    assert!(!worked && told.contains("has no token") && told.contains("a port is forwarded"), "{told}");
    let (_, _, told) = tidings(&stage, &team, "deliveries mail --port-forward").await;
    assert!(!told.contains("the operator's API") && told.contains("grant you"), "{told}");
}
