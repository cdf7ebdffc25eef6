//! A cold start: everything is there before the operator is.

use std::time::Instant;

use crate::cluster::{Cluster, Shape};
use crate::processes::Processes;
use crate::{print, ratio};

/// The most memory that the operator may take with 10,000 Webhooks.
const LIMIT_MIB: u64 = 200;

pub(crate) async fn run(cluster: &Cluster, webhooks: usize) {
    let receiver = "127.0.0.1:9".parse().expect("an address");
    let shape = Shape { webhooks, namespaces: 100.min(webhooks), events: 100, receiver };
    let made = cluster.create(shape).await;
    let mut watch = cluster.watch();
    let began = Instant::now();
    let processes = Processes::start(cluster).await;
    let took = watch.all(webhooks).await - began;
    print(
        &format!("cold start: {webhooks} Webhooks Programmed after"),
        &format!("{:.1} s", took.as_secs_f64()),
        &format!(
            "{:.2} of the {:.1} s that making them took; under 120 s",
            took.as_secs_f64() / made.as_secs_f64(),
            made.as_secs_f64()
        ),
    );
    let cost = processes.settled().await;
    let (operator, sidecar) = processes.peaks();
    let kib = |bytes: u64| ratio(bytes, webhooks * 1024);
    print(
        "cold start: operator's memory at its peak",
        &format!("{:.0} MiB", ratio(operator, 1 << 20)),
        &format!("{:.1} KiB for a Webhook; under {LIMIT_MIB} MiB", kib(operator)),
    );
    print(
        "cold start: sidecar's memory at its peak",
        &format!("{:.0} MiB", ratio(sidecar, 1 << 20)),
        &format!("{:.1} KiB for a Webhook", kib(sidecar)),
    );
    for (method, count) in &cost.requests {
        print(
            &format!("cold start: operator's requests, {method}"),
            &count.to_string(),
            &format!("{:.3} for a Webhook", ratio(*count, webhooks)),
        );
    }
    print(
        "cold start: writes of operator and sidecar",
        &cost.written().to_string(),
        &format!("for a Webhook: {}", cost.each(webhooks)),
    );
    processes.end().await;
}
