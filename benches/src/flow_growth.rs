//! How the cost of a frame grows on a bridge that goes by rules: with rules, tables, masks and flows of
//! packets; and what is left of the rate while crafted packets come, and while rules change. One
//! thread without devices, bursts of 32 frames of 64 bytes.
//!
//! Usage: `flow-growth [BURSTS [DIMENSION [VALUE]]]`; prints lines of dimension, value and median cycles per frame,
//! with a tab between; behind `left-..` come shares of the rate in per cent instead.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a measuring tool that trusts itself"
)]

use std::sync::Arc;

use benches::flows::{self, Layers};
use benches::sink::sink;
use eal::clock;
use flow::{Change, Pipeline};
use openflow::{Action, Field, Instructions, PortNo};
use packet::{BURST, Burst, Frame};
use switch::bench::Bench;
use switch::fdb::Fdb;

/// Tables and rules of most cases.
const USUAL: Layers = Layers { tables: 10, rules: 100, masks: 4 };

/// Flows of packets of most cases.
const FLOWS: u32 = 1024;

/// Packets a second that make 0.7 Mb/s of 64 bytes.
const CRAFTED: u64 = 700_000 / (64 * 8);

/// Rules that are changed in a second, and how many of them at once.
const CHANGES: u64 = 100_000;
const AT_ONCE: u64 = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bursts = arguments.first().map_or(5_000, |text| text.parse().unwrap());
    let is_asked = |dimension: &str| arguments.get(1).is_none_or(|asked| asked == dimension);
    let is_wanted = |value: &str| arguments.get(2).is_none_or(|wanted| wanted == value);
    for (dimension, values, show) in DIMENSIONS {
        for value in
            values.iter().filter(|value| is_asked(dimension) && is_wanted(&value.to_string()))
        {
            println!("{dimension}\t{value}\t{:.1}", show(*value, bursts));
        }
    }
}

/// What grows: its name, its values, and what is shown of one, for so many bursts.
type Dimension = (&'static str, &'static [u32], fn(u32, usize) -> f64);

const DIMENSIONS: [Dimension; 14] = [
    ("rules", &[10, 100, 1_000, 10_000, 100_000, 1_000_000], |rules, bursts| {
        // One more has flows be told apart.
        known(&apart(Layers { tables: 1, rules: rules - 1, masks: 1 }), FLOWS, bursts)
    }),
    ("tables", &[1, 10, 50, 100, 250], |tables, bursts| {
        known(&apart(Layers { tables: tables as u8, rules: 16, masks: 4 }), FLOWS, bursts)
    }),
    ("masks", &[1, 4, 16, 64], |masks, bursts| {
        known(&apart(Layers { masks, ..USUAL }), FLOWS, bursts)
    }),
    ("packet-flows", &[1, 32, 1_024, 32_768, 1_000_000], |flows, bursts| {
        known(&apart(USUAL), flows, bursts)
    }),
    ("first-packet-by-tables", &[1, 10, 50, 100, 250], |tables, bursts| {
        first(&apart(Layers { tables: tables as u8, rules: 16, masks: 4 }), bursts / 16)
    }),
    ("first-packet-by-masks", &[1, 4, 16, 64], |masks, bursts| {
        first(&apart(Layers { masks, ..USUAL }), bursts / 16)
    }),
    ("left-beside-crafted", &[1, 32, 1_024], |flows, _| {
        let masks = apart(Layers { tables: 1, rules: 64, masks: 64 });
        100.0 * beside_crafted(&masks, flows)
    }),
    ("left-while-rules-change", &[1, 32, 1_024], |flows, _| {
        100.0 * while_changing(flows, Rules::Shared, Changes::ElseWhere)
    }),
    ("left-while-each-has-a-rule", &[1, 32, 1_024], |flows, _| {
        100.0 * while_changing(flows, Rules::Own, Changes::ElseWhere)
    }),
    ("left-while-rules-are-near", &[1, 32, 1_024], |flows, _| {
        100.0 * while_changing(flows, Rules::Shared, Changes::Near)
    }),
    ("left-while-one-is-for-a-flow", &[1, 32, 1_024], |flows, _| {
        100.0 * while_changing(flows, Rules::Own, Changes::OneOfTheirs)
    }),
    ("left-while-their-rules-change", &[1, 32, 1_024], |flows, _| {
        100.0 * while_changing(flows, Rules::Own, Changes::Theirs)
    }),
    ("left-while-their-packets-change", &[1, 32, 1_024], |flows, _| {
        100.0 * while_changing(flows, Rules::Own, Changes::TheirPackets)
    }),
    ("left-while-their-ways-change", &[1, 32, 1_024], |flows, _| {
        100.0 * while_changing(flows, Rules::Own, Changes::TheirWays)
    }),
];

