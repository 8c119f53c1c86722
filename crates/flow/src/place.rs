//! Where a field of OpenFlow is in a key, and what a match of OpenFlow asks of a key.

use openflow::matching::{FieldMatch, home};
use openflow::{Field, Match};

use crate::key::{Key, PACKET_WORDS, Slot, slot};
use crate::pattern::Pattern;

/// Where `field` is; `None` for fields that no packet here can have.
#[must_use]
pub fn place(field: Field) -> Option<Slot> {
    Some(match field {
        Field::InPort | Field::InPortOxm => slot::IN_PORT,
        Field::RecircId => slot::RECIRC_ID,
        Field::PacketType => slot::PACKET_TYPE,
        Field::ConjId => slot::CONJ_ID,
        Field::DpHash => slot::DP_HASH,
        Field::Metadata => slot::METADATA,
        Field::ActsetOutput => slot::ACTSET_OUTPUT,
        Field::SkbPriority => slot::SKB_PRIORITY,
        Field::PktMark => slot::PKT_MARK,
        Field::EthDst => slot::ETH_DST,
        Field::EthSrc => slot::ETH_SRC,
        Field::EthType => slot::ETH_TYPE,
        Field::VlanTci => slot::VLAN_TCI,
        Field::DlVlan => slot::VLAN_VID,
        Field::VlanVid => slot::VLAN_VID_PRESENT,
        Field::DlVlanPcp | Field::VlanPcp => slot::VLAN_PCP,
        Field::MplsLabel => slot::MPLS_LABEL,
        Field::MplsTc => slot::MPLS_TC,
        Field::MplsBos => slot::MPLS_BOS,
        Field::MplsTtl => slot::MPLS_TTL,
        Field::NshFlags => slot::NSH_FLAGS,
        Field::NshTtl => slot::NSH_TTL,
        Field::NshMdtype => slot::NSH_MDTYPE,
        Field::NshNp => slot::NSH_NP,
        Field::NshSpi => slot::NSH_SPI,
        Field::NshSi => slot::NSH_SI,
        Field::NshC1 => slot::NSH_C1,
        Field::NshC2 => slot::NSH_C2,
        Field::NshC3 => slot::NSH_C3,
        Field::NshC4 => slot::NSH_C4,
        _ => return ip_place(field).or_else(|| tunnel_place(field)).or_else(|| register(field)),
    })
}

/// Of the network layer and above.
fn ip_place(field: Field) -> Option<Slot> {
    Some(match field {
        Field::IpSrc | Field::ArpSpa => slot::IPV4_SRC,
        Field::IpDst | Field::ArpTpa => slot::IPV4_DST,
        Field::Ipv6Src => slot::IPV6_SRC,
        Field::Ipv6Dst => slot::IPV6_DST,
        Field::Ipv6Label => slot::IPV6_LABEL,
        Field::IpProto | Field::ArpOp => slot::IP_PROTO,
        Field::NwTos => slot::IP_TOS,
        Field::IpDscp => slot::IP_DSCP,
        Field::IpEcn => slot::IP_ECN,
        Field::NwTtl => slot::IP_TTL,
        Field::IpFrag => slot::IP_FRAG,
        Field::ArpSha | Field::NdSll => slot::ARP_SHA,
        Field::ArpTha | Field::NdTll => slot::ARP_THA,
        Field::NdTarget => slot::ND_TARGET,
        Field::NdReserved => slot::ND_RESERVED,
        Field::NdOptionsType => slot::ND_OPTIONS_TYPE,
        Field::TcpFlags => slot::TCP_FLAGS,
        Field::TcpSrc | Field::UdpSrc | Field::SctpSrc => slot::TP_SRC,
        Field::IcmpType | Field::Icmpv6Type => slot::TP_SRC,
        Field::TcpDst | Field::UdpDst | Field::SctpDst => slot::TP_DST,
        Field::IcmpCode | Field::Icmpv6Code => slot::TP_DST,
        _ => return None,
    })
}

