//! Tests of rings behind a virtual IOMMU.

use std::sync::Arc;

use packet::RawSegment;
use proptest::prelude::*;

use super::tests::{Guest, SIZE, USER};
use super::{Buffers, Chain, ChainError, DeviceQueue, RingSetup, SetupError};
use crate::features::Features;
use crate::iotlb::{Access, Iotlb, Translation};
use crate::memory::{GuestMemory, Miss};
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Desc};

const PAGE: u64 = 4096;
/// Where the rings are for the device; in memory they begin at the first page.
const RINGS: u64 = 0xFFFF_0000;

/// `pages` pages at `iova`, which lie at page `place` of the memory.
fn add(iotlb: &mut Iotlb, iova: u64, place: u64, pages: u64, access: Access) {
    let (len, user_addr) = (pages * PAGE, USER + place * PAGE);
    iotlb.insert(Translation { iova, len, user_addr, access }).unwrap();
}

/// What a ring needs for itself: descriptors and available ring to read, used ring to write.
fn rings() -> Iotlb {
    let mut iotlb = Iotlb::new();
    add(&mut iotlb, RINGS, 0, 2, Access::READ);
    add(&mut iotlb, RINGS + 2 * PAGE, 2, 1, Access::WRITE);
    iotlb
}

fn setup(features: Features) -> RingSetup {
    let [desc, avail, used] = [0, 1, 2].map(|page| RINGS + page * PAGE);
    RingSetup { size: SIZE, desc, avail, used, base: 0, features }
}

fn behind(guest: &Guest, iotlb: &Iotlb) -> Arc<GuestMemory> {
    Arc::new(guest.table().translated(iotlb))
}

fn queue(guest: &Guest, iotlb: &Iotlb) -> DeviceQueue {
    DeviceQueue::new(behind(guest, iotlb), setup(Features::INDIRECT_DESC)).unwrap()
}

/// Fetches the first chain: its memory, where that is one piece.
fn fetch<const WRITE: bool>(queue: &mut DeviceQueue) -> (Chain, Option<RawSegment>) {
    let mut buffers = Buffers::default();
    queue.fetch::<WRITE>(1, &mut buffers).unwrap();
    let buffer = buffers.as_slice()[0];
    (buffer.chain(), buffer.single())
}

/// Where the pieces of a chain begin in memory, and how long they are.
fn walk<const WRITE: bool>(
    guest: &Guest,
    queue: &mut DeviceQueue,
    chain: Chain,
) -> Result<Vec<(u64, u64)>, ChainError> {
    let mut pieces = Vec::new();
    queue.walk::<WRITE>(chain, &mut pieces)?;
    let table = guest.table();
    let start = |piece: &RawSegment| queue.memory().guest_address(*piece).unwrap();
    let first = table.regions()[0].guest_addr;
    Ok(pieces.iter().map(|piece| (start(piece) - first, piece.len() as u64)).collect())
}

#[test]
fn a_ring_starts_when_all_of_its_parts_are_known_for_what_they_are_for() {
    let guest = Guest::new();
    let mut iotlb = Iotlb::new();
    for packed in [false, true] {
        let mut features = Features::VERSION_1;
        features.set(Features::RING_PACKED, packed);
        let setup = setup(features);
        iotlb.clear();
        let mut asked = Vec::new();
        loop {
            let memory = behind(&guest, &iotlb);
            let started = DeviceQueue::new(Arc::clone(&memory), setup);
            let Some(miss) = DeviceQueue::missing_part(&memory, &setup) else {
                started.unwrap();
                break;
            };
            assert!(matches!(started, Err(SetupError::Unmapped { .. })));
            asked.push(miss);
            let access = if miss.write { Access::WRITE } else { Access::READ };
            add(&mut iotlb, miss.iova, (miss.iova - RINGS) / PAGE, 1, access);
        }
        let part = |page, write| Miss { iova: RINGS + page * PAGE, write };
        assert_eq!(asked, [part(0, packed), part(1, false), part(2, true)]);
        add(&mut iotlb, RINGS + 2 * PAGE, 2, 1, Access::READ);
        assert!(DeviceQueue::new(behind(&guest, &iotlb), setup).is_err(), "read only");
    }
}

