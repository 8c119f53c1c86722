//! A port that swallows frames.

use std::sync::Arc;

use ethdev::{QueueStats, Sent, TxDriver, TxQueue};
use packet::Frame;

struct Sink;

impl TxDriver for Sink {
    fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
        Sent::first(frames.len())
    }
}

/// A queue that sends everything at once, to nobody.
#[must_use]
pub fn sink() -> TxQueue {
    TxQueue::new(Box::new(Sink), Arc::default())
}
