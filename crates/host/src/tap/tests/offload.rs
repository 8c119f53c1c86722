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

/// How two hosts, 1 and 2, talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    V4,
    V6,
    /// IPv4 over a VLAN.
    Vlan,
}

impl Network {
    fn address(self, host: u8) -> String {
        if self == Self::V6 { format!("fd09::{host}") } else { format!("10.9.0.{host}") }
    }

    fn socket_address(self, host: u8) -> SocketAddr {
        SocketAddr::new(self.address(host).parse().unwrap(), 4000)
    }

    /// Sets a host up, whose large segments are of eight of its MTU at least: otherwise TCP makes
    /// them as small as two when frames take long on their way.
    fn configure(self, host: u8) {
        std::fs::write("/proc/sys/net/ipv4/tcp_min_tso_segs", "8").unwrap();
        let address = self.address(host);
        match self {
            Self::V4 => drop(ip(&format!("addr add {address}/24 dev rw0"))),
            Self::V6 => drop(ip(&format!("addr add {address}/64 dev rw0 nodad"))),
            Self::Vlan => {
                ip("link add link rw0 name rw0.5 type vlan id 5");
                ip("link set rw0.5 up");
                ip(&format!("addr add {address}/24 dev rw0.5"));
            }
        }
    }
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
                let kind = offload.gso();
                seen.large += usize::from(matches!(kind, Some(Gso::TcpV4 | Gso::TcpV6)));
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
    network: Network,
    number: u8,
    ports: Sender<OpenPort>,
    act: impl FnOnce() + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        in_namespace(move || {
            let port = open_port(device);
            network.configure(number);
            ports.send(port).unwrap();
            act();
        });
    })
}

fn serve(network: Network, ready: &Sender<()>, seen: &Sender<Vec<u8>>) {
    let listener = TcpListener::bind(network.socket_address(1)).unwrap();
    ready.send(()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    seen.send(bytes).unwrap();
}

fn send(network: Network, ready: &Receiver<()>) {
    ready.recv_timeout(PATIENCE).unwrap();
    let to = network.socket_address(1);
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let bytes: Vec<u8> = (0..STREAM).map(byte).collect();
    stream.write_all(&bytes).unwrap();
}

/// Sends a TCP stream from a host with one device to a host with another, and returns what
/// passed.
fn stream_between(network: Network, from: &'static str, to: &'static str) -> Option<Seen> {
    let (to_ports, from_ports) = (channel(), channel());
    let (ready, result) = (channel(), channel());
    let server = host(to, network, 1, to_ports.0, move || serve(network, &ready.0, &result.0));
    let client = host(from, network, 2, from_ports.0, move || send(network, &ready.1));
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
    for network in [Network::V4, Network::V6, Network::Vlan] {
        let Some(seen) = stream_between(network, "tap:rw0", "tap:rw0") else { return };
        assert!(seen.large > 10 && seen.begun > seen.large, "{network:?}: {seen:?}");
        assert!(seen.longest > 10_000, "{network:?}: {seen:?}");
    }
}

#[test]
fn large_segments_are_cut_for_a_host_that_takes_none() {
    for network in [Network::V4, Network::V6, Network::Vlan] {
        let to = "tap:rw0,offloads=off";
        let Some(seen) = stream_between(network, "tap:rw0", to) else { return };
        assert!(seen.large > 10, "{network:?}: {seen:?}");
    }
}

#[test]
fn without_offloads_every_frame_is_complete() {
    let seen = stream_between(Network::V4, "tap:rw0,offloads=off", "tap:rw0");
    assert!(seen.is_none_or(|seen| seen.longest <= 1514));
}

#[test]
fn a_large_datagram_is_cut_by_the_host() {
    in_namespace(|| {
        let mut tap = open_port("tap:rw0");
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
