//! What a manifest said, as it is remembered between scans.

use crate::function::{
    FunctionKey,
    manifest::{ManifestError, Parsed},
};

/// One object of a file as it is remembered, in JSON: that is a quarter of what a `Function` takes.
pub(super) struct Kept {
    line: usize,
    key: Option<FunctionKey>,
    verdict: Result<Box<str>, ManifestError>,
}

impl From<Parsed> for Kept {
    fn from(parsed: Parsed) -> Self {
        let json =
            |function| serde_json::to_string(&function).expect("a Function can be written as JSON");
        Self {
            line: parsed.line,
            key: parsed.key,
            verdict: parsed.verdict.map(|function| json(function).into()),
        }
    }
}

impl From<&Kept> for Parsed {
    fn from(kept: &Kept) -> Self {
        let function = |json| serde_json::from_str(json).expect("what was written can be read");
        Self {
            line: kept.line,
            key: kept.key.clone(),
            verdict: kept.verdict.as_deref().map(function).map_err(Clone::clone),
        }
    }
}
