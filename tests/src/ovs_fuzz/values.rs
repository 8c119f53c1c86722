use openflow::testing::Random;
use openflow::{Field, Match, PortNo};

/// Ports of the bridges, by their OpenFlow numbers.
pub const PORTS: u16 = 5;

/// Ports by which packets go on to another bridge, which has the same ones for it.
pub const PATCHES: [u16; 2] = [11, 12];

/// Ports of that bridge, behind which frames are looked at.
pub const SECOND_PORTS: u16 = 2;

/// What packets are, by their types.
const KINDS: [&[(Field, u128)]; 23] = [
    &[(Field::EthType, 0x0800)],
    &[(Field::EthType, 0x86DD)],
    &[(Field::EthType, 0x0800), (Field::IpProto, 6)],
    &[(Field::EthType, 0x0800), (Field::IpProto, 6)],
    &[(Field::EthType, 0x0800), (Field::IpProto, 17)],
    &[(Field::EthType, 0x0800), (Field::IpProto, 17)],
    &[(Field::EthType, 0x0800), (Field::IpProto, 132)],
    &[(Field::EthType, 0x0800), (Field::IpProto, 1)],
    &[(Field::EthType, 0x0800), (Field::IpProto, 2)],
    &[(Field::EthType, 0x0800), (Field::IpProto, 47)],
    &[(Field::EthType, 0x86DD), (Field::IpProto, 6)],
    &[(Field::EthType, 0x86DD), (Field::IpProto, 17)],
    &[(Field::EthType, 0x86DD), (Field::IpProto, 132)],
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
    &[(Field::EthType, 0x0806)],
    &[(Field::EthType, 0x8035)],
    &[(Field::EthType, 0x88CC)],
    &[(Field::EthType, 0x8847)],
    &[(Field::EthType, 0x8848)],
    &[(Field::EthType, 0x894F)],
    &[(Field::EthType, 0x894F), (Field::NshMdtype, 1)],
];

/// What a packet is by its types; rarely nothing is said.
pub fn kind(random: &mut Random) -> &'static [(Field, u128)] {
    random.one(&KINDS).unwrap_or_default()
}

const MACS: [u128; 6] = [
    0x0200_0000_0001,
    0x0200_0000_0002,
    0x0200_0000_0103,
    0xFFFF_FFFF_FFFF,
    0x0100_5E00_0001,
    0x3333_0000_0001,
];
const TYPES: [u128; 7] = [0x0800, 0x86DD, 0x0806, 0x8847, 0x88CC, 0x9000, 0x05FF];
const ADDRESSES: [u128; 5] = [0x0A00_0001, 0x0A00_0002, 0x0A00_0102, 0xC0A8_0001, 0xE000_0001];
const LONG: [u128; 4] =
    [0x2001_0DB8 << 96 | 1, 0x2001_0DB8 << 96 | 1 << 64 | 2, 0xFE80 << 112 | 3, 0xFF02 << 112 | 1];
const PROTOCOLS: [u128; 6] = [6, 17, 1, 58, 132, 47];
const NUMBERS: [u128; 6] = [53, 80, 443, 1000, 0x8001, 0];
const TAGS: [u128; 6] = [0, 0, 0x1000, 0x1001, 0x100A, 0xF00A];

/// One of the few values that are used of a field, so that rules and packets meet.
pub fn usual(random: &mut Random, field: Field) -> u128 {
    let of = |random: &mut Random, all: &[u128]| random.one(all).unwrap_or_default();
    match field {
        Field::InPort | Field::InPortOxm => 1 + u128::from(random.below(u64::from(PORTS))),
        Field::ActsetOutput => of(random, &[1, 2, 3, PortNo::UNSET.0.into()]),
        Field::EthSrc | Field::ArpSha | Field::ArpTha | Field::NdSll | Field::NdTll => {
            of(random, &MACS[..4])
        }
        Field::EthDst => of(random, &MACS),
        Field::EthType => of(random, &TYPES),
        Field::VlanTci => of(random, &TAGS),
        Field::IpSrc | Field::IpDst | Field::ArpSpa | Field::ArpTpa => of(random, &ADDRESSES),
        Field::Ipv6Src | Field::Ipv6Dst | Field::NdTarget => of(random, &LONG),
        Field::Ipv6Label => of(random, &[0, 1, 0xFFFFF]),
        Field::IpProto => of(random, &PROTOCOLS),
        Field::ArpOp => of(random, &[1, 2, 3]),
        Field::NwTos => of(random, &[0, 0x28, 0xFC]),
        Field::IpDscp => of(random, &[0, 10, 63]),
        Field::IpEcn => of(random, &[0, 1, 3]),
        Field::NwTtl => of(random, &[0, 1, 2, 64, 255]),
        Field::IpFrag => of(random, &[0, 0, 0, 1, 3]),
        Field::TcpSrc | Field::TcpDst | Field::UdpSrc | Field::UdpDst => of(random, &NUMBERS),
        Field::SctpSrc | Field::SctpDst => of(random, &NUMBERS),
        Field::TcpFlags => of(random, &[0x02, 0x12, 0x10, 0x011, 0x104]),
        Field::IcmpType => of(random, &[0, 8, 3]),
        Field::Icmpv6Type => of(random, &[128, 129, 135, 136]),
        Field::IcmpCode | Field::Icmpv6Code => of(random, &[0, 1]),
        Field::VlanVid => of(random, &[0x1000, 0x1001, 0x100A]),
        Field::DlVlan => of(random, &[0, 1, 10]),
        Field::VlanPcp | Field::DlVlanPcp => of(random, &[0, 7]),
        Field::NdReserved => of(random, &[0, 5]),
        Field::NdOptionsType => of(random, &[0, 1, 2]),
        Field::MplsLabel => of(random, &[3, 16, 0xFFFFF]),
        Field::MplsTc => of(random, &[0, 7]),
        Field::MplsBos => of(random, &[0, 1]),
        Field::MplsTtl => of(random, &[0, 1, 2, 64]),
        Field::NshFlags => of(random, &[0, 1, 2, 3]),
        Field::NshTtl => of(random, &[0, 1, 2, 63]),
        Field::NshMdtype => of(random, &[1, 1, 2]),
        Field::NshNp => of(random, &[1, 2, 3, 3, 3, 4, 5]),
        Field::NshSpi => of(random, &[0, 7, 0x12_3456]),
        Field::NshSi => of(random, &[0, 1, 255]),
        _ => of(random, &[0, 1, 2, 3, 0x0A00_0001]) & field.full_mask(),
    }
}

