//! What ends the process: a store that fails, and a task of the engine that panics.
//!
//! In: tasks to watch, errors. Out: the first reason. A task that is watched must never end in a panic
//! without the process ending too: one Webhook, or all of them, would silently get nothing more.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tidings_store::StoreError;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Why the engine cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task panicked.
    #[error(
        "{task} panicked, which is an error in Tidings: start the process again, it goes on where it was, and report the panic above"
    )]
    Panicked {
        /// What the task does, and for which Webhook.
        task: String,
    },
}

/// Reports that the process must end, and why.
#[derive(Debug, Clone)]
pub struct Fatal(Arc<watch::Sender<Option<EngineError>>>);

// === impl Fatal ===

impl Fatal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Reports the first reason; later ones are its consequences.
    pub fn tell(&self, error: impl Into<EngineError>) {
        let error = error.into();
        self.0.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                *told = Some(error);
            }
            first
        });
    }

    /// Whether it was reported.
    pub fn is_told(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub(crate) async fn wait(&self) -> EngineError {
        let mut told = self.0.subscribe();
        match told.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(StoreError::Closed.into()),
            Err(_) => StoreError::Closed.into(),
        }
    }

    /// Starts a task whose panic ends the process. `task` is its name, as in "the lane of shop/mail".
    pub(crate) fn watch(
        &self,
        task: impl Into<String>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let (fatal, task) = (self.clone(), task.into());
        tokio::spawn(async move {
            // What a panic left half done is not looked at again: the process ends by it.
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                fatal.panicked(task);
            }
        })
    }

    /// The same for work that blocks.
    pub(crate) fn watch_blocking(
        &self,
        task: impl Into<String>,
        work: impl FnOnce() + Send + 'static,
    ) -> JoinHandle<()> {
        let (fatal, task) = (self.clone(), task.into());
        tokio::task::spawn_blocking(move || {
            if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
                fatal.panicked(task);
            }
        })
    }

    fn panicked(&self, task: String) {
        tracing::error!(task, "the task panicked: the process ends");
        self.tell(EngineError::Panicked { task });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_the_reason_and_one_that_ends_is_none() {
        let fatal = Fatal::new();
        fatal.watch("one that ends", async {}).await.unwrap();
        fatal.watch_blocking("another one", || {}).await.unwrap();
        assert!(!fatal.is_told());
        fatal.watch_blocking("the count", || panic!("this panic is part of the test")).await.unwrap();
        fatal.watch("the lane", async { panic!("this panic is part of the test") }).await.unwrap();
        assert!(fatal.is_told());
        let EngineError::Panicked { task } = fatal.wait().await else { panic!("it is another reason") };
        assert_eq!(task, "the count", "the first one");
    }
}
