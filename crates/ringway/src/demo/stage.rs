//! What traffic there is, and for how long.

use std::time::Duration;

use crate::generate::size::SizeMix;

/// One kind of traffic.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What it is called in the table.
    pub name: &'static str,
    /// Frame sizes.
    pub sizes: SizeMix,
    /// Most frames under way in each direction.
    pub window: u64,
    /// Whether latency is measured: only where queues are empty is it of interest.
    pub latency: bool,
    /// How long it lasts.
    pub time: Duration,
}

/// Frames under way in each direction: less than a ring has entries, so that none is ever
/// dropped for want of a buffer, and enough to keep both sides busy, even in turns on one core.
pub const WINDOW: u64 = 512;

/// Longest part of the demo that is spent on latency.
const MAX_LATENCY_TIME: Duration = Duration::from_secs(2);

/// The stages of a demo that lasts `seconds`.
pub fn stages(seconds: u64) -> Result<Vec<Stage>, String> {
    let total = Duration::from_secs(seconds);
    let first = (total / 5).min(MAX_LATENCY_TIME);
    let rest = total.saturating_sub(first) / 3;
    let stage = |name, sizes: &str, window, latency, time| {
        Ok::<_, String>(Stage { name, sizes: sizes.parse()?, window, latency, time })
    };
    Ok(vec![
        stage("64 B, one at a time", "64", 1, true, first)?,
        stage("64 B", "64", WINDOW, false, rest)?,
        stage("64 to 1514 B (IMIX)", "imix", WINDOW, false, rest)?,
        stage("1514 B", "1514", WINDOW, false, rest)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_fill_the_time() {
        for seconds in [1, 5, 9, 86_400] {
            let total: Duration = stages(seconds).unwrap().iter().map(|stage| stage.time).sum();
            let whole = Duration::from_secs(seconds);
            assert!(total <= whole && whole - total < Duration::from_micros(1));
        }
    }
}
