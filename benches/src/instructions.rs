//! Runs one kind of burst for `cargo xtask instructions`, which counts instructions with valgrind.
//!
//! Usage: `instructions CASE BURSTS`, where `CASE` is one of those that `instructions list` prints,
//! each with the number of frames in its bursts.
//! Only what runs inside `measured` is to be counted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measuring tool")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use benches::flows::{self, Layers};
use benches::guest::{Guest, Shape};
use benches::sink::sink;
use capture::bpf::{Instruction, Outcome, Program};
use ethdev::{RxQueue, SharedTxQueue, TxBuffer, TxBufferOptions, TxQueue};
use flow::Pipeline;
use openflow::{Action, PortNo};
use packet::headers::EthernetMut;
use packet::pool::DATA_ROOM;
use packet::{BURST, Burst, Frame, MacAddr, Pool};
use switch::bench::{Bench, capture};
use switch::fdb::{Fdb, Key};
use switch::limit::{Bits, Frames};
use switch::{BondMode, Capture, PortGuard, PortLimits, PortVlan};
use vhost_net::{NetReceiver, NetTransmitter};

/// A case: its name, and the function that runs as many bursts as it is told.
type Case = (&'static str, fn(usize));

const CASES: [Case; 42] = [
    ("receive-split-60", |bursts| receive(60, Shape::SPLIT, bursts)),
    ("receive-split-64", |bursts| receive(64, Shape::SPLIT, bursts)),
    ("receive-split-1500", |bursts| receive(1500, Shape::SPLIT, bursts)),
    ("receive-packed-64", |bursts| receive(64, Shape::PACKED, bursts)),
    ("receive-packed-1500", |bursts| receive(1500, Shape::PACKED, bursts)),
    ("transmit-split-60", |bursts| transmit(60, Shape::SPLIT, bursts)),
    ("transmit-split-64", |bursts| transmit(64, Shape::SPLIT, bursts)),
    ("transmit-split-1500", |bursts| transmit(1500, Shape::SPLIT, bursts)),
    ("transmit-packed-64", |bursts| transmit(64, Shape::PACKED, bursts)),
    ("transmit-packed-1500", |bursts| transmit(1500, Shape::PACKED, bursts)),
    ("rewrite-and-send-64", |bursts| buffer(BURST, bursts)),
    ("rewrite-and-buffer-64", |bursts| buffer(2, bursts)),
    ("lookup", lookup),
    ("forward-one-flow", |bursts| forward(1, None, sink, bursts)),
    ("forward-shared-one-flow", |bursts| forward(1, None, shared_sink, bursts)),
    ("forward-32-flows", |bursts| forward(BURST, None, sink, bursts)),
    ("vlan-access-one-flow", |bursts| forward(1, Some(Vlans::ACCESS), sink, bursts)),
    ("vlan-access-32-flows", |bursts| forward(BURST, Some(Vlans::ACCESS), sink, bursts)),
    ("vlan-trunk-one-flow", |bursts| forward(1, Some(Vlans::TRUNK), sink, bursts)),
    ("vlan-push-one-flow", |bursts| forward(1, Some(Vlans::PUSH), sink, bursts)),
    ("vlan-pop-one-flow", |bursts| forward(1, Some(Vlans::POP), sink, bursts)),
    ("forward-limited", forward_limited),
    ("forward-guarded", forward_guarded),
    ("limit-rate", |bursts| forward_held(Held::RATE, bursts)),
    ("limit-storm", |bursts| forward_held(Held::STORM, bursts)),
    ("limit-addresses", |bursts| forward_held(Held::ADDRESSES, bursts)),
    ("limit-isolated", |bursts| forward_held(Held::ISOLATED, bursts)),
    ("limit-macs", |bursts| forward_held(Held::MACS, bursts)),
    ("limit-ips", |bursts| forward_held(Held::IPS, bursts)),
    ("forward-beside-capture", forward_beside_capture),
    ("forward-captured", forward_captured),
    ("bond-active-backup", |bursts| forward_to_bond(BondMode::ActiveBackup, bursts)),
    ("bond-balance-slb", |bursts| forward_to_bond(BondMode::BalanceSlb, bursts)),
    ("bond-balance-tcp", |bursts| forward_to_bond(BondMode::BalanceTcp, bursts)),
    ("capture-filter", capture_filter),
    ("flow-to-port", |bursts| forward_by(to(PortNo(2)), 1, bursts)),
    ("flow-tables-one-flow", |bursts| forward_by(TABLES.pipeline(), 1, bursts)),
    ("flow-tables-32-flows", |bursts| forward_by(apart(TABLES), BURST, bursts)),
    ("flow-normal", |bursts| forward_by(to(PortNo::NORMAL), 1, bursts)),
    ("flow-meter", |bursts| forward_by(flows::metered(), 1, bursts)),
    ("flow-group", |bursts| forward_by(flows::selected(), 1, bursts)),
    (FIRST_PACKET, first_packet),
];

/// The one case whose bursts are of one frame.
const FIRST_PACKET: &str = "flow-first-packet";

/// Tables that all frames go through.
const TABLES: Layers = Layers { tables: 10, rules: 100, masks: 4 };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [list] if list == "list" => {
            for (name, _) in CASES {
                println!("{name} {}", if name == FIRST_PACKET { 1 } else { BURST });
            }
        }
        [name, bursts] => {
            let (_, run) = CASES.iter().find(|(case, _)| case == name).unwrap();
            run(bursts.parse().unwrap());
        }
        _ => {
            eprintln!("usage: instructions CASE BURSTS | instructions list");
            std::process::exit(2);
        }
    }
}

