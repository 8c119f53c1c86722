//! The channel for messages of the back-end, with front-ends that answer, do not, or lie.

use eal::PeerFd;

use super::*;
use crate::protocol::{BackendMessage, ProtocolFeatures, VringArea};

type B = BackendMessage<OwnedFd>;

const ALL: u64 = ProtocolFeatures::BACKEND_REQ
    .union(ProtocolFeatures::BACKEND_SEND_FD)
    .union(ProtocolFeatures::HOST_NOTIFIER)
    .union(ProtocolFeatures::CONFIG)
    .union(ProtocolFeatures::REPLY_ACK)
    .bits();

fn doorbell(index: u8) -> B {
    let area = Some((memory(), 4096, 4096 * u64::from(index)));
    BackendMessage::HostNotifier(VringArea { index, area })
}

/// A device that has this to tell as soon as there is a channel.
fn bench(to_tell: impl IntoIterator<Item = B>) -> Bench {
    Bench::with(false, |device| device.to_tell = to_tell.into_iter().collect())
}

/// The front-end's end of the channel.
struct Ears {
    connection: Connection,
    stream: UnixStream,
}

impl Ears {
    /// Opens the channel of a front-end with these protocol features.
    fn open(peer: &mut Peer, features: u64) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        peer.tell(&M::SetProtocolFeatures(features));
        peer.tell(&M::SetBackendReqFd(theirs.into()));
        let connection = Connection::new(ours.try_clone().unwrap().into()).unwrap();
        Self { connection, stream: ours }
    }

    /// The next message, and whether it wants an answer; `None` once the channel is closed.
    #[track_caller]
    fn hear(&mut self) -> Option<(BackendMessage<PeerFd>, bool)> {
        let deadline = Instant::now() + LONG;
        loop {
            match self.connection.receive() {
                Ok(Some(message)) => {
                    let header = message.header;
                    let decoded =
                        BackendMessage::decode(header.request, message.payload, message.fds);
                    return Some((decoded.unwrap(), header.needs_reply()));
                }
                Ok(None) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let timeout = rustix::event::Timespec::try_from(left).unwrap();
                    let fd = rustix::event::PollFd::new(&self.stream, rustix::event::PollFlags::IN);
                    let ready = rustix::event::poll(&mut [fd], Some(&timeout)).unwrap();
                    assert_eq!(ready, 1, "nothing to hear");
                }
                Err(_) => return None,
            }
        }
    }

    fn answer(&mut self, code: u64) {
        self.answer_to(3, code);
    }

    fn answer_to(&mut self, request: u32, code: u64) {
        self.connection.send_reply(request, &code).unwrap();
    }

    fn hears_nothing(&mut self) {
        assert!(self.connection.receive().unwrap().is_none());
    }
}

fn index<F>(message: &BackendMessage<F>) -> Option<u8> {
    match message {
        BackendMessage::ConfigChange | BackendMessage::Iotlb(_) => None,
        BackendMessage::HostNotifier(VringArea { index, .. })
        | BackendMessage::VringCall(index)
        | BackendMessage::VringErr(index) => Some(*index),
    }
}

#[test]
fn each_doorbell_waits_for_the_answer_to_the_one_before() {
    let back = BackendMessage::HostNotifier(VringArea { index: 1, area: None });
    let bench = bench([BackendMessage::ConfigChange, doorbell(0), doorbell(1), back]);
    let mut peer = bench.connect();
    let mut ears = Ears::open(&mut peer, ALL);
    let (message, asks) = ears.hear().unwrap();
    assert_eq!((index(&message), asks), (None, false));
    let (message, asks) = ears.hear().unwrap();
    assert_eq!((index(&message), asks), (Some(0), true));
    let BackendMessage::HostNotifier(VringArea { area: Some((_, size, offset)), .. }) = message
    else {
        panic!("no doorbell");
    };
    assert_eq!((size, offset), (4096, 0));
    // The connection goes on meanwhile, and the channel does not.
    assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
    ears.hears_nothing();
    ears.answer(0);
    bench.calls.wait_for(&Call::Notifier(0, true));
    let (message, asks) = ears.hear().unwrap();
    assert_eq!((index(&message), asks), (Some(1), true));
    ears.answer(1);
    bench.calls.wait_for(&Call::Notifier(1, false));
    let (message, asks) = ears.hear().unwrap();
    assert_eq!((index(&message), asks), (Some(1), false));
}