/// Of tunnels and tracked connections.
fn tunnel_place(field: Field) -> Option<Slot> {
    Some(match field {
        Field::TunId => slot::TUN_ID,
        Field::TunSrc => slot::TUN_SRC,
        Field::TunDst => slot::TUN_DST,
        Field::TunIpv6Src => slot::TUN_IPV6_SRC,
        Field::TunIpv6Dst => slot::TUN_IPV6_DST,
        Field::TunFlags => slot::TUN_FLAGS,
        Field::TunTos => slot::TUN_TOS,
        Field::TunTtl => slot::TUN_TTL,
        Field::TunGbpId => slot::TUN_GBP_ID,
        Field::TunGbpFlags => slot::TUN_GBP_FLAGS,
        Field::TunErspanVer => slot::TUN_ERSPAN_VER,
        Field::TunErspanIdx => slot::TUN_ERSPAN_IDX,
        Field::TunErspanDir => slot::TUN_ERSPAN_DIR,
        Field::TunErspanHwid => slot::TUN_ERSPAN_HWID,
        Field::TunGtpuFlags => slot::TUN_GTPU_FLAGS,
        Field::TunGtpuMsgtype => slot::TUN_GTPU_MSGTYPE,
        Field::TunOptions => slot::TUN_PRESENT,
        Field::CtState => slot::CT_STATE,
        Field::CtZone => slot::CT_ZONE,
        Field::CtMark => slot::CT_MARK,
        Field::CtLabel => slot::CT_LABEL,
        Field::CtNwProto => slot::CT_NW_PROTO,
        Field::CtNwSrc => slot::CT_NW_SRC,
        Field::CtNwDst => slot::CT_NW_DST,
        Field::CtIpv6Src => slot::CT_IPV6_SRC,
        Field::CtIpv6Dst => slot::CT_IPV6_DST,
        Field::CtTpSrc => slot::CT_TP_SRC,
        Field::CtTpDst => slot::CT_TP_DST,
        _ => return None,
    })
}

/// Of registers, which are in order among the fields.
fn register(field: Field) -> Option<Slot> {
    let nth = |first: Field, count: u8| {
        let nth = (field as u8).checked_sub(first as u8)?;
        (nth < count).then_some(nth)
    };
    let small = nth(Field::Reg0, slot::REGS).map(slot::reg);
    let large = || nth(Field::Xreg0, slot::REGS / 2).map(slot::xreg);
    let largest = || nth(Field::Xxreg0, slot::REGS / 4).map(slot::xxreg);
    let tunnel = || nth(Field::TunMetadata0, slot::OPTIONS).map(slot::tun_metadata);
    small.or_else(large).or_else(largest).or_else(tunnel)
}

/// What a match asks of a key; or the first field that no packet here can have.
///
/// # Errors
/// The match is on such a field.
pub fn pattern(matching: &Match) -> Result<Pattern, Field> {
    let (mut key, mut mask) = (Key::default(), Key::default());
    // That packets begin with Ethernet is asked for in another way, whether it is said or goes without saying.
    let is_said = |field: Field| field == Field::PacketType && matching.says_ethernet();
    for entry in matching.iter().filter(|entry| !is_said(entry.field)) {
        let slot = place(entry.field).ok_or(entry.field)?;
        if let Some(option) = unplaced_option(entry) {
            return Err(option);
        }
        key.set_masked(slot, entry.value, entry.mask);
        mask.set_masked(slot, entry.mask, entry.mask);
    }
    let pattern = Pattern::new(&key, &mask);
    Ok(if matching.says_ethernet() { pattern.with_ethernet() } else { pattern })
}

/// An option that is to be there, or not to be, and has no place.
fn unplaced_option(entry: FieldMatch) -> Option<Field> {
    let beyond = entry.mask >> slot::OPTIONS;
    let first = u8::try_from(beyond.trailing_zeros()).ok()?.checked_add(slot::OPTIONS)?;
    (entry.field == Field::TunOptions && beyond != 0).then(|| Field::tun_metadata(first))?
}

