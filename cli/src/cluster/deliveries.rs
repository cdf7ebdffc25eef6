//! `tidings deliveries`: the recent attempts of a Webhook, of all sidecars by time, and those to come.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::connect::Failure;
use super::sidecars::{Answer, Target, those_that_answered};
use super::{ListOutput, SidecarArguments, put, time_of};
use crate::table;

/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After how many looks sidecars are looked for again.
const FIND_AGAIN: u32 = 10;

const HEADINGS: [&str; 8] =
    ["TIME", "EVENT", "ATTEMPT", "OUTCOME", "CODE", "DURATION", "WEBHOOK-ID", "SIDECAR"];

/// While lines come one by one, the columns have to be wide enough beforehand.
const WIDTHS: [usize; 8] = [24, 31, 7, 16, 4, 8, 36, 7];

/// Shows the recent attempts of a Webhook, the newest last.
///
/// Each sidecar keeps the last 50 attempts of each Webhook in memory; here they are merged by time. No
/// body, no header and no URL is among them.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES\n  \
    tidings deliveries welcome-mail -n shop\n  \
    tidings deliveries welcome-mail -n shop --watch\n  \
    tidings deliveries shop/welcome-mail --admin http://127.0.0.1:8788    without a cluster\n  \
    tidings deliveries welcome-mail -o json | jq '.deliveries[] | select(.outcome != \"Delivered\")'\n\n\
    EXIT CODES\n  0  every sidecar answered, or --watch was ended with Ctrl-C\n  1  a sidecar did not answer, or nothing could be asked\n  2  bad usage")]
pub(crate) struct Arguments {
    /// The Webhook: NAME or NAMESPACE/NAME.
    #[arg(value_name = "WEBHOOK")]
    webhook: String,
    /// Goes on with each new attempt until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
    /// How they are printed; JSON with --watch is one object a line.
    #[arg(short, long, value_enum, default_value_t = ListOutput::Table)]
    output: ListOutput,
    #[command(flatten)]
    sidecars: SidecarArguments,
}

/// A sidecar's page.
#[derive(Debug, Deserialize)]
struct Page {
    deliveries: Vec<Attempted>,
}

/// One attempt, as a sidecar lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempted {
    time_ms: i64,
    event: String,
    webhook_id: String,
    attempt: u32,
    outcome: String,
    status_code: Option<u16>,
    duration_milliseconds: u64,
}

/// One attempt, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    sidecar: String,
    attempted: Attempted,
}

/// What is printed of an attempt as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    time: String,
    event: &'a str,
    attempt: u32,
    outcome: &'a str,
    status_code: Option<u16>,
    duration_milliseconds: u64,
    webhook_id: &'a str,
    sidecar: &'a str,
}

/// What was printed already: for each sidecar its last page, so that it does not grow.
#[derive(Debug, Default)]
struct Seen(HashSet<(String, String, u32, i64)>);

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    super::run("deliveries", async {
        let target = Target::find(&arguments.webhook, &arguments.sidecars).await?;
        if !arguments.watch {
            return once(&target, arguments.output).await;
        }
        tokio::select! {
            result = watch(target, arguments.output) => result,
            _ = tokio::signal::ctrl_c() => Ok(true),
        }
    })
}

async fn once(target: &Target, output: ListOutput) -> Result<bool, Failure> {
    let (pages, complete) = those_that_answered("deliveries", target.ask_all("/deliveries").await)?;
    let lines = merged(pages);
    match output {
        ListOutput::Json => {
            let list: Vec<_> = lines.iter().map(Line::printed).collect();
            put(&format!("{:#}\n", json!({ "webhook": target.webhook.to_string(), "deliveries": list })));
        }
        ListOutput::Table if lines.is_empty() => {
            eprintln!("nothing was attempted since the sidecars of {} started", target.webhook);
        }
        ListOutput::Table => {
            let columns = columns(target.has_many());
            let rows = lines.iter().map(|line| line.cells()[..columns].to_vec());
            let headings = HEADINGS[..columns].iter().map(ToString::to_string).collect();
            put(&table::of(&std::iter::once(headings).chain(rows).collect::<Vec<_>>()));
        }
    }
    Ok(complete)
}

/// Prints what is new, for ever. A sidecar that does not answer is told once, and asked again.
async fn watch(mut target: Target, output: ListOutput) -> Result<bool, Failure> {
    let (mut seen, mut told) = (Seen::default(), HashSet::new());
    let (pages, _) = those_that_answered("deliveries", target.ask_all("/deliveries").await)?;
    let mut many = target.has_many();
    if output == ListOutput::Table {
        put(&table::line(
            &HEADINGS[..columns(many)].iter().map(ToString::to_string).collect::<Vec<_>>(),
            &WIDTHS,
        ));
    }
    print(&seen.new_ones(merged(pages)), output, many);
    for look in 1_u32.. {
        tokio::time::sleep(LOOK_EVERY).await;
        if look.is_multiple_of(FIND_AGAIN) {
            target.refresh().await;
        }
        let mut pages = Vec::new();
        for Answer { sidecar, result } in target.ask_all("/deliveries").await {
            match result {
                Ok(page) => {
                    told.remove(&sidecar);
                    pages.push((sidecar, page));
                }
                Err(failure) => {
                    if told.insert(sidecar.clone()) {
                        eprintln!("sidecar {sidecar}: {failure}; it is asked again");
                    }
                }
            }
        }
        many = many || target.has_many();
        print(&seen.new_ones(merged(pages)), output, many);
    }
    Ok(true)
}