/// What is counted. Its name is what valgrind is told.
#[inline(never)]
fn measured<R>(burst: impl FnOnce() -> R) -> R {
    burst()
}

fn receive(len: usize, shape: Shape, bursts: usize) {
    let mut guest = Guest::sender(len + 12, shape);
    let receiver = NetReceiver::new(Arc::clone(guest.slot()));
    let mut rx = RxQueue::new(Box::new(receiver), Arc::default());
    for _ in 0..bursts {
        assert_eq!(measured(|| rx.rx_burst(BURST).frames().len()), BURST);
        guest.recycle();
    }
}

fn transmit(len: usize, shape: Shape, bursts: usize) {
    // The frames come from another guest, since heads and bodies are copied apart.
    let mut from = Guest::sender(len + 12, Shape::SPLIT);
    let receiver = NetReceiver::new(Arc::clone(from.slot()));
    let mut rx = RxQueue::new(Box::new(receiver), Arc::default());
    let mut to = Guest::receiver(shape);
    let transmitter = NetTransmitter::new(Arc::clone(to.slot()));
    let mut tx = TxQueue::new(Box::new(transmitter), Arc::default());
    for _ in 0..bursts {
        let burst = rx.rx_burst(BURST);
        assert_eq!(measured(|| tx.tx_frames(burst.known())), BURST);
        drop(burst);
        from.recycle();
        to.recycle();
    }
}

/// What `ringway l2fwd` does: bursts of `size` frames get new addresses and go through a transmit
/// buffer; those of two are copied into packets and wait for others.
fn buffer(size: usize, bursts: usize) {
    let (mut from, mut to) = (Guest::sender(64 + 12, Shape::SPLIT), Guest::receiver(Shape::SPLIT));
    let receiver = NetReceiver::new(Arc::clone(from.slot()));
    let mut rx = RxQueue::new(Box::new(receiver), Arc::default());
    let transmitter = NetTransmitter::new(Arc::clone(to.slot()));
    let tx = TxQueue::new(Box::new(transmitter), Arc::default());
    // For ever: there is no pause.
    let options = TxBufferOptions { drain: Duration::MAX, retries: 0, direct: BURST };
    let mut tx = TxBuffer::new(tx, options);
    let pool = Pool::new("instructions", 256, DATA_ROOM).unwrap();
    let mut cache = pool.cache();
    for _ in 0..bursts {
        measured(|| {
            for _ in 0..BURST / size {
                let mut burst = rx.rx_burst(size);
                burst.for_each_head(|head| {
                    if let Some(mut ethernet) = EthernetMut::parse(head) {
                        ethernet.set_destination(station(1));
                        ethernet.set_source(station(2));
                    }
                });
                tx.push_burst(burst, 0, &mut cache);
                tx.drain(0, &mut cache);
            }
        });
        from.recycle();
        to.recycle();
    }
    assert_eq!(tx.queue().stats().snapshot().packets, (bursts * BURST) as u64);
}

