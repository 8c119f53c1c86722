//! Network service headers that are put on, written to, and taken off.

use openflow::action::{Encap, PropertyOfEncap};
use packet::headers::Nsh;
use packet::headers::nsh::{MD1, MD2};

use super::*;

const NSH: u32 = 0x1_894F;

const DECAP: Action = Action::Decap { packet_type: 0xFFFE };

/// A header that is put on: values of its metadata, or none for four words of it; and what is written to it.
#[derive(Clone, Debug)]
struct Layer {
    values: Option<Vec<Vec<u8>>>,
    flags: u8,
    ttl: u8,
    path: u32,
    context: [u32; 4],
}

fn encap(packet_type: u32, properties: Vec<PropertyOfEncap>) -> Action {
    Action::Encap(Box::new(Encap { packet_type, header_size: 0, properties }))
}

const VALUE: (u16, u8) = (0x1000, 7);

impl Layer {
    fn actions(&self) -> Vec<Action> {
        let properties = self.values.iter().flat_map(|values| {
            let tlv = |data: &Vec<u8>| {
                let (class, kind) = VALUE;
                PropertyOfEncap::NshTlv { class, kind, data: data.clone() }
            };
            std::iter::once(PropertyOfEncap::NshMdtype(MD2)).chain(values.iter().map(tlv))
        });
        let mut actions = vec![
            encap(NSH, properties.collect()),
            write(Field::NshFlags, self.flags.into()),
            write(Field::NshTtl, self.ttl.into()),
            write(Field::NshSpi, (self.path >> 8).into()),
            write(Field::NshSi, (self.path & 0xFF).into()),
        ];
        let context = [Field::NshC1, Field::NshC2, Field::NshC3, Field::NshC4];
        actions.extend(context.into_iter().zip(self.context).map(|(to, of)| write(to, of.into())));
        actions
    }

    /// The bytes that it is, in front of what is said by `next`.
    fn bytes(&self, next: u8) -> Vec<u8> {
        let (md_type, metadata) = match &self.values {
            None => (MD1, self.context.iter().flat_map(|word| word.to_be_bytes()).collect()),
            Some(values) => {
                let mut bytes = Vec::new();
                for data in values {
                    bytes.extend(VALUE.0.to_be_bytes());
                    bytes.extend([VALUE.1, u8::try_from(data.len()).unwrap()]);
                    bytes.extend(data);
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                }
                (MD2, if bytes.len() > 244 { Vec::new() } else { bytes })
            }
        };
        let &Self { flags, ttl, path, .. } = self;
        Nsh { flags, ttl, md_type, next, path }.to_bytes(&metadata).unwrap().to_vec()
    }
}

prop_compose! {
    fn any_layer()(
        values in prop::option::of(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..6),
        ),
        (flags, ttl, path) in (0..4_u8, 0..64_u8, any::<u32>()),
        context: [u32; 4],
    ) -> Layer {
        Layer { values, flags, ttl, path, context }
    }
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    let [from, to] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
    let builder = FrameBuilder::new(from, to).ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(7, 53);
    builder.payload(payload).build().unwrap()
}

/// A header of Ethernet without addresses.
fn front(kind: u16) -> Vec<u8> {
    [&[0; 12][..], &kind.to_be_bytes()].concat()
}

fn nsh() -> Match {
    Match::new().with(Field::EthType, 0x894F)
}

