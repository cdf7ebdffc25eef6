//! One that stands for election and, while it leads, writes: what the tests run two of.
//!
//! ```text
//! candidate NAMESPACE NAME IDENTITY LEASE_MS DEADLINE_MS RETRY_MS
//! ```
//!
//! Each write appends `IDENTITY TERM MICROSECONDS` (when its permit was given, on the machine's monotonic clock) to the
//! `ConfigMap` `writes`, guarded by its version, so that its order is the one in which writes were accepted.
//! Says on stdout: `leading`, `wrote`, `outpaced`, `failed`, `refused`, `left`. Resigns on SIGTERM.

use std::error::Error;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use rustix::time::{ClockId, clock_gettime};
use tidings_election::{Election, Lead, LeadershipLost, Settings, Timing};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// How soon one write follows another.
const PACE: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [namespace, name, identity, times @ ..] = &arguments[..] else { return Err("see the head".into()) };
    let settings = Settings::new(namespace, name, identity, timing(times)?)?;
    let mut terminated = signal(SignalKind::terminate())?;
    let client = Client::try_default().await?;
    let writes = Api::namespaced(client.clone(), namespace);
    let election = Election::start(client, settings);
    tokio::select! {
        () = write_while_leading(election.lead(), &writes, identity) => {}
        _ = terminated.recv() => {}
    }
    println!("left {:?}", election.resign().await);
    Ok(())
}

fn timing(times: &[String]) -> Result<Timing, Box<dyn Error>> {
    let times: Vec<u64> = times.iter().map(|time| time.parse()).collect::<Result<_, _>>()?;
    let [lease, deadline, retry] = times[..] else { return Err("three times, in milliseconds".into()) };
    let [lease, deadline, retry] = [lease, deadline, retry].map(Duration::from_millis);
    Ok(Timing::new(lease, deadline, retry)?)
}

/// Until the election is over.
async fn write_while_leading(
    mut leads: watch::Receiver<Option<Lead>>,
    writes: &Api<ConfigMap>,
    identity: &str,
) {
    loop {
        let Ok(lead) = leads.wait_for(Option::is_some).await.map(|lead| lead.clone()) else { return };
        let Some(lead) = lead else { continue };
        println!("leading term={}", lead.term());
        let lost = write_until_lost(&lead, writes, identity).await;
        println!("refused term={}: {lost}", lost.term);
        let is_another = |now: &Option<Lead>| now.as_ref().is_none_or(|now| now.term() != lead.term());
        if leads.wait_for(is_another).await.is_err() {
            return;
        }
    }
}

async fn write_until_lost(lead: &Lead, writes: &Api<ConfigMap>, identity: &str) -> LeadershipLost {
    loop {
        // Read first: the permit comes just before the write, and reading may hang.
        let log = timeout(PACE * 20, writes.get("writes")).await;
        let permit = match lead.permit() {
            Ok(permit) => permit,
            Err(lost) => return lost,
        };
        let now = clock_gettime(ClockId::Monotonic);
        let line = format!("{identity} {} {}\n", permit.term(), now.tv_sec * 1_000_000 + now.tv_nsec / 1000);
        let outcome = match log {
            Ok(Ok(log)) => timeout(permit.remaining(), append(writes, log, &line)).await.unwrap_or("failed"),
            Ok(Err(_)) | Err(_) => "failed",
        };
        drop(permit);
        println!("{outcome}");
        tokio::time::sleep(PACE).await;
    }
}

async fn append(writes: &Api<ConfigMap>, mut log: ConfigMap, line: &str) -> &'static str {
    log.data.get_or_insert_default().entry("log".to_owned()).or_default().push_str(line);
    match writes.replace("writes", &PostParams::default(), &log).await {
        Ok(_) => "wrote",
        Err(kube::Error::Api(status)) if status.is_conflict() => "outpaced",
        Err(_) => "failed",
    }
}