/// Tables by which frames from different addresses are different flows.
fn apart(layers: Layers) -> Arc<Pipeline> {
    let mut pipeline = layers.pipeline();
    flows::tell_apart(&mut pipeline);
    Arc::new(pipeline)
}

/// A data path that goes by rules.
struct Path {
    bench: Bench,
    random: u64,
}

impl Path {
    fn new(pipeline: &Arc<Pipeline>) -> Self {
        let fdb = Arc::new(Fdb::new(1024, 2, 300));
        let mut bench = Bench::new(fdb, vec![sink(), sink()]);
        bench.set_flows(Arc::clone(pipeline));
        Self { bench, random: 88_172_645_463_325_252 }
    }

    /// Has a burst go through; gives how many cycles that took.
    fn burst(&mut self, mut flow: impl FnMut() -> u32) -> u64 {
        let frames: [_; BURST] = std::array::from_fn(|_| flows::frame(flow()));
        let frames = frames.each_ref().map(|frame| Frame::from_bytes(frame));
        let start = clock::now();
        self.bench.forward(Burst::new(&frames).compared(), 0);
        clock::now() - start
    }

    /// The same of so many flows, any of which may be next.
    fn mixed(&mut self, flows: u32) -> u64 {
        let mut random = self.random;
        let cycles = self.burst(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 16) as u32 % flows
        });
        self.random = random;
        cycles
    }

    /// Has each of so many flows be known.
    fn meet(&mut self, flows: u32) {
        // Twice, since a cache that grows forgets.
        for _ in 0..2 {
            let mut all = 0..flows;
            for _ in 0..flows.div_ceil(BURST as u32) {
                self.burst(|| all.next().unwrap_or(0));
            }
        }
    }
}

fn median(mut cycles: Vec<u64>) -> f64 {
    cycles.sort_unstable();
    cycles[cycles.len() / 2] as f64 / BURST as f64
}

/// Cycles for a frame of a flow that has been there.
fn known(pipeline: &Arc<Pipeline>, flows: u32, bursts: usize) -> f64 {
    let mut path = Path::new(pipeline);
    path.meet(flows);
    median((0..bursts).map(|_| path.mixed(flows)).collect())
}

/// Cycles for the first frame of a flow.
fn first(pipeline: &Arc<Pipeline>, bursts: usize) -> f64 {
    let mut path = Path::new(pipeline);
    let mut flow = 0_u32..;
    median((0..bursts).map(|_| path.burst(|| flow.next().unwrap())).collect())
}

/// How often both are measured in turn.
const TURNS: u64 = 40;

/// How much of its rate good traffic keeps while crafted packets come, each of which is another flow.
fn beside_crafted(pipeline: &Arc<Pipeline>, flows: u32) -> f64 {
    let mut path = Path::new(pipeline);
    path.meet(flows);
    let (turn, pause) = (clock::hz() / 100, clock::hz() / CRAFTED);
    let mut crafted = 1 << 20_u32..;
    let (mut alone, mut beside) = (0, 0);
    for _ in 0..TURNS {
        alone += sent_in(turn, || path.mixed(flows));
        let mut spent = 0;
        beside += sent_in(turn, || {
            let mut cycles = path.mixed(flows);
            spent += cycles;
            if spent >= pause {
                spent = 0;
                let frame = flows::frame(crafted.next().unwrap());
                let start = clock::now();
                let burst = [Frame::from_bytes(&frame)];
                path.bench.forward(Burst::new(&burst).compared(), 0);
                cycles += clock::now() - start;
            }
            cycles
        });
    }
    beside as f64 / alone as f64
}

/// Bursts that are sent in so many cycles of the data path.
fn sent_in(cycles: u64, mut burst: impl FnMut() -> u64) -> u64 {
    let (mut spent, mut sent) = (0, 0);
    while spent < cycles {
        spent += burst();
        sent += 1;
    }
    sent
}

/// Which rules flows go by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// All by the same.
    Shared,
    /// Each by one of its own, in the first table.
    Own,
}

