//! What the data path costs per packet, without any device.
//!
//! `cargo run --release -p ringway-switch --example forward-bench`
//!
//! A port makes frames up, in bursts of 32 of 64 bytes, and another swallows them. What making
//! and swallowing costs is measured first and taken off. *Flows* is the number of pairs of
//! addresses, which change at random from frame to frame; *run* is how many frames in a row
//! have the same. *VLANs* tells the ports' parts in them: none, both access ports, both trunks, or
//! one of each, so that each frame gets a tag or loses it.

#![allow(clippy::cast_precision_loss, reason = "means for people")]

use std::error::Error;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use eal::clock;
use ethdev::{
    Link, OpenPort, PortControl, PortInfo, QueueStats, RxDriver, RxQueue, Sent, TxDriver, TxQueue,
};
use packet::{BURST, Frame, FrameBatch, MacAddr};
use switch::{PortOptions, PortVlan, Switch, SwitchConfig};

const LEN: usize = 64;

/// The VLAN of all frames, where there are VLANs.
const VLAN: u16 = 10;

/// A port's part in VLANs.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    None,
    Access,
    Trunk,
}

impl Part {
    fn settings(self) -> PortVlan {
        match self {
            Self::None => PortVlan::default(),
            Self::Access => PortVlan { tag: Some(VLAN), ..PortVlan::default() },
            Self::Trunk => PortVlan { trunks: "1-100".parse().ok(), ..PortVlan::default() },
        }
    }
}

/// Makes frames up: first it announces all its stations, then they send to those of the other
/// port.
struct Source {
    batch: FrameBatch,
    slots: Box<[[u8; LEN]; BURST]>,
    flows: u64,
    run: usize,
    state: u64,
    /// Stations still to be announced.
    announcing: u64,
    /// The third byte of this port's addresses, and of those where its frames go; `None` if it
    /// is silent once all are announced.
    from: u8,
    to: Option<u8>,
    tagged: bool,
}

impl Source {
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) % self.flows
    }
}

impl RxDriver for Source {
    fn receive(&mut self, max: usize, _stats: &QueueStats) {
        self.batch.clear();
        let mut flow = 0;
        for index in 0..max.min(BURST) {
            let announced = self.announcing;
            if announced > 0 {
                self.announcing -= 1;
                flow = announced - 1;
            } else if index % self.run == 0 {
                flow = self.random();
            }
            let [.., a, b, c] = flow.to_be_bytes();
            let to = if announced > 0 { Some(0xFF) } else { self.to };
            let Some(to) = to else { return };
            let Some(slot) = self.slots.get_mut(index) else { return };
            let header = [0x52, 0x54, to, a, b, c, 0x52, 0x54, self.from, a, b, c];
            let [high, low] = VLAN.to_be_bytes();
            let kind = if self.tagged { [0x81, 0x00, high, low] } else { [0x88, 0xB5, 0, 0] };
            for (to, from) in slot.iter_mut().zip(header.into_iter().chain(kind)) {
                *to = from;
            }
            let ptr = NonNull::from(slot).cast();
            // SAFETY: the slot lives as long as the batch and is written only after `clear`.
            unsafe { self.batch.push_private(ptr, 64) };
        }
    }

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {
        self.batch.clear();
    }
}

struct Sink;

impl TxDriver for Sink {
    fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
        Sent::first(frames.len())
    }
}

struct Control;

impl PortControl for Control {
    fn info(&self) -> PortInfo {
        PortInfo { driver: "bench", rx_queues: 1, tx_queues: 1, max_mtu: 1500 }
    }

    fn link(&self) -> Link {
        Link { up: true, speed_mbps: None, changes: 0 }
    }

    fn mac(&self) -> MacAddr {
        MacAddr::default()
    }

    fn mtu(&self) -> u16 {
        1500
    }
}

/// What a port does.
#[derive(Clone, Copy)]
struct Plan {
    flows: u64,
    run: usize,
    announcing: u64,
    from: u8,
    to: Option<u8>,
    tagged: bool,
}

