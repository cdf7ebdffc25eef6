//! The verdict: a pure function of what was sent and what was received.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use serde::Serialize;

use crate::demo::ledger::{Received, Sent};

/// So many lost ids are printed.
const SHOWN: usize = 10;

/// What became of all events.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    sent: usize,
    /// Answered 2xx.
    acknowledged: usize,
    /// By status, or by why there was no answer.
    refused: BTreeMap<String, usize>,
    /// Of the acknowledged ones.
    arrived: usize,
    /// Acknowledged, and never taken by a receiver.
    pub(super) lost: BTreeSet<String>,
    /// Taken although the answer was no 2xx, or did not come: harmless.
    arrived_unacknowledged: usize,
    /// Taken again under the same `webhook-id`.
    duplicates: usize,
    /// Deliveries that a receiver answered with an error, by status.
    turned_away: BTreeMap<u16, usize>,
    /// Events that came under more than one `webhook-id`: one for each Webhook at the most.
    under_several_ids: usize,
    lag: Option<Lag>,
}

/// From the moment an event was made until it was first taken, in milliseconds.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lag {
    p50_milliseconds: i64,
    p99_milliseconds: i64,
    max_milliseconds: i64,
}

/// What receivers took of one event.
#[derive(Debug, Default)]
struct Taken<'a> {
    first: Option<i64>,
    webhook_ids: HashSet<&'a str>,
}

// === impl Verdict ===

impl Verdict {
    pub(super) fn of(sent: &[Sent], received: &[Received]) -> Self {
        let taken = taken(received);
        let mut lags = Vec::new();
        let mut verdict = Self {
            sent: sent.len(),
            acknowledged: 0,
            refused: BTreeMap::new(),
            arrived: 0,
            lost: BTreeSet::new(),
            arrived_unacknowledged: 0,
            duplicates: duplicates(received),
            turned_away: BTreeMap::new(),
            under_several_ids: taken.values().filter(|taken| taken.webhook_ids.len() > 1).count(),
            lag: None,
        };
        for one in sent {
            let taken_first = taken.get(one.id.as_str()).and_then(|taken| taken.first);
            lags.extend(taken_first.map(|at| at - one.made_at));
            verdict.enter(one, taken_first.is_some());
        }
        for one in received.iter().filter(|one| !one.is_taken()) {
            *verdict.turned_away.entry(one.status).or_default() += 1;
        }
        verdict.lag = Lag::of(lags);
        verdict
    }

    fn enter(&mut self, sent: &Sent, arrived: bool) {
        match (sent.is_acknowledged(), arrived) {
            (true, true) => self.arrived += 1,
            (true, false) => drop(self.lost.insert(sent.id.clone())),
            (false, true) => self.arrived_unacknowledged += 1,
            (false, false) => {}
        }
        if sent.is_acknowledged() {
            self.acknowledged += 1;
        } else {
            *self.refused.entry(why(sent)).or_default() += 1;
        }
    }

    /// Nothing is lost, and there was something to lose.
    pub(super) fn conclude(&self) -> Result<(), String> {
        if self.acknowledged == 0 {
            return Err("no event was acknowledged: nothing is proven".to_owned());
        }
        if self.lost.is_empty() {
            return Ok(());
        }
        Err(format!("{} of {} acknowledged events are lost", self.lost.len(), self.acknowledged))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, acknowledged, arrived, lost, duplicates, arrived_unacknowledged, .. } = self;
        let refused = sent - acknowledged;
        writeln!(
            f,
            "sent         {sent}: {acknowledged} acknowledged, {refused} refused{}",
            among(&self.refused)
        )?;
        writeln!(
            f,
            "arrived      {arrived} of {acknowledged} acknowledged, {arrived_unacknowledged} of {refused} refused"
        )?;
        writeln!(f, "lost         {}", lost.len())?;
        for id in lost.iter().take(SHOWN) {
            writeln!(f, "             {id}")?;
        }
        if lost.len() > SHOWN {
            writeln!(f, "             and {} more", lost.len() - SHOWN)?;
        }
        writeln!(f, "duplicates   {duplicates}, each under the webhook-id that it had before")?;
        writeln!(f, "several ids  {} events came under more than one webhook-id", self.under_several_ids)?;
        let turned_away: usize = self.turned_away.values().sum();
        writeln!(f, "turned away  {turned_away}{}", among(&self.turned_away))?;
        match &self.lag {
            Some(Lag { p50_milliseconds, p99_milliseconds, max_milliseconds }) => writeln!(
                f,
                "lag          p50 {p50_milliseconds} ms, p99 {p99_milliseconds} ms, max {max_milliseconds} ms"
            ),
            None => Ok(()),
        }
    }
}

// === impl Lag ===

