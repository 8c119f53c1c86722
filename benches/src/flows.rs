//! Rules for a bridge of two ports, whose OpenFlow numbers are 1 and 2, and frames that go from the first
//! to the second by them.

use flow::{Change, Pipeline, Port};
use openflow::message::flow_mod::ANY_GROUP;
use openflow::message::group::{ALL_BUCKETS, Bucket, GroupCommand, GroupMod, GroupType, Selection};
use openflow::message::meter::{Band, Meter, MeterCommand, MeterMod};
use openflow::{Action, Field, Instructions, Match, PortNo};

/// Bytes of a frame.
pub const LEN: usize = 64;

/// Where all frames go to: 192.168.0.1.
const TO: u32 = 0xC0A8_0001;

/// The masks that the rules of one table may have.
pub const MAX_MASKS: u32 = 64;

/// A frame of TCP, of the flow of this number: it has an address of its own, 10.0.0.0 and following, of
/// 2²⁴ that there are.
#[must_use]
pub fn frame(flow: u32) -> [u8; LEN] {
    let mut frame = [0; LEN];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 6]);
    frame[26..30].copy_from_slice(&address(flow).to_be_bytes());
    frame[30..34].copy_from_slice(&TO.to_be_bytes());
    frame[34..38].copy_from_slice(&[4, 0, 0, 80]);
    frame[46] = 0x50;
    frame
}

const fn address(flow: u32) -> u32 {
    0x0A00_0000 | flow & 0x00FF_FFFF
}

/// A pipeline without rules.
///
/// # Panics
/// Never.
#[must_use]
pub fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::default();
    pipeline.ports.extend([(PortNo(1), Port::new(0)), (PortNo(2), Port::new(1))]);
    pipeline
}

/// Adds a rule.
///
/// # Panics
/// When it is refused.
#[expect(clippy::expect_used, reason = "for measuring programs only")]
pub fn add(
    pipeline: &mut Pipeline,
    table: u8,
    priority: u16,
    matching: Match,
    actions: Vec<Action>,
) {
    let add = Change::add(table, matching, Instructions::apply(actions)).with_priority(priority);
    pipeline.tables.change(&add, 0).expect("a rule that is possible");
}

/// One rule, for all that comes in on port 1, that does these.
#[must_use]
pub fn only(actions: Vec<Action>) -> Pipeline {
    let mut pipeline = pipeline();
    add(&mut pipeline, 0, 1, Match::new().with(Field::InPort, 1), actions);
    pipeline
}

/// The same through a meter that drops nothing.
///
/// # Panics
/// When it is refused.
#[must_use]
#[expect(clippy::expect_used, reason = "for measuring programs only")]
pub fn metered() -> Pipeline {
    let mut pipeline = pipeline();
    let bands = vec![Band { remark: None, rate: u32::MAX, burst: u32::MAX }];
    let change = MeterMod { command: MeterCommand::Add, meter: Meter { id: 1, flags: 1, bands } };
    pipeline.tables.change_meter(&change, 0).expect("a meter that is possible");
    let actions = vec![Action::Meter(1), Action::output(PortNo(2))];
    add(&mut pipeline, 0, 1, Match::new().with(Field::InPort, 1), actions);
    pipeline
}

/// The same through a group that selects one of four buckets by hash, which all send to port 2.
///
/// # Panics
/// When it is refused.
#[must_use]
#[expect(clippy::expect_used, reason = "for measuring programs only")]
pub fn selected() -> Pipeline {
    let mut pipeline = pipeline();
    let actions = || vec![Action::output(PortNo(2))];
    let (watch_port, watch_group) = (PortNo::ANY, ANY_GROUP);
    let bucket = |id| Bucket { id, weight: 1, watch_port, watch_group, actions: actions() };
    let buckets = (0..4).map(bucket).collect();
    let selection = Selection { method: "dp_hash".into(), parameter: 0, fields: Vec::new() };
    let (command, kind, group) = (GroupCommand::Add, GroupType::Select, 1);
    let bucket = ALL_BUCKETS;
    let change = GroupMod { command, kind, group, bucket, buckets, selection: Some(selection) };
    pipeline.tables.change_group(&change, 0).expect("a group that is possible");
    add(&mut pipeline, 0, 1, Match::new().with(Field::InPort, 1), vec![Action::Group(1)]);
    pipeline
}

/// Tables that packets go through one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// How many.
    pub tables: u8,
    /// Rules of each. The last of them is for the packets that come.
    pub rules: u32,
    /// Masks of the rules of each, [`MAX_MASKS`] at most. The last of them is for those packets, and
    /// has the lowest priority, so that all are tried.
    pub masks: u32,
}

impl Layers {
    /// 800 rules in 50 tables, each with 4 masks.
    pub const MANY: Self = Self { tables: 50, rules: 16, masks: 4 };

    /// The rules.
    #[must_use]
    pub fn pipeline(self) -> Pipeline {
        let mut pipeline = pipeline();
        for table in 0..self.tables {
            for rule in 0..self.rules {
                let is_last = rule + 1 == self.rules;
                let mask = if is_last { self.masks - 1 } else { rule % self.masks };
                // 16.0.0.0/24 and so on, of which nothing is sent.
                let to = if is_last { TO } else { 0x1000_0000 + (rule << 8) };
                let next = if table + 1 == self.tables {
                    Action::output(PortNo(2))
                } else {
                    Action::resubmit_table(table + 1)
                };
                let priority = u16::try_from(1000 - mask).unwrap_or_default();
                add(&mut pipeline, table, priority, matching(to, mask), vec![next]);
            }
        }
        pipeline
    }
}

/// IPv4 to an address, with the mask of this number.
#[must_use]
pub fn matching(to: u32, mask: u32) -> Match {
    let (to_bits, from_bits) = (32 - mask % 8, 8 - mask / 8);
    let prefix = |bits: u32| u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    let ip = Match::new().with(Field::EthType, 0x0800);
    let ip = ip.with_masked(Field::IpDst, to.into(), prefix(to_bits).into());
    ip.with_masked(Field::IpSrc, address(0).into(), prefix(from_bits).into())
}

/// IPv4 from the address of a flow.
#[must_use]
pub fn matching_from(flow: u32) -> Match {
    let ip = Match::new().with(Field::EthType, 0x0800);
    ip.with(Field::IpSrc, address(flow).into())
}

/// Has packets whose addresses they are from differ be told apart, by a rule that is for none of them.
pub fn tell_apart(pipeline: &mut Pipeline) {
    let ip = Match::new().with(Field::EthType, 0x0800);
    add(pipeline, 0, 2000, ip.with(Field::IpSrc, 1), Vec::new());
}
