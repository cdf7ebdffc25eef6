//! Two processes, one Lease, a real API server: killed, stopped, told to leave, and left alone by the API server.
//!
//! Run by `tests/controlplane/run -- cargo test -p tidings-election --features controlplane --test two_processes`.

#![expect(clippy::unwrap_used, reason = "a harness fails by panicking")]

mod stage;

use std::time::Instant;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use rustix::process::Signal;
use stage::{ApiServer, LEASE, NAME, RETRY, Stage, timing, undisturbed};
use tidings_election::{Election, Loss, Resignation, Settings};

fn term(by: &str, number: u64) -> (String, u64) {
    (by.to_owned(), number)
}

fn settings(stage: &Stage) -> Settings {
    Settings::new(stage.namespace(), NAME, "here", timing()).unwrap()
}

async fn spec(stage: &Stage) -> LeaseSpec {
    stage.leases().get(NAME).await.unwrap().spec.unwrap()
}

#[tokio::test]
async fn one_leads_and_the_other_waits() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let (_first, second) = stage.leader_and_follower().await;
    let transitions = spec(&stage).await.lease_transitions;
    let began = Instant::now();
    while began.elapsed() < LEASE * 2 {
        stage.writes_more(10).await;
    }
    assert!(!second.has_said("leading"));
    assert_eq!(stage.terms().await, [term("first", 1)]);
    assert_eq!(spec(&stage).await.lease_transitions, transitions);
}

#[tokio::test]
async fn a_killed_leader_is_followed_after_the_lease_duration_and_not_before() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let (first, second) = stage.leader_and_follower().await;
    first.signal(Signal::KILL);
    let killed = Instant::now();
    second.says("leading term=1").await;
    // The last renewal was at most a round before, and a slow request.
    assert!(killed.elapsed() > LEASE.saturating_sub(RETRY * 2), "{:?}", killed.elapsed());
    assert!(killed.elapsed() < LEASE * 3, "{:?}", killed.elapsed());
    stage.writes_more(10).await;
    assert_eq!(stage.terms().await, [term("first", 1), term("second", 1)]);
    assert_eq!(spec(&stage).await.lease_transitions, Some(1));
}

#[tokio::test]
async fn a_leader_that_is_told_to_leave_is_followed_at_once() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let (mut first, second) = stage.leader_and_follower().await;
    let told = Instant::now();
    first.signal(Signal::TERM);
    first.ends().await;
    first.says("left Released").await;
    second.says("leading term=1").await;
    assert!(told.elapsed() < LEASE.saturating_sub(RETRY), "{:?}", told.elapsed());
    stage.writes_more(10).await;
    assert_eq!(stage.terms().await, [term("first", 1), term("second", 1)]);
}

#[tokio::test]
async fn a_follower_that_is_told_to_leave_leaves_the_lease_alone() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let (_first, mut second) = stage.leader_and_follower().await;
    second.signal(Signal::TERM);
    second.ends().await;
    second.says("left NotHeld").await;
    stage.writes_more(10).await;
    assert_eq!(stage.terms().await, [term("first", 1)]);
}

#[tokio::test]
async fn a_leader_stopped_beyond_its_lease_is_refused_when_it_runs_on() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let (first, second) = stage.leader_and_follower().await;
    first.signal(Signal::STOP);
    second.says("leading term=1").await;
    stage.writes_more(10).await;
    let place = first.place();
    first.signal(Signal::CONT);
    first.says_after(place, "refused term=1").await;
    stage.writes_more(30).await;
    assert_eq!(stage.terms().await, [term("first", 1), term("second", 1)]);
    assert!(!first.leads() && second.leads());
}

#[tokio::test]
async fn a_leader_stopped_again_and_again_never_writes_into_anothers_term() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let (first, second) = stage.leader_and_follower().await;
    let (mut leader, mut follower) = (first, second);
    for _ in 0..3 {
        let place = follower.place();
        leader.signal(Signal::STOP);
        follower.says_after(place, "leading").await;
        let place = leader.place();
        leader.signal(Signal::CONT);
        leader.says_after(place, "refused").await;
        stage.writes_more(10).await;
        (leader, follower) = (follower, leader);
    }
    let expected = [term("first", 1), term("second", 1), term("first", 2), term("second", 2)];
    assert_eq!(stage.terms().await, expected);
}

#[tokio::test]
async fn a_namesake_does_not_lead_beside_the_leader() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let first = stage.candidate("first");
    first.says("leading term=1").await;
    let namesake = stage.candidate("first");
    let began = Instant::now();
    while began.elapsed() < LEASE * 2 {
        stage.writes_more(10).await;
    }
    assert!(first.leads() && !namesake.has_said("leading"));
}

