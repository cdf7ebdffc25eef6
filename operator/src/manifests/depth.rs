//! How deep a YAML text is nested, before anything is built of it.
//!
//! What is nested is built, walked and dropped level by level, on a stack that ends. An alias is as deep as
//! what it stands for.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScanError};

/// The most levels of a document; no manifest comes near.
pub(super) const MAX_DEPTH: usize = 128;

/// A list or map that is not closed yet.
struct Open {
    anchor: usize,
    /// Levels at and below it, as far as it was read.
    levels: usize,
}

/// The line at which a text is nested deeper than [`MAX_DEPTH`], if any.
pub(super) fn too_deep(text: &str) -> Result<Option<usize>, ScanError> {
    let (mut open, mut levels_of) = (Vec::<Open>::new(), HashMap::new());
    for event in Parser::new_from_str(text) {
        let (event, span) = event?;
        let below = match event {
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push(Open { anchor, levels: 1 });
                0
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { anchor, levels }) = open.pop() else { continue };
                levels_of.insert(anchor, levels);
                levels
            }
            Event::Alias(anchor) => levels_of.get(&anchor).copied().unwrap_or(0),
            _ => continue,
        };
        if open.len() + below > MAX_DEPTH {
            return Ok(Some(span.start.line()));
        }
        if let Some(around) = open.last_mut() {
            around.levels = around.levels.max(below + 1);
        }
    }
    Ok(None)
}
