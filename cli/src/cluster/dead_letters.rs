//! `tidings deadletters`: the events that were given up.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::connect::Failure;
use super::sidecars::{Target, those_that_answered};
use super::{ListOutput, SidecarArguments, put, time_of};
use crate::{program, table};

/// Lists the events of a Webhook that were given up, the newest last.
///
/// An event is given up when its endpoint refused it for the whole time that the Webhook's retry allows,
/// three days by default. It stays in the sidecar's store within retention, and `tidings replay --failed`
/// delivers it again. At most a thousand of each sidecar are listed.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES\n  \
    tidings deadletters welcome-mail -n shop\n  \
    tidings deadletters shop/welcome-mail --admin http://127.0.0.1:8788    without a cluster\n\n\
    EXIT CODES\n  0  every sidecar answered, whether there are any or not\n  1  a sidecar did not answer, or nothing could be asked\n  2  bad usage")]
pub(crate) struct Arguments {
    /// The Webhook: NAME or NAMESPACE/NAME.
    #[arg(value_name = "WEBHOOK")]
    webhook: String,
    /// How they are printed.
    #[arg(short, long, value_enum, default_value_t = ListOutput::Table)]
    output: ListOutput,
    #[command(flatten)]
    sidecars: SidecarArguments,
}

/// A sidecar's page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    dead_letters: Vec<Letter>,
}

/// One event that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Letter {
    seq: u64,
    name: String,
    attempts: u32,
    #[serde(alias = "at_ms")]
    at_ms: i64,
    reason: String,
    #[serde(alias = "status_code")]
    status_code: Option<u16>,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    super::run("deadletters", async {
        let target = Target::find(&arguments.webhook, &arguments.sidecars).await?;
        list(&target, arguments.output).await
    })
}

async fn list(target: &Target, output: ListOutput) -> Result<bool, Failure> {
    let (pages, complete) = those_that_answered("deadletters", target.ask_all("/deadletters").await)?;
    let letters = merged(pages);
    match output {
        ListOutput::Json => {
            let list: Vec<_> = letters.iter().map(|(sidecar, letter)| printed(sidecar, letter)).collect();
            put(&format!("{:#}\n", json!({ "webhook": target.webhook.to_string(), "deadLetters": list })));
        }
        ListOutput::Table if letters.is_empty() => eprintln!("no event of {} was given up", target.webhook),
        ListOutput::Table => {
            put(&table::of(&rows(&letters, target.has_many())));
            eprintln!(
                "deliver them again: {} replay {} -n {} --failed --since 7d",
                program(),
                target.webhook.name,
                target.webhook.namespace
            );
        }
    }
    Ok(complete)
}

fn merged(pages: Vec<(String, Page)>) -> Vec<(String, Letter)> {
    let mut letters: Vec<_> = pages
        .into_iter()
        .flat_map(|(sidecar, page)| {
            page.dead_letters.into_iter().map(move |letter| (sidecar.clone(), letter))
        })
        .collect();
    letters.sort_by_key(|(_, letter)| (letter.at_ms, letter.seq));
    letters
}

fn rows(letters: &[(String, Letter)], many: bool) -> Vec<Vec<String>> {
    let headings = ["GIVEN-UP", "EVENT", "ATTEMPTS", "REASON", "CODE", "SIDECAR"].map(str::to_owned);
    let columns = if many { headings.len() } else { headings.len() - 1 };
    let row = |(sidecar, letter): &(String, Letter)| {
        let Letter { seq: _, name, attempts, at_ms, reason, status_code } = letter;
        [
            time_of(*at_ms),
            // One that was beyond its time before it could be tried again is known by its place alone.
            if name.is_empty() { "-".to_owned() } else { name.clone() },
            attempts.to_string(),
            reason.clone(),
            status_code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
            sidecar.clone(),
        ]
    };
    std::iter::once(headings).chain(letters.iter().map(row)).map(|row| row[..columns].to_vec()).collect()
}

fn printed(sidecar: &str, letter: &Letter) -> serde_json::Value {
    let Letter { seq, name, attempts, at_ms, reason, status_code } = letter;
    json!({
        "time": time_of(*at_ms), "event": name, "attempts": attempts, "reason": reason,
        "statusCode": status_code, "seq": seq, "sidecar": sidecar,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_listed_by_time_with_their_sidecar_where_there_are_more() {
        let page = |at: i64| -> Page {
            let text = format!(
                r#"{{"webhook":"shop/mail","deadLetters":[{{"seq":7,"name":"A","attempts":9,"at_ms":{at},"reason":"HttpStatus","status_code":500}}]}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let letters = merged(vec![("b".to_owned(), page(2000)), ("a".to_owned(), page(1000))]);
        let rows = rows(&letters, true);
        assert_eq!(rows[1], ["1970-01-01T00:00:01.000Z", "A", "9", "HttpStatus", "500", "a"]);
        assert_eq!(super::rows(&letters, false)[2].len(), 5);
    }
}
