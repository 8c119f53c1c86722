//! The state of a device on its way to another back-end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use eal::PeerFd;
use vhost::Backend;
use vhost::connection::Message;
use vhost::protocol::{FrontendMessage, Header, ProtocolFeatures, StateTransfer};
use vhost::session::{Answer, Device, Reply, Session};
use vhost::testing::null;

use crate::NetDevice;
use crate::command::Command;

type M = FrontendMessage<OwnedFd>;

/// A front-end at a network device, which has a guest whose driver has set `queue_pairs`.
struct Host {
    device: Device,
    session: Session,
}

impl Host {
    fn new(queue_pairs: u16) -> Self {
        let backend = Box::new(NetDevice::new("test", queue_pairs).unwrap());
        let mut device = Device { backend, events: Box::new(|_| ()) };
        let session = Session::open(&mut device);
        let mut host = Self { device, session };
        let features = ProtocolFeatures::DEVICE_STATE | ProtocolFeatures::REPLY_ACK;
        host.send(&M::SetProtocolFeatures(features.bits()));
        host
    }

    fn send(&mut self, message: &M) -> Answer {
        let (number, payload) = (message.request().number(), message.payload());
        let header = Header::request(number, payload.len().try_into().unwrap(), false);
        let fds = message.fds();
        let fds = fds.iter().map(|fd| PeerFd::from(fd.try_clone_to_owned().unwrap())).collect();
        self.session.handle(&mut self.device, Message { header, payload: &payload, fds }).unwrap()
    }

    /// The file that the back-end wants to have used.
    fn begin(&mut self, direction: u32) -> File {
        let transfer = StateTransfer { direction, phase: StateTransfer::STOPPED };
        // What we send may be anything.
        let answer = self.send(&M::SetDeviceStateFd(transfer, null()));
        assert_eq!(answer.reply, Some(Reply::U64(0)));
        answer.attached.unwrap().into()
    }

    fn check(&mut self) -> Answer {
        self.send(&M::CheckDeviceState)
    }

    fn save(&mut self) -> Vec<u8> {
        let mut state = Vec::new();
        self.begin(StateTransfer::SAVE).read_to_end(&mut state).unwrap();
        assert_eq!(self.check().reply, Some(Reply::U64(0)));
        state
    }

    fn load(&mut self, state: &[u8]) -> Answer {
        self.begin(StateTransfer::LOAD).write_all(state).unwrap();
        self.check()
    }
}

#[test]
fn a_devices_state_moves_to_another_back_end() {
    let mut here = Host::new(2);
    let empty = here.save();
    let mut there = Host::new(2);
    assert_eq!(there.load(&empty).reply, Some(Reply::U64(0)));
    assert_eq!(there.save(), empty);
    // The driver has changed something since.
    let mut changed = NetDevice::new("test", 2).unwrap();
    assert!(changed.execute(Command::Vlan(7, true)) && changed.execute(Command::QueuePairs(1)));
    let changed = changed.save_state().unwrap();
    assert_ne!(changed, empty);
    assert_eq!(here.load(&changed).reply, Some(Reply::U64(0)));
    let moved = here.save();
    assert_eq!(moved, changed);
    there.load(&moved);
    assert_eq!(there.save(), changed);
    // Another guest has nothing of it.
    there.session.close(&mut there.device);
    there.session = Session::open(&mut there.device);
    there.send(&M::SetProtocolFeatures(ProtocolFeatures::DEVICE_STATE.bits()));
    assert_eq!(there.save(), empty);
}

#[test]
fn what_is_no_state_is_refused_and_changes_nothing() {
    let mut host = Host::new(2);
    let (before, larger) = (host.save(), Host::new(4).save());
    for (bytes, expected) in [
        (&[][..], "not the state"),
        (&[0xff; 1 << 16], "not the state"),
        (&before[..20], "ends too early"),
        (&larger, "uses 4 queue pairs, the device has 2"),
    ] {
        let answer = host.load(bytes);
        assert_eq!(answer.reply, Some(Reply::U64(1)));
        let reason = answer.refused.unwrap().to_string();
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(host.save(), before);
    }
    // Nothing larger fits.
    let mut file = host.begin(StateTransfer::LOAD);
    file.write_all(&[0; (1 << 16) + 1]).unwrap_err();
    // Nothing was begun.
    host.check();
    assert_eq!(host.check().reply, Some(Reply::U64(1)));
    let no_file = Some(Reply::U64(StateTransfer::NO_FILE | 1));
    for (direction, phase) in [(2, 0), (0, 1), (u32::MAX, u32::MAX)] {
        let answer = host.send(&M::SetDeviceStateFd(StateTransfer { direction, phase }, null()));
        assert!(answer.attached.is_none());
        assert_eq!(answer.reply, no_file);
        assert_eq!(host.check().reply, Some(Reply::U64(1)));
    }
}
