use anyhow::Result;

use super::both::Both;
use super::case::Case;

/// The most cases that are tried to make one smaller.
const TRIALS: usize = 600;

/// The smallest case found that differs, and how.
pub fn shrink(both: &mut Both, case: Case, difference: String) -> Result<(Case, String)> {
    let mut shrinker = Shrinker { both, case, difference, trials: TRIALS };
    shrinker.drop_each(|case, at| drop_part([&mut case.rounds].into_iter(), at))?;
    // Mostly one packet alone does it.
    let packets = shrinker.case.packets.clone();
    for packet in packets {
        let smaller = Case { packets: vec![packet], ..shrinker.case.clone() };
        if shrinker.attempt(smaller)? {
            break;
        }
    }
    for count in [16, 4] {
        shrinker.drop_each(|case, at| drop_packets(case, at * count, count))?;
    }
    loop {
        let before = shrinker.case.clone();
        shrinker.drop_each(|case, at| drop_packets(case, at, 1))?;
        shrinker.drop_each(|case, at| {
            drop_part(case.rounds.iter_mut().map(|round| &mut round.turns), at)
        })?;
        shrinker
            .drop_each(|case, at| (at < case.rules.len()).then(|| drop(case.rules.remove(at))))?;
        shrinker.drop_each(|case, at| drop_part([&mut case.second].into_iter(), at))?;
        shrinker
            .drop_each(|case, at| (at < case.groups.len()).then(|| drop(case.groups.remove(at))))?;
        shrinker.drop_each(drop_bucket)?;
        shrinker.drop_each(drop_action)?;
        shrinker.drop_each(drop_field)?;
        if shrinker.trials == 0 || (before.rules.len(), before.count()) == shrinker.size() {
            return Ok((shrinker.case, shrinker.difference));
        }
    }
}

struct Shrinker<'b> {
    both: &'b mut Both,
    case: Case,
    difference: String,
    trials: usize,
}

impl Shrinker<'_> {
    fn size(&self) -> (usize, usize) {
        (self.case.rules.len(), self.case.count())
    }

    /// Whether this one differs, too: then it is the case.
    fn attempt(&mut self, mut case: Case) -> Result<bool> {
        let Some(left) = self.trials.checked_sub(1) else { return Ok(false) };
        self.trials = left;
        let found = self.both.agree(&mut case);
        if found.is_err() && self.both.real.has_ended() {
            // So small it is, then.
            self.trials = 0;
            return Ok(false);
        }
        let Some(difference) = found?.difference else { return Ok(false) };
        (self.case, self.difference) = (case, difference);
        Ok(true)
    }

    /// Leaves out what does not matter, one after the other: `leave_out` leaves out what is at a place,
    /// if there is something.
    fn drop_each(&mut self, leave_out: impl Fn(&mut Case, usize) -> Option<()>) -> Result<()> {
        let mut at = 0;
        loop {
            let mut smaller = self.case.clone();
            if leave_out(&mut smaller, at).is_none() {
                return Ok(());
            }
            if !self.attempt(smaller)? {
                at += 1;
            }
        }
    }
}

/// Leaves out so many packets, from that place among all.
fn drop_packets(case: &mut Case, from: usize, count: usize) -> Option<()> {
    let mut at = 0..;
    let mut is_gone = false;
    let rounds = case.rounds.iter_mut().map(|round| &mut round.packets);
    for packets in [&mut case.packets].into_iter().chain(rounds) {
        packets.retain(|_| {
            let goes = at.next().is_some_and(|at: usize| (from..from + count).contains(&at));
            is_gone |= goes;
            !goes
        });
    }
    is_gone.then_some(())
}

/// Leaves out an action, counted through all rules and buckets.
fn drop_action(case: &mut Case, at: usize) -> Option<()> {
    let buckets = case.groups.iter_mut().flat_map(|group| &mut group.buckets);
    let buckets = buckets.map(|bucket| &mut bucket.actions);
    let turns = case.rounds.iter_mut().flat_map(|round| &mut round.turns);
    let rules = case.rules.iter_mut().chain(&mut case.second);
    let rules = rules.chain(turns.map(|turn| &mut turn.rule));
    drop_part(rules.map(|rule| &mut rule.actions).chain(buckets), at)
}

/// Leaves out a bucket, likewise.
fn drop_bucket(case: &mut Case, at: usize) -> Option<()> {
    drop_part(case.groups.iter_mut().map(|group| &mut group.buckets), at)
}

/// Leaves out what has this place in all lists.
fn drop_part<'l, T: 'l>(lists: impl Iterator<Item = &'l mut Vec<T>>, mut at: usize) -> Option<()> {
    for list in lists {
        if at < list.len() {
            list.remove(at);
            return Some(());
        }
        at -= list.len();
    }
    None
}

/// Leaves out what a match is on, likewise.
fn drop_field(case: &mut Case, mut at: usize) -> Option<()> {
    for rule in &mut case.rules {
        let field = rule.matching.iter().nth(at).map(|entry| entry.field);
        if let Some(field) = field {
            rule.matching.remove(field);
            return Some(());
        }
        at -= rule.matching.len();
    }
    None
}