fn columns(many: bool) -> usize {
    if many { HEADINGS.len() } else { HEADINGS.len() - 1 }
}

fn print(lines: &[Line], output: ListOutput, many: bool) {
    let columns = columns(many);
    let text: String = match output {
        ListOutput::Table => {
            lines.iter().map(|line| table::line(&line.cells()[..columns], &WIDTHS)).collect()
        }
        ListOutput::Json => lines.iter().map(|line| json!(line.printed()).to_string() + "\n").collect(),
    };
    if !text.is_empty() {
        put(&text);
    }
}

/// All attempts by time.
fn merged(pages: Vec<(String, Page)>) -> Vec<Line> {
    let mut lines: Vec<_> = pages
        .into_iter()
        .flat_map(|(sidecar, page)| {
            page.deliveries.into_iter().map(move |attempted| Line { sidecar: sidecar.clone(), attempted })
        })
        .collect();
    // Stable: within a sidecar the order is its own.
    lines.sort_by_key(|line| line.attempted.time_ms);
    lines
}

// === impl Line ===

impl Line {
    fn cells(&self) -> [String; 8] {
        let Self {
            sidecar,
            attempted:
                Attempted { time_ms, event, webhook_id, attempt, outcome, status_code, duration_milliseconds },
        } = self;
        [
            time_of(*time_ms),
            event.clone(),
            attempt.to_string(),
            outcome.clone(),
            status_code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
            format!("{duration_milliseconds}ms"),
            webhook_id.clone(),
            sidecar.clone(),
        ]
    }

    fn printed(&self) -> Printed<'_> {
        let Self { sidecar, attempted } = self;
        Printed {
            time: time_of(attempted.time_ms),
            event: &attempted.event,
            attempt: attempted.attempt,
            outcome: &attempted.outcome,
            status_code: attempted.status_code,
            duration_milliseconds: attempted.duration_milliseconds,
            webhook_id: &attempted.webhook_id,
            sidecar,
        }
    }
}

// === impl Seen ===

impl Seen {
    /// Those that were not there before.
    fn new_ones(&mut self, lines: Vec<Line>) -> Vec<Line> {
        let id = |line: &Line| {
            let Attempted { webhook_id, attempt, time_ms, .. } = &line.attempted;
            (line.sidecar.clone(), webhook_id.clone(), *attempt, *time_ms)
        };
        let answered: HashSet<_> = lines.iter().map(|line| line.sidecar.clone()).collect();
        let now: HashSet<_> = lines.iter().map(id).collect();
        let new = lines.into_iter().filter(|line| !self.0.contains(&id(line))).collect();
        // What a silent sidecar had listed is not new when it answers again.
        self.0.retain(|(sidecar, ..)| !answered.contains(sidecar));
        self.0.extend(now);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(times: &[i64]) -> Page {
        let deliveries = times.iter().map(|&time_ms| Attempted {
            time_ms,
            event: "PostSignIn".to_owned(),
            webhook_id: format!("msg_{time_ms}"),
            attempt: 1,
            outcome: "Delivered".to_owned(),
            status_code: Some(200),
            duration_milliseconds: 3,
        });
        Page { deliveries: deliveries.collect() }
    }

    fn times(lines: &[Line]) -> Vec<i64> {
        lines.iter().map(|line| line.attempted.time_ms).collect()
    }

    #[test]
    fn attempts_of_several_sidecars_are_merged_by_time() {
        let lines = merged(vec![("a".to_owned(), page(&[1, 4])), ("b".to_owned(), page(&[2, 3]))]);
        assert_eq!(times(&lines), [1, 2, 3, 4]);
        assert_eq!(lines[1].cells()[7], "b");
    }

    #[test]
    fn what_was_shown_is_not_shown_again_even_after_a_sidecar_was_silent() {
        let mut seen = Seen::default();
        let both = || vec![("a".to_owned(), page(&[1])), ("b".to_owned(), page(&[2]))];
        assert_eq!(times(&seen.new_ones(merged(both()))), [1, 2]);
        assert_eq!(times(&seen.new_ones(merged(vec![("a".to_owned(), page(&[1, 3]))]))), [3]);
        assert_eq!(times(&seen.new_ones(merged(both()))), Vec::<i64>::new());
    }

    #[test]
    fn the_page_of_a_sidecar_of_another_age_is_read() {
        let page: Page = serde_json::from_str(
            r#"{"webhook":"shop/mail","new":1,"deliveries":[{"timeMs":1,"event":"A","webhookId":"msg_1","attempt":2,"outcome":"Timeout","statusCode":null,"durationMilliseconds":15000,"more":true}]}"#,
        )
        .unwrap();
        let cells = merged(vec![("a".to_owned(), page)])[0].cells();
        assert_eq!(cells[..6], ["1970-01-01T00:00:00.001Z", "A", "2", "Timeout", "-", "15000ms"]);
    }
}
