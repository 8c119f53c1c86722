//! Groups: a packet takes all buckets, or one of those that are alive.
//!
//! Each bucket has the packet as it came to the group. What buckets do to the packet is not seen
//! behind the group; what tables that they lead to do to the stack and the action set is.

use openflow::PortNo;
use openflow::message::flow_mod::ANY_GROUP;
use openflow::message::group::{Bucket as Desc, GroupType};

use super::{Kind, MAX_LOOKUPS, Place, Walk};
use crate::groups::{Bucket, Choice, Group, mark};
use crate::path::{Lost, Op};

/// Buckets that one packet comes to, at most.
const MAX_BUCKETS: u32 = MAX_LOOKUPS;

/// Buckets that are asked for one packet whether they are alive, at most.
const MAX_ASKED: u32 = 65_536;

/// Groups of which each is alive as long as the next is, at most; as in Open vSwitch.
const MAX_CHAIN: u32 = 128;

impl<'w> Walk<'w> {
    /// Sends the packet to a group; returns whether actions behind that are done.
    pub(super) fn group(&mut self, id: u32) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(group) = self.known(id) else {
            self.note(Kind::Warning, format_args!("output to nonexistent group {id}"));
            return false;
        };
        match group.kind {
            GroupType::All | GroupType::Indirect => {
                for bucket in &group.buckets {
                    self.bucket(bucket);
                }
                self.groups.push(&group.stats);
            }
            GroupType::Select if self.stops_for(group) => return false,
            GroupType::Select => self.one(group, |walk| walk.selected(group)),
            GroupType::FastFailover => self.one(group, |walk| walk.first_alive(group, 0)),
        }
        true
    }

    /// A group that the way depends on from now on.
    fn known(&mut self, id: u32) -> Option<&'w Group> {
        mark(&mut self.basis.groups, id);
        self.pipeline.tables.groups().get(id).map(AsRef::as_ref)
    }

    fn one(&mut self, group: &'w Group, pick: impl FnOnce(&mut Self) -> Option<&'w Bucket>) {
        match pick(self) {
            Some(bucket) => {
                self.note(Kind::Detail, format_args!("using bucket {}", bucket.desc.id));
                self.bucket(bucket);
                self.groups.push(&group.stats);
            }
            None => self.note(Kind::Detail, format_args!("no live bucket")),
        }
    }

    /// Does what a bucket says, with a packet of its own.
    fn bucket(&mut self, bucket: &'w Bucket) {
        if self.buckets >= MAX_BUCKETS {
            return self.fail(Lost::TooMany, format_args!("over {MAX_BUCKETS} buckets"));
        }
        self.buckets += 1;
        // A packet that is lost in one of several buckets has come to all of them.
        self.groups.push(&bucket.stats);
        let is_nested = std::mem::replace(&mut self.is_in_group, true);
        self.tell(|watch, key| watch.enter(key, Place::Bucket(bucket.desc.id)));
        self.depth += 1;
        self.level += 1;
        if bucket.only_sends {
            // Whatever was changed before is changed for all of them.
            self.actions(&bucket.actions);
            self.finish_freezing();
        } else {
            self.in_copy(bucket);
        }
        self.level -= 1;
        self.depth -= 1;
        self.tell(|watch, _| watch.leave());
        self.is_in_group = is_nested;
        self.has_exited = false;
        if matches!(self.error, Some(Lost::PacketType | Lost::TooManyLabels)) {
            // What cannot be done to the bucket's own packet does not matter to others, but for what there is too
            // much of.
            self.error = None;
            self.tell(|watch, _| watch.recover());
        }
    }

    fn in_copy(&mut self, bucket: &'w Bucket) {
        // Off the stack, which deep groups must not exhaust.
        let state = Box::new(self.state.clone());
        let at = self.ops.len();
        self.ops.push(Op::Save);
        self.actions(&bucket.actions);
        self.finish_freezing();
        self.end_copy(at);
        self.state = *state;
    }

    /// Sends the packet through a meter; returns whether actions behind that are done. Rules go with their meters, and
    /// buckets stay without them: such a bucket lets nothing pass.
    pub(super) fn meter(&mut self, id: u32) -> bool {
        if self.is_in_group {
            self.basis.meters = true;
            if self.pipeline.tables.meters().get(id).is_none() {
                self.note(Kind::Warning, format_args!("meter {id} of the bucket does not exist"));
                return false;
            }
        }
        self.emit(Op::Meter(id));
        true
    }

    /// Whether the packet goes round before a bucket is chosen, as whoever watches wants it.
    fn stops_for(&mut self, group: &'w Group) -> bool {
        let (Some(watch), Some(choice)) = (&mut self.watch, group.method.choice()) else {
            return false;
        };
        match (watch.choose(&self.state.key, choice), choice) {
            (true, Choice::Place(hash, _)) => self.go_round(hash),
            _ => return false,
        }
        true
    }

    /// The bucket of a group of type select.
    fn selected(&mut self, group: &'w Group) -> Option<&'w Bucket> {
        let key = self.state.key;
        group.method.pick(&group.buckets, &key, |bucket| self.is_alive(group, bucket, 0))
    }

    fn first_alive(&mut self, group: &'w Group, depth: u32) -> Option<&'w Bucket> {
        group.buckets.iter().find(|bucket| self.is_alive(group, bucket, depth))
    }

    /// Whether a bucket can be taken: one of its port and its group is alive, or it has neither.
    fn is_alive(&mut self, group: &Group, bucket: &Bucket, depth: u32) -> bool {
        if depth >= MAX_CHAIN || self.asked >= MAX_ASKED {
            self.note(Kind::Error, format_args!("bucket chaining exceeded {MAX_CHAIN} links"));
            return false;
        }
        self.asked += 1;
        let desc = &bucket.desc;
        if group.kind == GroupType::Select && desc.weight == 0 {
            self.tell_dead(desc);
            return false;
        }
        let is_alive = !desc.has_watch()
            || desc.watch_port != PortNo::ANY && self.is_port_alive(desc.watch_port)
            || desc.watch_group != ANY_GROUP && self.is_group_alive(desc.watch_group, depth + 1);
        if !is_alive {
            self.tell_dead(desc);
        }
        is_alive
    }

    /// In Open vSwitch's words.
    fn tell_dead(&mut self, Desc { id, watch_port, watch_group, .. }: &Desc) {
        if self.watch.is_none() {
            return;
        }
        let (has_port, has_group) = (*watch_port != PortNo::ANY, *watch_group != ANY_GROUP);
        let both = if has_port && has_group { " and " } else { "" };
        let port = if has_port { format!("port {watch_port}") } else { String::new() };
        let group = if has_group { format!("port {watch_group}") } else { String::new() };
        let why = format_args!("bucket {id}: not live due to {port}{both}{group}");
        self.note(Kind::Detail, why);
    }

    pub(super) fn is_port_alive(&mut self, port: PortNo) -> bool {
        self.basis.links = true;
        self.pipeline.ports.get(&port).is_some_and(|port| !port.is_dead)
    }

    fn is_group_alive(&mut self, id: u32, depth: u32) -> bool {
        self.known(id).is_some_and(|group| self.first_alive(group, depth).is_some())
    }
}

#[cfg(test)]
mod tests;
