//! Candidates in a world that is out to have two of them lead: three processes with clocks of their own, a Lease with
//! resource versions, and messages that are late beyond every timeout, lost, or applied long after they were given up.
//!
//! A process is late wherever a real one can be stopped: before it wakes, between its look at the clock and the
//! request, and while an answer lies there unread. It may crash, its requests still under way, and resign. Then the
//! world calms down.
//!
//! The right of two terms can only begin to overlap when one of them begins or is prolonged, and that is an event; so
//! that judging after each event finds every overlap.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio::time::Instant;

use crate::candidate::{Answer, Candidate, Request, Step};
use crate::counters::Counters;
use crate::record::{Claim, Record};
use crate::settings::Timing;
use crate::tenure::Lead;

const PROCESSES: usize = 3;

/// The longest delay, in microseconds: far beyond the longest lease here.
const LONGEST: u64 = 25_000_000;

/// What one step meets with. Times in microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Chance {
    late: u64,
    there: u64,
    back: u64,
    /// How long after it asked the process hears nothing.
    deaf: u64,
    request_lost: bool,
    answer_lost: bool,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Fate {
    #[default]
    None,
    Crash,
    Resign,
}

/// A clock that began anywhere and runs at its own speed.
#[derive(Debug, Clone, Copy)]
struct Clock {
    ahead: u64,
    permille: u64,
}

#[derive(Debug)]
struct Process {
    candidate: Candidate,
    clock: Clock,
    /// The process and the request that it waits for; what comes for another is too late.
    life: u64,
    request: u64,
    deaf_until: u64,
}

#[derive(Debug)]
enum Event {
    Wake { process: usize, life: u64 },
    Arrive { process: usize, life: u64, request: u64, asked: Request, holder: String, back: Option<u64> },
    Hear { process: usize, life: u64, request: u64, answer: Answer },
}

struct World {
    base: Instant,
    timing: Timing,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    chances: std::vec::IntoIter<Chance>,
    /// When the last chance was drawn.
    calm_since: u64,
    processes: Vec<Process>,
    /// Every term of the processes that live.
    leads: Vec<(usize, Lead)>,
    terms: Vec<usize>,
    lease: Option<Record>,
    /// Numbers for whatever must be told apart: events, lives, requests, versions.
    number: u64,
}

// === impl Clock ===

impl Clock {
    fn at(self, base: Instant, time: u64) -> Instant {
        base + Duration::from_micros(self.ahead + time * self.permille / 1000)
    }

    /// The first moment at which the clock shows this or later.
    fn when(self, base: Instant, shows: Instant) -> u64 {
        let shown = u64::try_from((shows - base).as_micros()).unwrap() + 1;
        (shown.saturating_sub(self.ahead) * 1000).div_ceil(self.permille)
    }
}

// === impl World ===

impl World {
    fn new(timing: Timing, clocks: &[Clock], chances: Vec<Chance>) -> Self {
        let mut world = Self {
            base: Instant::now(),
            timing,
            now: 0,
            events: BTreeMap::new(),
            chances: chances.into_iter(),
            calm_since: 0,
            processes: Vec::new(),
            leads: Vec::new(),
            terms: Vec::new(),
            lease: None,
            number: 0,
        };
        for (process, &clock) in clocks.iter().enumerate() {
            let born = world.born(process, clock);
            world.processes.push(born);
            world.wake(process, 0);
        }
        world
    }

    /// Runs until it has been calm for long enough that one must lead, and gives the processes with a right.
    fn run(&mut self) -> Result<Vec<usize>, TestCaseError> {
        while self.now < self.calm_since + 4 * LONGEST {
            let ((time, _), event) = self.events.pop_first().expect("each process sleeps or waits");
            self.now = time;
            self.happen(event);
            let leading = self.leading();
            prop_assert!(leading.len() < 2, "{leading:?} lead at {time} us");
        }
        Ok(self.leading())
    }

