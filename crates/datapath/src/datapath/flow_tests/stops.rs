//! Frames that stop for controllers, and go on.

use openflow::action::Controller;

use super::*;
use crate::datapath::mirror_tests::tap;
use crate::flows::{FlowBegin, FlowPacketOut};
use crate::mirror::taps::To;

#[test]
fn a_frame_that_stops_goes_on_and_is_mirrored_once() {
    let pause = Action::Controller(Box::new(Controller { pause: true, ..Controller::default() }));
    let pipeline = pipeline(4, &[(0, Match::new(), vec![output(2), pause, output(3)])]);
    let (inlet, events) = flow_queue(8, || {});
    let flows = BridgeFlows::new(Arc::new(pipeline)).with_packets(inlet);
    let mut bench = Bench::new(4);
    bench.change(0, BridgeChange::Flows(Some(Box::new(flows.clone())), 0));
    bench.mirror(vec![tap(&[], &[1, 2], To::Port(3))]);
    let sent = frame(station(1), station(2));
    assert_eq!(counts(&bench.send(0, &[sent.clone(), sent.clone()])), [0, 2, 0, 2]);
    let stopped: Vec<FlowEvent> = events.try_iter().collect();
    assert_eq!(stopped.len(), 2);
    for event in stopped {
        let FlowEvent::Packet(packet) = event else { panic!("{event:?}") };
        assert_eq!((packet.mirrors, &packet.bytes), (1, &sent));
        let frozen = packet.about.frozen.as_deref().unwrap().clone();
        let mut go_on = |mirrors| {
            let begin = FlowBegin::Resume { frozen: Box::new(frozen.clone()), mirrors };
            let (key, bytes) = (frozen.key.clone(), packet.bytes.clone());
            let packet = FlowPacketOut { in_port: PortNo(1), begin, key, bytes };
            bench.path.packet_out(BridgeId::DEFAULT, &packet.of(Some(&flows), 5), 1);
            counts(&bench.send(0, &[]))
        };
        assert_eq!(go_on(packet.mirrors), [0, 0, 1, 0]);
        assert_eq!(go_on(0), [0, 0, 1, 1], "had there been no copy");
    }
}
