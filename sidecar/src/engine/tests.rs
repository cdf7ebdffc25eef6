use tempfile::TempDir;
use tidings_store::{Settings, SqliteStore};

use super::*;

#[tokio::test]
async fn a_task_that_panics_ends_the_engine_and_is_named() {
    let folder = TempDir::new().unwrap();
    let settings = Settings { dir: folder.path().to_owned(), min_free_bytes: 0, ..Settings::default() };
    let engine = Engine::start(Arc::new(SqliteStore::open(settings).unwrap()), Vec::new()).unwrap();
    engine.fatal.watch("the lane of shop/mail", async { panic!("this panic is part of the test") });
    let error = tokio::time::timeout(Duration::from_mins(1), engine.run_until_failure()).await.unwrap();
    assert!(error.to_string().starts_with("the lane of shop/mail panicked"), "{error}");
}
