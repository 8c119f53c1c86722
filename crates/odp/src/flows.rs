//! The flows that a datapath of Open vSwitch would have for the packets that have come in.
//!
//! Nothing is forwarded by them, and no worker knows of them: packets that were counted one by one
//! kind are given to [`Flows::take`] afterwards, which finds the flow that they would have been of,
//! and else asks for the way that such a packet goes. So flows come, are counted, change and end as in
//! Open vSwitch, where rules change and nothing comes for a while.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use flow::{Key, OptionField, TAG_PRESENT, WORDS, slot};

use crate::action::{Action, Actions, Balance, Names, Onward};
use crate::kind::{Kind, is_icmp};
use crate::masked::{Masked, letters};

/// How many flows there are at most, as Open vSwitch begins.
const LIMIT: usize = 10_000;

/// The number of a VLAN, and that there is a tag: all of it but its priority.
const VLAN: u16 = TAG_PRESENT | 0x0FFF;

/// How many masks they may have, since each is looked for.
const MAX_MASKS: usize = 256;

/// How many times packets are looked for by a mask, until flows are looked at again: whoever makes up packets
/// must not hold up who looks.
const MAX_LOOKS: usize = 1 << 19;

/// How often packets come again at most, all copies of one together.
const MAX_ROUNDS: usize = 64;

/// How long a flow stays for which nothing comes, in milliseconds.
pub const MAX_IDLE: u64 = 10_000;

/// What becomes of packets, and which of their bits that depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The bits.
    pub mask: Key,
    /// What a datapath does with them.
    pub actions: Vec<Action>,
    /// Whether they flood, as nobody knows their destination, or rules say so.
    pub is_flooded: bool,
    /// The fields of the bridge for options of tunnels.
    pub options: Vec<OptionField>,
}

/// Packets of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Packets<'p> {
    /// What they are. The number of the port is the datapath's.
    pub key: &'p Key,
    /// How many there are, 1 at least.
    pub packets: u64,
    /// Their bytes, and those of the first one.
    pub bytes: u64,
    /// Bytes of the first one.
    pub first_bytes: u64,
    /// When the last one came, in milliseconds.
    pub last: u64,
    /// The number of the thread that took them: each has flows of its own.
    pub thread: u16,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// By what it is known.
    pub id: u128,
    /// The number of the thread that has it.
    pub thread: u16,
    /// Its first packet.
    pub key: Key,
    /// Where its packets go on, if they have come again for a group.
    pub onward: Option<Arc<Onward>>,
    /// What is done with its packets, and which those are.
    pub way: Way,
    /// Packets after the first one, which has only made it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the last one of them came, in milliseconds.
    pub used: Option<u64>,
    /// Flags of TCP that they had.
    pub flags: u16,
    /// When it was made.
    pub created: u64,
}

/// What happens to flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'e> {
    /// There is none for such a packet.
    Missed(&'e Key),
    /// There is one now.
    Added(&'e Flow),
    /// Something else is done with its packets from now on.
    Changed(&'e Flow),
    /// It has ended.
    Deleted(&'e Flow),
}

/// Who knows what becomes of packets.
pub trait Host {
    /// What becomes of such packets, which go on there if they have come again for a group; `None`: their
    /// port is not there any more.
    fn way(&mut self, key: &Key, onward: Option<&Onward>) -> Option<Way>;

    /// The hash by which a packet comes again that is for a bond.
    fn hash(&mut self, key: &Key) -> u32 {
        let _ = key;
        0
    }

    /// Whether it has been asked as often as it answers for now.
    fn is_tired(&self) -> bool {
        false
    }

    /// Is told what happens.
    fn told(&mut self, event: Event<'_>) {
        let _ = event;
    }
}

/// How flows are told.
#[derive(Clone, Copy)]
pub struct Look<'l> {
    /// Whether bits are told that do not count.
    pub is_full: bool,
    /// With these, ports are called by their names.
    pub names: Option<Names<'l>>,
    /// The time, in milliseconds.
    pub now: u64,
}

impl std::fmt::Debug for Look<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look").field("is_full", &self.is_full).finish_non_exhaustive()
    }
}

impl Flow {
    /// By what it is known, as text.
    #[must_use]
    pub fn ufid(&self) -> String {
        let digits = format!("{:032x}", self.id);
        let part = |from, to| digits.get(from..to).unwrap_or_default();
        let parts = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
        format!("ufid:{}", parts.join("-"))
    }

