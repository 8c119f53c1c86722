//! Port numbers: those of OpenFlow, of which each bridge has its own, and those of the data path.

use std::collections::BTreeSet;

use litemap::LiteMap;
use ordered::Gather as _;

use crate::pairs::Pairs;

/// The number of a bridge's own port, OFPP_LOCAL of OpenFlow 1.0.
pub const LOCAL: u16 = 65534;

/// The largest number that a port can have: those above have meanings of their own.
const MAX: u16 = 0xfeff;

/// The numbers of one bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    given: Pairs<u16>,
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
    /// Gives numbers to all ports of a bridge, and takes those of others back. Who asks for one gets
    /// it; of several, who has it. A port that is there gets it also from one that has it and has not
    /// asked for it, a new one does not: ports that are there keep theirs for it.
    pub fn assign(&mut self, bridge: &str, applicants: &[Applicant<'_>]) {
        let had = std::mem::take(&mut self.given);
        let wanted = |number: Option<i64>| {
            number
                .and_then(|number| u16::try_from(number).ok())
                .filter(|number| (1..=MAX).contains(number))
        };
        // First those who have what they ask for, then others of those who have one and ask, then all who
        // have one; then new ones who ask, those who had one before, and the rest.
        let of = |applicant: &Applicant<'_>| had.number(applicant.name);
        for applicant in applicants {
            self.give(
                applicant.name,
                of(applicant).filter(|own| wanted(applicant.request) == Some(*own)),
            );
        }
        for applicant in applicants.iter().filter(|applicant| of(applicant).is_some()) {
            self.give(applicant.name, wanted(applicant.request));
        }
        for applicant in applicants {
            self.give(applicant.name, of(applicant));
        }
        for applicant in applicants {
            self.give(applicant.name, wanted(applicant.request));
        }
        for applicant in applicants.iter().filter(|applicant| applicant.name != bridge) {
            self.give(applicant.name, wanted(applicant.before));
        }
        for applicant in applicants {
            if self.of(applicant.name).is_none() {
                let number = if applicant.name == bridge { Some(LOCAL) } else { self.next() };
                if let Some(number) = number {
                    self.given.give(applicant.name, number);
                }
            }
        }
    }

    /// Gives a port this number, if it has none and nobody else has that.
    fn give(&mut self, name: &str, number: Option<u16>) {
        if let Some(number) = number
            && self.of(name).is_none()
            && self.is_free(number)
        {
            self.given.give(name, number);
        }
    }

    /// The number of port `name`.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<u16> {
        self.given.number(name)
    }

    /// The port of this number.
    #[must_use]
    pub fn name(&self, number: u16) -> Option<&str> {
        self.given.name(number)
    }

    fn is_free(&self, number: u16) -> bool {
        self.given.name(number).is_none()
    }

    fn next(&mut self) -> Option<u16> {
        let after = self.last.saturating_add(1).max(1);
        let number = (after..=MAX).chain(1..after).find(|number| self.is_free(*number))?;
        self.last = number;
        Some(number)
    }
}

/// Numbers of a data path's ports, which all bridges share. Tunnels of a kind that come in at one port of UDP
/// are one port there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathNumbers {
    /// By their names in the data path.
    given: Pairs<u32>,
    /// Those names, of interfaces that have other ones.
    tunnels: LiteMap<String, String>,
}

impl PathNumbers {
    /// Gives numbers to these ports, and takes those of others back: each is an interface, and what the data
    /// path calls it where that is something else.
    /// If `speaks`, a name with a number in it gets that if it is free, counted from 100 for names that
    /// begin with `br`, as in Open vSwitch's data path for tests.
    pub fn assign<'n>(
        &mut self,
        interfaces: impl IntoIterator<Item = (&'n str, Option<String>)>,
        speaks: bool,
    ) {
        let mut plain = Vec::new();
        self.tunnels.clear();
        for (name, of_path) in interfaces {
            match of_path {
                Some(of_path) => drop(self.tunnels.insert(name.to_owned(), of_path)),
                None => plain.push(name),
            }
        }
        let tunnels = self.tunnels.values().map(String::as_str);
        let names: BTreeSet<&str> = plain.into_iter().chain(tunnels).gather();
        self.given.retain(|name| names.contains(name));
        let (spoken, others): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|name| speaks && spoken_number(name).is_some());
        for name in spoken.into_iter().chain(others) {
            if self.given.number(name).is_some() {
                continue;
            }
            let is_free = |number: &u32| self.given.name(*number).is_none();
            let asked = if speaks { spoken_number(name) } else { None };
            let number = asked.filter(is_free).or_else(|| (1..=u32::from(u16::MAX)).find(is_free));
            if let Some(number) = number {
                self.given.give(name, number);
            }
        }
    }

    /// The number of port `name`, an interface.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<u32> {
        let name = self.tunnels.get(name).map_or(name, String::as_str);
        self.given.number(name)
    }

    /// One of the interfaces that the data path has as this port of tunnels.
    #[must_use]
    pub fn tunnel(&self, number: u32) -> Option<&str> {
        let name = self.name(number)?;
        let own = self.tunnels.iter().find(|(_, of_path)| *of_path == name);
        own.map(|(interface, _)| interface.as_str())
    }

    /// The interface that is this port, if it is that of one alone.
    #[must_use]
    pub fn interface(&self, number: u32) -> Option<&str> {
        let name = self.name(number)?;
        let mut own = self.tunnels.iter().filter(|(_, of_path)| *of_path == name);
        match (own.next(), own.next()) {
            (None, _) => Some(name),
            (Some((interface, _)), None) => Some(interface),
            (Some(_), Some(_)) => None,
        }
    }

    /// Gives a port another number.
    ///
    /// # Errors
    /// There is no such port, or another one has that number.
    pub fn renumber(&mut self, name: &str, number: u32) -> Result<(), &'static str> {
        if self.name(number).is_some() {
            return Err("port number already in use");
        }
        self.given.number(name).ok_or("unknown port")?;
        self.given.give(name, number);
        Ok(())
    }

    /// The port of this number, as the data path calls it.
    #[must_use]
    pub fn name(&self, number: u32) -> Option<&str> {
        self.given.name(number)
    }
}

