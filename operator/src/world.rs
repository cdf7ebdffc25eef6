//! The model: every object that was seen, what was judged of it, and what is to be done.
//!
//! ```text
//! Change -> World -> to_read (Secrets), plans, statuses
//! ```
//!
//! It is pure: no network, no clock of its own. What is to be done follows from the objects alone, in
//! whatever order they came; so a fresh start ends in the same state as a long life. A Webhook is judged
//! again only when something that it depends on changed.
//!
//! It must never hand out a plan before everything was listed once: half a world would be half a plan.

pub mod change;
mod grace;
mod locate;
mod queue;
mod replays;
mod secrets;
mod services;
mod shares;
mod sidecars;
mod sources;
mod statuses;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use tidings_crds::{AuthServer, Webhook, WebhookReplay};
use tidings_plan::{ObjectName, Plan, WebhookPlan, shards};

use crate::services::Services;
use crate::{
    Finding, Judged, JudgedServer, Objects, judge_server, judge_webhook, named, names, render_plan, resolve,
};
use change::{Change, Kind, Object, Pod, Unreadable};
use grace::Standing;
use queue::Queue;
use secrets::{SecretState, User, Wants};
use sidecars::{Reports, Sidecar};

pub use grace::GRACE_SECONDS;
pub use locate::{Location, NotLocated, Place};
pub(crate) use replays::{webhook_of as webhook_of_replay, window as window_of_replay};
pub use statuses::{Desired, StatusText};

/// Every object that was seen, and what was judged of it.
#[derive(Debug, Default)]
pub struct World {
    objects: Objects,
    reports: Reports,
    replays: BTreeMap<ObjectName, WebhookReplay>,
    pods: BTreeMap<ObjectName, BTreeMap<String, Pod>>,
    unreadable: BTreeMap<(Kind, ObjectName), Unreadable>,
    secrets: BTreeMap<ObjectName, SecretState>,
    /// Which objects refer to a Secret, and to which of its keys.
    users: HashMap<ObjectName, BTreeMap<User, BTreeSet<String>>>,
    /// Which Webhooks refer to a Service.
    service_users: HashMap<ObjectName, BTreeSet<ObjectName>>,
    servers: BTreeMap<ObjectName, Server>,
    webhooks: BTreeMap<ObjectName, Entry>,
    waiting: BTreeSet<(Kind, Option<String>)>,
    /// How long it is no news that no sidecar of an auth server is ready, in seconds.
    grace_seconds: i64,
    dirty: Dirty,
}

/// What must be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    webhooks: BTreeSet<ObjectName>,
    servers: BTreeSet<ObjectName>,
    /// Of an `AuthServer` the namespaces whose share is to be looked at.
    shares: BTreeSet<(ObjectName, String)>,
    plans: BTreeSet<ObjectName>,
    statuses: BTreeSet<(Kind, ObjectName)>,
    secrets: BTreeSet<ObjectName>,
    rotated: BTreeSet<ObjectName>,
    touched: BTreeSet<ObjectName>,
    gone: BTreeSet<ObjectName>,
}

/// An `AuthServer` as it was judged, and its plan.
#[derive(Debug, Default)]
struct Server {
    judged: Option<JudgedServer>,
    /// The Webhooks that name it.
    webhooks: BTreeSet<ObjectName>,
    /// The number of the plan that is published; `None` before it is known.
    generation: Option<u64>,
    /// Why the plan could not be published.
    failed: Option<Finding>,
    /// The Webhooks for which the published plan has no room.
    without_room: BTreeSet<ObjectName>,
    /// The replays that run, and those that wait.
    queue: Queue,
    /// Since when no sidecar is ready, and what ran before.
    standing: Standing,
    /// The sidecars that reported.
    sidecars: Vec<Sidecar>,
}

/// A Webhook as it was judged.
#[derive(Debug)]
struct Entry {
    server: ObjectName,
    secrets: Wants,
    service: Option<ObjectName>,
    judged: Option<Judged>,
    plan: Option<WebhookPlan>,
    /// Whether its namespace has room for it.
    share: Result<(), Finding>,
    /// The number of the plan from which on it is as it is; `None` while that plan is not published.
    since: Option<u64>,
}

