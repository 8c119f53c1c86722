//! Plain forwarding between two ports, without a switch: what DPDK testpmd calls `io` mode. It
//! tells what the ports cost, so that the switch's own share can be told apart.
//!
//! Usage: `port-forward DEVICE DEVICE [SECONDS [CORE]]`; prints busy cycles per packet every second.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a measuring tool")]

use ethdev::OpenPort;
use std::time::{Duration, Instant};

use drivers::Drivers;
use eal::clock;
use packet::BURST;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [first, second, rest @ ..] = &arguments[..] else {
        eprintln!("usage: port-forward DEVICE DEVICE [SECONDS]");
        std::process::exit(2);
    };
    let seconds = rest.first().map_or(10, |text| text.parse().unwrap());
    if let Some(core) = rest.get(1) {
        eal::cores::pin_current(core.parse().unwrap()).unwrap();
    }
    let env = Drivers::new();
    let mut a = drivers::open("a", first, &env).unwrap();
    let mut b = drivers::open("b", second, &env).unwrap();
    println!("forwarding {first} <-> {second}");
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let (mut cycles, mut packets, mut costs) = (0, 0_u64, Vec::new());
        let start = clock::now();
        while clock::now() - start < clock::hz() {
            for forth in [true, false] {
                let before = clock::now();
                let count = if forth { forward(&mut a, &mut b) } else { forward(&mut b, &mut a) };
                if count > 0 {
                    let cost = clock::now() - before;
                    cycles += cost;
                    packets += count as u64;
                    costs.push(cost as f64 / count as f64);
                }
            }
        }
        let mean = cycles as f64 / packets.max(1) as f64;
        let burst = packets as f64 / costs.len().max(1) as f64;
        costs.sort_by(f64::total_cmp);
        // The mean counts what other programs took from this core; the median does not.
        let median = costs.get(costs.len() / 2).copied().unwrap_or(0.0);
        println!(
            "{packets:>9} packets/s, busy cycles each: {median:.0} median, {mean:.0} mean; {burst:.1} a burst"
        );
    }
}

/// Forwards one burst from each queue to the queue of the same number; returns the number of
/// frames received.
fn forward(from: &mut OpenPort, to: &mut OpenPort) -> usize {
    let mut count = 0;
    for (rx, tx) in from.rx.iter_mut().zip(&mut to.tx) {
        let burst = rx.rx_burst(BURST);
        let frames = burst.frames();
        if !frames.is_empty() {
            tx.tx_burst(frames);
        }
        count += frames.len();
    }
    count
}
