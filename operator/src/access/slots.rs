//! How many questions are under way: in all, and for one namespace, so that one team cannot use up the others' share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::question::{Page, Question};
use super::refusal::Refusal;

/// Questions of lists at once: each is over within seconds.
const LISTS: usize = 16;
const LISTS_OF_ONE: usize = 4;

/// Test events at once: each takes as long as the endpoint may.
const TESTS: usize = 8;
const TESTS_OF_ONE: usize = 2;

/// What is under way, by namespace and whether it is a test.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<HashMap<(bool, String), usize>>);

/// One question under way.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    key: (bool, String),
}

// === impl Slots ===

impl Slots {
    /// A place for a question, until the slot is dropped.
    pub(super) fn take(self: &Arc<Self>, question: &Question) -> Result<Slot, Refusal> {
        let is_test = question.page == Page::Test;
        let (in_all, of_one) = if is_test { (TESTS, TESTS_OF_ONE) } else { (LISTS, LISTS_OF_ONE) };
        let key = (is_test, question.webhook.namespace.clone());
        let mut taken = self.lock();
        let all: usize = taken.iter().filter(|((test, _), _)| *test == is_test).map(|(_, count)| count).sum();
        let one = taken.get(&key).copied().unwrap_or_default();
        if all >= in_all || one >= of_one {
            return Err(Refusal::Busy);
        }
        taken.insert(key.clone(), one + 1);
        Ok(Slot { slots: Arc::clone(self), key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(bool, String), usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Slot ===

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        let left = taken.get(&self.key).copied().unwrap_or_default().saturating_sub(1);
        if left == 0 {
            taken.remove(&self.key);
        } else {
            taken.insert(self.key.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_plan::ObjectName;

    use super::*;

    fn of(namespace: &str, page: Page) -> Question {
        Question { webhook: ObjectName::new(namespace, "mail"), page }
    }

    #[test]
    fn a_team_that_asks_without_end_leaves_room_for_the_others() {
        let slots = Arc::new(Slots::default());
        let mut held = Vec::new();
        while let Ok(slot) = slots.take(&of("shop", Page::Deliveries)) {
            held.push(slot);
        }
        assert_eq!(held.len(), LISTS_OF_ONE);
        assert!(
            slots.take(&of("crm", Page::Deliveries)).is_ok() && slots.take(&of("shop", Page::Test)).is_ok()
        );
        held.pop();
        assert!(slots.take(&of("shop", Page::DeadLetters)).is_ok());
        drop(held);
        assert!(slots.lock().is_empty());
    }
}
