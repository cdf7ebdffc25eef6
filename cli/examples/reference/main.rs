//! Writes `docs/reference.md` from the code: `cargo run -p tidings-cli --example reference`.
//!
//! ```text
//! reasons, words, definitions, metrics -> sections -> one page
//! ```
//!
//! Nothing is said here that the code could say: a meaning belongs to its variant, a description to its field.

mod metrics;
mod objects;
mod table;
mod words;

use std::path::Path;

const HEAD: &str = "\
# Reference

Every word, column, field and number that Tidings shows, what it means and what to do about it. Search this page for
the word that you see.

<!-- Generated from the code by `cargo run -p tidings-cli --example reference`; do not edit. -->

| you see | look at |
|---|---|
| a condition that is not `True`, a Kubernetes Event, a line of `tidings lint` | [Reasons](#reasons) |
| `lastFailure.reason`, an `outcome` in `/deliveries` or in the metrics, a dead letter | [Deliveries that fail](#deliveries-that-fail) |
| the auth server's hook gets 4xx or 503 | [Events that are refused](#events-that-are-refused) |
| a column of `kubectl get` | [Columns](#columns) |
| a name that begins with `tidings_` | [Metrics](#metrics) |
| a field of a manifest or of a status | [Fields](#fields) |
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = path();
    std::fs::write(&path, page()?)?;
    println!("{}", path.display());
    Ok(())
}

/// Where the page stands.
fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md")
}

fn page() -> Result<String, Box<dyn std::error::Error>> {
    let definitions = tidings_crds::definitions().map(serde_json::to_value);
    let definitions = definitions.into_iter().collect::<Result<Vec<_>, _>>()?;
    let sections = [
        HEAD.to_owned(),
        words::reasons(),
        words::deliveries(),
        words::refusals(),
        objects::columns(&definitions),
        metrics::section()?,
        objects::fields(&definitions),
    ];
    Ok(sections.join("\n"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_what_the_code_says() {
        let committed = std::fs::read_to_string(super::path()).unwrap_or_default();
        let stale = committed != super::page().unwrap();
        assert!(!stale, "docs/reference.md is stale: cargo run -p tidings-cli --example reference");
    }
}
