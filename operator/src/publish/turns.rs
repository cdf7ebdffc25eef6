//! Whose plan is published next. Pure; time and chance come in.
//!
//! Who has waited longest is next, so one auth server of which the plan cannot be published costs the others
//! one attempt in a while: its turns come ever more rarely, and a new plan of its own does not bring one
//! forward. Another object under its name begins anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tidings_plan::{ObjectName, Plan};

use crate::backoff;

/// The plans that are to be published.
#[derive(Default)]
pub(super) struct Turns(BTreeMap<ObjectName, Turn>);

struct Turn {
    plan: Arc<Plan>,
    owner: String,
    due: Instant,
    failures: u32,
}

// === impl Turns ===

impl Turns {
    /// Takes a plan, in place of the one before; `owner` is the UID of its `AuthServer`.
    pub(super) fn put(&mut self, plan: Arc<Plan>, owner: String, now: Instant) {
        let name = plan.auth_server.clone();
        let before = self.0.get(&name).filter(|turn| turn.owner == owner);
        let (due, failures) = before.map_or((now, 0), |turn| (turn.due, turn.failures));
        self.0.insert(name, Turn { plan, owner, due, failures });
    }

    /// When the next turn is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().map(|turn| turn.due).min()
    }

    /// The plan whose turn it is, and its owner.
    pub(super) fn next(&self, now: Instant) -> Option<(Arc<Plan>, String)> {
        let next = self.0.values().filter(|turn| turn.due <= now).min_by_key(|turn| turn.due)?;
        Some((Arc::clone(&next.plan), next.owner.clone()))
    }

    /// A plan could not be published. What somebody else wrote meanwhile is looked at again at once, but not
    /// for ever.
    pub(super) fn failed(&mut self, name: &ObjectName, conflict: bool, now: Instant, chance: f64) {
        let Some(turn) = self.0.get_mut(name) else { return };
        turn.failures = turn.failures.saturating_add(1);
        let at_once = conflict && turn.failures == 1;
        turn.due = if at_once { now } else { now + backoff::wait(turn.failures, chance) };
    }

    /// A plan is published, or wanted no longer.
    pub(super) fn remove(&mut self, name: &ObjectName) {
        self.0.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plan(name: &str) -> Arc<Plan> {
        Arc::new(Plan::empty(ObjectName::new("auth", name)))
    }

    fn next(turns: &Turns, now: Instant) -> Option<String> {
        turns.next(now).map(|(plan, _)| plan.auth_server.name.clone())
    }

    #[test]
    fn an_auth_server_whose_plan_cannot_be_published_leaves_the_others_their_turns() {
        let (mut turns, mut now) = (Turns::default(), Instant::now());
        let bad: Vec<_> = (0..100).map(|number| format!("a{number}")).collect();
        for name in &bad {
            turns.put(plan(name), String::new(), now);
        }
        let (mut good, mut attempts) = (0, 0);
        // Each attempt takes 50 ms; the good one has a new plan each second.
        for tick in 0..12_000 {
            if tick % 20 == 0 {
                turns.put(plan("z"), String::new(), now);
            }
            match next(&turns, now).as_deref() {
                Some("z") => {
                    turns.remove(&ObjectName::new("auth", "z"));
                    good += 1;
                }
                Some(name) => {
                    turns.failed(&ObjectName::new("auth", name), false, now, 0.5);
                    attempts += 1;
                }
                None => {}
            }
            now += Duration::from_millis(50);
        }
        assert!(good >= 550, "of 600 plans in ten minutes {good} were published");
        assert!(attempts < 100 * 30, "{attempts} attempts are few for each");
    }

    #[test]
    fn a_new_plan_does_not_bring_a_turn_forward_and_another_object_begins_anew() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let name = ObjectName::new("auth", "logto");
        turns.put(plan("logto"), "uid-1".to_owned(), now);
        turns.failed(&name, false, now, 1.0);
        turns.put(plan("logto"), "uid-1".to_owned(), now);
        assert_eq!(next(&turns, now), None);
        assert_eq!(turns.due(), Some(now + Duration::from_secs(1)));
        turns.put(plan("logto"), "uid-2".to_owned(), now);
        assert_eq!(next(&turns, now).as_deref(), Some("logto"));
        turns.remove(&name);
        assert_eq!((turns.due(), next(&turns, now)), (None, None));
    }

    #[test]
    fn a_conflict_is_looked_at_again_at_once_but_once() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let name = ObjectName::new("auth", "logto");
        turns.put(plan("logto"), String::new(), now);
        turns.failed(&name, true, now, 1.0);
        assert_eq!(turns.due(), Some(now));
        turns.failed(&name, true, now, 1.0);
        assert_eq!(turns.due(), Some(now + Duration::from_secs(2)));
    }
}
