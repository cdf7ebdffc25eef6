//! The metrics, as a sidecar and an operator that have just begun show them.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tidings_operator::metrics::Metrics;
use tidings_plan::ObjectName;
use tidings_sidecar::sidecar::{Options, Sidecar};
use tidings_store::Settings;

use crate::table::{code, table};

/// The section.
pub(crate) fn section() -> Result<String, Box<dyn Error>> {
    Ok(format!(
        "## Metrics\n\nOf the sidecar, at `/metrics` of its admin port; `webhook_` ones have the labels `namespace` and `webhook`:\n\n{}\n\
         Of the operator, at `/metrics` of its admin port:\n\n{}",
        listed(&of_sidecar()?),
        listed(&of_operator()?),
    ))
}

/// A sidecar's, from its own admin port.
fn of_sidecar() -> Result<String, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options {
        listen: anywhere,
        admin_listen: anywhere,
        store: Settings { dir: folder.path().to_owned(), ..Settings::default() },
        ..Options::default()
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let sidecar = runtime.block_on(Sidecar::start(options))?;
    let mut connection = TcpStream::connect(sidecar.admin_address())?;
    connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    runtime.block_on(sidecar.run(std::future::ready(())))?;
    Ok(answer)
}

/// An operator's, each family told of once: one without a series is not shown.
fn of_operator() -> Result<String, Box<dyn Error>> {
    let metrics = Metrics::default();
    metrics.reconciled(Duration::ZERO, 0);
    metrics.requested("GET");
    metrics.wrote("secrets");
    metrics.published(true);
    metrics.plan(&ObjectName::new("auth", "logto"), 0, 0);
    metrics.status_written(true);
    Ok(metrics.encode()?)
}

/// Name, kind and help of each family of a scrape.
fn listed(scrape: &str) -> String {
    let kind_of = |name: &str| {
        let line = format!("# TYPE {name} ");
        scrape.lines().find_map(|one| one.strip_prefix(&line)).unwrap_or_default().to_owned()
    };
    let helps = scrape.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let rows = helps.map(|(name, help)| {
        let kind = kind_of(name);
        let shown = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        [code(&shown), kind, help.trim_end_matches('.').to_owned()]
    });
    table(["name", "kind", "what it counts"], rows)
}
