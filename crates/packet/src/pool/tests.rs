use std::collections::HashSet;
use std::sync::mpsc::sync_channel;

use proptest::prelude::*;

use super::*;
use crate::frame::{MAX_FRAME_LEN, Segment};

fn is_mapped(name: &str) -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().contains(&format!("/memfd:{name} "))
}

#[test]
fn exhaustion_is_none_and_ends_when_a_packet_comes_back() {
    let pool = Pool::new("test-exhaustion", 100, 64).unwrap();
    let mut cache = pool.cache();
    let mut packets: Vec<Packet> = std::iter::from_fn(|| cache.alloc()).collect();
    assert_eq!((packets.len(), pool.available()), (100, 0));
    let addresses: HashSet<_> = packets.iter().map(|packet| packet.data().as_ptr()).collect();
    assert_eq!(addresses.len(), 100);
    cache.free(packets.pop().unwrap());
    assert!(cache.alloc().is_some_and(|packet| packet.is_empty()));
    // That one was dropped, not freed: it is found all the same.
    packets.push(cache.alloc().unwrap());
    assert!(cache.alloc().is_none());
    cache.free_burst(packets);
    drop(cache);
    assert_eq!(pool.available(), 100);
}

#[test]
fn a_cache_keeps_no_more_than_its_size() {
    let pool = Pool::new("test-cache", 2_000, 64).unwrap();
    let mut cache = pool.cache();
    let packets: Vec<Packet> = std::iter::from_fn(|| cache.alloc()).collect();
    cache.free_burst(packets);
    let kept = 2_000 - pool.available();
    assert!((1..=CACHE_SIZE).contains(&kept), "{kept}");
    let mut burst = ArrayVec::<Packet, 32>::new();
    assert_eq!((cache.alloc_burst(&mut burst), burst.is_full()), (32, true));
}

#[test]
fn the_memory_lives_as_long_as_the_last_packet() {
    let pool = Pool::new("test-lifetime", 64, 256).unwrap();
    let mut cache = pool.cache();
    let mut packet = cache.alloc().unwrap();
    packet.append(5).unwrap().copy_from_slice(b"alive");
    drop(pool);
    drop(cache);
    let packet = std::thread::spawn(move || {
        assert_eq!(packet.data(), b"alive");
        packet
    });
    let packet = packet.join().unwrap();
    assert!(is_mapped("test-lifetime"));
    drop(packet);
    assert!(!is_mapped("test-lifetime"));
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (buffers, room) in [(0, 64), (1 << 25, 64), (1, 63), (1, 70_000), (1, usize::MAX)] {
        let error = Pool::new("edge", buffers, room).unwrap_err();
        assert!(matches!(error, PoolError::Size { .. }), "{error}");
    }
    assert_eq!(Pool::new("edge", 1, MAX_ROOM).unwrap().room(), MAX_ROOM);
}

#[test]
fn packets_of_several_pools_go_home_in_bulk() {
    let pools = ["own", "one", "other"].map(|name| Pool::new(name, 200, 64).unwrap());
    let mut caches = pools.each_ref().map(Pool::cache);
    let frame = [7; 150];
    let mut packets = Vec::new();
    // In runs of different lengths, some of several buffers.
    for number in 0..150 {
        let cache = &mut caches[[0, 1, 1, 2, 0, 2][number % 6 / 2 + number / 50]];
        let len = if number % 4 == 0 { 150 } else { 60 };
        packets.push(cache.copy_frame(&Frame::from_bytes(&frame[..len])).unwrap());
    }
    let [mut own, one, other] = caches;
    drop((one, other));
    let last = packets.pop().unwrap();
    own.free_burst(packets);
    // A pool that only its last packet keeps ends with that.
    let short = Pool::new("short-lived", 2, 64).unwrap();
    let one = short.cache().alloc().unwrap();
    drop(short);
    let mut returns = own.returns();
    returns.free(one);
    returns.free(last);
    drop(returns);
    drop(own);
    assert_eq!(pools.each_ref().map(Pool::available), [200; 3]);
    assert!(!is_mapped("short-lived"));
}

#[test]
fn packets_cross_threads_and_none_is_lost_or_doubled() {
    const ROUNDS: u32 = 30_000;
    let pool = Pool::new("test-threads", 300, 64).unwrap();
    let (send, receive) = sync_channel::<Packet>(64);
    std::thread::scope(|scope| {
        for thread in 0..2_u32 {
            let (send, mut cache) = (send.clone(), pool.cache());
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // Both sides' caches and the channel can hold all buffers for a moment.
                    let mut packet = loop {
                        match cache.alloc() {
                            Some(packet) => break packet,
                            None => std::thread::yield_now(),
                        }
                    };
                    let stamp = thread << 24 | round;
                    packet.append(4).unwrap().copy_from_slice(&stamp.to_be_bytes());
                    send.send(packet).unwrap();
                }
            });
        }
        drop(send);
        let mut next = [0; 2];
        let mut cache = Some(pool.cache());
        for (count, packet) in receive.into_iter().enumerate() {
            // A buffer with two owners would carry somebody else's stamp.
            let stamp = u32::from_be_bytes(packet.data().try_into().unwrap());
            let thread = usize::try_from(stamp >> 24).unwrap();
            assert_eq!(stamp & 0xFF_FFFF, next[thread]);
            next[thread] += 1;
            // The receiver gives back in each of the ways, in turn.
            match (count / 500 % 2, &mut cache) {
                (0, Some(cache)) => cache.free(packet),
                _ => {
                    // Else the cache would sit on buffers that the senders wait for.
                    cache = Some(pool.cache());
                    drop(packet);
                }
            }
        }
        assert_eq!(next, [ROUNDS; 2]);
    });
    assert_eq!(pool.available(), 300);
}

