//! Everything at once, for a while: tenants whose receivers are good, flaky, hostile, slow and gone, a plan that
//! changes, replays, kills, and events all the time. At the end each event of each Webhook is accounted for, what
//! was answered 2xx arrived where it had to, and memory and descriptors are where they were.
//!
//! The short form runs with the other tests. The long form takes its length and prints its seed:
//! `TIDINGS_ENDURANCE_SECONDS=1800 cargo test -p tidings-tests --release --test endurance -- --nocapture`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod account;
mod load;
mod tenants;
mod vitals;

use std::time::{Duration, Instant};

use tidings_tests::process::{self, Home, Process};
use tidings_tests::until;

use account::Account;
use load::Load;
use tenants::Tenants;
use vitals::Vitals;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a whole number"))
}

/// The next of a sequence that a seed repeats: which act comes, and when a kill comes.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// One run of one process: acts until it is killed, or until the time is over.
async fn run(home: &Home, tenants: &mut Tenants, load: &Load, seed: &mut u64, until_then: Instant) -> Vitals {
    let sidecar = home.start().await;
    load.send_to(Some(sidecar.events));
    let mut vitals = Vitals::default();
    while Instant::now() < until_then {
        let before = load.acknowledged();
        let more = 20 + usize::try_from(next(seed) % 80).unwrap();
        until("events are acknowledged", async || (load.acknowledged() >= before + more).then_some(())).await;
        home.put(&tenants.changed(next(seed)));
        vitals.look(&sidecar);
    }
    load.send_to(None);
    sidecar.kill().await;
    vitals
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_accounted_for_whatever_happens_meanwhile() {
    let length = Duration::from_secs(number("TIDINGS_ENDURANCE_SECONDS", 12));
    let first_seed = number("TIDINGS_SEED", 7);
    let mut seed = first_seed;
    println!("endurance: {} s, TIDINGS_SEED={first_seed}", length.as_secs());
    let (home, mut tenants, load) = (Home::default(), Tenants::start().await, Load::start());
    home.put(&tenants.plan());
    // Built before the time begins.
    process::binary("tidings-sidecar");
    let began = Instant::now();
    let mut kills = 0;
    // Kills in the first half, and then one process for the second, in which a leak would show.
    while began.elapsed() < length / 2 {
        let lives = Duration::from_millis(500 + next(&mut seed) % 4500);
        run(&home, &mut tenants, &load, &mut seed, Instant::now() + lives).await;
        kills += 1;
    }
    let vitals = run(&home, &mut tenants, &load, &mut seed, began + length).await;
    let acknowledged = load.stop().await;

    let sidecar = home.start().await;
    home.put(&tenants.recovered());
    let account = settled(&sidecar, &tenants).await;
    println!("{kills} kills, {} events acknowledged\n{account}{vitals}", acknowledged.len());
    account.check();
    tenants.check(&acknowledged);
    vitals.check(length);
}

/// Waits until nothing waits any more; as long as something moves it is waited for.
async fn settled(sidecar: &Process, tenants: &Tenants) -> Account {
    let mut last = Account::of(sidecar, tenants).await;
    while last.pending() > 0 {
        let what = format!("what waits is delivered or given up:\n{last}");
        last = until(&what, async || {
            Some(Account::of(sidecar, tenants).await).filter(|now| now.pending() == 0 || *now != last)
        })
        .await;
    }
    last
}