fn station(number: usize) -> MacAddr {
    let [a, b, ..] = number.to_le_bytes();
    MacAddr([2, 0, 0, 0, b, a])
}

fn lookup(bursts: usize) {
    let fdb = Fdb::new(65_536, 2, 300);
    let keys: Vec<Key> = (0..1024).map(|number| Key::new(0, station(number))).collect();
    for key in &keys {
        fdb.write().learn(*key, fdb.hash(*key), 1);
    }
    for burst in keys.chunks(BURST).cycle().take(bursts) {
        let found = measured(|| {
            let hashes: [_; BURST] = std::array::from_fn(|index| fdb.hash(burst[index]));
            hashes.iter().for_each(|hash| fdb.prefetch(*hash));
            let found = burst.iter().zip(hashes).filter_map(|(key, hash)| fdb.find(*key, hash));
            found.map(|value| usize::from(black_box(value).port())).sum::<usize>()
        });
        assert_eq!(found, BURST);
    }
}

/// How the two ports of a bridge take part in VLANs.
#[derive(Clone, Copy)]
struct Vlans {
    /// Whether frames come in on a trunk, with a tag, instead of an access port.
    tagged: bool,
    /// Whether they go out on one.
    to_trunk: bool,
}

impl Vlans {
    const ACCESS: Self = Self { tagged: false, to_trunk: false };
    const TRUNK: Self = Self { tagged: true, to_trunk: true };
    const PUSH: Self = Self { tagged: false, to_trunk: true };
    const POP: Self = Self { tagged: true, to_trunk: false };
    /// The VLAN of all frames.
    const VLAN: u16 = 10;

    /// The settings of a trunk, or of an access port.
    fn port(is_trunk: bool) -> PortVlan {
        let (tag, trunks) = match is_trunk {
            true => (None, Some("1-100".parse().unwrap())),
            false => (Some(Self::VLAN), None),
        };
        PortVlan { tag, trunks, ..PortVlan::default() }
    }
}

/// A port that swallows frames, whose queue several workers use in turns.
fn shared_sink() -> TxQueue {
    SharedTxQueue::new(sink()).into()
}

/// Bursts of 64-byte frames between `flows` pairs of stations, to ports of a kind.
fn forward(flows: usize, vlans: Option<Vlans>, port: fn() -> TxQueue, bursts: usize) {
    forward_with(flows, vlans, port, bursts, |_| {});
}

/// The same for one pair, whose ports have limits of both kinds that let all through.
fn forward_limited(bursts: usize) {
    let limits = PortLimits {
        rx_rate: Some(Bits(1_000_000_000_000)),
        rx_burst: Some(Bits(1_000_000_000_000)),
        rx_packet_rate: Some(Frames(1_000_000_000)),
        rx_packet_burst: Some(Frames(1_000_000_000)),
        tx_rate: Some(Bits(1_000_000_000_000)),
        tx_burst: Some(Bits(1_000_000_000_000)),
        tx_packet_rate: Some(Frames(1_000_000_000)),
        tx_packet_burst: Some(Frames(1_000_000_000)),
        ..PortLimits::default()
    };
    let limit = |bench: &mut Bench| (0..2).for_each(|port| bench.limit(port, &limits));
    forward_with(1, None, sink, bursts, limit);
}

/// The same for a tenant's port: the addresses that it may send from, and a rate limit.
fn forward_guarded(bursts: usize) {
    let limits = PortLimits {
        rx_rate: Some(Bits(1_000_000_000_000)),
        rx_burst: Some(Bits(1_000_000_000_000)),
        ..PortLimits::default()
    };
    let guard = PortGuard {
        allowed_macs: [station(1000)].into(),
        allowed_ips: ["192.0.2.7".parse().unwrap(), "2001:db8:1::/64".parse().unwrap()].into(),
        ..PortGuard::default()
    };
    forward_with(1, None, sink, bursts, |bench| {
        bench.limit(0, &limits);
        bench.guard(0, &guard, &PortLimits::default());
    });
}

/// One limit of a port, which lets all through.
#[derive(Clone, Copy)]
struct Held {
    limits: fn(&mut PortLimits),
    guard: fn(&mut PortGuard),
}

