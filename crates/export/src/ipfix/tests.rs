//! Messages, read as a collector reads them: by the templates that are in them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What is in messages: templates by domain and number, and records with the values of their elements.
#[derive(Debug, Default)]
struct Collector {
    templates: BTreeMap<(u32, u16), Vec<(u16, u16)>>,
    records: Vec<Record>,
    /// How many records there were, by domains.
    counts: BTreeMap<u32, u32>,
}

#[derive(Clone, Debug)]
struct Record {
    domain: u32,
    template: u16,
    /// By the number of the element, the last one of a number.
    values: BTreeMap<u16, Vec<u8>>,
}

impl Record {
    fn number(&self, element: u16) -> u64 {
        self.values[&element].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> &'b [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn number(bytes: &mut &[u8], count: usize) -> u32 {
    take(bytes, count).iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn short(bytes: &mut &[u8]) -> u16 {
    u16::try_from(number(bytes, 2)).unwrap()
}

impl Collector {
    fn read(&mut self, exporter: &mut Exporter, moment: Moment) -> Vec<u32> {
        let messages = exporter.take(moment, 3);
        messages.iter().map(|message| self.message(message, moment)).collect()
    }

    /// Returns the domain.
    fn message(&mut self, message: &crate::Datagram, moment: Moment) -> u32 {
        let mut bytes = message.bytes.as_slice();
        assert!(bytes.len() <= 1_400);
        assert_eq!(short(&mut bytes), 10);
        assert_eq!(usize::from(short(&mut bytes)), message.bytes.len());
        let second = number(&mut bytes, 4);
        assert_eq!(u64::from(second), moment.wall.div_ceil(1_000_000));
        let before = number(&mut bytes, 4);
        let domain = number(&mut bytes, 4);
        assert_eq!(before, *self.counts.entry(domain).or_default());
        let mut count = 0;
        while !bytes.is_empty() {
            let (id, len) = (short(&mut bytes), short(&mut bytes));
            let mut set = take(&mut bytes, usize::from(len) - 4);
            match id {
                2 | 3 => self.template(domain, id == 3, &mut set),
                template => {
                    self.record(domain, template, &mut set);
                    count += 1;
                }
            }
            assert!(set.is_empty());
        }
        *self.counts.get_mut(&domain).unwrap() += count;
        assert_eq!(count, message.records);
        domain
    }

    fn template(&mut self, domain: u32, has_scope: bool, set: &mut &[u8]) {
        let (id, count) = (short(set), short(set));
        if has_scope {
            assert_eq!(short(set), 1);
        }
        let mut elements = Vec::new();
        for _ in 0..count {
            let (element, len) = (short(set), short(set));
            if element & 0x8000 != 0 {
                assert_eq!(number(set, 4), 6_876);
            }
            elements.push((element, len));
        }
        self.templates.insert((domain, id), elements);
    }

    fn record(&mut self, domain: u32, template: u16, set: &mut &[u8]) {
        let mut values = BTreeMap::new();
        for (element, len) in &self.templates[&(domain, template)] {
            let len = match *len {
                u16::MAX => number(set, 1) as usize,
                len => usize::from(len),
            };
            values.insert(*element, take(set, len).to_vec());
        }
        self.records.push(Record { domain, template, values });
    }

    /// Those of flows.
    fn flows(&self) -> Vec<&Record> {
        self.records.iter().filter(|record| record.template != 462).collect()
    }
}

fn sample() -> Sample<'static> {
    Sample {
        domain: 5,
        point: 6,
        input: Interface { index: 3, name: "vm1" },
        macs: [[2; 6], [4; 6]],
        ether_type: 0x800,
        ip: Some(Ip {
            addresses: Addresses::V4([[192, 0, 2, 1].into(), [192, 0, 2, 2].into()]),
            ttl: 64,
            protocol: 6,
            tos: 0xb8,
        }),
        transport: Transport::Tcp([1_000, 80], 0x12),
        len: 114,
        packets: 10,
        ..Sample::default()
    }
}

const START: Moment = Moment { now: 1_000, wall: 1_700_000_000_250_000 };

fn at(now: u64) -> Moment {
    Moment { now, wall: START.wall + (now - START.now) * 1_000 }
}

#[test]
fn a_packet_is_told_at_once_where_none_are_gathered() {
    let mut exporter = Exporter::new(Settings { process: 9, ..Settings::default() });
    exporter.count(&sample(), 900);
    exporter.count(&sample(), 1_000);
    let mut collector = Collector::default();
    assert_eq!(collector.read(&mut exporter, START), [0, 5]);
    let [told, first, second] = &collector.records[..] else { panic!("{collector:?}") };
    assert_eq!((told.template, told.number(144), told.number(167)), (462, 9, 3));
    assert_eq!((first.domain, first.template), (5, 280));
    let expected: [(u16, u64); 24] = [
        (138, 6),
        (61, 0),
        (256, 0x800),
        (240, 14),
        (10, 3),
        (60, 4),
        (192, 64),
        (4, 6),
        (195, 0x2e),
        (196, 5),
        (5, 0xb8),
        (8, 0xc000_0201),
        (12, 0xc000_0202),
        (7, 1_000),
        (11, 80),
        (158, 850_000),
        (159, 850_000),
        (2, 10),
        (352, 1_140),
        (136, 2),
        (1, 1_000),
        (25, 100),
        (222, 10),
        (219, 0),
    ];
    for (element, value) in expected {
        assert_eq!(first.number(element), value, "{element}");
    }
    assert_eq!(first.values[&82], b"vm1");
    assert_eq!((second.number(2), second.number(86), second.number(354)), (10, 20, 20));
    assert_eq!(exporter.stats(), Stats { flows: 2, packets: 2, ok: [2, 0], ..Stats::default() });
    // Templates are known by now.
    let templates = collector.templates.len();
    exporter.count(&sample(), 2_000);
    assert_eq!(collector.read(&mut exporter, at(2_000)), [5]);
    assert_eq!((collector.templates.len(), collector.flows().len()), (templates, 3));
}

#[test]
fn packets_of_a_flow_are_gathered_for_a_while() {
    let settings = Settings { active: 5_000, max_flows: 2, ..Settings::default() };
    let mut exporter = Exporter::new(settings);
    let other = |port| Sample { transport: Transport::Udp([1, port]), ..sample() };
    let mut collector = Collector::default();
    exporter.count(&sample(), 1_000);
    exporter.count(&Sample { len: 64, is_dropped: true, ..sample() }, 4_000);
    exporter.count(&other(1), 4_500);
    exporter.expire(5_999);
    assert!(collector.read(&mut exporter, at(5_999)).is_empty());
    exporter.expire(6_000);
    collector.read(&mut exporter, at(6_000));
    let told = collector.flows()[0].clone();
    let values = [2, 133, 1, 25, 26, 136].map(|element| told.number(element));
    assert_eq!(values, [20, 10, 1_500, 50, 100, 2]);
    assert_eq!((told.number(158), told.number(159)), (5_750_000, 2_750_000));
    // Another one than there is room for: the first one goes.
    exporter.count(&other(2), 6_500);
    exporter.count(&other(3), 6_600);
    assert_eq!(exporter.stats().current, 2);
    collector.read(&mut exporter, at(6_600));
    let last = collector.flows().last().map(|told| (told.number(11), told.number(136)));
    assert_eq!(last, Some((1, 5)));
    exporter.end();
    collector.read(&mut exporter, at(6_600));
    let ports: Vec<_> = collector.flows().iter().map(|told| told.number(11)).collect();
    assert_eq!((ports, exporter.stats().current), (vec![80, 1, 2, 3], 0));
}

#[test]
fn templates_are_told_again_after_ten_minutes() {
    let mut exporter = Exporter::new(Settings::default());
    // Each message begins with what is told first.
    let mut begin_with_templates = |now| {
        exporter.count(&sample(), now);
        let messages = exporter.take(at(now), 0);
        messages.iter().all(|message| matches!(short(&mut &message.bytes[16..]), 2 | 3))
    };
    assert!(begin_with_templates(1_000));
    assert!(!begin_with_templates(600_999));
    assert!(begin_with_templates(601_000));
}

/// The collector checks each message's number.
#[test]
fn records_are_counted_on_where_templates_of_many_domains_are_told_anew() {
    let mut exporter = Exporter::new(Settings::default());
    let mut collector = Collector::default();
    for now in [1_000, 2_000] {
        for domain in 1..=1_030 {
            exporter.count(&Sample { domain, ..sample() }, now);
        }
        collector.read(&mut exporter, at(now));
    }
    assert!((1..=1_030).all(|domain| collector.counts[&domain] == 2));
}

fn any_sample() -> impl Strategy<Value = (Sample<'static>, bool)> {
    let transport = prop_oneof![
        Just(Transport::Other),
        any::<([u16; 2], u16)>().prop_map(|(ports, flags)| Transport::Tcp(ports, flags)),
        any::<[u16; 2]>().prop_map(Transport::Udp),
        any::<[u16; 2]>().prop_map(Transport::Sctp),
        any::<[u8; 2]>().prop_map(Transport::Icmp),
    ];
    let addresses = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|both| Addresses::V4(both.map(Into::into))),
        (any::<[[u8; 16]; 2]>(), any::<u32>())
            .prop_map(|(both, label)| Addresses::V6(both.map(Into::into), label)),
    ];
    let ip = (addresses, any::<[u8; 3]>()).prop_map(|(addresses, [ttl, protocol, tos])| Ip {
        addresses,
        ttl,
        protocol,
        tos,
    });
    let tag = (any::<u16>(), any::<u8>()).prop_map(|(vlan, priority)| Tag { vlan, priority });
    let parts = (proptest::option::of(ip), transport, proptest::option::of(tag));
    (parts, any::<[[u8; 6]; 2]>(), any::<(u16, u32, bool, bool)>(), 0..3_u32, any::<bool>())
        .prop_map(
            |(
                (ip, transport, tag),
                macs,
                (ether_type, len, is_dropped, goes_out),
                domain,
                ends,
            )| {
                let direction = if goes_out { Direction::Egress } else { Direction::Ingress };
                let own = Sample {
                    ip,
                    transport,
                    tag,
                    macs,
                    ether_type,
                    len,
                    is_dropped,
                    direction,
                    domain,
                    ..sample()
                };
                (Sample { output: Interface { index: 4, name: "eth0" }, ..own }, ends)
            },
        )
}

