use std::mem::take;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::case::Case;
use super::channel::{Change, Refused};
use super::connection::has_other_ports;
use super::coverage::Coverage;
use super::frame::Packet;
use super::group::Group;
use super::lab::{self, Bridge, Outcome, Side, digits};
use super::later::Turn;
use super::rule::Rule;
use super::told::{
    changes_headers_in_copy, changes_headers_in_second, crosses_without_labels, forget_rule_of_set,
    is_damaged, sort_ports,
};
use crate::netns::Netns;

/// How long ours may take to learn what the other one has learnt, and how long while a case is made
/// smaller.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const IMPATIENCE: Duration = Duration::from_millis(200);

/// What has come of a case.
#[derive(Debug, Default)]
pub struct Found {
    /// Rules that both have refused.
    pub refused: u64,
    pub difference: Option<String>,
    /// There is none where Open vSwitch forgets each packet.
    pub is_mistaken: bool,
    /// There is one, in what is a matter of chance.
    pub is_by_chance: bool,
    /// How many ways of packets were compared as text.
    pub traces: u64,
    /// What rules that have counted packets match on and do.
    pub coverage: Coverage,
}

/// Both switches.
#[derive(Debug)]
pub struct Both {
    pub real: Side,
    ours: Side,
    /// How long ours may take to learn what the other one has learnt.
    pub patience: Duration,
    /// Of how many packets of a set the way is asked for.
    traces: usize,
    _netns: Netns,
}

impl Both {
    pub fn start(dir: &Path, traces: usize) -> Result<Self> {
        let netns = Netns::new()?;
        let real = Side::real(&netns, &dir.join("real"))?;
        let ours = Side::ours(&netns, &dir.join("ours"))?;
        Ok(Self { real, ours, patience: PATIENCE, traces, _netns: netns })
    }

    /// Tries a case, and takes out of it what both refuse.
    pub fn agree(&mut self, case: &mut Case) -> Result<Found> {
        let mut found = Found::default();
        case.settle();
        for bridge in Bridge::ALL {
            found.difference = self.install(case, bridge, &mut found.refused)?;
            if found.difference.is_some() {
                return Ok(found);
            }
        }
        self.real.begin()?;
        self.ours.begin()?;
        let (learns, in_order) = (case.rules.iter().any(Rule::learns), case.is_in_order());
        let at_once = case.packets_at_once();
        self.play(&case.packets, at_once, learns)?;
        for round in &mut case.rounds {
            found.difference = self.turn(&mut round.turns)?;
            if found.difference.is_some() {
                return Ok(found);
            }
            self.play(&round.packets, at_once, learns)?;
        }
        let mut outcomes = [self.real.outcome()?, self.ours.outcome()?];
        let [coverage, _] = outcomes.each_mut().map(|outcome| take(&mut outcome.coverage));
        found.coverage = coverage;
        if case.all_rules().any(Rule::tracks) {
            for (side, outcome) in [&mut self.real, &mut self.ours].into_iter().zip(&mut outcomes) {
                outcome.connections = side.connections()?;
            }
        }
        if case.all_rules().any(Rule::counts_twice) {
            outcomes.iter_mut().for_each(|outcome| outcome.counts.clear());
        }
        if case.all_rules().any(Rule::shortens) {
            let counts = outcomes.iter_mut().flat_map(|outcome| &mut outcome.counts);
            counts.for_each(|(_, _, bytes)| *bytes = 0);
        }
        if case.groups.iter().any(Group::meters) {
            outcomes.iter_mut().for_each(|outcome| outcome.counts.retain(is_of_no_meter));
        }
        if case.all_rules().any(Rule::goes_round) {
            let told = outcomes.iter_mut().flat_map(|outcome| &mut outcome.told);
            told.for_each(forget_rule_of_set);
        }
        let [theirs, ours] = outcomes;
        found.difference = difference(&theirs, &ours);
        let mut all = theirs.connections.iter().chain(&ours.connections);
        if found.difference.is_some() && all.any(|line| has_other_ports(line)) {
            found.difference = None;
            found.is_by_chance = true;
            return Ok(found);
        }
        if found.difference.is_some() && self.leave_faults(case)? {
            return self.agree(case);
        }
        if found.difference.is_some() && !in_order {
            let slowly = self.agree(&mut case.slowly())?;
            found.is_mistaken = slowly.difference.is_none();
            found.difference = slowly.difference;
            return Ok(found);
        }
        if found.difference.is_none() && !in_order {
            found.difference = self.trace(&case.packets, &mut found.traces)?;
        }
        Ok(found)
    }

    /// Has both bridges of a name have the rules of a case, and takes out what both refuse; says if one refuses
    /// something else.
    fn install(
        &mut self,
        case: &mut Case,
        bridge: Bridge,
        refused: &mut u64,
    ) -> Result<Option<String>> {
        loop {
            let changes = case.changes(bridge);
            let (theirs, ours) =
                (self.real.set(bridge, &changes)?, self.ours.set(bridge, &changes)?);
            if theirs != ours {
                return Ok(Some(differently_refused(&theirs, &ours)));
            }
            if theirs.is_empty() {
                return Ok(None);
            }
            *refused += theirs.len() as u64;
            theirs.iter().rev().for_each(|(at, _)| case.remove(bridge, *at));
        }
    }

