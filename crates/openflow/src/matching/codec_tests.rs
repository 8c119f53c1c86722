//! Tests of matches in messages.

use proptest::prelude::*;

use super::oxm::Strictness;
use super::*;
use crate::error::ErrorCode;
use crate::version::Version;
use crate::wire::Reader;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn strict(hex: &str) -> Result<Match, ErrorCode> {
    oxm::decode(&bytes(hex), Strictness::Strict)
}

/// Fields that can be together in one match, with values and masks.
pub(crate) fn matches() -> impl Strategy<Value = Match> {
    let kinds = [
        vec![],
        vec![(Field::EthType, 0x800)],
        vec![(Field::EthType, 0x86dd)],
        vec![(Field::EthType, 0x800), (Field::IpProto, 6)],
        vec![(Field::EthType, 0x86dd), (Field::IpProto, 17)],
        vec![(Field::EthType, 0x800), (Field::IpProto, 132)],
        vec![(Field::EthType, 0x800), (Field::IpProto, 1)],
        vec![(Field::EthType, 0x86dd), (Field::IpProto, 58)],
        vec![
            (Field::EthType, 0x86dd),
            (Field::IpProto, 58),
            (Field::Icmpv6Type, 135),
            (Field::Icmpv6Code, 0),
        ],
        vec![
            (Field::EthType, 0x86dd),
            (Field::IpProto, 58),
            (Field::Icmpv6Type, 136),
            (Field::Icmpv6Code, 0),
        ],
        vec![(Field::EthType, 0x806)],
        vec![(Field::EthType, 0x8847)],
        vec![(Field::EthType, 0x1234)],
        vec![(Field::DlVlan, 5)],
    ];
    let field = (0..Field::all().len()).prop_map(|at| Field::all()[at]);
    let more =
        proptest::collection::vec((field, any::<u128>(), any::<u128>(), any::<bool>()), 0..9);
    (proptest::sample::select(kinds.to_vec()), more).prop_map(|(kind, more)| {
        let kind =
            kind.into_iter().fold(Match::new(), |all, (field, value)| all.with(field, value));
        more.into_iter().fold(kind, |mut all, (field, value, mask, is_exact)| {
            // What values there are, and what can be said in all versions.
            let exact = home::full(field);
            let value = match field {
                Field::InPort | Field::InPortOxm | Field::ActsetOutput => value & 0x7FFF,
                Field::NshTtl => value & 63,
                Field::NshMdtype => 1 + (value & 1),
                Field::VlanVid => value & exact | 0x1000,
                _ => value & exact,
            };
            let leave = [Field::PacketType, Field::CtNwProto, Field::VlanTci];
            let tunnel = field.is_tun_metadata();
            let value = if tunnel { value & 0xFFFF_FFFF } else { value };
            let is_exact = is_exact || !field.is_maskable() || tunnel;
            let mask = if is_exact { exact } else { mask & exact | 1 << 12 & exact };
            let is_new = all.get(field).is_none() && all.get(home(field)).is_none();
            if is_new
                && all.may_have(field)
                && !field.headers().is_empty()
                && !leave.contains(&field)
            {
                all.set_masked(field, value, mask);
            }
            all
        })
    })
}

#[test]
fn what_ovn_sends_is_read() {
    // metadata=0x1,reg15=0x8000 of OpenFlow 1.5, and a match on an ICMPv6 message.
    let flow = strict("80000408 0000000000000001 80010e08 0000000000008000").unwrap();
    assert_eq!(
        flow,
        Match::new().with(Field::Metadata, 1).with_masked(Field::Xreg7, 0x8000, u64::MAX.into())
    );
    let vid = strict("80000c02 1005 80000e01 03").unwrap();
    assert_eq!(vid.get(Field::VlanTci), Some((0x7005, 0xF000 | 0xFFF)));
}

#[test]
fn what_is_wrong_has_the_errors_of_ovs() {
    let wrong = [
        ("00000e04 0a000001", ErrorCode::BmcBadPrereq, "an IPv4 address without its EtherType"),
        ("00000602 0800 00000602 0800", ErrorCode::BmcDupField, "twice"),
        ("00000602 08", ErrorCode::BmcBadLen, "a value that is cut off"),
        ("000006", ErrorCode::BmcBadLen, "a header that is cut off"),
        ("00000603 080000", ErrorCode::BmcBadField, "of another size"),
        ("0000fe01 00", ErrorCode::BmcBadField, "not known"),
        ("80000b04 0800 ff00", ErrorCode::BmcBadMask, "a mask where none may be"),
        ("80000004 ffff0000", ErrorCode::BmcBadValue, "a port that cannot be"),
        ("80000c02 2005", ErrorCode::BmcBadValue, "a tag's number above 4095"),
        ("8000070c 010000000001 fffffffffffe", ErrorCode::BmcBadWildcards, "beyond its mask"),
        ("ffff0002 0000", ErrorCode::BmcBadLen, "no room for whose it is"),
        ("00015283", ErrorCode::BmcBadLen, "cut off, and no option is as large"),
    ];
    for (hex, code, why) in wrong {
        assert_eq!(strict(hex), Err(code), "{why}");
    }
    let loose = |hex: &str| oxm::decode(&bytes(hex), Strictness::Loose);
    assert!(loose("0000fe01 00").unwrap().is_empty());
    assert_eq!(loose("00000e04 0a000001"), Ok(Match::new().with(Field::IpSrc, 0x0A00_0001)));
    assert_eq!(loose("80000004 ffff0000"), Err(ErrorCode::BmcBadValue));
}

