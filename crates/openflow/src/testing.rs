//! Matches, actions and changes of flows at random, for tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::MacAddr;

use crate::action::{
    Algorithm, Bundle, Controller, Ct, CtZone, HashFields, Learn, LearnFlags, LearnSource,
    LearnSpec, LearnTarget, Multipath, Nat, NatKind, Sample, SampleDirection, Timeouts,
};
use crate::field::ones;
use crate::message::flow_mod::{Command, FlowFlags, FlowMod};
use crate::packet_in::Reason;
use crate::version::Version;
use crate::{Action, Field, Instructions, Match, PortNo, Subfield};

/// Those that messages have: which options of tunnels there are is said by these themselves.
fn fields() -> Vec<Field> {
    Field::all().iter().copied().filter(|field| *field != Field::TunOptions).collect()
}

/// Numbers at random, the same ones for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins at a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next 64 bits (Marsaglia's xorshift with a multiplication behind it).
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.bits() >> 16).checked_rem(limit).unwrap_or(0)
    }

    /// True once in `many` times.
    pub fn once_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// The place of one of as many things.
    pub fn place(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap_or(0)
    }

    /// One of them.
    pub fn one<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        all.get(self.place(all.len())).copied()
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }

    fn byte(&mut self) -> u8 {
        self.bits().to_be_bytes().first().copied().unwrap_or(0)
    }

    fn half(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn word(&mut self) -> u32 {
        u32::from(self.half()) << 16 | u32::from(self.half())
    }

    fn small(&mut self, limit: u64) -> u16 {
        u16::try_from(self.below(limit)).unwrap_or(0)
    }
}

/// Whether Open vSwitch reads and shows a field as it should: of some it forgets masks and zeroes, and it
/// has the size of masked ones wrong that are numbered as somebody's extensions.
fn is_whole(field: Field) -> bool {
    !(Field::TunErspanIdx..=Field::TunGtpuMsgtype).contains(&field)
}

/// What packets can be.
static KINDS: &[&[(Field, u128)]] = &[
    &[],
    &[(Field::EthType, 0x800)],
    &[(Field::EthType, 0x86DD)],
    &[(Field::EthType, 0x800), (Field::IpProto, 6)],
    &[(Field::EthType, 0x800), (Field::IpProto, 17)],
    &[(Field::EthType, 0x86DD), (Field::IpProto, 17)],
    &[(Field::EthType, 0x86DD), (Field::IpProto, 6)],
    &[(Field::EthType, 0x800), (Field::IpProto, 132)],
    &[(Field::EthType, 0x800), (Field::IpProto, 47)],
    &[(Field::EthType, 0x800), (Field::IpProto, 1)],
    &[(Field::EthType, 0x86DD), (Field::IpProto, 58)],
    &[
        (Field::EthType, 0x86DD),
        (Field::IpProto, 58),
        (Field::Icmpv6Type, 135),
        (Field::Icmpv6Code, 0),
    ],
    &[
        (Field::EthType, 0x86DD),
        (Field::IpProto, 58),
        (Field::Icmpv6Type, 136),
        (Field::Icmpv6Code, 0),
    ],
    &[(Field::EthType, 0x806)],
    &[(Field::EthType, 0x8035)],
    &[(Field::EthType, 0x8847)],
    &[(Field::EthType, 0x88CC)],
    &[(Field::DlVlan, 5)],
    &[(Field::DlVlan, 0xFFFF)],
    &[(Field::CtState, 0x21)],
];

