//! `tidings replay`: makes a `WebhookReplay`, and follows it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tidings_crds::{
    ConditionStatus, LocalRef, REPLAY_TTL_SECONDS, ReplayOnly, WebhookReplay, WebhookReplaySpec,
    WebhookReplayStatus,
};
use tidings_plan::{EventPattern, ObjectName};

use super::connect::{Ask, Cluster, Failure, TIDINGS};
use super::sidecars::{get_webhook, object_name};
use super::{ClusterArguments, put};
use crate::moment::Moment;
use crate::program;

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After how many looks it is odd that nobody has taken up the replay.
const UNTAKEN: u32 = 15;

/// The most bytes of a name's beginning, so that what the API server adds fits into a label.
const NAME_BYTES: usize = 50;

/// Delivers events of the past to a Webhook once more, under their own ids.
///
/// It makes a `WebhookReplay` object, which the sidecars carry out; `kubectl get webhookreplays` shows how far
/// it is. Events keep their webhook-id, so that a receiver can drop what it has seen. By itself only events
/// that were given up are replayed.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_help = "EXAMPLES\n  \
    tidings replay welcome-mail -n shop --since 1h                           what was given up in the last hour\n  \
    tidings replay welcome-mail -n shop --since 2d --until 1d --all --dry-run   counts, and delivers nothing\n  \
    tidings replay welcome-mail -n shop --since 2026-01-31T12:00:00Z --events PostRegister,User.* --wait\n\n\
    EXIT CODES\n  0  the replay was made; with --wait, it is complete\n  1  it was not\n  2  bad usage")]
pub(crate) struct Arguments {
    /// The Webhook: NAME or NAMESPACE/NAME.
    #[arg(value_name = "WEBHOOK")]
    webhook: String,
    /// Events received from this time on: 90s, 15m, 1h or 2d ago, or an RFC 3339 time.
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    since: Moment,
    /// Events received before this time, written like --since [default: now].
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    until: Option<Moment>,
    /// Events of these names alone: exact names, a trailing wildcard, or * [default: all that the Webhook selects].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = event_name)]
    events: Vec<String>,
    /// Events that were given up; this is the default.
    #[arg(long, conflicts_with = "all")]
    failed: bool,
    /// All events, also those that were delivered.
    #[arg(long)]
    all: bool,
    /// Counts what would be replayed, and delivers nothing.
    #[arg(long)]
    dry_run: bool,
    /// The most events put in line in a second.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    rate: i32,
    /// Waits until the replay is complete.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    super::run("replay", async {
        let spec = arguments.spec(Timestamp::now())?;
        let cluster = Cluster::connect(&arguments.cluster).await?;
        let webhook = object_name(&arguments.webhook, &cluster.namespace, &arguments.cluster)?;
        get_webhook(&cluster, &webhook).await?;
        let replay = create(&cluster, &webhook, spec).await?;
        put(&format!("webhookreplay.tidings.dev/{replay} created\n", replay = replay.name));
        if arguments.wait {
            return wait(&cluster, &replay).await;
        }
        put(&format!("follow it: kubectl get webhookreplay {} -n {} -w\n", replay.name, replay.namespace));
        Ok(true)
    })
}

fn event_name(text: &str) -> Result<String, String> {
    EventPattern::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

async fn create(
    cluster: &Cluster,
    webhook: &ObjectName,
    spec: WebhookReplaySpec,
) -> Result<ObjectName, Failure> {
    let replays: Api<WebhookReplay> = Api::namespaced(cluster.client.clone(), &webhook.namespace);
    let beginning: String = webhook.name.chars().take(NAME_BYTES).collect();
    let spec = WebhookReplaySpec { webhook_ref: LocalRef { name: webhook.name.clone() }, ..spec };
    let metadata = ObjectMeta { generate_name: Some(format!("{beginning}-")), ..ObjectMeta::default() };
    let replay = WebhookReplay { metadata, spec, status: None };
    let ask = Ask::new("create", TIDINGS, "webhookreplays").within(&webhook.namespace);
    let made = replays.create(&PostParams::default(), &replay).await.map_err(|error| ask.failed(error))?;
    Ok(ObjectName::new(&webhook.namespace, made.metadata.name.unwrap_or_default()))
}

/// Follows a replay until it is complete; false where it was refused.
async fn wait(cluster: &Cluster, name: &ObjectName) -> Result<bool, Failure> {
    let replays: Api<WebhookReplay> = Api::namespaced(cluster.client.clone(), &name.namespace);
    let ask = || Ask::new("get", TIDINGS, "webhookreplays").within(&name.namespace).of(&name.name);
    let (mut shown, mut away) = (String::new(), false);
    for look in 1_u32.. {
        if look > 1 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let replay = match replays.get(&name.name).await.map_err(|error| ask().failed(error)) {
            Ok(replay) => replay,
            // The replay goes on without it.
            Err(failure @ Failure::Unreachable(_)) => {
                if !std::mem::replace(&mut away, true) {
                    eprintln!("{failure}; it is asked again");
                }
                continue;
            }
            Err(failure) => return Err(failure),
        };
        away = false;
        let status = replay.status.clone().unwrap_or_default();
        match progress(&replay.spec, &status) {
            Progress::Complete(text) => {
                put(&text);
                return Ok(true);
            }
            Progress::Refused(text) => {
                put(&text);
                return Ok(false);
            }
            Progress::UnderWay(text) if text != shown => {
                put(&text);
                shown = text;
            }
            Progress::UnderWay(_) => {}
        }
        // A status that nobody wrote yet speaks of generation -1.
        if look == UNTAKEN && status.observed_generation.is_none_or(|generation| generation < 0) {
            eprintln!(
                "nobody has taken it up yet: is the operator running? `{} doctor -n {}` tells",
                program(),
                name.namespace
            );
        }
    }
    Ok(false)
}

/// How far a replay is, in words.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    UnderWay(String),
    Complete(String),
    Refused(String),
}

