//! Groups: changes of them, what they are, and what they have done.

use std::sync::Arc;
use std::time::Duration;

use flow::{Command, Group, GroupRefusal, MAX_GROUP};
use openflow::message::Kind;
use openflow::message::group::{ALL_GROUPS, GroupDesc, GroupMod, GroupStats, asked};
use openflow::message::stats::limits::GroupFeatures;
use openflow::{ErrorCode, Version};

use super::flow::refusal;
use super::forward::MadeGroups;
use super::{ACTIONS_V10, Answers, Request};

/// Bits of all types of groups.
const TYPES: u32 = 0xF;

/// Weights, liveness, and groups behind groups; loops of these are found when a packet comes to them.
const CAPABILITIES: u32 = 0x7;

/// Bits of the actions of buckets, from OpenFlow 1.2: to a port, of MPLS and its time to live, of
/// VLANs, to a queue and a group, of time to live, and writing to fields.
const ACTIONS: u32 = 0x03FF_8001;

impl Request<'_> {
    pub(super) fn group_answer(&mut self) -> Answers {
        match self.raw.kind {
            Kind::GroupMod => self.group_mod(),
            Kind::GroupStatsRequest => self.group_stats(),
            Kind::GroupDescRequest => self.group_descs(),
            _ => Ok(self.group_features()),
        }
    }

    fn group_mod(&mut self) -> Answers {
        self.check_role()?;
        let change = GroupMod::decode(self.raw)?;
        let now = self.datapath.now();
        let (id, xid) = (change.group, self.raw.xid);
        let (made, outcome) = MadeGroups::make(change, &mut self.bridge.tables, xid, now)?;
        self.log_selection(id, made.existed);
        self.made(&outcome, Command::Delete, now);
        self.bridge.forward_groups(&made, self.id);
        Ok(Vec::new())
    }

    /// Tells the log how buckets of a group are selected.
    fn log_selection(&self, id: u32, existed: bool) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let lines = self.bridge.tables.groups().get(id).map(|group| group.explain());
        let lines = lines.unwrap_or_default();
        if !lines.is_empty() {
            let what = if existed { "Modifying" } else { "Constructing" };
            tracing::debug!("{what} select group {id}");
        }
        lines.iter().for_each(|line| tracing::debug!("{line}"));
    }

    /// Those that are asked for: one, which may not be there, or all.
    fn asked_groups(&self) -> Result<Vec<&Arc<Group>>, ErrorCode> {
        let groups = self.bridge.tables.groups();
        Ok(match asked(self.raw)? {
            ALL_GROUPS => groups.all(),
            id => groups.get(id).into_iter().collect(),
        })
    }

    fn group_stats(&mut self) -> Answers {
        self.bridge.count(self.datapath);
        let now = self.datapath.now();
        let mut replies = self.replies(Kind::GroupStatsReply);
        for group in self.asked_groups()? {
            let counts = |stats: &flow::Stats| (stats.packets(), stats.bytes());
            let stats = GroupStats {
                group: group.id,
                references: self.bridge.tables.group_uses(group.id),
                counts: counts(&group.stats),
                duration: Duration::from_millis(now.saturating_sub(group.created)),
                buckets: group.buckets.iter().map(|bucket| counts(&bucket.stats)).collect(),
            };
            replies.entry(|out| stats.encode(self.raw.version, out));
        }
        Ok(replies.finish())
    }

    fn group_descs(&self) -> Answers {
        let mut replies = self.replies(Kind::GroupDescReply);
        for group in self.asked_groups()? {
            let desc = GroupDesc {
                group: group.id,
                kind: group.kind,
                buckets: group.buckets.iter().map(|bucket| bucket.desc.clone()).collect(),
                selection: group.selection.clone(),
            };
            replies.entry(|out| desc.encode(self.raw.version, out));
        }
        Ok(replies.finish())
    }

    /// As Open vSwitch says it: how many there may really be, is found out by adding them.
    fn group_features(&self) -> Vec<Vec<u8>> {
        let actions = if self.raw.version == Version::V10 { ACTIONS_V10 } else { ACTIONS };
        let features = GroupFeatures {
            types: TYPES,
            capabilities: CAPABILITIES,
            max_groups: [MAX_GROUP; 4],
            actions: [actions; 4],
        };
        self.stats_reply(Kind::GroupFeaturesReply, |out| features.encode(out))
    }
}

/// The errors that Open vSwitch has for what is refused.
pub(super) fn group_refusal(why: GroupRefusal) -> ErrorCode {
    tracing::debug!("a change of groups is refused: {why}");
    match why {
        GroupRefusal::BadNumber => ErrorCode::GmfcInvalidGroup,
        GroupRefusal::Exists(_) => ErrorCode::GmfcGroupExists,
        GroupRefusal::Unknown(_) => ErrorCode::GmfcUnknownGroup,
        GroupRefusal::Full => ErrorCode::GmfcOutOfGroups,
        GroupRefusal::UnknownBucket(_) => ErrorCode::GmfcUnknownBucket,
        GroupRefusal::BucketExists => ErrorCode::GmfcBucketExists,
        GroupRefusal::TooManyBuckets => ErrorCode::GmfcOutOfBuckets,
        GroupRefusal::Action(why) => refusal(why),
    }
}
