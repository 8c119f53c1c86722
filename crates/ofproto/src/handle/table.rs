//! Tables.

use openflow::ErrorCode;
use openflow::message::Kind;
use openflow::message::stats::table::{TableDesc, TableStats};
use openflow::message::stats::table_features::TableFeatures;

use flow::Classifier;

use super::{Answers, Request, VISIBLE_TABLES};

/// The most rules of a table, as it is said: there is no other limit than memory.
const MAX_ENTRIES: u32 = 1_000_000;

/// Of rules that make room, importance, the time left, and everything else decide.
const EVICTION_FLAGS: u32 = 7;

impl Request<'_> {
    pub(super) fn table_answer(&mut self) -> Answers {
        match self.raw.kind {
            Kind::TableStatsRequest => {
                self.bridge.count(self.datapath);
                Ok(self.table_stats())
            }
            Kind::TableFeaturesRequest => self.table_features(),
            _ => Ok(self.table_descs()),
        }
    }

    fn table_stats(&self) -> Vec<Vec<u8>> {
        let mut replies = self.replies(Kind::TableStatsReply);
        for table in 0..VISIBLE_TABLES {
            let tables = &self.bridge.tables;
            let matches = tables.table(table).into_iter().flat_map(Classifier::iter);
            let matches =
                matches.fold(0, |sum: u64, rule| sum.saturating_add(rule.stats.packets()));
            let stats = TableStats {
                table,
                name: String::new(),
                max_entries: MAX_ENTRIES,
                active: u32::try_from(tables.len_of(table)).unwrap_or(u32::MAX),
                lookups: matches,
                matches,
                is_last: table == VISIBLE_TABLES - 1,
            };
            replies.entry(|out| stats.encode(self.raw.version, out));
        }
        replies.finish()
    }

    /// Tables can do all there is; nobody can take something of it away.
    fn table_features(&self) -> Answers {
        if self.raw.more || !self.raw.body.is_empty() {
            return Err(ErrorCode::TffcEperm);
        }
        let mut replies = self.replies(Kind::TableFeaturesReply);
        for table in 0..VISIBLE_TABLES {
            let (max_entries, last) = (MAX_ENTRIES, VISIBLE_TABLES - 1);
            let features = TableFeatures { table, name: String::new(), max_entries, last };
            replies.entry(|out| features.encode(self.raw.version, out));
        }
        Ok(replies.finish())
    }

    fn table_descs(&self) -> Vec<Vec<u8>> {
        let mut replies = self.replies(Kind::TableDescReply);
        for table in 0..VISIBLE_TABLES {
            let desc = TableDesc { table, eviction_flags: EVICTION_FLAGS, ..TableDesc::default() };
            replies.entry(|out| desc.encode(out));
        }
        replies.finish()
    }
}
