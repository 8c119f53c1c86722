//! TCP and UDP between two hosts, each in a network namespace, over two ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use packet::Gso;

use super::*;

/// Bytes of the stream.
const STREAM: usize = 4 << 20;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn byte(index: usize) -> u8 {
    u8::try_from(index % 251).unwrap()
}

/// What passed through the port in the middle.
#[derive(Debug, Default)]
struct Seen {
    large: usize,
    /// Frames with a begun checksum.
    begun: usize,
    longest: usize,
}

/// Carries frames between both ports until `stop`.
fn forward(one: &mut OpenPort, other: &mut OpenPort, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Relaxed) {
        let mut idle = true;
        for (from, to) in [(&mut one.rx[0], &mut other.tx[0]), (&mut other.rx[0], &mut one.tx[0])] {
            let burst = from.rx_burst(BURST);
            for frame in burst.frames() {
                let offload = frame.offload();
                seen.large += usize::from(offload.gso() == Some(Gso::TcpV4));
                seen.begun += usize::from(offload.csum().is_some());
                seen.longest = seen.longest.max(frame.len());
            }
            idle &= burst.frames().is_empty();
            to.tx_burst(burst.frames());
        }
        if idle {
            thread::yield_now();
        }
    }
    seen
}

/// A host in a namespace of its own: opens a port, gives it away, and then acts.
fn host(
    device: &'static str,
    address: &'static str,
    ports: Sender<OpenPort>,
    act: impl FnOnce() + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        in_namespace(move || {
            let port = open_tap(device);
            ip(&format!("addr add {address}/24 dev rw0"));
            ports.send(port).unwrap();
            act();
        });
    })
}

fn serve(ready: &Sender<()>, seen: &Sender<Vec<u8>>) {
    let listener = TcpListener::bind("10.9.0.1:4000").unwrap();
    ready.send(()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    seen.send(bytes).unwrap();
}

fn send(ready: &Receiver<()>) {
    ready.recv_timeout(PATIENCE).unwrap();
    let to: SocketAddr = "10.9.0.1:4000".parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let bytes: Vec<u8> = (0..STREAM).map(byte).collect();
    stream.write_all(&bytes).unwrap();
}

/// Sends a TCP stream from a host with one device to a host with another, and returns what
/// passed.
fn stream_between(from: &'static str, to: &'static str) -> Option<Seen> {
    let (to_ports, from_ports) = (channel(), channel());
    let (ready, result) = (channel(), channel());
    let server = host(to, "10.9.0.1", to_ports.0, move || serve(&ready.0, &result.0));
    let client = host(from, "10.9.0.2", from_ports.0, move || send(&ready.1));
    // Without the right to make namespaces there is nothing to test.
    let mut one = to_ports.1.recv_timeout(PATIENCE).ok()?;
    let mut other = from_ports.1.recv_timeout(PATIENCE).ok()?;
    let stop = Arc::new(AtomicBool::new(false));
    let forwarder = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let seen = forward(&mut one, &mut other, &stop);
            (seen, one, other)
        })
    };
    let begin = Instant::now();
    let bytes = result.1.recv_timeout(PATIENCE);
    stop.store(true, Relaxed);
    let (seen, one, other) = forwarder.join().unwrap();
    let stats = (one.port.stats(), other.port.stats());
    client.join().unwrap();
    server.join().unwrap();
    let bytes = bytes.unwrap_or_else(|_| panic!("{:?}: {seen:?} {stats:?}", begin.elapsed()));
    assert_eq!(bytes.len(), STREAM);
    assert!(bytes.iter().enumerate().all(|(index, value)| *value == byte(index)));
    Some(seen)
}

#[test]
fn a_tcp_stream_passes_in_large_segments() {
    if let Some(seen) = stream_between("tap:rw0", "tap:rw0") {
        assert!(seen.large > 10 && seen.begun > seen.large, "{seen:?}");
        assert!(seen.longest > 10_000, "{seen:?}");
    }
}

#[test]
fn large_segments_are_cut_for_a_host_that_takes_none() {
    if let Some(seen) = stream_between("tap:rw0", "tap:rw0,offloads=off") {
        assert!(seen.large > 10, "{seen:?}");
    }
}

#[test]
fn without_offloads_every_frame_is_complete() {
    if let Some(seen) = stream_between("tap:rw0,offloads=off", "tap:rw0") {
        assert!(seen.longest <= 1514, "{seen:?}");
    }
}

#[test]
fn a_large_datagram_is_cut_by_the_host() {
    in_namespace(|| {
        let mut tap = open_tap("tap:rw0");
        let host = host_socket("rw0");
        let mac = tap.port.control().mac();
        if !takes_udp(&tap) {
            return println!("skipped: the kernel has no UDP segmentation over TAP");
        }
        let payload: Vec<u8> = (0..3500).map(byte).collect();
        let bytes = datagram(mac, &payload);
        let request = packet::OffloadRequest {
            needs_csum: true,
            gso: Some(Gso::Udp),
            gso_size: 1000,
            csum_start: 34,
            csum_offset: 6,
            ..packet::OffloadRequest::default()
        };
        let all = Capabilities::all();
        let mut bytes = bytes;
        begin_checksum(&mut bytes);
        let offload = packet::Offload::check(&request, all, &bytes[..100], bytes.len()).unwrap();
        let frame = Frame::from_bytes(&bytes).with_offload(offload);
        assert_eq!(tap.tx[0].tx_burst(&[frame]), 1);
        let mut buffer = vec![0; 65_536];
        for piece in payload.chunks(1000) {
            let len = host.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], piece);
        }
    });
}

fn takes_udp(tap: &OpenPort) -> bool {
    let details = tap.port.control().details();
    details.iter().any(|(name, value)| name == "offloads" && value.contains("USO4"))
}

/// Writes the sum of the pseudo header into a datagram's checksum field.
fn begin_checksum(bytes: &mut [u8]) {
    let len = u16::try_from(bytes.len() - 34).unwrap();
    let (from, to) = ([10, 9, 0, 2], [10, 9, 0, 1]);
    let begun = packet::checksum::Checksum::pseudo_v4(from, to, 17, len).partial();
    bytes[40..42].copy_from_slice(&begun.to_be_bytes());
}
