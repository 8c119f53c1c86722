//! What has become of the rules of a table lately, so that whoever knows an older version of it can tell
//! what is different without a look at all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::onward::Onward;
use crate::rule::Rule;

/// The most changes that are remembered: rules that are gone stay in memory as long. Of a table that has more rules
/// there may be as many as these, up to the second number: so what is remembered is not more than what there is.
const MAX_CHANGES: usize = 512;
const MAX_OF_MANY: usize = 4096;

/// The most versions. Whoever keeps up knows the one before.
const MAX_BATCHES: usize = 16;

/// What has become of a rule.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// It was not there before.
    Come,
    /// It is not there any more.
    Gone,
    /// There is this one of its match and priority.
    Replaced(Arc<Rule>),
}

/// A rule that is not as it was.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) rule: Arc<Rule>,
    pub(crate) fate: Fate,
}

impl Turn {
    /// Whether it was not there before.
    #[inline]
    pub(crate) const fn has_come(&self) -> bool {
        matches!(self.fate, Fate::Come)
    }

    /// It is going to be looked at: what is in its rules themselves is asked for.
    #[inline]
    pub(crate) fn fetch(&self) {
        self.rule.fetch();
        if let Fate::Replaced(by) = &self.fate {
            by.fetch();
        }
    }

    /// The same of what they write, when they are there.
    #[inline]
    pub(crate) fn fetch_writes(&self) {
        if let Fate::Replaced(by) = &self.fate {
            let both = [&self.rule, by].into_iter();
            both.filter_map(|rule| rule.onward.as_ref()).for_each(Onward::fetch);
        }
    }

    /// The rule in its place by now, if that counts where it did.
    #[inline]
    pub(crate) fn heir(&self) -> Option<&Arc<Rule>> {
        match &self.fate {
            Fate::Replaced(by) if Arc::ptr_eq(&by.stats, &self.rule.stats) => Some(by),
            _ => None,
        }
    }
}

/// Changes between two versions that somebody may know.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The version before.
    before: u64,
    pub(crate) turns: Vec<Turn>,
}

/// The last changes of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    batches: Vec<Arc<Batch>>,
    /// How many changes are in them.
    len: usize,
    /// The present version; no other table has the same one, unless it has had no rules since it began.
    version: u64,
}

impl Log {
    /// The present version.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// What has changed since a version; `None` if that is not remembered.
    pub(super) fn since(&self, version: u64) -> Option<&[Arc<Batch>]> {
        if version == self.version {
            return Some(&[]);
        }
        let first = self.batches.iter().position(|batch| batch.before == version)?;
        self.batches.get(first..)
    }

    /// Notes what has become of a rule of a table that has so many by now.
    pub(super) fn note(&mut self, rule: &Arc<Rule>, fate: Fate, rules: usize) {
        static VERSION: AtomicU64 = AtomicU64::new(0);
        let turn = Turn { rule: Arc::clone(rule), fate };
        // What somebody else has seen stays as it is.
        match self.batches.last_mut().and_then(Arc::get_mut) {
            Some(batch) => batch.turns.push(turn),
            None => {
                let batch = Batch { before: self.version, turns: vec![turn] };
                self.batches.push(Arc::new(batch));
            }
        }
        self.len += 1;
        self.version = VERSION.fetch_add(1, Relaxed) + 1;
        let most = rules.clamp(MAX_CHANGES, MAX_OF_MANY);
        while self.len > most || self.batches.len() > MAX_BATCHES {
            self.len -= self.batches.remove(0).turns.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use openflow::{Instructions, Match};

    use super::*;

    fn rule() -> Arc<Rule> {
        let matched = (Match::new(), crate::Pattern::default());
        Arc::new(Rule::new((0, 1), matched, Arc::new(Instructions::default()), 0))
    }

    fn count(log: &Log, version: u64) -> Option<usize> {
        log.since(version).map(|all| all.iter().map(|batch| batch.turns.len()).sum())
    }

    #[test]
    fn whoever_knows_a_version_is_told_what_came_after() {
        let mut log = Log::default();
        log.note(&rule(), Fate::Come, 0);
        let first = log.clone();
        for _ in 0..3 {
            log.note(&rule(), Fate::Gone, 0);
        }
        let second = log.clone();
        log.note(&rule(), Fate::Come, 0);
        let versions = [0, first.version(), second.version(), log.version()];
        assert_eq!(
            versions.map(|version| count(&log, version)),
            [Some(5), Some(4), Some(1), Some(0)]
        );
        assert_eq!(versions.map(|version| count(&first, version)), [Some(1), Some(0), None, None]);
        // Another way on from there has nothing in common with this one.
        let mut other = first.clone();
        other.note(&rule(), Fate::Come, 0);
        assert_eq!((count(&log, other.version()), count(&other, log.version())), (None, None));
        assert_eq!(count(&other, first.version()), Some(1));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut log = Log::default();
        let mut seen = Vec::new();
        for _ in 0..MAX_BATCHES + 4 {
            seen.push(log.clone());
            log.note(&rule(), Fate::Come, 0);
        }
        let known = seen.iter().filter(|old| log.since(old.version()).is_some());
        assert_eq!((known.count(), log.batches.len()), (MAX_BATCHES, MAX_BATCHES));
        drop(seen);
        let before = log.clone();
        for _ in 0..MAX_CHANGES {
            log.note(&rule(), Fate::Come, 0);
        }
        assert_eq!(count(&log, before.version()), Some(MAX_CHANGES));
        log.note(&rule(), Fate::Come, 0);
        assert_eq!((log.since(before.version()).is_some(), log.len), (false, 0));
        // A batch that nobody has seen goes on, and is of no use to those who know what was before it.
        log.note(&rule(), Fate::Come, 0);
        assert_eq!(log.len, 1);
    }
    #[test]
    fn of_a_table_with_many_rules_more_is_remembered() {
        let mut log = Log::default();
        let before = log.clone();
        let mut note = |times: usize, rules: usize| {
            (0..times).for_each(|_| log.note(&rule(), Fate::Come, rules));
            count(&log, before.version())
        };
        assert_eq!(note(MAX_CHANGES + 1, 1000), Some(MAX_CHANGES + 1));
        assert_eq!(note(1000 - MAX_CHANGES - 1, 1000), Some(1000));
        assert_eq!(note(1, 1000), None);
        let before = log.clone();
        (0..MAX_OF_MANY).for_each(|_| log.note(&rule(), Fate::Come, usize::MAX));
        assert_eq!(count(&log, before.version()), Some(MAX_OF_MANY));
        log.note(&rule(), Fate::Come, usize::MAX);
        assert_eq!(count(&log, before.version()), None);
        // Where rules go, so does what was remembered.
        (0..600).for_each(|_| log.note(&rule(), Fate::Gone, 700));
        assert_eq!(log.len, 600);
        log.note(&rule(), Fate::Gone, 0);
        assert_eq!(log.len, 0);
    }
}
