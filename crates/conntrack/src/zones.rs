//! How many connections zones have, and may have.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Zones whose counts are together.
const PAGE: usize = 256;

/// What says that a zone has no limit of its own.
const NO_LIMIT: u32 = u32::MAX;

/// A zone.
#[derive(Debug)]
struct Zone {
    count: AtomicU32,
    limit: AtomicU32,
}

impl Default for Zone {
    fn default() -> Self {
        Self { count: AtomicU32::new(0), limit: AtomicU32::new(NO_LIMIT) }
    }
}

/// All zones; those that were never used take no memory.
#[derive(Debug)]
pub(crate) struct Zones {
    pages: Box<[OnceLock<Box<[Zone]>>]>,
    /// That of zones without one of their own; 0: none.
    default: AtomicU32,
}

impl Default for Zones {
    fn default() -> Self {
        let pages = (0..PAGE).map(|_| OnceLock::new()).collect();
        Self { pages, default: AtomicU32::new(0) }
    }
}

/// What is shown of a zone that has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneLimit {
    /// Its number.
    pub zone: u16,
    /// The most connections; 0: as many as there are.
    pub limit: u32,
    /// Those that it has.
    pub count: u32,
}

impl Zones {
    fn zone(&self, zone: u16) -> Option<&Zone> {
        let zone = usize::from(zone);
        let page = self.pages.get(zone / PAGE)?;
        page.get_or_init(|| (0..PAGE).map(|_| Zone::default()).collect()).get(zone % PAGE)
    }

    fn limit_of(&self, zone: &Zone) -> u32 {
        match zone.limit.load(Relaxed) {
            NO_LIMIT => self.default.load(Relaxed),
            limit => limit,
        }
    }

    /// Takes a place for a connection; returns whether there was one.
    pub(crate) fn take(&self, zone: u16) -> bool {
        let Some(zone) = self.zone(zone) else { return false };
        let limit = self.limit_of(zone);
        let before = zone.count.fetch_add(1, Relaxed);
        let has_room = limit == 0 || before < limit;
        if !has_room {
            zone.count.fetch_sub(1, Relaxed);
        }
        has_room
    }

    /// Gives one back.
    pub(crate) fn give(&self, zone: u16) {
        if let Some(zone) = self.zone(zone) {
            zone.count.fetch_sub(1, Relaxed);
        }
    }

    /// Sets the limit of a zone; `None`: that of those without one of their own.
    pub(crate) fn set(&self, zone: u16, limit: Option<u32>) {
        if let Some(zone) = self.zone(zone) {
            zone.limit.store(limit.map_or(NO_LIMIT, |limit| limit.min(NO_LIMIT - 1)), Relaxed);
        }
    }

    pub(crate) fn default_limit(&self) -> u32 {
        self.default.load(Relaxed)
    }

    pub(crate) fn set_default(&self, limit: u32) {
        self.default.store(limit, Relaxed);
    }

    /// What a zone may have and has.
    pub(crate) fn get(&self, number: u16) -> ZoneLimit {
        let (limit, count) = self
            .zone(number)
            .map_or((0, 0), |zone| (self.limit_of(zone), zone.count.load(Relaxed)));
        ZoneLimit { zone: number, limit, count }
    }

    /// Those with a limit of their own.
    pub(crate) fn limited(&self) -> Vec<ZoneLimit> {
        let has_own = |zone: &u16| {
            let page = self.pages.get(usize::from(*zone) / PAGE).and_then(OnceLock::get);
            let zone = page.and_then(|page| page.get(usize::from(*zone) % PAGE));
            zone.is_some_and(|zone| zone.limit.load(Relaxed) != NO_LIMIT)
        };
        (0..=u16::MAX).filter(has_own).map(|zone| self.get(zone)).collect()
    }
}
