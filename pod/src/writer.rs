//! Writes the report: those parts that changed, the newest state of them, as soon as the API server takes it.
//!
//! In: the newest report. Out: `DeliveryReport` objects named after the pod. What cannot be written is told
//! once and tried again, ever more rarely; what is superseded meanwhile is never written. What somebody else
//! deleted or changed is written again: seldom looked for, since the sidecar may not watch reports.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use tidings_crds::{DeliveryReport, DeliveryReportSpec};
use tidings_plan::ObjectName;
use tokio::sync::watch;

use crate::Signs;
use crate::arguments::Pod;
use crate::backoff::Backoff;
use crate::cluster::{Trouble, ask};
use crate::report::says_the_same;

/// Who wrote a field, for the API server.
const FIELD_MANAGER: &str = "tidings-sidecar";

/// By which an AuthServer's reports are found.
pub const AUTH_SERVER_LABEL: &str = "tidings.dev/auth-server";

/// The most characters of a label's value.
const MAX_LABEL: usize = 63;

/// How often it is looked whether the report still stands in the cluster.
const CHECK_EVERY: Duration = Duration::from_mins(1);

/// How soon it is tried again after a failure, at first and at the most.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Writes one sidecar's report.
pub struct Writer {
    reports: Api<DeliveryReport>,
    auth_server: ObjectName,
    pod: Pod,
    newest: watch::Receiver<Vec<DeliveryReportSpec>>,
    /// What stands in the cluster, by part.
    written: Vec<Written>,
    /// How often it is looked whether that is still so.
    check_every: Duration,
    /// Whether parts that an earlier process left behind are removed.
    swept: bool,
    signs: Arc<Signs>,
    told: Option<Trouble>,
}

/// One part as it was written.
struct Written {
    spec: DeliveryReportSpec,
    version: Option<String>,
}

// === impl Writer ===

impl Writer {
    /// A writer of the newest reports.
    pub fn new(
        client: Client,
        auth_server: ObjectName,
        pod: Pod,
        newest: watch::Receiver<Vec<DeliveryReportSpec>>,
        signs: Arc<Signs>,
    ) -> Self {
        let reports = Api::namespaced(client, &auth_server.namespace);
        let (written, check_every) = (Vec::new(), CHECK_EVERY);
        Self { reports, auth_server, pod, newest, written, check_every, swept: false, signs, told: None }
    }

    /// Looks so often whether the report still stands in the cluster.
    #[must_use]
    pub fn checking_every(self, check_every: Duration) -> Self {
        Self { check_every, ..self }
    }

    /// Writes until there is no reporter any more.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let is_news = tokio::select! {
                biased;
                changed = self.newest.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                () = tokio::time::sleep(self.check_every) => self.is_lost().await,
            };
            if !is_news {
                continue;
            }
            while let Err(trouble) = self.write_newest().await {
                self.meet(trouble);
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
            backoff.reset();
            if self.told.take().is_some() {
                tracing::info!("the report is written again");
            }
        }
    }

    async fn write_newest(&mut self) -> Result<(), Trouble> {
        let parts = self.newest.borrow_and_update().clone();
        let count = parts.len();
        for (at, part) in parts.into_iter().enumerate() {
            if self.written.get(at).is_some_and(|written| says_the_same(&written.spec, &part)) {
                self.signs.report_saved();
                continue;
            }
            let written = Written { version: self.write(&part).await?, spec: part };
            match self.written.get_mut(at) {
                Some(before) => *before = written,
                None => self.written.push(written),
            }
        }
        self.remove_beyond(count).await
    }

    /// Whether a part does not stand in the cluster as it was left; it is forgotten, with those after it.
    async fn is_lost(&mut self) -> bool {
        // What could not be looked at is looked at again.
        let Ok(Some(at)) = self.first_lost().await else { return false };
        tracing::info!(report = self.name(at), "the report is not as it was written, and is written again");
        self.written.truncate(at);
        true
    }

    async fn first_lost(&self) -> Result<Option<usize>, Trouble> {
        for (at, written) in self.written.iter().enumerate() {
            let name = self.name(at);
            let looked = ask("get", &self.named(&name), self.reports.get_metadata(&name)).await;
            let version = match looked {
                Ok(found) => found.metadata.resource_version,
                Err(Trouble::Absent { .. }) => None,
                Err(trouble) => return Err(trouble),
            };
            if version.is_none() || version != written.version {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Writes a part; the version that it has then.
    async fn write(&self, part: &DeliveryReportSpec) -> Result<Option<String>, Trouble> {
        let name = self.name(usize::try_from(part.part).unwrap_or_default());
        let report = self.object(&name, part);
        let force = PatchParams::apply(FIELD_MANAGER).force();
        let apply = Patch::Apply(&report);
        let object = self.named(&name);
        let patched = ask("patch", &object, self.reports.patch(&name, &force, &apply)).await;
        let written = patched.map_err(without_the_crd)?;
        self.signs.report_written();
        Ok(written.metadata.resource_version)
    }

    /// Removes the parts that are no longer needed; those of an earlier process are found by their names.
    async fn remove_beyond(&mut self, count: usize) -> Result<(), Trouble> {
        while self.written.len() > count {
            self.remove(self.written.len() - 1).await?;
            self.written.pop();
        }
        if !self.swept {
            let mut at = count;
            while self.remove(at).await? {
                at += 1;
            }
            self.swept = true;
        }
        Ok(())
    }

    /// Removes a part; false when there is none.
    async fn remove(&self, part: usize) -> Result<bool, Trouble> {
        let name = self.name(part);
        let at_once = DeleteParams::default();
        match ask("delete", &self.named(&name), self.reports.delete(&name, &at_once)).await {
            Ok(_) => Ok(true),
            Err(Trouble::Absent { .. }) => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    fn object(&self, name: &str, part: &DeliveryReportSpec) -> DeliveryReport {
        let mut report = DeliveryReport::new(name, part.clone());
        report.metadata.namespace = Some(self.auth_server.namespace.clone());
        report.metadata.owner_references = self.pod.uid.clone().map(|uid| vec![self.owner(uid)]);
        if self.auth_server.name.len() <= MAX_LABEL {
            let label = (AUTH_SERVER_LABEL.to_owned(), self.auth_server.name.clone());
            report.metadata.labels = Some([label].into());
        }
        report
    }

    fn owner(&self, uid: String) -> OwnerReference {
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.pod.name.clone(),
            uid,
            ..OwnerReference::default()
        }
    }

    fn name(&self, part: usize) -> String {
        let pod = &self.pod.name;
        if part == 0 { pod.clone() } else { format!("{pod}-{part}") }
    }

    fn named(&self, name: &str) -> String {
        format!("DeliveryReport {}/{name}", self.auth_server.namespace)
    }

    fn meet(&mut self, trouble: Trouble) {
        self.signs.report_failed();
        if self.told.as_ref() != Some(&trouble) {
            tracing::warn!("the report is not written: {trouble}; deliveries go on, and it is tried again");
            self.told = Some(trouble);
        }
    }
}

/// An object that is applied need not be there; its kind must.
fn without_the_crd(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Absent { object } => Trouble::Refused {
            verb: "patch",
            object,
            message: "its namespace is not there, or no DeliveryReport is known: apply crds/".to_owned(),
        },
        other => other,
    }
}
