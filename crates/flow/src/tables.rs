//! All tables of a bridge, and changes of them.
//!
//! A copy is cheap and stays as it is: control threads change one, and workers look up in copies.
//!
//! - `change`: changes of rules: what is done, to which, and what comes of it
//! - `counts`: how many packets were looked up
//! - `fragments`: what becomes of fragments
//! - `hidden`: rules that controllers do not see
//! - `learned`: what goes with the rules that have learnt it
//! - `limited`: how many rules are learnt, where there is a limit
//! - `log`: what has become of the rules of a table lately
//! - `selector`: which of the rules that one is asked about are meant
//! - `settings`: how many rules a table may have, and what else it is set to

mod change;
mod counts;
mod fragments;
mod hidden;
mod learned;
mod limited;
pub(crate) mod log;
mod selector;
mod settings;

use std::collections::BTreeSet;
use std::sync::Arc;

use openflow::action::Action;
use openflow::{Instructions, PortNo};

use crate::classifier::Classifier;
use crate::frozen::Frozen;
use crate::groups::Groups;
use crate::key::{Key, slot};
use crate::kinds::{KINDS, Needs, may_turn};
use crate::lengths::{Lengths, front};
use crate::meters::Meters;
use crate::path::TableSet;
use crate::pattern::Pattern;
use crate::place;
use crate::possible;
use crate::reads::always;
use crate::rule::{Ended, Rule};
use crate::uses::{self, Used, Uses};
pub use change::{Change, Command, Filter, Outcome, Refusal};
pub use counts::LookUps;
pub use fragments::Fragments;
use fragments::Handling;
pub use hidden::{HIDDEN_TABLE, HiddenRule};
use learned::Learned;
use limited::Limited;
use log::{Batch, Fate, Log};
pub use selector::Selector;
pub use settings::{Miss, TableSettings};

/// Tables that rules can be in; 255 stands for all of them (OpenFlow 1.5, 7.2.4.4).
pub const TABLES: u8 = 255;

/// The most rules of a bridge, unless it is told otherwise.
pub const DEFAULT_LIMIT: usize = 1_000_000;

/// One table.
#[derive(Clone, Debug, Default)]
struct Table {
    rules: Classifier<Arc<Rule>>,
    /// How many end by themselves.
    timed: usize,
    settings: Arc<TableSettings>,
    log: Log,
}

/// All tables of a bridge.
#[derive(Clone, Debug)]
pub struct Tables {
    all: Vec<Arc<Table>>,
    count: usize,
    limit: usize,
    /// The bits that actions of rules read; it may have bits of rules that are not there any more.
    reads: Key,
    /// What packets of each kind depend on; as `reads`.
    needs: Needs,
    version: u64,
    pub(crate) groups: Groups,
    pub(crate) meters: Meters,
    /// What of all rules is used by how many of them.
    uses: Uses,
    limited: Limited,
    /// Lengths that rules compare packets with; as `reads`.
    lengths: Lengths,
    fragments: Handling,
    look_ups: LookUps,
}

impl Default for Tables {
    fn default() -> Self {
        let reads = always();
        let (all, groups, meters, uses, limited, lengths) = Default::default();
        let look_ups = LookUps::default();
        let needs = Needs::default();
        let (count, limit, version, fragments) = (0, DEFAULT_LIMIT, 0, Handling::default());
        Self {
            all,
            count,
            limit,
            reads,
            needs,
            version,
            groups,
            meters,
            uses,
            limited,
            lengths,
            fragments,
            look_ups,
        }
    }
}

impl Tables {
    /// How many rules there are in all tables; hidden ones are not told.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.saturating_sub(self.len_of(HIDDEN_TABLE))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rules there are in `table`.
    #[must_use]
    pub fn len_of(&self, table: u8) -> usize {
        self.all.get(usize::from(table)).map_or(0, |table| table.rules.len())
    }

    /// The most rules there may be.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Sets the most rules there may be from now on; those that are there stay.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// A higher number after each change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The version that the next change makes.
    const fn next(&self) -> u64 {
        self.version.wrapping_add(1)
    }

