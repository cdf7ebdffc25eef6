//! The sidecars of an auth server, as their reports and their pods show them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidings_crds::{DeliveryReport, ReplayReport, SourceTally, StoreProblem, Webhook, WebhookReport};
use tidings_plan::ObjectName;

use super::change::Kind;
use super::{World, name_of};
use crate::Objects;

/// One sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sidecar {
    pub(super) pod: String,
    /// Whether its pod is ready; without a selector of pods whoever reports is.
    pub(super) ready: bool,
    /// The plan that it runs; `None` where the pod has not reported.
    pub(super) generation: Option<u64>,
    /// Why its store takes no events, where it does not.
    pub(super) problem: Option<StoreProblem>,
    pub(super) received: i64,
    pub(super) unmatched: i64,
    pub(super) rejected: BTreeMap<ObjectName, String>,
    pub(super) replays: Vec<ReplayReport>,
}

/// The reports, and by Webhook what stands in them.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Without their Webhooks, which stand below.
    heads: BTreeMap<ObjectName, DeliveryReport>,
    by_webhook: HashMap<ObjectName, BTreeMap<ObjectName, WebhookReport>>,
    /// By UID and store, also of stores whose reports are gone: what was told last.
    tallies: Tallies,
}

// === impl Reports ===

impl Reports {
    pub(super) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.heads.keys()
    }

    /// What each sidecar of its auth server says of a Webhook.
    pub(super) fn of(&self, webhook: &ObjectName, uid: &str, server: &ObjectName) -> Vec<&WebhookReport> {
        let reports = self.by_webhook.get(webhook).into_iter().flatten();
        let is_own =
            |name: &ObjectName| self.heads.get(name).is_some_and(|head| server_of(name, head) == *server);
        reports.filter(|(name, said)| said.uid == uid && is_own(name)).map(|(_, said)| said).collect()
    }

    /// How many tallies and words of sidecars are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.tallies.values().map(BTreeMap::len).sum::<usize>()
            + self.by_webhook.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Forgets what is said of Webhooks that are not known, and remembers what is said of the others.
    fn know(&mut self, is_known: impl Fn(&ObjectName, &WebhookReport) -> bool) {
        let Self { heads, by_webhook, tallies } = self;
        by_webhook.retain(|_, reports| {
            reports.retain(|name, said| {
                let head = heads.get(name).filter(|head| is_known(&server_of(name, head), said));
                head.is_some_and(|head| {
                    tally(tallies, &head.spec.store, said);
                    true
                })
            });
            !reports.is_empty()
        });
    }

    /// What each store delivered for a Webhook, as it was told last.
    pub(super) fn tallies(&self, uid: &str) -> impl Iterator<Item = &SourceTally> {
        self.tallies.get(uid).into_iter().flat_map(BTreeMap::values)
    }

    /// The stores that report now, in an auth server's namespace.
    pub(super) fn stores(&self, server: &ObjectName) -> BTreeSet<String> {
        self.of_server(server).map(|head| head.spec.store.clone()).collect()
    }

    /// A Webhook is gone.
    pub(super) fn forget(&mut self, webhook: &ObjectName, uid: &str) {
        self.by_webhook.remove(webhook);
        self.tallies.remove(uid);
    }

    /// Forgets the stores that stand in a Webhook's status no more: what they delivered stands in the sum of
    /// those that are gone, whoever wrote it.
    pub(super) fn forget_folded(&mut self, before: &Webhook, after: &Webhook) {
        let sources = |webhook: &Webhook| webhook.status.clone().unwrap_or_default().sources;
        let uid = after.metadata.uid.as_deref().unwrap_or_default();
        let Some(stores) = self.tallies.get_mut(uid) else { return };
        let after = sources(after);
        for folded in sources(before) {
            if !after.iter().any(|source| source.store == folded.store) {
                stores.remove(&folded.store);
            }
        }
    }

    fn of_server<'a>(&'a self, server: &'a ObjectName) -> impl Iterator<Item = &'a DeliveryReport> + 'a {
        let from = ObjectName::new(&server.namespace, "");
        let heads = self.heads.range(from..).map(|(_, head)| head);
        heads
            .take_while(|head| head.metadata.namespace.as_deref() == Some(&server.namespace))
            .filter(|head| head.spec.auth_server_ref.name == server.name)
    }

    /// Takes a report; the Webhooks of which it says something else than before.
    /// `remembers`: each Webhook in it is known, and what it says of them is kept beyond the report.
    fn put(
        &mut self,
        name: &ObjectName,
        mut report: DeliveryReport,
        remembers: bool,
    ) -> BTreeSet<ObjectName> {
        let webhooks = std::mem::take(&mut report.spec.webhooks);
        let store = report.spec.store.clone();
        let mut changed = self.remove(name);
        self.heads.insert(name.clone(), report);
        for webhook in webhooks {
            if remembers {
                tally(&mut self.tallies, &store, &webhook);
            }
            let of = ObjectName::new(&webhook.namespace, &webhook.name);
            // What was removed and comes back the same did not change.
            match changed.remove(&of) {
                Some(before) if before == webhook => {}
                _ => drop(changed.insert(of.clone(), webhook.clone())),
            }
            self.by_webhook.entry(of).or_default().insert(name.clone(), webhook);
        }
        changed.into_keys().collect()
    }

    /// Removes a report; what it said.
    fn remove(&mut self, name: &ObjectName) -> BTreeMap<ObjectName, WebhookReport> {
        let mut said = BTreeMap::new();
        if self.heads.remove(name).is_some() {
            self.by_webhook.retain(|webhook, reports| {
                if let Some(report) = reports.remove(name) {
                    said.insert(webhook.clone(), report);
                }
                !reports.is_empty()
            });
        }
        said
    }
}

