//! Translations of I/O virtual addresses, as a front-end tells them (vhost-user, chapter "IOMMU
//! support").
//!
//! Behind a virtual IOMMU (`VIRTIO_F_ACCESS_PLATFORM`) the addresses in descriptors, and those of
//! the rings themselves, mean what the guest's page tables of that IOMMU say. The front-end has
//! these tables; the back-end asks for one translation after the other and keeps them here until
//! the front-end takes them back.

use std::collections::BTreeMap;

use bitflags::bitflags;

/// Translations that one table keeps; for one more, the oldest goes. With the smallest pages these
/// are 16 MiB of buffers.
pub const MAX_TRANSLATIONS: usize = 4096;

bitflags! {
    /// What the device may do with memory; the bits are those of the protocol.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u8 {
        /// It may read it.
        const READ = 1;
        /// It may write it.
        const WRITE = 2;
    }
}

/// What lies at a range of I/O virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The first address.
    pub iova: u64,
    /// Bytes.
    pub len: u64,
    /// Address of the first byte in the front-end's own address space.
    pub user_addr: u64,
    /// What the device may do there.
    pub access: Access,
}

/// Why a translation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IotlbError {
    /// It is for no address.
    #[error("a translation of no bytes at I/O address {iova:#x}")]
    Empty {
        /// Its address.
        iova: u64,
    },
    /// It runs past the end of an address space.
    #[error("a translation of {len:#x} bytes at I/O address {iova:#x} passes the last address")]
    Wraps {
        /// Its address.
        iova: u64,
        /// Its bytes.
        len: u64,
    },
    /// It allows nothing.
    #[error("a translation at I/O address {iova:#x} that may be neither read nor written")]
    NoAccess {
        /// Its address.
        iova: u64,
    },
}

/// A table of translations, of which none overlap.
#[derive(Clone, Debug, Default)]
pub struct Iotlb {
    /// By first address.
    entries: BTreeMap<u64, Entry>,
    /// The age of the next one.
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    translation: Translation,
    /// Grows from one to the next.
    born: u64,
}

impl Entry {
    /// The last address; a translation in the table has one.
    fn last(&self) -> u64 {
        self.translation.iova.saturating_add(self.translation.len.saturating_sub(1))
    }
}

