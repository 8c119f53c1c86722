use packet::{MacAddr, Pool};

use super::*;
use crate::stats::PacketTally;

/// Receives a burst of one frame; keeps packets that it transmits, while it has room.
struct Device {
    batch: FrameBatch,
    kept: Vec<Packet>,
    room: usize,
}

impl Device {
    fn new(room: usize) -> Self {
        Self { batch: FrameBatch::with_segments(0), kept: Vec::new(), room }
    }
}

impl RxDriver for Device {
    fn receive(&mut self, max: usize, _stats: &QueueStats) {
        for index in 0..max.min(3) {
            assert!(self.batch.push_copy(&[u8::try_from(index).unwrap(); 60]));
        }
    }

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {
        self.batch.clear();
    }
}

impl TxDriver for Device {
    fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
        Sent::first(frames.len())
    }

    fn keeps_packets(&self) -> bool {
        self.room > 0
    }

    fn transmit_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        _cache: &mut PoolCache,
        stats: &QueueStats,
    ) {
        let mut tally = PacketTally::default();
        let count = (self.room - self.kept.len()).min(packets.len());
        for packet in packets.drain(..count) {
            tally.add(packet.len(), packet.data());
            self.kept.push(packet);
        }
        stats.count_tally(&tally);
    }
}

#[test]
fn a_burst_becomes_packets_as_it_was_rewritten() {
    let pool = Pool::new("test", 2, 2048).unwrap();
    let mut cache = pool.cache();
    let mut queue = RxQueue::new(Box::new(Device::new(0)), Arc::default());
    let mut packets = ArrayVec::new();
    let mut burst = queue.rx_burst(BURST);
    burst.for_each_head(|head| head[1] = 5);
    burst.head_mut(1).unwrap()[0] = 77;
    assert!(burst.head_mut(3).is_none());
    burst.into_packets(&mut packets, &mut cache);
    let firsts: Vec<u8> = packets.iter().map(|packet| packet.data()[0]).collect();
    assert_eq!(firsts, [0, 77]);
    assert!(packets.iter().all(|packet| packet.data()[1] == 5));
    let stats = queue.stats().snapshot();
    assert_eq!((stats.packets, stats.dropped_for(DropReason::NoBuffer)), (3, 1));
    assert!(queue.rx_burst(0).frames().is_empty(), "the batch was given back");
}

#[test]
fn packets_go_to_the_device_or_are_copied_and_both_are_counted_alike() {
    let pool = Pool::new("test", 64, 2048).unwrap();
    let mut cache = pool.cache();
    let mut counted = Vec::new();
    for room in [0, 5] {
        let mut queue = TxQueue::new(Box::new(Device::new(room)), Arc::default());
        let mut packets = ArrayVec::new();
        for (index, first) in [0xff, 0x01, 0x02, 0x02, 0x02].into_iter().enumerate() {
            let mut bytes = vec![0; 60 + 300 * index];
            bytes[..6].copy_from_slice(&[first; 6]);
            packets.push(cache.copy_frame(&Frame::from_bytes(&bytes)).unwrap());
        }
        assert_eq!(queue.keeps_packets(), room > 0);
        assert_eq!(queue.tx_packets(&mut packets, &mut cache), 5);
        assert!(packets.is_empty());
        counted.push(queue.stats().snapshot());
    }
    assert_eq!(counted[0], counted[1]);
    assert_eq!((counted[0].broadcast, counted[0].multicast), (1, 1));
    assert_eq!(MacAddr::BROADCAST.0, [0xff; 6]);
}

#[test]
fn what_a_device_has_no_room_for_stays() {
    let pool = Pool::new("test", 64, 2048).unwrap();
    let mut cache = pool.cache();
    let mut queue = TxQueue::new(Box::new(Device::new(2)), Arc::default());
    let bytes = [7; 60];
    let mut packets: ArrayVec<Packet, BURST> =
        (0..3).map(|_| cache.copy_frame(&Frame::from_bytes(&bytes)).unwrap()).collect();
    assert_eq!(queue.tx_packets(&mut packets, &mut cache), 2);
    assert_eq!((packets.len(), queue.stats().snapshot().packets), (1, 2));
}
