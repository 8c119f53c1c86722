//! Requests that change groups and meters, forwarded to controllers that want to know what others
//! change (OpenFlow 1.4, 7.4.5).

use flow::{Outcome, Tables};
use openflow::message::asynchronous::Unasked;
use openflow::message::group::{ALL_BUCKETS, GroupCommand, GroupMod};
use openflow::message::meter::MeterMod;
use openflow::message::{Kind, Message};
use openflow::wire::Writer as _;
use openflow::{ErrorCode, Version};

use crate::bridge::Bridge;
use crate::connection::ConnectionId;
use crate::handle::group::group_refusal;

/// Reasons: what kind of request it is.
const GROUP_MOD: u32 = 0;
const METER_MOD: u32 = 1;

/// A change of groups that was made.
#[derive(Clone, Debug)]
pub(crate) struct MadeGroups {
    /// Whether the group was there before.
    pub existed: bool,
    change: GroupMod,
    /// The same in the words of versions that know no changes of single buckets.
    whole: GroupMod,
    /// The number of its message.
    xid: u32,
}

impl MadeGroups {
    /// Makes a change of these tables that the message `xid` asks for.
    pub fn make(
        mut change: GroupMod,
        tables: &mut Tables,
        xid: u32,
        now: u64,
    ) -> Result<(Self, Outcome), ErrorCode> {
        let existed = tables.groups().get(change.group).is_some();
        let outcome = tables.change_group(&change, now).map_err(group_refusal)?;
        if change.command == GroupCommand::AddOrModify {
            change.command = if existed { GroupCommand::Modify } else { GroupCommand::Add };
        }
        let mut whole = change.clone();
        let of_buckets =
            matches!(change.command, GroupCommand::InsertBucket | GroupCommand::RemoveBucket);
        if let Some(group) = tables.groups().get(change.group).filter(|_| of_buckets) {
            let buckets = group.buckets.iter().map(|bucket| bucket.desc.clone()).collect();
            let (command, bucket) = (GroupCommand::Modify, ALL_BUCKETS);
            whole = GroupMod { command, bucket, buckets, kind: group.kind, ..whole };
        }
        Ok((Self { existed, change, whole, xid }, outcome))
    }

    fn encode(&self, version: Version) -> Vec<u8> {
        let knows_buckets = matches!(version, Version::V10 | Version::V15);
        let change = if knows_buckets { &self.change } else { &self.whole };
        change.encode(version, self.xid)
    }
}

impl Bridge {
    /// Tells others that groups were changed.
    pub(crate) fn forward_groups(&mut self, made: &MadeGroups, by: ConnectionId) {
        self.forward(GROUP_MOD, by, |version| Some(made.encode(version)));
    }

    /// Tells others that meters were changed.
    pub(crate) fn forward_meters(&mut self, change: &MeterMod, xid: u32, by: ConnectionId) {
        // Older versions know no meters.
        let encode = |version| (version >= Version::V13).then(|| change.encode(version, xid));
        self.forward(METER_MOD, by, encode);
    }

    fn forward(
        &mut self,
        reason: u32,
        by: ConnectionId,
        encode: impl Fn(Version) -> Option<Vec<u8>>,
    ) {
        let others = self.connections.iter_mut().filter(|(id, _)| **id != by);
        for (_, connection) in others {
            let session = connection.listener(Unasked::RequestForward, reason);
            let Some(version) = session.map(|session| session.version) else { continue };
            let Some(request) = encode(version) else { continue };
            let mut message = Message::new(version, Kind::RequestForward, 0);
            message.body().bytes(&request);
            connection.outbox.tell(message.finish());
        }
    }
}
