//! Tables.

use openflow::message::Kind;
use openflow::message::stats::table::{TableDesc, TableStats};

use super::{Answers, Request, TABLES};

/// The most rules of a table, as it is said: there is no other limit than memory.
const MAX_ENTRIES: u32 = 1_000_000;

/// Of rules that make room, importance, the time left, and everything else decide.
const EVICTION_FLAGS: u32 = 7;

/// The figures of ports that count frames received.
const RECEIVED: usize = 0;

impl Request<'_> {
    pub(super) fn table_answer(&mut self) -> Answers {
        match self.raw.kind {
            Kind::TableStatsRequest => Ok(self.table_stats()),
            _ => Ok(self.table_descs()),
        }
    }

    /// A bridge without rules of a controller has one: all is switched as usual.
    fn table_stats(&self) -> Vec<Vec<u8>> {
        let received = self.bridge.ports.values().filter_map(|port| port.figures.get(RECEIVED));
        let received = received.fold(0, |sum: u64, frames| sum.saturating_add(*frames));
        let mut replies = self.replies(Kind::TableStatsReply);
        for table in 0..TABLES {
            let is_first = table == 0;
            let frames = if is_first { received } else { 0 };
            let stats = TableStats {
                table,
                name: String::new(),
                max_entries: MAX_ENTRIES,
                active: u32::from(is_first),
                lookups: frames,
                matches: frames,
                is_last: table == TABLES - 1,
            };
            replies.entry(|out| stats.encode(self.raw.version, out));
        }
        replies.finish()
    }

    fn table_descs(&self) -> Vec<Vec<u8>> {
        let mut replies = self.replies(Kind::TableDescReply);
        for table in 0..TABLES {
            let desc = TableDesc { table, eviction_flags: EVICTION_FLAGS, ..TableDesc::default() };
            replies.entry(|out| desc.encode(out));
        }
        replies.finish()
    }
}
