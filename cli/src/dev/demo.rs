//! `tidings dev --demo`: a tour for a newcomer. Two services, one that fails for a while and recovers.
//!
//! The services are real servers on loopback that verify each delivery with the official Standard
//! Webhooks library; the events are those that a real Logto sent.

mod service;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tidings_sidecar::sidecar::Sidecar;
use tidings_signature::SigningKey;

use super::follow::Manifests;
use super::screen::Screen;
use super::{Arguments, DevError, Session, options};
use crate::demo::events::{SIGN_IN, VARIED, with_time_of_now};
use crate::demo::sender::{Sender, events_url};
use crate::signals::ended;
use service::{Service, Took};

/// The tour's manifests, as users would write them; ports are filled in.
const MANIFESTS: &str = include_str!("../../../examples/demo/manifests.yaml");

/// The key of the hook, as in the manifests.
const HOOK_KEY: &str = "demo-key-of-the-hook-in-logto";

const MAIL_KEY: &str = "whsec_ZGVtby1rZXktb2YtdGhlLXdlbGNvbWUtbWFpbA==";
const SYNC_KEY: &str = "whsec_ZGVtby1rZXktb2YtdGhlLWRhdGEtc3luYy1zZXJ2aWNl";

/// How long the first picture may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two events of the trickle.
const TRICKLE: Duration = Duration::from_millis(700);

/// When one service fails: for so many events, out of so many.
const FAILS: std::ops::Range<usize> = 8..18;
const ROUND: usize = 40;

/// Runs the tour.
pub(super) async fn run(arguments: Arguments) -> Result<(), DevError> {
    let folder = tempfile::tempdir()?;
    let (told, took) = tokio::sync::mpsc::unbounded_channel();
    let mail = Service::start("welcome-mail", MAIL_KEY, told.clone()).await?;
    let sync = Service::start("data-sync", SYNC_KEY, told).await?;
    let manifests = folder.path().join("manifests.yaml");
    let text = MANIFESTS.replace("9101", &mail.port().to_string()).replace("9102", &sync.port().to_string());
    std::fs::write(&manifests, text)?;
    let data_dir = arguments.data_dir.clone().unwrap_or_else(|| folder.path().join("data"));
    let (sidecar, manifests) = start(&arguments, data_dir, manifests).await?;
    let session = Session::start(&sidecar, manifests, Screen::new(arguments.output)).await;
    let auth_server = auth_server(&sidecar).map_err(DevError::Demo)?;
    let tour = Tour { session, auth_server, sync, took };
    if arguments.once {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(sidecar.run(async { drop(stopped.await) }));
        let result = tour.once().await;
        drop(stop);
        running.await.map_err(|error| DevError::Demo(error.to_string()))??;
        return result;
    }
    let touring = tokio::spawn(tour.run());
    let result = sidecar.run(ended()?).await;
    touring.abort();
    Ok(result?)
}

async fn start(
    arguments: &Arguments,
    data_dir: PathBuf,
    manifests: PathBuf,
) -> Result<(Sidecar, Manifests), DevError> {
    let manifests = Manifests::load(vec![manifests], None)?;
    Ok((Sidecar::start(options(arguments, data_dir)).await?, manifests))
}

fn auth_server(sidecar: &Sidecar) -> Result<Sender, String> {
    let key = SigningKey::new(HOOK_KEY).map_err(|error| error.to_string())?;
    Ok(Sender::new(events_url(&format!("http://{}/events", sidecar.events_address()))?, Some(key)))
}

struct Tour {
    session: Session,
    auth_server: Sender,
    sync: Service,
    took: tokio::sync::mpsc::UnboundedReceiver<Took>,
}

// === impl Tour ===

impl Tour {
    /// One event, two Webhooks, two services; then it is over.
    async fn once(mut self) -> Result<(), DevError> {
        self.picture().await?;
        self.session.refresh();
        let rows = self.session.rows.clone();
        self.session.screen.print_table(&rows);
        Ok(())
    }

    /// The picture, and then a trickle with a failure in each round, for ever.
    async fn run(mut self) {
        if let Err(error) = self.picture().await {
            self.session.screen.remark(&error.to_string());
        }
        for number in 0_usize.. {
            self.fail_or_recover(number % ROUND);
            if let Err(error) = self.send(VARIED[number % VARIED.len()]).await {
                self.session.screen.remark(&error);
            }
            let until = Instant::now() + TRICKLE;
            while Instant::now() < until {
                self.tell_what_came();
                self.session.refresh();
                tokio::time::sleep(TRICKLE / 5).await;
            }
        }
    }

    async fn picture(&mut self) -> Result<(), DevError> {
        self.session.refresh();
        self.session.screen.remark("-> Logto sends PostSignIn, once, and forgets it");
        self.send(SIGN_IN).await.map_err(DevError::Demo)?;
        let mut verified = std::collections::BTreeSet::new();
        while verified.len() < 2 {
            let took = tokio::time::timeout(PATIENCE, self.took.recv()).await;
            let took = took.ok().flatten().ok_or_else(|| {
                DevError::Demo(format!(
                    "only {} of 2 services verified the event within {PATIENCE:?}",
                    verified.len()
                ))
            })?;
            if took.verified && took.event == "PostSignIn" {
                verified.insert(took.service);
            }
            self.session.screen.remark(&took.to_string());
        }
        // Wait until the engine has noted the answers, so that the table shows them.
        let began = Instant::now();
        while began.elapsed() < PATIENCE
            && self.session.applier.engine().snapshots().iter().any(|webhook| webhook.pending > 0)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn send(&self, body: &str) -> Result<(), String> {
        let answer = self.auth_server.send(with_time_of_now(body)).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(format!("the event was refused: {} {}", answer.status, answer.body))
    }

    fn fail_or_recover(&mut self, at: usize) {
        if at == FAILS.start {
            self.sync.fail(true);
            self.session.screen.remark("!! data-sync fails now: it answers 503, its events wait");
        } else if at == FAILS.end {
            self.sync.fail(false);
            self.session.screen.remark("!! data-sync is back: what waited is delivered");
        }
    }

    fn tell_what_came(&mut self) {
        while let Ok(took) = self.took.try_recv() {
            self.session.screen.remark(&took.to_string());
        }
    }
}
