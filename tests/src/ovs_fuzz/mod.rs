//! The same rules and packets into Debian's Open vSwitch and into ours: what comes out of which port,
//! and what rules count, has to be the same.
//!
//! Rules and packets are made at random, the same ones for the same seed: [`run`]. One set of rules
//! is for many packets, since packets are what costs least.

/// Frames that a port has sent.
mod capture;
/// OpenFlow as a controller speaks it.
mod channel;
/// Packets at random.
mod frame;
/// Groups at random.
mod group;
/// The two switches.
mod lab;
/// Rules at random.
mod rule;
/// A case that differs, as small as it gets.
mod shrink;
/// Commands of ovs-appctl.
mod unixctl;
/// Values of fields that rules and packets have in common.
mod values;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use openflow::Match;
use openflow::testing::Random;

use self::channel::Change;
use self::frame::{Packet, packet};
use self::group::{Group, groups, used_by};
use self::lab::{Outcome, Side, digits};
use self::rule::{Rule, rules};
use crate::netns::Netns;

/// Packets for one set of rules.
const PACKETS: usize = 60;

/// The same, where what becomes of one depends on those before.
const IN_ORDER: usize = 12;

/// How long ours may take to learn what the other one has learnt, and how long while a case is made
/// smaller.
const PATIENCE: Duration = Duration::from_secs(30);
const IMPATIENCE: Duration = Duration::from_millis(200);

/// How often is told how far it is.
const PROGRESS: Duration = Duration::from_secs(20);

/// What has been found.
#[derive(Debug, Default)]
pub struct Report {
    /// Sets of rules that were tried.
    pub sets: u64,
    /// Packets that were.
    pub packets: u64,
    /// Rules that both refused.
    pub refused: u64,
    /// Sets of rules that made Open vSwitch end.
    pub ended: u64,
    /// Differences, each as text that says how to have it again.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sets, packets, refused, ended, differences } = self;
        let found = differences.len();
        write!(
            f,
            "{packets} packets by {sets} sets of rules (both refused {refused} rules, \
             Open vSwitch crashed with {ended} sets more): {found} sets differ"
        )
    }
}

/// How long, and with what, to look for differences.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// When to stop, but for the set of rules that is being tried.
    pub time: Duration,
    /// The most sets of rules.
    pub sets: u64,
    /// The seed of the first set; that of each further one is one more.
    pub seed: u64,
    /// How many sets may differ until it stops.
    pub differences: usize,
    /// Of how many packets of a set the way is asked for, as text.
    pub traces: usize,
}

/// Looks for differences, in a folder of its own for each switch.
///
/// # Errors
/// A switch does not come up, or does not answer, or ours ends.
pub fn run(dir: &Path, effort: Effort) -> Result<Report> {
    let mut both = Both::start(dir, effort.traces)?;
    let mut report = Report::default();
    let (begin, mut told) = (Instant::now(), Instant::now());
    for seed in (effort.seed..).take(usize::try_from(effort.sets)?) {
        if begin.elapsed() >= effort.time || report.differences.len() >= effort.differences {
            break;
        }
        if let Err(error) = report.take(&mut both, seed) {
            // What makes Open vSwitch end is its own matter.
            if !both.real.has_ended() {
                return Err(error);
            }
            report.ended += 1;
            both = Both::start(&dir.join(seed.to_string()), effort.traces)?;
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            eprintln!("up to seed {seed}, in {} s: {report}", begin.elapsed().as_secs());
        }
    }
    Ok(report)
}

impl Report {
    /// Tries the set of rules of a seed.
    fn take(&mut self, both: &mut Both, seed: u64) -> Result<()> {
        let mut case = Case::new(seed);
        let found = both.agree(&mut case);
        let found = found.inspect_err(|error| eprintln!("{case}\nseed {seed}: {error:#}"))?;
        self.sets += 1;
        self.packets += case.packets.len() as u64;
        self.refused += found.refused;
        let Some(difference) = found.difference else { return Ok(()) };
        eprintln!("seed {seed} differs, and is made smaller:\n{difference}");
        // There are many cases then, and most that differ do so for good.
        both.patience = IMPATIENCE;
        let (case, difference) = shrink::shrink(both, case, difference)?;
        both.patience = PATIENCE;
        let text = format!("--seed {seed}\n{case}{difference}");
        eprintln!("as small as it gets:\n{text}");
        self.differences.push(text);
        Ok(())
    }
}

/// A set of rules, with the groups that they lead to, and packets.
#[derive(Clone, Debug)]
struct Case {
    groups: Vec<Group>,
    rules: Vec<Rule>,
    packets: Vec<Packet>,
}

impl Case {
    fn new(seed: u64) -> Self {
        // What is near in seeds is to be far apart in numbers.
        let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let _ = (0..9).fold(0, |_, _| random.bits());
        let switch = random.once_in(8);
        let mut groups = if switch { Vec::new() } else { groups(&mut random) };
        let mut rules = rules(&mut random, switch, &mut groups);
        used_by(&mut random, &groups, &mut rules);
        let first = rules.iter().filter(|rule| rule.table == 0);
        let matches: Vec<Match> = first.map(|rule| rule.matching.clone()).collect();
        let all: Vec<Match> = rules.iter().map(|rule| rule.matching.clone()).collect();
        let count = if in_order(&rules) { IN_ORDER } else { PACKETS };
        let packets = (0..count).map(|_| {
            let of = if random.once_in(3) { &all } else { &matches };
            packet(&mut random, of, switch)
        });
        let packets = packets.collect();
        Self { groups, rules, packets }
    }

