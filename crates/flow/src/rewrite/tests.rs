use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openflow::Field;
use packet::builder::FrameBuilder;
use packet::headers::{EtherType, Ethernet, Ipv4, TcpFlags};
use packet::{EditRoom, Frame, MacAddr};
use proptest::prelude::*;

use super::*;
use crate::place::place;

const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// What a path has for writing a field.
fn edits(field: Field, value: u128) -> Vec<Edit> {
    let slot = place(field).unwrap();
    let masks = slot.spread(slot.ones());
    let words = slot.spread(value).zip(masks);
    words
        .map(|((word, value), (_, mask))| Edit::Set {
            word: u8::try_from(word).unwrap(),
            mask,
            value,
        })
        .collect()
}

fn rewritten(frame: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut room = EditRoom::default();
    let mut open = room.begin().open(&Frame::from_bytes(frame)).unwrap();
    assert!(edits.iter().all(|edit| rewrite(edit, &mut open)));
    open.frame().unwrap().to_vec()
}

/// Nobody is told of addresses that a packet does not have any more.
#[test]
fn the_place_of_a_header_has_no_addresses() {
    let plain = FrameBuilder::new(A, B).ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(7, 53);
    let plain = plain.payload(&[1, 2, 3]).build().unwrap();
    let snap = [&plain[..12], &[0, 39, 0xAA, 0xAA, 3, 0, 0, 0], &plain[12..]].concat();
    let bare = [&[0; 12], &plain[12..]].concat();
    for frame in [plain, snap] {
        assert_eq!(rewritten(&frame, &[Edit::EmptyEthernet]), bare);
    }
}

#[derive(Clone, Copy, Debug)]
struct Facts {
    source: IpAddr,
    destination: IpAddr,
    ports: (u16, u16),
    is_tcp: bool,
    tags: usize,
}

impl Facts {
    fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut builder = FrameBuilder::new(A, B).ip(self.source, self.destination);
        for _ in 0..self.tags {
            builder = builder.tag(EtherType::VLAN, 5);
        }
        let (from, to) = self.ports;
        let builder = if self.is_tcp {
            builder.tcp((from, to), 1, 2, TcpFlags::default())
        } else {
            builder.udp(from, to)
        };
        builder.payload(payload).build().unwrap()
    }

    fn set(&mut self, field: Field, value: u128) {
        let v4 = |value: u128| IpAddr::V4(Ipv4Addr::from(u32::try_from(value).unwrap()));
        match field {
            Field::IpSrc => self.source = v4(value),
            Field::IpDst => self.destination = v4(value),
            Field::Ipv6Src => self.source = IpAddr::V6(Ipv6Addr::from(value)),
            Field::Ipv6Dst => self.destination = IpAddr::V6(Ipv6Addr::from(value)),
            Field::TcpSrc | Field::UdpSrc => self.ports.0 = u16::try_from(value).unwrap(),
            _ => self.ports.1 = u16::try_from(value).unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn a_rewritten_frame_is_one_that_was_built_so(
        is_v6: bool,
        is_tcp: bool,
        tags in 0..3_usize,
        payload in prop::collection::vec(any::<u8>(), 0..300),
        which in 0..4_usize,
        value: u128,
    ) {
        let (source, destination) = match is_v6 {
            true => ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()),
            false => ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()),
        };
        let mut facts = Facts { source, destination, ports: (1000, 80), is_tcp, tags };
        let addresses = match is_v6 {
            true => [Field::Ipv6Src, Field::Ipv6Dst],
            false => [Field::IpSrc, Field::IpDst],
        };
        let ports = match is_tcp {
            true => [Field::TcpSrc, Field::TcpDst],
            false => [Field::UdpSrc, Field::UdpDst],
        };
        let field = [addresses, ports].concat()[which];
        let value = value & field.full_mask();
        let before = facts.frame(&payload);
        facts.set(field, value);
        prop_assert_eq!(rewritten(&before, &edits(field, value)), facts.frame(&payload));
    }

    #[test]
    fn nothing_is_written_past_what_is_there(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        kind in prop_oneof![Just(IPV4), Just(IPV6), Just(ARP), any::<u16>()],
        first in any::<u8>(),
        edits in prop::collection::vec((0..24_u8, any::<u64>(), any::<u64>()), 0..20),
    ) {
        let mut frame = bytes;
        for (at, byte) in kind.to_be_bytes().into_iter().chain([first]).enumerate() {
            frame.get_mut(12 + at).into_iter().for_each(|place| *place = byte);
        }
        let set = |(word, mask, value)| Edit::Set { word, mask, value };
        let edits: Vec<Edit> = edits.into_iter().map(set).collect();
        prop_assert_eq!(rewritten(&frame, &edits).len(), frame.len());
    }
}

