//! Meters on the data path.

use flow::Meter;
use openflow::message::meter::{Band, Meter as Desc, MeterCommand, MeterMod};

use super::*;

/// Packets a second.
const PKTPS: u16 = 2;

fn drop_beyond(burst: u32) -> Band {
    Band { remark: None, rate: 1, burst }
}

fn put(pipeline: &mut Pipeline, command: MeterCommand, id: u32, bands: Vec<Band>) -> Arc<Meter> {
    let meter = Desc { id, flags: PKTPS, bands };
    pipeline.tables.change_meter(&MeterMod { command, meter }, 0).unwrap();
    Arc::clone(pipeline.tables.meters().get(id).unwrap())
}

/// The same flows with meters' buckets that belong to one worker; those of `before` stay.
fn metered(pipeline: &Pipeline, before: Option<&BridgeFlows>) -> BridgeFlows {
    let mut flows = BridgeFlows::new(Arc::new(pipeline.clone()));
    let metering = before.map(|before| before.metering.clone()).unwrap_or_default();
    flows.metering = metering.of(pipeline.tables.meters(), (1, 1_000, 0));
    flows
}

fn update(bench: &mut Bench, flows: &BridgeFlows) {
    bench.change(0, BridgeChange::Flows(Some(Box::new(flows.clone())), 0));
}

fn burst(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|number| frame(station(1), station(10 + number))).collect()
}

fn rule(pipeline: &mut Pipeline, actions: Vec<Action>) {
    let add = Change::add(0, Match::new(), Instructions::apply(actions));
    pipeline.tables.change(&add, 0).unwrap();
}

/// What a meter and its bands have counted.
fn told(meter: &Meter) -> (u64, Vec<u64>) {
    let bands = meter.stats.bands.iter().map(Stats::packets).collect();
    (meter.stats.seen.packets(), bands)
}

#[test]
fn what_is_beyond_a_rate_is_dropped_and_counted() {
    let mut pipeline = pipeline(4, &[]);
    let meter = put(&mut pipeline, MeterCommand::Add, 1, vec![drop_beyond(10)]);
    rule(&mut pipeline, vec![output(2), Action::Meter(1), output(3)]);
    let mut bench = Bench::new(4);
    let flows = metered(&pipeline, None);
    update(&mut bench, &flows);
    let frames = burst(8);
    assert_eq!(counts(&bench.send(0, &frames)), [0, 8, 8, 0]);
    let got = bench.send(0, &frames);
    assert_eq!((counts(&got), &got[2][..]), (vec![0, 8, 2, 0], &frames[..2]));
    assert_eq!(bench.dropped(DropReason::FlowMeter), 6);
    assert_eq!(told(&meter), (0, vec![0]));
    bench.change(0, BridgeChange::FlushFlows(7));
    assert_eq!(told(&meter), (16, vec![6]));
    assert_eq!((meter.stats.seen.bytes(), meter.stats.bands[0].bytes()), (16 * 60, 6 * 60));
    // Another meter that comes, and other rules, leave its tokens as they are; it does not itself.
    put(&mut pipeline, MeterCommand::Add, 2, vec![drop_beyond(1)]);
    rule(&mut pipeline, vec![Action::Meter(1), output(4)]);
    let flows = metered(&pipeline, Some(&flows));
    update(&mut bench, &flows);
    assert_eq!(counts(&bench.send(0, &frames)), [0; 4]);
    put(&mut pipeline, MeterCommand::Modify, 1, vec![drop_beyond(3)]);
    update(&mut bench, &metered(&pipeline, Some(&flows)));
    assert_eq!(counts(&bench.send(0, &frames)), [0, 0, 0, 3]);
    assert_eq!(told(&meter), (24, vec![14]));
}

#[test]
fn a_copy_is_metered_for_itself() {
    let mut pipeline = pipeline(4, &[]);
    put(&mut pipeline, MeterCommand::Add, 1, vec![drop_beyond(2)]);
    let clone = Action::Clone(vec![write(Field::EthSrc, 7), Action::Meter(1), output(2)]);
    rule(
        &mut pipeline,
        vec![clone, output(3), write(Field::EthSrc, 8), Action::Meter(1), output(4)],
    );
    let mut bench = Bench::new(4);
    update(&mut bench, &metered(&pipeline, None));
    assert_eq!(counts(&bench.send(0, &burst(5))), [0, 2, 5, 0]);
}

