//! Statuses that wait to be written: what is urgent at once, the rest seldom.
//!
//! A change of a condition goes out at once. Numbers go out at most every [`QUIET`] for one object, and at
//! most [`LAZY_PER_SECOND`] for all together, so that a thousand deliveries a second cost the API server
//! ten writes. A newer status of an object takes the place of the one that waits: the queue is bounded by
//! the number of objects.
//!
//! Pure: time comes in from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tidings_plan::ObjectName;

use crate::world::Desired;
use crate::world::change::Kind;

/// Between two writes of one object's numbers.
pub const QUIET: Duration = Duration::from_secs(10);

/// How many statuses that are not urgent are written in a second.
pub const LAZY_PER_SECOND: u32 = 10;

/// A status that is about to change again waits so long, so that it is written once and not twice: a new
/// Webhook is Ready before anybody was told that it is not. As long as a sidecar may take with ten thousand
/// new ones.
pub const SETTLE: Duration = Duration::from_secs(5);

type Key = (Kind, ObjectName);

/// Statuses that wait.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: BTreeMap<Key, Waiting>,
    due: BTreeSet<(Instant, Key)>,
    written: HashMap<Key, Instant>,
    under_way: BTreeSet<Key>,
    /// When the next status that is not urgent may go.
    next_lazy: Option<Instant>,
    saved: u64,
}

#[derive(Debug)]
struct Waiting {
    desired: Desired,
    due: Instant,
}

// === impl Outbox ===

impl Outbox {
    /// Takes a status in place of the one that waits.
    pub fn put(&mut self, desired: Desired, now: Instant) {
        let key = (desired.kind, desired.name.clone());
        let before = self.remove(&key);
        self.saved += u64::from(before.is_some());
        let wanted = match (desired.urgent, desired.settling) {
            (true, false) => now,
            (true, true) => now + SETTLE,
            (false, _) => self.written.get(&key).map_or(now, |at| (*at + QUIET).max(now)),
        };
        // One that waits already is never put off, or a busy object would never be told of. But what was
        // about to change has, and where only numbers are left of it, they wait as numbers do.
        let due = match before {
            Some(before) if !before.desired.settling || desired.urgent => before.due.min(wanted),
            _ => wanted,
        };
        self.due.insert((due, key.clone()));
        self.waiting.insert(key, Waiting { desired, due });
    }

    /// An object's status is as it should be.
    pub fn settled(&mut self, kind: Kind, name: &ObjectName) {
        self.saved += u64::from(self.remove(&(kind, name.clone())).is_some());
    }

