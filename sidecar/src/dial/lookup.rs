//! Looks names up, so that slow names cost the tenant that uses them alone.
//!
//! In: a name, and the namespace that asks. Out: addresses, as the system's resolver finds them: hosts
//! file, search domains and all. That one blocks, and cannot be stopped: each look-up has a thread of its
//! own, and holds its namespace's slot until the thread is done, however soon the attempt gave up. A name
//! is looked up once at a time; an answer is used for some seconds.
//!
//! It must never judge addresses: that is done for each use, also of an answer that was kept.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::budget::{Budget, Share, Slot, WeakShare};

/// Namespaces that may have a look-up under way, and look-ups beyond the first of each.
const NAMESPACES: usize = 128;
const FURTHER: usize = 32;

/// How long an answer is used. The system does not tell how long it is good for.
const FOUND_FOR: Duration = Duration::from_secs(5);
const MISSING_FOR: Duration = Duration::from_secs(1);

/// How many names are known at once; beyond, answers are used and not kept.
const MOST_NAMES: usize = 4096;

/// A resolver's frames are small, but some of its modules keep buffers on the stack.
const STACK_BYTES: usize = 512 << 10;

/// The look-ups of this process.
pub(super) static LOOKUPS: LazyLock<Arc<Lookups>> =
    LazyLock::new(|| Lookups::new(ask_the_system, Budget::new(NAMESPACES, FURTHER)));

type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What came of a look-up: addresses, or the system's words.
pub(super) type Answer = Result<Arc<[IpAddr]>, Arc<str>>;

/// Look-ups, under way and answered.
pub(super) struct Lookups {
    ask: Box<Ask>,
    budget: Budget,
    shares: Mutex<HashMap<String, WeakShare>>,
    names: Mutex<HashMap<String, Name>>,
}

enum Name {
    UnderWay(watch::Receiver<Option<Answer>>),
    Known { until: Instant, answer: Answer },
}

// === impl Lookups ===

impl Lookups {
    fn new(
        ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
        budget: Budget,
    ) -> Arc<Self> {
        Arc::new(Self { ask: Box::new(ask), budget, shares: Mutex::default(), names: Mutex::default() })
    }

    /// The addresses of a name, asked for by this namespace.
    pub(super) async fn find(self: &Arc<Self>, name: &str, namespace: &str) -> Answer {
        loop {
            match self.known(name) {
                Some(Name::Known { answer, until: _ }) => return answer,
                Some(Name::UnderWay(answer)) => match answered(answer).await {
                    Some(answer) => return answer,
                    // Whoever looked it up ended in a panic.
                    None => self.names().remove(name),
                },
                None => {
                    let slot = self.share(namespace).take().await;
                    self.begin(name, slot);
                    None
                }
            };
        }
    }

    fn known(&self, name: &str) -> Option<Name> {
        match self.names().get(name)? {
            Name::UnderWay(answer) => Some(Name::UnderWay(answer.clone())),
            Name::Known { until, answer } if *until > Instant::now() => {
                Some(Name::Known { until: *until, answer: answer.clone() })
            }
            Name::Known { .. } => None,
        }
    }

    /// Begins to look a name up, unless somebody else did while the slot was waited for.
    fn begin(self: &Arc<Self>, name: &str, slot: Slot) {
        let (tell, answer) = watch::channel(None);
        {
            let mut names = self.names();
            if matches!(names.get(name), Some(Name::UnderWay(_))) {
                return;
            }
            names.insert(name.to_owned(), Name::UnderWay(answer));
        }
        let (lookups, asked) = (Arc::clone(self), name.to_owned());
        let work = move || {
            let answer = (lookups.ask)(&asked).map(Arc::from).map_err(|error| error.to_string().into());
            lookups.keep(asked, &answer);
            tell.send_replace(Some(answer));
            drop(slot);
        };
        let thread = std::thread::Builder::new().name("lookup".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(work) {
            self.keep(name.to_owned(), &Err(format!("there is no thread to look it up on: {error}").into()));
        }
    }

    fn keep(&self, name: String, answer: &Answer) {
        let now = Instant::now();
        let mut names = self.names();
        if names.len() >= MOST_NAMES {
            names.retain(|_, name| !matches!(name, Name::Known { until, .. } if *until <= now));
        }
        if names.len() > MOST_NAMES {
            names.remove(&name);
            return;
        }
        let until = now + if answer.is_ok() { FOUND_FOR } else { MISSING_FOR };
        names.insert(name, Name::Known { until, answer: answer.clone() });
    }

    fn share(&self, namespace: &str) -> Share {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(namespace).and_then(WeakShare::upgrade) {
            return share;
        }
        let share = self.budget.share();
        shares.retain(|_, share| share.upgrade().is_some());
        shares.insert(namespace.to_owned(), share.downgrade());
        share
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answered(mut answer: watch::Receiver<Option<Answer>>) -> Option<Answer> {
    answer.wait_for(Option::is_some).await.ok()?.clone()
}

fn ask_the_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A resolver that answers names that begin with `slow` only once it is let.
    #[derive(Default)]
    struct Resolver {
        asked: AtomicUsize,
        is_open: Mutex<bool>,
        opened: Condvar,
    }

    impl Resolver {
        fn lookups(self: &Arc<Self>, budget: Budget) -> Arc<Lookups> {
            let resolver = Arc::clone(self);
            Lookups::new(move |name| resolver.ask(name), budget)
        }

        fn ask(&self, name: &str) -> io::Result<Vec<IpAddr>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if name.starts_with("slow") {
                drop(self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
            }
            if name == "nobody" {
                Err(io::Error::other("unknown"))
            } else {
                Ok(vec!["192.0.2.1".parse().unwrap()])
            }
        }

        fn open(&self) {
            *self.is_open.lock().unwrap() = true;
            self.opened.notify_all();
        }
    }

    async fn gives_up(lookups: &Arc<Lookups>, name: &str, namespace: &str) -> bool {
        tokio::time::timeout(Duration::from_millis(50), lookups.find(name, namespace)).await.is_err()
    }

    #[tokio::test]
    async fn a_name_is_asked_for_once_however_many_want_it() {
        let resolver = Arc::<Resolver>::default();
        let lookups = resolver.lookups(Budget::new(4, 4));
        let finding = (0..20).map(|at| {
            let lookups = Arc::clone(&lookups);
            tokio::spawn(async move { lookups.find("slow", &format!("tenant-{}", at % 3)).await })
        });
        let finding: Vec<_> = finding.collect();
        while resolver.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        resolver.open();
        for found in finding {
            assert_eq!(found.await.unwrap().unwrap().len(), 1);
        }
        assert_eq!(lookups.find("slow", "another").await.unwrap().len(), 1, "and the answer is kept");
        assert_eq!(resolver.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_look_up_that_was_given_up_holds_its_tenants_slot_until_it_ends_and_nobody_elses() {
        let resolver = Arc::<Resolver>::default();
        let lookups = resolver.lookups(Budget::new(2, 0));
        assert!(gives_up(&lookups, "slow-1", "slow").await);
        assert!(gives_up(&lookups, "quick", "slow").await, "its one slot is taken");
        assert!(lookups.find("quick", "neighbour").await.is_ok());
        resolver.open();
        assert!(lookups.find("quick-2", "slow").await.is_ok());
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_told_in_the_systems_words() {
        let lookups = Arc::<Resolver>::default().lookups(Budget::new(1, 0));
        assert_eq!(lookups.find("nobody", "a").await.unwrap_err().as_ref(), "unknown");
    }
}
