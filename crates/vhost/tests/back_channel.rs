//! Our own front-end with back-ends that use their channel, well or badly.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eal::PeerFd;
use vhost::connection::Connection;
use vhost::control::{ControlThread, SocketOptions};
use vhost::frontend::{Frontend, FrontendError};
use vhost::protocol::{
    BackendMessage, FrontendMessage, Header, IotlbMessage, ProtocolFeatures, VringArea, VringState,
};
use virtio::Features;
use virtio::iotlb::{Access, Translation};

use vhost::testing::{CONFIG, Call, Recording, memory};

type Heard = Arc<Mutex<Vec<Option<u8>>>>;

/// A front-end that listens, and takes doorbells of even rings only.
fn frontend(stream: UnixStream, timeout: Duration) -> (Frontend, Heard) {
    let mut frontend = Frontend::new(stream.into(), "s", timeout, None).unwrap();
    let heard = Heard::default();
    let ears = Arc::clone(&heard);
    frontend.listen(Box::new(move |message| {
        let index = match message {
            BackendMessage::ConfigChange | BackendMessage::Iotlb(_) => None,
            BackendMessage::HostNotifier(VringArea { index, area }) => {
                assert!(area.is_some());
                Some(index)
            }
            BackendMessage::VringCall(index) | BackendMessage::VringErr(index) => Some(index),
        };
        ears.lock().unwrap().push(index);
        index.is_none_or(|index| index % 2 == 0)
    }));
    (frontend, heard)
}

fn doorbell(index: u8) -> BackendMessage<OwnedFd> {
    BackendMessage::HostNotifier(VringArea { index, area: Some((memory(), 4096, 0)) })
}

#[test]
fn messages_are_heard_and_answered() {
    let control = ControlThread::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (mut backend, calls) = Recording::new();
    backend.to_tell.extend([BackendMessage::ConfigChange, doorbell(0), doorbell(1)]);
    let _socket = control.add_server(&path, SocketOptions::default(), Box::new(backend)).unwrap();
    let (mut frontend, heard) =
        frontend(UnixStream::connect(&path).unwrap(), Duration::from_secs(10));
    frontend.handshake().unwrap();
    let part = frontend.read_config(1, 3).unwrap().unwrap();
    assert_eq!(part.bytes[..], CONFIG[1..4]);
    assert!(frontend.read_config(6, 3).unwrap().is_none(), "there is no such part");
    let deadline = Instant::now() + Duration::from_secs(10);
    while heard.lock().unwrap().len() < 3 {
        assert!(Instant::now() < deadline, "no message");
        frontend.check().unwrap();
    }
    assert_eq!(*heard.lock().unwrap(), [None, Some(0), Some(1)]);
    calls.wait_for(&Call::Notifier(0, true));
    calls.wait_for(&Call::Notifier(1, false));
}

#[test]
fn a_front_end_that_does_not_listen_opens_no_channel() {
    let control = ControlThread::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (backend, _) = Recording::new();
    let _socket = control.add_server(&path, SocketOptions::default(), Box::new(backend)).unwrap();
    let stream = UnixStream::connect(&path).unwrap().into();
    let mut frontend = Frontend::new(stream, "s", Duration::from_secs(10), None).unwrap();
    let offer = frontend.handshake().unwrap();
    assert!(!offer.protocol.contains(ProtocolFeatures::BACKEND_REQ));
    assert!(frontend.channel_fd().is_none());
}

/// A back-end in a thread that does what `act` says with GET_VRING_BASE, and answers the rest.
/// It has the connection and the channel.
fn rude(act: impl FnOnce(&mut Connection, &mut Connection) + Send + 'static) -> UnixStream {
    let (theirs, ours) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut connection = Connection::new(ours.into()).unwrap();
        let (mut channel, mut act) = (None, Some(act));
        loop {
            let Some((number, needs_reply, message)) = receive(&mut connection) else { return };
            let answer = match message {
                FrontendMessage::GetFeatures => Features::VHOST_USER_PROTOCOL.bits(),
                FrontendMessage::GetProtocolFeatures => ProtocolFeatures::all().bits(),
                FrontendMessage::GetQueueNum => 1,
                FrontendMessage::SetBackendReqFd(fd) => {
                    channel = Some(Connection::over(fd).unwrap());
                    0
                }
                FrontendMessage::GetVringBase(_) => {
                    act.take().unwrap()(&mut connection, channel.as_mut().unwrap());
                    continue;
                }
                _ if needs_reply => 0,
                _ => continue,
            };
            connection.send_reply(number, &answer).unwrap();
        }
    });
    theirs
}