    /// Takes all rules, groups and meters away; tables stay as they are set, and hidden rules stay. Gives the
    /// rules.
    pub fn clear(&mut self) -> Vec<(Arc<Rule>, Ended)> {
        let rules = self.iter().map(|rule| (Arc::clone(rule), Ended::Deleted)).collect();
        let all = self.all.iter().map(|table| {
            let settings = Arc::clone(&table.settings);
            Arc::new(Table { settings, ..Table::default() })
        });
        let all = all.collect();
        let (limit, version, fragments) = (self.limit, self.next(), self.fragments.clone());
        let look_ups = self.look_ups.clone();
        let hidden: Vec<Arc<Rule>> = self.hidden().cloned().collect();
        *self = Self { all, limit, version, fragments, look_ups, ..Self::default() };
        hidden.iter().for_each(|rule| self.insert(rule));
        rules
    }

    /// There is another version of what is beside rules.
    pub(crate) const fn touch(&mut self) {
        self.version = self.next();
    }

    /// The groups.
    #[must_use]
    pub const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The meters.
    #[must_use]
    pub const fn meters(&self) -> &Meters {
        &self.meters
    }

    /// How many rules use a meter.
    #[must_use]
    pub fn meter_uses(&self, id: u32) -> u32 {
        self.uses.of(Used::Meter(id))
    }

    /// Whether anything goes by which ports are alive: groups, or rules.
    #[must_use]
    pub fn go_by_links(&self) -> bool {
        self.groups.has_watches() || self.uses.of(Used::Links) > 0
    }

    /// How many actions of rules send packets to a group.
    #[must_use]
    pub fn group_uses(&self, id: u32) -> u32 {
        self.uses.of(Used::Group(id))
    }

    /// How many packets were looked up in the tables.
    #[must_use]
    pub const fn look_ups(&self) -> &LookUps {
        &self.look_ups
    }

    /// The rules of `table`.
    #[must_use]
    pub fn table(&self, table: u8) -> Option<&Classifier<Arc<Rule>>> {
        self.all.get(usize::from(table)).map(|table| &table.rules)
    }

