//! The data path without a worker, for measuring programs.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use ethdev::{QueueStats, TxQueue};
use packet::Frame;

use crate::datapath::{Datapath, Source};
use crate::fdb::Fdb;
use crate::output::Output;

/// The MTU of all outputs.
const MTU: u32 = 1500;

/// A data path and its ports.
#[derive(Debug)]
pub struct Bench {
    path: Datapath,
    stats: QueueStats,
}

impl Bench {
    /// A data path that sends to `outputs`, the first of which is port 0.
    #[must_use]
    pub fn new(fdb: Arc<Fdb>, outputs: Vec<TxQueue>) -> Self {
        let mut path = Datapath::new(fdb, 32);
        for (port, queue) in (0..).zip(outputs) {
            let mtu = Arc::new(AtomicU32::new(MTU));
            path.set_output(port, Some(Output::new(vec![queue], 0, u64::MAX, mtu, 0)));
        }
        Self { path, stats: QueueStats::default() }
    }

    /// Forwards a burst that came in on `port`.
    pub fn forward(&mut self, frames: &[Frame<'_>], port: u16) {
        self.path.forward(frames, &Source { port, stats: &self.stats, now: 1 });
        self.path.flush();
    }
}