impl Held {
    const NONE: Self = Self { limits: |_| {}, guard: |_| {} };
    const RATE: Self = Self {
        limits: |limits| {
            limits.rx_rate = Some(Bits(1_000_000_000_000));
            limits.rx_burst = Some(Bits(1_000_000_000_000));
        },
        ..Self::NONE
    };
    const STORM: Self = Self {
        limits: |limits| {
            limits.broadcast_packet_rate = Some(Frames(1_000_000));
            limits.multicast_packet_rate = Some(Frames(1_000_000));
            limits.unknown_packet_rate = Some(Frames(1_000_000));
        },
        ..Self::NONE
    };
    const ADDRESSES: Self = Self { guard: |guard| guard.max_addresses = Some(8), ..Self::NONE };
    const ISOLATED: Self = Self { guard: |guard| guard.isolated = true, ..Self::NONE };
    const MACS: Self =
        Self { guard: |guard| guard.allowed_macs = [station(1000)].into(), ..Self::NONE };
    const IPS: Self = Self {
        guard: |guard| guard.allowed_ips = ["192.0.2.7".parse().unwrap()].into(),
        ..Self::NONE
    };
}

/// The same for one pair, whose sender has one limit.
fn forward_held(held: Held, bursts: usize) {
    let (mut limits, mut guard) = (PortLimits::default(), PortGuard::default());
    (held.limits)(&mut limits);
    (held.guard)(&mut guard);
    forward_with(1, None, sink, bursts, |bench| {
        bench.limit(0, &limits);
        bench.guard(0, &guard, &limits);
    });
}

/// The same for one pair, while a port is captured that is neither of them.
fn forward_beside_capture(bursts: usize) {
    let mut reader = None;
    let prepare = |bench: &mut Bench| reader = capture(bench, &Capture::default(), 7).ok();
    forward_with(1, None, sink, bursts, prepare);
    assert_eq!(reader.unwrap().read(|_| {}), 0);
}

/// The same for one pair, whose sender's port is captured.
fn forward_captured(bursts: usize) {
    let mut reader = None;
    let prepare = |bench: &mut Bench| reader = capture(bench, &Capture::default(), 0).ok();
    forward_with(1, None, sink, bursts, prepare);
    let mut bytes = 0;
    reader.unwrap().read(|captured| bytes += captured.bytes.len());
    assert_eq!(bytes, bursts * BURST * 64);
}

/// The same for 32 pairs, to a bond of two members.
fn forward_to_bond(mode: BondMode, bursts: usize) {
    let bond = |bench: &mut Bench| bench.bond(1, switch::bench::bond(mode, &[2, 3]));
    forward_among(4, (BURST, None), sink, bursts, bond);
}

/// A rule that sends all frames to a port.
fn to(port: PortNo) -> Pipeline {
    flows::only(vec![Action::output(port)])
}

/// Tables by which frames from different addresses are different flows.
fn apart(layers: Layers) -> Pipeline {
    let mut pipeline = layers.pipeline();
    flows::tell_apart(&mut pipeline);
    pipeline
}

/// A data path of two ports whose frames go by these rules, and what its second port has sent.
fn by_rules(pipeline: Pipeline) -> (Bench, Arc<ethdev::QueueStats>) {
    let outputs = [sink(), sink()];
    let sent = Arc::clone(outputs[1].stats());
    let fdb = Arc::new(Fdb::new(65_536, 2, 300));
    // For rules that switch as usual.
    let key = Key::new(0, MacAddr([2, 0, 0, 0, 0, 1]));
    fdb.write().learn(key, fdb.hash(key), 1);
    let mut bench = Bench::new(fdb, outputs.into());
    bench.set_flows(Arc::new(pipeline));
    (bench, sent)
}

/// Bursts of so many flows, whose way is known, by rules.
fn forward_by(pipeline: Pipeline, flows: usize, bursts: usize) {
    let (mut bench, sent) = by_rules(pipeline);
    let frames: Vec<_> = (0..).take(flows).map(flows::frame).cycle().take(BURST).collect();
    let burst: Vec<Frame<'_>> = frames.iter().map(|frame| Frame::from_bytes(frame)).collect();
    // As they come from a receive queue.
    let burst = Burst::new(&burst).compared();
    bench.forward(burst, 0);
    for _ in 0..bursts {
        measured(|| bench.forward(burst, 0));
    }
    assert_eq!(sent.snapshot().packets, ((bursts + 1) * BURST) as u64);
}

