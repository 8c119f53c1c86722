//! Which pages of a guest's memory are there.

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio::GuestMemory;

/// The unit in which memory arrives, or a part of it: huge pages arrive as a whole.
const PAGE: usize = 4096;
/// Pages in a word.
const WORD: usize = 64;
/// Words in a leaf, which has the size of a page.
const LEAF: usize = 512;
/// Pages in a leaf: 128 MiB of memory.
const SPAN: usize = LEAF * WORD;

/// What is known of the pages of a guest that is being migrated by post-copy. A page that is
/// there stays. Any thread may ask, and note what it has heard.
#[derive(Debug)]
pub struct Pages {
    regions: Box<[RegionPages]>,
}

/// One region. A page has a number in it, from 0.
#[derive(Debug)]
struct RegionPages {
    /// Where this process has its first page.
    host: usize,
    /// Where its pager has it.
    pager: u64,
    pages: usize,
    /// A bit for each page that is known to be there, in leaves that are made with their first: a
    /// front-end may share terabytes of nothing.
    present: Box<[OnceLock<Box<Leaf>>]>,
}

type Leaf = [AtomicU64; LEAF];

impl Pages {
    /// None of the pages of `memory` is known to be there. `places` has for each region, by its
    /// guest-physical address, where its first byte is in the pager.
    #[must_use]
    pub fn new(memory: &GuestMemory, places: &[(u64, u64)]) -> Self {
        let region = |region: &virtio::memory::Region| {
            let place = places.iter().find(|(guest_addr, _)| *guest_addr == region.guest_addr)?;
            let first = region.mapping.ptr().addr().get();
            // Both are as far behind a page's start: as far as in the file.
            let skip = first % PAGE;
            let pages = (skip + region.mapping.len()).div_ceil(PAGE);
            let present = std::iter::repeat_with(OnceLock::new).take(pages.div_ceil(SPAN));
            Some(RegionPages {
                host: first - skip,
                pager: place.1.checked_sub(skip as u64)?,
                pages,
                present: present.collect(),
            })
        };
        Self { regions: memory.regions().iter().filter_map(region).collect() }
    }

    /// Calls `missing` with the pager's address of each page of `len` bytes at `host` that is not
    /// known to be there; gives whether all are. Memory that is not the guest's is not there.
    pub fn check(&self, host: NonNull<u8>, len: usize, mut missing: impl FnMut(u64)) -> bool {
        if len == 0 {
            return true;
        }
        let start = host.addr().get();
        let found = self.regions.iter().find_map(|region| Some((region, region.page(start)?)));
        let Some((region, first)) = found else { return false };
        let last = start.saturating_add(len - 1).saturating_sub(region.host) / PAGE;
        if last >= region.pages {
            return false;
        }
        let mut all = true;
        for page in (first..=last).filter(|page| !region.is_present(*page)) {
            all = false;
            missing(region.pager + (page * PAGE) as u64);
        }
        all
    }

    /// Whether the page at the pager's address `at` is known to be there; so is one that no region
    /// has.
    #[must_use]
    pub fn is_present(&self, at: u64) -> bool {
        self.find(at).is_none_or(|(region, page)| region.is_present(page))
    }

    /// Notes that the page at the pager's address `at` is there. What no region has is ignored.
    pub fn mark_present(&self, at: u64) {
        if let Some((region, page)) = self.find(at)
            && let Some(leaf) = region.present.get(page / SPAN)
            && let Some(word) = leaf.get_or_init(new_leaf).get(page / WORD % LEAF)
        {
            // Release: whoever sees the bit sees what the page had when it came.
            word.fetch_or(1 << (page % WORD), Ordering::Release);
        }
    }

    fn find(&self, at: u64) -> Option<(&RegionPages, usize)> {
        self.regions.iter().find_map(|region| {
            let page = usize::try_from(at.checked_sub(region.pager)?).ok()? / PAGE;
            (page < region.pages).then_some((region, page))
        })
    }
}

fn new_leaf() -> Box<Leaf> {
    Box::new(std::array::from_fn(|_| AtomicU64::default()))
}

impl RegionPages {
    /// The number of the page with host address `host`.
    fn page(&self, host: usize) -> Option<usize> {
        let page = host.checked_sub(self.host)? / PAGE;
        (page < self.pages).then_some(page)
    }

    fn is_present(&self, page: usize) -> bool {
        let leaf = self.present.get(page / SPAN).and_then(OnceLock::get);
        let word = leaf.and_then(|leaf| leaf.get(page / WORD % LEAF));
        word.is_some_and(|word| word.load(Ordering::Acquire) & 1 << (page % WORD) != 0)
    }
}
