//! Connections that rest: kept to be used again, bounded for an endpoint and for all of them together.
//!
//! In: connections whose answer was read to its end. Out: the one of that endpoint that rested last. One
//! beyond the bounds takes the place of the one that rested longest, and none rests for more than
//! [`REST`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

/// How long an unused connection is kept.
pub(super) const REST: Duration = Duration::from_secs(90);

/// How many rest for one endpoint at the most.
const FOR_ONE: usize = 32;

/// A connection, as far as requests go.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Where a connection leads, and by which TLS settings: what agrees in both may share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Of the connector.
    pub(super) connector: u64,
    /// Host and port.
    pub(super) authority: String,
}

/// The connections that rest.
#[derive(Debug)]
pub(super) struct Pool {
    most: usize,
    resting: Mutex<Resting<Sender>>,
}

#[derive(Debug)]
struct Resting<C> {
    /// By the order in which they began to rest.
    all: BTreeMap<u64, Rested<C>>,
    of_place: HashMap<Arc<Place>, Vec<u64>>,
    next: u64,
    /// Whether somebody closes those whose time is over.
    is_swept: bool,
}

#[derive(Debug)]
struct Rested<C> {
    place: Arc<Place>,
    since: Instant,
    connection: C,
}

// === impl Pool ===

impl Pool {
    /// At most so many rest at once.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, resting: Mutex::new(Resting::default()) })
    }

    /// A connection of this place that is open, as far as one knows.
    pub(super) fn take(&self, place: &Place) -> Option<Sender> {
        let mut resting = self.lock();
        std::iter::from_fn(|| resting.take(place)).find(Sender::is_ready)
    }

    /// Lets a connection rest.
    pub(super) fn put(self: &Arc<Self>, place: &Arc<Place>, connection: Sender) {
        let mut resting = self.lock();
        let beyond = resting.put(place, connection, Instant::now(), self.most);
        if !std::mem::replace(&mut resting.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        drop(resting);
        // Closing wakes the connection's task, which needs no lock of ours to be held.
        drop(beyond);
    }

    fn lock(&self) -> MutexGuard<'_, Resting<Sender>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections that rested for long, as long as there are any.
async fn sweep(pool: Weak<Pool>) {
    loop {
        let Some(over) = pool.upgrade().and_then(|pool| pool.lock().first_over()) else { return };
        tokio::time::sleep_until(over).await;
        let Some(pool) = pool.upgrade() else { return };
        let closed = pool.lock().expire(Instant::now());
        drop(closed);
    }
}

// === impl Resting ===

impl<C> Default for Resting<C> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), of_place: HashMap::new(), next: 0, is_swept: false }
    }
}

impl<C> Resting<C> {
    fn take(&mut self, place: &Place) -> Option<C> {
        let newest = *self.of_place.get(place)?.last()?;
        self.remove(newest)
    }

    /// Puts one in; those that are now too many come out.
    fn put(&mut self, place: &Arc<Place>, connection: C, since: Instant, most: usize) -> Vec<C> {
        let number = self.next;
        self.next += 1;
        self.all.insert(number, Rested { place: Arc::clone(place), since, connection });
        let of_place = self.of_place.entry(Arc::clone(place)).or_default();
        of_place.push(number);
        let too_many_of_place = (of_place.len() > FOR_ONE).then(|| of_place[0]);
        let mut beyond: Vec<_> =
            too_many_of_place.and_then(|oldest| self.remove(oldest)).into_iter().collect();
        while self.all.len() > most {
            beyond
                .extend(self.all.first_key_value().map(|(oldest, _)| *oldest).and_then(|at| self.remove(at)));
        }
        beyond
    }

    fn remove(&mut self, number: u64) -> Option<C> {
        let Rested { place, connection, since: _ } = self.all.remove(&number)?;
        if let Some(of_place) = self.of_place.get_mut(&place) {
            of_place.retain(|other| *other != number);
            if of_place.is_empty() {
                self.of_place.remove(&place);
            }
        }
        Some(connection)
    }

    /// When the time of the one that rested longest is over; with none, nobody sweeps any more.
    fn first_over(&mut self) -> Option<Instant> {
        let first = self.all.first_key_value().map(|(_, rested)| rested.since + REST);
        self.is_swept = first.is_some();
        first
    }

    fn expire(&mut self, now: Instant) -> Vec<C> {
        let over: Vec<_> =
            self.all.iter().take_while(|(_, rested)| rested.since + REST <= now).map(|(at, _)| *at).collect();
        over.into_iter().filter_map(|at| self.remove(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(authority: &str) -> Arc<Place> {
        Arc::new(Place { connector: 0, authority: authority.to_owned() })
    }

    #[test]
    fn the_one_that_rested_last_is_used_first() {
        let (mut resting, place, now) = (Resting::default(), place("a"), Instant::now());
        assert!(resting.put(&place, 1, now, 10).is_empty() && resting.put(&place, 2, now, 10).is_empty());
        assert_eq!(
            (resting.take(&place), resting.take(&place), resting.take(&place)),
            (Some(2), Some(1), None)
        );
    }

    #[test]
    fn beyond_the_bound_of_an_endpoint_and_of_all_the_oldest_goes() {
        let (mut resting, now) = (Resting::default(), Instant::now());
        let (one, other) = (place("one"), place("other"));
        for number in 0..FOR_ONE {
            assert!(resting.put(&one, number, now, 1000).is_empty());
        }
        assert_eq!(resting.put(&one, 99, now, 1000), [0]);
        assert_eq!(resting.put(&other, 100, now, FOR_ONE), [1]);
        assert_eq!(resting.take(&other), Some(100));
    }

    #[test]
    fn none_rests_for_longer_than_its_time() {
        let (mut resting, place, now) = (Resting::default(), place("a"), Instant::now());
        resting.put(&place, 1, now, 10);
        resting.put(&place, 2, now + REST / 2, 10);
        assert_eq!(resting.expire(now + REST), [1]);
        assert_eq!(resting.first_over(), Some(now + REST / 2 + REST));
        assert_eq!(resting.expire(now + REST * 2), [2]);
        assert_eq!(resting.first_over(), None);
        assert!(resting.of_place.is_empty());
    }
}