/// Frames each of which is the first of its flow, and goes through 50 tables with 800 rules.
fn first_packet(bursts: usize) {
    let (mut bench, sent) = by_rules(apart(Layers::MANY));
    for flow in (0..).take(bursts) {
        let frame = flows::frame(flow);
        let burst = [Frame::from_bytes(&frame)];
        let burst = Burst::new(&burst).compared();
        measured(|| bench.forward(burst, 0));
    }
    assert_eq!(sent.snapshot().packets, bursts as u64);
}

/// A filter that looks at ports of UDP, on frames that it does not take: `udp port 53`, without IPv6.
fn capture_filter(bursts: usize) {
    let code = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let program = Program::new(&[
        code(0x28, 0, 0, 12),
        code(0x15, 0, 10, 0x800),
        code(0x30, 0, 0, 23),
        code(0x15, 0, 8, 17),
        code(0x28, 0, 0, 20),
        code(0x45, 6, 0, 0x1FFF),
        code(0xB1, 0, 0, 14),
        code(0x48, 0, 0, 14),
        code(0x15, 2, 0, 53),
        code(0x48, 0, 0, 16),
        code(0x15, 0, 1, 53),
        code(0x06, 0, 0, 65_535),
        code(0x06, 0, 0, 0),
    ]);
    let program = program.unwrap();
    let mut frame = [0; 64];
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[23] = 17;
    for _ in 0..bursts {
        let taken = measured(|| {
            let frames = (0..BURST).map(|_| black_box(&frame));
            frames.filter(|frame| program.run(&frame[..], frame.len()) == Outcome::Taken).count()
        });
        assert_eq!(taken, 0);
    }
}

fn forward_with(
    flows: usize,
    vlans: Option<Vlans>,
    port: fn() -> TxQueue,
    bursts: usize,
    prepare: impl FnOnce(&mut Bench),
) {
    forward_among(2, (flows, vlans), port, bursts, prepare);
}

/// The same in a switch with so many ports, of which the first sends.
fn forward_among(
    ports: usize,
    (flows, vlans): (usize, Option<Vlans>),
    port: fn() -> TxQueue,
    bursts: usize,
    prepare: impl FnOnce(&mut Bench),
) {
    let fdb = Arc::new(Fdb::new(65_536, 2, 300));
    let vlan = vlans.map_or(0, |_| Vlans::VLAN);
    let mut frames = [[0_u8; 64]; BURST];
    for (number, frame) in frames.iter_mut().enumerate() {
        let (to, from) = (station(number % flows), station(1000 + number % flows));
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&from.0);
        if vlans.is_some_and(|vlans| vlans.tagged) {
            frame[12..14].copy_from_slice(&0x8100_u16.to_be_bytes());
            frame[14..16].copy_from_slice(&vlan.to_be_bytes());
        } else {
            // TCP from 192.0.2.7.
            frame[12..18].copy_from_slice(&[0x08, 0, 0x45, 0, 0, 50]);
            frame[23..30].copy_from_slice(&[6, 0, 0, 192, 0, 2, 7]);
        }
        let key = Key::new(vlan, to);
        fdb.write().learn(key, fdb.hash(key), 1);
    }
    let burst: Vec<Frame<'_>> = frames.iter().map(|frame| Frame::from_bytes(frame)).collect();
    let outputs: Vec<TxQueue> = (0..ports).map(|_| port()).collect();
    let all: Vec<_> = outputs.iter().skip(1).map(|output| Arc::clone(output.stats())).collect();
    let mut bench = Bench::new(fdb, outputs);
    if let Some(vlans) = vlans {
        bench.set_vlan(0, &Vlans::port(vlans.tagged));
        bench.set_vlan(1, &Vlans::port(vlans.to_trunk));
    }
    prepare(&mut bench);
    // As they come from a receive queue.
    let burst = Burst::new(&burst).compared();
    for _ in 0..bursts {
        measured(|| bench.forward(burst, 0));
    }
    let len = match vlans {
        Some(Vlans { tagged: false, to_trunk: true }) => 68,
        Some(Vlans { tagged: true, to_trunk: false }) => 60,
        _ => 64,
    };
    let packets = (bursts * BURST) as u64;
    let sent: u64 = all.iter().map(|stats| stats.snapshot().packets).sum();
    let bytes: u64 = all.iter().map(|stats| stats.snapshot().bytes).sum();
    assert_eq!((sent, bytes), (packets, packets * len));
}
