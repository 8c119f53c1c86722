//! Tests of changes of flows, on what ovn-controller and ovs-ofctl send.

use super::*;
use crate::action::Action;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn read(message: &[u8]) -> Result<FlowMod, ErrorCode> {
    FlowMod::decode(&Raw::read(message).unwrap(), true)
}

#[test]
fn what_ovn_sends_is_read_and_written_as_it_is() {
    // Messages within bundles of OpenFlow 1.5: flows of ovn-controller of many kinds.
    let recorded = include_str!("../../../tests/flow_mods.hex");
    assert!(recorded.lines().count() > 20);
    for line in recorded.lines() {
        let message = bytes(line);
        let change = read(&message).unwrap_or_else(|error| panic!("{error}: {line}"));
        let again = change.encode(Version::V15, Form::Of, false, 0);
        assert_eq!(again[8..], message[8..], "{change:?}");
        // The old fixed matches cannot say all of it.
        let others = [(Version::V10, Form::Nx), (Version::V12, Form::Of), (Version::V14, Form::Of)];
        for (version, form) in others {
            let other = read(&change.encode(version, form, true, 7));
            assert!(other.is_ok(), "{version} {form:?} {other:?} {change:?}");
        }
    }
}

#[test]
fn a_flow_is_the_same_in_all_versions() {
    let change = FlowMod {
        table: 3,
        matching: Match::new().with(Field::InPort, 1).with(Field::EthDst, 0x5254_0012_3456),
        priority: 100,
        new_cookie: 5,
        modify_cookie: true,
        idle_timeout: 10,
        flags: FlowFlags::SEND_FLOW_REMOVED.with(FlowFlags::RESET_COUNTS),
        instructions: Instructions::apply(vec![Action::output(PortNo(2)), Action::Exit]),
        ..FlowMod::default()
    };
    for (version, form) in [(Version::V10, Form::Of), (Version::V10, Form::Nx)] {
        assert_eq!(read(&change.encode(version, form, true, 1)), Ok(change.clone()), "{version}");
    }
    let change = FlowMod { modify_cookie: false, ..change };
    for version in Version::ALL.into_iter().skip(1) {
        assert_eq!(
            read(&change.encode(version, Form::Of, true, 1)),
            Ok(change.clone()),
            "{version}"
        );
    }
}

#[test]
fn what_is_wrong_has_the_errors_of_ovs() {
    let change = FlowMod { table: 0, ..FlowMod::default() };
    let patched = |version, form, at: usize, patch: &[u8]| {
        let mut message = change.encode(version, form, false, 1);
        message[at..at + patch.len()].copy_from_slice(patch);
        FlowMod::decode(&Raw::read(&message).unwrap(), false)
    };
    let (v10, v13) = (Version::V10, Version::V13);
    assert_eq!(patched(v10, Form::Of, 56, &[0, 9]), Err(ErrorCode::FmfcBadCommand));
    assert_eq!(patched(v10, Form::Of, 56, &[1, 0]), Err(ErrorCode::FmfcBadCommand));
    assert_eq!(patched(v10, Form::Of, 70, &[0, 4]), Err(ErrorCode::FmfcTableFull));
    assert_eq!(patched(v10, Form::Of, 70, &[0, 8]), Err(ErrorCode::FmfcBadFlags));
    assert_eq!(patched(v13, Form::Of, 24, &[255]), Err(ErrorCode::FmfcBadTableId));
    assert_eq!(patched(v13, Form::Of, 25, &[5]), Err(ErrorCode::FmfcBadCommand));
    assert_eq!(patched(v13, Form::Of, 44, &[0, 32]), Err(ErrorCode::FmfcBadFlags));
    assert_eq!(patched(v13, Form::Of, 48, &[0, 7]), Err(ErrorCode::BmcBadType));
    assert_eq!(patched(v13, Form::Of, 36, &[0, 1, 0, 0]), Err(ErrorCode::BacBadOutPort));
    // The addresses of a connection come before the command.
    let matching = Match::new().with(Field::CtState, 0x21).with(Field::CtNwSrc, 1);
    let mut tracked = FlowMod { matching, ..change }.encode(v13, Form::Of, false, 1);
    tracked[25] = 9;
    let read = FlowMod::decode(&Raw::read(&tracked).unwrap(), false);
    assert_eq!(read, Err(ErrorCode::BacMatchInconsistent));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 64..300), at in 0..6_usize, nx: bool) {
        let version = Version::ALL[at];
        let form = if nx && version == Version::V10 { Form::Nx } else { Form::Of };
        let raw = Raw { version, xid: 0, kind: Kind::FlowMod, form, number: 0, more: false, body: &body };
        let _ = FlowMod::decode(&raw, true);
    }
}
