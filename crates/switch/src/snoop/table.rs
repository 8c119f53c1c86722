//! Which ports have members of which groups, and behind which routers are: as values that are told
//! the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use datapath::port_set::PortSet;
use datapath::snoop::view::{Key, Ports, View};
use litemap::LiteMap;

use crate::report::GroupCounts;

/// How long others behind a port have to say that they stay when a member leaves: they are asked
/// twice, and have a second to answer (RFC 3376, sections 8.8 and 8.9).
pub(crate) const LAST_MEMBER: Duration = Duration::from_secs(2);

/// How long a router is remembered that is not heard (RFC 3376, section 8.5).
pub(crate) const ROUTER: Duration = Duration::from_secs(255);

/// A port that has members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// When one has reported last.
    pub(crate) heard: Instant,
    /// When it is taken for none, though it is not too old, unless one reports.
    ends: Option<Instant>,
}

/// The groups of a bridge.
#[derive(Debug)]
pub(crate) struct Table {
    ageing: Duration,
    size: usize,
    groups: BTreeMap<Key, LiteMap<u16, Member>>,
    /// How many groups each port has.
    of_port: LiteMap<u16, usize>,
    /// When routers were heard, by VLAN and port.
    routers: BTreeMap<(u16, u16), Instant>,
    /// Nothing ends before this.
    next: Option<Instant>,
    /// Whether workers have to be told something.
    is_changed: bool,
    pub(crate) counts: GroupCounts,
}

impl Table {
    /// An empty one: of `size` groups at most, whose members are remembered for `ageing`.
    pub(crate) const fn new(size: usize, ageing: Duration) -> Self {
        Self {
            ageing,
            size,
            groups: BTreeMap::new(),
            of_port: LiteMap::new(),
            routers: BTreeMap::new(),
            next: None,
            is_changed: true,
            counts: GroupCounts { joined: 0, left: 0, expired: 0, evicted: 0, refused: 0, bad: 0 },
        }
    }

    /// Changes that, for what there is, too.
    pub(crate) fn set(&mut self, size: usize, ageing: Duration) {
        (self.size, self.ageing) = (size, ageing);
        self.next = self.ends().min();
        while self.groups.len() > size && self.evict(None) {}
    }