#[tokio::test]
async fn a_lease_deleted_under_the_leader_gives_no_second_one() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let (first, second) = stage.leader_and_follower().await;
    let place = first.place();
    stage.leases().delete(NAME, &DeleteParams::default()).await.unwrap();
    first.says_after(place, "refused term=1").await;
    stage.writes_more(20).await;
    assert_eq!(stage.terms().await.len(), 2, "the term that ended and one after it");
    assert!(first.leads() != second.leads());
}

#[tokio::test]
async fn a_lease_without_a_spec_is_taken_and_keeps_its_labels() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let labels = Some([("team".to_owned(), "identity".to_owned())].into());
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), labels, ..ObjectMeta::default() };
    stage.leases().create(&PostParams::default(), &Lease { metadata, spec: None }).await.unwrap();
    stage.candidate("first").says("leading term=1").await;
    let lease = stage.leases().get(NAME).await.unwrap();
    assert_eq!(lease.metadata.labels.unwrap()["team"], "identity");
    assert_eq!(lease.spec.unwrap().lease_duration_seconds, Some(3));
}

#[tokio::test]
async fn who_resigns_waits_for_the_permit_that_is_out_before_another_may_lead() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let election = Election::start(stage.client(), settings(&stage));
    let lead = election.lead().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let permit = lead.permit().unwrap();
    let resigning = tokio::spawn(election.resign());
    assert_eq!(lead.lost().await.loss, Loss::Resigned);
    assert!(lead.permit().is_err());
    assert!(spec(&stage).await.holder_identity.unwrap().starts_with("here_"));
    drop(permit);
    assert_eq!(resigning.await.unwrap(), Resignation::Released);
    assert_eq!(spec(&stage).await.holder_identity.unwrap_or_default(), "");
}

#[tokio::test]
async fn the_right_ends_by_the_clock_even_while_the_election_does_not_get_to_run() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let election = Election::start(stage.client(), settings(&stage));
    let lead = election.lead().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let began = Instant::now();
    // Nothing is awaited, so that the election's task, on the same thread, stands still.
    while lead.permit().is_ok() {
        assert!(began.elapsed() <= timing().renew_deadline());
        std::thread::yield_now();
    }
    assert_eq!(lead.permit().unwrap_err().loss, Loss::Lapsed);
    assert_eq!(election.counters().permits_refused(), 2);
    let again = election.lead().wait_for(|now| now.as_ref().is_some_and(|now| now.term() == 2)).await.is_ok();
    assert!(again && lead.permit().is_err());
}

#[tokio::test]
async fn an_election_that_is_dropped_ends_its_term() {
    let _apiserver = undisturbed().await;
    let stage = Stage::new().await;
    let election = Election::start(stage.client(), settings(&stage));
    let lead = election.lead().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    drop(election);
    assert_eq!(lead.lost().await.loss, Loss::Abandoned);
    assert!(!spec(&stage).await.holder_identity.unwrap().is_empty());
}

#[tokio::test]
async fn a_leader_whose_api_server_hangs_loses_its_right_and_then_exactly_one_leads() {
    let apiserver = ApiServer::alone().await;
    let stage = Stage::new().await;
    let (first, second) = stage.leader_and_follower().await;
    apiserver.pause();
    first.says("refused term=1").await;
    assert!(!second.has_said("leading"));
    apiserver.resume();
    stage.writes_more(30).await;
    assert_eq!(stage.terms().await.len(), 2, "the term that ended and one after it");
    assert!(first.leads() != second.leads());
}

#[tokio::test]
async fn a_short_pause_of_the_api_server_costs_nobody_the_leadership() {
    let apiserver = ApiServer::alone().await;
    let stage = Stage::new().await;
    let (first, _second) = stage.leader_and_follower().await;
    let place = first.place();
    apiserver.pause();
    // One renewal at least is given up.
    first.warns_after(place).await;
    apiserver.resume();
    stage.writes_more(30).await;
    assert_eq!(stage.terms().await, [term("first", 1)]);
}

#[tokio::test]
async fn an_api_server_that_is_killed_and_started_again_finds_exactly_one_leader() {
    let apiserver = ApiServer::alone().await;
    let stage = Stage::new().await;
    let (first, second) = stage.leader_and_follower().await;
    apiserver.stop();
    first.says("refused term=1").await;
    apiserver.start();
    stage.writes_more(30).await;
    assert_eq!(stage.terms().await.len(), 2, "the term that ended and one after it");
    assert!(first.leads() != second.leads());
}