    /// All rules, table by table, but for hidden ones.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let seen = self.all.iter().take(usize::from(HIDDEN_TABLE));
        seen.flat_map(|table| table.rules.iter())
    }

    /// The bits of a packet that its way can depend on.
    #[must_use]
    pub fn relevant(&self) -> Key {
        let mut key = self.reads;
        self.all.iter().for_each(|table| key.union(table.rules.mask()));
        key.union(self.groups.reads());
        self.note_fragments(&mut key);
        key
    }

    /// The same of packets of each kind, if they stay of their kinds.
    pub(crate) fn relevant_by_kind(&self) -> [Key; KINDS.len()] {
        let all = self.relevant();
        if may_turn(&self.reads) || may_turn(self.groups.reads()) {
            return [all; KINDS.len()];
        }
        let mut common = always();
        common.union(self.groups.reads());
        self.note_fragments(&mut common);
        self.needs.all().map(|mut key| {
            key.union(&common);
            key.0.iter_mut().zip(&all.0).for_each(|(word, bits)| *word &= bits);
            key
        })
    }

    /// The lengths that packets are compared with.
    pub(crate) fn lengths(&self) -> Lengths {
        let mut lengths = self.lengths.clone();
        lengths.add_front(self.groups.front());
        lengths
    }

    /// The tables that are not as they are in `other`.
    pub(crate) fn changed(&self, other: &Self) -> TableSet {
        TableSet::of_changed(&self.all, &other.all)
    }

    /// What has become of the rules of `table` since it was as in `other`, an older version, and whether
    /// any of them is, or was, part of conjunctions. `None` if that is not known, or more is different.
    pub(crate) fn turns_since(&self, other: &Self, table: u8) -> Option<(&[Arc<Batch>], bool)> {
        let place = usize::from(table);
        if self.settings(table) != other.settings(table) {
            return None;
        }
        // A table that is not there is one that never had rules.
        let old = other.all.get(place).map_or(0, |table| table.log.version());
        let own = self.all.get(place)?;
        let has_parts = |tables: &Self| tables.table(table).is_some_and(Classifier::has_parts);
        Some((own.log.since(old)?, has_parts(self) || has_parts(other)))
    }

    /// Whether all that they say is that the bridge is a plain one.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let is_all = |rule: &Arc<Rule>| {
            rule.priority == 0 && rule.matching.is_empty() && !rule.is_timed() && is_normal(rule)
        };
        let is_only = |table: &Classifier<Arc<Rule>>| table.len() == 1 && table.iter().all(is_all);
        // Packets from controllers may be metered, which workers then have to know of.
        let is_alone = self.meters.is_empty() && self.fragment_rule().is_none();
        is_alone
            && self.len() == 1
            && self.table(0).is_some_and(is_only)
            && self.hidden().all(|rule| is_normal(rule))
    }

    /// The rules that a filter means, table by table.
    ///
    /// # Errors
    /// No packet can have a field of the match.
    pub fn select(&self, filter: &Filter) -> Result<Vec<Arc<Rule>>, Refusal> {
        let pattern = place::pattern(&filter.matching).map_err(Refusal::Field)?;
        let tables = (0..HIDDEN_TABLE).zip(&self.all);
        let tables = tables.filter(|(id, _)| filter.table.is_none_or(|wanted| wanted == *id));
        let rules = tables.flat_map(|(_, table)| table.rules.within(&pattern));
        Ok(rules.filter(|rule| filter.takes(rule)).cloned().collect())
    }

    /// Changes rules at `now`, in milliseconds.
    ///
    /// # Errors
    /// As [`Refusal`] tells. Nothing is changed then.
    pub fn change(&mut self, change: &Change, now: u64) -> Result<Outcome, Refusal> {
        let mut outcome = self.change_only(change, now)?;
        let gone = outcome.removed.iter().map(|(rule, _)| rule);
        let gone = gone.chain(outcome.modified.iter().map(|(before, _)| before));
        let learned = learned::by(gone);
        outcome.removed.extend(self.forget_learned(learned));
        Ok(outcome)
    }

    fn change_only(&mut self, change: &Change, now: u64) -> Result<Outcome, Refusal> {
        if change.filter.table.is_some_and(|table| table == TABLES) {
            return Err(Refusal::BadTable);
        }
        let pattern = place::pattern(&change.filter.matching).map_err(Refusal::Field)?;
        if !matches!(change.command, Command::Delete | Command::DeleteStrict | Command::Shorten) {
            possible::check(&change.instructions)?;
            self.check_uses(&uses::of(&change.instructions))?;
        }
        match change.command {
            Command::Add => self.add(change, pattern, now),
            Command::Modify | Command::ModifyStrict => {
                let rules = self.meant(change, &pattern)?;
                if rules.is_empty() && change.may_add {
                    return self.add(change, pattern, now);
                }
                let mut outcome = Outcome::default();
                for rule in rules {
                    let mut after = change.apply(&rule, now);
                    after.changed = self.next();
                    let after = Arc::new(after);
                    self.insert(&after);
                    outcome.modified.push((rule, after));
                }
                Ok(outcome)
            }
            Command::Delete | Command::DeleteStrict => {
                let mut outcome = Outcome::default();
                for rule in self.meant(change, &pattern)? {
                    self.remove(&rule);
                    outcome.removed.push((rule, Ended::Deleted));
                }
                Ok(outcome)
            }
            Command::Shorten => {
                self.meant(change, &pattern)?.iter().for_each(|rule| self.shorten(rule, change));
                Ok(Outcome::default())
            }
        }
    }

    /// Checks actions of which no rule is made: whether they are possible, and what they use is there.
    ///
    /// # Errors
    /// Something is not.
    pub fn check_actions(&self, actions: &[Action]) -> Result<(), Refusal> {
        possible::check_actions(actions)?;
        self.check_uses(&uses::of_actions(actions))
    }

    /// Checks all that a packet goes on with, in the same way.
    ///
    /// # Errors
    /// As [`check_actions`](Self::check_actions).
    pub fn check_frozen(&self, frozen: &Frozen) -> Result<(), Refusal> {
        self.check_actions(&frozen.set)?;
        frozen.rest.iter().try_for_each(|rest| {
            possible::check(&rest.instructions)?;
            self.check_uses(&uses::of(&rest.instructions))
        })
    }

    fn check_uses(&self, all: &[Used]) -> Result<(), Refusal> {
        all.iter().try_for_each(|used| match *used {
            Used::Group(id) => self.groups.get(id).map(drop).ok_or(Refusal::NoGroup(id)),
            Used::Meter(id) => self.meters.get(id).map(drop).ok_or(Refusal::NoMeter(id)),
            Used::Links | Used::Learned(..) => Ok(()),
        })
    }

    /// Takes away the rules that use what is `gone`, and what they have learnt.
    pub(crate) fn remove_users(&mut self, gone: &BTreeSet<Used>, why: Ended) -> Outcome {
        let mut removed = Vec::new();
        if gone.iter().any(|used| self.uses.of(*used) > 0) {
            let uses = |rule: &&Arc<Rule>| rule.uses.iter().any(|used| gone.contains(used));
            let users: Vec<Arc<Rule>> = self.iter().filter(uses).cloned().collect();
            users.iter().for_each(|rule| self.remove(rule));
            removed.extend(users.into_iter().map(|rule| (rule, why)));
            let learned = learned::by(removed.iter().map(|(rule, _)| rule));
            removed.extend(self.forget_learned(learned));
        }
        Outcome { removed, ..Outcome::default() }
    }

    /// The rules that a change means, which is not one of adding.
    fn meant(&self, change: &Change, pattern: &Pattern) -> Result<Vec<Arc<Rule>>, Refusal> {
        let Change { command, filter, priority, .. } = change;
        if matches!(command, Command::Modify | Command::Delete) {
            return self.select(filter);
        }
        let tables = (0..HIDDEN_TABLE).zip(&self.all);
        let tables = tables.filter(|(id, _)| filter.table.is_none_or(|wanted| wanted == *id));
        let rules = tables.filter_map(|(_, table)| table.rules.find(pattern, *priority));
        Ok(rules.filter(|rule| filter.takes(rule)).cloned().collect())
    }

    fn add(&mut self, change: &Change, pattern: Pattern, now: u64) -> Result<Outcome, Refusal> {
        let table = change.filter.table.unwrap_or_default();
        let rules = self.table(table);
        let before = rules.and_then(|rules| rules.find(&pattern, change.priority)).cloned();
        let overlaps = || rules.is_some_and(|rules| rules.has_overlap(&pattern, change.priority));
        if let Some(before) = before.as_ref().filter(|before| change.only_refreshes(before)) {
            return Ok(self.refresh(before, now));
        }
        let limit = usize::try_from(change.limit).unwrap_or(usize::MAX);
        if limit != 0 && self.learned(table, change.cookie.unwrap_or_default()) >= limit {
            return Err(Refusal::Full { limit });
        }
        if change.flags.check_overlap && before.is_none() && overlaps() {
            return Err(Refusal::Overlap);
        }
        if before.is_none() && self.len() >= self.limit {
            return Err(Refusal::Full { limit: self.limit });
        }
        let mut removed = Vec::new();
        if before.is_none() && self.is_full(table) {
            removed = self.evict(table, 1);
            if removed.is_empty() {
                let limit = self.settings(table).limit.unwrap_or(self.limit);
                return Err(Refusal::Full { limit });
            }
        }
        let matching = change.filter.matching.clone();
        let instructions = Arc::clone(&change.instructions);
        let mut rule = Rule::new((table, change.priority), (matching, pattern), instructions, now);
        rule.cookie = change.cookie.unwrap_or_default();
        rule.flags = change.flags;
        rule.timeouts = change.timeouts;
        rule.importance = change.importance;
        rule.changed = self.next();
        rule.added = before.as_ref().map_or(rule.changed, |before| before.added);
        if let Some(before) = &before {
            rule.stats = change.stats(before);
        }
        let rule = Arc::new(rule);
        self.insert(&rule);
        Ok(match before {
            Some(before) => Outcome { modified: vec![(before, rule)], ..Outcome::default() },
            None => Outcome { added: vec![rule], removed, ..Outcome::default() },
        })
    }

    /// A rule is learnt once more, which lets it live longer.
    fn refresh(&mut self, rule: &Arc<Rule>, now: u64) -> Outcome {
        if rule.timeouts.hard != 0 {
            self.insert(&Arc::new(Rule { modified: now, ..Rule::clone(rule) }));
        }
        Outcome::default()
    }

    /// Has a rule end sooner, if it is still the one that is meant.
    fn shorten(&mut self, rule: &Arc<Rule>, change: &Change) {
        let timeouts = rule.timeouts.shortened(change.timeouts);
        if change.cookie == Some(rule.cookie) && timeouts != rule.timeouts {
            self.insert(&Arc::new(Rule { timeouts, ..Rule::clone(rule) }));
        }
    }

    /// Takes the rules away whose time is over at `now`, in milliseconds.
    pub fn expire(&mut self, now: u64) -> Vec<(Arc<Rule>, Ended)> {
        let timed = self.all.iter().filter(|table| table.timed > 0);
        let rules = timed.flat_map(|table| table.rules.iter());
        let over = rules.filter_map(|rule| Some((Arc::clone(rule), rule.ends(now)?)));
        let mut over: Vec<(Arc<Rule>, Ended)> = over.collect();
        over.iter().for_each(|(rule, _)| self.remove(rule));
        let learned = learned::by(over.iter().map(|(rule, _)| rule));
        over.extend(self.forget_learned(learned));
        over
    }

    /// Whether any rule ends by itself.
    #[must_use]
    pub fn has_timed(&self) -> bool {
        self.all.iter().any(|table| table.timed > 0)
    }

    /// Takes away what rules have learnt that are gone, and wanted it to go with them.
    fn forget_learned(&mut self, mut learned: BTreeSet<Learned>) -> Vec<(Arc<Rule>, Ended)> {
        let mut removed = Vec::new();
        // What goes may have learnt something itself; each time there are fewer rules.
        while !learned.is_empty() {
            self.iter().for_each(|rule| learned::keep(rule, &mut learned));
            let is_learned = |rule: &&Arc<Rule>| learned.contains(&(rule.table, rule.cookie));
            let gone: Vec<Arc<Rule>> = self.iter().filter(is_learned).cloned().collect();
            gone.iter().for_each(|rule| self.remove(rule));
            learned = learned::by(gone.iter());
            removed.extend(gone.into_iter().map(|rule| (rule, Ended::Deleted)));
        }
        removed
    }

    fn insert(&mut self, rule: &Arc<Rule>) {
        self.reads.union(&rule.reads);
        self.needs.add(rule);
        if rule.reads.get(slot::FRAME_LEN) != 0 {
            self.lengths.add(&rule.instructions.apply);
        }
        if rule.reads.get(slot::PACKET_TYPE) != 0 {
            let Instructions { apply, write, .. } = &*rule.instructions;
            self.lengths.add_front(front(apply).max(write.as_deref().and_then(front)));
        }
        self.version += 1;
        self.uses.come(&rule.uses);
        self.begin_limits(rule);
        self.count_in(rule);
        let Some(table) = self.table_mut(rule.table) else { return };
        table.timed += usize::from(rule.is_timed());
        match table.rules.insert(Arc::clone(rule)) {
            Some(before) => {
                if !rule.does_as(&before) {
                    let fate = Fate::Replaced(Arc::clone(rule));
                    table.log.note(&before, fate, table.rules.len());
                }
                table.timed -= usize::from(before.is_timed());
                self.uses.go(&before.uses);
                self.count_out(&before);
            }
            None => {
                table.log.note(rule, Fate::Come, table.rules.len());
                self.count += 1;
            }
        }
    }

    fn remove(&mut self, rule: &Rule) {
        let table = self.all.get_mut(usize::from(rule.table));
        let Some(table) = table.map(Arc::make_mut) else { return };
        if let Some(removed) = table.rules.remove(&rule.pattern, rule.priority) {
            table.timed -= usize::from(removed.is_timed());
            table.log.note(&removed, Fate::Gone, table.rules.len());
            self.uses.go(&removed.uses);
            self.count_out(&removed);
            self.version += 1;
            self.count -= 1;
        }
        if self.count == 0 {
            self.reads = always();
            self.needs = Needs::default();
            self.lengths = Lengths::default();
        }
    }
}

/// Whether all that becomes of a rule's packets is that they are switched as usual.
fn is_normal(rule: &Rule) -> bool {
    let Instructions { apply, clear: false, write: None, metadata: None, goto_table: None } =
        &*rule.instructions
    else {
        return false;
    };
    matches!(apply[..], [Action::Output { port: PortNo::NORMAL, .. }])
}

#[cfg(test)]
mod tests;