/// The match that is true of this key alone: of all fields of the packet that it can have by its
/// types, and of what travels with it where that is not empty.
#[must_use]
pub fn to_match(key: &Key) -> Match {
    let mut matching = Match::new();
    for field in Field::all().iter().copied().filter(|field| home(*field) == *field) {
        let Some(slot) = place(field) else { continue };
        let value = key.get(slot);
        // What only the packet's own words have is told even where it is zero.
        let is_always = matches!(field, Field::InPortOxm | Field::VlanTci | Field::EthType)
            || matches!(field, Field::EthSrc | Field::EthDst);
        let is_there = value != 0 || is_always && slot.word() < PACKET_WORDS;
        // Several fields may have the place of an option.
        if is_there && !field.is_tun_metadata() && field != Field::TunOptions
            || is_present(key, field)
        {
            matching.set(field, value);
        }
    }
    matching
}

/// Whether there is the option of a tunnel that a field stands for.
#[must_use]
pub fn is_present(key: &Key, field: Field) -> bool {
    key.get_u64(slot::TUN_PRESENT) & field.option_bit() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_home_have_places_within_one_word() {
        for field in Field::all().iter().copied() {
            let (Some(own), Some(home)) = (place(field), place(home(field))) else { continue };
            assert!(own.word().abs_diff(home.word()) <= 1, "{field}");
        }
        let missing = Field::all().iter().filter(|field| place(**field).is_none());
        let options: Vec<Field> = (slot::OPTIONS..64).filter_map(Field::tun_metadata).collect();
        assert!(missing.eq(&options));
    }

    /// As in Open vSwitch: fields of packets are those of packets of Ethernet, unless their type is said.
    #[test]
    fn rules_that_say_no_type_are_for_ethernet_or_for_all() {
        let bare = |packet_type: u32| {
            let mut key = Key::default();
            key.set(slot::ETH_TYPE, 0x800);
            key.set_packet_type(packet_type);
            key
        };
        let of = |matching: Match| pattern(&matching).unwrap();
        let all = of(Match::new());
        let port = of(Match::new().with(Field::InPort, 0).with(Field::Reg1, 0));
        let said = of(Match::new().with(Field::PacketType, 0).with(Field::Reg1, 0));
        let ip = of(Match::new().with(Field::EthType, 0x800));
        let untagged = of(Match::new().with(Field::VlanTci, 0));
        let ip_alone = of(Match::new().with(Field::PacketType, 0x1_0800).with(Field::IpSrc, 0));
        for (pattern, has_ethernet, is_bare, takes) in [
            (&all, false, false, [true, true]),
            (&port, false, false, [true, true]),
            (&said, true, false, [true, false]),
            (&ip, true, false, [true, false]),
            (&untagged, true, false, [true, false]),
            (&ip_alone, false, true, [false, true]),
        ] {
            assert_eq!(pattern.is_ethernet(), has_ethernet, "{pattern:?}");
            let keys = [bare(0), bare(0x1_0800)];
            assert_eq!(keys.map(|key| pattern.matches(&key)), takes, "{pattern:?}");
            // No look-up has a word more to look at.
            let has_type = pattern.mask().to_key().get(slot::PACKET_TYPE) != 0;
            assert_eq!(has_type, is_bare, "{pattern:?}");
        }
        let eth = of(Match::new().with(Field::PacketType, 0));
        let within = [&all, &said, &ip, &untagged, &ip_alone].map(|of| of.is_within(&eth));
        assert_eq!(within, [false, true, true, true, false]);
        assert!(ip.is_within(&all) && ip_alone.is_within(&all) && !all.is_within(&eth));
        assert!(!ip_alone.overlaps(&ip) && !ip_alone.overlaps(&eth) && ip_alone.overlaps(&port));
        assert!(all.is_any() && !eth.is_any());
    }

    #[test]
    fn a_match_is_true_of_the_keys_that_it_says() {
        let matching = Match::new()
            .with(Field::EthType, 0x800)
            .with_masked(Field::IpDst, 0x0A00_0000, 0xFF00_0000)
            .with(Field::VlanPcp, 3)
            .with(Field::Reg1, 7);
        let pattern = pattern(&matching).unwrap();
        let mut key = Key::default();
        key.set(slot::ETH_TYPE, 0x800);
        key.set(slot::IPV4_DST, 0x0A01_0203);
        key.set(slot::VLAN_TCI, 0x7005);
        assert!(!pattern.matches(&key));
        key.set(slot::reg(1), 7);
        assert!(pattern.matches(&key));
        assert!(super::pattern(&to_match(&key)).unwrap().matches(&key));
    }
}
