//! What becomes of a frame.

use serde::{Deserialize, Serialize};

/// Answer to [`Request::Trace`](super::Request::Trace).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Where the frame enters a bridge: the port that was asked about, and peers of patch ports behind it.
    pub entered: Vec<TraceEntry>,
    /// Where it goes out.
    pub outputs: Vec<TraceOutput>,
    /// Why it is dropped, if it goes nowhere for a reason that is counted.
    pub dropped: Option<String>,
}

/// A bridge that a frame comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEntry {
    /// The port where it comes in.
    pub port: String,
    /// The bridge.
    pub bridge: String,
    /// The tables that it passes, in order; none, where the bridge has no rules.
    pub tables: Vec<TraceTable>,
}

/// A table that a frame passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceTable {
    /// Its number.
    pub table: u8,
    /// The rule that is found, if any is.
    pub rule: Option<TraceRule>,
}

/// A rule, in the words of `ovs-ofctl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRule {
    /// Its priority; those that no controller has made have one of 180000 or more.
    pub priority: u32,
    /// Its cookie, as a number of base 16.
    pub cookie: String,
    /// What it is for; empty: for all.
    #[serde(rename = "match")]
    pub matching: String,
    /// What it does.
    pub actions: String,
}

/// A port that a frame goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceOutput {
    /// The port.
    pub port: String,
    /// The frame as it is by then, in digits of base 16.
    pub frame: String,
}
