//! What a test stands on: namespaces of its own for operator, auth server and teams, the rights of config/
//! in them, and the processes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use serde_json::{Value, json};
use tidings_crds::{AuthServer, Condition, ConditionStatus, DeliveryReport, Webhook};
use tidings_operator::Objects;
use tidings_plan::shards::{self, HEAD_KEY, Head, SHARD_KEY};
use tidings_plan::{ObjectName, Plan};
use tidings_signature::SigningKey;
use tidings_tests::cluster::{ControlPlane, FIELD_MANAGER, apply, manifest};
use tidings_tests::process::{self, Process};
use tidings_tests::{capture, client, until};
use tokio::process::Command;

use crate::objects::{auth_server, secret, webhook};

/// Where the operator looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In the namespaces of the test.
    Namespaces,
    /// In the whole cluster, which is then the test's alone.
    Cluster,
}

/// Namespaces of a test.
pub(crate) struct Stage {
    pub(crate) plane: ControlPlane,
    /// Of the operator.
    pub(crate) system: String,
    /// Of the `AuthServer`.
    pub(crate) auth: String,
    /// Of a team.
    pub(crate) shop: String,
    /// The `AuthServer`.
    pub(crate) server: ObjectName,
    scope: Scope,
}

// === impl Stage ===

impl Stage {
    /// An `AuthServer` and its Secret, a team's Secret, the rights; nothing runs yet.
    pub(crate) async fn new() -> Self {
        Self::on(ControlPlane::shared().await, Scope::Namespaces).await
    }

    /// The same, for a test that takes the API server away or changes what belongs to all.
    pub(crate) async fn alone(scope: Scope) -> Self {
        Self::on(ControlPlane::alone().await, scope).await
    }

    async fn on(plane: ControlPlane, scope: Scope) -> Self {
        let (system, auth, shop) =
            (plane.namespace("system").await, plane.namespace("auth").await, plane.namespace("shop").await);
        let server = ObjectName::new(&auth, "logto");
        let stage = Self { plane, system, auth, shop, server, scope };
        apply(&[stage.operator_rights(), stage.sidecar_rights()].join("\n---\n")).await;
        stage.furnish().await;
        stage
    }

    /// Puts the objects that each test begins with.
    pub(crate) async fn furnish(&self) {
        self.put(&secret(&self.auth, "logto-hook", &[("signingKey", &capture::signing_key())])).await;
        self.put(&auth_server(&self.auth)).await;
        self.put(&secret(&self.shop, "keys", &[("signingKey", tidings_tests::plan::KEY)])).await;
    }

    /// The manifest with this test's namespaces. Where the operator looks at some namespaces only, its rights
    /// are bound in these alone: a `RoleBinding` gives what the `ClusterRole` lists, within its namespace.
    fn operator_rights(&self) -> String {
        let system = ("tidings-system", self.system.as_str());
        let binding = "kind: ClusterRoleBinding\nmetadata:\n  name: tidings-operator\n";
        if self.scope == Scope::Cluster {
            let named = format!("kind: ClusterRoleBinding\nmetadata:\n  name: tidings-{}\n", self.system);
            return manifest("config/operator/rbac.yaml", &[system, (binding, &named)]);
        }
        let text = manifest("config/operator/rbac.yaml", &[system, (binding, binding)]);
        let (bindings, rest): (Vec<_>, Vec<_>) =
            text.split("\n---\n").partition(|one| one.contains("kind: ClusterRoleBinding"));
        let within = [&self.auth, &self.shop].map(|namespace| {
            let here =
                format!("kind: RoleBinding\nmetadata:\n  name: tidings-operator\n  namespace: {namespace}\n");
            bindings[0].replace(binding, &here)
        });
        rest.into_iter().map(str::to_owned).chain(within).collect::<Vec<_>>().join("\n---\n")
    }

    fn sidecar_rights(&self) -> String {
        let auth = format!("namespace: {}", self.auth);
        let replaced = [("namespace: auth", auth.as_str()), ("tidings-system", &self.system)];
        manifest("config/sidecar/rbac.yaml", &replaced)
    }