/// A value and a mask that a match on a field may have.
fn value(random: &mut Random, field: Field) -> (u128, u128) {
    let all = match field {
        Field::CtState | Field::ArpOp => 0xFF,
        Field::NwTos => 0xFC,
        _ => field.full_mask(),
    };
    let bits = random.wide();
    // Few bits are more interesting than many.
    let number = if random.once_in(2) { bits & 0xFF } else { bits } & all;
    let number = match field {
        Field::InPort | Field::InPortOxm | Field::ActsetOutput => {
            let ports = [1, 2, 0xFFFE, 0x1234];
            let port = random.one(&ports).unwrap_or(1);
            let is_wide = field != Field::InPort;
            u128::from(if is_wide { PortNo::from_v10(port).0 } else { port.into() })
        }
        Field::NshTtl => number & 63,
        Field::NshMdtype => 1 + (number & 1),
        Field::VlanVid => number & 0xFFF | 0x1000,
        Field::IpFrag => random.one(&[0, 1, 3]).unwrap_or(0),
        _ if field.is_tun_metadata() => number & 0xFFFF_FFFF,
        _ => number,
    };
    let is_extension = field.headers().iter().any(|header| header.class.experimenter != 0);
    let may_mask = field.is_maskable() && !field.is_tun_metadata() && !is_extension;
    let is_masked = may_mask && random.once_in(2);
    let full = if field == Field::VlanVid { 0x1FFF } else { field.full_mask() };
    if !is_masked {
        return (number, full);
    }
    let width = u64::from(field.bits());
    let mask = match field.bits() {
        32 | 128 if random.once_in(2) => {
            // As many of the highest bits as that.
            let low = u16::try_from(1 + random.below(width - 1)).unwrap_or(1);
            full & !ones(low)
        }
        // Open vSwitch reads no masks of IPv6 that begin with a digit.
        128 => random.wide() | 15 << 124 | 1,
        _ => (random.wide() & full) | 1,
    };
    let mask = if field == Field::VlanVid { mask | 0x1000 } else { mask };
    (number & mask, mask)
}

/// A match.
pub fn matching(random: &mut Random) -> Match {
    let mut all = Match::new();
    for (field, value) in random.one(KINDS).unwrap_or_default() {
        all.set(*field, *value);
    }
    for _ in 0..random.below(6) {
        let Some(field) = random.one(&fields()) else { continue };
        let home = crate::matching::home(field);
        let is_new = all.get(field).is_none() && all.get(home).is_none();
        let is_left = [Field::PacketType, Field::CtNwProto, Field::VlanTci].contains(&field);
        if is_new
            && is_whole(field)
            && !is_left
            && !field.headers().is_empty()
            && all.may_have(field)
        {
            let (value, mask) = value(random, field);
            all.set_masked(field, value, mask);
        }
    }
    all
}

/// Some bits of a field, one that can be written if so asked for.
fn part(random: &mut Random, is_written: bool, matching: &Match) -> Subfield {
    let fits = |field: &Field| {
        // Fields of a connection are for `ct` only.
        let is_usual = is_whole(*field)
            && ![Field::CtMark, Field::CtLabel].contains(field)
            && !field.is_tun_metadata();
        is_usual
            && (!is_written || field.is_writable())
            && !field.headers().is_empty()
            && matching.may_have(*field)
    };
    let field = (0..20).find_map(|_| random.one(&fields()).filter(fits));
    let field = field.unwrap_or(Field::Reg0);
    if random.once_in(3) {
        return Subfield { bits: field.bits().min(64), ..Subfield::whole(field) };
    }
    let offset = random.small(field.bits().into());
    let bits = 1 + random.small(u64::from((field.bits() - offset).min(64)));
    Subfield { field, offset, bits }
}

fn port(random: &mut Random) -> PortNo {
    let ports = [
        PortNo(1),
        PortNo(2),
        PortNo(0x1234),
        PortNo::LOCAL,
        PortNo::IN_PORT,
        PortNo::NORMAL,
        PortNo::FLOOD,
        PortNo::ALL,
        PortNo::CONTROLLER,
    ];
    random.one(&ports).unwrap_or(PortNo::LOCAL)
}

/// A few actions that fit packets.
pub fn actions(random: &mut Random, matching: &Match) -> Vec<Action> {
    let count = random.below(5);
    (0..count).map(|_| action(random, matching, 3)).collect()
}