#[test]
fn parts_of_a_ring_that_do_not_follow_each_other_in_memory_are_refused() {
    let guest = Guest::new();
    let mut iotlb = rings();
    let setup = RingSetup { size: 512, avail: RINGS + 4 * PAGE, ..setup(Features::empty()) };
    add(&mut iotlb, RINGS, 8, 1, Access::READ);
    add(&mut iotlb, RINGS + PAGE, 10, 1, Access::READ);
    add(&mut iotlb, RINGS + 4 * PAGE, 1, 1, Access::READ);
    add(&mut iotlb, RINGS + 2 * PAGE, 2, 2, Access::WRITE);
    let memory = behind(&guest, &iotlb);
    assert_eq!(DeviceQueue::missing_part(&memory, &setup), None);
    let error = DeviceQueue::new(memory, setup).unwrap_err();
    assert_eq!(error, SetupError::Unmapped { part: "descriptor table", addr: RINGS });
    add(&mut iotlb, RINGS + PAGE, 9, 1, Access::READ);
    DeviceQueue::new(behind(&guest, &iotlb), setup).unwrap();
}

#[test]
fn a_chain_waits_for_its_translations_one_after_the_other() {
    let mut guest = Guest::new();
    let mut iotlb = rings();
    let mut queue = queue(&guest, &iotlb);
    guest.desc(0, 0x5800, 0x1000, 0, 0);
    guest.offer(0);
    for (miss, place) in [(0x5800, 20), (0x6000, 40)] {
        let (chain, single) = fetch::<false>(&mut queue);
        assert!(single.is_none() && queue.awaited().is_none());
        for _ in 0..2 {
            let walked = walk::<false>(&guest, &mut queue, chain);
            assert_eq!(walked, Err(ChainError::Untranslated));
            assert_eq!(queue.awaited(), Some(Miss { iova: miss, write: false }));
        }
        add(&mut iotlb, miss & !0xfff, place, 1, Access::READ);
        queue.set_memory(behind(&guest, &iotlb)).unwrap();
        assert_eq!(queue.awaited(), None);
    }
    let (chain, single) = fetch::<false>(&mut queue);
    assert!(single.is_none(), "two pieces");
    let pieces = walk::<false>(&guest, &mut queue, chain).unwrap();
    assert_eq!(pieces, [(20 * PAGE + 0x800, 0x800), (40 * PAGE, 0x800)]);
    // The second page moves behind the first, and what was there is not used any more.
    add(&mut iotlb, 0x6000, 21, 1, Access::READ);
    queue.set_memory(behind(&guest, &iotlb)).unwrap();
    assert_eq!(fetch::<false>(&mut queue).1.unwrap().len(), 0x1000);
    iotlb.remove(0x5800, 1);
    queue.set_memory(behind(&guest, &iotlb)).unwrap();
    assert!(fetch::<false>(&mut queue).1.is_none());
}

#[test]
fn what_may_only_be_read_is_not_written() {
    let mut guest = Guest::new();
    let mut iotlb = rings();
    add(&mut iotlb, 0x5000, 20, 1, Access::READ);
    let mut queue = queue(&guest, &iotlb);
    guest.desc(0, 0x5000, 64, DESC_WRITE, 0);
    guest.offer(0);
    let (chain, single) = fetch::<true>(&mut queue);
    assert!(single.is_none());
    assert_eq!(walk::<true>(&guest, &mut queue, chain), Err(ChainError::Untranslated));
    let miss = Miss { iova: 0x5000, write: true };
    assert_eq!(queue.awaited(), Some(miss));
    queue.answer(Miss { iova: 0x6000, write: true });
    assert_eq!(queue.awaited(), Some(miss), "an answer to something else");
    queue.answer(miss);
    assert_eq!(queue.awaited(), None);
    let bad = Err(ChainError::Unmapped { addr: 0x5000, len: 1 });
    assert_eq!(walk::<true>(&guest, &mut queue, chain), bad);
    // The guest may map it later, and then it is asked for again.
    assert_eq!(walk::<true>(&guest, &mut queue, chain), Err(ChainError::Untranslated));
    add(&mut iotlb, 0x5000, 20, 1, Access::all());
    queue.set_memory(behind(&guest, &iotlb)).unwrap();
    assert_eq!(fetch::<true>(&mut queue).1.unwrap().len(), 64);
}