#[test]
fn without_acknowledgements_nothing_is_waited_for() {
    let bench = bench((0..=255).map(doorbell));
    let mut peer = bench.connect();
    let mut ears = Ears::open(&mut peer, ALL & !ProtocolFeatures::REPLY_ACK.bits());
    for expected in 0..=255 {
        let (message, asks) = ears.hear().unwrap();
        assert_eq!((index(&message), asks), (Some(expected), false));
    }
}

#[test]
fn what_was_not_negotiated_is_not_sent() {
    let bench = bench([doorbell(0), BackendMessage::ConfigChange]);
    let mut peer = bench.connect();
    let mut ears = Ears::open(&mut peer, ALL & !ProtocolFeatures::HOST_NOTIFIER.bits());
    assert_eq!(index(&ears.hear().unwrap().0), None);
}

#[test]
fn whoever_lies_on_the_channel_loses_it_and_no_more() {
    // An answer before the question, to another one, of another size; a request.
    let lies: [&dyn Fn(&mut Ears); 4] = [
        &|ears| ears.connection.send_reply(2, &0_u64).unwrap(),
        &|ears| ears.connection.send_reply(1, &0_u64).unwrap(),
        &|ears| ears.connection.send_reply(3, &0_u32).unwrap(),
        &|ears| ears.connection.send(Header::request(3, 0, false), &[], &[]).unwrap(),
    ];
    for lie in lies {
        let bench = bench([doorbell(0), doorbell(1)]);
        let mut peer = bench.connect();
        let mut ears = Ears::open(&mut peer, ALL);
        ears.hear().unwrap();
        lie(&mut ears);
        assert!(ears.hear().is_none());
        assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
        // Another one is as good as the first.
        let mut ears = Ears::open(&mut peer, ALL);
        assert_eq!(index(&ears.hear().unwrap().0), Some(1));
    }
}

#[test]
fn a_channel_that_is_not_read_holds_nobody_up() {
    let bench = bench((0..5000).map(|_| BackendMessage::ConfigChange));
    let mut peer = bench.connect();
    let _deaf = Ears::open(&mut peer, ALL);
    for _ in 0..100 {
        assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
    }
}

#[test]
fn a_new_channel_takes_the_place_of_the_old() {
    let bench = bench([doorbell(0), doorbell(1)]);
    let mut peer = bench.connect();
    let mut old = Ears::open(&mut peer, ALL);
    assert_eq!(index(&old.hear().unwrap().0), Some(0));
    let mut new = Ears::open(&mut peer, ALL);
    assert!(old.hear().is_none(), "it is closed");
    assert_eq!(index(&new.hear().unwrap().0), Some(1));
    drop(peer);
    assert!(new.hear().is_none(), "it goes with the connection");
}

#[test]
fn notifications_are_messages_of_which_one_is_on_the_way() {
    const CALL: u32 = 4;
    let bench = Bench::with(false, |device| device.inband = true);
    let mut peer = bench.connect();
    let mut ears = Ears::open(&mut peer, ALL | ProtocolFeatures::INBAND_NOTIFICATIONS.bits());
    peer.share_memory();
    // Without kick files: the first kick starts a ring. The device uses all at once, and tells.
    let kick = |ring: u8| M::VringKick(VringState { index: ring.into(), num: 0 });
    peer.describe_ring(0);
    peer.describe_ring(1);
    peer.tell(&kick(0));
    let hear = |ears: &mut Ears| {
        let (message, asks) = ears.hear().unwrap();
        assert!(asks && matches!(message, BackendMessage::VringCall(_)), "{message:?}");
        index(&message)
    };
    assert_eq!(hear(&mut ears), Some(0));
    // Until that is answered nothing follows, and then one call for each ring.
    for ring in [1, 0, 0, 1] {
        peer.tell(&kick(ring));
    }
    assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
    ears.hears_nothing();
    for ring in [0, 1] {
        ears.answer_to(CALL, 0);
        assert_eq!(hear(&mut ears), Some(ring));
    }
    ears.answer_to(CALL, 0);
    assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
    ears.hears_nothing();
    // An answer to another message ends the channel.
    peer.tell(&kick(1));
    assert_eq!(hear(&mut ears), Some(1));
    ears.answer(0);
    assert!(ears.hear().is_none());
}
