//! Cycles that the back-end spends per packet when it copies bursts from one guest's ring to
//! another's: no sockets, no switch, both guests in this thread, so that no cache line changes
//! cores. It is the floor of the data path, and under `valgrind --tool=callgrind` a count of
//! instructions.
//!
//! Usage: `burst-cost [packed] [BURSTS [LENGTH ..]]`; prints a line for each frame length.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measuring tool that trusts itself"
)]

use std::sync::Arc;

use benches::guest::{Guest, Shape};
use eal::clock;
use ethdev::stats::QueueStats;
use ethdev::{RxQueue, TxQueue};
use packet::BURST;
use vhost_net::{NetReceiver, NetTransmitter};

/// Median over the bursts of back-end cycles per packet for frames of `len` bytes.
fn measure(len: usize, bursts: usize, shape: Shape) -> f64 {
    let (mut from, mut to) = (Guest::sender(len + 12, shape), Guest::receiver(shape));
    let stats = || Arc::new(QueueStats::default());
    let mut rx = RxQueue::new(Box::new(NetReceiver::new(Arc::clone(from.slot()))), stats());
    let mut tx = TxQueue::new(Box::new(NetTransmitter::new(Arc::clone(to.slot()))), stats());
    let mut cycles = Vec::with_capacity(bursts);
    for _ in 0..bursts {
        let start = clock::now();
        let burst = rx.rx_burst(BURST);
        assert_eq!(tx.tx_burst(burst.frames()), BURST);
        drop(burst);
        cycles.push(clock::now() - start);
        from.recycle();
        to.recycle();
    }
    cycles.sort_unstable();
    cycles[bursts / 2] as f64 / BURST as f64
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let packed = arguments.first().is_some_and(|first| first == "packed");
    if packed {
        arguments.remove(0);
    }
    let shape = if packed { Shape::PACKED } else { Shape::SPLIT };
    let bursts = arguments.first().map_or(100_000, |text| text.parse().unwrap());
    let lens: Vec<usize> = arguments.iter().skip(1).map(|text| text.parse().unwrap()).collect();
    let lens = if lens.is_empty() { vec![64, 128, 256, 512, 1024, 1500] } else { lens };
    println!("length  cycles per packet");
    for len in lens {
        println!("{len:>6}  {:>17.1}", measure(len, bursts, shape));
    }
}
