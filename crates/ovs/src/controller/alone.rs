//! How long a bridge has been without any of its controllers, and what becomes of it then
//! (`fail_mode=standalone`).

use std::time::{Duration, Instant};

/// How many times a controller may be silent: until it is asked, until it answers, and until it is
/// connected to again.
const PROBES: u32 = 3;

/// Since when none of a bridge's controllers has been there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone {
    since: Option<Instant>,
}

impl Alone {
    /// Goes on: `is_alone` says whether none is there though there should be one. `probe` is how long
    /// the one may be silent that may be so longest. Gives whether all is to be switched as usual.
    pub fn step(&mut self, is_alone: bool, probe: Duration, now: Instant) -> bool {
        self.since = is_alone.then(|| self.since.unwrap_or(now));
        self.due(probe).is_some_and(|due| now >= due)
    }

    /// When all is to be switched as usual, if none comes until then.
    pub fn due(&self, probe: Duration) -> Option<Instant> {
        self.since?.checked_add(probe.saturating_mul(PROBES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_probes_without_a_controller_are_enough() {
        let (mut alone, start) = (Alone::default(), Instant::now());
        let probe = Duration::from_secs(5);
        let mut at =
            |is_alone, seconds| alone.step(is_alone, probe, start + Duration::from_secs(seconds));
        assert!(!at(false, 0) && !at(true, 1) && !at(true, 15) && at(true, 16) && at(true, 60));
        // One that comes has as long again when it goes.
        assert!(!at(false, 61) && !at(true, 62) && !at(true, 76) && at(true, 77));
        assert_eq!(alone.due(probe), start.checked_add(Duration::from_secs(77)));
    }
}