/// The first digits in a name.
fn spoken(name: &str) -> Option<&str> {
    let from = name.find(|sign: char| sign.is_ascii_digit())?;
    let digits = name.get(from..)?;
    let end = digits.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)
}

fn spoken_number(name: &str) -> Option<u32> {
    let start = if name.starts_with("br") { 100 } else { 0 };
    let number = spoken(name)?.parse::<u16>().ok()?;
    Some(u32::from(number).saturating_add(start)).filter(|number| *number > 0)
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
        // Two may change theirs with each other; a new one does not get that of one that is there.
        let [had, taker] = [("had", 9), ("new", 4)]
            .map(|(name, number)| Applicant { request: Some(number), ..plain(name) });
        let moves = Applicant { request: Some(1), ..plain("a") };
        numbers.assign("br0", &[moves, plain("lost"), had, asked, taker]);
        let all = ["a", "had", "new", "asks", "lost"].map(|name| numbers.of(name));
        assert_eq!(all, [Some(1), Some(9), Some(5), Some(2), Some(4)]);
        // It does once it is there, as when it asks later.
        numbers.assign("br0", &[moves, plain("lost"), had, asked, taker]);
        let all = ["new", "lost"].map(|name| numbers.of(name));
        assert_eq!(all, [Some(4), Some(6)]);
    }

    #[test]
    fn a_data_path_for_tests_goes_by_names() {
        let mut numbers = PathNumbers::default();
        let plain = |name| (name, None);
        numbers.assign(["br0", "p1", "p12", "bond", "br1", "x1", "p0"].map(plain), true);
        let of = |numbers: &PathNumbers| {
            ["br0", "br1", "p1", "p12", "x1", "p0", "bond"].map(|name| numbers.of(name).unwrap())
        };
        assert_eq!(of(&numbers), [100, 101, 1, 12, 2, 4, 3]);
        assert_eq!((numbers.name(12), numbers.name(13)), (Some("p12"), None));
        assert_eq!(numbers.renumber("p12", 2), Err("port number already in use"));
        assert_eq!(numbers.renumber("nobody", 77), Err("unknown port"));
        assert_eq!(numbers.renumber("p12", 77), Ok(()));
        assert_eq!(numbers.name(77), Some("p12"));
        assert_eq!(numbers.renumber("p12", 12), Ok(()));
        numbers.assign(["p12", "x1"].map(plain), true);
        assert_eq!((numbers.of("x1"), numbers.of("p1")), (Some(2), None));
        let mut numbers = PathNumbers::default();
        numbers.assign(["p5", "br0"].map(plain), false);
        assert_eq!((numbers.of("br0"), numbers.of("p5")), (Some(1), Some(2)));
    }

    #[test]
    fn tunnels_that_come_in_together_are_one_port() {
        let mut numbers = PathNumbers::default();
        let tunnel = |name, of_path: &str| (name, Some(of_path.to_owned()));
        let all = [
            ("p1", None),
            tunnel("t1", "gre_sys"),
            tunnel("t2", "vxlan_sys_4789"),
            tunnel("t3", "vxlan_sys_4789"),
        ];
        numbers.assign(all, true);
        let of = ["p1", "t1", "t2", "t3"].map(|name| numbers.of(name).unwrap());
        assert_eq!(of, [1, 2, 4_789, 4_789]);
        assert_eq!(
            (numbers.name(4_789), numbers.tunnel(4_789)),
            (Some("vxlan_sys_4789"), Some("t2"))
        );
        assert_eq!((numbers.tunnel(1), numbers.of("gre_sys")), (None, Some(2)));
        let one = [1, 2, 4_789, 9].map(|number| numbers.interface(number));
        assert_eq!(one, [Some("p1"), Some("t1"), None, None]);
        numbers.assign([tunnel("t3", "vxlan_sys_4790")], true);
        assert_eq!((numbers.of("t2"), numbers.of("t3")), (None, Some(4_790)));
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
