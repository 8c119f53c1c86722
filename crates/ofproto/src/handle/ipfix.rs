//! Counts of what collectors are told by IPFIX.

use openflow::ErrorCode;
use openflow::message::Kind;

use super::{Answers, Request};

impl Request<'_> {
    /// Those of the bridge, or of each set of collectors for which its rules sample.
    pub(super) fn ipfix_stats(&self) -> Answers {
        let is_bridge = self.raw.kind == Kind::IpfixBridgeStatsRequest;
        let kind = if is_bridge { Kind::IpfixBridgeStatsReply } else { Kind::IpfixFlowStatsReply };
        let all = self.datapath.ipfix().into_iter();
        let asked: Vec<_> = all.filter(|(set, _)| set.is_none() == is_bridge).collect();
        if asked.is_empty() {
            return Err(ErrorCode::NxstNotConfigured);
        }
        let mut replies = self.replies(kind);
        for (_, stats) in asked {
            replies.entry(|out| stats.encode(out));
        }
        Ok(replies.finish())
    }
}
