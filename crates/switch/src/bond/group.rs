//! Which members of a bond are in use. Nothing here reads a clock or talks to anybody: whoever has a
//! group tells it the time and the links, and hands on what it decides.

use std::time::{Duration, Instant};

use eal::time::later;

use super::way::{BUCKETS, NOBODY, Strand, Way};
use super::{BondMode, Bonding};
use crate::bridge::BridgeId;

/// A port that is a member, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its number.
    pub(crate) port: u16,
    /// Its name.
    pub(crate) name: String,
    /// Whether it is in service and its link is up.
    pub(crate) is_up: bool,
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) seen: Seen,
    /// Whether it may be used.
    pub(crate) is_enabled: bool,
    /// When that is to change, since its link has.
    due: Option<Instant>,
    /// How often it has been given up.
    pub(crate) failures: u64,
}

/// A bond's members.
#[derive(Debug, Default)]
pub(crate) struct Group {
    settings: Bonding,
    members: Vec<Member>,
    /// The number of the active one.
    active: Option<u16>,
    /// How often another one has become that.
    pub(crate) changes: u64,
}

impl Group {
    /// Gives the bond other settings; they hold from the next [`run`](Self::run) on.
    pub(crate) fn set(&mut self, settings: &Bonding) {
        self.settings = settings.clone();
    }

    pub(crate) const fn settings(&self) -> &Bonding {
        &self.settings
    }

    /// The members, in the order of their names.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The number of the active member.
    pub(crate) const fn active(&self) -> Option<u16> {
        self.active
    }

    /// Its name.
    pub(crate) fn active_name(&self) -> Option<&str> {
        let mut members = self.members.iter();
        let active = members.find(|member| Some(member.seen.port) == self.active)?;
        Some(&active.seen.name)
    }

    /// Whether any member is in use.
    pub(crate) fn is_up(&self) -> bool {
        self.members.iter().any(|member| member.is_enabled)
    }

    /// These are the members, at `now`; does what is due. Returns whether another one is active
    /// than before.
    pub(crate) fn run(&mut self, seen: Vec<Seen>, now: Instant) -> bool {
        self.update(seen);
        // All that are up when there is nothing else are taken at once.
        let is_alone = !self.is_up();
        for index in 0..self.members.len() {
            self.follow_link(index, is_alone, now);
        }
        self.choose()
    }