#[test]
fn of_several_bands_the_highest_rate_decides() {
    // A packet of class AF11, by which it is raised to AF12 and to AF13.
    let source = [10, 0, 0, 1];
    let mut bytes = FrameBuilder::new(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))
        .ip(source, [10, 0, 0, 2])
        .udp(1, 2)
        .build()
        .unwrap();
    bytes[15] = 0b0010_1000;
    let sum = packet::checksum::update(u16::from_be_bytes([bytes[24], bytes[25]]), 0x4500, 0x4528);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let band = |rate, burst, remark| Band { remark, rate, burst };
    let mut pipeline = pipeline(4, &[]);
    let bands = vec![band(1, 3, Some(1)), band(2, 6, Some(2)), band(3, 9, None)];
    let meter = put(&mut pipeline, MeterCommand::Add, 1, bands);
    rule(&mut pipeline, vec![Action::Meter(1), write(Field::EthDst, 5), output(2)]);
    let mut bench = Bench::new(4);
    update(&mut bench, &metered(&pipeline, None));
    let got = bench.send(0, &vec![bytes.clone(); 12]);
    let classes: Vec<u8> = got[1].iter().map(|frame| frame[15] >> 2).collect();
    assert_eq!(classes, [10, 10, 10, 12, 12, 12, 14, 14, 14]);
    for frame in &got[1] {
        let words =
            frame[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xFFFF) + (sum >> 16), 0xFFFF, "the header's checksum is mended");
    }
    bench.change(0, BridgeChange::FlushFlows(0));
    assert_eq!(told(&meter), (12, vec![3, 3, 3]));
}

#[test]
fn what_only_goes_through_a_meter_is_lost_once() {
    let mut pipeline = pipeline(4, &[]);
    let meter = put(&mut pipeline, MeterCommand::Add, 1, vec![drop_beyond(2)]);
    rule(&mut pipeline, vec![Action::Meter(1)]);
    let mut bench = Bench::new(4);
    update(&mut bench, &metered(&pipeline, None));
    assert_eq!(counts(&bench.send(0, &burst(5))), [0; 4]);
    let lost = [DropReason::FlowMeter, DropReason::FlowDrop].map(|why| bench.dropped(why));
    assert_eq!(lost, [3, 2]);
    bench.change(0, BridgeChange::FlushFlows(0));
    assert_eq!(told(&meter), (5, vec![3]));
}

#[test]
fn controllers_and_what_they_send_are_metered() {
    let mut pipeline = pipeline(4, &[]);
    let meter = put(&mut pipeline, MeterCommand::Add, flow::CONTROLLER_METER, vec![drop_beyond(2)]);
    rule(&mut pipeline, vec![output(PortNo::CONTROLLER.0), output(2)]);
    let mut bench = Bench::new(4);
    let (inlet, packets) = flow_queue(64, || {});
    let flows = metered(&pipeline, None).with_packets(inlet);
    update(&mut bench, &flows);
    assert_eq!(counts(&bench.send(0, &burst(5))), [0, 5, 0, 0]);
    assert_eq!(packets.try_iter().count(), 2);
    bench.change(0, BridgeChange::FlushFlows(0));
    assert_eq!(told(&meter), (5, vec![3]));
    // A packet from a controller has what is left by workers, and is counted at once.
    let meter = put(&mut pipeline, MeterCommand::Add, 1, vec![drop_beyond(3)]);
    let flows = metered(&pipeline, Some(&flows));
    update(&mut bench, &flows);
    let mut sent = 0;
    for _ in 0..5 {
        let begin = crate::flows::FlowBegin::Actions(vec![Action::Meter(1), output(3)]);
        let bytes = frame(station(1), station(2));
        let packet =
            crate::flows::FlowPacketOut { in_port: PortNo(1), begin, key: Box::default(), bytes };
        bench.path.packet_out(BridgeId::DEFAULT, &packet.of(Some(&flows), 5), 1);
        sent += counts(&bench.send(0, &[]))[2];
    }
    assert_eq!((sent, told(&meter)), (3, (5, vec![2])));
}