impl Iotlb {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), next: 0 }
    }

    /// Adds a translation. Older ones that it overlaps are forgotten as a whole: whatever else they
    /// said can be asked for again.
    ///
    /// # Errors
    /// When it is for no address or allows nothing, or a range passes the end of its address space.
    pub fn insert(&mut self, translation: Translation) -> Result<(), IotlbError> {
        let Translation { iova, len, user_addr, access } = translation;
        if access.is_empty() {
            return Err(IotlbError::NoAccess { iova });
        }
        let offset = len.checked_sub(1).ok_or(IotlbError::Empty { iova })?;
        let (Some(last), Some(_)) = (iova.checked_add(offset), user_addr.checked_add(offset))
        else {
            return Err(IotlbError::Wraps { iova, len });
        };
        self.remove_between(iova, last);
        if self.entries.len() >= MAX_TRANSLATIONS {
            self.remove_oldest();
        }
        self.entries.insert(iova, Entry { translation, born: self.next });
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Forgets all translations for any of the `len` bytes at `iova`, as a whole; no length, or one
    /// past the last address, means all from `iova` on. Returns whether there were any.
    pub fn remove(&mut self, iova: u64, len: u64) -> bool {
        let last = len.checked_sub(1).and_then(|offset| iova.checked_add(offset));
        self.remove_between(iova, last.unwrap_or(u64::MAX))
    }

    /// Forgets all translations.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The translations, by their addresses.
    pub fn iter(&self) -> impl Iterator<Item = &Translation> {
        self.entries.values().map(|entry| &entry.translation)
    }

    /// Number of translations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no translation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn remove_between(&mut self, first: u64, last: u64) -> bool {
        let before = self.entries.len();
        // None overlap, so those that are meant follow each other.
        while let Some((&iova, entry)) = self.entries.range(..=last).next_back()
            && entry.last() >= first
        {
            self.entries.remove(&iova);
        }
        self.entries.len() < before
    }

    fn remove_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.born);
        if let Some(iova) = oldest.map(|(iova, _)| *iova) {
            self.entries.remove(&iova);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    fn translation(page: u64, pages: u64) -> Translation {
        let (iova, len) = (page * PAGE, pages * PAGE);
        Translation { iova, len, user_addr: 0x7000_0000 + iova, access: Access::all() }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_changes_nothing() {
        let mut table = Iotlb::new();
        table.insert(translation(0, 1)).unwrap();
        let good = translation(0, 1);
        let cases = [
            (Translation { len: 0, ..good }, IotlbError::Empty { iova: 0 }),
            (Translation { access: Access::empty(), ..good }, IotlbError::NoAccess { iova: 0 }),
            (
                Translation { iova: 1, len: u64::MAX, ..good },
                IotlbError::Wraps { iova: 1, len: u64::MAX },
            ),
            (Translation { user_addr: u64::MAX, ..good }, IotlbError::Wraps { iova: 0, len: PAGE }),
        ];
        for (bad, error) in cases {
            assert_eq!(table.insert(bad), Err(error));
            assert!(table.iter().eq([&good]), "{bad:?}");
        }
    }

    #[test]
    fn a_translation_may_reach_the_last_address() {
        let mut table = Iotlb::new();
        let last = Translation { iova: u64::MAX - PAGE + 1, ..translation(0, 1) };
        table.insert(last).unwrap();
        table.insert(translation(0, 1)).unwrap();
        assert_eq!(table.len(), 2);
        assert!(table.remove(u64::MAX, 1));
        assert!(table.iter().eq([&translation(0, 1)]));
    }

    #[test]
    fn no_length_means_all_that_follows() {
        for len in [0, u64::MAX, u64::MAX - PAGE] {
            let mut table = Iotlb::new();
            (0..4).for_each(|page| table.insert(translation(2 * page, 1)).unwrap());
            assert!(table.remove(2 * PAGE, len));
            assert!(table.iter().eq([&translation(0, 1)]), "{len:#x}");
            assert!(!table.remove(2 * PAGE, len), "a second time");
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut table = Iotlb::new();
        let pages = MAX_TRANSLATIONS as u64 + 3;
        // From the last address down, so that age and address differ.
        (0..pages).rev().for_each(|page| table.insert(translation(page, 1)).unwrap());
        assert_eq!(table.len(), MAX_TRANSLATIONS);
        assert!(table.iter().map(|entry| entry.iova / PAGE).eq(0..pages - 3));
    }

    proptest! {
        /// The model knows for each page what was said of it last.
        #[test]
        fn an_address_means_what_was_said_last_or_nothing(
            steps in prop::collection::vec((0_u64..24, 1_u64..6, 0_u64..100, any::<bool>()), 1..60)
        ) {
            let mut table = Iotlb::new();
            let mut model = BTreeMap::new();
            for (page, pages, place, update) in steps {
                if update {
                    let user_addr = place * PAGE;
                    table.insert(Translation { user_addr, ..translation(page, pages) }).unwrap();
                    model.extend((0..pages).map(|at| (page + at, place + at)));
                } else {
                    table.remove(page * PAGE, pages * PAGE);
                    model.retain(|at, _| !(page..page + pages).contains(at));
                }
                let mut free_from = 0;
                for entry in table.iter() {
                    prop_assert!(entry.iova >= free_from, "they overlap");
                    free_from = entry.iova + entry.len;
                    for at in 0..entry.len / PAGE {
                        let said = model.get(&(entry.iova / PAGE + at));
                        prop_assert_eq!(said, Some(&(entry.user_addr / PAGE + at)));
                    }
                }
                if update {
                    // What was said just now is there.
                    prop_assert!(table.iter().any(|entry| entry.iova == page * PAGE));
                }
            }
        }
    }
}