fn wait(connection: &Connection) {
    let mut fds = [rustix::event::PollFd::new(connection, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
}

/// The next message; `None` at the end.
fn receive(connection: &mut Connection) -> Option<(u32, bool, FrontendMessage<PeerFd>)> {
    loop {
        if let Some(message) = connection.receive().ok()? {
            let header = message.header;
            let decoded = FrontendMessage::decode(header.request, message.payload, message.fds);
            return Some((header.request, header.needs_reply(), decoded.unwrap()));
        }
        wait(connection);
    }
}

/// A question for what lies at `iova`, which is to be answered.
fn ask(channel: &mut Connection, iova: u64) {
    let (access, kind) = (3, IotlbMessage::MISS);
    let miss = IotlbMessage { iova, access, kind, ..IotlbMessage::default() };
    channel.send_backend_request(&BackendMessage::<OwnedFd>::Iotlb(miss), true).unwrap();
}

/// The answer, once it is there.
fn answer(channel: &mut Connection) -> u64 {
    loop {
        wait(channel);
        if let Some(message) = channel.receive().unwrap() {
            assert!(message.header.is_reply());
            return u64::from_ne_bytes(message.payload.try_into().unwrap());
        }
    }
}

#[test]
fn a_translation_is_told_before_the_question_for_it_is_answered() {
    let (iova, len, user_addr) = (0x1000, 0x4000, 0x7000_0000);
    let (done, is_done) = std::sync::mpsc::channel();
    let stream = rude(move |connection, channel| {
        // Within a call, of which the reply comes first.
        ask(channel, iova + 0x2000);
        let base = VringState { index: 0, num: 7 };
        connection.send_reply(11, &base).unwrap();
        let (number, needs_reply, message) = receive(connection).unwrap();
        let FrontendMessage::IotlbMsg(update) = message else { panic!("{message:?}") };
        assert!(needs_reply && channel.receive().unwrap().is_none(), "not answered yet");
        let kind = IotlbMessage::UPDATE;
        assert_eq!(update, IotlbMessage { iova, size: len, user_addr, access: 3, kind });
        connection.send_reply(number, &0_u64).unwrap();
        assert_eq!(answer(channel), 0);
        // What is not there is answered at once; and what is refused is not there.
        ask(channel, iova + len);
        assert_eq!(answer(channel), 1);
        ask(channel, iova);
        let (number, ..) = receive(connection).unwrap();
        connection.send_reply(number, &1_u64).unwrap();
        assert_eq!(answer(channel), 1);
        done.send(()).unwrap();
    });
    let (mut frontend, _) = frontend(stream, Duration::from_secs(10));
    frontend.handshake().unwrap();
    frontend.map(Translation { iova, len, user_addr, access: Access::all() }).unwrap();
    assert_eq!(frontend.stop_ring(0).unwrap(), 7);
    while is_done.try_recv().is_err() {
        frontend.check().unwrap();
        std::thread::yield_now();
    }
    frontend.unmap_all().unwrap();
    assert!(!frontend.has_misses());
}

#[test]
fn a_back_end_may_wait_for_its_answer_before_it_answers() {
    let stream = rude(|connection, channel| {
        channel.send_backend_request(&doorbell(4), true).unwrap();
        loop {
            if let Some(answer) = channel.receive().unwrap() {
                assert!(answer.header.is_reply());
                assert_eq!(answer.payload, 0_u64.to_ne_bytes());
                break;
            }
            wait(channel);
        }
        connection.send_reply(11, &VringState { index: 0, num: 7 }).unwrap();
    });
    let (mut frontend, heard) = frontend(stream, Duration::from_secs(10));
    frontend.handshake().unwrap();
    assert_eq!(frontend.stop_ring(0).unwrap(), 7);
    assert_eq!(*heard.lock().unwrap(), [Some(4)]);
}

#[test]
fn a_back_end_that_only_talks_is_given_up_in_time() {
    let stream = rude(|_, channel| {
        // Until nobody listens any more.
        loop {
            if channel.wants_write() {
                if channel.flush().is_err() {
                    return;
                }
            } else if channel
                .send_backend_request(&BackendMessage::<OwnedFd>::ConfigChange, false)
                .is_err()
            {
                return;
            }
        }
    });
    // Long enough for the back-end's thread to answer the handshake on a busy machine.
    let (mut frontend, _) = frontend(stream, Duration::from_secs(5));
    frontend.handshake().unwrap();
    let before = Instant::now();
    let error = frontend.stop_ring(0).unwrap_err();
    assert!(matches!(error, FrontendError::Timeout { .. }), "{error}");
    assert!(before.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_back_end_that_lies_on_its_channel_loses_it() {
    let stream = rude(|connection, channel| {
        let junk = Header::request(3, 5, true);
        channel.send(junk, &[1, 2, 3, 4, 5], &[memory().as_fd()]).unwrap();
        // It hears of that by the end of the channel.
        loop {
            match channel.receive() {
                Err(_) => break,
                Ok(message) => assert!(message.is_none()),
            }
            wait(channel);
        }
        connection.send_reply(11, &VringState { index: 0, num: 9 }).unwrap();
    });
    let (mut frontend, heard) = frontend(stream, Duration::from_secs(10));
    frontend.handshake().unwrap();
    assert_eq!(frontend.stop_ring(0).unwrap(), 9);
    assert!(frontend.channel_fd().is_none());
    assert!(heard.lock().unwrap().is_empty());
}
