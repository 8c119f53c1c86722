//! OpenFlow port numbers: each bridge has its own.

use std::collections::{BTreeMap, BTreeSet};

/// The number of a bridge's own port, OFPP_LOCAL of OpenFlow 1.0.
pub const LOCAL: u16 = 65534;

/// The largest number that a port can have: those above have meanings of their own.
const MAX: u16 = 0xfeff;

/// The numbers of one bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    by_name: BTreeMap<String, u16>,
    /// The last one given to a port that asked for none: it takes long until one is used again, so
    /// that nobody takes a new port for one that is gone.
    last: u16,
}

/// A port that is to have a number.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    /// Its name.
    pub name: &'a str,
    /// The number that the operator wants.
    pub request: Option<i64>,
    /// The number that it had before this process started.
    pub before: Option<i64>,
}

impl Numbers {
    /// Gives numbers to all ports of a bridge, and takes those of others back. Who has one keeps
    /// it, unless another one is asked for; a request that comes too late is not fulfilled.
    pub fn assign(&mut self, bridge: &str, applicants: &[Applicant<'_>]) {
        let names: BTreeSet<&str> = applicants.iter().map(|applicant| applicant.name).collect();
        self.by_name.retain(|name, _| names.contains(name.as_str()));
        let wanted = |number: Option<i64>| {
            number
                .and_then(|number| u16::try_from(number).ok())
                .filter(|number| (1..=MAX).contains(number))
        };
        // First those who ask, then those who had one, then the rest.
        for applicant in applicants {
            if let Some(number) = wanted(applicant.request)
                && self.is_free(number)
            {
                self.by_name.insert(applicant.name.to_owned(), number);
            }
        }
        for applicant in applicants.iter().filter(|applicant| applicant.name != bridge) {
            if let Some(number) = wanted(applicant.before)
                && self.of(applicant.name).is_none()
                && self.is_free(number)
            {
                self.by_name.insert(applicant.name.to_owned(), number);
            }
        }
        for applicant in applicants {
            if self.of(applicant.name).is_none() {
                let number = if applicant.name == bridge { Some(LOCAL) } else { self.next() };
                if let Some(number) = number {
                    self.by_name.insert(applicant.name.to_owned(), number);
                }
            }
        }
    }

    /// The number of port `name`.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    fn is_free(&self, number: u16) -> bool {
        self.by_name.values().all(|taken| *taken != number)
    }

    fn next(&mut self) -> Option<u16> {
        let after = self.last.saturating_add(1).max(1);
        let number = (after..=MAX).chain(1..after).find(|number| self.is_free(*number))?;
        self.last = number;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(name: &str) -> Applicant<'_> {
        Applicant { name, request: None, before: None }
    }

    #[test]
    fn numbers_are_given_in_turn_and_kept() {
        let mut numbers = Numbers::default();
        numbers.assign("br0", &[plain("a"), plain("br0"), plain("c")]);
        assert_eq!(["a", "br0", "c"].map(|name| numbers.of(name)), [Some(1), Some(LOCAL), Some(2)]);
        numbers.assign("br0", &[plain("br0"), plain("c"), plain("d")]);
        assert_eq!(["a", "c", "d"].map(|name| numbers.of(name)), [None, Some(2), Some(3)]);
    }

    #[test]
    fn requests_come_first_and_the_past_second() {
        let mut numbers = Numbers::default();
        let asked = Applicant { request: Some(2), ..plain("asks") };
        let had = Applicant { before: Some(1), ..plain("had") };
        let lost = Applicant { before: Some(2), ..plain("lost") };
        numbers.assign("br0", &[plain("a"), lost, had, asked]);
        assert_eq!(numbers.of("asks"), Some(2));
        assert_eq!(numbers.of("had"), Some(1));
        assert_eq!((numbers.of("a"), numbers.of("lost")), (Some(3), Some(4)));
        // One that asks for another number later gets it, if it is free.
        let moves = Applicant { request: Some(9), ..plain("a") };
        let late = Applicant { request: Some(2), ..plain("lost") };
        numbers.assign("br0", &[moves, late, had, asked]);
        assert_eq!((numbers.of("a"), numbers.of("lost")), (Some(9), Some(4)));
    }

    #[test]
    fn numbers_out_of_range_are_not_fulfilled() {
        let mut numbers = Numbers::default();
        let wild = |name, request| Applicant { request: Some(request), ..plain(name) };
        numbers.assign("br0", &[wild("a", 0), wild("b", 65535), wild("c", -4), wild("d", 1 << 40)]);
        let all: BTreeSet<_> = ["a", "b", "c", "d"].map(|name| numbers.of(name)).into();
        assert_eq!(all, [1, 2, 3, 4].map(Some).into());
    }
}