/// What rules that change are about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changes {
    /// Packets to where no flow goes.
    ElseWhere,
    /// Packets to where all flows go, from where none comes.
    Near,
    /// The same, and packets of a single flow.
    OneOfTheirs,
    /// The flows' own packets, a hundred flows each time: these have another value beside them, for which no other
    /// rule asks.
    Theirs,
    /// The same, and what is another value is in the packets.
    TheirPackets,
    /// The flows' own packets go on to other tables each time, or get a tag: each goes through the tables anew.
    TheirWays,
}

impl Changes {
    /// Whether all are about the flows' own packets.
    const fn are_theirs(self) -> bool {
        matches!(self, Self::Theirs | Self::TheirPackets | Self::TheirWays)
    }
}

/// How much of its rate traffic keeps while rules of the tables that it goes through change, a hundred
/// at once. It is the same traffic with and without, and what it takes to change the rules is no worker's: both are
/// measured when that is done.
fn while_changing(flows: u32, rules: Rules, changes: Changes) -> f64 {
    let mut pipeline = USUAL.pipeline();
    flows::tell_apart(&mut pipeline);
    if rules == Rules::Own {
        for flow in 0..flows {
            let to = vec![Action::resubmit_table(1)];
            flows::add(&mut pipeline, 0, 3000, flows::matching_from(flow), to);
        }
    }
    if changes.are_theirs() {
        replace(&mut pipeline, (TURNS * 5, changes), flows, flows);
    }
    let mut path = Path::new(&Arc::new(pipeline.clone()));
    path.meet(flows);
    let turn = clock::hz() / (CHANGES / AT_ONCE);
    let (mut alone, mut changing) = (0, 0);
    let mut versions = Vec::new();
    for number in 0..TURNS * 5 {
        match changes {
            Changes::ElseWhere | Changes::Near => change(&mut pipeline, number, changes),
            Changes::OneOfTheirs => {
                change(&mut pipeline, number, Changes::Near);
                replace(&mut pipeline, (number, changes), 1, flows);
            }
            Changes::Theirs | Changes::TheirPackets | Changes::TheirWays => {
                replace(&mut pipeline, (number, changes), AT_ONCE as u32, flows);
            }
        }
        let version = Arc::new(pipeline.clone());
        versions.push(Arc::clone(&version));
        alone += sent_in(turn, || path.mixed(flows));
        let start = clock::now();
        path.bench.set_flows(version);
        let spent = clock::now() - start;
        changing += sent_in(turn.saturating_sub(spent), || path.mixed(flows));
    }
    changing as f64 / alone as f64
}

/// Adds rules that none of the frames is for, or takes those away that were added before.
fn change(pipeline: &mut Pipeline, number: u64, changes: Changes) {
    let table = (number / 2 % u64::from(USUAL.tables)) as u8;
    for rule in 0..AT_ONCE as u32 {
        let (matching, priority) = match changes {
            Changes::ElseWhere => {
                (flows::matching(0x2000_0000 + (rule << 8), rule % USUAL.masks), 500)
            }
            _ => (flows::matching_from(0x0080_0000 + rule), 4000),
        };
        let change = match number % 2 {
            0 => {
                let drop = Instructions::apply(vec![Action::output(PortNo(2))]);
                Change::add(table, matching, drop).with_priority(priority)
            }
            _ => Change::delete(Some(table), matching),
        };
        pipeline.tables.change(&change, 0).unwrap();
    }
}

/// Has some of the flows go by other rules of their own than before.
fn replace(pipeline: &mut Pipeline, (number, changes): (u64, Changes), count: u32, flows: u32) {
    for flow in 0..count.min(flows) {
        let flow = (number as u32 * count + flow) % flows;
        let actions = match changes {
            Changes::TheirPackets => vec![set(Field::EthDst, number), Action::resubmit_table(1)],
            Changes::TheirWays => other_way(number),
            _ => vec![set(Field::Metadata, number), Action::resubmit_table(1)],
        };
        flows::add(pipeline, 0, 3000, flows::matching_from(flow), actions);
    }
}

/// Writes another value each time.
fn set(field: Field, number: u64) -> Action {
    Action::SetField { field, value: number.into(), mask: field.full_mask() }
}

/// Sends packets another way each time: to a table, behind that, or to the first with a tag.
fn other_way(number: u64) -> Vec<Action> {
    match number % 3 {
        0 => vec![Action::resubmit_table(1)],
        1 => vec![Action::resubmit_table(2)],
        _ => vec![Action::PushVlan { ethertype: 0x8100 }, Action::resubmit_table(1)],
    }
}