    /// Leaves out packets that Open vSwitch writes to wrong places of, by what it says that it does with them by the
    /// rules that there are when they come, and those that the second bridge has counted before they got lost;
    /// returns whether there are any.
    fn leave_faults(&mut self, case: &mut Case) -> Result<bool> {
        let before = case.count();
        if !case.rounds.is_empty() {
            self.real.set(Bridge::First, &case.changes(Bridge::First))?;
        }
        let has_second = !case.second.is_empty();
        self.leave_faulty(&mut case.packets, has_second)?;
        for round in &mut case.rounds {
            self.real.change(&changes(&round.turns))?;
            self.leave_faulty(&mut round.packets, has_second)?;
        }
        Ok(case.count() < before)
    }

    fn leave_faulty(&mut self, packets: &mut Vec<Packet>, has_second: bool) -> Result<()> {
        let mut left = Vec::new();
        for packet in packets.drain(..) {
            let lines = self.real.trace(&packet)?;
            let is_lost = |line: &String| line.starts_with("Translation failed");
            let is_odd = is_damaged(&packet.bytes, &lines)
                || changes_headers_in_copy(&lines)
                || has_second && changes_headers_in_second(&lines)
                || has_second && lines.iter().any(is_lost)
                || has_second && crosses_without_labels(&packet.bytes, &lines);
            if !is_odd {
                left.push(packet);
            }
        }
        *packets = left;
        Ok(())
    }

    /// Asks both which way some of the packets would go, and says what differs.
    fn trace(&mut self, packets: &[Packet], count: &mut u64) -> Result<Option<String>> {
        for packet in packets.iter().take(self.traces) {
            *count += 1;
            let (mut theirs, mut ours) = (self.real.trace(packet)?, self.ours.trace(packet)?);
            [&mut theirs, &mut ours].into_iter().flatten().for_each(sort_ports);
            if theirs != ours && !is_damaged(&packet.bytes, &theirs) {
                let text = lines_that_differ(&theirs, &ours);
                return Ok(Some(format!("  trace of {}:\n{text}", digits(&packet.bytes))));
            }
        }
        Ok(None)
    }

    /// Changes rules of both, but those that both refuse; says if one refuses others.
    fn turn(&mut self, turns: &mut Vec<Turn>) -> Result<Option<String>> {
        while !turns.is_empty() {
            let changes = changes(turns);
            let (theirs, ours) = (self.real.change(&changes)?, self.ours.change(&changes)?);
            if theirs != ours {
                return Ok(Some(differently_refused(&theirs, &ours)));
            }
            if theirs.is_empty() {
                break;
            }
            theirs.iter().rev().for_each(|(at, _)| drop(turns.remove(*at)));
        }
        Ok(None)
    }

    /// Has the packets come in at both, so many at once, and until they have learnt something else.
    fn play(&mut self, packets: &[Packet], at_once: usize, learns: bool) -> Result<()> {
        for packets in packets.chunks(at_once) {
            self.real.take(packets)?;
            self.ours.take(packets)?;
            let told = self.real.hear(0, self.patience)?;
            self.ours.hear(told, self.patience)?;
            if learns {
                let rules = self.real.rules()?;
                if !self.ours.wait_for(&rules, self.patience)? {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn is_of_no_meter((name, ..): &lab::Count) -> bool {
    !name.starts_with("meter=")
}

fn changes(turns: &[Turn]) -> Vec<Change> {
    turns.iter().filter_map(Turn::change).map(Change::Rule).collect()
}

fn differently_refused(theirs: &[Refused], ours: &[Refused]) -> String {
    format!("refused by Open vSwitch: {theirs:?}\nrefused by Ringway: {ours:?}\n")
}

/// What is different, in words.
fn difference(theirs: &Outcome, ours: &Outcome) -> Option<String> {
    if theirs == ours {
        return None;
    }
    let sent = |(port, frame): &(String, Vec<u8>)| format!("sent to {port}: {}", digits(frame));
    let rule = |(rule, packets, bytes): &lab::Count| {
        format!("n_packets={packets}, n_bytes={bytes}, {rule}")
    };
    let lines = |outcome: &Outcome| {
        let sent = outcome.sent.iter().map(sent);
        let others = outcome.told.iter().chain(&outcome.connections).cloned();
        sent.chain(outcome.counts.iter().map(rule)).chain(others).collect::<Vec<String>>()
    };
    Some(lines_that_differ(&lines(theirs), &lines(ours)))
}

/// Lines that one has and the other one has not; or all of them, if they are the same in another order.
fn lines_that_differ(theirs: &[String], ours: &[String]) -> String {
    let mut text = String::new();
    for (name, only) in [("Open vSwitch", only(theirs, ours)), ("Ringway", only(ours, theirs))] {
        for line in only {
            text += &format!("  only {name}: {line}\n");
        }
    }
    if text.is_empty() {
        text = format!("  Open vSwitch: {theirs:#?}\n  Ringway: {ours:#?}\n");
    }
    text
}

/// What is in the first and not in the second, each as often as it is more often there.
fn only<'l>(first: &'l [String], second: &[String]) -> Vec<&'l str> {
    let mut left: Vec<&String> = second.iter().collect();
    let mut only = Vec::new();
    for line in first {
        match left.iter().position(|other| *other == line) {
            Some(at) => drop(left.remove(at)),
            None => only.push(line.as_str()),
        }
    }
    only
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_once_for_each_side() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
        assert_eq!(only(&lines("a b b c"), &lines("b c d")), ["a", "b"]);
        assert!(only(&lines("a"), &lines("a a")).is_empty());
        let outcome = Outcome { sent: vec![("p1".to_owned(), vec![0xAB])], ..Outcome::default() };
        assert_eq!(difference(&outcome, &outcome), None);
        let text = difference(&outcome, &Outcome::default()).unwrap();
        assert_eq!(text, "  only Open vSwitch: sent to p1: ab\n");
    }
}
