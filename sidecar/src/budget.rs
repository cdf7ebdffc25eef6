//! A resource of the process, and the share that each of many may have of it.
//!
//! In: who asks. Out: slots, or a refusal; a slot that is dropped is free again. It must never let one
//! who asks for much keep another from its first slot.
//!
//! # The rule
//! The first slot of each share comes out of a reserve that nobody else can use up. A further one is
//! granted while the share holds no more than what is free. So one that wants everything gets half of it,
//! two get a third each, and there is always as much left as each of them has: a newcomer has its part
//! at once, without anything being taken away, and those who want little get all that they want.
//! (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998.)
//!
//! A share that was refused is woken when something becomes free, those that hold the least first.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// A number of slots.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// First slots that are left.
    firsts: usize,
    /// Further slots that are left.
    free: usize,
    /// Those that were refused.
    waiting: Vec<Weak<Holder>>,
}

/// One who asks.
#[derive(Debug, Clone)]
pub(crate) struct Share(Arc<Holder>);

#[derive(Debug)]
struct Holder {
    budget: Budget,
    /// Changed under the budget's lock alone.
    held: AtomicUsize,
    waits: AtomicBool,
    freed: Notify,
}

/// A share that does not stay for this.
#[derive(Debug, Clone)]
pub(crate) struct WeakShare(Weak<Holder>);

/// What was granted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Holder>);

// === impl Budget ===

impl Budget {
    /// So many shares may hold one slot, and together so many more.
    pub(crate) fn new(firsts: usize, further: usize) -> Self {
        Self(Arc::new(Mutex::new(State { firsts, free: further, waiting: Vec::new() })))
    }

    /// A share that holds nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share(Arc::new(Holder {
            budget: self.clone(),
            held: AtomicUsize::new(0),
            waits: AtomicBool::new(false),
            freed: Notify::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn grant(&mut self, holder: &Holder) -> bool {
        let held = holder.held.load(Ordering::Relaxed);
        let left = if held == 0 { &mut self.firsts } else { &mut self.free };
        let granted = if held == 0 { *left > 0 } else { held <= *left };
        if granted {
            *left -= 1;
            holder.held.store(held + 1, Ordering::Relaxed);
        }
        granted
    }

    fn take_back(&mut self, holder: &Holder) {
        let held = holder.held.load(Ordering::Relaxed) - 1;
        holder.held.store(held, Ordering::Relaxed);
        *(if held == 0 { &mut self.firsts } else { &mut self.free }) += 1;
    }

    /// The one that holds the least of those who wait, the longest first.
    fn next(&mut self) -> Option<Arc<Holder>> {
        self.waiting.retain(|holder| holder.strong_count() > 0);
        let held = |holder: &Weak<Holder>| {
            holder.upgrade().map_or(usize::MAX, |holder| holder.held.load(Ordering::Relaxed))
        };
        let (at, _) = self.waiting.iter().enumerate().min_by_key(|(_, holder)| held(holder))?;
        let next = self.waiting.remove(at).upgrade()?;
        next.waits.store(false, Ordering::Relaxed);
        Some(next)
    }
}

// === impl Share ===

impl Share {
    /// A slot, when the rule grants one now; else [`Share::freed`] says when to ask again.
    pub(crate) fn try_take(&self) -> Option<Slot> {
        let Self(holder) = self;
        let mut state = holder.budget.lock();
        if state.grant(holder) {
            return Some(Slot(Arc::clone(holder)));
        }
        if !holder.waits.swap(true, Ordering::Relaxed) {
            state.waiting.push(Arc::downgrade(holder));
        }
        None
    }

    /// A slot, as soon as the rule grants one.
    pub(crate) async fn take(&self) -> Slot {
        loop {
            if let Some(slot) = self.try_take() {
                // Others may wait on this share; there may be one for the next of them too.
                self.0.freed.notify_one();
                return slot;
            }
            self.freed().await;
        }
    }

    /// The same share, for as long as somebody else has it or holds a slot of it.
    pub(crate) fn downgrade(&self) -> WeakShare {
        WeakShare(Arc::downgrade(&self.0))
    }

