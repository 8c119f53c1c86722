//! Groups: what becomes of packets in one place, for all rules that send them there.
//!
//! They are a part of the tables' value, so that a bundle changes rules and groups together.
//!
//! - `change`: changes of groups
//! - `select`: which bucket a packet takes of a group of type select

mod change;
pub(crate) mod select;

use std::sync::Arc;

use ::ordered::Order as _;
use litemap::LiteMap;
use openflow::action::wire;
use openflow::message::group::{Bucket as Desc, GroupType, Selection};
use openflow::{Action, PortNo, Version};

pub use change::GroupRefusal;
use select::Method;
pub use select::{Choice, HashKind, PlaceHash};

use crate::key::Key;
use crate::lengths;
use crate::path::TableSet;
use crate::reads::of_actions;
use crate::rule::Stats;
use crate::walk::set::ordered;

/// The largest number of a group (OpenFlow 1.5, 7.2.3.2).
pub const MAX_GROUP: u32 = 0xFFFF_FF00;

/// The most groups of a bridge.
pub const MAX_GROUPS: usize = 65_536;

/// The most buckets of a group.
pub const MAX_BUCKETS: usize = 1_024;

/// The most bytes of all groups of a bridge, as they are in messages.
const MAX_BYTES: usize = 64 << 20;

/// The head of a bucket with all its properties (OpenFlow 1.5, 7.3.4.3).
const BUCKET_BYTES: usize = 32;

/// Shards of all groups. Those of one are copied together where one of them is changed, and what has
/// been decided by any of them is decided anew then.
const SHARDS: usize = 256;

/// A bucket of a group.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// As the controller has written it.
    pub desc: Desc,
    /// What it has done.
    pub stats: Arc<Stats>,
    /// What is done, in the order in which it is: a bucket is an action set.
    pub(crate) actions: Box<[Action]>,
    /// The packet is the same behind them, since they do no more than send it.
    pub(crate) only_sends: bool,
}

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number.
    pub id: u32,
    /// Which buckets a packet takes.
    pub kind: GroupType,
    /// How one is selected, if it is said.
    pub selection: Option<Selection>,
    /// Its buckets.
    pub buckets: Box<[Bucket]>,
    /// When it was made, in milliseconds.
    pub created: u64,
    /// What it has done since it was last changed.
    pub stats: Arc<Stats>,
    /// How one is selected, where that is its type.
    pub(crate) method: Method,
    /// Which bits of packets it depends on.
    reads: Key,
    /// How long it is in messages.
    bytes: usize,
    /// Whether ports or other groups say which buckets are alive.
    has_watch: bool,
}

impl Bucket {
    /// One that is new at `now`.
    fn new(desc: Desc, now: u64) -> Self {
        let actions: Box<[Action]> = ordered(&desc.actions).into();
        let sends = |action: &Action| match action {
            Action::Output { port, .. } => *port != PortNo::TABLE,
            _ => false,
        };
        let only_sends = actions.iter().all(sends);
        Self { desc, stats: Arc::new(Stats::new(now)), actions, only_sends }
    }

    /// How long it is in messages of OpenFlow 1.5, at most.
    fn bytes(&self) -> usize {
        let mut actions = Vec::new();
        wire::encode(&self.desc.actions, Version::V15, &mut actions);
        actions.len().saturating_add(BUCKET_BYTES)
    }
}

/// All groups of a bridge.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// By the rest of their numbers; as few as there have to be.
    shards: Vec<Arc<LiteMap<u32, Arc<Group>>>>,
    count: usize,
    bytes: usize,
    /// How many have buckets that are not always alive.
    watching: usize,
    /// The bits of packets that they depend on; it may have bits of groups that are not there any more.
    reads: Key,
    /// What they put on in front of packets ([`lengths::front`]); as `reads`.
    front: Option<u16>,
}

impl Groups {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The group of this number.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Arc<Group>> {
        self.shards.get(place(id))?.get(&id)
    }

    /// All groups, by number.
    #[must_use]
    pub fn all(&self) -> Vec<&Arc<Group>> {
        let mut all: Vec<_> = self.shards.iter().flat_map(|shard| shard.values()).collect();
        all.order_by_key(|group| group.id);
        all
    }

    /// Whether ports or other groups say which buckets are alive, of any.
    #[must_use]
    pub const fn has_watches(&self) -> bool {
        self.watching > 0
    }

    /// The bits of packets that they depend on.
    pub(crate) const fn reads(&self) -> &Key {
        &self.reads
    }

    /// The longest network service header that they put on, if they have headers in front of packets come and go.
    pub(crate) const fn front(&self) -> Option<u16> {
        self.front
    }

    /// Those that are not as they are in `other`, or stand where one is that is not.
    pub(crate) fn changed(&self, other: &Self) -> TableSet {
        TableSet::of_changed(&self.shards, &other.shards)
    }

    fn insert(&mut self, group: Group) {
        let index = place(group.id);
        if self.shards.len() <= index {
            self.shards.resize_with(index + 1, Arc::default);
        }
        self.reads.union(&group.reads);
        let fronts = group.buckets.iter().filter_map(|bucket| lengths::front(&bucket.actions));
        self.front = self.front.max(fronts.max());
        self.count_in(&group);
        let shard = self.shards.get_mut(index).map(Arc::make_mut);
        let before = shard.and_then(|shard| shard.insert(group.id, Arc::new(group)));
        before.iter().for_each(|before| self.count_out(before));
    }

    fn remove(&mut self, id: u32) -> Option<Arc<Group>> {
        self.get(id)?;
        let removed = self.shards.get_mut(place(id)).map(Arc::make_mut)?.remove(&id)?;
        self.count_out(&removed);
        if self.count == 0 {
            self.reads = Key::default();
            self.front = None;
        }
        Some(removed)
    }

    fn count_in(&mut self, group: &Group) {
        self.count += 1;
        self.bytes += group.bytes;
        self.watching += usize::from(group.has_watch);
    }

    fn count_out(&mut self, group: &Group) {
        self.count -= 1;
        self.bytes -= group.bytes;
        self.watching -= usize::from(group.has_watch);
    }
}

/// The shard of a group.
const fn place(id: u32) -> usize {
    id as usize % SHARDS
}

/// A set of paths' groups has the shards that they are in.
pub(crate) fn mark(set: &mut TableSet, id: u32) {
    set.insert(u8::try_from(place(id)).unwrap_or_default());
}

impl Group {
    /// How its buckets are selected, for a log, where they are.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        if self.kind == GroupType::Select { select::explain(self) } else { Vec::new() }
    }

    /// One with these buckets, at `now`.
    fn new(
        (id, kind): (u32, GroupType),
        selection: Option<Selection>,
        buckets: Vec<Bucket>,
        now: u64,
    ) -> Self {
        let method = Method::of(kind, selection.as_ref(), &buckets);
        let mut reads = Key::default();
        buckets.iter().for_each(|bucket| of_actions(&bucket.actions, &mut reads));
        method.reads(&mut reads);
        let bytes = buckets.iter().map(Bucket::bytes).sum();
        let has_watch = buckets.iter().any(|bucket| {
            let goes_by_links = |action: &Action| matches!(action, Action::Bundle(_));
            bucket.desc.has_watch() || bucket.actions.iter().any(goes_by_links)
        });
        let (buckets, stats) = (buckets.into(), Arc::new(Stats::new(now)));
        Self { id, kind, selection, buckets, created: now, stats, method, reads, bytes, has_watch }
    }
}

#[cfg(test)]
mod tests;