    /// Which packets are of it.
    #[must_use]
    pub fn matching(&self, look: Look<'_>) -> String {
        let number = self.key.get_u32(slot::IN_PORT);
        let name = look.names.and_then(|names| names(number));
        let port = name.unwrap_or_else(|| number.to_string());
        let (key, mask) = (&self.key, Some(&self.way.mask));
        Masked { key, mask, port: &port, options: &self.way.options, is_full: look.is_full }
            .to_string()
    }

    /// What it has counted.
    #[must_use]
    pub fn counts(&self, look: Look<'_>) -> String {
        let mut text = format!("packets:{}, bytes:{}, used:", self.packets, self.bytes);
        match self.used {
            None => text += "never",
            Some(used) => {
                let since = look.now.saturating_sub(used);
                let _ = write!(text, "{}.{:03}s", since / 1_000, since % 1_000);
            }
        }
        if self.flags != 0 {
            text += ", flags:";
            text += &letters(self.flags);
        }
        text
    }

    /// What is done with its packets.
    #[must_use]
    pub fn actions(&self, look: Look<'_>) -> String {
        Actions { actions: &self.way.actions, names: look.names }.to_string()
    }

    /// Whether it may be for packets with these bits: whether they agree where both count.
    #[must_use]
    pub fn may_be(&self, key: &Key, bits: &Key) -> bool {
        let both = and(bits, &self.way.mask);
        and(&self.key, &both) == and(key, &both)
    }

    fn count(&mut self, packets: u64, bytes: u64, of: &Packets<'_>) {
        if packets == 0 {
            return;
        }
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
        self.used = self.used.max(Some(of.last));
        self.flags |= of.key.get_u16(slot::TCP_FLAGS);
    }
}

/// Places of flows, by their threads and their bits that count.
type Places = HashMap<(u16, Key), u64>;

/// All flows of a datapath.
#[derive(Debug)]
pub struct Flows {
    /// In the order in which they came.
    flows: BTreeMap<u64, Flow>,
    next: u64,
    /// Those of each mask.
    tuples: Vec<(Key, Places)>,
    /// The first one that is to be looked at next.
    left: u64,
    /// How many times packets may still be looked for by a mask.
    looks: usize,
    /// How many there may be.
    pub limit: usize,
    /// Whether any bits do not count.
    pub has_masks: bool,
    /// How long one stays for which nothing comes, in milliseconds.
    pub max_idle: u64,
    /// Packets that were of a flow, and those that were not.
    pub hits: u64,
    /// Packets of no flow.
    pub misses: u64,
    /// Packets that were not looked at.
    pub lost: u64,
    /// The most flows that there were at a time.
    pub most: usize,
    hasher: RandomState,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            flows: BTreeMap::new(),
            next: 0,
            tuples: Vec::new(),
            left: 0,
            looks: MAX_LOOKS,
            limit: LIMIT,
            has_masks: true,
            max_idle: MAX_IDLE,
            hits: 0,
            misses: 0,
            lost: 0,
            most: 0,
            hasher: RandomState::new(),
        }
    }
}

impl Flows {
    /// All of them, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Ends all.
    pub fn clear(&mut self) {
        self.flows.clear();
        self.tuples.clear();
    }

    /// Ends one; returns whether there was one of that name.
    pub fn remove(&mut self, id: u128) -> bool {
        let found = self.flows.iter().find(|(_, flow)| flow.id == id).map(|(at, _)| *at);
        found.is_some_and(|at| self.end(at).is_some())
    }

    /// Counts packets for the flow that they are of; of none, the first one makes a flow. Of those that come
    /// together, the ones that came first are to be given first. Where it takes too long to look for all,
    /// the others are lost until flows are [looked at](Self::revalidate) again. Packets for bonds and for groups
    /// come again, by the hash of the first one.
    pub fn take(&mut self, of: &Packets<'_>, host: &mut dyn Host) {
        self.follow(of, None, host);
    }

    /// The same of packets that have come again since they were tracked, and go on there.
    pub fn take_again(&mut self, of: &Packets<'_>, onward: Arc<Onward>, host: &mut dyn Host) {
        self.follow(of, Some(onward), host);
    }