    /// An operator that looks at this test's namespaces.
    pub(crate) async fn operator(&self, identity: &str) -> Process {
        Process::start_until(self.operator_command(identity).await, started_line).await
    }

    /// The same with the API for teams, whose address is that of its events.
    pub(crate) async fn operator_with_api(&self, identity: &str) -> Process {
        self.operator_with_api_at(identity, "127.0.0.1:0").await
    }

    /// The same with the API there.
    pub(crate) async fn operator_with_api_at(&self, identity: &str, api: &str) -> Process {
        let mut command = self.operator_command(identity).await;
        command.args(["--api-listen", api]);
        Process::start_until(command, started_line).await
    }

    async fn operator_command(&self, identity: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-operator"));
        command
            .args(["--admin-listen", "127.0.0.1:0", "--identity", identity])
            .args(["--lease-namespace", &self.system, "--lease-duration-seconds", "3"])
            .args(["--renew-deadline-seconds", "2", "--retry-period-milliseconds", "400"])
            .args(["--sidecar-grace-seconds", "1"])
            .env("KUBECONFIG", self.plane.kubeconfig_of(&self.system, "tidings-operator").await);
        if self.scope == Scope::Namespaces {
            command.args(["--namespaces", &format!("{},{}", self.auth, self.shop)]);
        }
        command
    }

    /// An operator and a sidecar that takes events.
    pub(crate) async fn at_work(&self) -> (Process, Process) {
        let operator = self.operator("operator-0").await;
        (operator, self.sidecar("logto-0").await)
    }

    /// A sidecar that takes events. One pod name has one data folder.
    pub(crate) async fn sidecar(&self, pod: &str) -> Process {
        self.sidecar_at(pod, "127.0.0.1:0").await
    }

    /// The same with its admin port there.
    pub(crate) async fn sidecar_at(&self, pod: &str, admin: &str) -> Process {
        let mut command = Command::new(sidecar_program());
        command
            .args(["--listen", "127.0.0.1:0", "--admin-listen", admin, "--pod-name", pod])
            .args(["--auth-server", &self.server.to_string(), "--pod-namespace", &self.auth])
            .arg("--data-dir")
            .arg(self.plane.path(&format!("data-{pod}")))
            .env("KUBECONFIG", self.plane.kubeconfig_of(&self.auth, "logto").await);
        Process::start(command).await
    }

    /// A Webhook of the team that selects everything.
    pub(crate) fn webhook(&self, name: &str) -> Value {
        webhook(&self.shop, name, "http://127.0.0.1:9/hook", &self.auth)
    }

    /// Applies an object.
    pub(crate) async fn put(&self, object: &Value) {
        self.try_put(object).await.unwrap();
    }

    /// Applies an object, where the API server takes it.
    pub(crate) async fn try_put(&self, object: &Value) -> Result<DynamicObject, kube::Error> {
        let api = self.api_of(object);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(object["metadata"]["name"].as_str().unwrap(), &params, &Patch::Apply(object)).await
    }

