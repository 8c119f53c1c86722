use std::time::Duration;

use proptest::prelude::*;

use super::message;
use crate::message::bundle::{ATOMIC, BundleAdd, BundleControl, BundleStep, ORDERED};
use crate::message::flow_mod::FlowMod;
use crate::message::hello::Hello;
use crate::message::stats::desc::Desc;
use crate::message::stats::port::{FIGURES, PortStats};
use crate::message::{Form, Kind, Message};
use crate::port_no::PortNo;
use crate::testing::{Random, flow_mod};
use crate::version::{Version, VersionSet};
use crate::{ErrorCode, ErrorMessage};

fn shown(hex: &str) -> String {
    let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    let pair = |pair: &[char]| pair.iter().collect::<String>();
    let bytes: Vec<u8> =
        digits.chunks(2).map(|two| u8::from_str_radix(&pair(two), 16).unwrap()).collect();
    message(&bytes)
}

/// What is expected was printed by Debian's `ovs-ofctl ofp-print`.
#[test]
fn messages_are_shown_as_ovs_ofctl_shows_them() {
    let expected = [
        ("0100000800000000", "OFPT_HELLO (xid=0x0):\n version bitmap: 0x01"),
        (
            "04020010000000016162636465666768",
            "OFPT_ECHO_REQUEST (OF1.3) (xid=0x1): 8 bytes of payload",
        ),
        (
            "0109000c0000000100040080",
            "OFPT_SET_CONFIG (xid=0x1): frags=normal invalid_ttl_to_controller miss_send_len=128",
        ),
        (
            "0104001400000003 00002320 0000000c 00000002",
            "NXT_SET_FLOW_FORMAT (xid=0x3): format=nxm",
        ),
        (
            "0104002000000003 00002320 00000018 0000000000000000 ffff000400000000",
            "NXT_TLV_TABLE_MOD (xid=0x3):\n ADD mapping table:\n  class  type  length  match field\n \
             ------  ----  ------  --------------\n 0xffff     0       4  tun_metadata0",
        ),
        (
            "0418001800000002 00000002 00000000 0000000000000003",
            "OFPT_ROLE_REQUEST (OF1.3) (xid=0x2): role=primary generation_id=3",
        ),
        (
            "0401001400000005 00010001 0499000800000001",
            "OFPT_ERROR (OF1.3) (xid=0x5): OFPBRC_BAD_TYPE\n***decode error: OFPBRC_BAD_TYPE***\n\
             00000000  04 99 00 08 00 00 00 01-                        |........        |",
        ),
        (
            "0401001000000005 00010001 04140040",
            "OFPT_ERROR (OF1.3) (xid=0x5): OFPBRC_BAD_TYPE\n\
             OpenFlow packet too short (only 4 bytes):\n\
             00000000  04 14 00 40                                     |...@            |",
        ),
        (
            "0401001400000005 00010001 0414004000000001",
            "OFPT_ERROR (OF1.3) (xid=0x5): OFPBRC_BAD_TYPE\nOFPT_BARRIER_REQUEST (OF1.3) (xid=0x1):\n\
             (***truncated to 8 bytes from 64***)\n\
             00000000  04 14 00 40 00 00 00 01-                        |...@....        |",
        ),
        (
            "0612000800000003",
            "***decode error: OFPBRC_BAD_LEN***\n\
             00000000  06 12 00 08 00 00 00 03-                        |........        |",
        ),
        ("0110000c00000003 00000000", "OFPST_DESC request (xid=0x3):"),
        (
            "0513003800000002 000e000000000000 0010070000000004 0002000800000001 \
             001808000000000c 0002000800000005 0003000814506300",
            "OFPST_TABLE_DESC reply (OF1.4) (xid=0x2):\n  table 7:\n   eviction=on \
             eviction_flags=OTHER\n   vacancy=off\n\n  table 8:\n   eviction=on \
             eviction_flags=OTHER|LIFETIME\n   vacancy=on vacancy_down=20% vacancy_up=80% vacancy=99%",
        ),
        (
            "0111004800000000 ffff000000002320 0000000200000000 0028000100020005 0007000800060300 \
             0000000000000006 0000000200010000 0000000800020000 0008000300001234",
            "NXST_FLOW_MONITOR reply (xid=0x0):\n event=DELETED reason=delete table=3 idle_timeout=7 \
             hard_timeout=8 cookie=0x6 in_port=1 actions=output:2\n event=ABBREV xid=0x1234",
        ),
        (
            "0513004000000000 0010000000000000 0020000003000000 0000800000000000 0000000000000000 \
             0001000400000000 0008000500000000 0008000600000000",
            "OFPST_FLOW_MONITOR reply (OF1.4) (xid=0x0):\n event=INITIAL table=3 cookie=0 \n \
             event=PAUSED\n event=RESUMED",
        ),
    ];
    for (hex, text) in expected {
        assert_eq!(shown(hex), text, "{hex}");
    }
}

