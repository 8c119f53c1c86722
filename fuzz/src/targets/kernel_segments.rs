//! Large segments that the host's kernel cuts, too: what it makes of them must be the same, byte by
//! byte.
//!
//! They go into one TAP interface as a guest would hand them over, and the kernel bridges them to
//! another one whose owner takes nothing that is not complete. This needs root, for a network
//! namespace of its own; without it nothing is played.

use ethdev::OpenPort;
use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsFd;

use drivers::Drivers;
use e2e::Netns;
use packet::{BURST, Capabilities, Frame, Gso, Offload};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::segments::cut;
use crate::frames::Large;
use crate::input::Input;

/// MTU of both interfaces, in bytes.
const MTU: u16 = 9000;

/// Frames that the receiving interface holds.
const QUEUE: usize = 4096;

/// Large segments of TCP over IPv4 and IPv6, and of UDP: 5000 bytes in pieces of 801.
const SAMPLES: [&[u8]; 3] = [
    &[0, 0, 0, 0, 0, 0, 0x18, 100, 0, 0x88, 0x13, 7],
    &[1, 0, 0, 0, 0, 0, 0x18, 100, 0, 0x88, 0x13, 7],
    &[2, 1, 1, 100, 0, 0x88, 0x13, 7],
];

thread_local! {
    static KERNEL: RefCell<Option<Kernel>> = RefCell::new(Kernel::new());
}

/// Plays one input.
pub(super) fn run(data: &[u8]) {
    KERNEL.with_borrow_mut(|kernel| {
        if let Some(kernel) = kernel {
            kernel.play(&Large::new(&mut Input::new(data)));
        }
    });
}

/// Two interfaces and a bridge.
struct Kernel {
    from: OpenPort,
    to: OpenPort,
    /// What the kernel takes of large segments.
    takes_udp: bool,
    markers: u32,
    _netns: Netns,
    _drivers: Drivers,
}

impl Kernel {
    /// Sets up a namespace, in which this thread stays; `None` without the right to.
    fn new() -> Option<Self> {
        let netns = Netns::new().map_err(|error| println!("skipped: {error:#}")).ok()?;
        let file = File::open(format!("/run/netns/{}", netns.name())).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        // The kernel is to send nothing of its own.
        let quiet = "for conf in all default; do \
                     echo 1 > /proc/sys/net/ipv6/conf/$conf/disable_ipv6; done";
        netns.sh(quiet).unwrap();
        let drivers = Drivers::new();
        let open = |device: &str| drivers::open("port", device, &drivers).unwrap();
        let from = open(&format!("tap:from,mtu={MTU}"));
        let to = open(&format!("tap:to,mtu={MTU},offloads=off"));
        netns
            .sh(&format!(
                "ip link set to txqueuelen {QUEUE}; ip link add bridge type bridge mcast_snooping 0; \
                 ip link set from master bridge; ip link set to master bridge; \
                 ip link set bridge up; ip link set from up; ip link set to up"
            ))
            .unwrap();
        let details = from.port.control().details();
        let takes_udp =
            details.iter().any(|(name, value)| name == "offloads" && value.contains("USO4"));
        let mut kernel = Self { from, to, takes_udp, markers: 0, _netns: netns, _drivers: drivers };
        kernel.wait_until_open();
        for sample in SAMPLES {
            let large = Large::new(&mut Input::new(sample));
            assert!(kernel.play(&large) || !kernel.takes(&large), "the kernel does not cut");
        }
        Some(kernel)
    }

    /// Waits until the bridge lets frames pass.
    fn wait_until_open(&mut self) {
        for _ in 0..1000 {
            self.send_marker();
            if self.receive().iter().any(|frame| is_marker(frame)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the bridge lets nothing pass");
    }

    /// Whether the kernel takes such a segment, and has something to cut then.
    fn takes(&self, large: &Large) -> bool {
        let size = usize::from(large.request.gso_size);
        let is_large = large.payload() > size && large.headers + size <= MTU.into();
        is_large && (large.request.gso != Some(Gso::Udp) || self.takes_udp)
    }

    /// Has the kernel cut a segment; returns whether it did.
    fn play(&mut self, large: &Large) -> bool {
        let request = &large.request;
        if !self.takes(large) {
            return false;
        }
        let Ok(ours) = cut(&large.bytes, request, Capabilities::empty()) else { return false };
        let frame = Frame::from_bytes(&large.bytes);
        let offload = Offload::check(request, Capabilities::all(), &large.bytes, frame.len());
        let frame = frame.with_offload(offload.expect("it was cut before"));
        assert_eq!(self.from.tx[0].tx_burst(&[frame]), 1);
        let theirs = self.collect();
        if theirs.is_empty() {
            // Of UDP it makes 128 parts at most, and drops what would be more.
            assert!(request.gso == Some(Gso::Udp) && ours.len() > 128, "dropped: {request:?}");
            return false;
        }
        assert_eq!(theirs.len(), ours.len(), "{request:?}");
        for (index, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
            assert_eq!(theirs, ours, "part {index} of {request:?}");
        }
        true
    }

    /// All that comes until a marker does, which is sent now.
    fn collect(&mut self) -> Vec<Vec<u8>> {
        self.send_marker();
        let marker = marker(self.markers);
        let mut frames = Vec::new();
        for _ in 0..1_000_000 {
            for frame in self.receive() {
                if frame == marker {
                    return frames;
                }
                if !is_marker(&frame) {
                    frames.push(frame);
                }
            }
        }
        panic!("the marker does not come");
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        self.to.rx[0].rx_burst(BURST).frames().iter().map(Frame::to_vec).collect()
    }

    fn send_marker(&mut self) {
        self.markers += 1;
        let bytes = marker(self.markers);
        assert_eq!(self.from.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
    }
}

/// A frame of an experimental EtherType (IEEE 802) with a number.
fn marker(number: u32) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    bytes.extend(number.to_be_bytes());
    bytes.resize(60, 0);
    bytes
}

fn is_marker(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x88, 0xb5])
}
