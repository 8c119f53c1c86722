use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use packet::builder::FrameBuilder;
use packet::headers::{Ethernet, Ipv4, Tcp, TcpFlags};
use packet::{Gso, MacAddr, OffloadRequest};
use proptest::prelude::*;

use super::*;
use crate::queue::TxQueue;

/// What a device got, and how much room it has in each call.
#[derive(Debug, Default)]
struct Device {
    got: Vec<(Vec<u8>, Offload)>,
    /// Room in the next calls, and whether the first frame of the call is dropped; after that
    /// there is room for everything.
    room: VecDeque<(usize, bool)>,
}

struct Driver {
    device: Arc<Mutex<Device>>,
    takes: Capabilities,
}

impl Driver {
    fn take(&self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        assert!(frames.iter().all(|frame| self.takes.contains(frame.offload().needs())));
        let mut device = self.device.lock().unwrap();
        let (room, mut drop_first) = device.room.pop_front().unwrap_or((BURST, false));
        let mut sent = Sent::NONE;
        for frame in &frames[..room.min(frames.len())] {
            if std::mem::take(&mut drop_first) {
                sent.add_dropped(stats, DropReason::DeviceError);
                continue;
            }
            device.got.push((frame.to_vec(), frame.offload()));
            sent.add_sent();
        }
        sent
    }
}

impl TxDriver for Driver {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        assert!(frames.iter().all(|frame| frame.offload().is_none()));
        self.take(frames, stats)
    }

    fn takes(&self) -> Capabilities {
        self.takes
    }

    fn transmit_offloaded(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        assert!(frames.iter().any(|frame| !frame.offload().is_none()));
        self.take(frames, stats)
    }
}

fn queue(takes: Capabilities) -> (TxQueue, Arc<Mutex<Device>>) {
    let device = Arc::new(Mutex::new(Device::default()));
    let driver = Driver { device: Arc::clone(&device), takes };
    (TxQueue::new(Box::new(driver), Arc::default()), device)
}

fn tcp(payload: &[u8], number: u32) -> Vec<u8> {
    let mac = |n| MacAddr([2, 0, 0, 0, 0, n]);
    FrameBuilder::new(mac(1), mac(2))
        .ip([10, 0, 0, 1], [10, 0, 0, 2])
        .tcp((1, 2), number, 0, TcpFlags::ACK)
        .payload(payload)
        .build()
        .unwrap()
}

fn offload(bytes: &[u8], gso_size: Option<u16>) -> Offload {
    let request = OffloadRequest {
        needs_csum: true,
        gso: gso_size.map(|_| Gso::TcpV4),
        gso_size: gso_size.unwrap_or(0),
        csum_start: 34,
        csum_offset: 16,
        ..OffloadRequest::default()
    };
    Offload::check(&request, Capabilities::all(), &bytes[..bytes.len().min(100)], bytes.len())
        .unwrap()
}

/// A frame's sequence number and payload, if its IP checksum is right.
fn read(bytes: &[u8]) -> (u32, Vec<u8>) {
    let ip = Ipv4::parse(Ethernet::parse(bytes).unwrap().payload()).unwrap();
    assert!(ip.checksum_is_valid());
    let tcp = Tcp::parse(ip.payload()).unwrap();
    (tcp.sequence(), tcp.payload().to_vec())
}

#[test]
fn a_device_that_takes_it_gets_it_whole_and_others_get_parts() {
    let bytes = tcp(&[7; 1000], 0);
    let frames = [
        Frame::from_bytes(&bytes).with_offload(offload(&bytes, Some(300))),
        Frame::from_bytes(&bytes),
    ];
    let (mut queue, device) = queue(Capabilities::CSUM | Capabilities::TSO4);
    assert_eq!(queue.tx_burst(&frames), 2);
    let got = |device: &Mutex<Device>| std::mem::take(&mut device.lock().unwrap().got);
    assert_eq!(got(&device).len(), 2);
    assert_eq!(queue.stats().snapshot().packets, 2);

    let (mut queue, device) = self::queue(Capabilities::empty());
    assert_eq!(queue.tx_burst(&frames), 2);
    let parts = got(&device);
    assert_eq!(
        parts.iter().map(|(part, _)| part.len()).collect::<Vec<_>>(),
        [354, 354, 354, 154, 1054]
    );
    assert!(parts.iter().all(|(_, offload)| offload.is_none()));
    let stats = queue.stats().snapshot();
    assert_eq!((stats.packets, stats.bytes), (5, 3 * 354 + 154 + 1054), "what is on the wire");
}

