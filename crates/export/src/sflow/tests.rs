use proptest::prelude::*;

use super::*;
use crate::datagram::Datagram;

const AGENT: Agent = Agent { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), sub_id: 3 };

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Words of a datagram, as a collector reads them.
struct Words<'w>(&'w [u8]);

impl<'w> Words<'w> {
    fn u32(&mut self) -> u32 {
        let (word, rest) = self.0.split_first_chunk().expect("a word");
        self.0 = rest;
        u32::from_be_bytes(*word)
    }

    fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    fn bytes(&mut self, count: usize) -> &'w [u8] {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    /// What has a length, which is filled up with zeroes.
    fn opaque(&mut self) -> &'w [u8] {
        let count = self.u32() as usize;
        let (bytes, filled) = self.bytes(count.next_multiple_of(4)).split_at(count);
        assert!(filled.iter().all(|byte| *byte == 0));
        bytes
    }

    fn block(&mut self) -> (u32, Words<'w>) {
        (self.u32(), Words(self.opaque()))
    }

    fn end(&self) {
        assert_eq!(self.0, []);
    }
}

/// The samples of a datagram, whose header is checked.
fn samples(datagram: &Datagram, sequence: u32, uptime: u32) -> Vec<(u32, Words<'_>)> {
    let mut words = Words(&datagram.bytes);
    assert_eq!((words.u32(), words.u32(), words.bytes(4)), (5, 1, &[192, 0, 2, 1][..]));
    assert_eq!((words.u32(), words.u32(), words.u32()), (3, sequence, uptime));
    let count = words.u32();
    assert_eq!(count, datagram.records);
    let samples = (0..count).map(|_| words.block()).collect();
    words.end();
    samples
}

#[test]
fn a_sample_is_written_as_the_specification_says() {
    let mut exporter = Exporter::new(AGENT);
    let sample = FlowSample {
        rate: 400,
        stands_for: 399,
        drops: 2,
        input: 1_004,
        output: Output::Interface(1_003),
        tag_in: Tag::of_tci(0x600a),
        tag_out: Tag::default(),
        frame_len: 61,
        header: &[1, 2, 3, 4, 5],
    };
    exporter.flow(&sample, 1);
    let datagrams = exporter.take(0x0102_0304);
    #[rustfmt::skip]
    let expected: [u8; 124] = [
        0, 0, 0, 5, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 3, 0, 0, 0, 1, 1, 2, 3, 4, 0, 0, 0, 1,
        // flow_sample
        0, 0, 0, 1, 0, 0, 0, 88,
        0, 0, 0, 1, 2, 0, 3, 235, 0, 0, 1, 144, 0, 0, 1, 143, 0, 0, 0, 2,
        0, 0, 3, 236, 0, 0, 3, 235, 0, 0, 0, 2,
        // sampled_header
        0, 0, 0, 1, 0, 0, 0, 24,
        0, 0, 0, 1, 0, 0, 0, 65, 0, 0, 0, 4, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0,
        // extended_switch
        0, 0, 3, 233, 0, 0, 0, 16, 0, 0, 0, 10, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(datagrams, [Datagram { bytes: expected.to_vec(), records: 1 }]);
    assert_eq!(exporter.take(9), [], "nothing is told twice");
}

#[test]
fn where_a_packet_goes_has_three_forms() {
    for (output, code) in [
        (Output::Interface(7), 7),
        (Output::Dropped, 0x4000_0100),
        (Output::Several(3), 0x8000_0003),
        (Output::Interface(u32::MAX), 0x3fff_ffff),
        (Output::Several(u32::MAX), 0xbfff_ffff),
    ] {
        let mut exporter = Exporter::new(AGENT);
        exporter.flow(&FlowSample { output, ..FlowSample::default() }, 1);
        let datagrams = exporter.take(1);
        let (_, mut words) = samples(&datagrams[0], 1, 1).remove(0);
        assert_eq!(words.bytes(24).len(), 24);
        assert_eq!(words.u32(), code, "{output:?}");
    }
}

fn counters(index: u32) -> Counters<'static> {
    Counters {
        index,
        speed: 10_000_000_000,
        full_duplex: Some(true),
        is_enabled: true,
        is_up: true,
        received: [0x1_0000_0002, 3, 4],
        sent: [5, 0x6_0000_0007, 8],
        name: "vm1",
        openflow: Some(OpenFlowPort { datapath: 0x0102_0304_0506_0708, number: 65_534 }),
        lacp: None,
    }
}