    fn follow(&mut self, of: &Packets<'_>, onward: Option<Arc<Onward>>, host: &mut dyn Host) {
        let first = self.take_once(of, onward, host);
        let mut coming: VecDeque<(Key, Balance)> =
            first.into_iter().map(|balance| (*of.key, balance)).collect();
        for _ in 0..MAX_ROUNDS {
            let Some((key, balance)) = coming.pop_front() else { return };
            let again = balance.again(&key, |key| host.hash(key));
            let more = self.take_once(&Packets { key: &again, ..*of }, balance.onward, host);
            let room = MAX_ROUNDS.saturating_sub(coming.len());
            coming.extend(more.into_iter().take(room).map(|balance| (again, balance)));
        }
    }

    /// Counts packets where they come in, or come again; returns how they come again then.
    fn take_once(
        &mut self,
        of: &Packets<'_>,
        onward: Option<Arc<Onward>>,
        host: &mut dyn Host,
    ) -> Vec<Balance> {
        let Some(looks) = self.looks.checked_sub(self.tuples.len()) else {
            self.lost = self.lost.saturating_add(of.packets);
            return Vec::new();
        };
        self.looks = looks;
        if let Some(flow) = self.find(of.key, of.thread) {
            flow.count(of.packets, of.bytes, of);
            let again = Action::balances(&flow.way.actions);
            self.hits = self.hits.saturating_add(of.packets);
            return again;
        }
        self.misses = self.misses.saturating_add(1);
        host.told(Event::Missed(of.key));
        let Some(way) = self.way(of.key, onward.as_deref(), host) else {
            self.lost = self.lost.saturating_add(of.packets.saturating_sub(1));
            return Vec::new();
        };
        let id = self.name(of.key);
        let mut flow = Flow {
            id,
            thread: of.thread,
            key: *of.key,
            onward,
            way,
            packets: 0,
            bytes: 0,
            used: None,
            flags: 0,
            created: of.last,
        };
        let more = of.packets.saturating_sub(1);
        flow.count(more, of.bytes.saturating_sub(of.first_bytes), of);
        self.hits = self.hits.saturating_add(more);
        host.told(Event::Added(&flow));
        let again = Action::balances(&flow.way.actions);
        self.put(flow);
        again
    }

    /// What becomes of packets of no flow, if there may be one more.
    fn way(&self, key: &Key, onward: Option<&Onward>, host: &mut dyn Host) -> Option<Way> {
        let has_room = self.flows.len() < self.limit && self.tuples.len() < MAX_MASKS;
        if !has_room || host.is_tired() {
            return None;
        }
        let mut way = host.way(key, onward)?;
        if !self.has_masks {
            way.mask = whole(key);
        }
        // Whether there is a tag counts in a datapath whatever rules say, and then so does which VLAN it is of.
        if way.mask.get(slot::VLAN_TCI) == 0 {
            way.mask.set(slot::VLAN_TCI, VLAN.into());
        }
        Some(way)
    }

    /// Looks whether flows are still what they were made for: ends those of which more bits count by now,
    /// changes what is done with others, and ends those that were not used until `now`, in milliseconds. If
    /// not `asks`, only those. Returns whether all were looked at; if not, the next time begins with the
    /// others.
    pub fn revalidate(&mut self, now: u64, asks: bool, host: &mut dyn Host) -> bool {
        self.looks = MAX_LOOKS;
        let from = std::mem::take(&mut self.left);
        let (before, behind) = (self.flows.range(..from), self.flows.range(from..));
        let all: Vec<u64> = behind.chain(before).map(|(at, _)| *at).collect();
        let mut is_whole = true;
        for at in all {
            let Some(flow) = self.flows.get_mut(&at) else { continue };
            let since = flow.used.unwrap_or(flow.created);
            let mut ends = now.saturating_sub(since) > self.max_idle;
            if asks && !ends && host.is_tired() {
                if std::mem::take(&mut is_whole) {
                    self.left = at;
                }
            } else if asks && !ends {
                match host.way(&flow.key, flow.onward.as_deref()) {
                    None => ends = true,
                    Some(way) => {
                        ends = and(&way.mask, &flow.way.mask) != way.mask;
                        flow.way.is_flooded = way.is_flooded;
                        if !ends && way.actions != flow.way.actions {
                            flow.way.actions = way.actions;
                            host.told(Event::Changed(flow));
                        }
                    }
                }
            }
            if ends && let Some(flow) = self.end(at) {
                host.told(Event::Deleted(&flow));
            }
        }
        is_whole
    }