fn queues(plan: Plan) -> (RxQueue, TxQueue) {
    let Plan { flows, run, announcing, from, to, tagged } = plan;
    let source = Source {
        batch: FrameBatch::with_segments(0),
        slots: Box::new([[0; LEN]; BURST]),
        flows,
        run,
        state: 88_172_645_463_325_252,
        announcing,
        from,
        to,
        tagged,
    };
    let rx = RxQueue::new(Box::new(source), Arc::new(QueueStats::default()));
    (rx, TxQueue::new(Box::new(Sink), Arc::new(QueueStats::default())))
}

/// Cycles per packet for making and swallowing alone.
fn baseline(flows: u64, run: usize, part: Part) -> f64 {
    const BURSTS: u64 = 200_000;
    let tagged = part == Part::Trunk;
    let plan = Plan { flows, run, announcing: 0, from: 1, to: Some(2), tagged };
    let (mut rx, mut tx) = queues(plan);
    let round = |_| {
        let start = clock::now();
        for _ in 0..BURSTS {
            let burst = rx.rx_burst(BURST);
            tx.tx_burst(burst.frames());
        }
        clock::now().saturating_sub(start) as f64 / (BURSTS as f64 * BURST as f64)
    };
    (0..5).map(round).fold(f64::MAX, f64::min)
}

/// Cycles per packet in the switch, from a port with one part in VLANs to a port with another.
fn forwarding(flows: u64, run: usize, parts: (Part, Part)) -> Result<f64, Box<dyn Error>> {
    let limit = usize::try_from(2 * flows)?;
    let config = SwitchConfig {
        fdb_limit: limit,
        learn_per_burst: BURST,
        busy_poll: true,
        ..SwitchConfig::default()
    };
    let switch = Switch::start(&config)?;
    let (source, other) = parts;
    for (name, from, to, part) in [("other", 2, None, other), ("source", 1, Some(2), source)] {
        let tagged = part == Part::Trunk;
        let (rx, tx) = queues(Plan { flows, run, announcing: flows, from, to, tagged });
        let port = OpenPort::new(name, "bench:", Box::new(Control), vec![rx], vec![tx]);
        let vlan = part.settings();
        switch.add_port(port, &PortOptions { vlan, ..PortOptions::default() })?;
    }
    while switch.fdb_report().entries < limit {
        std::thread::yield_now();
    }
    let round = |_| {
        let before = switch.workers();
        std::thread::sleep(Duration::from_millis(150));
        let after = switch.workers();
        let pairs = after.iter().zip(&before);
        pairs.map(|(after, before)| after.since(before).cycles_per_packet()).sum::<f64>()
    };
    Ok((0..7).map(round).fold(f64::MAX, f64::min))
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:>9} {:>4} {:>16} {:>16}", "flows", "run", "VLANs", "cycles/packet");
    let report = |flows, run, name, parts: (Part, Part)| -> Result<(), Box<dyn Error>> {
        let cost = forwarding(flows, run, parts)? - baseline(flows, run, parts.0);
        println!("{flows:>9} {run:>4} {name:>16} {cost:>16.1}");
        Ok(())
    };
    for (flows, run) in [(1, 32), (8, 32), (8, 4), (8, 1), (1 << 10, 1), (1 << 15, 1), (1 << 19, 1)]
    {
        report(flows, run, "none", (Part::None, Part::None))?;
    }
    let kinds = [
        ("access", (Part::Access, Part::Access)),
        ("trunk", (Part::Trunk, Part::Trunk)),
        ("access to trunk", (Part::Access, Part::Trunk)),
        ("trunk to access", (Part::Trunk, Part::Access)),
    ];
    for (name, parts) in kinds {
        for (flows, run) in [(1, 32), (1 << 10, 1)] {
            report(flows, run, name, parts)?;
        }
    }
    Ok(())
}
