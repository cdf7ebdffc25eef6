//! A plan as it was published or kept, read by a program that may be older or newer than the one that wrote it.
//!
//! In: the document's bytes. Out: what this program understands of it, its name, and the document itself, so
//! that a newer program finds all of it again after a restart. It must never quote a value of the document: it
//! holds keys.
//!
//! # Versions
//! - A field that this program does not know is ignored. Where that would do harm, as with a field that
//!   forbids something, the writer names the field's feature in `requires`, of the plan or of the Webhook.
//! - A Webhook that requires what this program does not have, or that cannot be read, is left out under its
//!   name and with a reason ([`LeftOut`]); the others run. A plan that requires it as a whole is refused.
//! - `version` changes only for a shape that an older program cannot read at all.
//! - Nothing is compared with what a program would have written itself: checksums are of the bytes as they
//!   were published ([`crate::shards::Head`]).

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Egress, Ingest, ObjectName, PLAN_VERSION, Plan, PlanError, ReplayPlan, WebhookPlan};

/// The features that this program has and that a plan may require.
pub const FEATURES: &[&str] = &[];

/// A plan, and what it was published as.
#[derive(Debug, Clone)]
pub struct Published {
    /// What this program understands of it.
    pub plan: Plan,
    /// Which one of the plans that were published, from 1; 0 where it was not.
    pub generation: u64,
    /// The plan's name in reports, [`Plan::digest`] of whoever wrote it.
    pub digest: String,
    /// The Webhooks that this program cannot run, by namespace and name.
    pub left_out: Vec<LeftOut>,
    document: Document,
}

/// A Webhook that this program cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its object.
    pub webhook: ObjectName,
    /// Why, and the fix.
    pub reason: String,
}

/// Why a value is not of the shape that this program knows. The parser's own words could quote a key.
#[derive(Debug, thiserror::Error)]
#[error("`{field}` is not of the shape that this program knows, at line {line}, column {column}")]
pub struct Malformed {
    field: String,
    line: usize,
    column: usize,
}

/// The whole plan's JSON; it holds keys.
#[derive(Clone)]
struct Document(Vec<u8>);

/// What stands beside the plan in the document.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Label {
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    digest: Option<String>,
}

/// A document's fields as they stand there, those that this program does not know too.
type Fields = BTreeMap<String, Box<RawValue>>;

// === impl Published ===

impl Published {
    /// A plan that was not published.
    pub fn unpublished(plan: Plan) -> Self {
        let document = Document(plan.to_json());
        Self { digest: plan.digest(), plan, generation: 0, left_out: Vec::new(), document }
    }

    /// Reads a document.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PlanError> {
        let label: Label = read(bytes)?;
        let mut left_out = Vec::new();
        let plan = read_plan(bytes, &mut left_out)?;
        let digest = label.digest.unwrap_or_else(|| plan.digest());
        let document = Document(bytes.to_vec());
        Ok(Self { plan, generation: label.generation, digest, left_out, document })
    }

    /// Puts a document together: the frame with the Webhooks in it, and what it was published as.
    pub(crate) fn join(
        frame: &RawValue,
        webhooks: &[Box<RawValue>],
        generation: u64,
        digest: &str,
    ) -> Result<Self, PlanError> {
        let mut fields: Fields = read_raw(frame.get().as_bytes())?;
        fields.insert("webhooks".to_owned(), raw(&webhooks));
        fields.insert("generation".to_owned(), raw(&generation));
        fields.insert("digest".to_owned(), raw(&digest));
        Self::from_json(raw(&fields).get().as_bytes())
    }

    /// The whole document, to be kept; what this program does not know of it too. It holds keys.
    pub fn document(&self) -> &[u8] {
        &self.document.0
    }
}

/// What this program understands of a plan.
pub(crate) fn read_plan(bytes: &[u8], left_out: &mut Vec<LeftOut>) -> Result<Plan, PlanError> {
    /// What every version has.
    #[derive(Deserialize)]
    struct Shape {
        version: u32,
        #[serde(default)]
        requires: Vec<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Frame {
        auth_server: ObjectName,
        ingest: Ingest,
        egress: Egress,
    }
    #[derive(Deserialize)]
    struct Lists {
        #[serde(default)]
        webhooks: Vec<Box<RawValue>>,
        #[serde(default)]
        replays: Vec<Box<RawValue>>,
    }
    let Shape { version, requires } = read(bytes)?;
    if version != PLAN_VERSION {
        return Err(PlanError::Version { found: version });
    }
    if let Some(feature) = missing(&requires) {
        return Err(PlanError::Requires { feature });
    }
    let Frame { auth_server, ingest, egress } = read(bytes)?;
    let Lists { webhooks, replays } = read_raw(bytes)?;
    let mut plan = Plan { ingest, egress, ..Plan::empty(auth_server) };
    for text in &webhooks {
        match read_webhook(text)? {
            Ok(webhook) => plan.webhooks.push(webhook),
            Err(one) => left_out.push(one),
        }
    }
    // A replay of a later shape is not begun; its object goes on saying that it waits for the sidecars.
    plan.replays = replays.iter().filter_map(|text| read::<ReplayPlan>(text.get().as_bytes()).ok()).collect();
    plan.webhooks.sort_by(|a, b| a.webhook.cmp(&b.webhook));
    left_out.sort_by(|a, b| a.webhook.cmp(&b.webhook));
    Ok(plan)
}

/// One Webhook, or why it is left out; an error where not even its name can be read.
fn read_webhook(text: &RawValue) -> Result<Result<WebhookPlan, LeftOut>, PlanError> {
    #[derive(Deserialize)]
    struct Shape {
        webhook: ObjectName,
        #[serde(default)]
        requires: Vec<String>,
    }
    let bytes = text.get().as_bytes();
    let Shape { webhook, requires } = read(bytes)?;
    let reason = match (missing(&requires), read(bytes)) {
        (None, Ok(plan)) => return Ok(Ok(plan)),
        (Some(feature), _) => format!("it requires {feature:?}, which this sidecar does not have"),
        (None, Err(malformed)) => malformed.to_string(),
    };
    let reason = format!("{reason}: upgrade the sidecar to the operator's version");
    Ok(Err(LeftOut { webhook, reason }))
}

fn missing(requires: &[String]) -> Option<String> {
    requires.iter().find(|feature| !FEATURES.contains(&feature.as_str())).cloned()
}

/// Reads a value; an error names the field and the place, and nothing that stands there.
pub(crate) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| Malformed {
        field: error.path().to_string(),
        line: error.inner().line(),
        column: error.inner().column(),
    })?;
    json.end().map_err(|error| Malformed::at(".", &error))?;
    Ok(value)
}

/// The same for parts that are kept as they stand, which the path's tracing cannot hand on.
pub(crate) fn read_raw<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(bytes).map_err(|error| Malformed::at(".", &error))
}

/// The JSON of what always has one.
pub(crate) fn raw(value: &impl serde::Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

// === impl Malformed ===

impl Malformed {
    fn at(field: &str, error: &serde_json::Error) -> Self {
        Self { field: field.to_owned(), line: error.line(), column: error.column() }
    }
}

// === impl Document ===

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.0.len())
    }
}