// === impl World ===

impl World {
    /// A model that is complete once each of these lists has come: a kind and its namespace, or the cluster.
    pub fn waiting_for(lists: impl IntoIterator<Item = (Kind, Option<String>)>) -> Self {
        let lists = lists.into_iter().collect();
        let mut world = Self { waiting: lists, grace_seconds: GRACE_SECONDS, ..Self::default() };
        if world.waiting.iter().any(|(kind, _)| *kind == Kind::Service) {
            world.objects.services = Services::of_a_cluster();
        }
        world
    }

    /// The same, for which it is no news for so long, in seconds, that no sidecar is ready.
    #[must_use]
    pub fn with_grace(self, seconds: i64) -> Self {
        Self { grace_seconds: seconds, ..self }
    }

    /// Whether everything was listed once.
    pub fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The lists that have not come yet.
    pub fn waits_for(&self) -> impl Iterator<Item = &(Kind, Option<String>)> {
        self.waiting.iter()
    }

    /// The `AuthServers`, with the labels that select their pods. A selector that is none selects nothing.
    pub fn pod_selectors(&self) -> BTreeMap<ObjectName, tidings_crds::Selector> {
        let servers = self.objects.auth_servers.iter();
        let selectors =
            servers.filter_map(|(name, server)| Some((name.clone(), server.spec.pod_selector.clone()?)));
        selectors.filter(|(_, selector)| named::of_selector(selector, "").is_ok()).collect()
    }

    /// Everything is to be looked at again, as after leadership was won.
    pub fn look_at_everything(&mut self) {
        // Which replays run is what the leader before wrote down.
        self.servers.values_mut().for_each(|server| server.queue = Queue::default());
        self.dirty.plans.extend(self.servers.keys().cloned());
        self.dirty.statuses.extend(self.objects.webhooks.keys().map(|name| (Kind::Webhook, name.clone())));
        self.dirty
            .statuses
            .extend(self.objects.auth_servers.keys().map(|name| (Kind::AuthServer, name.clone())));
        self.dirty.statuses.extend(self.replays.keys().map(|name| (Kind::Replay, name.clone())));
        self.dirty.statuses.extend(self.unreadable.keys().cloned());
    }