    /// Whether it has changed since this was asked last.
    pub(crate) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.is_changed, false)
    }

    /// All groups with their members.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (Key, &LiteMap<u16, Member>)> {
        self.groups.iter().map(|(key, members)| (*key, members))
    }

    /// Where routers were heard: VLAN, port, and when.
    pub(crate) fn routers(&self) -> impl Iterator<Item = (u16, u16, Instant)> {
        self.routers.iter().map(|((vlan, port), heard)| (*vlan, *port, *heard))
    }

    /// Whether a router was heard in a VLAN, that asks for members.
    pub(crate) fn has_router(&self, vlan: u16) -> bool {
        self.routers.range((vlan, 0)..=(vlan, u16::MAX)).next().is_some()
    }

    /// Number of groups, and of members of them.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.groups.len(), self.of_port.values().sum())
    }

    /// How many groups each port has members of.
    pub(crate) fn of_ports(&self) -> impl Iterator<Item = (u16, usize)> {
        self.of_port.iter().map(|(port, has)| (*port, *has))
    }

    /// Number of places where routers were heard.
    pub(crate) fn router_count(&self) -> usize {
        self.routers.len()
    }

    /// A member reports behind `port`, which may have `most` groups.
    pub(crate) fn join(&mut self, key: Key, port: u16, most: Option<u32>, now: Instant) {
        if let Some(member) = self.groups.get_mut(&key).and_then(|group| group.get_mut(&port)) {
            *member = Member { heard: now, ends: None };
            return;
        }
        let has = self.of_port.get(&port).copied().unwrap_or(0);
        if most.is_some_and(|most| has >= most as usize) {
            self.counts.refused = self.counts.refused.saturating_add(1);
            return;
        }
        if !self.groups.contains_key(&key) && self.groups.len() >= self.size {
            self.evict(Some(port));
        }
        self.groups.entry(key).or_default().insert(port, Member { heard: now, ends: None });
        let has = self.of_port.entry(port).or_default();
        *has = has.saturating_add(1);
        self.counts.joined = self.counts.joined.saturating_add(1);
        self.is_changed = true;
        self.note_end(self.end(now));
    }

    /// Leaves `port` no more than `most` groups.
    pub(crate) fn trim(&mut self, port: u16, most: u32) {
        let has = self.of_port.get(&port).copied().unwrap_or(0);
        let mut beyond = has.saturating_sub(most as usize);
        if beyond == 0 {
            return;
        }
        self.groups.retain(|_, members| {
            if beyond > 0 && members.remove(&port).is_some() {
                beyond = beyond.saturating_sub(1);
                take_one(&mut self.of_port, port);
            }
            !members.is_empty()
        });
        self.is_changed = true;
    }

    /// A member leaves behind `port`: others have a moment to say that they stay. Returns whether
    /// the port has any.
    pub(crate) fn leave(&mut self, key: Key, port: u16, now: Instant) -> bool {
        let member = self.groups.get_mut(&key).and_then(|group| group.get_mut(&port));
        let Some(member) = member else { return false };
        let ends = now.checked_add(LAST_MEMBER);
        if member.ends.is_none() {
            member.ends = ends;
        }
        self.note_end(ends);
        true
    }

    /// A router is heard.
    pub(crate) fn hear_router(&mut self, vlan: u16, port: u16, now: Instant) {
        let is_new = !self.routers.contains_key(&(vlan, port));
        if is_new && self.routers.len() >= self.size {
            self.evict_router(port);
        }
        self.routers.insert((vlan, port), now);
        self.is_changed |= is_new;
        self.note_end(now.checked_add(ROUTER));
    }

    /// Forgets everything about `port`.
    pub(crate) fn forget_port(&mut self, port: u16) {
        if self.of_port.remove(&port).is_some() {
            self.is_changed = true;
            self.groups.retain(|_, members| {
                members.remove(&port);
                !members.is_empty()
            });
        }
        let before = self.routers.len();
        self.routers.retain(|(_, of), _| *of != port);
        self.is_changed |= before != self.routers.len();
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.groups.clear();
        self.of_port.clear();
        self.routers.clear();
        self.next = None;
        self.is_changed = true;
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let Self { groups, of_port, counts, ageing, .. } = self;
        let mut gone = false;
        groups.retain(|_, members| {
            members.retain(|port, member| {
                let stays = member.end(*ageing).is_none_or(|end| end > now);
                if !stays {
                    gone = true;
                    take_one(of_port, *port);
                    let count = match member.ends {
                        Some(_) => &mut counts.left,
                        None => &mut counts.expired,
                    };
                    *count = count.saturating_add(1);
                }
                stays
            });
            !members.is_empty()
        });
        let before = self.routers.len();
        self.routers.retain(|_, heard| heard.checked_add(ROUTER).is_none_or(|end| end > now));
        self.is_changed |= gone || before != self.routers.len();
        self.next = self.ends().min();
    }

    /// When something ends next, or may.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.next
    }

    /// What workers have to know.
    pub(crate) fn view(&self, ports: &Ports) -> View {
        let routers = |vlan: u16| {
            let heard = self.routers.range((vlan, 0)..=(vlan, u16::MAX));
            let heard = heard.map(|((_, port), _)| *port).collect::<PortSet>();
            heard.with(&ports.routers)
        };
        let mut view = View::new(ports);
        for (vlan, ..) in self.routers() {
            view.set_routers(vlan, &routers(vlan));
        }
        let mut last = None;
        for ((vlan, group), members) in self.groups() {
            let routers = match last {
                Some((of, routers)) if of == vlan => routers,
                _ => routers(vlan),
            };
            last = Some((vlan, routers));
            let members: PortSet = members.keys().copied().collect();
            view.set_group((vlan, group), &members.with(&routers));
        }
        view
    }

    fn end(&self, heard: Instant) -> Option<Instant> {
        heard.checked_add(self.ageing)
    }

    fn note_end(&mut self, end: Option<Instant>) {
        self.next = self.next.into_iter().chain(end).min();
    }

    /// When each member and router ends.
    fn ends(&self) -> impl Iterator<Item = Instant> {
        let members = self.groups.values().flat_map(LiteMap::values);
        let members = members.filter_map(|member| member.end(self.ageing));
        members.chain(self.routers.values().filter_map(|heard| heard.checked_add(ROUTER)))
    }

    /// Makes room for a group: the port with the most, `favourite` where several have as many,
    /// gives up one that has the fewest other members, and was not heard for long. What goes there
    /// goes to all ports then, as long as nobody reports. Returns whether there was any.
    fn evict(&mut self, favourite: Option<u16>) -> bool {
        let most = self.of_port.iter();
        let most = most.max_by_key(|(port, has)| (**has, Some(**port) == favourite));
        let Some((&victim, _)) = most else { return false };
        let its = self.groups.iter().filter_map(|(key, members)| {
            let member = members.get(&victim)?;
            Some((members.len(), member.heard, *key))
        });
        let Some((_, _, key)) = its.min() else { return false };
        for (port, _) in self.groups.remove(&key).into_iter().flatten() {
            take_one(&mut self.of_port, port);
        }
        self.counts.evicted = self.counts.evicted.saturating_add(1);
        self.is_changed = true;
        true
    }

    /// The same for routers.
    fn evict_router(&mut self, favourite: u16) {
        let mut of_port = LiteMap::<u16, usize>::new();
        for (_, port) in self.routers.keys() {
            let has = of_port.entry(*port).or_default();
            *has = has.saturating_add(1);
        }
        let most = of_port.iter().max_by_key(|(port, has)| (**has, **port == favourite));
        let Some((&victim, _)) = most else { return };
        let its = self.routers.iter().filter(|((_, port), _)| *port == victim);
        let oldest = its.min_by_key(|(_, heard)| **heard).map(|(key, _)| *key);
        oldest.map(|key| self.routers.remove(&key));
        self.is_changed = true;
    }
}

impl Member {
    /// When it is taken for no member any more.
    fn end(&self, ageing: Duration) -> Option<Instant> {
        self.ends.into_iter().chain(self.heard.checked_add(ageing)).min()
    }
}

/// One group less of `port`.
fn take_one(of_port: &mut LiteMap<u16, usize>, port: u16) {
    if let Some(has) = of_port.get_mut(&port) {
        *has = has.saturating_sub(1);
        if *has == 0 {
            of_port.remove(&port);
        }
    }
}

#[cfg(test)]
mod tests;
