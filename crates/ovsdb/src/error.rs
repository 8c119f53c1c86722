//! What can be wrong with what a database says.

use std::fmt;

use serde_json::Value;

/// Something that is not as the protocol has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    expected: String,
    found: String,
}

/// The most characters of what was found that are told.
const QUOTED: usize = 120;

impl Malformed {
    /// `found`, where something else was `expected`.
    pub(crate) fn new(expected: impl Into<String>, found: &Value) -> Self {
        Self::of_text(expected, &found.to_string())
    }

    /// The same with a text.
    pub(crate) fn of_text(expected: impl Into<String>, found: &str) -> Self {
        let mut quoted: String = found.chars().take(QUOTED).collect();
        if quoted.len() < found.len() {
            quoted.push_str("...");
        }
        Self { expected: expected.into(), found: quoted }
    }

    /// The same, with the place where it was found.
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.expected = format!("{place}: {}", self.expected);
        self
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, found } = self;
        write!(f, "expected {expected}, found {found}")
    }
}

impl std::error::Error for Malformed {}
