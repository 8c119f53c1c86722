//! Two controllers of a bridge, one of which may send anything.

use std::time::Instant;

use ofproto::{Bridge, ConnectionId, Detached, Origin, Port, Settings};
use openflow::message::hello::Hello;
use openflow::message::port::PortDesc;
use openflow::message::{Kind, Message, Raw};
use openflow::{PortNo, Version, VersionSet};

/// Bytes that wait for a controller.
const ROOM: usize = 1 << 16;

/// Plays messages: the first byte is the version, then each message has a byte of flags, its type,
/// the length of its body, and that.
pub(super) fn run(data: &[u8]) {
    let Some((version, mut rest)) = data.split_first() else { return };
    let version = Version::ALL[usize::from(*version) % Version::ALL.len()];
    let now = Instant::now();
    let mut bridge = Bridge::new(Settings { datapath_id: 1, ..Settings::default() });
    let port = |number: u32| Port {
        desc: PortDesc::new(PortNo(number)),
        name: format!("p{number}"),
        figures: [0; 12],
        custom: vec![("count".to_owned(), 1)],
        queues: [0].into(),
        marks: [(0, 1)].into_iter().collect(),
        since: now,
    };
    bridge.set_ports(vec![port(1), port(2)]);
    let good = join(&mut bridge, VersionSet::ALL);
    let bad = join(&mut bridge, [version].into_iter().collect());
    while let [flags, kind, length, tail @ ..] = rest {
        let (body, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let total = u16::try_from(8 + body.len()).unwrap_or(u16::MAX).to_be_bytes();
        // One in eight is of another version, and one in eight says another length than it has.
        let spoken = if flags & 7 == 7 { flags >> 3 } else { version.wire() };
        let said = if flags & 7 == 6 { [0, flags >> 3] } else { total };
        let message = [&[spoken, *kind, said[0], said[1], 0, 0, 0, *flags], body].concat();
        if bridge.receive(bad, &message, &mut Detached::default(), now).is_err() {
            break;
        }
        drain(&mut bridge, bad);
        drain(&mut bridge, good);
        bridge.take_jobs();
        if flags & 0x40 != 0 {
            bridge.set_ports(vec![port(1), port(u32::from(*flags))]);
        }
    }
    bridge.disconnect(bad);
    let features = Message::new(Version::V15, Kind::FeaturesRequest, 1);
    bridge
        .receive(good, &features.finish(), &mut Detached::default(), now)
        .expect("the other one goes on");
    drain(&mut bridge, good);
}

fn join(bridge: &mut Bridge, versions: VersionSet) -> ConnectionId {
    let id = bridge.connect(Origin::Controller, ROOM);
    bridge
        .receive(id, &Hello { versions }.encode(1), &mut Detached::default(), Instant::now())
        .expect("a HELLO");
    drain(bridge, id);
    id
}

/// What is sent can be read.
fn drain(bridge: &mut Bridge, id: ConnectionId) {
    while let Some(message) = bridge.take(id) {
        Raw::read(&message).expect("a message");
    }
}
