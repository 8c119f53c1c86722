//! Changes of groups, as Open vSwitch makes them.

use std::collections::BTreeSet;
use std::sync::Arc;

use openflow::Action;
use openflow::message::group::{
    ALL_BUCKETS, ALL_GROUPS, Bucket as Desc, FIRST_BUCKET, GroupCommand, GroupMod, LAST_BUCKET,
};
use ordered::Gather as _;

use super::{Bucket, Group, MAX_BUCKETS, MAX_BYTES, MAX_GROUP, MAX_GROUPS};
use crate::possible;
use crate::rule::Ended;
use crate::tables::{Outcome, Refusal, Tables};
use crate::uses::Used;

/// The most bytes of a group, as it is in messages: all of it goes into one.
const MAX_GROUP_BYTES: usize = 60_000;

/// Why a change of groups is refused. Nothing is changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupRefusal {
    /// The number is none that groups have.
    #[error("groups are numbered 0 to {MAX_GROUP:#x}")]
    BadNumber,
    /// There is one with this number.
    #[error("there is a group {0} already; change it instead")]
    Exists(u32),
    /// There is none with this number.
    #[error("there is no group {0}")]
    Unknown(u32),
    /// There are as many as there may be, or they are as large.
    #[error("groups of a bridge are {MAX_GROUPS} or {MAX_BYTES} bytes at most; delete some")]
    Full,
    /// The group has no such bucket.
    #[error("the group has no bucket {0}")]
    UnknownBucket(u32),
    /// The group has such a bucket.
    #[error("the group has a bucket of that number already")]
    BucketExists,
    /// It would have more buckets than it may, or larger ones.
    #[error("a group has {MAX_BUCKETS} buckets and {MAX_GROUP_BYTES} bytes at most")]
    TooManyBuckets,
    /// An action of a bucket is not possible.
    #[error(transparent)]
    Action(#[from] Refusal),
}

impl Tables {
    /// Changes groups at `now`, in milliseconds. Rules that send packets to groups that are deleted
    /// are deleted, too.
    ///
    /// # Errors
    /// As [`GroupRefusal`] tells. Nothing is changed then.
    pub fn change_group(&mut self, change: &GroupMod, now: u64) -> Result<Outcome, GroupRefusal> {
        let is_there = self.groups.get(change.group).is_some();
        match change.command {
            GroupCommand::Delete => return Ok(self.delete_groups(change.group)),
            GroupCommand::Add if is_there => return Err(GroupRefusal::Exists(change.group)),
            GroupCommand::Add => self.add_group(change, now)?,
            GroupCommand::AddOrModify if !is_there => self.add_group(change, now)?,
            _ => self.modify_group(change, now)?,
        }
        Ok(Outcome::default())
    }

    fn add_group(&mut self, change: &GroupMod, now: u64) -> Result<(), GroupRefusal> {
        if self.groups.len() >= MAX_GROUPS {
            return Err(GroupRefusal::Full);
        }
        if change.group > MAX_GROUP {
            return Err(GroupRefusal::BadNumber);
        }
        let buckets = self.new_buckets(&change.buckets, now)?;
        let identity = (change.group, change.kind);
        self.put_group(Group::new(identity, change.selection.clone(), buckets, now), 0)
    }

    /// Changes a group that is there. It counts anew, and so do buckets that are not taken over.
    fn modify_group(&mut self, change: &GroupMod, now: u64) -> Result<(), GroupRefusal> {
        let id = change.group;
        let before = Arc::clone(self.groups.get(id).ok_or(GroupRefusal::Unknown(id))?);
        let (new, at) = (self.new_buckets(&change.buckets, now)?, change.bucket);
        // Only what changes all of it changes its type, and how buckets are selected.
        let (mut kind, mut selection) = (before.kind, &before.selection);
        let buckets = match change.command {
            GroupCommand::InsertBucket => inserted(&before.buckets, new, at)?,
            GroupCommand::RemoveBucket => rest(&before.buckets, at)?,
            _ => {
                (kind, selection) = (change.kind, &change.selection);
                new
            }
        };
        let mut group = Group::new((id, kind), selection.clone(), buckets, now);
        group.created = before.created;
        self.put_group(group, before.bytes)
    }

    /// Puts a group in place of one of `before` bytes.
    fn put_group(&mut self, group: Group, before: usize) -> Result<(), GroupRefusal> {
        if group.buckets.len() > MAX_BUCKETS || group.bytes > MAX_GROUP_BYTES {
            return Err(GroupRefusal::TooManyBuckets);
        }
        let others = self.groups.bytes.saturating_sub(before);
        if others.saturating_add(group.bytes) > MAX_BYTES {
            return Err(GroupRefusal::Full);
        }
        self.groups.insert(group);
        self.touch();
        Ok(())
    }

    fn new_buckets(&self, wanted: &[Desc], now: u64) -> Result<Vec<Bucket>, GroupRefusal> {
        if wanted.len() > MAX_BUCKETS {
            return Err(GroupRefusal::TooManyBuckets);
        }
        for bucket in wanted {
            possible::check_actions(&bucket.actions)?;
            self.check_meters(&bucket.actions)?;
        }
        Ok(wanted.iter().map(|bucket| Bucket::new(bucket.clone(), now)).collect())
    }

    /// Checks that there are the meters of a bucket. Groups of buckets may come later than these.
    fn check_meters(&self, actions: &[Action]) -> Result<(), Refusal> {
        actions.iter().try_for_each(|action| match action {
            Action::Meter(id) => self.meters().get(*id).map(drop).ok_or(Refusal::NoMeter(*id)),
            _ => Ok(()),
        })
    }

    fn delete_groups(&mut self, id: u32) -> Outcome {
        let ids: Vec<u32> = match id {
            ALL_GROUPS => self.groups.all().into_iter().map(|group| group.id).collect(),
            id => vec![id],
        };
        let gone = ids.into_iter().filter_map(|id| self.groups.remove(id));
        let gone: BTreeSet<Used> = gone.map(|group| Used::Group(group.id)).gather();
        if gone.is_empty() {
            return Outcome::default();
        }
        self.touch();
        self.remove_users(&gone, Ended::GroupDeleted)
    }
}

fn position(buckets: &[Bucket], id: u32) -> Result<usize, GroupRefusal> {
    let found = buckets.iter().position(|bucket| bucket.desc.id == id);
    found.ok_or(GroupRefusal::UnknownBucket(id))
}

/// The buckets of a group with more of them behind the one of number `at`.
fn inserted(before: &[Bucket], new: Vec<Bucket>, at: u32) -> Result<Vec<Bucket>, GroupRefusal> {
    let place = match at {
        FIRST_BUCKET => 0,
        LAST_BUCKET => before.len(),
        at => position(before, at)? + 1,
    };
    let taken: BTreeSet<u32> = before.iter().map(|bucket| bucket.desc.id).gather();
    if new.iter().any(|bucket| taken.contains(&bucket.desc.id)) {
        return Err(GroupRefusal::BucketExists);
    }
    let mut all = before.to_vec();
    all.splice(place..place, new);
    Ok(all)
}

/// The buckets of a group without the one of number `at`.
fn rest(before: &[Bucket], at: u32) -> Result<Vec<Bucket>, GroupRefusal> {
    let gone = match at {
        ALL_BUCKETS => return Ok(Vec::new()),
        FIRST_BUCKET => 0,
        LAST_BUCKET => before.len().saturating_sub(1),
        at => position(before, at)?,
    };
    let others = before.iter().enumerate().filter(|(index, _)| *index != gone);
    Ok(others.map(|(_, bucket)| bucket.clone()).collect())
}