impl Lag {
    fn of(mut lags: Vec<i64>) -> Option<Self> {
        lags.sort_unstable();
        // The smallest value that this many hundredths do not exceed.
        let at =
            |hundredths: usize| lags.get((lags.len() * hundredths).div_ceil(100).checked_sub(1)?).copied();
        Some(Self { p50_milliseconds: at(50)?, p99_milliseconds: at(99)?, max_milliseconds: at(100)? })
    }
}

fn taken(received: &[Received]) -> HashMap<&str, Taken<'_>> {
    let mut all: HashMap<&str, Taken<'_>> = HashMap::new();
    for one in received.iter().filter(|one| one.is_taken()) {
        let Some(id) = &one.id else { continue };
        let taken = all.entry(id).or_default();
        taken.first = Some(taken.first.map_or(one.received_at, |first| first.min(one.received_at)));
        taken.webhook_ids.insert(&one.webhook_id);
    }
    all
}

fn duplicates(received: &[Received]) -> usize {
    let mut seen = HashSet::new();
    received.iter().filter(|one| one.is_taken() && !seen.insert(one.webhook_id.as_str())).count()
}

fn why(sent: &Sent) -> String {
    match (sent.status, &sent.error) {
        (Some(status), _) => status.to_string(),
        (None, Some(error)) => error.clone(),
        (None, None) => "no answer".to_owned(),
    }
}

fn among<K: fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let each: Vec<_> = counts.iter().map(|(key, count)| format!("{key}: {count}")).collect();
    format!(" ({})", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &str, status: Option<u16>) -> Sent {
        let (id, event) = (id.to_owned(), "PostSignIn".to_owned());
        let error = status.is_none().then(|| "Connection refused".to_owned());
        Sent { id, event, made_at: 1000, took_milliseconds: 1, status, error }
    }

    fn received(id: &str, webhook_id: &str, received_at: i64, status: u16) -> Received {
        let (event, webhook_id) = ("PostSignIn".to_owned(), webhook_id.to_owned());
        Received { id: Some(id.to_owned()), event, webhook_id, made_at: Some(1000), received_at, status }
    }

    #[test]
    fn an_acknowledged_event_that_no_receiver_took_is_lost() {
        let sent = [sent("a", Some(200)), sent("b", Some(200)), sent("c", Some(503)), sent("d", None)];
        let received = [
            received("a", "msg_a", 1009, 503),
            received("a", "msg_a", 1500, 204),
            received("a", "msg_a", 1600, 204),
            received("b", "msg_b", 1002, 401),
            received("d", "msg_d", 1004, 204),
        ];
        let verdict = Verdict::of(&sent, &received);
        assert_eq!(verdict.lost, BTreeSet::from(["b".to_owned()]));
        assert_eq!((verdict.acknowledged, verdict.arrived, verdict.arrived_unacknowledged), (2, 1, 1));
        assert_eq!((verdict.duplicates, verdict.under_several_ids), (1, 0));
        assert_eq!(verdict.turned_away, BTreeMap::from([(401, 1), (503, 1)]));
        let refused = [("503".to_owned(), 1), ("Connection refused".to_owned(), 1)];
        assert_eq!(verdict.refused, BTreeMap::from(refused));
        assert_eq!(verdict.conclude().unwrap_err(), "1 of 2 acknowledged events are lost");
    }

    #[test]
    fn lag_ends_when_an_event_is_first_taken() {
        let all: Vec<_> = (0..100).map(|nth| sent(&nth.to_string(), Some(200))).collect();
        let mut came: Vec<_> = (0..100_i64)
            .map(|nth| received(&nth.to_string(), &format!("msg_{nth}"), 1001 + nth, 204))
            .collect();
        came.push(received("99", "msg_99", 9000, 204));
        let verdict = Verdict::of(&all, &came);
        let expected = Lag { p50_milliseconds: 50, p99_milliseconds: 99, max_milliseconds: 100 };
        assert_eq!((verdict.lag.as_ref(), verdict.conclude()), (Some(&expected), Ok(())));
        assert!(verdict.to_string().contains("p50 50 ms, p99 99 ms, max 100 ms"), "{verdict}");
    }

    #[test]
    fn an_event_under_two_webhook_ids_is_told() {
        let verdict = Verdict::of(
            &[sent("a", Some(200))],
            &[received("a", "m1", 1001, 204), received("a", "m2", 1002, 204)],
        );
        assert_eq!((verdict.under_several_ids, verdict.duplicates), (1, 0));
    }

    #[test]
    fn where_nothing_was_acknowledged_nothing_is_proven() {
        assert!(Verdict::of(&[], &[]).conclude().is_err());
        assert!(Verdict::of(&[sent("a", Some(503))], &[]).conclude().is_err());
    }
}
