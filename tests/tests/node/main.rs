//! Tidings on a real node: the charts installed by helm, pods that run, and what is asked of them at three in the
//! morning. Each module is a subject.
//!
//!     tests/node/run
//!
//! Every test finds the charts installed as [`stage`] installs them, and works in namespaces of its own; what it
//! changes of what belongs to all it puts back. They run one after another.

mod broken;
mod ends;
mod injected;
mod ledgers;
mod objects;
mod quick_start;
mod releases;
mod rolling;
mod shell;
mod stage;
mod two_pods;
