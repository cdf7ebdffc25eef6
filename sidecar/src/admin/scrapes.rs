//! The page of metrics: rendered by one at a time, beside the workers that take events, and at most once a
//! second however many scrape it. With thousands of Webhooks a page takes a while.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidings_store::Store;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::front::Surface;

/// How long a page is shown.
const SHOWN_FOR: Duration = Duration::from_secs(1);

/// The last page.
#[derive(Debug, Default)]
pub(crate) struct Scrapes(Mutex<Option<(Instant, Bytes)>>);

/// The page as it was at most a second ago; `None` when it cannot be rendered.
pub(super) async fn page<S: Store>(surface: &Arc<Surface<S>>) -> Option<Bytes> {
    let mut last = surface.scrapes.0.lock().await;
    if let Some((_, page)) = last.as_ref().filter(|(rendered, _)| rendered.elapsed() < SHOWN_FOR) {
        return Some(page.clone());
    }
    let of = Arc::clone(surface);
    let rendering = tokio::task::spawn_blocking(move || of.metrics());
    let page = Bytes::from(rendering.await.ok()?.ok()?);
    *last = Some((Instant::now(), page.clone()));
    Some(page)
}
