//! How many packets were looked up in each table, and how many a rule was for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One table's look-ups.
#[derive(Debug, Default)]
struct Count {
    matched: AtomicU64,
    missed: AtomicU64,
}

/// Look-ups in all tables of a bridge. Copies count together: rules come and go, and what they were for
/// stays counted.
#[derive(Clone, Debug)]
pub struct LookUps(Arc<[Count]>);

impl Default for LookUps {
    fn default() -> Self {
        Self((0..super::TABLES).map(|_| Count::default()).collect())
    }
}

impl LookUps {
    /// Counts packets that were looked up in a table.
    pub fn add(&self, table: u8, is_match: bool, packets: u64) {
        let Some(count) = self.0.get(usize::from(table)) else { return };
        let side = if is_match { &count.matched } else { &count.missed };
        side.fetch_add(packets, Relaxed);
    }

    /// How many packets were looked up in a table, and how many of these a rule was for.
    #[must_use]
    pub fn of(&self, table: u8) -> (u64, u64) {
        let Some(count) = self.0.get(usize::from(table)) else { return (0, 0) };
        let (matched, missed) = (count.matched.load(Relaxed), count.missed.load(Relaxed));
        (matched.saturating_add(missed), matched)
    }

    /// Whether both count together.
    #[must_use]
    pub(crate) fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
