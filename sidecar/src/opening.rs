//! Opens the store and starts its engine, away from everything that must go on meanwhile.
//!
//! In: settings. Out: both, or why not. A volume that does not answer holds up its own thread alone: not the
//! runtime, and not the end of the process.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tidings_store::{Settings, SqliteStore, StoreError};
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::front::Surface;

/// How soon it is tried again after a failure, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A store that is open, and what delivers from it.
pub(crate) struct Opened {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) engine: Arc<Engine<SqliteStore>>,
}

/// Opens it once.
pub(crate) async fn open(settings: Settings, control_plane: Vec<IpAddr>) -> Result<Opened, StoreError> {
    let (answer, answered) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let path = settings.dir.clone();
    let opening = move || {
        let _runtime = runtime.enter();
        // Who no longer waits for it does not need it.
        let _ = answer.send(open_here(settings, control_plane));
    };
    let failed = |reason: String| StoreError::Failed { path: path.clone(), reason };
    let thread = std::thread::Builder::new().name("store-opening".to_owned());
    thread.spawn(opening).map_err(|error| failed(error.to_string()))?;
    answered.await.unwrap_or_else(|_| Err(failed("opening it panicked; the log has the place".to_owned())))
}

fn open_here(settings: Settings, control_plane: Vec<IpAddr>) -> Result<Opened, StoreError> {
    let store = Arc::new(SqliteStore::open(settings)?);
    let engine = Engine::start(Arc::clone(&store), control_plane)?;
    Ok(Opened { store, engine })
}

/// Opens it as soon as that can be done; what is in the way is shown meanwhile. What a person must replace
/// is not opened again: the process waits to be ended.
pub(crate) async fn open_sometime(
    settings: &Settings,
    control_plane: &[IpAddr],
    surface: &Surface<SqliteStore>,
) -> Opened {
    let mut wait = FIRST_WAIT;
    loop {
        let error = match open(settings.clone(), control_plane.to_vec()).await {
            Ok(opened) => return opened,
            Err(error) => error,
        };
        surface.cannot_open(&error);
        if !error.may_pass() {
            return std::future::pending().await;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
