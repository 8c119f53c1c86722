//! Which members of a bond are in use. Nothing here reads a clock or talks to anybody: whoever has a
//! group tells it the time and the links, and hands on what it decides.

pub(crate) mod order;

use std::time::{Duration, Instant};

use datapath::bond::way::{BUCKETS, Division, NOBODY, Receives, Strand, Way};
use datapath::bridge::BridgeId;
use eal::time::later;
use ordered::Order as _;

use super::shares::Shares;
use super::{BondMode, Bonding};

/// A port that is a member, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its number.
    pub(crate) port: u16,
    /// Its name.
    pub(crate) name: String,
    /// Whether it is in service and its link is up.
    pub(crate) is_up: bool,
    /// Whether it may be used, as far as LACP is concerned.
    pub(crate) is_agreed: bool,
    /// Whether it may be used, as far as stations are asked for that are behind it.
    pub(crate) is_answered: bool,
}

/// What members have agreed on with the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// LACP is not spoken.
    #[default]
    None,
    /// Nobody answers.
    Missing,
    /// The other end takes the members that are agreed on for one link.
    Reached,
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) seen: Seen,
    /// Whether it may be used.
    pub(crate) is_enabled: bool,
    /// When that is to change, since its link has.
    pub(crate) due: Option<Instant>,
    /// How often it has been given up.
    pub(crate) failures: u64,
    /// Whether an operator has taken it out of use.
    is_held: bool,
}

/// When load is moved next, and what had been sent of each part when it was moved last: all of it, and
/// what of that still counts.
#[derive(Debug)]
struct Balance {
    due: Instant,
    before: Box<[u64; BUCKETS]>,
    kept: Box<[u64; BUCKETS]>,
}

/// A bond's members.
#[derive(Debug, Default)]
pub(crate) struct Group {
    settings: Bonding,
    members: Vec<Member>,
    agreement: Agreement,
    /// The number of the active one.
    active: Option<u16>,
    /// That of the one which is to be it from the next run on.
    wish: Option<u16>,
    shares: Shares,
    /// Among whom traffic was divided last.
    divided: Option<Vec<u16>>,
    /// When load is moved next, and what had been sent before.
    balanced: Option<Balance>,
    /// How often another one has become active.
    pub(crate) changes: u64,
    /// How many parts of the traffic have been moved for their load.
    pub(crate) moved: u64,
}

impl Group {
    /// Gives the bond other settings; they hold from the next [`run`](Self::run) on.
    pub(crate) fn set(&mut self, settings: &Bonding) {
        if self.settings != *settings {
            self.settings = settings.clone();
        }
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

    /// The number of the member that has each part of the traffic.
    pub(crate) const fn table(&self) -> [u16; BUCKETS] {
        self.shares.table()
    }

    /// How many parts of the traffic a member has.
    pub(crate) fn share(&self, port: u16) -> usize {
        self.shares.count(port)
    }

    /// Whether any member is in use.
    pub(crate) fn is_up(&self) -> bool {
        self.members.iter().any(|member| member.is_enabled)
    }

    /// How traffic is divided now.
    pub(crate) fn mode(&self) -> BondMode {
        // Without a partner, one that takes its place is not told of any agreement.
        match self.agreement {
            Agreement::Missing => BondMode::ActiveBackup,
            Agreement::None | Agreement::Reached => self.settings.mode,
        }
    }

    /// These are the members, at `now`; does what is due. Returns whether another one is active
    /// than before.
    pub(crate) fn run(&mut self, seen: Vec<Seen>, agreement: Agreement, now: Instant) -> bool {
        self.agreement = agreement;
        self.update(seen);
        // All that are up when there is nothing else are taken at once.
        let is_alone = !self.is_up();
        for index in 0..self.members.len() {
            self.follow_link(index, is_alone, now);
        }
        let is_other = self.choose();
        match self.mode() {
            BondMode::ActiveBackup => {
                self.shares.give_all(self.active.unwrap_or(NOBODY));
                self.divided = None;
            }
            BondMode::BalanceSlb | BondMode::BalanceTcp => self.divide(),
        }
        is_other
    }

    /// Divides traffic among the members in use, if these are others than before; otherwise each has
    /// what it has been given since.
    fn divide(&mut self) {
        let enabled = self.enabled();
        if self.divided.as_ref() != Some(&enabled) {
            self.shares.divide(&enabled);
            self.divided = Some(enabled);
        }
    }

    /// The numbers of the members in use.
    fn enabled(&self) -> Vec<u16> {
        let enabled = self.members.iter().filter(|member| member.is_enabled);
        enabled.map(|member| member.seen.port).collect()
    }

    /// Moves load at `now`, if it is time; `sent` tells how many bytes of each part have been sent so
    /// far.
    pub(crate) fn rebalance(&mut self, sent: impl FnOnce() -> [u64; BUCKETS], now: Instant) {
        let interval = self.settings.rebalance();
        let Some(interval) = interval.filter(|_| self.mode() != BondMode::ActiveBackup) else {
            self.balanced = None;
            return;
        };
        let Some(Balance { due, before, kept }) = &mut self.balanced else {
            let (due, before) = (later(now, interval), Box::new(sent()));
            self.balanced = Some(Balance { due, before, kept: Box::new([0; BUCKETS]) });
            return;
        };
        if *due > now {
            *due = later(now, interval).min(*due);
            return;
        }
        let mut loads = sent();
        for ((load, before), kept) in loads.iter_mut().zip(before.iter_mut()).zip(kept.iter_mut()) {
            let sent = *load;
            *load = sent.saturating_sub(*before);
            *kept = kept.saturating_add(*load) / 2;
            *before = sent;
        }
        *due = later(now, interval);
        let moved = self.shares.rebalance(&self.enabled(), &loads);
        self.moved = self.moved.saturating_add(moved as u64);
    }

    /// When load is moved next.
    pub(crate) fn rebalance_due(&self) -> Option<Instant> {
        self.balanced.as_ref().map(|balance| balance.due)
    }

    /// The parts that member `port` has, and how many bytes were sent of each lately; `sent` is all that
    /// was sent so far. None where load is never moved.
    pub(crate) fn loads(&self, port: u16, sent: &[u64; BUCKETS]) -> Vec<(u8, u64)> {
        let Some(Balance { before, kept, .. }) = &self.balanced else { return Vec::new() };
        let table = self.shares.table();
        let loads = sent.iter().zip(before.iter()).zip(kept.iter());
        let loads =
            loads.map(|((sent, before), kept)| sent.saturating_sub(*before).saturating_add(*kept));
        let parts = (0..=u8::MAX).zip(table).zip(loads).filter(|((_, member), _)| *member == port);
        parts.map(|((part, _), load)| (part, load)).filter(|(_, load)| *load != 0).collect()
    }

    /// When there is something to do next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let balance = self.balanced.as_ref().map(|balance| balance.due);
        self.members.iter().filter_map(|member| member.due).chain(balance).min()
    }