    /// Deletes an object, where it is there.
    pub(crate) async fn delete(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        match self.api_of(object).delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => drop(result.unwrap()),
        }
    }

    fn api_of(&self, object: &Value) -> Api<DynamicObject> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.admin(), namespace, &resource),
            None => Api::all_with(self.admin(), &resource),
        }
    }

    /// May do everything.
    pub(crate) fn admin(&self) -> Client {
        self.plane.admin.clone()
    }

    /// The team's Webhooks.
    pub(crate) fn webhooks(&self) -> Api<Webhook> {
        Api::namespaced(self.admin(), &self.shop)
    }

    /// The auth server's Secrets, its plan among them.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.admin(), &self.auth)
    }

    /// The team's Services.
    pub(crate) fn services(&self) -> Api<Service> {
        Api::namespaced(self.admin(), &self.shop)
    }

    /// The team's `EndpointSlices`.
    pub(crate) fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.admin(), &self.shop)
    }

    /// The team's Pods.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin(), &self.shop)
    }

    /// The sidecars' reports.
    pub(crate) fn reports(&self) -> Api<DeliveryReport> {
        Api::namespaced(self.admin(), &self.auth)
    }

    /// The reason of each Webhook's `Ready` in a namespace, by name; empty where nothing was said yet.
    pub(crate) async fn ready_reasons_in(&self, namespace: &str) -> Vec<String> {
        let api: Api<Webhook> = Api::namespaced(self.admin(), namespace);
        let listed = api.list(&ListParams::default()).await.unwrap();
        let reason = |webhook: &Webhook| condition(webhook, "Ready").map(|ready| ready.reason);
        listed.iter().map(|webhook| reason(webhook).unwrap_or_default()).collect()
    }

    /// Waits until a Webhook is as it should be.
    pub(crate) async fn wait_webhook(
        &self,
        name: &str,
        what: &str,
        mut is_so: impl FnMut(&Webhook) -> bool,
    ) -> Webhook {
        let mut last = None;
        let found = until_told(&format!("Webhook {name}: {what}"), async || {
            last = self.webhooks().get_opt(name).await.ok().flatten();
            last.clone().filter(|webhook| is_so(webhook))
        })
        .await;
        found.unwrap_or_else(|why| panic!("{why}; it is {:#?}", last.map(|webhook| webhook.status)))
    }

    /// Waits until a Webhook runs as its spec has it now.
    pub(crate) async fn wait_ready(&self, name: &str) -> Webhook {
        self.wait_webhook(name, "Ready", is_ready).await
    }

    /// The plan as it is published; `None` while there is none. One list is one moment: what is half written
    /// in it fails the test.
    pub(crate) async fn plan(&self) -> Option<(Head, Plan)> {
        let all = self.secrets().list(&ListParams::default()).await.unwrap();
        read_plan(&self.server, all.items)
    }

    /// The same, of a plan that was written by others too: `None` where it is not readable.
    pub(crate) async fn try_plan(&self) -> Option<(Head, Plan)> {
        let head = self.secrets().get_opt(&shards::head_name(&self.server)).await.unwrap()?.data?;
        Head::from_json(&head[HEAD_KEY].0).ok()?.frame().ok()?;
        self.plan().await
    }

    /// Writes over the plan's head, as an operator of another version or a person might.
    pub(crate) async fn write_head(&self, bytes: Vec<u8>) {
        let data = json!({"data": {HEAD_KEY: ByteString(bytes)}});
        let name = shards::head_name(&self.server);
        self.secrets().patch(&name, &PatchParams::default(), &Patch::Merge(&data)).await.unwrap();
    }

    /// Waits until the plan that is published is the one that the objects ask for, and every status speaks of
    /// its object as it is.
    pub(crate) async fn wait_settled(&self) -> Head {
        let mut why = String::new();
        let settled =
            until_told("the plan and the statuses are what the objects ask for", async || {
                match self.unsettled().await {
                    Ok(head) => Some(head),
                    Err(reason) => {
                        why = reason;
                        None
                    }
                }
            })
            .await;
        settled.unwrap_or_else(|what| panic!("{what}: {why}"))
    }

    async fn unsettled(&self) -> Result<Head, String> {
        let (objects, webhooks) = self.objects().await;
        let outcome = tidings_operator::reconcile(&objects, &self.server);
        let (head, plan) = self.plan().await.ok_or("there is no plan")?;
        // An AuthServer that cannot be used keeps the plan that it had.
        if let Some(wanted) = outcome.plan
            && wanted.digest() != head.digest
        {
            let names = |plan: &Plan| -> Vec<_> {
                plan.webhooks.iter().map(|one| format!("{} {}", one.webhook, one.generation)).collect()
            };
            return Err(format!("the plan has {:?}, not {:?}", names(&plan), names(&wanted)));
        }
        for webhook in webhooks {
            let name = webhook.metadata.name.clone().unwrap();
            let status = webhook.status.ok_or_else(|| format!("{name} has no status"))?;
            if status.observed_generation != webhook.metadata.generation {
                return Err(format!("{name}: status of {:?}", status.observed_generation));
            }
        }
        Ok(head)
    }

    async fn objects(&self) -> (Objects, Vec<Webhook>) {
        let everything = ListParams::default();
        let mut objects = Objects::default();
        let named = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            ObjectName::new(metadata.namespace.clone().unwrap(), metadata.name.clone().unwrap())
        };
        let servers: Api<AuthServer> = Api::namespaced(self.admin(), &self.auth);
        for server in servers.list(&everything).await.unwrap() {
            objects.auth_servers.insert(named(&server.metadata), server);
        }
        let webhooks = self.webhooks().list(&everything).await.unwrap().items;
        for webhook in webhooks.clone() {
            objects.webhooks.insert(named(&webhook.metadata), webhook);
        }
        for namespace in [&self.auth, &self.shop] {
            let secrets: Api<Secret> = Api::namespaced(self.admin(), namespace);
            for secret in secrets.list(&everything).await.unwrap() {
                objects.add_secret(named(&secret.metadata), secret);
            }
        }
        (objects, webhooks)
    }

    /// What users see of plan and conditions, without times and without the plan's number.
    pub(crate) async fn picture(&self) -> BTreeMap<String, Value> {
        let mut picture = BTreeMap::new();
        if let Some((_, plan)) = self.plan().await {
            picture.insert("plan".to_owned(), json!(plan.digest()));
        }
        let (objects, webhooks) = self.objects().await;
        for webhook in webhooks {
            let status = webhook.status.unwrap_or_default();
            picture.insert(
                format!("Webhook {}", webhook.metadata.name.unwrap()),
                json!([status.observed_generation, status.endpoint_host, timeless(&status.conditions)]),
            );
        }
        for (name, server) in objects.auth_servers {
            let status = server.status.unwrap_or_default();
            picture.insert(
                format!("AuthServer {name}"),
                json!([status.observed_generation, status.webhooks, timeless(&status.conditions)]),
            );
        }
        picture
    }

    /// The operator is replaced by one that finds neither plan nor statuses; what it makes of the objects must
    /// be what was there before.
    pub(crate) async fn assert_a_fresh_operator_agrees(&self, operator: Process) {
        self.wait_settled().await;
        let before = self.wait_quiet(&operator).await;
        operator.kill().await;
        for secret in self.secrets().list(&ListParams::default()).await.unwrap() {
            let name = secret.metadata.name.unwrap();
            if shards::is_part_of_a_plan(&name) {
                self.secrets().delete(&name, &DeleteParams::default()).await.unwrap();
            }
        }
        let nothing = Patch::Merge(json!({ "status": null }));
        for webhook in self.webhooks().list(&ListParams::default()).await.unwrap() {
            let name = webhook.metadata.name.unwrap();
            self.webhooks().patch_status(&name, &PatchParams::default(), &nothing).await.unwrap();
        }
        let fresh = self.operator("fresh").await;
        self.wait_settled().await;
        let after = self.wait_quiet(&fresh).await;
        assert_eq!(before, after);
    }

    /// Waits until the operator has nothing more to write; the picture then.
    async fn wait_quiet(&self, operator: &Process) -> BTreeMap<String, Value> {
        let mut last = BTreeMap::new();
        let mut written = None;
        until("the operator has written everything", async || {
            let waiting = metric(operator, "tidings_operator_status_queue ").await;
            let writes = sum_of(operator, "tidings_operator_api_writes_total").await;
            let picture = self.picture().await;
            let is_same = waiting == Some(0) && written == Some(writes) && picture == last;
            (written, last) = (Some(writes), picture);
            is_same.then_some(())
        })
        .await;
        last
    }

    /// Waits for an Event of an object, and tells its note.
    pub(crate) async fn wait_event(&self, name: &str, reason: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.admin(), &self.shop);
        until(&format!("Event {reason} of {name}"), async || {
            let all = events.list(&ListParams::default()).await.ok()?;
            all.items.into_iter().find_map(|event| {
                let is_it = event.reason.as_deref() == Some(reason)
                    && event.regarding.as_ref()?.name.as_deref() == Some(name);
                is_it.then(|| event.note.unwrap_or_default())
            })
        })
        .await
    }
}

