//! Edits, one after another, from the request to the status.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Shape};
use crate::processes::{Cost, Processes};
use crate::{millis, print, quantile, ratio};

/// The fewest Webhooks that there are while one is edited.
const FEW: usize = 10;

/// What edits cost.
struct Edits {
    /// From the edit's sending to its answer, sorted.
    answered: Vec<Duration>,
    /// From the edit's sending until a watch tells that the new generation is Programmed, sorted.
    programmed: Vec<Duration>,
    cost: Cost,
}

pub(crate) async fn run(cluster: &Cluster, webhooks: usize, edits: usize) {
    let mut costs = Vec::new();
    for webhooks in [FEW, webhooks.max(FEW)] {
        let Edits { answered, programmed, cost } = measure(cluster, webhooks, edits).await;
        let reference = quantile(&answered, 50);
        for (percent, limit) in [(50, ""), (99, "; under 1000 ms")] {
            let took = quantile(&programmed, percent);
            print(
                &format!("edit among {webhooks}: sent until Programmed, p{percent}"),
                &millis(took),
                &format!(
                    "{:.0} times the edit's own answer, {}{limit}",
                    took.as_secs_f64() / reference.as_secs_f64(),
                    millis(reference),
                ),
            );
        }
        print(
            &format!("edit among {webhooks}: writes for an edit"),
            &format!("{:.2}", ratio(cost.written(), edits)),
            &cost.each(edits),
        );
        costs.push(ratio(cost.written(), edits));
    }
    print("edit: writes among many against few", &format!("{:.2}", costs[1] / costs[0]), "1.00");
}

async fn measure(cluster: &Cluster, webhooks: usize, edits: usize) -> Edits {
    let receiver = "127.0.0.1:9".parse().expect("an address");
    let shape = Shape { webhooks, namespaces: 10.min(webhooks), events: 10, receiver };
    cluster.create(shape).await;
    let mut watch = cluster.watch();
    let processes = Processes::start(cluster).await;
    watch.all(webhooks).await;
    let before = processes.settled().await;
    let (mut answered, mut programmed) = (Vec::new(), Vec::new());
    for number in 0..edits {
        let began = Instant::now();
        let (name, generation) = cluster.edit(shape, chosen(number, webhooks), number).await;
        answered.push(began.elapsed());
        programmed.push(watch.one(&name, generation).await - began);
    }
    let cost = processes.settled().await.since(&before);
    processes.end().await;
    cluster.remove(shape).await;
    answered.sort();
    programmed.sort();
    Edits { answered, programmed, cost }
}

/// One of so many, as if by chance, and the same in each run.
fn chosen(number: usize, of: usize) -> usize {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % of
}