fn action(random: &mut Random, matching: &Match, depth: u8) -> Action {
    match random.below(30) {
        0..4 => {
            let port = port(random);
            let is_controller = port == PortNo::CONTROLLER;
            Action::Output { port, max_len: if is_controller { random.half() } else { 0 } }
        }
        4 => Action::OutputField { source: part(random, false, matching), max_len: 65_535 },
        5 => Action::OutputTruncated { port: PortNo(3), max_len: 14 + u32::from(random.byte()) },
        6 => controller(random),
        7 => Action::Group(random.word()),
        8 => Action::Bundle(Box::new(Bundle {
            fields: random.one(&HASHES).unwrap_or(HashFields::EthSrc),
            basis: random.half(),
            algorithm: Algorithm::Hrw,
            members: vec![PortNo(1), PortNo(2), PortNo::LOCAL],
            target: None,
        })),
        9..13 => set_field(random, matching),
        13 => {
            let target = part(random, true, matching);
            let value = u64::try_from(u128::from(random.bits()) & ones(target.bits)).unwrap_or(0);
            Action::Load { target, value }
        }
        14 => {
            let (source, target) = (part(random, false, matching), part(random, true, matching));
            let bits = source.bits.min(target.bits);
            Action::Move {
                source: Subfield { bits, ..source },
                target: Subfield { bits, ..target },
            }
        }
        15 => old(random),
        16 => Action::Push(part(random, false, matching)),
        17 => Action::Pop(part(random, true, matching)),
        18 => Action::Resubmit {
            port: random.once_in(3).then(|| PortNo(random.small(0xFF00).into())),
            table: Some(random.byte() & 0x7F),
            ct: false,
        },
        19 if depth > 0 => {
            let count = random.below(3);
            Action::Clone((0..count).map(|_| action(random, matching, depth - 1)).collect())
        }
        20 => learn(random),
        21 => Action::Multipath(Box::new(Multipath {
            fields: random.one(&HASHES).unwrap_or(HashFields::EthSrc),
            basis: random.half(),
            algorithm: random.one(&ALGORITHMS).unwrap_or(Algorithm::Hrw),
            max_link: random.small(100),
            arg: random.word(),
            target: Subfield { field: Field::Reg3, offset: 4, bits: 16 },
        })),
        22 => Action::FinTimeout { idle: random.small(3), hard: random.small(3) },
        23 => Action::Sample(Box::new(Sample {
            probability: random.half() | 1,
            collector_set_id: random.word(),
            obs_domain_id: random.word(),
            obs_point_id: random.word(),
            sampling_port: if random.once_in(2) { PortNo::ANY } else { PortNo(7) },
            direction: if random.once_in(2) {
                SampleDirection::Default
            } else {
                SampleDirection::Egress
            },
        })),
        24 | 25 => ct(random),
        26 => Action::Note((0..6).map(|_| random.byte()).collect()),
        27 => Action::CheckPktLarger {
            len: random.half(),
            target: Subfield { field: Field::Reg1, offset: random.small(32), bits: 1 },
        },
        _ => plain(random),
    }
}

static HASHES: [HashFields; 3] =
    [HashFields::EthSrc, HashFields::SymmetricL4, HashFields::SymmetricL3L4Udp];
static ALGORITHMS: [Algorithm; 4] =
    [Algorithm::ModuloN, Algorithm::HashThreshold, Algorithm::Hrw, Algorithm::IterHash];

fn plain(random: &mut Random) -> Action {
    let all = [
        Action::StripVlan,
        Action::PopVlan,
        Action::DecTtl(None),
        Action::DecTtl(Some(vec![1, 2])),
        Action::SetQueue(5),
        Action::PopQueue,
        Action::Exit,
        Action::CtClear,
        Action::DecMplsTtl,
        Action::PushVlan { ethertype: 0x8100 },
        Action::PushMpls { ethertype: 0x8847 },
        Action::PopMpls { ethertype: 0x800 },
        Action::SetMplsTtl(7),
        Action::SetMplsTc(3),
        Action::SetMplsLabel(99),
        Action::DeleteField(Field::TunMetadata3),
        Action::Decap { packet_type: 0xFFFE },
        Action::DecNshTtl,
    ];
    let at = random.place(all.len());
    all.into_iter().nth(at).unwrap_or(Action::Exit)
}

