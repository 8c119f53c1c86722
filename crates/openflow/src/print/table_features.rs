//! What tables can do, and what they count.

use std::fmt::Write as _;

use super::{limits, names};
use crate::error::ErrorCode;
use crate::message::stats::field_set::FieldSet;
use crate::message::stats::table::TableStats;
use crate::message::stats::table_features::{
    ActionFeatures, FeaturesCommand, InstructionFeatures, TableFeatures, TableSet,
};
use crate::message::table_mod::Miss;
use crate::message::{Kind, Raw};
use crate::version::Version;
use crate::wire::Reader;

/// Instructions by their numbers, in the order in which Open vSwitch names them.
const INSTRUCTIONS: [(u8, &str); 6] = [
    (6, "meter"),
    (4, "apply_actions"),
    (5, "clear_actions"),
    (3, "write_actions"),
    (2, "write_metadata"),
    (1, "goto_table"),
];

/// What is told of one table.
struct About {
    features: TableFeatures,
    /// In statistics.
    stats: Option<TableStats>,
}

/// Writes what a message about tables says: a table that is as the one before it is told in short.
pub(super) fn show(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    let mut lines = Lines { text, version: raw.version, before: None, dittos: None };
    let told = match raw.kind {
        Kind::TableStatsReply => lines.all_stats(raw),
        _ => TableFeatures::decode_all(raw).map(|all| {
            all.into_iter().for_each(|features| lines.table(About { features, stats: None }));
        }),
    };
    lines.put_dittos();
    told
}

struct Lines<'t> {
    text: &'t mut String,
    version: Version,
    before: Option<About>,
    /// The first and the last of tables that are as the one before them.
    dittos: Option<(u8, u8)>,
}

impl Lines<'_> {
    fn all_stats(&mut self, raw: &Raw<'_>) -> Result<(), ErrorCode> {
        let mut reader = Reader::new(raw.body);
        while !reader.is_empty() {
            let features = TableFeatures::of_stats(raw.version, reader)?;
            let stats = TableStats::decode(raw.version, &mut reader)?;
            self.table(About { features, stats: Some(stats) });
        }
        Ok(())
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}");
    }

    fn put_dittos(&mut self) {
        match self.dittos.take() {
            None => {}
            Some((first, last)) if first == last => {
                self.line(format_args!("\n  table {first}: ditto"));
            }
            Some((first, last)) => self.line(format_args!("\n  tables {first}...{last}: ditto")),
        }
    }

    fn table(&mut self, about: About) {
        let features = &about.features;
        let command = match features.command {
            FeaturesCommand::Replace => None,
            FeaturesCommand::Modify => Some("modify"),
            FeaturesCommand::Enable => Some("enable"),
            FeaturesCommand::Disable => Some("disable"),
        };
        if let (Some(command), None) = (command, &self.before) {
            let _ = write!(self.text, "\n  command: {command}");
        }
        let same_stats = about.stats.is_none()
            || self.before.as_ref().is_some_and(|before| same_counts(&before.stats, &about.stats));
        let before = self.before.take();
        let is_same = before.as_ref().is_some_and(|before| same(&before.features, features));
        let table = features.table;
        if same_stats && is_same && features.name.is_empty() {
            let (first, _) = self.dittos.unwrap_or((table, table));
            self.dittos = Some((first, table));
        } else {
            self.put_dittos();
            self.heading(&about);
            if same_stats && is_same {
                *self.text += " ditto";
            } else {
                self.text.push('\n');
                self.details(&about, before.as_ref().map(|before| &before.features), is_same);
            }
        }
        self.before = Some(about);
    }

    fn heading(&mut self, about: &About) {
        let _ = write!(self.text, "\n  table {}", about.features.table);
        if !about.features.name.is_empty() {
            let _ = write!(self.text, " (\"{}\")", super::said::Said(&about.features.name));
        }
        self.text.push(':');
    }

    fn details(&mut self, about: &About, before: Option<&TableFeatures>, is_same: bool) {
        let features = &about.features;
        if let Some(TableStats { active, lookups, matches, .. }) = about.stats {
            self.line(format_args!("    active={active}, lookup={lookups}, matched={matches}"));
        }
        if is_same {
            let nothing = TableFeatures { table: features.table, ..TableFeatures::default() };
            if self.tells_room(about) || !same(features, &nothing) {
                self.line(format_args!("    (same features)"));
            }
            return;
        }
        let (matched, written) = (features.metadata_match, features.metadata_write);
        if matched != 0 || written != 0 {
            let [matched, written] =
                [matched, written].map(|bits| crate::field::text::Hex(bits.into()));
            self.line(format_args!("    metadata: match={matched} write={written}"));
        }
        match about.stats.as_ref().map(|stats| stats.miss) {
            None | Some(Miss::Default) => {}
            Some(Miss::Controller) => self.line(format_args!("    config=controller")),
            Some(Miss::Continue) => self.line(format_args!("    config=continue")),
            Some(Miss::Drop) => self.line(format_args!("    config=drop")),
        }
        if self.tells_room(about) {
            let not = |is_there: bool| if is_there { "" } else { "not " };
            self.line(format_args!("    eviction: {}supported", not(features.eviction)));
            self.line(format_args!(
                "    vacancy events: {}supported",
                not(features.vacancy_events)
            ));
        }
        if features.max_entries != 0 {
            self.line(format_args!("    max_entries={}", features.max_entries));
        }
        self.both_instructions(features, before);
        self.matching(features, before);
    }

    /// Whether it is said if it makes room by itself.
    fn tells_room(&self, about: &About) -> bool {
        about.stats.is_none() && self.version >= Version::V14
    }

    fn both_instructions(&mut self, features: &TableFeatures, before: Option<&TableFeatures>) {
        let (rules, misses, table) = (&features.rules, &features.misses, features.table);
        let is_same = before.is_some_and(|before| same_instructions(before, features));
        let is_empty = *rules == InstructionFeatures::default();
        let before = before.map(|before| (&before.rules, &before.misses));
        let (rules_before, misses_before) = before.unzip();
        if is_same {
            if !is_empty {
                self.line(format_args!("    (same instructions)"));
            }
        } else if !same_ability(rules, table, misses, table) {
            self.line(format_args!("    instructions (other than table miss):"));
            self.instructions(rules, rules_before);
            self.line(format_args!("    instructions (table miss):"));
            self.instructions(misses, misses_before);
        } else if !is_empty {
            self.line(format_args!("    instructions (table miss and others):"));
            self.instructions(rules, rules_before);
        }
    }

    fn instructions(&mut self, of: &InstructionFeatures, before: Option<&InstructionFeatures>) {
        if of.next != TableSet::default() {
            self.line(format_args!("      next tables: {}", ranges(of.next)));
        }
        if of.instructions != 0 {
            let is_same = before.is_some_and(|before| before.instructions == of.instructions);
            if is_same {
                self.line(format_args!("      (same instructions)"));
            } else {
                let has = |at: &u8| of.instructions >> at & 1 != 0;
                let names = INSTRUCTIONS.iter().filter(|(at, _)| has(at)).map(|(_, name)| *name);
                let names: Vec<&str> = names.collect();
                self.line(format_args!("      instructions: {}", names.join(" ")));
            }
        }
        let are_same =
            before.is_some_and(|before| (before.write, before.apply) == (of.write, of.apply));
        if are_same && !of.write.fields.is_empty() {
            self.line(format_args!("      (same actions)"));
        } else if of.write != of.apply {
            self.line(format_args!("      Write-Actions features:"));
            self.actions(&of.write);
            self.line(format_args!("      Apply-Actions features:"));
            self.actions(&of.apply);
        } else if of.write != ActionFeatures::default() {
            self.line(format_args!("      Write-Actions and Apply-Actions features:"));
            self.actions(&of.write);
        }
    }

    fn actions(&mut self, of: &ActionFeatures) {
        let names = limits::action_names(of.actions, self.version);
        if !names.is_empty() {
            self.line(format_args!("        actions: {}", names.join(" ")));
        }
        if !of.fields.is_empty() {
            self.line(format_args!("        supported on Set-Field: {}", short(of.fields)));
        }
    }

    fn matching(&mut self, features: &TableFeatures, before: Option<&TableFeatures>) {
        if features.matched.is_empty() {
            return;
        }
        if before.is_some_and(|before| before.matched == features.matched) {
            return self.line(format_args!("    (same matching)"));
        }
        self.line(format_args!("    matching:"));
        let kinds = [
            ("arbitrary mask", true, true),
            ("exact match or wildcard", false, true),
            ("must exact match", false, false),
        ];
        for (title, masked, optional) in kinds {
            let is_one = |field: &crate::Field| {
                features.masked.has(*field) == masked && features.optional.has(*field) == optional
            };
            let fields: FieldSet = features.matched.iter().filter(is_one).collect();
            if !fields.is_empty() {
                self.line(format_args!("      {title}: {}", short(fields)));
            }
        }
    }
}

