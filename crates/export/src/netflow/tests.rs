use super::*;

const KEY: Key = Key {
    input: 1,
    source: Ipv4Addr::new(192, 168, 0, 1),
    destination: Ipv4Addr::new(192, 168, 0, 2),
    protocol: 6,
    tos: 0xb9,
    ports: [1_234, 80],
};

fn packets(output: Output, count: u64, last: u64) -> Packets {
    Packets { output: Some(output), packets: count, bytes: count * 100, flags: 0x10, last }
}

/// Of each record: where it goes, packets, bytes, first, last.
fn records(datagrams: &[Datagram]) -> Vec<[u64; 5]> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let of = |record: &[u8]| {
        [14..16, 16..20, 20..24, 24..28, 28..32].map(|range| number(&record[range]))
    };
    datagrams.iter().flat_map(|datagram| datagram.bytes[24..].chunks(48).map(of)).collect()
}

#[test]
fn a_flow_is_written_as_the_format_has_it() {
    let settings = Settings { engine_type: 2, engine_id: 1, ..Settings::default() };
    let mut exporter = Exporter::new(settings);
    exporter.count(KEY, &packets(Output::Port(2), 3, 1_000));
    exporter.count(KEY, &Packets { flags: 2, ..packets(Output::Port(2), 1, 2_000) });
    exporter.expire(16_999);
    assert_eq!(exporter.take(16_999, (7, 8)), [], "it may go on");
    exporter.expire(17_000);
    let datagrams = exporter.take(17_000, (0x0102_0304, 5));
    #[rustfmt::skip]
    let expected: [u8; 72] = [
        0, 5, 0, 1, 0, 0, 66, 104, 1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0, 0, 2, 1, 0, 0,
        192, 168, 0, 1, 192, 168, 0, 2, 0, 0, 0, 0, 0, 1, 0, 2,
        0, 0, 0, 4, 0, 0, 1, 144, 0, 0, 3, 232, 0, 0, 7, 208,
        4, 210, 0, 80, 0, 0x12, 6, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(datagrams, [Datagram { bytes: expected.to_vec(), records: 1 }]);
    exporter.expire(99_000);
    assert_eq!(exporter.take(99_000, (0, 0)), [], "it is forgotten");
}

#[test]
fn a_flow_that_goes_on_is_told_now_and_then() {
    let settings = Settings { active: Some(10_000), ..Settings::default() };
    let mut exporter = Exporter::new(settings);
    let mut told = Vec::new();
    for second in 0..25 {
        exporter.count(KEY, &packets(Output::Port(2), 1, second * 1_000));
        exporter.expire(second * 1_000);
        told.extend(records(&exporter.take(second * 1_000, (0, 0))));
    }
    assert_eq!(told, [[2, 11, 1_100, 0, 10_000], [2, 10, 1_000, 11_000, 20_000]]);
    // One without packets since then is not told again.
    exporter.expire(39_000);
    assert_eq!(records(&exporter.take(39_000, (0, 0))), [[2, 4, 400, 21_000, 24_000]]);
    exporter.expire(99_000);
    assert_eq!(exporter.take(99_000, (0, 0)), []);
}

#[test]
fn a_flow_that_goes_elsewhere_is_another_one() {
    let mut exporter = Exporter::new(Settings::default());
    exporter.count(KEY, &packets(Output::Flood, 1, 5));
    exporter.count(KEY, &packets(Output::Port(2), 1, 6));
    exporter.count(KEY, &packets(Output::Several, 1, 7));
    exporter.count(KEY, &packets(Output::Dropped, 1, 8));
    exporter.end();
    let told = records(&exporter.take(9, (0, 0)));
    let expected =
        [[65_535, 1, 100, 5, 5], [2, 1, 100, 6, 6], [65_534, 1, 100, 7, 7], [65_533, 1, 100, 8, 8]];
    assert_eq!(told, expected);
}

#[test]
fn the_engine_can_be_part_of_ports() {
    let settings = Settings { engine_id: 0x85, add_id: true, ..Settings::default() };
    let mut exporter = Exporter::new(settings);
    exporter.count(Key { input: 0x203, ..KEY }, &packets(Output::Port(7), 1, 5));
    exporter.end();
    let datagrams = exporter.take(5, (0, 0));
    assert_eq!(datagrams[0].bytes[36..40], [0x0a, 3, 0x0a, 7]);
}

#[test]
fn more_than_a_record_counts_goes_into_several() {
    let mut exporter = Exporter::new(Settings::default());
    let bytes = 9_000_000_001;
    exporter.count(KEY, &Packets { bytes, ..packets(Output::Port(2), 10, 5) });
    exporter.end();
    let told = records(&exporter.take(5, (0, 0)));
    let sum = |place: usize| told.iter().map(|record| record[place]).sum::<u64>();
    assert_eq!((told.len(), sum(1), sum(2)), (3, 10, bytes));
}

#[test]
fn datagrams_have_thirty_flows_and_are_numbered_by_them() {
    let mut exporter = Exporter::new(Settings::default());
    for input in 0..70 {
        exporter.count(Key { input, ..KEY }, &packets(Output::Port(2), 1, 5));
    }
    exporter.end();
    let datagrams = exporter.take(5, (0, 0));
    let heads = datagrams.iter().map(|one| (one.records, one.bytes[3], one.bytes[19]));
    assert_eq!(heads.collect::<Vec<_>>(), [(30, 30, 0), (30, 30, 30), (10, 10, 60)]);
}

#[test]
fn packets_of_which_nobody_knows_where_they_go_went_where_others_did() {
    let mut exporter = Exporter::new(Settings::default());
    let unknown = Packets { output: None, ..packets(Output::Flood, 2, 5) };
    exporter.count(KEY, &unknown);
    exporter.count(KEY, &packets(Output::Port(3), 1, 6));
    exporter.count(KEY, &unknown);
    exporter.count(Key { input: 2, ..KEY }, &unknown);
    exporter.end();
    let mut told = records(&exporter.take(9, (0, 0)));
    told.sort_unstable();
    assert_eq!(told, [[0, 2, 200, 5, 5], [3, 5, 500, 5, 6]]);
    assert_eq!(exporter.take_lost(), 0);
}

#[test]
fn it_holds_where_packets_go_but_of_a_flood() {
    let mut exporter = Exporter::new(Settings::default());
    assert!(!exporter.knows(&KEY, 0));
    exporter.count(KEY, &packets(Output::Port(3), 1, 6));
    exporter.count(KEY, &Packets { output: None, ..packets(Output::Port(3), 1, 9) });
    assert!(exporter.knows(&KEY, 6) && !exporter.knows(&KEY, 7));
    for output in [Output::Flood, Output::Port(3), Output::Dropped, Output::Several] {
        exporter.count(KEY, &packets(output, 1, 10));
        assert_eq!(exporter.knows(&KEY, 10), output != Output::Flood);
    }
    let other = Key { input: 2, ..KEY };
    exporter.count(other, &Packets { output: None, ..packets(Output::Port(3), 1, 9) });
    assert!(!exporter.knows(&other, 0));
}

#[test]
fn there_is_an_end_to_flows() {
    let mut exporter = Exporter::new(Settings::default());
    for number in 0..=u32::from(u16::MAX) + 9 {
        let key = Key { source: Ipv4Addr::from(number), ..KEY };
        exporter.count(key, &packets(Output::Port(2), 2, 5));
    }
    exporter.count(Key { source: Ipv4Addr::from(0), ..KEY }, &packets(Output::Port(2), 2, 5));
    assert_eq!((exporter.flows.len(), exporter.take_lost(), exporter.take_lost()), (65_536, 18, 0));
}