#[test]
fn the_largest_frame_fits_a_chain_and_a_short_pool_gives_all_back() {
    let pool = Pool::new("test-large", 60, DATA_ROOM).unwrap();
    let mut cache = pool.cache();
    let bytes: Vec<u8> = (0..MAX_FRAME_LEN).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let body = [Segment::from_bytes(&bytes[60..])];
    let frame = Frame::from_parts(&bytes[..60], &body).unwrap();
    let packet = cache.copy_frame(&frame).unwrap();
    assert_eq!(packet.segment_count(), MAX_FRAME_LEN.div_ceil(DATA_ROOM));
    assert!(packet.as_frame().to_vec() == bytes);
    // 33 of 60 are taken: no second one.
    assert!(cache.copy_frame(&frame).is_none());
    drop(packet);
    assert!(cache.copy_frame(&frame).is_some());
    drop(cache);
    assert_eq!(pool.available(), 60);
    // Too many segments for one packet.
    let small = Pool::new("test-small", 600, 192).unwrap();
    assert!(small.cache().copy_frame(&frame).is_none());
    assert_eq!(small.available(), 600);
}

proptest! {
    #[test]
    fn a_copied_frame_is_the_frame(
        head in prop::collection::vec(any::<u8>(), 0..100),
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..900), 0..5),
    ) {
        let pool = Pool::new("test-copy", 64, 256).unwrap();
        let body: Vec<Segment<'_>> = parts.iter().map(|part| Segment::from_bytes(part)).collect();
        let frame = Frame::from_parts(&head, &body).unwrap();
        let mut cache = pool.cache();
        let packet = Packet::from_frame(&frame, &mut cache).unwrap();
        prop_assert_eq!(packet.as_frame().to_vec(), [head, parts.concat()].concat());
        prop_assert_eq!(packet.segment_count(), packet.len().div_ceil(pool.room()).max(1));
    }
}

/// What the two ways of giving back cost: `cargo test --release -p ringway-packet -- --ignored
/// --nocapture pool_costs`.
#[test]
#[ignore = "a measurement, not a check"]
fn pool_costs() {
    const ROUNDS: u64 = 1_000_000;
    let pool = Pool::new("test-costs", 4_096, DATA_ROOM).unwrap();
    let mut cache = pool.cache();
    let mut burst = ArrayVec::<Packet, 32>::new();
    let mut measure = |what: &str, give_back: fn(&mut PoolCache, &mut ArrayVec<Packet, 32>)| {
        let start = eal::clock::now();
        for _ in 0..ROUNDS / 32 {
            cache.alloc_burst(&mut burst);
            give_back(&mut cache, std::hint::black_box(&mut burst));
        }
        let cycles = eal::clock::now().wrapping_sub(start) / ROUNDS;
        println!("alloc and {what}: {cycles} cycles per packet");
    };
    let _ = eal::clock::hz();
    measure("free to the cache", |cache, burst| cache.free_burst(burst.drain(..)));
    measure("drop", |_, burst| burst.clear());
}

/// Pages of 4 KiB, in the order of the memory turned round.
#[derive(Debug)]
struct Pages;

impl eal::dma::AddressSpace for Pages {
    fn pages(&self) -> eal::mem::Pages {
        eal::mem::Pages::Plain
    }

    fn piece_len(&self) -> usize {
        4096
    }

    unsafe fn map(&self, memory: &SharedMemory) -> Result<eal::dma::DeviceAddresses, String> {
        let addresses = (0..memory.len() as u64 / 4096).rev().map(|page| page << 12).collect();
        Ok(eal::dma::DeviceAddresses::Pages { shift: 12, addresses })
    }

    fn unmap(&self, _memory: &SharedMemory, _addresses: &eal::dma::DeviceAddresses) {}
}

#[test]
fn buffers_for_devices_lie_in_one_piece_and_are_found() {
    let space = DmaSpace::new(std::sync::Arc::new(Pages));
    let pool = Pool::for_devices("test-dma", 100, 1000, &space).unwrap();
    assert_eq!(pool.capacity(), 100);
    let mut cache = pool.cache();
    let mut packets: Vec<Packet> = std::iter::from_fn(|| cache.alloc()).collect();
    assert_eq!(packets.len(), 100);
    for packet in &mut packets {
        assert_eq!(packet.append(1000).unwrap().len(), 1000);
        let first = packet.device_address(&space).unwrap();
        assert_eq!(first / 4096, (first + 999) / 4096, "{first:#x}");
        assert_eq!(first % 4096, packet.data().as_ptr().addr() as u64 % 4096);
        let other = DmaSpace::new(std::sync::Arc::new(Pages));
        assert_eq!(packet.device_address(&other), None);
    }
    cache.free_burst(packets);
    let mut packet = cache.alloc().unwrap();
    // SAFETY: the packet is fresh, and there is no device.
    unsafe {
        assert!(!packet.set_received(pool.room() + 1));
        assert!(packet.set_received(60));
    }
    assert_eq!((packet.len(), packet.data().len(), packet.headroom()), (60, 60, HEADROOM));
}

#[test]
fn a_cache_knows_its_own_packets() {
    let (one, other) = (Pool::new("one", 1, 64).unwrap(), Pool::new("other", 1, 64).unwrap());
    let (mut one, other) = (one.cache(), other.cache());
    let packet = one.alloc().unwrap();
    assert!(one.owns(&packet) && !other.owns(&packet));
    assert!(packet.page_size().is_power_of_two());
}
