//! The control thread with front-ends that are slow, absent, rude or in great number.

mod channel;
mod closing;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::backend::Event;
use crate::connection::Connection;
use crate::protocol::{FrontendMessage, Header, MemoryRegion, VringAddr, VringFile, VringState};
use crate::testing::{Call, FEATURES, MEMORY, Recorder, Recording, event, memory};

type M = FrontendMessage<OwnedFd>;

const LONG: Duration = testkit::PATIENCE;

struct Bench {
    // Dropped in this order.
    socket: SocketHandle,
    control: ControlHandle,
    calls: Recorder,
    events: Receiver<Event>,
    dir: tempfile::TempDir,
}

fn options() -> (SocketOptions, Receiver<Event>) {
    let (sender, events) = channel();
    let sink: EventSink = Box::new(move |event| {
        let _ = sender.send(event);
    });
    (SocketOptions { access: Access::default(), events: Some(sink) }, events)
}

impl Bench {
    fn server() -> Self {
        Self::with(false, |_| ())
    }

    fn with(client: bool, prepare: impl FnOnce(&mut Recording)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let control = ControlThread::start().unwrap();
        let (mut backend, calls) = Recording::new();
        prepare(&mut backend);
        let (options, events) = options();
        let path = dir.path().join("s");
        let backend = Box::new(backend);
        let socket = if client {
            control.add_client(path, options, backend)
        } else {
            control.add_server(path, options, backend)
        };
        Self { socket: socket.unwrap(), control, calls, events, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn connect(&self) -> Peer {
        Peer::over(UnixStream::connect(self.path()).unwrap())
    }

    #[track_caller]
    fn expect(&self, event: Event) {
        assert_eq!(self.events.recv_timeout(LONG).unwrap(), event);
    }
}

/// A front-end that waits for its replies.
struct Peer {
    connection: Connection,
    stream: UnixStream,
}

impl Peer {
    fn over(stream: UnixStream) -> Self {
        let connection = Connection::new(stream.try_clone().unwrap().into()).unwrap();
        Self { connection, stream }
    }

    fn tell(&mut self, message: &M) {
        self.connection.send_request(message, false).unwrap();
    }

    fn ask(&mut self, message: &M) -> u64 {
        self.tell(message);
        self.reply()
    }

    fn reply(&mut self) -> u64 {
        self.stream.set_nonblocking(false).unwrap();
        self.stream.set_read_timeout(Some(LONG)).unwrap();
        let mut bytes = [0; 20];
        self.stream.read_exact(&mut bytes).unwrap();
        self.stream.set_nonblocking(true).unwrap();
        u64::from_ne_bytes(bytes[12..].try_into().unwrap())
    }

    /// Waits until the back-end hangs up.
    fn hung_up(&mut self) {
        self.stream.set_nonblocking(false).unwrap();
        self.stream.set_read_timeout(Some(LONG)).unwrap();
        // It is reset instead when the back-end had something left to read.
        assert!(matches!(self.stream.read(&mut [0]), Ok(0) | Err(_)));
    }

    fn share_memory(&mut self) {
        let (guest_addr, user_addr, mmap_offset) = (0, 0x7000_0000, 0);
        let region = MemoryRegion { guest_addr, size: MEMORY, user_addr, mmap_offset };
        self.tell(&M::SetFeatures(FEATURES));
        self.tell(&M::SetMemTable(std::iter::once((region, memory())).collect()));
    }

    fn describe_ring(&mut self, index: u8) {
        self.tell(&M::SetVringNum(VringState { index: index.into(), num: 256 }));
        self.tell(&M::SetVringAddr(VringAddr { index: index.into(), ..VringAddr::default() }));
    }

    fn start_ring(&mut self, index: u8, kick: OwnedFd) {
        self.share_memory();
        self.describe_ring(index);
        self.tell(&M::SetVringKick(VringFile { index, fd: Some(kick) }));
    }
}

impl Drop for Peer {
    /// Hangs up, also where a program that another test is just starting has the socket, until it runs.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[test]
fn a_front_end_comes_and_goes_and_comes_again() {
    let bench = Bench::server();
    for _ in 0..3 {
        let mut peer = bench.connect();
        assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
        bench.expect(Event::Connected);
        drop(peer);
        bench.expect(Event::Gone);
        let calls = bench.calls.wait_for(&Call::Disconnected);
        assert_eq!(calls, [Call::Connected, Call::Disconnected]);
    }
}

#[test]
fn rings_are_stopped_before_a_front_end_is_forgotten() {
    let bench = Bench::server();
    let mut peer = bench.connect();
    peer.start_ring(1, event());
    assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
    bench.calls.take();
    drop(peer);
    assert_eq!(bench.calls.wait_for(&Call::Disconnected), [Call::Stop(1), Call::Disconnected]);
}

#[test]
fn a_second_front_end_is_refused_while_one_is_connected() {
    let bench = Bench::server();
    assert_eq!(bench.socket.front_end(), None);
    let mut first = bench.connect();
    assert_eq!(first.ask(&M::GetFeatures), FEATURES);
    assert_eq!(bench.socket.front_end(), Some(std::process::id()));
    bench.connect().hung_up();
    assert_eq!(first.ask(&M::GetFeatures), FEATURES);
    assert_eq!(bench.socket.front_end(), Some(std::process::id()));
    drop(first);
    bench.calls.wait_for(&Call::Disconnected);
    assert_eq!(bench.socket.front_end(), None);
    assert_eq!(bench.connect().ask(&M::GetFeatures), FEATURES);
}

#[test]
fn a_front_end_that_starts_again_at_once_is_not_refused() {
    let bench = Bench::server();
    let mut peer = bench.connect();
    for _ in 0..200 {
        assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
        drop(peer);
        peer = bench.connect();
    }
}

#[test]
fn front_ends_that_come_and_go_without_a_word_keep_nobody_out() {
    let bench = Bench::server();
    for _ in 0..300 {
        for _ in 0..3 {
            drop(bench.connect());
        }
        assert_eq!(bench.connect().ask(&M::GetFeatures), FEATURES);
    }
}

#[test]
fn half_a_message_holds_up_nobody() {
    let bench = Bench::server();
    let mut slow = bench.connect();
    slow.stream.write_all(&Header::request(1, 0, false).to_bytes()[..7]).unwrap();
    bench.calls.wait_for(&Call::Connected);

    let path = bench.dir.path().join("other");
    let (backend, _) = Recording::new();
    let other = bench.control.add_server(&path, SocketOptions::default(), Box::new(backend));
    let mut quick = Peer::over(UnixStream::connect(&path).unwrap());
    assert_eq!(quick.ask(&M::GetFeatures), FEATURES);
    other.unwrap().remove();
    quick.hung_up();
    assert!(!path.exists());

    slow.stream.write_all(&Header::request(1, 0, false).to_bytes()[7..]).unwrap();
    assert_eq!(slow.reply(), FEATURES);
}

#[test]
fn a_front_end_that_reads_no_replies_is_not_listened_to() {
    let bench = Bench::server();
    let mut peer = bench.connect();
    let request = Header::request(1, 0, false).to_bytes();
    let mut asked = 0_u32;
    peer.stream.set_nonblocking(false).unwrap();
    peer.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while peer.stream.write_all(&request).is_ok() {
        asked += 1;
        assert!(asked < 1_000_000, "the back-end never stops reading");
    }
    // Others are served meanwhile.
    let path = bench.dir.path().join("other");
    let (backend, _) = Recording::new();
    let other = bench.control.add_server(&path, SocketOptions::default(), Box::new(backend));
    let mut quick = Peer::over(UnixStream::connect(&path).unwrap());
    assert_eq!(quick.ask(&M::GetFeatures), FEATURES);
    drop(other);
    // And once it reads them, all are there.
    for _ in 0..asked {
        assert_eq!(peer.reply(), FEATURES);
    }
}

#[test]
fn a_reply_that_did_not_fit_is_sent_without_another_request() {
    let bench = Bench::server();
    let mut peer = bench.connect();
    let mut asked = 0;
    let arrived = |peer: &Peer| rustix::io::ioctl_fionread(&peer.stream).unwrap() / 20;
    loop {
        peer.tell(&M::GetFeatures);
        asked += 1;
        let deadline = Instant::now() + Duration::from_millis(200);
        while arrived(&peer) < asked && Instant::now() < deadline {
            std::thread::yield_now();
        }
        if arrived(&peer) < asked {
            break;
        }
        assert!(asked < 1_000_000, "the socket takes everything");
    }
    for _ in 0..asked {
        assert_eq!(peer.reply(), FEATURES);
    }
}

#[test]
fn nonsense_closes_the_connection_and_nothing_else() {
    let bench = Bench::server();
    for nonsense in [
        [0xff; 12],
        Header::request(0, 0, false).to_bytes(),
        Header::request(1, u32::MAX, false).to_bytes(),
        Header::reply(1, 0).to_bytes(),
    ] {
        let mut peer = bench.connect();
        peer.stream.write_all(&nonsense).unwrap();
        peer.hung_up();
        bench.calls.wait_for(&Call::Disconnected);
    }
    assert_eq!(bench.connect().ask(&M::GetFeatures), FEATURES);
}

#[test]
fn a_client_connects_as_soon_as_it_can_and_again() {
    let bench = Bench::with(true, |_| ());
    for _ in 0..2 {
        let listener = UnixListener::bind(bench.path()).unwrap();
        let mut peer = Peer::over(listener.accept().unwrap().0);
        assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
        bench.expect(Event::Connected);
        drop((listener, peer));
        bench.expect(Event::Gone);
        std::fs::remove_file(bench.path()).unwrap();
    }
}

#[test]
fn a_client_tries_again_when_its_clock_has_gone_on() {
    let (dir, time) = (tempfile::tempdir().unwrap(), Time::stopped());
    let control = ControlThread::start_with(time.clone()).unwrap();
    let (backend, _calls) = Recording::new();
    let ((options, events), path) = (options(), dir.path().join("s"));
    let _socket = control.add_client(&path, options, Box::new(backend)).unwrap();
    // However late it is, if nobody is there, it tries on; an hour passes between two attempts.
    for _ in 0..10 {
        time.warp(Duration::from_secs(3600));
    }
    let listener = UnixListener::bind(&path).unwrap();
    let connected = (0..10_000).any(|_| {
        time.warp(Duration::from_secs(3600));
        events.recv_timeout(Duration::from_millis(1)) == Ok(Event::Connected)
    });
    assert!(connected);
    let mut peer = Peer::over(listener.accept().unwrap().0);
    assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
}

#[test]
fn a_device_hears_of_files_that_it_watches() {
    let bench = Bench::server();
    let mut peer = bench.connect();
    let kick = EventFd::new().unwrap();
    peer.start_ring(4, kick.try_clone().unwrap().into());
    for _ in 0..3 {
        kick.signal().unwrap();
        bench.calls.wait_for(&Call::Kicked(4));
    }
    peer.ask(&M::GetVringBase(VringState { index: 4, num: 0 }));
    bench.calls.take();
    kick.signal().unwrap();
    peer.ask(&M::GetFeatures);
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn a_device_that_panics_takes_only_its_socket_with_it() {
    let bench = Bench::with(false, |device| device.refuse = Some("kicked"));
    let path = bench.dir.path().join("other");
    let (backend, _) = Recording::new();
    let _other = bench.control.add_server(&path, SocketOptions::default(), Box::new(backend));
    let mut peer = bench.connect();
    let kick = EventFd::new().unwrap();
    peer.start_ring(4, kick.try_clone().unwrap().into());
    kick.signal().unwrap();
    bench.calls.wait_for(&Call::Dropped);
    peer.hung_up();
    let mut quick = Peer::over(UnixStream::connect(&path).unwrap());
    assert_eq!(quick.ask(&M::GetFeatures), FEATURES);
}

#[test]
fn removing_a_socket_waits_until_everything_is_gone() {
    let bench = Bench::server();
    let mut peer = bench.connect();
    peer.start_ring(0, event());
    peer.ask(&M::GetFeatures);
    bench.calls.take();
    let path = bench.path();
    assert_eq!(bench.socket.path(), path);
    bench.socket.remove();
    assert!(!path.exists());
    assert_eq!(bench.calls.take(), [Call::Stop(0), Call::Disconnected, Call::Dropped]);
    peer.hung_up();
}

#[test]
fn the_end_of_the_thread_is_the_end_of_all_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let control = ControlThread::start().unwrap();
    let mut sockets = Vec::new();
    let mut peers = Vec::new();
    for number in 0..100 {
        let path = dir.path().join(number.to_string());
        let (backend, _) = Recording::new();
        sockets
            .push(control.add_server(&path, SocketOptions::default(), Box::new(backend)).unwrap());
        let mut peer = Peer::over(UnixStream::connect(&path).unwrap());
        peer.start_ring(0, event());
        assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
        peers.push(peer);
    }
    let start = Instant::now();
    control.shut_down();
    // A second for each of them would be longer.
    assert!(start.elapsed() < LONG);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    peers.iter_mut().for_each(Peer::hung_up);
    // Handles that outlive it do no harm.
    drop(sockets);
}

#[test]
fn a_socket_may_be_removed_by_its_own_event() {
    let dir = tempfile::tempdir().unwrap();
    let control = ControlThread::start().unwrap();
    let (backend, calls) = Recording::new();
    let (sender, receiver) = channel::<SocketHandle>();
    let sink: EventSink = Box::new(move |event| {
        if event == Event::Gone {
            drop(receiver.recv_timeout(LONG).unwrap());
        }
    });
    let path = dir.path().join("s");
    let options = SocketOptions { events: Some(sink), ..SocketOptions::default() };
    sender.send(control.add_server(&path, options, Box::new(backend)).unwrap()).unwrap();
    drop(UnixStream::connect(&path).unwrap());
    calls.wait_for(&Call::Dropped);
}

#[test]
fn a_path_that_is_in_use_is_an_error_and_the_user_is_not_disturbed() {
    let bench = Bench::server();
    let mut peer = bench.connect();
    let (backend, calls) = Recording::new();
    let again = bench.control.add_server(bench.path(), SocketOptions::default(), Box::new(backend));
    assert!(matches!(again, Err(ControlError::Socket(SocketError::Taken { .. }))));
    assert_eq!(calls.take(), [Call::Dropped]);
    assert_eq!(peer.ask(&M::GetFeatures), FEATURES);
}