/// The plan in these Secrets; panics where the head names what is not there.
pub(crate) fn read_plan(server: &ObjectName, secrets: Vec<Secret>) -> Option<(Head, Plan)> {
    let mut data: BTreeMap<_, _> = secrets
        .into_iter()
        .map(|secret| (secret.metadata.name.unwrap(), secret.data.unwrap_or_default()))
        .collect();
    let head = data.remove(&shards::head_name(server))?.remove(HEAD_KEY).expect("the head has its key").0;
    let head = Head::from_json(&head).expect("the head is readable");
    let mut bytes = Vec::new();
    for shard in &head.shards {
        let name = shards::slot_name(server, shard.slot);
        let slot = data
            .get(&name)
            .unwrap_or_else(|| panic!("plan {} names {name}, which is not there", head.generation));
        bytes.push(slot[SHARD_KEY].0.clone());
    }
    let published =
        shards::join(&head, &bytes).unwrap_or_else(|error| panic!("plan {}: {error}", head.generation));
    assert_eq!(published.left_out, [], "an operator of one version publishes what its sidecar runs");
    Some((head, published.plan))
}

/// The same as [`until`], for a caller who knows more of what is wrong.
pub(crate) async fn until_told<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T, String> {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(tidings_tests::PATIENCE, asked).await.map_err(|_| format!("still not so: {what}"))
}