    fn update(&mut self, seen: Vec<Seen>) {
        let before = std::mem::take(&mut self.members);
        let member = |seen: Seen| {
            let is_same =
                |old: &&Member| (old.seen.port, &old.seen.name) == (seen.port, &seen.name);
            match before.iter().find(is_same) {
                Some(old) => Member { seen, ..old.clone() },
                None => Member { seen, is_enabled: false, due: None, failures: 0, is_held: false },
            }
        };
        self.members = seen.into_iter().map(member).collect();
        self.members.order_by(|one, other| one.seen.name.cmp(&other.seen.name));
    }

    /// Has a member come into use, or go out of it, once its link has been otherwise for long enough;
    /// where LACP has its say, at once.
    fn follow_link(&mut self, index: usize, is_alone: bool, now: Instant) {
        let Bonding { updelay, downdelay, .. } = self.settings;
        let speaks = self.agreement == Agreement::Reached;
        let Some(member) = self.members.get_mut(index) else { return };
        let is_usable = member.seen.is_up
            && member.seen.is_agreed
            && member.seen.is_answered
            && !member.is_held;
        if is_usable == member.is_enabled {
            member.due = None;
            return;
        }
        let delay = match is_usable {
            _ if speaks => 0,
            true if is_alone => 0,
            true => updelay,
            // Nothing is to be waited for where the link is up.
            false if member.seen.is_up => 0,
            false => downdelay,
        };
        let longest = later(now, Duration::from_millis(u64::from(delay)));
        let due = member.due.map_or(longest, |due| due.min(longest));
        if due > now {
            member.due = Some(due);
            return;
        }
        member.due = None;
        member.is_enabled = is_usable;
        if !member.is_enabled {
            member.failures = member.failures.saturating_add(1);
        }
    }

    /// Chooses the active member: one that an operator wishes, the primary one, the one so far, or the
    /// first that is in use.
    fn choose(&mut self) -> bool {
        let wish = self.wish.take();
        let enabled = || self.members.iter().filter(|member| member.is_enabled);
        let primary = self.settings.primary.as_deref();
        let primary = enabled().find(|member| Some(member.seen.name.as_str()) == primary);
        let so_far = || enabled().find(|member| Some(member.seen.port) == self.active);
        let wish = wish.and_then(|wish| enabled().find(|member| member.seen.port == wish));
        let next = wish.or(primary).or_else(so_far).or_else(|| enabled().next());
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
        let is_active = |member: &Member| Some(member.seen.port) == self.active;
        let receives = |member: &Member| match (self.agreement, self.mode()) {
            _ if !member.is_enabled => Receives::Nothing,
            // The other end sends each frame to one member.
            (Agreement::Reached, _) => Receives::All,
            _ if is_active(member) => Receives::All,
            (_, BondMode::BalanceSlb) if self.settings.all_members_active => Receives::All,
            (_, BondMode::BalanceSlb) => Receives::Unicast,
            _ => Receives::Nothing,
        };
        let strand =
            |member: &Member| Strand { port: member.seen.port, receives: receives(member) };
        let division = match self.mode() {
            BondMode::ActiveBackup => Division::Whole,
            BondMode::BalanceSlb => Division::Source,
            BondMode::BalanceTcp => Division::Flow,
        };
        Way {
            bridge,
            division,
            table: self.shares.table(),
            members: self.members.iter().map(strand).collect(),
            comes_back: division == Division::Source && self.agreement == Agreement::None,
        }
    }
}

#[cfg(test)]
mod tests;