fn progress(spec: &WebhookReplaySpec, status: &WebhookReplayStatus) -> Progress {
    let condition = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    if let Some(refused) = condition("Accepted").filter(|found| found.status == ConditionStatus::False) {
        return Progress::Refused(format!("refused: {}: {}\n", refused.reason, refused.message));
    }
    let WebhookReplayStatus { matched, replayed, oldest_available_time, .. } = status;
    let counts = if spec.dry_run {
        format!("{matched} events matched, none is delivered (dry run)")
    } else {
        format!("{matched} events matched, {replayed} put in line for delivery")
    };
    if condition("Complete").is_none_or(|found| found.status != ConditionStatus::True) {
        return Progress::UnderWay(format!("under way: {counts}\n"));
    }
    let gap = oldest_available_time.as_ref().map(|oldest| {
        format!("the window begins before the oldest event that is still stored: what was received before {oldest} is no longer there\n")
    });
    Progress::Complete(format!("complete: {counts}\n{}", gap.unwrap_or_default()))
}

// === impl Arguments ===

impl Arguments {
    /// What is asked for; the Webhook is named later.
    fn spec(&self, now: Timestamp) -> Result<WebhookReplaySpec, Failure> {
        let Self { webhook: _, since, until, events, failed: _, all, dry_run, rate, wait: _, cluster: _ } =
            self;
        let seen = |moment: Moment, flag: &str| {
            moment
                .seen_from(now)
                .ok_or_else(|| Failure::Usage(format!("{flag} is too long ago for any calendar")))
        };
        let from = seen(*since, "--since")?;
        let to = until.map(|until| seen(until, "--until")).transpose()?;
        if to.unwrap_or(now) <= from {
            let message = "the window is empty: --since has to be before --until, and before now";
            return Err(Failure::Usage(message.to_owned()));
        }
        Ok(WebhookReplaySpec {
            webhook_ref: LocalRef::default(),
            from: format!("{from:.3}"),
            to: to.map(|to| format!("{to:.3}")),
            events: events.clone(),
            only: if *all { ReplayOnly::All } else { ReplayOnly::Failed },
            dry_run: *dry_run,
            rate_per_second: *rate,
            ttl_seconds_after_finished: REPLAY_TTL_SECONDS,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tidings_crds::Condition;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, String> {
        let words = std::iter::once("replay").chain(line.split_whitespace());
        Alone::try_parse_from(words).map(|alone| alone.arguments).map_err(|error| error.to_string())
    }

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_window_is_written_as_times() {
        let spec = parse("mail --since 2h --until 30m --events PostSignIn,User.* --rate 7")
            .unwrap()
            .spec(now())
            .unwrap();
        assert_eq!(
            (spec.from.as_str(), spec.to.as_deref()),
            ("2026-01-31T10:00:00.000Z", Some("2026-01-31T11:30:00.000Z"))
        );
        assert_eq!(
            (spec.events, spec.only, spec.rate_per_second),
            (vec!["PostSignIn".to_owned(), "User.*".to_owned()], ReplayOnly::Failed, 7)
        );
        let spec = parse("mail --since 1d --all --dry-run").unwrap().spec(now()).unwrap();
        assert_eq!(
            (spec.to, spec.only, spec.dry_run, spec.rate_per_second),
            (None, ReplayOnly::All, true, 100)
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_is_made() {
        for (line, expected) in [
            ("mail --since soon", "write 90s, 15m, 1h or 2d"),
            ("mail", "--since"),
            ("mail --since 1h --all --failed", "cannot be used with"),
            ("mail --since 1h --rate 0", "0 is not in 1..=10000"),
            ("mail --since 1h --events User*", "User*"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        for line in ["mail --since 1h --until 2h", "mail --since 2026-02-01T00:00:00Z"] {
            assert!(matches!(parse(line).unwrap().spec(now()), Err(Failure::Usage(_))), "{line}");
        }
    }

    #[test]
    fn a_replays_end_is_told_in_words() {
        let condition = |kind: &str, status, reason: &str| Condition {
            type_: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message: "because".to_owned(),
            last_transition_time: String::new(),
            observed_generation: None,
        };
        let spec = WebhookReplaySpec::default();
        let mut status = WebhookReplayStatus { matched: 9, replayed: 4, ..WebhookReplayStatus::default() };
        assert_eq!(
            progress(&spec, &status),
            Progress::UnderWay("under way: 9 events matched, 4 put in line for delivery\n".to_owned())
        );
        status.conditions = vec![condition("Complete", ConditionStatus::True, "Complete")];
        status.oldest_available_time = Some("2026-01-31T00:00:00Z".to_owned());
        let Progress::Complete(text) = progress(&spec, &status) else { panic!("it is complete") };
        assert!(text.contains("what was received before 2026-01-31T00:00:00Z is no longer there"), "{text}");
        status.conditions = vec![condition("Accepted", ConditionStatus::False, "WebhookNotFound")];
        assert_eq!(
            progress(&spec, &status),
            Progress::Refused("refused: WebhookNotFound: because\n".to_owned())
        );
    }
}
