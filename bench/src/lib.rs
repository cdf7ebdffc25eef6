//! Benchmarks; each is a program in `src/bin`. What several of them need is here.

#![expect(clippy::missing_panics_doc, reason = "a bench that cannot go on ends")]

pub mod load;
pub mod sink;
