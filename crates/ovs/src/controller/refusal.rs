//! Why the last who came to a controller's door was refused: could not be secured, or never said HELLO.
//!
//! Anybody may come, as often as they like, and fail in as many ways. So what is told of it, in the log and in
//! the row, changes at a pace of ours, and goes once somebody has come who is what was waited for.

use std::time::{Duration, Instant};

/// How often it is told at most.
const TOLD: Duration = Duration::from_secs(10);

/// What is told.
#[derive(Debug, Default)]
pub struct Refusal {
    why: Option<String>,
    /// When it was told last.
    told: Option<Instant>,
}

impl Refusal {
    /// Somebody was refused: gives whether that is told.
    pub fn refuse(&mut self, why: &str, now: Instant) -> bool {
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD) {
            return false;
        }
        *self = Self { why: Some(why.to_owned()), told: Some(now) };
        true
    }

    /// Somebody has come who was not.
    pub fn forget(&mut self) {
        self.why = None;
    }

    /// Why, as long as nobody else has come.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_change_what_is_told_now_and_then_only() {
        let (mut refusal, begin) = (Refusal::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(refusal.refuse("http request", at(0)));
        assert!(!refusal.refuse("no HELLO", at(9)));
        assert_eq!(refusal.why(), Some("http request"));
        assert!(refusal.refuse("no HELLO", at(10)));
        assert_eq!(refusal.why(), Some("no HELLO"));
        refusal.forget();
        assert_eq!(refusal.why(), None);
        // Whoever comes in between says no more.
        assert!(!refusal.refuse("http request", at(11)));
        assert_eq!(refusal.why(), None);
        assert!(refusal.refuse("http request", at(20)));
    }
}
