//! The connections of one server: so many at once, and a newcomer takes the place of one that does nothing.
//!
//! Without that, as many connections as there are places, at rest, would keep everybody else out, a
//! kubelet's probe too. One that is being answered is never closed for another.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limits;
use super::watched::Phase;

/// How soon another one is asked to go when the first one did not, or none could.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Who is connected.
pub(super) struct Crowd {
    limits: Limits,
    places: Arc<Semaphore>,
    connected: Mutex<Vec<Weak<Phase>>>,
}

// === impl Crowd ===

impl Crowd {
    pub(super) fn new(limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.connections));
        Self { limits, places, connected: Mutex::default() }
    }

    /// A place for a newcomer, as soon as there is one.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return Some(place);
            }
            self.let_one_go();
            // The semaphore is never closed.
            if let Ok(place) = tokio::time::timeout(ASK_AGAIN, Arc::clone(&self.places).acquire_owned()).await
            {
                return place.ok();
            }
        }
    }

    pub(super) fn joins(&self, phase: &Arc<Phase>) {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.len() >= 2 * self.limits.connections {
            connected.retain(|phase| phase.strong_count() > 0);
        }
        connected.push(Arc::downgrade(phase));
    }

    fn let_one_go(&self) {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let readiest = (connected.iter().filter_map(Weak::upgrade))
            .filter_map(|phase| Some((phase.may_go(&self.limits)?, phase)))
            .max_by_key(|(readiness, _)| *readiness);
        if let Some((_, phase)) = readiest {
            phase.needed.notify_one();
        }
    }
}