    fn leading(&mut self) -> Vec<usize> {
        let clocks: Vec<Instant> = (0..PROCESSES).map(|process| self.clock(process)).collect();
        self.leads.retain(|(process, lead)| lead.loss_at(clocks[*process]).is_none());
        self.leads.iter().map(|(process, _)| *process).collect()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { process, life } if self.processes[process].life == life => self.woken(process),
            Event::Arrive { process, life, request, asked, holder, back } => {
                let answer = self.answer(asked, holder);
                if let Some(back) = back {
                    self.after(back, Event::Hear { process, life, request, answer });
                }
            }
            Event::Hear { process, life, request, answer }
                if (life, request) == (self.processes[process].life, self.processes[process].request) =>
            {
                self.heard(process, answer);
            }
            Event::Wake { .. } | Event::Hear { .. } => {}
        }
    }

    fn heard(&mut self, process: usize, answer: Answer) {
        let Process { life, request, deaf_until, .. } = self.processes[process];
        if self.now < deaf_until {
            // An answer that lies there is read before the timer is looked at.
            let later = deaf_until - self.now + u64::from(answer == Answer::Failed);
            return self.after(later, Event::Hear { process, life, request, answer });
        }
        let now = self.clock(process);
        self.processes[process].request = 0;
        self.processes[process].candidate.hear(answer, now);
        self.step(process);
    }

    fn woken(&mut self, process: usize) {
        let (chance, now) = (self.chance(), self.clock(process));
        match chance.fate {
            Fate::Crash => return self.replace(process, chance.late),
            Fate::Resign => self.processes[process].candidate.resign(now),
            Fate::None => {}
        }
        self.step(process);
    }

    fn step(&mut self, process: usize) {
        let now = self.clock(process);
        let step = self.processes[process].candidate.next(now);
        self.note_the_lead(process);
        let chance = self.chance();
        match step {
            Step::Sleep { until } => {
                let wakes = self.processes[process].clock.when(self.base, until);
                self.wake(process, wakes.saturating_sub(self.now) + chance.late);
            }
            Step::Send { request, give_up } => self.send(process, request, give_up, chance),
            Step::Leave(_) => self.replace(process, chance.late),
        }
    }

    fn send(&mut self, process: usize, asked: Request, give_up: Instant, chance: Chance) {
        let (life, request, holder) =
            (self.processes[process].life, self.count(), name(process, self.processes[process].life));
        self.processes[process].request = request;
        self.processes[process].deaf_until = self.now + chance.deaf;
        if !chance.request_lost {
            let back = (!chance.answer_lost).then_some(chance.back);
            self.after(
                chance.late + chance.there,
                Event::Arrive { process, life, request, asked, holder, back },
            );
        }
        let given_up = self.processes[process].clock.when(self.base, give_up).saturating_sub(self.now);
        self.after(given_up.max(chance.late), Event::Hear { process, life, request, answer: Answer::Failed });
    }

    /// What an API server does.
    fn answer(&mut self, asked: Request, holder: String) -> Answer {
        let claim = Claim { holder, seconds: self.timing.lease_seconds() };
        let wall = Timestamp::UNIX_EPOCH;
        match asked {
            Request::Read => self.lease.clone().map_or(Answer::Absent, Answer::Found),
            Request::Claim(over) if over != self.lease => Answer::Outpaced,
            Request::Release(over) if Some(&over) != self.lease.as_ref() => Answer::Outpaced,
            Request::Claim(None) => self.write(claim.created("tidings", "lease", wall)),
            Request::Claim(Some(record)) => self.write(record.claimed(&claim, wall)),
            Request::Release(record) => self.write(record.released(wall)),
        }
    }

    fn write(&mut self, mut lease: Lease) -> Answer {
        // A write that changes nothing is answered, and not made.
        if let Some(same) = Record::new(lease.clone()).filter(|record| Some(record) == self.lease.as_ref()) {
            return Answer::Written(same);
        }
        lease.metadata.resource_version = Some(self.count().to_string());
        self.lease = Record::new(lease);
        Answer::Written(self.lease.clone().expect("it has a version"))
    }

    /// The process is gone; another begins where it ran.
    fn replace(&mut self, process: usize, later: u64) {
        self.leads.retain(|(of, _)| *of != process);
        self.processes[process] = self.born(process, self.processes[process].clock);
        self.wake(process, later);
    }

    fn born(&mut self, process: usize, clock: Clock) -> Process {
        let life = self.count();
        let now = clock.at(self.base, self.now);
        let candidate = Candidate::new(name(process, life), self.timing, Counters::default(), now);
        Process { candidate, clock, life, request: 0, deaf_until: 0 }
    }

    fn note_the_lead(&mut self, process: usize) {
        let Some(lead) = self.processes[process].candidate.lead() else { return };
        if !self.leads.iter().any(|(of, known)| *of == process && known.term() == lead.term()) {
            self.leads.push((process, lead.clone()));
            self.terms.push(process);
        }
    }

    fn clock(&self, process: usize) -> Instant {
        self.processes[process].clock.at(self.base, self.now)
    }

    fn chance(&mut self) -> Chance {
        let calm = Chance { there: 5000, back: 5000, ..Chance::default() };
        self.chances.next().inspect(|_| self.calm_since = self.now).unwrap_or(calm)
    }

    fn wake(&mut self, process: usize, later: u64) {
        self.after(later, Event::Wake { process, life: self.processes[process].life });
    }

    fn after(&mut self, later: u64, event: Event) {
        let number = self.count();
        self.events.insert((self.now + later, number), event);
    }

    fn count(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

fn name(process: usize, life: u64) -> String {
    format!("process-{process}_{life}")
}

// === what may happen ===

/// Mostly short, now and then about a timeout, rarely beyond every lease.
fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0_u64..50_000, 3 => 0_u64..4_000_000, 1 => 0..LONGEST]
}

