//! What could not be opened yet: it is tried again, less and less often.

use std::time::{Duration, Instant};

use eal::time::later;
use litemap::LiteMap;

/// How long after the first failure a device is tried again; twice as long after each other one.
const FIRST: Duration = Duration::from_secs(1);

/// The longest time between two attempts.
const LONGEST: Duration = Duration::from_secs(30);

/// A port or vDPA device that could not be opened.
#[derive(Clone, Debug)]
struct Entry {
    reason: String,
    pause: Duration,
    due: Instant,
}

/// All of them, by name.
#[derive(Debug, Default)]
pub struct Waiting(LiteMap<String, Entry>);

impl Waiting {
    /// An attempt to open `name` failed at `now`; returns whether that is news.
    pub fn failed(&mut self, name: &str, reason: &str, now: Instant) -> bool {
        let before = self.0.get(name);
        let is_new = before.is_none_or(|before| before.reason != reason);
        let pause = before.map_or(FIRST, |before| (before.pause * 2).min(LONGEST));
        let due = later(now, pause);
        self.0.insert(name.to_owned(), Entry { reason: reason.to_owned(), pause, due });
        is_new
    }

    /// `name` waits no more; returns whether it did.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Whether `name` waits.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Those that wait, and why.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry.reason.as_str()))
    }

    /// When the next attempt is due, if any.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.0.values().map(|entry| entry.due).min()
    }

    /// Whose attempts are due at `now`.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<String> {
        let due = self.0.iter().filter(|(_, entry)| entry.due <= now);
        due.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rarer_and_never_stop() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        assert!(waiting.failed("a", "no such device", start));
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let next = waiting.next().unwrap();
            assert!(waiting.due(next - Duration::from_millis(1)).is_empty());
            assert_eq!(waiting.due(next), ["a"]);
            pauses.push((next - now).as_secs());
            now = next;
            assert!(!waiting.failed("a", "no such device", now));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(waiting.failed("a", "busy", now), "another reason is news");
        assert!(waiting.has("a") && waiting.remove("a") && !waiting.remove("a"));
        assert_eq!(waiting.next(), None);
    }
}