    /// Takes a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(object) => self.put(object),
            Change::Gone(kind, name) => self.gone(kind, &name),
            Change::Listed(kind, scope, names) => self.listed(kind, scope, &names),
            Change::SecretRead(name, content) => self.secret_read(&name, content),
            Change::SecretForbidden(name) => self.secret_forbidden(&name),
            Change::Pods(server, pods) => {
                self.pods.insert(server.clone(), pods);
                self.sidecars_changed(&server);
            }
            Change::Written(kind, name, version) => self.written(kind, &name, version),
            Change::Conflict(kind, name) => drop(self.dirty.statuses.insert((kind, name))),
            Change::PlanLost(server) => drop(self.dirty.plans.insert(server)),
            Change::NoRoom(server, webhooks) => self.no_room(&server, webhooks),
            Change::Published(plan, generation) => self.published(&plan, generation),
            Change::PublishFailed(server, finding) => self.publish_failed(&server, finding),
        }
    }

    /// The Webhooks whose signing keys were replaced.
    pub fn take_rotated(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.dirty.rotated)
    }

    /// The plans that changed, or are to be looked at again. None before everything was listed.
    pub fn take_plans(&mut self) -> Vec<Arc<Plan>> {
        if !self.is_complete() {
            return Vec::new();
        }
        self.judge();
        let names = std::mem::take(&mut self.dirty.plans);
        names.iter().filter_map(|name| self.plan(name)).collect()
    }

    /// The statuses that may have changed: as they should be, or `None` where they are. Nothing before
    /// everything was listed.
    pub fn take_statuses(&mut self, now: Timestamp) -> Vec<(Kind, ObjectName, Option<Desired>)> {
        if !self.is_complete() {
            return Vec::new();
        }
        self.judge();
        self.look_at_grace(now);
        let keys = std::mem::take(&mut self.dirty.statuses);
        keys.into_iter()
            .map(|(kind, name)| {
                let desired = self.desired(kind, &name, now);
                (kind, name, desired)
            })
            .collect()
    }

    /// The `AuthServers` that are gone, and with them their plans.
    pub fn take_gone(&mut self) -> BTreeSet<ObjectName> {
        let gone = std::mem::take(&mut self.dirty.gone);
        gone.into_iter().filter(|name| !self.objects.auth_servers.contains_key(name)).collect()
    }

    /// The UID of an `AuthServer`, which owns its plan.
    pub fn server_uid(&self, name: &ObjectName) -> Option<String> {
        self.objects.auth_servers.get(name)?.metadata.uid.clone()
    }

    /// The UID of a Webhook.
    pub fn webhook_uid(&self, name: &ObjectName) -> Option<String> {
        self.objects.webhooks.get(name)?.metadata.uid.clone()
    }

    fn put(&mut self, object: Object) {
        match object {
            Object::AuthServer(server) => self.put_server(*server),
            Object::Webhook(webhook) => self.put_webhook(*webhook),
            Object::Report(report) => self.put_report(*report),
            Object::Replay(replay) => self.put_replay(*replay),
            Object::Secret(name, version) => self.put_secret(name, version),
            Object::Namespace(name, labels) => self.put_namespace(name, labels),
            Object::Service(name, service) => self.put_service(&name, service),
            Object::Slice(name, slice) => self.put_slice(&name, slice),
            Object::Unreadable(kind, unreadable) => self.put_unreadable(kind, unreadable),
        }
    }

    fn put_unreadable(&mut self, kind: Kind, unreadable: Unreadable) {
        let key = (kind, unreadable.name.clone());
        // What it was told comes back as another version. It is told once: its status cannot be read, and
        // telling it again would bring the next version.
        let is_told = self.unreadable.get(&key).is_some_and(|before| before.is_as(&unreadable));
        if !is_told {
            self.gone(kind, &unreadable.name);
            self.dirty.statuses.insert(key.clone());
        }
        self.unreadable.insert(key, unreadable);
    }

    fn put_server(&mut self, server: AuthServer) {
        let name = name_of(&server.metadata);
        self.unreadable.remove(&(Kind::AuthServer, name.clone()));
        let before = self.objects.auth_servers.insert(name.clone(), server);
        let server = &self.objects.auth_servers[&name];
        self.dirty.statuses.insert((Kind::AuthServer, name.clone()));
        let is_same = before
            .as_ref()
            .is_some_and(|before| before.spec == server.spec && before.metadata.uid == server.metadata.uid);
        if is_same {
            return;
        }
        if server.spec.pod_selector.is_none() {
            self.pods.remove(&name);
        }
        let of = |server: &AuthServer| secrets::wants(&name, resolve::secrets_of_server(&server.spec));
        let (old, new) = (before.as_ref().map(of).unwrap_or_default(), of(server));
        self.refer(&User::Server(name.clone()), &old, &new);
        let state = self.servers.entry(name.clone()).or_default();
        if before.is_none_or(|before| before.metadata.uid != self.objects.auth_servers[&name].metadata.uid) {
            // Another object under the name has no plan yet that we know of.
            (state.generation, state.failed) = (None, None);
        }
        self.dirty.servers.insert(name);
    }

    fn put_webhook(&mut self, webhook: Webhook) {
        let name = name_of(&webhook.metadata);
        self.unreadable.remove(&(Kind::Webhook, name.clone()));
        self.dirty.statuses.insert((Kind::Webhook, name.clone()));
        let server = names(&webhook, &name);
        let secrets = secrets::wants(&name, resolve::secrets_of(&webhook.spec));
        let service = resolve::service_of(&name, &webhook.spec);
        let before = self.objects.webhooks.insert(name.clone(), webhook);
        let webhook = &self.objects.webhooks[&name];
        if let Some(before) = &before {
            self.reports.forget_folded(before, webhook);
        }
        let is_same = before.as_ref().is_some_and(|before| {
            before.spec == webhook.spec
                && before.metadata.uid == webhook.metadata.uid
                && before.metadata.generation == webhook.metadata.generation
        });
        if is_same {
            return;
        }
        if let Some(before) = before.filter(|before| before.metadata.uid != webhook.metadata.uid) {
            self.reports.forget(&name, &before.metadata.uid.unwrap_or_default());
            self.forget_webhook(&name);
        }
        let user = User::Webhook(name.clone());
        let old = self.webhooks.get(&name).map(|entry| (entry.server.clone(), entry.secrets.clone()));
        let (old_server, old_secrets) = old.map_or((None, Wants::new()), |(a, b)| (Some(a), b));
        self.refer(&user, &old_secrets, &secrets);
        if let Some(old) = old_server.filter(|old| *old != server) {
            self.leave(&name, &old);
        }
        self.servers.entry(server.clone()).or_default().webhooks.insert(name.clone());
        let entry = self.webhooks.entry(name.clone()).or_insert_with(|| Entry {
            server: server.clone(),
            secrets: Wants::new(),
            service: None,
            judged: None,
            plan: None,
            share: Ok(()),
            since: None,
        });
        (entry.server, entry.secrets) = (server, secrets);
        self.dirty.shares.insert((entry.server.clone(), name.namespace.clone()));
        let old_service = std::mem::replace(&mut entry.service, service.clone());
        self.refer_to_service(&name, old_service.as_ref(), service);
        self.replays_of(&name);
        self.dirty.webhooks.insert(name);
    }

    /// A Webhook is no longer one of this server's.
    fn leave(&mut self, name: &ObjectName, server: &ObjectName) {
        if let Some(state) = self.servers.get_mut(server) {
            state.webhooks.remove(name);
            self.dirty.shares.insert((server.clone(), name.namespace.clone()));
            self.dirty.plans.insert(server.clone());
            self.dirty.statuses.insert((Kind::AuthServer, server.clone()));
        }
    }

    fn forget_webhook(&mut self, name: &ObjectName) {
        if let Some(entry) = self.webhooks.remove(name) {
            self.refer(&User::Webhook(name.clone()), &entry.secrets, &Wants::new());
            self.refer_to_service(name, entry.service.as_ref(), None);
            self.leave(name, &entry.server);
        }
    }

    /// Somebody touched a plan's Secret, most often we ourselves: it is compared with what should be there.
    fn touched(&mut self, name: &ObjectName) {
        if shards::is_part_of_a_plan(&name.name) {
            self.dirty.touched.insert(name.clone());
        }
    }

    /// The plan Secrets that were touched, with their version; `None` where one is gone.
    pub fn take_touched(&mut self) -> Vec<(ObjectName, Option<String>)> {
        let touched = std::mem::take(&mut self.dirty.touched);
        let version = |name: &ObjectName| self.secrets.get(name).and_then(|state| state.seen.clone());
        touched.into_iter().map(|name| (name.clone(), version(&name))).collect()
    }

    fn put_namespace(&mut self, name: String, labels: BTreeMap<String, String>) {
        if self.objects.namespaces.get(&name) == Some(&labels) {
            return;
        }
        let from = ObjectName::new(&name, "");
        let webhooks = self.webhooks.range(from..).take_while(|(webhook, _)| webhook.namespace == name);
        self.dirty.webhooks.extend(webhooks.map(|(webhook, _)| webhook.clone()));
        self.objects.namespaces.insert(name, labels);
    }

    fn gone(&mut self, kind: Kind, name: &ObjectName) {
        self.unreadable.remove(&(kind, name.clone()));
        match kind {
            Kind::AuthServer => self.server_gone(name),
            Kind::Webhook => {
                if let Some(webhook) = self.objects.webhooks.remove(name) {
                    self.reports.forget(name, &webhook.metadata.uid.unwrap_or_default());
                    self.forget_webhook(name);
                    self.replays_of(name);
                }
            }
            Kind::Report => self.report_gone(name),
            Kind::Replay => self.replay_gone(name),
            Kind::Secret => {
                if self.secrets.remove(name).is_some() {
                    self.objects.forget_secret(name);
                    self.secret_changed(name);
                    self.touched(name);
                }
            }
            Kind::Namespace => drop(self.objects.namespaces.remove(&name.name)),
            Kind::Service => self.service_gone(name),
            Kind::PodSlice | Kind::ForeignSlice => self.slice_gone(kind, name),
        }
    }

    fn server_gone(&mut self, name: &ObjectName) {
        let Some(server) = self.objects.auth_servers.remove(name) else { return };
        let secrets = secrets::wants(name, resolve::secrets_of_server(&server.spec));
        self.refer(&User::Server(name.clone()), &secrets, &Wants::new());
        self.pods.remove(name);
        self.dirty.gone.insert(name.clone());
        if let Some(state) = self.servers.get_mut(name) {
            *state = Server { webhooks: std::mem::take(&mut state.webhooks), ..Server::default() };
            self.dirty.webhooks.extend(state.webhooks.iter().cloned());
        }
    }

    fn listed(&mut self, kind: Kind, scope: Option<String>, names: &BTreeSet<ObjectName>) {
        let in_scope = |name: &ObjectName| scope.as_ref().is_none_or(|scope| name.namespace == *scope);
        let known: Vec<_> = match kind {
            Kind::AuthServer => self.objects.auth_servers.keys().cloned().collect(),
            Kind::Webhook => self.objects.webhooks.keys().cloned().collect(),
            Kind::Report => self.reports.names().cloned().collect(),
            Kind::Replay => self.replays.keys().cloned().collect(),
            Kind::Secret => self.secrets.keys().cloned().collect(),
            Kind::Namespace => self.objects.namespaces.keys().map(|name| ObjectName::new("", name)).collect(),
            Kind::Service => self.objects.services.names().cloned().collect(),
            Kind::PodSlice | Kind::ForeignSlice => self.slices_of_kind(kind),
        };
        let unreadable = self.unreadable.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone());
        let gone: Vec<_> = known
            .into_iter()
            .chain(unreadable)
            .filter(|name| in_scope(name) && !names.contains(name))
            .collect();
        for name in gone {
            self.gone(kind, &name);
        }
        let was_waited_for = self.waiting.remove(&(kind, scope));
        if was_waited_for && self.is_complete() {
            self.know_webhooks();
        }
    }

    /// Judges what changed. A Webhook whose Secret is being read stays as it was until that is done.
    fn judge(&mut self) {
        for name in std::mem::take(&mut self.dirty.servers) {
            if !self.secrets_are_current(&secrets::wants_of_server(&self.objects, &name)) {
                self.dirty.servers.insert(name);
                continue;
            }
            let judged = judge_server(&self.objects, &name);
            let Some(state) = self.servers.get_mut(&name) else { continue };
            state.judged = judged;
            let namespaces = state.webhooks.iter().map(|webhook| webhook.namespace.clone());
            self.dirty.shares.extend(namespaces.map(|namespace| (name.clone(), namespace)));
            self.dirty.webhooks.extend(state.webhooks.iter().cloned());
            self.dirty.plans.insert(name.clone());
            self.server_status(&name);
        }
        for name in std::mem::take(&mut self.dirty.webhooks) {
            self.judge_webhook(name);
        }
        for (server, namespace) in std::mem::take(&mut self.dirty.shares) {
            self.share_out(&server, &namespace);
        }
    }

    fn judge_webhook(&mut self, name: ObjectName) {
        let (Some(webhook), Some(entry)) = (self.objects.webhooks.get(&name), self.webhooks.get(&name))
        else {
            return;
        };
        let server = self.servers.get(&entry.server);
        let server_waits = self.dirty.servers.contains(&entry.server);
        if server_waits || !self.secrets_are_current(&entry.secrets) {
            self.dirty.webhooks.insert(name);
            return;
        }
        let judged_server = server.and_then(|server| server.judged.as_ref());
        let (judged, plan) = judge_webhook(&self.objects, &name, webhook, judged_server);
        let Some(entry) = self.webhooks.get_mut(&name) else { return };
        if entry.plan != plan {
            let keys = |plan: &Option<WebhookPlan>| plan.as_ref().map(|plan| plan.signing_keys.clone());
            let (old, new) = (keys(&entry.plan), keys(&plan));
            if old.is_some() && new.is_some() && old != new {
                self.dirty.rotated.insert(name.clone());
            }
            entry.since = None;
            entry.plan = plan;
            self.dirty.shares.insert((entry.server.clone(), name.namespace.clone()));
            self.dirty.plans.insert(entry.server.clone());
        }
        entry.judged = Some(judged);
        let server = entry.server.clone();
        self.dirty.statuses.insert((Kind::AuthServer, server));
        self.replays_of(&name);
        self.dirty.statuses.insert((Kind::Webhook, name));
    }

    /// The plan of a server as it should be; `None` where it cannot be rendered, and the one before stays.
    fn plan(&mut self, name: &ObjectName) -> Option<Arc<Plan>> {
        let judged = self.servers.get(name)?.judged.as_ref()?;
        let webhooks = &self.servers[name].webhooks;
        // A Webhook that was never judged is still on its way in; without it the plan would drop it.
        if webhooks.iter().any(|name| self.webhooks.get(name).is_some_and(|entry| entry.judged.is_none())) {
            self.dirty.plans.insert(name.clone());
            return None;
        }
        let plans = webhooks.iter().filter_map(|name| self.webhooks.get(name)?.in_plan().cloned()).collect();
        let plan = render_plan(name, judged, plans, Vec::new())?;
        Some(Arc::new(Plan { replays: self.replay_plans(name), ..plan }))
    }

    /// A plan is published under this number: what is in it and had none yet is so from then on.
    fn published(&mut self, plan: &Plan, generation: u64) {
        let Some(server) = self.servers.get_mut(&plan.auth_server) else { return };
        (server.generation, server.failed) = (Some(generation), None);
        for published in &plan.webhooks {
            let entry = self.webhooks.get_mut(&published.webhook);
            if let Some(entry) = entry.filter(|entry| entry.in_plan() == Some(published)) {
                entry.since.get_or_insert(generation);
            }
        }
        self.server_status(&plan.auth_server);
        self.webhook_statuses(&plan.auth_server);
    }

    /// A plan could not be published: those that wait for it are told why.
    fn publish_failed(&mut self, name: &ObjectName, finding: Finding) {
        let Some(server) = self.servers.get_mut(name) else { return };
        if server.failed.as_ref() != Some(&finding) {
            server.failed = Some(finding);
            self.server_status(name);
            self.webhook_statuses(name);
        }
    }

    fn written(&mut self, kind: Kind, name: &ObjectName, version: String) {
        let metadata = match kind {
            Kind::AuthServer => self.objects.auth_servers.get_mut(name).map(|object| &mut object.metadata),
            Kind::Webhook => self.objects.webhooks.get_mut(name).map(|object| &mut object.metadata),
            Kind::Replay => self.replays.get_mut(name).map(|object| &mut object.metadata),
            _ => None,
        };
        if let Some(metadata) = metadata {
            metadata.resource_version = Some(version);
        }
    }

    fn server_status(&mut self, name: &ObjectName) {
        self.dirty.statuses.insert((Kind::AuthServer, name.clone()));
    }

    /// The statuses of all Webhooks of a server may be others now.
    fn webhook_statuses(&mut self, server: &ObjectName) {
        let webhooks = self.servers.get(server).map(|server| server.webhooks.clone()).unwrap_or_default();
        self.dirty.statuses.extend(webhooks.into_iter().map(|name| (Kind::Webhook, name)));
    }
}

/// The name of an object.
pub(crate) fn name_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ObjectName {
    ObjectName::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests;
