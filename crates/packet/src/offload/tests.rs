use super::*;
use crate::frame::HEAD_CAPACITY;

/// An IPv4 frame with a TCP header and 100 bytes of payload, tags in front.
fn tcp_frame(tags: usize) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    bytes.extend([0x81, 0, 0, 5].repeat(tags));
    bytes.extend([0x08, 0, 0x45, 0, 0, 140, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend([10; 8]);
    bytes.extend([0; 12]);
    bytes.extend([0x50, 0x10]);
    bytes.extend([0; 6 + 100]);
    bytes
}

fn tso(csum_start: u16) -> OffloadRequest {
    OffloadRequest {
        needs_csum: true,
        gso: Some(Gso::TcpV4),
        gso_size: 60,
        csum_start,
        csum_offset: 16,
        ..OffloadRequest::default()
    }
}

fn check(request: &OffloadRequest, bytes: &[u8]) -> Result<Offload, BadOffload> {
    Offload::check(
        request,
        Capabilities::all(),
        &bytes[..bytes.len().min(HEAD_CAPACITY)],
        bytes.len(),
    )
}

#[test]
fn a_good_request_is_kept() {
    let offload = check(&OffloadRequest { ecn: true, ..tso(34) }, &tcp_frame(0)).unwrap();
    assert_eq!(offload.needs(), Capabilities::CSUM | Capabilities::TSO4 | Capabilities::ECN);
    assert_eq!((offload.csum(), offload.gso()), (Some((34, 16)), Some(Gso::TcpV4)));
    assert_eq!((offload.hdr_len(), offload.gso_size()), (54, 60));
    assert_eq!((offload.wire_len(154), offload.wire_len(80)), (114, 80));
    assert_eq!(offload.request(), OffloadRequest { ecn: true, ..tso(34) });
    assert_eq!(check(&tso(42), &tcp_frame(2)).unwrap().hdr_len(), 62);
}

#[test]
fn nothing_asked_is_nothing_needed() {
    let bytes = tcp_frame(0);
    assert!(check(&OffloadRequest::default(), &bytes).unwrap().is_none());
    let valid = OffloadRequest { data_valid: true, ..OffloadRequest::default() };
    let valid = check(&valid, &bytes).unwrap();
    assert!(valid.is_data_valid() && valid.needs().is_empty() && !valid.is_none());
    assert_eq!((valid.csum(), valid.gso(), valid.wire_len(99)), (None, None, 99));
}

#[test]
fn checksums_must_lie_in_the_frame_behind_addresses_and_ports() {
    let bytes = tcp_frame(0);
    let at = |csum_start, csum_offset| {
        let request = OffloadRequest { gso: None, csum_start, csum_offset, ..tso(0) };
        check(&request, &bytes)
    };
    assert_eq!(bytes.len(), 154);
    assert!(at(34, 4).is_ok() && at(136, 16).is_ok());
    for (start, offset) in [(137, 16), (34, 119), (300, 16), (34, 300), (u16::MAX, u16::MAX)] {
        assert!(matches!(at(start, offset), Err(BadOffload::ChecksumOutside { .. })), "{start}");
    }
    // Over addresses, or ports.
    for (start, offset) in [(0, 16), (33, 16), (34, 3), (34, 0)] {
        assert!(matches!(at(start, offset), Err(BadOffload::ChecksumMisplaced { .. })), "{start}");
    }
    assert!(matches!(check(&tso(34), &bytes[..50]), Err(BadOffload::ChecksumOutside { .. })));
    // However far behind: the private head need not reach so far.
    let long = [tcp_frame(0), vec![0; 50_000]].concat();
    let request = OffloadRequest { gso: None, csum_start: 50_000, csum_offset: 152, ..tso(0) };
    assert_eq!(check(&request, &long).unwrap().csum(), Some((50_000, 152)));
    let request = OffloadRequest { csum_offset: 153, ..request };
    assert!(matches!(check(&request, &long), Err(BadOffload::ChecksumOutside { len: 50_154, .. })));
}

#[test]
fn segmentation_must_fit_the_frame() {
    let bytes = tcp_frame(0);
    let wrong = |request: OffloadRequest| check(&request, &bytes).unwrap_err();
    assert_eq!(wrong(OffloadRequest { needs_csum: false, ..tso(34) }), BadOffload::NoChecksum);
    assert_eq!(wrong(OffloadRequest { gso_size: 0, ..tso(34) }), BadOffload::NoSegmentSize);
    for gso in [Gso::TcpV6, Gso::Udp] {
        let request = OffloadRequest { gso: Some(gso), ..tso(34) };
        assert_eq!(wrong(request), BadOffload::Mismatch(gso));
    }
    assert!(matches!(wrong(tso(38)), BadOffload::ChecksumMisplaced { start: 38, offset: 16 }));
    assert!(matches!(
        wrong(OffloadRequest { csum_offset: 6, ..tso(34) }),
        BadOffload::ChecksumMisplaced { .. }
    ));
    let long = [bytes, vec![0; 60_000]].concat();
    let request = OffloadRequest { gso_size: 58, ..tso(34) };
    assert_eq!(check(&request, &long), Err(BadOffload::TooManySegments(1037)));
}

#[test]
fn headers_must_be_whole_and_unfragmented() {
    // (offset, value): a fragment, not the first one, no IPv4, too short headers, TCP options
    // beyond the end, another protocol, another EtherType.
    let changes = [
        (20, 0x20),
        (21, 1),
        (14, 0x65),
        (14, 0x44),
        (46, 0x40),
        (46, 0xF0),
        (23, 17),
        (23, 1),
        (13, 6),
        (12, 0x86),
    ];
    for (at, value) in changes {
        let mut bytes = tcp_frame(0);
        if (at, value) == (46, 0xF0) {
            bytes.truncate(90);
        }
        bytes[at] = value;
        assert_eq!(check(&tso(34), &bytes), Err(BadOffload::Mismatch(Gso::TcpV4)), "{at}");
    }
    assert_eq!(check(&tso(46), &tcp_frame(3)), Err(BadOffload::Mismatch(Gso::TcpV4)));
}

#[test]
fn ipv6_may_have_a_long_way_to_go_and_be_no_fragment() {
    let frame = |kind: u8, segments_left: u8| {
        let mut bytes = vec![2; 12];
        bytes.extend([0x86, 0xDD, 0x60, 0, 0, 0, 0, 128, kind, 64]);
        bytes.extend([0x20; 32]);
        bytes.extend([6, 0, 0, segments_left, 0, 0, 0, 0]);
        bytes.extend([0; 12]);
        bytes.extend([0x50, 0x10]);
        bytes.extend([0; 106]);
        bytes
    };
    let request = OffloadRequest { gso: Some(Gso::TcpV6), ..tso(62) };
    for bytes in [frame(43, 0), frame(43, 1), frame(60, 1)] {
        let needs = check(&request, &bytes).unwrap().needs();
        assert_eq!(needs, Capabilities::CSUM | Capabilities::TSO6);
    }
    for bytes in [frame(44, 0), frame(51, 0)] {
        assert!(matches!(check(&request, &bytes), Err(BadOffload::Uncuttable(_))));
    }
}

#[test]
fn a_tag_shifts_it() {
    let offload = check(&tso(34), &tcp_frame(0)).unwrap();
    assert_eq!(offload.shifted(4), Some(check(&tso(38), &tcp_frame(1)).unwrap()));
    assert_eq!(offload.shifted(4).and_then(|more| more.shifted(-4)), Some(offload));
    assert_eq!((offload.shifted(-35), offload.shifted(459)), (None, None));
    assert_eq!(Offload::NONE.shifted(-100), Some(Offload::NONE));
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let frame = tcp_frame(0);
    let check = |allowed| Offload::check(&tso(34), allowed, &frame, frame.len());
    assert!(check(Capabilities::CSUM | Capabilities::TSO4).is_ok());
    for allowed in [Capabilities::CSUM, Capabilities::all() - Capabilities::TSO4] {
        assert_eq!(check(allowed), Err(BadOffload::NotNegotiated));
    }
}