    /// Leaves out what cannot be sent.
    fn settle(&mut self) {
        self.groups.retain(|group| group.change().is_some());
        self.rules.retain(|rule| rule.change().is_some());
    }

    /// What is sent, in this order.
    fn changes(&self) -> Vec<Change> {
        let groups = self.groups.iter().filter_map(Group::change).map(Change::Group);
        groups.chain(self.rules.iter().filter_map(Rule::change).map(Change::Rule)).collect()
    }

    /// Leaves out what has this place among all that is sent.
    fn remove(&mut self, at: usize) {
        match at.checked_sub(self.groups.len()) {
            Some(at) => drop(self.rules.remove(at)),
            None => drop(self.groups.remove(at)),
        }
    }
}

/// Whether packets have to come one by one.
fn in_order(rules: &[Rule]) -> bool {
    rules.iter().any(Rule::remembers)
}

/// As commands that ovs-ofctl and ovs-appctl take.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in &self.groups {
            writeln!(f, "  {group}")?;
        }
        for rule in &self.rules {
            writeln!(f, "  {rule}")?;
        }
        for Packet { port, bytes } in &self.packets {
            writeln!(f, "  netdev-dummy/receive p{port} {}", digits(bytes))?;
        }
        Ok(())
    }
}

/// What has come of a case.
#[derive(Debug, Default)]
struct Found {
    /// Rules that both have refused.
    refused: u64,
    difference: Option<String>,
}

/// Both switches.
#[derive(Debug)]
struct Both {
    real: Side,
    ours: Side,
    /// How long ours may take to learn what the other one has learnt.
    patience: Duration,
    /// Of how many packets of a set the way is asked for.
    traces: usize,
    _netns: Netns,
}

impl Both {
    fn start(dir: &Path, traces: usize) -> Result<Self> {
        let netns = Netns::new()?;
        let real = Side::real(&netns, &dir.join("real"))?;
        let ours = Side::ours(&netns, &dir.join("ours"))?;
        Ok(Self { real, ours, patience: PATIENCE, traces, _netns: netns })
    }

    /// Tries a case, and takes out of it what both refuse.
    fn agree(&mut self, case: &mut Case) -> Result<Found> {
        let mut found = Found::default();
        case.settle();
        loop {
            let changes = case.changes();
            let (theirs, ours) = (self.real.set(&changes)?, self.ours.set(&changes)?);
            if theirs != ours {
                found.difference = Some(format!(
                    "refused by Open vSwitch: {theirs:?}\nrefused by Ringway: {ours:?}\n"
                ));
                return Ok(found);
            }
            if theirs.is_empty() {
                break;
            }
            found.refused += theirs.len() as u64;
            theirs.iter().rev().for_each(|(at, _)| case.remove(*at));
        }
        self.play(case)?;
        let mut outcomes = [self.real.outcome()?, self.ours.outcome()?];
        if case.rules.iter().any(Rule::counts_twice) {
            outcomes.iter_mut().for_each(|outcome| outcome.counts.clear());
        }
        if case.rules.iter().any(Rule::shortens) {
            let counts = outcomes.iter_mut().flat_map(|outcome| &mut outcome.counts);
            counts.for_each(|(_, _, bytes)| *bytes = 0);
        }
        let [theirs, ours] = outcomes;
        found.difference = difference(&theirs, &ours);
        if found.difference.is_none() && !in_order(&case.rules) {
            found.difference = self.trace(&case.packets)?;
        }
        Ok(found)
    }

    /// Asks both which way some of the packets would go, and says what differs.
    fn trace(&mut self, packets: &[Packet]) -> Result<Option<String>> {
        for packet in packets.iter().take(self.traces) {
            let (mut theirs, mut ours) = (self.real.trace(packet)?, self.ours.trace(packet)?);
            [&mut theirs, &mut ours].into_iter().flatten().for_each(sort_ports);
            if theirs != ours {
                let text = lines_that_differ(&theirs, &ours);
                return Ok(Some(format!("  trace of {}:\n{text}", digits(&packet.bytes))));
            }
        }
        Ok(None)
    }

    /// Has the packets come in at both; one by one where they matter to each other, and until they have
    /// learnt something else.
    fn play(&mut self, case: &Case) -> Result<()> {
        self.real.begin()?;
        self.ours.begin()?;
        let learns = case.rules.iter().any(Rule::learns);
        let at_once = if in_order(&case.rules) { 1 } else { PACKETS };
        for packets in case.packets.chunks(at_once) {
            self.real.take(packets)?;
            self.ours.take(packets)?;
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

/// Brings what is done in a line of its own in order where a packet may flood: in which one it comes to
/// ports, is open.
fn sort_ports(line: &mut String) {
    if let Some(actions) = line.strip_prefix("Datapath actions: ") {
        let mut actions: Vec<&str> = actions.split(',').collect();
        actions.sort_unstable();
        *line = format!("Datapath actions: {}", actions.join(","));
    }
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
        sent.chain(outcome.counts.iter().map(rule)).collect::<Vec<String>>()
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
    fn cases_are_the_same_for_the_same_seed() {
        let text = |seed| Case::new(seed).to_string();
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }

    #[test]
    fn what_differs_is_told_once_for_each_side() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
        assert_eq!(only(&lines("a b b c"), &lines("b c d")), ["a", "b"]);
        assert!(only(&lines("a"), &lines("a a")).is_empty());
        let outcome = Outcome { sent: vec![("p1".to_owned(), vec![0xAB])], counts: Vec::new() };
        assert_eq!(difference(&outcome, &outcome), None);
        let text = difference(&outcome, &Outcome::default()).unwrap();
        assert_eq!(text, "  only Open vSwitch: sent to p1: ab\n");
    }
}
