//! What a transmit buffer in front of a vhost-user port costs or saves: cycles per packet when
//! receive bursts of a size are sent at once, straight from the receive ring, or are copied into
//! packets that wait until there is a full burst. Both guests are in this thread, as in
//! `burst-cost`, so that what a notification costs does not show.
//!
//! Usage: `buffer-cost [packed] [BURSTS [LENGTH ..]]`; prints a line for each frame length and size
//! of bursts.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a measuring tool that trusts itself"
)]

use std::sync::Arc;
use std::time::Duration;

use benches::guest::{Guest, Shape};
use eal::clock;
use ethdev::{RxQueue, TxBuffer, TxBufferOptions, TxQueue};
use packet::{BURST, Pool};
use vhost_net::{NetReceiver, NetTransmitter};

/// Median, over full bursts in bursts of `size`, of back-end cycles per packet; `direct` is the
/// size from which on bursts are sent at once.
fn measure(len: usize, size: usize, bursts: usize, shape: Shape, direct: usize) -> f64 {
    let (mut from, mut to) = (Guest::sender(len + 12, shape), Guest::receiver(shape));
    let mut rx = RxQueue::new(Box::new(NetReceiver::new(Arc::clone(from.slot()))), Arc::default());
    let tx = TxQueue::new(Box::new(NetTransmitter::new(Arc::clone(to.slot()))), Arc::default());
    let options = TxBufferOptions { drain: Duration::from_secs(1 << 30), direct, retries: 0 };
    let mut tx = TxBuffer::new(tx, options);
    let pool = Pool::new("buffer-cost", 1024, packet::pool::DATA_ROOM).unwrap();
    let mut cache = pool.cache();
    let mut cycles = Vec::with_capacity(bursts);
    for _ in 0..bursts {
        let start = clock::now();
        for _ in 0..BURST / size {
            tx.push_burst(rx.rx_burst(size), start, &mut cache);
        }
        cycles.push(clock::now() - start);
        from.recycle();
        to.recycle();
    }
    assert_eq!(tx.queue().stats().snapshot().packets, (bursts * BURST) as u64);
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
    let bursts = arguments.first().map_or(50_000, |text| text.parse().unwrap());
    let lens: Vec<usize> = arguments.iter().skip(1).map(|text| text.parse().unwrap()).collect();
    let lens = if lens.is_empty() { vec![64, 512, 1500] } else { lens };
    println!("length  burst  at once  by way of packets");
    for len in lens {
        for size in [1, 2, 4, 8, 16, 32] {
            let at_once = measure(len, size, bursts, shape, 1);
            let packets = measure(len, size, bursts, shape, BURST + 1);
            println!("{len:>6}  {size:>5}  {at_once:>7.1}  {packets:>18.1}");
        }
    }
}