/// All of this is as Debian's ovs-ofctl reads and shows it.
#[test]
fn sizes_of_masked_fields_are_halved_and_options_are_of_any_size() {
    let tag = strict("80000d05 1005 1fff 77").unwrap();
    assert_eq!(tag, Match::new().with(Field::VlanVid, 0x1005), "a byte too many");
    let option = strict("0001c501 07").unwrap();
    assert_eq!(option.presence(Field::TunMetadata58), Some(true), "no byte of it counts");
    // A number of 7 bits says how large one is.
    let large = "00".repeat(128);
    assert_eq!(strict(&format!("00015280 {large}")), Err(ErrorCode::BmcBadField));
    assert!(strict(&format!("0001527f {}", &large[2..])).is_ok());
    // How many bytes an option has is not said: those with a mask are all.
    for (mask, shown) in [("000000ff", "0x21"), ("0000ffff", "0x21"), ("0000007f", "0x21/0x7f")] {
        let option = strict(&format!("00015308 00000021 {mask}")).unwrap();
        assert_eq!(option.to_string(), format!("tun_metadata1={shown}"));
    }
}

#[test]
fn later_fragments_with_ports_are_read_as_written() {
    let udp = Match::new().with(Field::EthType, 0x800).with(Field::IpProto, 17);
    let flow = udp.with(Field::UdpSrc, 53).with(Field::IpFrag, 3);
    for version in Version::ALL {
        let list = oxm::encode(&flow, version, None);
        assert_eq!(oxm::decode(&list, Strictness::Strict), Ok(flow.clone()));
    }
}

#[test]
fn cookies_are_read_with_nxm_only() {
    let (flow, cookie) = oxm::decode_with_cookie(&bytes("00013c08 0000000000000005")).unwrap();
    assert_eq!((flow.is_empty(), cookie), (true, Some((5, u64::MAX))));
    let masked = "00013d10 0000000000000005 00000000000000ff";
    assert_eq!(oxm::decode_with_cookie(&bytes(masked)).unwrap().1, Some((5, 0xFF)));
    assert_eq!(strict(masked), Err(ErrorCode::BmcBadField));
    let twice = bytes(&format!("{masked}{masked}"));
    assert_eq!(oxm::decode_with_cookie(&twice), Err(ErrorCode::BmcDupField));
}

#[test]
fn only_what_travels_along_may_come_with_a_packet() {
    let pipeline = |hex: &str| oxm::decode(&bytes(hex), Strictness::Pipeline);
    assert!(pipeline("80000004 00000001 80000408 0000000000000007 00010004 00000001").is_ok());
    assert_eq!(pipeline("80000a02 0800"), Err(ErrorCode::BrcPipelineFieldsOnly));
}

fn written_old(version: Version, flow: &Match) -> Vec<u8> {
    let mut out = Vec::new();
    match version {
        Version::V10 => v10::encode(flow, &mut out),
        _ => v11::encode(flow, version, &mut out),
    }
    out
}

fn read_old(version: Version, bytes: &[u8]) -> Match {
    let mut reader = Reader::new(bytes);
    match version {
        Version::V10 => v10::decode(&mut reader).unwrap(),
        _ => v11::decode(&mut reader, Strictness::Strict).unwrap(),
    }
}

proptest! {
    #[test]
    fn lists_of_fields_are_read_as_written(flow in matches(), at in 0..6_usize) {
        let version = Version::ALL[at];
        let list = oxm::encode(&flow, version, None);
        prop_assert_eq!(oxm::decode(&list, Strictness::Strict), Ok(flow.clone()));
        let (again, cookie) = oxm::decode_with_cookie(&oxm::encode(&flow, version, Some((3, 7)))).unwrap();
        prop_assert_eq!((&again, cookie), (&flow, Some((3, 7))));
        let mut whole = Vec::new();
        if version >= Version::V12 {
            v11::encode(&flow, version, &mut whole);
            prop_assert_eq!(whole.len() % 8, 0);
            let mut reader = Reader::new(&whole);
            prop_assert_eq!(v11::decode(&mut reader, Strictness::Strict), Ok(flow));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn old_matches_are_read_as_written(flow in matches()) {
        for version in [Version::V10, Version::V11] {
            // What they cannot say is gone, and the rest stays.
            let mut old = read_old(version, &written_old(version, &flow));
            old.normalize();
            let out = written_old(version, &old);
            prop_assert_eq!(written_old(version, &read_old(version, &out)), out);
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for strictness in [Strictness::Strict, Strictness::Loose, Strictness::Pipeline] {
            let _ = oxm::decode(&bytes, strictness);
            let _ = v11::decode(&mut Reader::new(&bytes), strictness);
        }
        let _ = v10::decode(&mut Reader::new(&bytes));
    }
}