#[test]
fn indirect_tables_are_translated_too() {
    let mut guest = Guest::new();
    let mut iotlb = rings();
    let mut queue = queue(&guest, &iotlb);
    let table = usize::try_from(30 * PAGE).unwrap();
    guest.write(table, Desc { addr: 0x5ff0, len: 32, flags: DESC_NEXT, next: 1 });
    guest.write(table + 16, Desc { addr: 0x5000, len: 8, flags: 0, next: 0 });
    guest.desc(0, 0x9000, 32, DESC_INDIRECT, 0);
    guest.offer(0);
    let (chain, _) = fetch::<false>(&mut queue);
    for (iova, place) in [(0x9000, 30), (0x5000, 21), (0x6000, 23)] {
        let walked = walk::<false>(&guest, &mut queue, chain);
        assert_eq!(walked, Err(ChainError::Untranslated), "{iova:#x}");
        assert_eq!(queue.awaited().unwrap().iova & !0xfff, iova);
        add(&mut iotlb, iova, place, 1, Access::READ);
        queue.set_memory(behind(&guest, &iotlb)).unwrap();
    }
    let pieces = walk::<false>(&guest, &mut queue, chain).unwrap();
    assert_eq!(pieces, [(21 * PAGE + 0xff0, 16), (23 * PAGE, 16), (21 * PAGE, 8)]);
}

#[test]
fn a_buffer_of_too_many_pieces_or_past_the_last_address_is_bad() {
    let mut guest = Guest::new();
    let mut iotlb = rings();
    // Each page lies at the same place, so that none continues the one before.
    (0..1100).for_each(|page| add(&mut iotlb, page * PAGE, 20, 1, Access::READ));
    add(&mut iotlb, u64::MAX - PAGE + 1, 20, 1, Access::READ);
    let mut queue = queue(&guest, &iotlb);
    guest.desc(0, 0, 1100 * 4096, 0, 0);
    guest.desc(1, u64::MAX - 7, 16, 0, 0);
    guest.desc(2, u64::MAX - 7, 8, 0, 0);
    let (addr, len) = (u64::MAX - 7, 16);
    let results = [Err(ChainError::TooLong), Err(ChainError::Unmapped { addr, len }), Ok(1)];
    for (head, result) in (0..).zip(results) {
        guest.offer(head);
        let mut buffers = Buffers::default();
        queue.fetch::<false>(1, &mut buffers).unwrap();
        let chain = buffers.chains().next().unwrap();
        let walked = walk::<false>(&guest, &mut queue, chain);
        assert_eq!(walked.map(|pieces| pieces.len()), result, "{head}");
        queue.advance(&buffers, 1);
    }
    assert_eq!(queue.awaited(), None);
}

proptest! {
    /// The model knows for each page where it is and what may be done with it.
    #[test]
    fn bytes_are_found_where_the_table_says(
        pages in prop::collection::btree_map(0_u64..16, (16_u64..64, 1_u8..4), 0..16),
        addr in 0_u64..18 * PAGE,
        len in 1_u32..5 * 4096,
        write: bool,
    ) {
        let mut guest = Guest::new();
        let mut iotlb = rings();
        for (page, (place, access)) in &pages {
            add(&mut iotlb, page * PAGE, *place, 1, Access::from_bits(*access).unwrap());
        }
        let mut queue = queue(&guest, &iotlb);
        guest.desc(0, addr, len, if write { DESC_WRITE } else { 0 }, 0);
        guest.offer(0);
        let wanted = if write { Access::WRITE } else { Access::READ };
        let place = |iova: u64| {
            let (place, access) = pages.get(&(iova / PAGE))?;
            let may = Access::from_bits(*access).is_some_and(|access| access.contains(wanted));
            may.then_some(place * PAGE + iova % PAGE)
        };
        let bytes: Vec<_> = (addr..addr + u64::from(len)).map(place).collect();
        let (chain, single, walked) = if write {
            let (chain, single) = fetch::<true>(&mut queue);
            (chain, single, walk::<true>(&guest, &mut queue, chain))
        } else {
            let (chain, single) = fetch::<false>(&mut queue);
            (chain, single, walk::<false>(&guest, &mut queue, chain))
        };
        prop_assert_eq!(chain.head, 0);
        match bytes.iter().position(Option::is_none) {
            Some(first) => {
                prop_assert_eq!(walked, Err(ChainError::Untranslated));
                prop_assert!(single.is_none());
                let miss = Miss { iova: addr + first as u64, write };
                prop_assert_eq!(queue.awaited(), Some(miss));
            }
            None => {
                let pieces = walked.unwrap();
                prop_assert_eq!(single.is_some(), pieces.len() == 1);
                let found = pieces.iter().flat_map(|(start, len)| *start..start + len);
                prop_assert!(found.map(Some).eq(bytes));
            }
        }
    }
}