#[test]
fn a_checksum_that_is_only_begun_stays_so() {
    use packet::checksum::Checksum;
    use packet::{Capabilities, Offload, OffloadRequest};
    let facts = Facts {
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        ports: (1000, 80),
        is_tcp: true,
        tags: 0,
    };
    let mut frame = facts.frame(b"hello");
    let begin = |to: [u8; 4]| Checksum::pseudo_v4([10, 0, 0, 1], to, 6, 25).partial();
    frame[50..52].copy_from_slice(&begin([10, 0, 0, 2]).to_be_bytes());
    let request = OffloadRequest {
        needs_csum: true,
        csum_start: 34,
        csum_offset: 16,
        ..OffloadRequest::default()
    };
    let offload = Offload::check(&request, Capabilities::CSUM, &frame, frame.len()).unwrap();
    let mut room = EditRoom::default();
    let whole = Frame::from_bytes(&frame).with_offload(offload);
    let mut open = room.begin().open(&whole).unwrap();
    for edit in [edits(Field::IpDst, 0x0A09_0807), edits(Field::TcpDst, 22)].concat() {
        assert!(rewrite(&edit, &mut open));
    }
    assert!(rewrite(&Edit::PushVlan { tpid: 0x8100, tci: 7 }, &mut open));
    let after = open.frame().unwrap();
    assert_eq!(after.offload().csum(), Some((38, 16)));
    assert_eq!(&after.head()[54..56], &begin([10, 9, 8, 7]).to_be_bytes());
    let inner = Ethernet::parse(after.head()).unwrap().inner().unwrap().1;
    assert!(Ipv4::parse(inner).unwrap().checksum_is_valid());
}

#[test]
fn tags_class_and_time_to_live() {
    let frame = FrameBuilder::new(A, B).ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2).build().unwrap();
    let (tpid, tci) = (0x8100, 0x2005);
    let tagged = rewritten(&frame, &[Edit::PushVlan { tpid, tci }]);
    assert_eq!((tagged.len(), &tagged[12..16]), (frame.len() + 4, &[0x81, 0, 0x20, 5][..]));
    let set = Edit::SetVlan { mask: 0xFFF, tci: 9 };
    assert_eq!(rewritten(&tagged, &[set])[14..16], [0x20, 9]);
    assert_eq!(rewritten(&tagged, &[Edit::PopVlan]), frame);
    // Without a tag there is nothing to take off or to change.
    assert_eq!(rewritten(&frame, &[Edit::PopVlan, set]), frame);
    for (field, value) in [(Field::NwTtl, 7), (Field::IpDscp, 46), (Field::IpEcn, 2)] {
        let after = rewritten(&tagged, &edits(field, value));
        let inner = Ethernet::parse(&after).unwrap().inner().unwrap().1;
        assert!(Ipv4::parse(inner).unwrap().checksum_is_valid(), "{field}");
        let mut key = Key::default();
        extract(&mut key, &after, after.len(), 2, Depth::All);
        assert_eq!(key.get(place(field).unwrap()), value, "{field}");
    }
    assert_eq!(
        rewritten(&frame, &edits(Field::EthSrc, 0x0300_0000_0009))[6..12],
        [3, 0, 0, 0, 0, 9]
    );
}