#[test]
fn bundles_show_what_is_in_them() {
    let open = BundleControl { id: 0, step: BundleStep::OpenRequest, flags: ATOMIC | ORDERED };
    let text = message(&open.encode(Version::V14, Form::Of, 7));
    let expected = "OFPT_BUNDLE_CONTROL (OF1.4) (xid=0x7):\n \
                    bundle_id=0 type=OPEN_REQUEST flags=atomic ordered";
    assert_eq!(text, expected);
    let line = "in_port=2,idle_timeout=50,actions=output:1";
    let change: FlowMod = crate::text::flow_mod(
        line,
        crate::message::flow_mod::Command::Add,
        crate::text::Names::NONE,
    )
    .unwrap();
    let inner = change.encode(Version::V14, Form::Of, false, 7);
    let add = BundleAdd { id: 1, flags: 0, message: &inner };
    let expected = "OFPT_BUNDLE_ADD_MESSAGE (OF1.4) (xid=0x7):\n bundle_id=0x1 flags=0\n\
                    OFPT_FLOW_MOD (OF1.4) (xid=0x7): ADD in_port=2 idle:50 actions=output:1";
    assert_eq!(message(&add.encode(Version::V14, 7)), expected);
}

#[test]
fn errors_show_what_they_are_about() {
    let about = Message::new(Version::V13, Kind::BarrierRequest, 9).finish();
    let error = ErrorMessage::reply(ErrorCode::BrcBadType, Version::V13, 9, &about);
    let expected = "OFPT_ERROR (OF1.3) (xid=0x9): OFPBRC_BAD_TYPE\n\
                    OFPT_BARRIER_REQUEST (OF1.3) (xid=0x9):";
    assert_eq!(message(&error), expected);
    let said = ErrorMessage::reply(ErrorCode::HfcIncompatible, Version::V13, 9, b"no\nway");
    assert!(message(&said).ends_with("OFPHFC_INCOMPATIBLE\nno\\nway"));
}

/// What a controller sends goes into the log where that is asked for.
#[test]
fn words_of_others_make_no_lines() {
    let said = "x\n2026-01-01|forged\x1b[2J";
    let mut desc = Message::new(Version::V13, Kind::DescReply, 1);
    Desc { manufacturer: said.to_owned(), datapath: said.to_owned(), ..Desc::default() }
        .encode(desc.body());
    let text = message(&desc.finish());
    assert_eq!(text.lines().count(), 6, "{text}");
    let stats = PortStats {
        port: PortNo(1),
        age: Duration::ZERO,
        figures: [0; FIGURES],
        custom: vec![(said.to_owned(), 5)],
    };
    let mut stats_reply = Message::new(Version::V14, Kind::PortStatsReply, 1);
    stats.encode(Version::V14, stats_reply.body());
    let lines = message(&stats_reply.finish());
    assert!(lines.ends_with("x\\n2026-01-01|forged\\u{1b}[2J=5,"), "{lines}");
    assert!(!(text + &lines).contains('\x1b'));
}

#[test]
fn all_kinds_have_the_names_of_ovs() {
    let name = |kind, version| {
        let bytes = Message::new(version, kind, 1).finish();
        let text = message(&bytes);
        text.split(" (").next().unwrap_or_default().to_owned()
    };
    let names = [
        (Kind::DescRequest, Version::V13, "OFPST_DESC request"),
        (Kind::PortDescRequest, Version::V13, "OFPST_PORT_DESC request"),
        (Kind::TableFeaturesRequest, Version::V13, "OFPST_TABLE_FEATURES request"),
        (Kind::GetAsyncRequest, Version::V13, "OFPT_GET_ASYNC_REQUEST"),
        (Kind::TlvTableRequest, Version::V10, "NXT_TLV_TABLE_REQUEST"),
        (Kind::FlowAge, Version::V10, "NXT_FLOW_AGE"),
        (Kind::MeterFeaturesRequest, Version::V13, "OFPST_METER_FEATURES request"),
    ];
    for (kind, version, expected) in names {
        assert_eq!(name(kind, version), expected);
    }
}

#[test]
fn versions_are_named_by_hello() {
    let text = message(&Hello { versions: VersionSet::from_bits(0x12) }.encode(1));
    assert_eq!(text, "OFPT_HELLO (OF1.3) (xid=0x1):\n version bitmap: 0x01, 0x04");
}

proptest! {
    #[test]
    fn changes_of_flows_are_shown_as_they_are(seed: u64, version in 0..6_usize) {
        let version = Version::ALL[version];
        let change = flow_mod(&mut Random::new(seed), version);
        let text = message(&change.encode(version, Form::Of, true, 1));
        prop_assert!(text.starts_with("OFPT_FLOW_MOD"), "{text}");
    }

    #[test]
    fn no_bytes_are_too_much(mut bytes in prop::collection::vec(any::<u8>(), 0..120), version in 1..7_u8, kind in 0..36_u8) {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        for (place, byte) in bytes.iter_mut().zip([version, kind, length[0], length[1]]) {
            *place = byte;
        }
        prop_assert!(!message(&bytes).is_empty() || bytes.is_empty());
    }
}