fn short(fields: FieldSet) -> String {
    let names: Vec<&str> = fields.iter().map(crate::Field::name).collect();
    names::short(&names)
}

/// Tables in a row by their ends: `1-252,254`.
fn ranges(tables: TableSet) -> String {
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    for table in tables.iter() {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(table) => *last = table,
            _ => ranges.push((table, table)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

fn same_counts(one: &Option<TableStats>, other: &Option<TableStats>) -> bool {
    let counts =
        |of: &Option<TableStats>| of.as_ref().map(|of| (of.active, of.lookups, of.matches));
    counts(one) == counts(other)
}

fn same(one: &TableFeatures, other: &TableFeatures) -> bool {
    let plain = |of: &TableFeatures| {
        (
            of.metadata_match,
            of.metadata_write,
            of.eviction,
            of.vacancy_events,
            of.max_entries,
            of.matched,
        )
    };
    plain(one) == plain(other) && same_instructions(one, other)
}

fn same_instructions(one: &TableFeatures, other: &TableFeatures) -> bool {
    same_ability(&one.rules, one.table, &other.rules, other.table)
        && same_ability(&one.misses, one.table, &other.misses, other.table)
}

/// Whether rules of two tables can do the same. No table leads to itself, so that a table that leads to its successor
/// does not differ by that from the successor.
fn same_ability(
    one: &InstructionFeatures,
    table: u8,
    other: &InstructionFeatures,
    other_table: u8,
) -> bool {
    let (mut next, mut other_next) = (one.next, other.next);
    if table.checked_add(1) == Some(other_table) && !other_next.has(other_table) {
        next.set(other_table, false);
    } else if other_table.checked_add(1) == Some(table) && !next.has(table) {
        other_next.set(table, false);
    }
    let rest = |of: &InstructionFeatures| (of.instructions, of.write, of.apply);
    next == other_next && rest(one) == rest(other)
}
