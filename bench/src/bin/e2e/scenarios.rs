//! What is measured, each against a reference of the same run.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::Arguments;
use crate::sidecar::{Home, webhook};
use tidings_bench::load::Load;
use tidings_bench::sink::Sink;

type Scenario = for<'a> fn(&'a Arguments) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Every scenario, by name.
pub(crate) const ALL: [(&str, Scenario); 7] = [
    ("rate", |arguments| Box::pin(rate(arguments))),
    ("ten", |arguments| Box::pin(ten(arguments))),
    ("latency", |_| Box::pin(latency())),
    ("idle", |_| Box::pin(idle())),
    ("hang", |_| Box::pin(hang())),
    ("webhooks", |arguments| Box::pin(webhooks(arguments))),
    ("backlog", |arguments| Box::pin(backlog(arguments))),
];

fn print(figure: &str, measured: &str, against: &str) {
    println!("{figure:<52} {measured:>14}  {against}");
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// What the load generator reaches straight at the receiver.
async fn direct(arguments: &Arguments) -> f64 {
    let sink = Sink::start().await;
    let load = Load::to(sink.address);
    load.flood(arguments.events / 8, arguments.connections).await;
    let took = load.flood(arguments.events, arguments.connections).await;
    per_second(arguments.events, took)
}

/// Deliveries in a second, from the first event sent to the last one delivered.
async fn through(arguments: &Arguments, webhooks: usize) -> (f64, f64) {
    let sink = Sink::start().await;
    let plan = (0..webhooks).map(|at| webhook(&format!("w{at}"), "*", sink.address)).collect();
    let home = Home::with(plan);
    let sidecar = home.start().await;
    let load = Load::to(sidecar.events);
    let warm_up = arguments.events / 8;
    load.flood(warm_up, arguments.connections).await;
    sink.wait_for(warm_up * webhooks).await;
    let (began, before) = (Instant::now(), sink.count());
    let accepted = load.flood(arguments.events, arguments.connections).await;
    sink.wait_for(before + arguments.events * webhooks).await;
    (per_second(arguments.events * webhooks, began.elapsed()), per_second(arguments.events, accepted))
}

async fn rate(arguments: &Arguments) {
    let reference = direct(arguments).await;
    let (delivered, accepted) = through(arguments, 1).await;
    print("load straight to the receiver", &format!("{reference:.0}/s"), "the reference");
    print(
        "events accepted, one Webhook",
        &format!("{accepted:.0}/s"),
        &format!("{:.2} of the reference", accepted / reference),
    );
    print(
        "events end to end, one Webhook",
        &format!("{delivered:.0}/s"),
        &format!("{:.2} of the reference; at least 0.25", delivered / reference),
    );
}

async fn ten(arguments: &Arguments) {
    let reference = direct(arguments).await;
    let fewer = Arguments { events: arguments.events / 5, scenarios: Vec::new(), ..*arguments };
    let (delivered, _) = through(&fewer, 10).await;
    print("load straight to the receiver", &format!("{reference:.0}/s"), "the reference");
    print(
        "deliveries, ten Webhooks",
        &format!("{delivered:.0}/s"),
        &format!("{:.2} of the reference; at least 0.40", delivered / reference),
    );
}

/// The quantile of sorted times.
fn quantile(times: &[Duration], q: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = ((times.len() - 1) as f64 * q).round() as usize;
    times[at]
}

/// From sending an event to its arrival at the sink, sorted.
async fn paced(load: &Load, sink: &Sink, seconds: u32) -> Vec<Duration> {
    load.pace(200, 1).await;
    sink.wait_for(200).await;
    sink.take_times();
    let before = sink.count();
    let sent = load.pace(200, seconds).await;
    sink.wait_for(before + sent.len()).await;
    let mut times: Vec<_> =
        sink.take_times().into_iter().map(|(number, at)| at.duration_since(sent[number - 200])).collect();
    times.sort();
    times
}

async fn latency() {
    let sink = Sink::timed().await;
    let direct = paced(&Load::to(sink.address), &sink, 10).await;
    let sink = Sink::timed().await;
    let home = Home::with(vec![webhook("w", "*", sink.address)]);
    let sidecar = home.start().await;
    let through = paced(&Load::to(sidecar.events), &sink, 20).await;
    let sync = sync_time();
    for (q, name, limit) in [(0.5, "p50", "under 1 ms"), (0.99, "p99", "under 4 ms")] {
        let (with, without) = (quantile(&through, q), quantile(&direct, q));
        let added = with.saturating_sub(without);
        let against =
            format!("{} straight, fdatasync {}; {limit}", millis(without), millis(quantile(&sync, q)));
        print(&format!("latency added at 200 events/s, {name}"), &millis(added), &against);
    }
}

/// What this disk takes for an fdatasync of a small write, sorted.
fn sync_time() -> Vec<Duration> {
    use std::io::Write as _;
    let mut file = tempfile::tempfile_in("target/bench").expect("a file");
    let mut times: Vec<_> = (0..400)
        .map(|_| {
            file.write_all(&[0; 1024]).expect("a write");
            let began = Instant::now();
            file.sync_data().expect("a sync");
            began.elapsed()
        })
        .collect();
    times.sort();
    times
}

async fn idle() {
    let sink = Sink::start().await;
    let home = Home::with(vec![webhook("w", "*", sink.address)]);
    let sidecar = home.start().await;
    print("memory when idle", &mib(sidecar.settled_rss().await), "under 12 MiB");
    let load = Load::to(sidecar.events);
    load.flood(20_000, 64).await;
    sink.wait_for(20_000).await;
    print("memory after 20,000 events", &mib(sidecar.settled_rss().await), "");
}

/// The p99 of nine endpoints while the tenth answers, and while it does not.
async fn hang() {
    let mut sinks = Vec::new();
    for _ in 0..10 {
        sinks.push(Sink::timed().await);
    }
    let plan =
        sinks.iter().enumerate().map(|(at, sink)| webhook(&format!("w{at}"), "*", sink.address)).collect();
    let home = Home::with(plan);
    let sidecar = home.start().await;
    let load = Load::to(sidecar.events);
    let mut number = 0;
    let mut run = async |hangs: bool| {
        sinks[9].hang(hangs);
        let before: Vec<_> = sinks.iter().map(Sink::count).collect();
        let sent = load.pace(100, 15).await;
        let mut times = Vec::new();
        for (sink, before) in sinks.iter().zip(before).take(9) {
            sink.wait_for(before + sent.len()).await;
            times.extend(
                sink.take_times().into_iter().map(|(at, time)| time.duration_since(sent[at - number])),
            );
        }
        number += sent.len();
        times.sort();
        quantile(&times, 0.99)
    };
    run(false).await;
    let all_answer = run(false).await;
    let one_hangs = run(true).await;
    let ratio = one_hangs.as_secs_f64() / all_answer.as_secs_f64();
    print(
        "p99 of nine endpoints while the tenth hangs",
        &millis(one_hangs),
        &format!("{ratio:.2} of {} when all answer; at most 1.5", millis(all_answer)),
    );
}

async fn webhooks(arguments: &Arguments) {
    let mut rates = Vec::new();
    for count in [1, 10_000] {
        let sink = Sink::start().await;
        let mut plan = vec![webhook("w", "User.*", sink.address)];
        plan.extend(
            (1..count).map(|at| webhook(&format!("other{at}"), &format!("Role.X{at}"), sink.address)),
        );
        let home = Home::with(plan);
        let sidecar = home.start().await;
        let load = Load::to(sidecar.events);
        load.flood(arguments.events / 8, arguments.connections).await;
        sink.wait_for(arguments.events / 8).await;
        let began = Instant::now();
        load.flood(arguments.events, arguments.connections).await;
        sink.wait_for(arguments.events / 8 + arguments.events).await;
        rates.push(per_second(arguments.events, began.elapsed()));
        print(
            &format!("events end to end, one of {count} Webhooks selects"),
            &format!("{:.0}/s", rates[rates.len() - 1]),
            "",
        );
    }
    print("cost per event, 10,000 Webhooks against 1", &format!("{:.2}", rates[0] / rates[1]), "at most 1.3");
}

async fn backlog(arguments: &Arguments) {
    let sink = Sink::start().await;
    let (mut waiting, live) = (webhook("waiting", "*", sink.address), webhook("live", "None", sink.address));
    waiting.suspend = true;
    let home = Home::with(vec![waiting.clone(), live.clone()]);
    let sidecar = home.start().await;
    let load = Load::to(sidecar.events);
    let first = arguments.events;
    load.flood(first / 4, arguments.connections).await;
    let empty = per_second(first, load.flood(first, arguments.connections).await);
    load.flood(arguments.backlog.saturating_sub(first * 9 / 4), arguments.connections).await;
    let full = per_second(first, load.flood(first, arguments.connections).await);
    print("events accepted with an empty log", &format!("{empty:.0}/s"), "the reference");
    print(
        &format!("events accepted with {} undelivered", arguments.backlog),
        &format!("{full:.0}/s"),
        &format!("{:.2} of the cost when empty; at most 1.3", empty / full),
    );
    print("memory with that backlog", &mib(sidecar.settled_rss().await), "under 96 MiB");
    sidecar.kill().await;
    waiting.suspend = false;
    waiting.generation = 2;
    home.put(vec![waiting, live]);
    let began = Instant::now();
    let sidecar = home.start().await;
    sink.wait_for(1).await;
    print("first delivery after kill -9 and restart", &millis(began.elapsed()), "under 2000 ms");
    let (began, before) = (Instant::now(), sink.count());
    sink.wait_for(before + arguments.backlog / 4).await;
    let drained = per_second(sink.count() - before, began.elapsed());
    print("events delivered while it drains", &format!("{drained:.0}/s"), "");
    print("memory while it drains", &mib(sidecar.rss()), "under 96 MiB");
    sidecar.kill().await;
}
