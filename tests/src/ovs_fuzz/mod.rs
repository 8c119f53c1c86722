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

use anyhow::{Result, ensure};
use openflow::Match;
use openflow::message::flow_mod::FlowMod;
use openflow::testing::Random;

use self::frame::{Packet, packet};
use self::lab::{Outcome, Side};
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
    /// Differences, each as text that says how to have it again.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sets, packets, refused, differences } = self;
        let found = differences.len();
        write!(
            f,
            "{packets} packets by {sets} sets of rules (both refused {refused} rules): \
             {found} sets differ"
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
}

/// Looks for differences, in a folder of its own for each switch.
///
/// # Errors
/// A switch does not come up, or ends, or does not answer.
pub fn run(dir: &Path, effort: Effort) -> Result<Report> {
    let mut both = Both::start(dir)?;
    let mut report = Report::default();
    let (begin, mut told) = (Instant::now(), Instant::now());
    for seed in (effort.seed..).take(usize::try_from(effort.sets)?) {
        if begin.elapsed() >= effort.time || report.differences.len() >= effort.differences {
            break;
        }
        let mut case = Case::new(seed);
        report.sets += 1;
        report.packets += case.packets.len() as u64;
        let found = both.agree(&mut case);
        let found = found.inspect_err(|_| eprintln!("{case}\nseed {seed}"))?;
        report.refused += found.refused;
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            eprintln!("up to seed {seed}, in {} s: {report}", begin.elapsed().as_secs());
        }
        if let Some(difference) = found.difference {
            eprintln!("seed {seed} differs, and is made smaller:\n{difference}");
            // There are many cases then, and most that differ do so for good.
            both.patience = IMPATIENCE;
            let (case, difference) = shrink::shrink(&mut both, case, difference)?;
            both.patience = PATIENCE;
            report.differences.push(format!("--seed {seed}\n{case}{difference}"));
        }
    }
    Ok(report)
}

/// A set of rules, and packets.
#[derive(Clone, Debug)]
struct Case {
    rules: Vec<Rule>,
    packets: Vec<Packet>,
}

impl Case {
    fn new(seed: u64) -> Self {
        // What is near in seeds is to be far apart in numbers.
        let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let _ = (0..9).fold(0, |_, _| random.bits());
        let switch = random.once_in(8);
        let rules = rules(&mut random, switch);
        let first = rules.iter().filter(|rule| rule.table == 0);
        let matches: Vec<Match> = first.map(|rule| rule.matching.clone()).collect();
        let all: Vec<Match> = rules.iter().map(|rule| rule.matching.clone()).collect();
        let count = if in_order(&rules) { IN_ORDER } else { PACKETS };
        let packets = (0..count).map(|_| {
            let of = if random.once_in(3) { &all } else { &matches };
            packet(&mut random, of, switch)
        });
        let packets = packets.collect();
        Self { rules, packets }
    }

    fn changes(&self) -> Vec<FlowMod> {
        self.rules.iter().filter_map(Rule::change).collect()
    }
}

/// Whether packets have to come one by one.
fn in_order(rules: &[Rule]) -> bool {
    rules.iter().any(Rule::remembers)
}

/// As commands that ovs-ofctl and ovs-appctl take.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &self.rules {
            writeln!(f, "  {rule}")?;
        }
        for Packet { port, bytes } in &self.packets {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(f, "  netdev-dummy/receive p{port} {digits}")?;
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
    _netns: Netns,
}

impl Both {
    fn start(dir: &Path) -> Result<Self> {
        let netns = Netns::new()?;
        let real = Side::real(&netns, &dir.join("real"))?;
        let ours = Side::ours(&netns, &dir.join("ours"))?;
        Ok(Self { real, ours, patience: PATIENCE, _netns: netns })
    }

    /// Tries a case, and takes the rules out of it that both refuse.
    fn agree(&mut self, case: &mut Case) -> Result<Found> {
        let mut found = Found::default();
        case.rules.retain(|rule| rule.change().is_some());
        let changes = case.changes();
        let (theirs, ours) = (self.real.set(&changes)?, self.ours.set(&changes)?);
        if theirs != ours {
            let name = |refused: &[channel::Refused]| format!("{refused:?}");
            found.difference = Some(format!(
                "refused by Open vSwitch: {}\nrefused by Ringway: {}\n",
                name(&theirs),
                name(&ours)
            ));
            return Ok(found);
        }
        if !theirs.is_empty() {
            found.refused = theirs.len() as u64;
            for (at, _) in theirs.iter().rev() {
                case.rules.remove(*at);
            }
            let changes = case.changes();
            let again = [self.real.set(&changes)?, self.ours.set(&changes)?];
            ensure!(again.iter().all(Vec::is_empty), "rules are refused that were not before");
        }
        self.play(case)?;
        let mut outcomes = [self.real.outcome()?, self.ours.outcome()?];
        if case.rules.iter().any(Rule::counts_twice) {
            outcomes.iter_mut().for_each(|outcome| outcome.rules.clear());
        }
        let [theirs, ours] = outcomes;
        found.difference = difference(&theirs, &ours);
        Ok(found)
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

/// What is different, in words.
fn difference(theirs: &Outcome, ours: &Outcome) -> Option<String> {
    if theirs == ours {
        return None;
    }
    let mut text = String::new();
    let sent = |(port, frame): &(String, Vec<u8>)| {
        let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sent to {port}: {digits}")
    };
    let rule = |(rule, packets, bytes): &lab::Count| {
        format!("n_packets={packets}, n_bytes={bytes}, {rule}")
    };
    let lines = |outcome: &Outcome| {
        let sent = outcome.sent.iter().map(sent);
        sent.chain(outcome.rules.iter().map(rule)).collect::<Vec<String>>()
    };
    let (theirs, ours) = (lines(theirs), lines(ours));
    for (name, only) in [("Open vSwitch", only(&theirs, &ours)), ("Ringway", only(&ours, &theirs))]
    {
        for line in only {
            text += &format!("  only {name}: {line}\n");
        }
    }
    Some(text)
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
        let outcome = Outcome { sent: vec![("p1".to_owned(), vec![0xAB])], rules: Vec::new() };
        assert_eq!(difference(&outcome, &outcome), None);
        let text = difference(&outcome, &Outcome::default()).unwrap();
        assert_eq!(text, "  only Open vSwitch: sent to p1: ab\n");
    }
}