type Tallies = HashMap<String, BTreeMap<String, SourceTally>>;

fn tally(tallies: &mut Tallies, store: &str, report: &WebhookReport) {
    let WebhookReport { uid, delivered, failed, dead_lettered, expired, dropped, .. } = report;
    let tally = SourceTally {
        store: store.to_owned(),
        delivered: *delivered,
        failed: *failed,
        dead_lettered: *dead_lettered,
        expired: *expired,
        dropped: *dropped,
    };
    tallies.entry(uid.clone()).or_default().insert(store.to_owned(), tally);
}

/// The auth server of a report, which stands beside it.
fn server_of(report: &ObjectName, head: &DeliveryReport) -> ObjectName {
    ObjectName::new(&report.namespace, &head.spec.auth_server_ref.name)
}

// === impl World ===

impl World {
    /// Takes a report. Once everything was listed, what it says of Webhooks that are not its auth server's is
    /// passed over; before, it is kept as it stands in the report, since the Webhooks may come after it.
    pub(super) fn put_report(&mut self, mut report: DeliveryReport) {
        let name = name_of(&report.metadata);
        self.unreadable.remove(&(Kind::Report, name.clone()));
        let server = ObjectName::new(&name.namespace, &report.spec.auth_server_ref.name);
        let remembers = self.is_complete();
        if remembers {
            report.spec.webhooks.retain(|said| is_known(&self.objects, &server, said));
        }
        let changed = self.reports.put(&name, report, remembers);
        self.dirty.statuses.extend(changed.into_iter().map(|webhook| (Kind::Webhook, webhook)));
        self.sidecars_changed(&server);
    }

    /// Everything was listed: from now on it is known which Webhooks there are.
    pub(super) fn know_webhooks(&mut self) {
        self.reports.know(|server, said| is_known(&self.objects, server, said));
    }

    pub(super) fn report_gone(&mut self, name: &ObjectName) {
        let Some(head) = self.reports.heads.get(name) else { return };
        let server = ObjectName::new(&name.namespace, &head.spec.auth_server_ref.name);
        let changed = self.reports.remove(name);
        self.dirty.statuses.extend(changed.into_keys().map(|webhook| (Kind::Webhook, webhook)));
        self.sidecars_changed(&server);
    }

    /// Looks at a server's sidecars again; where they are others, every status may be.
    pub(super) fn sidecars_changed(&mut self, name: &ObjectName) {
        let sidecars = self.sidecars(name);
        let Some(server) = self.servers.get_mut(name) else { return };
        if server.sidecars == sidecars {
            return;
        }
        let runs = |sidecars: &[Sidecar]| -> Vec<_> {
            sidecars
                .iter()
                .map(|one| (one.pod.clone(), one.ready, one.generation, one.rejected.clone()))
                .collect()
        };
        let is_other_plan = runs(&server.sidecars) != runs(&sidecars);
        let is_other_replay = replays(&server.sidecars) != replays(&sidecars);
        server.standing.see(&sidecars);
        server.sidecars = sidecars;
        self.server_status(name);
        if is_other_plan {
            self.webhook_statuses(name);
        }
        if is_other_plan || is_other_replay {
            self.replay_statuses(name);
        }
    }

    fn sidecars(&self, server: &ObjectName) -> Vec<Sidecar> {
        let pods = self.pods.get(server);
        let mut sidecars = BTreeMap::<&str, Sidecar>::new();
        for head in self.reports.of_server(server) {
            let pod = head.spec.pod.as_str();
            let ready = pods.is_none_or(|pods| pods.get(pod).is_some_and(|pod| pod.ready));
            let generation = u64::try_from(head.spec.plan.generation).unwrap_or(0);
            let sidecar = sidecars.entry(pod).or_insert_with(|| Sidecar::of(pod, ready, None));
            if head.spec.part == 0 {
                sidecar.generation = Some(generation);
                sidecar.problem.clone_from(&head.spec.store_problem);
            }
            sidecar.received = sidecar.received.max(head.spec.events.received);
            sidecar.unmatched = sidecar.unmatched.max(head.spec.events.unmatched);
            let rejected = head.spec.rejected.iter();
            sidecar.rejected.extend(
                rejected.map(|one| (ObjectName::new(&one.namespace, &one.name), one.message.clone())),
            );
            sidecar.replays.extend(head.spec.replays.iter().cloned());
        }
        for (pod, state) in pods.into_iter().flatten() {
            sidecars.entry(pod).or_insert_with(|| Sidecar::of(pod, state.ready, None));
        }
        // A report whose pod is gone waits for the garbage collector, and speaks for nobody.
        let mut all: Vec<_> = sidecars.into_values().collect();
        all.retain(|sidecar| pods.is_none_or(|pods| pods.contains_key(&sidecar.pod)));
        all
    }
}

/// Whether an auth server's sidecar speaks of a Webhook that is its auth server's.
fn is_known(objects: &Objects, server: &ObjectName, said: &WebhookReport) -> bool {
    let name = ObjectName::new(&said.namespace, &said.name);
    objects.webhooks.get(&name).is_some_and(|webhook| {
        webhook.metadata.uid.as_ref() == Some(&said.uid) && crate::names(webhook, &name) == *server
    })
}

// === impl Sidecar ===

impl Sidecar {
    fn of(pod: &str, ready: bool, generation: Option<u64>) -> Self {
        Self {
            pod: pod.to_owned(),
            ready,
            generation,
            problem: None,
            received: 0,
            unmatched: 0,
            rejected: BTreeMap::new(),
            replays: Vec::new(),
        }
    }
}

fn replays(sidecars: &[Sidecar]) -> Vec<&ReplayReport> {
    sidecars.iter().flat_map(|sidecar| &sidecar.replays).collect()
}