fn chance() -> impl Strategy<Value = Chance> {
    let fate = prop_oneof![60 => Just(Fate::None), 1 => Just(Fate::Crash), 1 => Just(Fate::Resign)];
    let lost = || prop::bool::weighted(0.04);
    (delay(), delay(), delay(), delay(), lost(), lost(), fate).prop_map(
        |(late, there, back, deaf, request_lost, answer_lost, fate)| Chance {
            late,
            there,
            back,
            deaf,
            request_lost,
            answer_lost,
            fate,
        },
    )
}

/// Clocks that are apart by up to a day, and whose speeds differ by less than lease and deadline do.
fn clock() -> impl Strategy<Value = Clock> {
    (0_u64..86_400_000_000, 850_u64..=1150).prop_map(|(ahead, permille)| Clock { ahead, permille })
}

fn timing() -> impl Strategy<Value = Timing> {
    let milliseconds = prop_oneof![Just([15_000, 10_000, 2000]), Just([3000, 2000, 400])];
    milliseconds.prop_map(|times| {
        let [lease, deadline, retry] = times.map(Duration::from_millis);
        Timing::new(lease, deadline, retry).unwrap()
    })
}

fn world() -> impl Strategy<Value = (Timing, Vec<Clock>, Vec<Chance>)> {
    (timing(), prop::collection::vec(clock(), PROCESSES), prop::collection::vec(chance(), 0..600))
}

proptest! {
    #[test]
    fn two_never_have_the_right_to_write_at_once_and_in_a_calm_world_one_has_it(
        (timing, clocks, chances) in world()
    ) {
        let mut world = World::new(timing, &clocks, chances);
        prop_assert_eq!(world.run()?.len(), 1);
    }
}

/// Without this the property above could be true of candidates that hardly ever lead.
#[test]
fn the_simulated_faults_move_the_leadership_about() {
    let mut runner = TestRunner::deterministic();
    let mut moves = 0;
    for _ in 0..100 {
        let (timing, clocks, chances) = world().new_tree(&mut runner).unwrap().current();
        let mut world = World::new(timing, &clocks, chances);
        world.run().unwrap();
        moves += world.terms.windows(2).filter(|pair| pair[0] != pair[1]).count();
    }
    assert!(moves > 150, "{moves} moves in 100 worlds");
}