#[test]
fn counters_of_a_port_are_told_with_its_name() {
    let mut exporter = Exporter::new(AGENT);
    exporter.counters(&counters(9), 1);
    exporter.counters(&counters(9), 1);
    exporter.counters(&counters(8), 1);
    exporter.retain(|index| index == 8);
    exporter.counters(&counters(9), 1);
    exporter.counters(&counters(8), 1);
    let datagrams = exporter.take(1);
    let all = samples(&datagrams[0], 1, 1);
    let sequences = all.into_iter().map(|(kind, mut words)| {
        let (sequence, source) = (words.u32(), words.u32());
        assert_eq!((kind, words.u32()), (2, 3));
        let (kind, mut generic) = words.block();
        assert_eq!(
            (kind, generic.u32(), generic.u32(), generic.u64()),
            (1, source, 6, 10_000_000_000)
        );
        assert_eq!((generic.u32(), generic.u32()), (1, 3), "full duplex, up");
        let unknown = u32::MAX;
        assert_eq!((generic.u64(), generic.u32()), (3, 2), "the low half of the packets");
        let rest = [(); 5].map(|()| generic.u32());
        assert_eq!(rest, [unknown, unknown, 4, 0, unknown]);
        assert_eq!((generic.u64(), generic.u32()), (0x6_0000_0007, 5));
        let rest = [(); 5].map(|()| generic.u32());
        assert_eq!(rest, [unknown, unknown, 8, 0, 0]);
        generic.end();
        let (kind, mut name) = words.block();
        assert_eq!((kind, name.opaque()), (1_005, &b"vm1"[..]));
        let (kind, mut port) = words.block();
        assert_eq!((kind, port.u64(), port.u32()), (1_004, 0x0102_0304_0506_0708, 65_534));
        port.end();
        words.end();
        (source, sequence)
    });
    let sequences: Vec<_> = sequences.collect();
    assert_eq!(sequences, [(9, 1), (9, 2), (8, 1), (9, 1), (8, 2)]);
}

#[test]
fn a_port_that_speaks_lacp_says_so() {
    let lacp = LacpCounters {
        system: [2, 0, 0, 0, 0, 1],
        partner: [2, 0, 0, 0, 0, 2],
        aggregate: 3_333,
        states: [7, 0xbf, 0, 2],
        received: 4,
        bad: 5,
        sent: 6,
    };
    let mut exporter = Exporter::new(AGENT);
    let port =
        Counters { name: "", openflow: None, lacp: Some(lacp), is_enabled: false, ..counters(1) };
    exporter.counters(&port, 1);
    let datagrams = exporter.take(1);
    let (_, mut words) = samples(&datagrams[0], 1, 1).remove(0);
    assert_eq!((words.u32(), words.u32(), words.u32()), (1, 1, 3));
    let (_, generic) = words.block();
    assert_eq!(generic.0.get(20..24), Some(&[0; 4][..]), "out of service, so there is no link");
    let (kind, block) = words.block();
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 13, 5, 7, 0xbf, 0, 2, 0, 0, 0, 4,
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 5, 0, 0, 0, 6,
        255, 255, 255, 255, 255, 255, 255, 255,
    ];
    assert_eq!((kind, block.0), (7, &expected[..]));
}

#[test]
fn an_agent_can_have_an_address_of_version_6() {
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    let start = |address: Ipv6Addr| {
        let mut exporter = Exporter::new(Agent { address: address.into(), sub_id: 0 });
        exporter.flow(&FlowSample::default(), 1);
        exporter.take(1).remove(0).bytes[4..24].to_vec()
    };
    assert_eq!(start(address), [&[0, 0, 0, 2][..], &address.octets()].concat());
    let mapped = Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped();
    assert_eq!(start(mapped)[..8], [0, 0, 0, 1, 192, 0, 2, 7]);
}

proptest! {
    /// Whatever is sampled: each datagram can be read, none is too long, and no sample is lost.
    #[test]
    fn datagrams_are_no_longer_than_a_packet(
        lengths in prop::collection::vec(0_usize..=usize::from(MAX_HEADER), 0..60),
    ) {
        let mut exporter = Exporter::new(AGENT);
        let bytes = [0xa5; MAX_HEADER as usize];
        for length in &lengths {
            let header = &bytes[..*length];
            exporter.flow(&FlowSample { rate: 2, stands_for: 2, header, ..FlowSample::default() }, 7);
        }
        let datagrams = exporter.take(7);
        let mut seen = Vec::new();
        for (sequence, datagram) in (1..).zip(&datagrams) {
            prop_assert!(datagram.bytes.len() <= 1_400);
            for (kind, mut words) in samples(datagram, sequence, 7) {
                prop_assert_eq!(kind, 1);
                let place = words.u32();
                prop_assert_eq!(place as usize, seen.len() + 1);
                prop_assert_eq!((words.u32(), words.u32(), words.u32()), (2 << 24 | 1_003, 2, place * 2));
                words.bytes(12);
                prop_assert_eq!(words.u32(), 2);
                let (_, mut header) = words.block();
                header.bytes(12);
                seen.push(header.opaque().len());
            }
        }
        prop_assert_eq!(seen, lengths);
    }
}

#[test]
fn packets_of_which_nothing_is_told_are_in_the_pool() {
    let mut exporter = Exporter::new(AGENT);
    let sample = FlowSample { rate: 2, stands_for: 3, ..FlowSample::default() };
    exporter.flow(&sample, 7);
    exporter.skip(40);
    exporter.flow(&sample, 7);
    let mut pools = Vec::new();
    for (_, mut words) in samples(&exporter.take(7)[0], 1, 7) {
        words.bytes(12);
        pools.push(words.u32());
    }
    assert_eq!(pools, [3, 46]);
}