    /// What becomes of packets that were counted, by the flow that they are of.
    pub fn way_of(&mut self, key: &Key, thread: u16) -> Option<&Way> {
        self.looks = self.looks.checked_sub(self.tuples.len())?;
        self.find(key, thread).map(|flow| &flow.way)
    }

    fn find(&mut self, key: &Key, thread: u16) -> Option<&mut Flow> {
        let mut all = self.tuples.iter();
        let at = all.find_map(|(mask, flows)| flows.get(&(thread, and(key, mask))))?;
        self.flows.get_mut(at)
    }

    fn put(&mut self, flow: Flow) {
        let (mask, key) = (flow.way.mask, (flow.thread, and(&flow.key, &flow.way.mask)));
        match self.tuples.iter_mut().find(|(known, _)| *known == mask) {
            Some((_, flows)) => _ = flows.insert(key, self.next),
            None => self.tuples.push((mask, HashMap::from([(key, self.next)]))),
        }
        self.flows.insert(self.next, flow);
        self.next = self.next.wrapping_add(1);
        self.most = self.most.max(self.flows.len());
    }

    fn end(&mut self, at: u64) -> Option<Flow> {
        let flow = self.flows.remove(&at)?;
        for (mask, flows) in &mut self.tuples {
            if *mask == flow.way.mask {
                flows.remove(&(flow.thread, and(&flow.key, mask)));
            }
        }
        self.tuples.retain(|(_, flows)| !flows.is_empty());
        Some(flow)
    }

    /// A name that looks like a random UUID (RFC 9562, section 5.4).
    fn name(&self, key: &Key) -> u128 {
        let part = |salt: u8| u128::from(self.hasher.hash_one((salt, self.next, key)));
        let all = part(0) << 64 | part(1);
        all & !(0xF << 76 | 3 << 62) | 4 << 76 | 2 << 62
    }
}

fn and(a: &Key, b: &Key) -> Key {
    let mut words = [0; WORDS];
    let both = a.words().iter().zip(b.words());
    words.iter_mut().zip(both).for_each(|(word, (a, b))| *word = a & b);
    Key::from_words(words)
}

/// All bits that a packet of this kind has.
fn whole(key: &Key) -> Key {
    let mut mask = Key::default();
    let mut all = |slots: &[flow::Slot]| {
        slots.iter().for_each(|slot| mask.set(*slot, slot.ones()));
    };
    all(&[
        slot::SKB_PRIORITY,
        slot::PKT_MARK,
        slot::CT_ZONE,
        slot::CT_MARK,
        slot::CT_LABEL,
        slot::RECIRC_ID,
        slot::DP_HASH,
        slot::IN_PORT,
        slot::PACKET_TYPE,
        slot::ETH_SRC,
        slot::ETH_DST,
        slot::ETH_TYPE,
    ]);
    let tags = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)];
    for (tpid, tci) in tags {
        if key.get_u16(tci) & TAG_PRESENT != 0 {
            all(&[tpid, tci]);
        }
    }
    let kind = Kind::of(key);
    match kind {
        Kind::Ipv4 => all(&[slot::IPV4_SRC, slot::IPV4_DST]),
        Kind::Ipv6 => all(&[slot::IPV6_SRC, slot::IPV6_DST, slot::IPV6_LABEL]),
        Kind::Arp => {
            all(&[slot::IPV4_SRC, slot::IPV4_DST, slot::IP_PROTO, slot::ARP_SHA, slot::ARP_THA]);
        }
        Kind::Mpls => all(&[slot::MPLS_LSE]),
        Kind::Nsh => all(&[slot::NSH_FIRST, slot::NSH_C1_C2, slot::NSH_C3_C4]),
        Kind::Other => {}
    }
    if kind.is_ip() {
        all(&[slot::IP_PROTO, slot::IP_TOS, slot::IP_TTL, slot::TP_SRC, slot::TP_DST]);
        match key.get_u8(slot::IP_PROTO) {
            6 => all(&[slot::TCP_FLAGS]),
            58 => all(&[slot::ND_TARGET, slot::ARP_SHA, slot::ARP_THA]),
            _ => {}
        }
        mask.set(slot::IP_FRAG, 3);
        if is_icmp(key) {
            mask.set(slot::TP_SRC, 0xFF);
            mask.set(slot::TP_DST, 0xFF);
        }
    }
    // Of what is known of connections, as many bits as there are.
    mask.set(slot::CT_STATE, 0xFF);
    mask
}

#[cfg(test)]
mod tests;