    /// The next status that may be written now; it is under way until it is [`Outbox::done`].
    pub fn take(&mut self, now: Instant) -> Option<Desired> {
        let may_be_lazy = self.next_lazy.is_none_or(|at| at <= now);
        let ready = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, key)| key);
        let mut ready = ready.filter(|key| !self.under_way.contains(key));
        let key = ready.find(|key| may_be_lazy || self.waiting[*key].desired.urgent)?.clone();
        let Waiting { desired, due: _ } = self.remove(&key)?;
        if !desired.urgent {
            self.next_lazy = Some(now + Duration::from_secs(1) / LAZY_PER_SECOND);
        }
        self.written.insert(key.clone(), now);
        self.under_way.insert(key);
        Some(desired)
    }

    /// A status that was under way is written, or was not taken.
    pub fn done(&mut self, kind: Kind, name: &ObjectName) {
        self.under_way.remove(&(kind, name.clone()));
    }

    /// When to look again; `None` while nothing waits.
    pub fn next_due(&self) -> Option<Instant> {
        let first = self.due.iter().find(|(_, key)| !self.under_way.contains(key));
        first.map(|(due, key)| {
            if self.waiting[key].desired.urgent { *due } else { self.next_lazy.unwrap_or(*due).max(*due) }
        })
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many writes were spared, since a newer status came before they were made.
    pub fn saved(&self) -> u64 {
        self.saved
    }

    /// Forgets everything: another one leads, and sees for itself.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.due.clear();
    }

    /// Forgets when objects were written that may be written again by now.
    pub fn tidy(&mut self, now: Instant) {
        self.written.retain(|_, at| *at + QUIET > now);
    }

    fn remove(&mut self, key: &Key) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        self.due.remove(&(waiting.due, key.clone()));
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::StatusText;

    fn desired(name: &str, number: u64, urgent: bool, settling: bool) -> Desired {
        Desired {
            kind: Kind::Webhook,
            name: ObjectName::new("shop", name),
            uid: String::new(),
            resource_version: String::new(),
            before: StatusText::of(&json!({})),
            status: StatusText::of(&json!({ "delivered": number })),
            urgent,
            settling,
        }
    }

    fn lazy(name: &str, number: u64) -> Desired {
        desired(name, number, false, false)
    }

    fn write(outbox: &mut Outbox, now: Instant) -> Option<u64> {
        let taken = outbox.take(now)?;
        outbox.done(taken.kind, &taken.name);
        taken.status.value()["delivered"].as_u64()
    }

    #[test]
    fn a_change_of_a_condition_goes_at_once_and_numbers_wait() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.put(lazy("mail", 1), now);
        assert_eq!(write(&mut outbox, now), Some(1));
        outbox.put(lazy("mail", 2), now);
        assert_eq!(write(&mut outbox, now + QUIET / 2), None);
        outbox.put(desired("mail", 3, true, false), now + QUIET / 2);
        assert_eq!(write(&mut outbox, now + QUIET / 2), Some(3));
        assert!(outbox.is_empty(), "the numbers went with the condition");
    }

    #[test]
    fn of_many_numbers_the_newest_is_written_and_never_put_off() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.put(lazy("mail", 0), now);
        assert_eq!(write(&mut outbox, now), Some(0));
        for number in 1..100 {
            outbox.put(lazy("mail", number), now + Duration::from_millis(number * 90));
        }
        assert_eq!(write(&mut outbox, now + QUIET), Some(99));
        assert_eq!(outbox.saved(), 98);
    }

    #[test]
    fn all_objects_together_cost_a_bounded_number_of_writes() {
        let (mut outbox, began) = (Outbox::default(), Instant::now());
        let mut written = 0;
        for millis in 0..10_000_u64 {
            let now = began + Duration::from_millis(millis);
            if millis % 10 == 0 {
                outbox.put(lazy(&format!("hook-{}", millis % 1000), millis), now);
            }
            written += u32::from(write(&mut outbox, now).is_some());
        }
        assert!(written <= LAZY_PER_SECOND * 10, "{written} writes in 10 s");
        assert!(written >= LAZY_PER_SECOND * 9, "{written} writes in 10 s");
    }

    #[test]
    fn a_status_that_is_about_to_change_again_is_written_once() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.put(desired("mail", 1, true, true), now);
        assert_eq!(write(&mut outbox, now), None);
        outbox.put(desired("mail", 2, true, false), now + SETTLE / 2);
        assert_eq!(write(&mut outbox, now + SETTLE / 2), Some(2));
        outbox.put(desired("mail", 3, true, true), now + SETTLE);
        outbox.put(desired("mail", 4, true, true), now + SETTLE * 3 / 2);
        assert_eq!(write(&mut outbox, now + SETTLE * 2), Some(4), "it is not put off");
    }

    #[test]
    fn what_settled_into_numbers_alone_waits_as_numbers_do() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.put(lazy("mail", 1), now);
        assert_eq!(write(&mut outbox, now), Some(1));
        outbox.put(desired("mail", 2, true, true), now);
        outbox.put(lazy("mail", 3), now);
        assert_eq!(write(&mut outbox, now + SETTLE), None);
        assert_eq!(write(&mut outbox, now + QUIET), Some(3));
    }

    #[test]
    fn one_object_is_written_by_one_at_a_time() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.put(desired("mail", 1, true, false), now);
        let first = outbox.take(now).unwrap();
        outbox.put(desired("mail", 2, true, false), now);
        assert!(outbox.take(now).is_none());
        outbox.done(first.kind, &first.name);
        assert_eq!(write(&mut outbox, now), Some(2));
        outbox.put(desired("mail", 3, true, false), now);
        outbox.settled(Kind::Webhook, &ObjectName::new("shop", "mail"));
        assert_eq!((write(&mut outbox, now), outbox.next_due()), (None, None));
    }
}
