//! Front-ends that send files whose close(2) waits for them.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use eal::closer::MAX_FILES;

use super::*;
use crate::protocol::{FrontendRequest, InflightRegion, ProtocolFeatures};

/// Another port on the control thread.
fn neighbour(bench: &Bench) -> (SocketHandle, Peer) {
    let (backend, _calls) = Recording::new();
    let path = bench.dir.path().join("other");
    let socket = bench.control.add_server(&path, SocketOptions::default(), Box::new(backend));
    (socket.unwrap(), Peer::over(UnixStream::connect(&path).unwrap()))
}

/// Leaves the port of `bench` with a file that cannot be closed before the returned one is.
fn leave_stuck(bench: &Bench) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut file = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let peer = listener.accept().unwrap().0;
    rustix::net::sockopt::set_socket_linger(&file, Some(Duration::from_secs(1 << 15))).unwrap();
    file.set_nonblocking(true).unwrap();
    while file.write(&[0; 4096]).is_ok() {}
    let mut front_end = bench.connect();
    // Half a message: the file stays with the message until the connection is closed.
    let half = Header::request(FrontendRequest::SetVringErr.number(), 8, false);
    front_end.connection.send(half, &[], &[file.as_fd()]).unwrap();
    drop(file);
    drop(front_end);
    bench.expect(Event::Connected);
    bench.expect(Event::Gone);
    peer
}

#[test]
fn a_close_that_waits_holds_up_neither_neighbours_nor_the_next_front_end() {
    let bench = Bench::server();
    let (_socket, mut neighbour) = neighbour(&bench);
    let _stuck = leave_stuck(&bench);
    assert_eq!(neighbour.ask(&M::GetFeatures), FEATURES);
    assert_eq!(bench.connect().ask(&M::GetFeatures), FEATURES);
}

#[test]
fn a_port_with_much_to_close_takes_no_front_end_until_it_is_closed() {
    let bench = Bench::server();
    let (_socket, mut neighbour) = neighbour(&bench);
    let stuck = leave_stuck(&bench);
    // Each leaves its connection behind that file.
    for _ in 1..MAX_FILES {
        assert_eq!(bench.connect().ask(&M::GetFeatures), FEATURES);
        bench.expect(Event::Connected);
        bench.expect(Event::Gone);
    }
    let mut next = bench.connect();
    next.tell(&M::GetFeatures);
    for _ in 0..2 {
        assert_eq!(neighbour.ask(&M::GetFeatures), FEATURES);
    }
    let early = next.stream.read(&mut [0]);
    assert_eq!(early.unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(stuck);
    assert_eq!(next.reply(), FEATURES);
}

/// Asks for a region for records of chains in flight; gives the size in the answer.
fn region(peer: &mut Peer) -> u64 {
    let asked = InflightRegion { size: 0, offset: 0, rings: 2, entries: 256 };
    peer.tell(&M::GetInflightFd(asked));
    peer.stream.set_nonblocking(false).unwrap();
    let mut header = [0; 12];
    peer.stream.read_exact(&mut header).unwrap();
    let mut payload = vec![0; Header::from_bytes(header).unwrap().size.try_into().unwrap()];
    peer.stream.read_exact(&mut payload).unwrap();
    InflightRegion::decode("TEST", &payload).unwrap().size
}

#[test]
fn a_port_makes_few_files_for_front_ends_to_keep() {
    let bench = Bench::server();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let mut peer = bench.connect();
        peer.tell(&M::SetProtocolFeatures(ProtocolFeatures::INFLIGHT_SHMFD.bits()));
        sizes.extend(std::iter::repeat_with(|| region(&mut peer)).take(10));
        drop(peer);
        bench.expect(Event::Connected);
        bench.expect(Event::Gone);
    }
    assert!(sizes[..16].iter().all(|size| *size > 0), "{sizes:?}");
    // As many more as there were pauses.
    assert!(sizes.iter().filter(|size| **size > 0).count() < 30, "{sizes:?}");
}
