//! Reasons, failures and refusals.

use tidings_operator::reason::{Place, Reason};
use tidings_sidecar::dial::{FailureReason, Phase};
use tidings_sidecar::lane::book::LostReason;
use tidings_sidecar::receive::Refusal;
use tidings_sidecar::schedule::Verdict;

use crate::table::{code, prose, table};

/// The reasons, by their words.
pub(crate) fn reasons() -> String {
    let mut all = Reason::ALL.to_vec();
    all.sort_by_key(|one| one.reason.as_str());
    let places = |places: &[Place]| {
        let looked_at = Place::ALL.into_iter().filter(|place| places.contains(place));
        looked_at.map(Place::as_str).collect::<Vec<_>>().join(", ")
    };
    let rows = all
        .iter()
        .map(|one| [code(one.reason.as_str()), prose(one.meaning), prose(one.way_out), places(one.places)]);
    format!(
        "## Reasons\n\nThe `reason` of a condition; `Ready` repeats the first that keeps it from `True`, and its message names the \
         field.\n\n{}\nWhere they stand:\n\n{}",
        table(["reason", "what it means", "what to do", "stands in"], rows),
        table(
            ["place", "what it is"],
            Place::ALL.map(|place| [place.as_str().to_owned(), about(place).to_owned()])
        ),
    )
}

fn about(place: Place) -> &'static str {
    match place {
        Place::Ready => {
            "Condition: the configuration is in order and runs. A receiver that is down does not change it; wait on this one in a pipeline."
        }
        Place::Accepted => "Condition: the spec is in order.",
        Place::ResolvedRefs => "Condition of a Webhook or an AuthServer: what the spec refers to is there.",
        Place::Programmed => "Condition: every ready sidecar runs it.",
        Place::Receiving => {
            "Condition of an AuthServer: the store of every sidecar takes events. It does not count for `Ready`, which is of the configuration."
        }
        Place::Stalled => {
            "Condition: nothing goes on before a person changes something; there is none otherwise. What may yet come by itself, such as a Secret or an AuthServer, is waited for."
        }
        Place::Delivering => {
            "Condition of a Webhook: the endpoint takes what is sent; `Unknown` before the first and while suspended."
        }
        Place::Complete => "Condition of a WebhookReplay: the whole window was gone through.",
        Place::Warning => {
            "The message of an `Accepted` that is `True`: worth knowing, and nothing is kept from working."
        }
        Place::Event => "A Kubernetes Event of a Webhook: `kubectl describe` shows it.",
        Place::Lint => "A finding of `tidings lint` and `tidings dev`.",
    }
}

/// Why deliveries fail, and what becomes of them.
pub(crate) fn deliveries() -> String {
    let status = [
        code("HttpStatus"),
        "The endpoint answered, and not with 2xx.".to_owned(),
        "Look at the receiver's log at the time of `lastFailure`; what its status means is below.".to_owned(),
    ];
    let failures =
        FailureReason::ALL.iter().map(|word| explained(word.as_str(), word.meaning(), word.way_out()));
    let lost = LostReason::ALL.iter().map(|word| explained(word.as_str(), word.meaning(), word.way_out()));
    let phases = Phase::ALL.iter().map(|word| explained(word.as_str(), word.meaning(), word.way_out()));
    format!(
        "## Deliveries that fail\n\n{}\nHow far an attempt came, its `phase`:\n\n{}\nWhat an answer's status means:\n\n{}",
        table(["reason", "what it means", "what to do"], std::iter::once(status).chain(failures).chain(lost)),
        table(["phase", "while", "what to do"], phases),
        table(["status", "what becomes of the event"], statuses()),
    )
}

fn explained(word: &str, meaning: &str, way_out: &str) -> [String; 3] {
    [code(word), prose(meaning), prose(way_out)]
}

/// Statuses by verdict, as the schedule itself judges them.
fn statuses() -> Vec<[String; 2]> {
    let verdicts: Vec<_> = (200..=599).map(|code| (code, Verdict::of_status(code, None))).collect();
    let mut rows: Vec<(Verdict, Vec<String>)> = Vec::new();
    for run in verdicts.chunk_by(|(_, a), (_, b)| a == b) {
        let (Some((first, verdict)), Some((last, _))) = (run.first(), run.last()) else { continue };
        let span = if first == last { first.to_string() } else { format!("{first} to {last}") };
        match rows.iter_mut().find(|(of, _)| of == verdict) {
            Some((_, spans)) => spans.push(span),
            None => rows.push((*verdict, vec![span])),
        }
    }
    rows.into_iter().map(|(verdict, spans)| [spans.join(", "), becomes(verdict).to_owned()]).collect()
}

fn becomes(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Taken => "Delivered.",
        Verdict::Again { .. } => {
            "Tried again with growing waits, `Retry-After` honoured up to an hour; failures in a row open the circuit."
        }
        Verdict::SlowDown { .. } => {
            "Tried again the same way. Nothing more is sent for as long as `Retry-After` asks for, or for about the first wait; it opens no circuit."
        }
        Verdict::Later => {
            "Tried again too, but slower: receivers answer so while they roll out. The circuit stays closed."
        }
        Verdict::Gone => "Nothing more is sent until the Webhook is changed; its events wait.",
    }
}

/// Why events are refused.
pub(crate) fn refusals() -> String {
    let rows = Refusal::ALL.iter().map(|word| {
        let [name, meaning, way_out] = explained(word.as_str(), word.meaning(), word.way_out());
        [name, word.status().as_u16().to_string(), meaning, way_out]
    });
    format!(
        "## Events that are refused\n\nThe answers of the sidecar's events port other than 200: the `reason` stands in the answer, the log \
         and `tidings_events_refused_total`. What was refused is not stored, and Logto does not send it again.\n\n{}",
        table(["reason", "status", "what it means", "what to do"], rows)
    )
}