/// Actions of OpenFlow 1.0.
fn old(random: &mut Random) -> Action {
    match random.below(12) {
        0 => Action::SetVlanVid { vid: random.half() & 0xFFF, push: random.once_in(2) },
        1 => Action::SetVlanPcp { pcp: random.byte() & 7, push: random.once_in(2) },
        2 => Action::SetEthSrc(MacAddr([2, 0, 0, 0, 0, random.byte()])),
        3 => Action::SetEthDst(MacAddr([2, 0, 0, 0, 0, random.byte()])),
        4 => Action::SetIpSrc(Ipv4Addr::from_bits(random.word())),
        5 => Action::SetIpDst(Ipv4Addr::from_bits(random.word())),
        6 => Action::SetNwTos(random.byte() & 0xFC),
        7 => Action::SetL4Src(random.half()),
        8 => Action::SetL4Dst(random.half()),
        9 => Action::SetNwTtl(random.byte()),
        10 => Action::Enqueue { port: PortNo(2), queue: random.word() },
        _ => Action::SetTunnel {
            id: random.bits() >> (random.below(2) * 40),
            wide: random.once_in(2),
        },
    }
}

fn set_field(random: &mut Random, matching: &Match) -> Action {
    let Subfield { field, .. } = part(random, true, matching);
    let may = ![Field::InPortOxm, Field::VlanVid].contains(&field);
    let field = if may { field } else { Field::Reg5 };
    let (value, mask) = value(random, field);
    let mask = if mask == field.full_mask() { field.byte_mask() } else { mask };
    Action::SetField { field, value, mask }
}

fn controller(random: &mut Random) -> Action {
    Action::Controller(Box::new(Controller {
        max_len: if random.once_in(2) { u16::MAX } else { random.half() },
        id: random.small(3),
        reason: if random.once_in(2) { Reason::ACTION } else { Reason::INVALID_TTL },
        userdata: (0..random.below(9)).map(|_| random.byte()).collect(),
        pause: random.once_in(2),
        meter: if random.once_in(2) { u32::MAX } else { 9 },
    }))
}

fn learn(random: &mut Random) -> Action {
    let whole = |field: Field, source: LearnSource, target: LearnTarget| LearnSpec {
        bits: field.bits(),
        source,
        target,
    };
    let field = |field: Field| LearnSource::Field { field, offset: 0 };
    let specs = vec![
        whole(
            Field::EthDst,
            field(Field::EthSrc),
            LearnTarget::Match { field: Field::EthDst, offset: 0 },
        ),
        LearnSpec {
            bits: 12,
            source: field(Field::VlanTci),
            target: LearnTarget::Match { field: Field::VlanTci, offset: 0 },
        },
        whole(
            Field::Reg2,
            LearnSource::Value(random.word().into()),
            LearnTarget::Match { field: Field::Reg2, offset: 0 },
        ),
        LearnSpec {
            bits: 16,
            source: LearnSource::Value(random.half().into()),
            target: LearnTarget::Load { field: Field::Reg3, offset: 8 },
        },
        whole(
            Field::InPort,
            field(Field::InPort),
            LearnTarget::Load { field: Field::InPort, offset: 0 },
        ),
        whole(Field::Reg1, field(Field::Reg1), LearnTarget::Output),
    ];
    let specs = specs.into_iter().filter(|_| !random.once_in(3)).collect();
    Action::Learn(Box::new(Learn {
        timeouts: Timeouts { idle: random.small(3), hard: random.small(3) },
        fin_timeouts: Timeouts { idle: random.small(2), hard: random.small(2) },
        priority: if random.once_in(2) { 0x8000 } else { random.half() },
        cookie: u64::from(random.byte() & 1),
        flags: LearnFlags {
            send_flow_removed: random.once_in(2),
            delete_learned: random.once_in(2),
        },
        table: random.byte() & 0x7F,
        limit: random.small(2).into(),
        result: random.once_in(3).then_some(Subfield { field: Field::Reg4, offset: 3, bits: 1 }),
        specs,
    }))
}