#[test]
fn a_frame_whose_headers_were_spoilt_is_dropped_alone() {
    let (good, mut bad) = (tcp(&[7; 1000], 0), tcp(&[7; 1000], 0));
    let known = offload(&bad, Some(300));
    bad[23] = 17;
    let good = Frame::from_bytes(&good).with_offload(known);
    let bad = Frame::from_bytes(&bad).with_offload(known);
    let (mut queue, device) = queue(Capabilities::empty());
    assert_eq!(queue.tx_burst(&[bad, good, bad, good, bad]), 5);
    assert_eq!(device.lock().unwrap().got.len(), 8);
    assert_eq!(queue.stats().snapshot().dropped_for(DropReason::BadHeader), 3);
}

#[test]
fn the_rest_of_a_frame_is_lost_when_the_device_stays_full() {
    let bytes = tcp(&[7; 1000], 0);
    let frame = Frame::from_bytes(&bytes).with_offload(offload(&bytes, Some(300)));
    let (mut queue, device) = queue(Capabilities::empty());
    device.lock().unwrap().room = [(6, false)].into_iter().chain([(0, false); 8]).collect();
    assert_eq!(queue.tx_burst(&[frame; 4]), 2);
    assert_eq!(device.lock().unwrap().got.len(), 6);
    let stats = queue.stats().snapshot();
    assert_eq!((stats.packets, stats.dropped_for(DropReason::RingFull)), (6, 1));
    device.lock().unwrap().room = [(0, false)].into();
    assert_eq!(queue.tx_burst(&[frame; 4]), 0, "nothing was begun");
}

proptest! {
    #[test]
    fn every_part_arrives_once_and_in_order(
        kinds in prop::collection::vec((0_u8..4, 0_usize..3000, 1_u16..800), 1..40),
        room in prop::collection::vec((1_usize..20, prop::bool::weighted(0.2)), 0..30),
        takes_csum: bool,
    ) {
        let takes = if takes_csum { Capabilities::CSUM } else { Capabilities::empty() };
        let mut at = 0_u32;
        let mut all = Vec::new();
        for (kind, len, gso_size) in kinds {
            let payload: Vec<u8> =
                (0..len).map(|n| u8::try_from((at as usize + n) % 251).unwrap()).collect();
            let bytes = tcp(&payload, at);
            at += u32::try_from(len).unwrap();
            let gso_size = gso_size.max(u16::try_from(len.div_ceil(1000)).unwrap());
            let needs = match kind {
                0 => Offload::NONE,
                1 => Offload::DATA_VALID,
                2 => offload(&bytes, None),
                _ => offload(&bytes, Some(gso_size)),
            };
            all.push((bytes, needs));
        }
        let frames: Vec<Frame<'_>> = all
            .iter()
            .map(|(bytes, offload)| Frame::from_bytes(bytes).with_offload(*offload))
            .collect();
        let (mut queue, device) = queue(takes);
        let dropping = room.iter().any(|(_, drop)| *drop);
        device.lock().unwrap().room = room.into();
        let mut done = 0;
        while done < frames.len() {
            done += queue.tx_burst(&frames[done..]);
        }
        let stats = queue.stats().snapshot();
        let got = &device.lock().unwrap().got;
        prop_assert_eq!(stats.packets, got.len() as u64);
        let mut next = 0;
        for (bytes, _) in got {
            let (sequence, payload) = read(bytes);
            prop_assert!(sequence == next || dropping && sequence > next);
            for (index, byte) in payload.iter().enumerate() {
                prop_assert_eq!(usize::from(*byte), (sequence as usize + index) % 251);
            }
            next = sequence + u32::try_from(payload.len()).unwrap();
        }
        prop_assert!(dropping || next == at);
    }
}
