//! A thousand deliveries a second, and what the API server has of it.

use std::time::Instant;

use tidings_bench::load::Load;
use tidings_bench::sink::Sink;

use crate::cluster::{Cluster, Shape};
use crate::print;
use crate::processes::Processes;

const WEBHOOKS: usize = 100;

/// Each is selected by as many Webhooks as there are to one of them.
const EVENTS: usize = 10;

const EVENTS_PER_SECOND: u32 = 100;

pub(crate) async fn run(cluster: &Cluster, seconds: u32) {
    let sink = Sink::start().await;
    let shape = Shape { webhooks: WEBHOOKS, namespaces: 10, events: EVENTS, receiver: sink.address };
    cluster.create(shape).await;
    let mut watch = cluster.watch();
    let processes = Processes::start(cluster).await;
    watch.all(WEBHOOKS).await;
    processes.settled().await;
    let load = Load::of(processes.events(), shape.events());
    for (what, one_in) in [("all taken", 0), ("one in 50 fails", 50)] {
        sink.fail_one_in(one_in);
        let (before, count, began) = (processes.cost().await, sink.count(), Instant::now());
        load.pace(EVENTS_PER_SECOND, seconds).await;
        let (cost, took) = (processes.cost().await.since(&before), began.elapsed().as_secs_f64());
        let delivered = sink.count() - count;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let (deliveries, writes) = (delivered as f64, cost.written_at_all() as f64);
        print(
            &format!("{:.0} deliveries/s, {what}: writes", deliveries / took),
            &format!("{:.1}/s", writes / took),
            &format!(
                "{:.4} for a delivery; a second: {}; under 20/s",
                writes / deliveries,
                cost.each(usize::try_from(seconds).expect("a count"))
            ),
        );
    }
    processes.end().await;
    cluster.remove(shape).await;
}
