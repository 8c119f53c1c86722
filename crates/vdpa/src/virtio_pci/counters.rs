//! What a device's driver counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::device::Statistic;

/// Counters of one ring.
#[derive(Debug, Default)]
pub(super) struct RingCounters {
    /// Notifications of the guest that were handed on to the device.
    pub(super) kicks: AtomicU64,
    /// Chains that were given to the device through a shadow ring.
    pub(super) shadow_given: AtomicU64,
    /// Chains that came back that way.
    pub(super) shadow_returned: AtomicU64,
    /// Chains that broke the rules.
    pub(super) bad_chains: AtomicU64,
    /// Chains that the device had not used when it was stopped although it had used younger ones:
    /// they went back to the guest empty.
    pub(super) given_up: AtomicU64,
}

/// Counters of a device.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) starts: AtomicU64,
    pub(super) failed_starts: AtomicU64,
    /// Rings that made no sense and were left alone.
    pub(super) broken_rings: AtomicU64,
    rings: Box<[RingCounters]>,
}

impl Counters {
    pub(super) fn new(rings: u16) -> Self {
        Self {
            starts: AtomicU64::new(0),
            failed_starts: AtomicU64::new(0),
            broken_rings: AtomicU64::new(0),
            rings: (0..rings).map(|_| RingCounters::default()).collect(),
        }
    }

    pub(super) fn ring(&self, index: u16) -> Option<&RingCounters> {
        self.rings.get(usize::from(index))
    }

    /// All of them, with what the running session says.
    pub(super) fn statistics(&self, mapped_bytes: u64, shadow_rings: u64) -> Vec<Statistic> {
        let fixed = [
            ("device_starts", self.starts.load(Relaxed)),
            ("device_failed_starts", self.failed_starts.load(Relaxed)),
            ("broken_rings", self.broken_rings.load(Relaxed)),
            ("mapped_bytes", mapped_bytes),
            ("shadow_rings", shadow_rings),
        ];
        let mut all: Vec<Statistic> =
            fixed.map(|(name, value)| Statistic { name: name.to_owned(), value }).into();
        for (index, ring) in self.rings.iter().enumerate() {
            let kind = if index % 2 == 0 { "rx" } else { "tx" };
            let pair = index / 2;
            let counts = [
                ("kicks", &ring.kicks),
                ("shadow_given", &ring.shadow_given),
                ("shadow_returned", &ring.shadow_returned),
                ("bad_chains", &ring.bad_chains),
                ("given_up", &ring.given_up),
            ];
            all.extend(counts.map(|(name, count)| Statistic {
                name: format!("{kind}{pair}_{name}"),
                value: count.load(Relaxed),
            }));
        }
        all
    }

    pub(super) fn reset(&self) {
        for count in [&self.starts, &self.failed_starts, &self.broken_rings] {
            count.store(0, Relaxed);
        }
        for ring in &self.rings {
            for count in [
                &ring.kicks,
                &ring.shadow_given,
                &ring.shadow_returned,
                &ring.bad_chains,
                &ring.given_up,
            ] {
                count.store(0, Relaxed);
            }
        }
    }
}