/// A condition of a Webhook: its status, reason and message.
pub(crate) fn condition(webhook: &Webhook, kind: &str) -> Option<Condition> {
    let conditions = &webhook.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == kind).cloned()
}

/// Whether a Webhook has a condition with this reason, told of its spec as it is now.
pub(crate) fn says(webhook: &Webhook, kind: &str, reason: &str) -> bool {
    condition(webhook, kind).is_some_and(|condition| {
        condition.reason == reason && condition.observed_generation == webhook.metadata.generation
    })
}

/// Whether a Webhook runs as its spec has it now.
pub(crate) fn is_ready(webhook: &Webhook) -> bool {
    condition(webhook, "Ready").is_some_and(|condition| {
        condition.status == ConditionStatus::True
            && condition.observed_generation == webhook.metadata.generation
    })
}

fn timeless(conditions: &[Condition]) -> Vec<Value> {
    let one = |condition: &Condition| {
        json!([condition.type_, condition.status, condition.reason, condition.message])
    };
    conditions.iter().map(one).collect()
}

/// A program's metric; the name ends with a space where it has no labels.
pub(crate) async fn metric(process: &Process, name: &str) -> Option<u64> {
    let page = client::get(process.admin, "/metrics").await?;
    page.body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// The sum of a metric over its labels.
pub(crate) async fn sum_of(process: &Process, name: &str) -> u64 {
    let page = client::get(process.admin, "/metrics").await.unwrap_or_else(|| panic!("{}", process.output()));
    let values = page.body.lines().filter(|line| line.starts_with(name));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Sends one captured event, which is stored; each is another one, by its time.
pub(crate) async fn send(sidecar: &Process, event: &str) {
    let status = try_send(sidecar, event).await;
    assert_eq!(status, Some(200));
}

/// Sends an event of its own; the answer's status.
pub(crate) async fn try_send(sidecar: &Process, event: &str) -> Option<u16> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let body = json!({ "event": event, "hookId": format!("hook-{number}"), "createdAt": "2026-01-01T00:00:00.000Z" }).to_string();
    let signature = SigningKey::new(&capture::signing_key()).unwrap().logto_signature(body.as_bytes());
    let headers = format!("logto-signature-sha-256: {signature}\r\n");
    let mut sender = sidecar.sender().await;
    Some(sender.post("/events", &headers, body.as_bytes()).await?.status)
}

fn sidecar_program() -> PathBuf {
    process::binary("tidings-sidecar")
}

/// Where the API for teams is, or the admin surface where there is none; and the admin surface.
fn started_line(output: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = output.lines().find_map(|line| line.strip_prefix("started admin=http://"))?;
    let (admin, api) = line.split_once(" api=https://").unwrap_or((line, line));
    Some((api.trim().parse().ok()?, admin.trim().parse().ok()?))
}
