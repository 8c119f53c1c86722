//! Has what is tested learn where frames are to go.

use std::time::{Duration, Instant};

use eal::clock;
use ethdev::TxQueue;

use super::order::Order;
use super::run::run_number;
use super::sender::Sender;
use super::size::{MIN_SIZE, SizeMix};
use super::traffic::Traffic;

/// How long the device under test may take to take all flows that are announced to it.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends a frame for each flow of `traffic` the other way round, by a queue of the device where its
/// frames are expected (RFC 2544, 23): then they need not be flooded.
pub fn announce(traffic: &Traffic, queue: &mut TxQueue) {
    let flows = traffic.flows(1);
    let builder = traffic.reversed().builder(flows, run_number());
    let size = builder.least().max(MIN_SIZE);
    let sizes = SizeMix::of(u16::try_from(size).unwrap_or(u16::MAX));
    let mut sender = Sender::new(builder, &sizes, Order::Sequence, 0..flows);
    let start = Instant::now();
    while sender.given() < u64::from(flows) && start.elapsed() < LIMIT {
        sender.build(u64::from(flows).saturating_sub(sender.built()), || Some(clock::now()));
        if sender.send(queue) == 0 {
            queue.flush();
            std::thread::yield_now();
        }
    }
    queue.flush();
}
