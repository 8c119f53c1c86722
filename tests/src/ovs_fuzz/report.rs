use std::fmt;

use super::coverage::Coverage;

/// What has been found.
#[derive(Debug, Default)]
pub struct Report {
    /// Sets of rules that were tried.
    pub sets: u64,
    /// Packets that were.
    pub packets: u64,
    /// Packets whose ways were compared as text.
    pub traces: u64,
    /// Rules that both refused.
    pub refused: u64,
    /// Sets of rules that made Open vSwitch end.
    pub ended: u64,
    /// Sets with which Open vSwitch did for a packet what it had found out for another one.
    pub mistaken: u64,
    /// Sets of which it was a matter of chance which ports connections got.
    pub by_chance: u64,
    /// Differences, each as text that says how to have it again.
    pub differences: Vec<String>,
    /// The seeds of all sets, the first one and that behind the last one.
    pub seeds: (u64, u64),
    /// What was met.
    pub(super) coverage: Coverage,
}

impl Report {
    /// Counts what is in another one, too.
    pub(super) fn add(&mut self, other: Self) {
        self.sets += other.sets;
        self.packets += other.packets;
        self.traces += other.traces;
        self.refused += other.refused;
        self.ended += other.ended;
        self.mistaken += other.mistaken;
        self.by_chance += other.by_chance;
        self.differences.extend(other.differences);
        self.coverage.add(&other.coverage);
    }

    /// What rules that packets found matched on, and what they did, with how many packets.
    #[must_use]
    pub fn coverage(&self) -> String {
        self.coverage.to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sets, packets, traces, refused, ended, mistaken, by_chance, .. } = self;
        let (first, end) = self.seeds;
        let found = self.differences.len();
        write!(
            f,
            "{packets} packets by {sets} sets of rules, seeds {first} to {}, {traces} traces (both refused \
             {refused} rules, Open vSwitch crashed with {ended} sets more, took packets for others with \
             {mistaken}, and ports were a matter of chance with {by_chance}): {found} sets differ",
            end.saturating_sub(1)
        )
    }
}
