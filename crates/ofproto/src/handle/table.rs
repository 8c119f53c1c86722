//! Tables.

use std::collections::BTreeSet;

use openflow::ErrorCode;
use openflow::message::Kind;
use openflow::message::stats::table::TableStats;
use openflow::message::stats::table_features::{Encoder, FeaturesCommand, TableFeatures};
use openflow::message::table_mod::TableMod;
use ordered::Gather as _;

use super::{Answers, Request, VISIBLE_TABLES};
use crate::table::visible;

/// The number that stands for all tables.
const ALL: u8 = 0xFF;

impl Request<'_> {
    pub(super) fn table_answer(&mut self) -> Answers {
        match self.raw.kind {
            Kind::TableMod => self.table_mod(),
            Kind::TableStatsRequest => {
                self.bridge.count(self.datapath);
                Ok(self.table_stats())
            }
            Kind::TableFeaturesRequest => self.table_features(),
            _ => Ok(self.table_descs()),
        }
    }

    fn table_mod(&mut self) -> Answers {
        self.check_role()?;
        let wanted = TableMod::decode(self.raw.version, self.raw.body)?;
        let tables = match wanted.table {
            ALL => visible().collect(),
            table if table < VISIBLE_TABLES => vec![table],
            _ => return Err(ErrorCode::TmfcBadTable),
        };
        for table in tables {
            self.bridge.change_table(table, &wanted, self.datapath);
        }
        Ok(Vec::new())
    }

    fn table_stats(&self) -> Vec<Vec<u8>> {
        let mut replies = self.replies(Kind::TableStatsReply);
        for table in visible() {
            let tables = &self.bridge.tables;
            let (lookups, matches) = tables.look_ups().of(table);
            let stats = TableStats {
                table,
                name: self.bridge.table_name(table).to_owned(),
                max_entries: self.bridge.max_entries(table),
                active: u32::try_from(tables.len_of(table)).unwrap_or(u32::MAX),
                lookups,
                matches,
                is_last: table == VISIBLE_TABLES - 1,
                miss: tables.settings(table).miss,
            };
            replies.entry(|out| stats.encode(self.raw.version, out));
        }
        replies.finish()
    }

    /// Tables can do all there is; controllers can give them other names.
    fn table_features(&mut self) -> Answers {
        let Some(wishes) = self.all_wishes()? else { return Ok(Vec::new()) };
        if !wishes.is_empty() {
            self.check_role()?;
            self.check_features(&wishes)?;
            wishes.iter().for_each(|wish| self.bridge.name_table(wish.table, &wish.name));
        }
        let (mut replies, version) = (self.replies(Kind::TableFeaturesReply), self.raw.version);
        let last = VISIBLE_TABLES - 1;
        let full = TableFeatures::full(version, 0, String::new(), 0, last);
        let mut encoder = Encoder::new(version);
        for table in visible() {
            let name = self.bridge.table_name(table).to_owned();
            let features = full.of_table(table, name, self.bridge.max_entries(table), last);
            replies.entry(|out| encoder.put(&features, out));
        }
        Ok(replies.finish())
    }

    /// All that a request says, which is in several messages; `None` until the last one has come. Nothing is left
    /// of one with a message that cannot be read, or that another request comes in the middle of.
    fn all_wishes(&mut self) -> Result<Option<Vec<TableFeatures>>, ErrorCode> {
        let (raw, session) = (self.raw, self.session()?);
        let (of, mut all) = std::mem::take(&mut session.wishes);
        if of != raw.xid {
            all.clear();
        }
        all.extend(TableFeatures::decode_all(raw)?);
        // There are no more tables than that.
        if !raw.more || all.len() > usize::from(ALL) {
            return Ok(Some(all));
        }
        session.wishes = (raw.xid, all);
        Ok(None)
    }

    /// Whether tables can be as it is wished: all of them are there, have as many rules, and names that
    /// controllers can give.
    fn check_features(&self, wishes: &[TableFeatures]) -> Result<(), ErrorCode> {
        let tables: BTreeSet<u8> = wishes.iter().map(|wish| wish.table).gather();
        if tables.len() < wishes.len() {
            return Err(ErrorCode::NxtffcDupTable);
        }
        let command = wishes.first().map(|wish| wish.command);
        let is_possible = match command {
            Some(FeaturesCommand::Replace) => tables.iter().copied().eq(visible()),
            Some(FeaturesCommand::Modify) => tables.iter().all(|table| *table < VISIBLE_TABLES),
            _ => false,
        };
        let is_right = |wish: &TableFeatures| {
            wish.max_entries == self.bridge.max_entries(wish.table)
                && self.bridge.may_name_table(wish.table, &wish.name)
        };
        if is_possible && wishes.iter().all(is_right) { Ok(()) } else { Err(ErrorCode::TffcEperm) }
    }

    fn table_descs(&self) -> Vec<Vec<u8>> {
        let mut replies = self.replies(Kind::TableDescReply);
        for table in visible() {
            let desc = self.bridge.table_desc(table);
            replies.entry(|out| desc.encode(out));
        }
        replies.finish()
    }
}