/// Fields that rules match on beside types, those of packets first.
const MATCHED: [Field; 57] = [
    Field::InPort,
    Field::EthSrc,
    Field::EthDst,
    Field::VlanTci,
    Field::VlanVid,
    Field::VlanPcp,
    Field::DlVlan,
    Field::IpSrc,
    Field::IpDst,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::Ipv6Label,
    Field::IpDscp,
    Field::IpEcn,
    Field::NwTtl,
    Field::IpFrag,
    Field::ArpOp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::ArpTha,
    Field::TcpSrc,
    Field::TcpDst,
    Field::TcpFlags,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
    Field::SctpDst,
    Field::IcmpType,
    Field::IcmpCode,
    Field::Icmpv6Type,
    Field::Icmpv6Code,
    Field::NdTarget,
    Field::NdSll,
    Field::NdTll,
    Field::NdReserved,
    Field::NdOptionsType,
    Field::MplsLabel,
    Field::MplsBos,
    Field::MplsTtl,
    Field::NshFlags,
    Field::NshTtl,
    Field::NshNp,
    Field::NshSpi,
    Field::NshSi,
    Field::NshC1,
    Field::NshC4,
    Field::Metadata,
    Field::PktMark,
    Field::TunId,
    Field::TunDst,
    Field::Reg0,
    Field::Reg1,
    Field::Reg2,
    Field::Xreg1,
    Field::Xxreg1,
    Field::ActsetOutput,
];

/// Fields that are there of packets like these.
pub fn fields_of(matching: &Match) -> Vec<Field> {
    MATCHED.into_iter().filter(|field| matching.may_have(*field)).collect()
}

/// Which packets a rule is for.
pub fn matching(random: &mut Random) -> Match {
    let mut all = Match::new();
    if !random.once_in(4) {
        kind(random).iter().for_each(|(field, value)| all.set(*field, *value));
    }
    if random.once_in(8) {
        all.set(Field::VlanTci, usual(random, Field::VlanVid));
    }
    for _ in 0..random.below(4) {
        let Some(field) = random.one(&fields_of(&all)) else { continue };
        if all.get(field).is_some() || all.get(openflow::matching::home(field)).is_some() {
            continue;
        }
        // A later fragment has no ports: both take such a rule, and it cannot be read.
        let has_ports = [Field::TcpSrc, Field::TcpDst, Field::TcpFlags].map(|port| all.get(port));
        if field == Field::IpFrag && has_ports.iter().any(Option::is_some) {
            continue;
        }
        let value = usual(random, field);
        match mask(random, field) {
            Some(mask) => all.set_masked(field, value & mask, mask),
            None => all.set(field, value),
        }
    }
    all
}

/// Which bits of a field count, where not all do.
fn mask(random: &mut Random, field: Field) -> Option<u128> {
    let may = field.is_maskable() && ![Field::VlanVid, Field::IpFrag].contains(&field);
    if !may || !random.once_in(3) {
        return None;
    }
    let full = field.full_mask();
    let mask = if random.once_in(2) {
        let low = u32::try_from(1 + random.below(u64::from(field.bits()))).unwrap_or(1);
        full & full.checked_shl(low).unwrap_or(0)
    } else {
        full & (u128::from(random.bits()) << 64 | u128::from(random.bits()))
    };
    (mask != 0).then_some(mask)
}
