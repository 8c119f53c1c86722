//! Translations for a device behind an IOMMU.

use virtio::iotlb::{Access, Translation};

use super::*;
use crate::protocol::IotlbMessage;
use crate::testing::TRANSLATED;

const UPDATE: IotlbMessage = IotlbMessage {
    iova: 0xffff_f000,
    size: 0x1000,
    user_addr: 0x7000_0000,
    access: 3,
    kind: IotlbMessage::UPDATE,
};

/// A front-end that has negotiated `protocol` and a device behind its IOMMU.
fn behind(protocol: ProtocolFeatures) -> Bench {
    let mut bench = Bench::with(|device| device.translated = true);
    bench.ok(M::SetProtocolFeatures(protocol.bits()));
    bench.ok(M::SetFeatures(SPLIT | TRANSLATED));
    bench.ok(table([region(0)]));
    bench.calls.take();
    bench
}

#[test]
fn translations_are_given_and_taken_back() {
    let mut bench = behind(IMPLEMENTED);
    let read_only = IotlbMessage { access: 1, ..UPDATE };
    let invalidate = IotlbMessage { kind: IotlbMessage::INVALIDATE, ..UPDATE };
    for message in [UPDATE, read_only, invalidate] {
        let answer = bench.send(&M::IotlbMsg(message), true).unwrap();
        assert_eq!(answer.reply, Some(Reply::U64(0)));
    }
    let given = |access| {
        let (iova, len, user_addr) = (0xffff_f000, 0x1000, 0x7000_0000);
        Call::Translation(Translation { iova, len, user_addr, access })
    };
    let calls = [given(Access::all()), given(Access::READ), Call::Forget(0xffff_f000, 0x1000)];
    assert_eq!(bench.calls.take(), calls);
}

#[test]
fn other_messages_about_translations_are_refused() {
    let mut bench = behind(IMPLEMENTED);
    for kind in [0, IotlbMessage::MISS, IotlbMessage::ACCESS_FAIL, 5, 255] {
        let error = bench.refused(M::IotlbMsg(IotlbMessage { kind, ..UPDATE })).to_string();
        assert!(error.starts_with("IOTLB_MSG: the type is 0x"), "{error}");
    }
    assert_eq!(bench.calls.take(), []);
    let mut bench = Bench::with(|device| {
        (device.translated, device.refuse) = (true, Some("update_translation"));
    });
    bench.ok(M::SetProtocolFeatures(IMPLEMENTED.bits()));
    bench.ok(M::SetFeatures(SPLIT | TRANSLATED));
    let error = bench.refused(M::IotlbMsg(UPDATE)).to_string();
    assert_eq!(error, "IOTLB_MSG: the device refuses: as the test wants it");
}

#[test]
fn without_the_feature_there_are_no_translations_and_the_option_is_named() {
    let mut bench = Bench::ready(|device| device.translated = true);
    let error = bench.refused(M::IotlbMsg(UPDATE)).to_string();
    assert!(error.contains("feature bit 33"), "{error}");
    let mut bench = Bench::ready(|_| ());
    let error = bench.refused(M::SetFeatures(SPLIT | TRANSLATED)).to_string();
    assert!(error.contains("0x200000000") && error.contains("iommu=on"), "{error}");
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn a_ring_behind_an_iommu_needs_a_way_to_ask() {
    for feature in [ProtocolFeatures::BACKEND_REQ, ProtocolFeatures::REPLY_ACK] {
        let mut bench = behind(IMPLEMENTED - feature);
        for message in setup(0).into_iter().take(3) {
            bench.ok(message);
        }
        let error = bench.refused(M::SetVringKick(with_fd(0))).to_string();
        assert!(error.contains("BACKEND_REQ and REPLY_ACK"), "{error}");
    }
    behind(IMPLEMENTED).start(0);
}

#[test]
fn a_used_ring_may_be_logged_at_any_translated_address() {
    let mut bench = behind(IMPLEMENTED);
    let log = crate::testing::log(8);
    bench.ok(M::SetLogBase(LogBase { size: 8, offset: 0 }, log));
    bench.ok(M::SetFeatures(SPLIT | TRANSLATED | LOG_ALL));
    bench.ok(M::SetVringNum(state(0, 256)));
    let flags = VringAddr::LOG;
    bench.ok(M::SetVringAddr(VringAddr { flags, log: 0xffff_f000, ..addr(0) }));
}