proptest! {
    /// Whatever is sampled: a collector can read it, and no packet is missing.
    #[test]
    fn all_packets_are_told(
        samples in proptest::collection::vec(any_sample(), 1..60),
        active in prop_oneof![Just(0), Just(7)],
        max_flows in 0..5_usize,
        virtual_id in proptest::option::of("[a-z]{0,20}"),
    ) {
        let settings = Settings { process: 1, active, max_flows, virtual_id: virtual_id.clone() };
        let mut exporter = Exporter::new(settings);
        let mut collector = Collector::default();
        let mut dropped = 0;
        for (now, (sample, ends)) in (1_000..).zip(&samples) {
            exporter.count(sample, now);
            dropped += if sample.is_dropped { sample.packets } else { 0 };
            if *ends {
                exporter.expire(now);
                collector.read(&mut exporter, at(now));
            }
        }
        exporter.end();
        collector.read(&mut exporter, at(2_000));
        let flows = collector.flows();
        let sum = |element| flows.iter().map(|told| told.number(element)).sum::<u64>();
        prop_assert_eq!(sum(2), 10 * samples.len() as u64);
        prop_assert_eq!(sum(133), dropped);
        prop_assert_eq!(flows.iter().map(|told| told.number(86)).max(), Some(10 * samples.len() as u64));
        for told in &flows {
            let name = told.values.get(&(898 | 0x8000));
            prop_assert_eq!(name.map(Vec::as_slice), virtual_id.as_ref().map(String::as_bytes));
        }
    }
}