fn ct(random: &mut Random) -> Action {
    let commit = random.once_in(2);
    let mut actions = Vec::new();
    if random.once_in(2) {
        let kinds = [NatKind::Source, NatKind::Destination];
        let kind = random.one(&kinds).filter(|_| commit).unwrap_or(NatKind::Existing);
        let is_v6 = random.once_in(3);
        let address = |last: u16| -> IpAddr {
            if is_v6 {
                Ipv6Addr::new(0xFD00, 0, 0, 0, 0, 0, 0, last).into()
            } else {
                Ipv4Addr::from_bits(0x0A00_0000 | u32::from(last)).into()
            }
        };
        let has_range = kind != NatKind::Existing && random.once_in(2);
        actions.push(Action::Nat(Box::new(Nat {
            kind,
            flags: if has_range { random.one(&[0, 4, 8, 16, 12]).unwrap_or(0) } else { 0 },
            addresses: has_range.then(|| (address(1), random.once_in(2).then(|| address(9)))),
            ports: (has_range && random.once_in(2)).then(|| (80, random.once_in(2).then_some(90))),
        })));
    }
    if commit && random.once_in(2) {
        let mask = Field::CtMark.byte_mask();
        let value = random.word().into();
        actions.push(Action::SetField { field: Field::CtMark, value, mask });
    }
    Action::Ct(Box::new(Ct {
        commit,
        force: commit && random.once_in(3),
        zone: match random.below(3) {
            0 => CtZone::Field(Subfield { field: Field::Reg7, offset: 0, bits: 16 }),
            1 => CtZone::Number(random.half()),
            _ => CtZone::Number(0),
        },
        table: random.once_in(2).then(|| random.byte() & 0x7F),
        alg: 0,
        actions,
    }))
}

/// A change of flows that `version` can express.
pub fn flow_mod(random: &mut Random, version: Version) -> FlowMod {
    let command = match random.below(8) {
        0 => Command::Modify,
        1 => Command::ModifyStrict,
        2 => Command::Delete,
        3 => Command::DeleteStrict,
        _ => Command::Add,
    };
    let matching = matching(random);
    let mut instructions = Instructions::apply(actions(random, &matching));
    if version > Version::V10 && random.once_in(4) {
        instructions.metadata = random.once_in(2).then(|| (random.bits(), u64::MAX));
        instructions.clear = random.once_in(2);
        instructions.goto_table = random.once_in(2).then_some(200);
        instructions.write = random.once_in(2).then(|| vec![Action::output(port(random))]);
    }
    let flags = random.one(&[
        FlowFlags::NONE,
        FlowFlags::SEND_FLOW_REMOVED,
        FlowFlags::CHECK_OVERLAP,
        FlowFlags::SEND_FLOW_REMOVED.with(FlowFlags::NO_BYTE_COUNTS),
    ]);
    FlowMod {
        command,
        table: random.byte() & 0x7F,
        matching,
        priority: if random.once_in(3) { 0x8000 } else { random.half() },
        new_cookie: if random.once_in(2) { 0 } else { random.bits() },
        idle_timeout: random.small(3),
        hard_timeout: random.small(3),
        importance: random.small(3),
        flags: flags.unwrap_or_default(),
        out_port: if command.is_delete() && random.once_in(2) { PortNo(4) } else { PortNo::ANY },
        instructions,
        ..FlowMod::default()
    }
}
