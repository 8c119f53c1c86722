//! How the cost of a packet grows: with stations in the forwarding database, flows, idle ports, and
//! regions of guest memory. Two guests in this thread, 64-byte frames over split rings; no cache
//! line changes cores.
//!
//! Usage: `growth [BURSTS]`; prints lines of dimension, value and median cycles per packet, with a
//! tab between.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a measuring tool that trusts itself"
)]

use std::sync::Arc;

use benches::guest::{Guest, Shape};
use eal::clock;
use ethdev::{RxQueue, TxQueue};
use packet::{BURST, MacAddr};
use switch::bench::Bench;
use switch::fdb::{Fdb, Key};
use vhost_net::{NetReceiver, NetTransmitter};

/// What is measured.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Stations in the forwarding database.
    stations: usize,
    /// Pairs of stations that send, chosen at random for each frame; 0: any pair.
    flows: usize,
    /// All ports, of which two have traffic.
    ports: usize,
    /// Regions of each guest's memory.
    regions: usize,
}

const PLAIN: Case = Case { stations: 16, flows: 1, ports: 2, regions: 1 };

fn main() {
    let bursts = std::env::args().nth(1).map_or(20_000, |text| text.parse().unwrap());
    let show = |dimension: &str, value: usize, case: Case| {
        println!("{dimension}\t{value}\t{:.1}", measure(case, bursts));
    };
    for stations in [16, 256, 4096, 65_536, 262_144, 1_000_000] {
        show("stations", stations, Case { stations, flows: 0, ..PLAIN });
    }
    for flows in [1, 16, 1024, 32_768, 1_000_000] {
        show("flows", flows, Case { stations: (2 * flows).clamp(16, 1_000_000), flows, ..PLAIN });
    }
    for ports in [2, 8, 32, 128, 256] {
        show("ports", ports, Case { ports, ..PLAIN });
    }
    for regions in [1, 2, 8, 32] {
        show("regions", regions, Case { regions, ..PLAIN });
    }
}

/// Numbers as good as random.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

/// The address of a station: even ones are behind port 0, odd ones behind port 1.
fn station(number: usize) -> MacAddr {
    let [a, b, c, d, ..] = number.to_le_bytes();
    MacAddr([2, 0, d, c, b, a])
}

/// Source and destination of the next frame, which goes from port 0 to port 1.
fn pair(case: Case, random: &mut Random) -> (MacAddr, MacAddr) {
    let pairs = case.stations / 2;
    let (from, to) = if case.flows == 0 {
        (random.below(pairs), random.below(pairs))
    } else {
        let flow = random.below(case.flows);
        // Each flow has a source of its own; not all have a destination of their own.
        (flow % pairs, flow.wrapping_mul(7) % pairs)
    };
    (station(2 * from), station(2 * to + 1))
}

/// Median cycles per packet.
fn measure(case: Case, bursts: usize) -> f64 {
    let fdb = Arc::new(Fdb::new(case.stations, case.ports, 300));
    for number in 0..case.stations {
        let key = Key::new(0, station(number));
        fdb.write().learn(key, fdb.hash(key), (number % 2) as u16);
    }
    let shape = Shape { regions: case.regions, ..Shape::SPLIT };
    let mut from = Guest::sender(64 + 12, shape);
    let mut to = Guest::receiver(shape);
    let silent: Vec<Guest> = (1..case.ports).map(|_| Guest::silent(Shape::SPLIT)).collect();
    let idle: Vec<Guest> = (2..=case.ports).map(|_| Guest::receiver(Shape::SPLIT)).collect();
    let transmitter = |guest: &Guest| {
        let driver = NetTransmitter::new(Arc::clone(guest.slot()));
        TxQueue::new(Box::new(driver), Arc::default())
    };
    // Frames go from port 0 to port 1.
    let outputs = idle.iter().take(1).chain([&to]).chain(idle.iter().skip(1));
    let mut bench = Bench::new(fdb, outputs.map(transmitter).collect());
    for (port, guest) in (0..).zip([&from].into_iter().chain(&silent)) {
        let receiver = NetReceiver::new(Arc::clone(guest.slot()));
        bench.add_input(port, RxQueue::new(Box::new(receiver), Arc::default()));
    }
    let mut random = Random(88_172_645_463_325_252);
    let mut cycles = Vec::with_capacity(bursts);
    for _ in 0..bursts {
        for index in 0..BURST {
            let (source, destination) = pair(case, &mut random);
            from.write(index, 0, &destination.0);
            from.write(index, 6, &source.0);
        }
        let start = clock::now();
        assert_eq!(bench.round(), BURST);
        cycles.push(clock::now() - start);
        from.recycle();
        to.recycle();
    }
    cycles.sort_unstable();
    cycles[bursts / 2] as f64 / BURST as f64
}
