//! What a lock per burst costs when workers share a guest's transmit queue, and what is saved where
//! each has its own: cycles per burst, by its size.
//!
//! Usage: `queue-cost [BURSTS]`. *Alone* is a queue without a lock. *Shared* takes the lock and
//! nobody else wants it. *In turns* is two workers on two cores that send to one queue all the
//! time; *side by side* the same with a queue each, both of them shared, so that what one does to
//! the other shows, and *own* with a queue each that is theirs alone.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a measuring tool that trusts itself"
)]

use std::sync::{Arc, Barrier};
use std::thread;

use benches::guest::{Guest, Shape};
use benches::sink::sink;
use eal::{clock, cores};
use ethdev::{SharedTxQueue, TxQueue};
use packet::{BURST, Frame};
use vhost_net::NetTransmitter;

/// A guest's queue, and the guest.
fn guest() -> (TxQueue, Guest) {
    let guest = Guest::receiver(Shape::SPLIT);
    let transmitter = NetTransmitter::new(Arc::clone(guest.slot()));
    (TxQueue::new(Box::new(transmitter), Arc::default()), guest)
}

/// Median of the cycles of a burst of `size` frames and of the flush behind it. The clock has steps of
/// tens of cycles, so it is read once for as many bursts as have 128 frames.
fn measure(tx: &mut TxQueue, size: usize, bursts: usize, mut recycle: impl FnMut()) -> f64 {
    let bytes = [7; 64];
    let frames = [Frame::from_bytes(&bytes); BURST];
    let count = 128 / size;
    let mut cycles = Vec::with_capacity(bursts / count + 1);
    for _ in (0..bursts).step_by(count) {
        let start = clock::now();
        for _ in 0..count {
            assert_eq!(tx.tx_burst(&frames[..size]), size);
            tx.flush();
        }
        cycles.push(clock::now() - start);
        recycle();
    }
    cycles.sort_unstable();
    cycles[cycles.len() / 2] as f64 / count as f64
}

fn shared(tx: TxQueue) -> TxQueue {
    SharedTxQueue::new(tx).into()
}

/// As `measure`, to a guest and by one worker.
fn to_guest(size: usize, bursts: usize, make: fn(TxQueue) -> TxQueue) -> f64 {
    let (tx, mut guest) = guest();
    measure(&mut make(tx), size, bursts, || guest.recycle())
}

/// Mean of the cycles of a burst, by two workers at once on cores of their own, to nobody.
fn by_two(queues: Vec<TxQueue>, size: usize, bursts: usize) -> f64 {
    let start_line = Barrier::new(queues.len());
    let bytes = [7; 64];
    let work = |(core, mut tx): (usize, TxQueue)| {
        cores::pin_current(core).unwrap();
        let frames = [Frame::from_bytes(&bytes); BURST];
        start_line.wait();
        let start = clock::now();
        for _ in 0..bursts {
            assert_eq!(tx.tx_burst(&frames[..size]), size);
            tx.flush();
        }
        (clock::now() - start) as f64 / bursts as f64
    };
    thread::scope(|scope| {
        let work = &work;
        let users = queues.into_iter().enumerate();
        let users: Vec<_> = users.map(|user| scope.spawn(move || work(user))).collect();
        let count = users.len() as f64;
        users.into_iter().map(|user| user.join().unwrap()).sum::<f64>() / count
    })
}

fn main() {
    let bursts = std::env::args().nth(1).map_or(200_000, |text| text.parse().unwrap());
    println!(
        "{:>6} {:>9} {:>9}   two workers: {:>9} {:>12} {:>9}",
        "frames", "alone", "shared", "in turns", "side by side", "own"
    );
    for size in [1, 4, BURST] {
        let best = |measure: &dyn Fn() -> f64| (0..5).map(|_| measure()).fold(f64::MAX, f64::min);
        let alone = best(&|| to_guest(size, bursts, |tx| tx));
        let locked = best(&|| to_guest(size, bursts, shared));
        let in_turns = best(&|| {
            let queue = SharedTxQueue::new(sink());
            by_two(vec![queue.clone().into(), queue.into()], size, bursts)
        });
        let beside = best(&|| by_two(vec![shared(sink()), shared(sink())], size, bursts));
        let own = best(&|| by_two(vec![sink(), sink()], size, bursts));
        println!(
            "{size:>6} {alone:>9.0} {locked:>9.0}                {in_turns:>9.0} {beside:>12.0} {own:>9.0}"
        );
    }
}
