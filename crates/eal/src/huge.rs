//! Transparent huge pages for large tables on the heap.

use std::mem::MaybeUninit;

use rustix::mm::{Advice, madvise};

const PAGE: usize = 4096;

/// Bytes of one huge page, on the machines that have them.
pub const HUGE_PAGE: usize = 2 << 20;

/// An empty vector with room for `capacity` elements, in huge pages where the kernel has some: for
/// a table of megabytes that is looked up all over, whose small pages would not fit into the TLB.
#[must_use]
pub fn huge_vec<T>(capacity: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(capacity);
    prefer_huge_pages(vec.spare_capacity_mut());
    vec
}

/// Advises the kernel; without huge pages all works as well, so errors are no matter.
fn prefer_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    let range = memory.as_mut_ptr_range();
    let start = range.start.addr().next_multiple_of(PAGE);
    let len = (range.end.addr() & !(PAGE - 1)).saturating_sub(start);
    if len < HUGE_PAGE {
        return;
    }
    let ptr = range.start.with_addr(start);
    // SAFETY: the pages lie in `memory`, and the advice changes nothing of what is in them.
    let _ = unsafe { madvise(ptr.cast(), len, Advice::LinuxHugepage) };
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn tables_of_any_size_are_usable() {
        for count in [0, 1, 600_000] {
            let mut vec = huge_vec::<u64>(count);
            vec.extend(0..count as u64);
            assert_eq!(vec.iter().sum::<u64>(), (0..count as u64).sum());
        }
    }
}