proptest! {
    /// Whatever is put on is there, and is taken off again, wherever the frame's bytes lie; rules find
    /// what is in the header, and what is behind it.
    #[test]
    fn headers_are_put_on_and_taken_off(
        layer in any_layer(),
        outer in prop::option::of(any_layer()),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        is_bare: bool,
        head in 0..900_usize,
    ) {
        let plain = datagram(&payload);
        let (first, inside) = match is_bare {
            true => (Some(DECAP), &plain[14..]),
            false => (None, &plain[..]),
        };
        let mut whole = [layer.bytes(if is_bare { 1 } else { 3 }), inside.to_vec()].concat();
        let outer = outer.filter(|_| whole.len() - inside.len() < 64);
        if let Some(outer) = &outer {
            whole = [outer.bytes(4), whole].concat();
        }
        whole = [front(0x894F), whole].concat();
        let cover = first.iter().cloned().chain(layer.actions());
        let cover = cover.chain(outer.iter().flat_map(Layer::actions));
        let cover = cover.chain([encap(0, vec![]), output(2)]).collect();
        let outermost = outer.as_ref().unwrap_or(&layer);
        let mut seen = nsh().with(Field::NshSpi, (outermost.path >> 8).into());
        seen = seen.with(Field::NshTtl, outermost.ttl.into());
        let context = if outermost.values.is_none() { outermost.context[2] } else { 0 };
        seen = seen.with(Field::NshC3, context.into());
        let udp = Match::new().with(Field::EthType, 0x800).with(Field::IpProto, 17);
        let udp = udp.with(Field::UdpDst, 53);
        let udp = if is_bare { udp.with(Field::PacketType, 0x1_0800) } else { udp };
        let mut uncover = vec![DECAP, DECAP];
        uncover.extend(outer.iter().map(|_| DECAP));
        uncover.push(Action::resubmit_table(1));
        let mut behind: Vec<_> = first.iter().map(|_| encap(0, vec![])).collect();
        behind.push(output(2));
        let rules = [(0, Match::new(), cover), (0, seen, uncover), (1, udp, behind)];
        let back = if is_bare { [&front(0x0800), inside].concat() } else { plain.clone() };
        for (from, to) in [(&plain, &whole), (&whole, &back)] {
            prop_assert_eq!(sent_from(&rules, from, head), [to.clone()]);
        }
    }

    /// Whatever a guest says of a header, no more is taken off than there is.
    #[test]
    fn no_header_is_longer_than_its_frame(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        is_likely: bool,
    ) {
        let mut bytes = bytes;
        if is_likely && let Some(first) = bytes.first_chunk_mut::<4>() {
            (first[0], first[2], first[3]) = (0x0F, MD2, 3);
        }
        let frame = [front(0x894F), bytes.clone()].concat();
        let rules = [(0, nsh(), vec![DECAP, DECAP, encap(0, vec![]), output(2)]),
            (0, Match::new(), vec![])];
        let rules_of_frames = [(0, nsh(), vec![DECAP, DECAP, output(2)])];
        for rules in [&rules[..], &rules_of_frames] {
            for got in sent(rules, &[Frame::from_bytes(&frame)]).0 {
                let len = usize::from(bytes[1] & 0x3F) * 4;
                prop_assert!(len >= 8 && bytes[0] >> 6 == 0);
                prop_assert!(got.ends_with(&bytes[len..]));
                prop_assert!([bytes.len() - len, bytes.len() - len + 14].contains(&got.len()));
            }
        }
    }
}

#[test]
fn what_cannot_be_put_on_or_taken_off_drops_packets() {
    let plain = datagram(&[]);
    let layer = Layer { values: None, flags: 0, ttl: 1, path: 0xFF, context: [0; 4] };
    let with = |next: u8| [front(0x894F), layer.bytes(next), plain.clone()].concat();
    // Of metadata of the first type there are four words.
    let mut short = with(3);
    short[15] = short[15] & 0xC0 | 5;
    let arp = [front(0x0806), vec![0; 28]].concat();
    for (frame, actions, reason) in [
        (&arp, vec![DECAP, encap(NSH, vec![])], DropReason::FlowPacketType),
        (&with(5), vec![DECAP, DECAP], DropReason::FlowPacketType),
        (&short, vec![DECAP, DECAP], DropReason::FlowPacketType),
        (&plain, vec![encap(NSH, vec![])], DropReason::FlowDrop),
        (&with(3)[..46].to_vec(), vec![DECAP, DECAP], DropReason::TooShort),
        // What has no such header has no time to live.
        (&plain, vec![Action::DecNshTtl], DropReason::FlowDrop),
    ] {
        let rules = [(0, Match::new(), [actions.clone(), vec![output(2)]].concat())];
        let (got, bench) = sent(&rules, &[Frame::from_bytes(frame)]);
        assert_eq!((got.len(), bench.dropped(reason)), (0, 1), "{actions:?}");
    }
    // It has come to its end, of which controllers are told.
    let rules = [(0, Match::new(), vec![Action::DecNshTtl, output(2)])];
    assert!(sent(&rules, &[Frame::from_bytes(&with(3))]).0.is_empty());
    let rules = [(0, Match::new(), vec![write(Field::NshTtl, 9), Action::DecNshTtl, output(2)])];
    let got = sent(&rules, &[Frame::from_bytes(&with(3))]).0;
    let less = Layer { ttl: 8, ..layer };
    assert_eq!(got, [[front(0x894F), less.bytes(3), plain].concat()]);
}

/// A header that is put on and taken off at once is as if it had not been.
#[test]
fn a_header_that_is_taken_off_at_once_leaves_nothing() {
    let plain = datagram(&[1, 2, 3]);
    let rules = [(0, Match::new(), vec![encap(NSH, vec![]), DECAP, output(2)])];
    assert_eq!(sent(&rules, &[Frame::from_bytes(&plain)]).0, [plain]);
}