    /// When there is something to do next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.due).min()
    }

    fn update(&mut self, seen: Vec<Seen>) {
        let before = std::mem::take(&mut self.members);
        let member = |seen: Seen| {
            let is_same =
                |old: &&Member| (old.seen.port, &old.seen.name) == (seen.port, &seen.name);
            match before.iter().find(is_same) {
                Some(old) => Member { seen, ..old.clone() },
                None => Member { seen, is_enabled: false, due: None, failures: 0 },
            }
        };
        self.members = seen.into_iter().map(member).collect();
        self.members.sort_by(|one, other| one.seen.name.cmp(&other.seen.name));
    }

    /// Has a member come into use, or go out of it, once its link has been otherwise for long enough.
    fn follow_link(&mut self, index: usize, is_alone: bool, now: Instant) {
        let Bonding { updelay, downdelay, .. } = self.settings;
        let Some(member) = self.members.get_mut(index) else { return };
        if member.seen.is_up == member.is_enabled {
            member.due = None;
            return;
        }
        let delay = match member.seen.is_up {
            true if is_alone => 0,
            true => updelay,
            false => downdelay,
        };
        let longest = later(now, Duration::from_millis(u64::from(delay)));
        let due = member.due.map_or(longest, |due| due.min(longest));
        if due > now {
            member.due = Some(due);
            return;
        }
        member.due = None;
        member.is_enabled = member.seen.is_up;
        if !member.is_enabled {
            member.failures = member.failures.saturating_add(1);
        }
    }

    /// Chooses the active member: the primary one, the one so far, or the first that is in use.
    fn choose(&mut self) -> bool {
        let enabled = || self.members.iter().filter(|member| member.is_enabled);
        let primary = self.settings.primary.as_deref();
        let primary = enabled().find(|member| Some(member.seen.name.as_str()) == primary);
        let so_far = || enabled().find(|member| Some(member.seen.port) == self.active);
        let next = primary.or_else(so_far).or_else(|| enabled().next());
        let next = next.map(|member| member.seen.port);
        let is_other = next != self.active;
        if is_other {
            self.active = next;
            self.changes = self.changes.saturating_add(1);
        }
        is_other
    }

    /// What workers are to know of it, as a bond of `bridge`.
    pub(crate) fn way(&self, bridge: BridgeId) -> Way {
        let receives = |member: &Member| match self.settings.mode {
            BondMode::ActiveBackup => Some(member.seen.port) == self.active,
        };
        let strand =
            |member: &Member| Strand { port: member.seen.port, receives: receives(member) };
        let table = [self.active.unwrap_or(NOBODY); BUCKETS];
        Way { bridge, table, members: self.members.iter().map(strand).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn seen(links: &[(u16, bool)]) -> Vec<Seen> {
        let seen = |(port, is_up): &(u16, bool)| Seen {
            port: *port,
            name: format!("eth{port}"),
            is_up: *is_up,
        };
        links.iter().map(seen).collect()
    }

    fn group(settings: &Bonding) -> Group {
        let mut group = Group::default();
        group.set(settings);
        group
    }

    #[test]
    fn the_next_member_takes_over_when_the_active_one_fails() {
        let mut group = group(&Bonding::default());
        let now = Instant::now();
        assert!(!group.run(seen(&[(7, false), (3, false)]), now));
        assert_eq!((group.active(), group.is_up()), (None, false));
        assert!(group.run(seen(&[(7, true), (3, true)]), now));
        assert_eq!((group.active(), group.due()), (Some(3), None));
        assert!(!group.run(seen(&[(7, false), (3, true)]), now));
        assert!(!group.run(seen(&[(7, true), (3, true)]), now));
        assert!(group.run(seen(&[(7, true), (3, false)]), now));
        assert_eq!(group.active(), Some(7));
        // It stays, though the other one comes back.
        assert!(!group.run(seen(&[(7, true), (3, true)]), now));
        assert!(group.run(seen(&[(3, true)]), now), "its port is gone");
        assert_eq!((group.active(), group.members().len(), group.changes), (Some(3), 1, 3));
        assert_eq!(group.members()[0].failures, 1);
    }

    #[test]
    fn the_primary_one_is_active_whenever_it_can() {
        let primary = Some("eth7".to_owned());
        let mut group = group(&Bonding { primary, updelay: 100, ..Bonding::default() });
        let mut now = Instant::now();
        let (both, one) = ([(3, true), (7, true)], [(3, true), (7, false)]);
        group.run(seen(&one), now);
        assert_eq!(group.active(), Some(3), "nobody waits while there is no other");
        assert!(!group.run(seen(&both), now));
        assert_eq!(group.due(), Some(now + 100 * MS));
        now += 99 * MS;
        assert!(!group.run(seen(&both), now));
        now += MS;
        assert!(group.run(seen(&both), now));
        assert_eq!((group.active(), group.due()), (Some(7), None));
    }

    #[test]
    fn a_link_that_comes_back_in_time_was_never_down() {
        let mut group = group(&Bonding { downdelay: 50, ..Bonding::default() });
        let mut now = Instant::now();
        group.run(seen(&[(3, true), (7, true)]), now);
        for _ in 0..3 {
            assert!(!group.run(seen(&[(3, false), (7, true)]), now));
            assert_eq!(group.due(), Some(now + 50 * MS));
            now += 49 * MS;
            assert!(!group.run(seen(&[(3, true), (7, true)]), now));
            assert_eq!(group.due(), None);
        }
        group.run(seen(&[(3, false), (7, true)]), now);
        // A shorter delay holds for a wait that has begun, too.
        group.set(&Bonding { downdelay: 10, ..Bonding::default() });
        assert!(
            group.run(seen(&[(3, false), (7, true)]), now + 10 * MS) || {
                group.run(seen(&[(3, false), (7, true)]), now + 20 * MS)
            }
        );
        assert_eq!(group.active(), Some(7));
    }

    #[test]
    fn workers_send_to_the_active_member_and_receive_from_it_alone() {
        let mut group = group(&Bonding::default());
        let bridge = BridgeId(5);
        assert_eq!(group.way(bridge).table, [NOBODY; BUCKETS]);
        group.run(seen(&[(3, true), (7, true)]), Instant::now());
        let way = group.way(bridge);
        assert_eq!((way.bridge, way.table), (bridge, [3; BUCKETS]));
        let receives: Vec<_> = way.members.iter().map(|one| (one.port, one.receives)).collect();
        assert_eq!(receives, [(3, true), (7, false)]);
    }
}