    /// Resolves when it is worth asking again after a refusal.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

// === impl WeakShare ===

impl WeakShare {
    /// The share, while somebody has it or holds a slot of it.
    pub(crate) fn upgrade(&self) -> Option<Share> {
        self.0.upgrade().map(Share)
    }
}

// === impl Slot ===

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.budget.lock();
        state.take_back(&self.0);
        let next = state.next();
        drop(state);
        if let Some(next) = next {
            next.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Takes as much as the rule grants.
    fn take_all(share: &Share) -> VecDeque<Slot> {
        std::iter::from_fn(|| share.try_take()).collect()
    }

    #[test]
    fn one_that_wants_everything_gets_half_and_a_newcomer_its_part_at_once() {
        let budget = Budget::new(10, 512);
        let (hog, newcomer) = (budget.share(), budget.share());
        let held = take_all(&hog);
        assert_eq!(held.len(), 257);
        assert_eq!(take_all(&newcomer).len(), 128 + 1);
        drop(held);
    }

    #[test]
    fn the_first_slots_are_bounded_too() {
        let budget = Budget::new(2, 0);
        let (a, b, c) = (budget.share(), budget.share(), budget.share());
        let held = (a.try_take(), b.try_take(), c.try_take());
        assert!(held.0.is_some() && held.1.is_some() && held.2.is_none());
        drop(held);
        assert!(c.try_take().is_some());
    }

    #[tokio::test]
    async fn who_was_refused_is_woken_the_one_that_holds_the_least_first() {
        let budget = Budget::new(3, 3);
        let (rich, third, poor) = (budget.share(), budget.share(), budget.share());
        let of_rich = take_all(&rich);
        let of_third = (third.try_take().unwrap(), third.try_take().unwrap());
        let of_poor = take_all(&poor);
        assert_eq!((of_rich.len(), of_poor.len()), (3, 1));
        drop(of_third.0);
        tokio::time::timeout(std::time::Duration::from_secs(10), poor.freed()).await.unwrap();
        assert!(poor.try_take().is_some());
    }

    #[tokio::test]
    async fn all_who_wait_on_one_share_get_their_turn() {
        let share = Budget::new(1, 0).share();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let share = share.clone();
            waiting.spawn(async move { drop(share.take().await) });
        }
        while let Some(done) = waiting.join_next().await {
            done.unwrap();
        }
    }

    proptest! {
        #[test]
        fn nobody_is_refused_what_one_that_holds_as_much_would_get(
            asks in proptest::collection::vec((0_usize..6, any::<bool>()), 0..400),
            further in 0_usize..40,
        ) {
            let budget = Budget::new(6, further);
            let shares: Vec<_> = (0..6).map(|_| budget.share()).collect();
            let mut held: Vec<VecDeque<Slot>> = (0..6).map(|_| VecDeque::new()).collect();
            for (at, takes) in asks {
                if !takes {
                    held[at].pop_front();
                } else if let Some(slot) = shares[at].try_take() {
                    held[at].push_back(slot);
                } else {
                    prop_assert!(!held[at].is_empty(), "the first is always granted");
                    for other in (0..6).filter(|other| held[*other].len() >= held[at].len()) {
                        prop_assert!(shares[other].try_take().is_none());
                    }
                }
                let beyond: usize = held.iter().map(|held| held.len().saturating_sub(1)).sum();
                prop_assert!(beyond <= further);
            }
        }

        #[test]
        fn those_who_want_everything_end_with_equal_parts(
            ends in proptest::collection::vec(0_usize..4, 2000),
        ) {
            let budget = Budget::new(4, 100);
            let shares: Vec<_> = (0..4).map(|_| budget.share()).collect();
            let mut held: Vec<VecDeque<Slot>> = shares.iter().map(take_all).collect();
            for at in ends {
                held[at].pop_front();
                for (share, held) in shares.iter().zip(&mut held) {
                    held.extend(take_all(share));
                }
            }
            // A fifth each, and a fifth for the next one.
            prop_assert!(held.iter().all(|held| (18..=22).contains(&held.len())), "{:?}", held.iter().map(VecDeque::len).collect::<Vec<_>>());
        }
    }
}
