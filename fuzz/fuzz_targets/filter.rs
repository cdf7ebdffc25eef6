//! A filter and an event: the expression on the first line, the body after it.
//!
//! Whatever is compiled ends, in true, in false or in an error that shows nothing of the body.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use tidings_plan::Filter;

/// More than any filter may take, instrumented and on a busy machine.
const LONG: Duration = Duration::from_secs(5);

fuzz_target!(
    // The expression library may panic, which the filter turns into an error; libFuzzer's own hook would end
    // the process at once. A panic that comes out of the filter is found all the same.
    init: std::panic::set_hook(Box::new(|info| eprintln!("{info}"))),
    |text: &str| {
        let (expression, body) = text.split_once('\n').unwrap_or((text, "{}"));
        let began = Instant::now();
        if let Ok(filter) = Filter::compile(expression) {
            let _ = filter.accepts(body.as_bytes());
        }
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    }
);
