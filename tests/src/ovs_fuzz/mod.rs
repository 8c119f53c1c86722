//! The same rules and packets into Debian's Open vSwitch and into ours: what comes out of which port,
//! and what rules count, has to be the same.
//!
//! Rules and packets are made at random, the same ones for the same seed: [`run`]. One set of rules
//! is for many packets, since packets are what costs least.

/// Frames that a port has sent.
mod capture;
/// OpenFlow as a controller speaks it.
mod channel;
/// Packets of connections, and rules that track them.
mod connection;
/// Packets at random.
mod frame;
/// Groups at random.
mod group;
/// The two switches.
mod lab;
/// Rules that are changed between packets.
mod later;
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

use self::channel::{Change, Refused};
use self::frame::{Packet, packet};
use self::group::{Group, groups, used_by};
use self::lab::{Outcome, Side, digits};
use self::later::{Round, Turn, rounds};
use self::rule::{Rule, rules};
use crate::netns::Netns;

/// Packets for one set of rules.
const PACKETS: usize = 60;

/// The same, where what becomes of one depends on those before.
const IN_ORDER: usize = 12;

/// Of so many sets one is about connections.
const TRACKED: u64 = 3;

/// How long ours may take to learn what the other one has learnt, and how long while a case is made
/// smaller.
const PATIENCE: Duration = Duration::from_secs(30);
const IMPATIENCE: Duration = Duration::from_millis(200);

/// What the line of a trace begins with that says what a datapath does.
const ACTIONS: &str = "Datapath actions: ";

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
        self.packets += case.count() as u64;
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
    /// What comes then.
    rounds: Vec<Round>,
}

impl Case {
    fn new(seed: u64) -> Self {
        // What is near in seeds is to be far apart in numbers.
        let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let _ = (0..9).fold(0, |_, _| random.bits());
        let switch = random.once_in(8);
        let mut groups = if switch { Vec::new() } else { groups(&mut random) };
        let (mut rules, mut banned) = rules(&mut random, switch, &mut groups);
        used_by(&mut random, &groups, &mut rules);
        let first = rules.iter().filter(|rule| rule.table == 0);
        let matches: Vec<Match> = first.map(|rule| rule.matching.clone()).collect();
        let all: Vec<Match> = rules.iter().map(|rule| rule.matching.clone()).collect();
        let count = if in_order(&rules) { IN_ORDER } else { PACKETS };
        let packets = (0..count).map(|_| {
            let of = if random.once_in(3) { &all } else { &matches };
            packet(&mut random, of, switch)
        });
        let mut packets: Vec<Packet> = packets.collect();
        if !switch && groups.is_empty() && seed.is_multiple_of(TRACKED) {
            connection::tracked(&mut random, &mut rules, &mut banned);
            packets = connection::packets(&mut random);
            return Self { groups, rules, packets, rounds: Vec::new() };
        }
        let rounds =
            if switch { Vec::new() } else { rounds(&mut random, &rules, &packets, &banned) };
        Self { groups, rules, packets, rounds }
    }

    /// All rules that there ever are.
    fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        let turns = self.rounds.iter().flat_map(|round| &round.turns);
        self.rules.iter().chain(turns.map(|turn| &turn.rule))
    }

    /// How many packets there are.
    fn count(&self) -> usize {
        self.packets.len() + self.rounds.iter().map(|round| round.packets.len()).sum::<usize>()
    }

    /// Whether packets have to come one by one.
    fn is_in_order(&self) -> bool {
        self.all_rules().any(Rule::remembers)
    }

    /// Leaves out what cannot be sent.
    fn settle(&mut self) {
        self.groups.retain(|group| group.change().is_some());
        self.rules.retain(|rule| rule.change().is_some());
        for round in &mut self.rounds {
            round.turns.retain(|turn| turn.change().is_some());
        }
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
        show(&self.packets, f)?;
        for round in &self.rounds {
            for turn in &round.turns {
                writeln!(f, "  {turn}")?;
            }
            show(&round.packets, f)?;
        }
        Ok(())
    }
}

fn show(packets: &[Packet], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for Packet { port, bytes } in packets {
        writeln!(f, "  netdev-dummy/receive p{port} {}", digits(bytes))?;
    }
    Ok(())
}

/// Whether Open vSwitch writes to wrong places of a packet that it does this with: it reads a packet anew that
/// it hands to controllers, with one tag at most (`vlan-limit`), and takes what is behind that for the
/// network header.
fn is_miswritten(bytes: &[u8], actions: &str) -> bool {
    let is_tag = |at: &usize| {
        let kind = bytes.get(12 + at * 4..14 + at * 4);
        kind.is_some_and(|kind| [[0x81, 0x00], [0x88, 0xA8]].iter().any(|tag| tag == kind))
    };
    let mut tags = (0..).take_while(is_tag).count();
    let mut is_lost = false;
    for action in parts(actions.strip_prefix(ACTIONS).unwrap_or(actions)) {
        match action.split_once('(').map_or(action, |(name, _)| name) {
            "push_vlan" => tags += 1,
            "pop_vlan" => tags = tags.saturating_sub(1),
            "userspace" => is_lost |= tags > 1,
            "set" if is_lost && !action.starts_with("set(eth(") => return true,
            _ => {}
        }
    }
    false
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
                found.difference = Some(differently_refused(&theirs, &ours));
                return Ok(found);
            }
            if theirs.is_empty() {
                break;
            }
            found.refused += theirs.len() as u64;
            theirs.iter().rev().for_each(|(at, _)| case.remove(*at));
        }
        self.real.begin()?;
        self.ours.begin()?;
        let (learns, in_order) = (case.rules.iter().any(Rule::learns), case.is_in_order());
        self.play(&case.packets, in_order, learns)?;
        for round in &mut case.rounds {
            found.difference = self.turn(&mut round.turns)?;
            if found.difference.is_some() {
                return Ok(found);
            }
            self.play(&round.packets, in_order, learns)?;
        }
        let mut outcomes = [self.real.outcome()?, self.ours.outcome()?];
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
        let [theirs, ours] = outcomes;
        found.difference = difference(&theirs, &ours);
        if found.difference.is_some() && self.leave_faults(case)? {
            return self.agree(case);
        }
        if found.difference.is_none() && !in_order {
            found.difference = self.trace(&case.packets)?;
        }
        Ok(found)
    }

    /// Leaves out packets that Open vSwitch writes to wrong places of, by what it says that it does with them;
    /// returns whether there are any.
    fn leave_faults(&mut self, case: &mut Case) -> Result<bool> {
        let before = case.count();
        let rounds = case.rounds.iter_mut().map(|round| &mut round.packets);
        for packets in [&mut case.packets].into_iter().chain(rounds) {
            let mut left = Vec::new();
            for packet in packets.drain(..) {
                let actions = self.real.trace(&packet)?.into_iter();
                let mut actions = actions.filter(|line| line.starts_with(ACTIONS));
                if !actions.any(|actions| is_miswritten(&packet.bytes, &actions)) {
                    left.push(packet);
                }
            }
            *packets = left;
        }
        Ok(case.count() < before)
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

    /// Changes rules of both, but those that both refuse; says if one refuses others.
    fn turn(&mut self, turns: &mut Vec<Turn>) -> Result<Option<String>> {
        while !turns.is_empty() {
            let changes = turns.iter().filter_map(Turn::change).map(Change::Rule);
            let changes: Vec<Change> = changes.collect();
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

    /// Has the packets come in at both; one by one where they matter to each other, and until they have
    /// learnt something else.
    fn play(&mut self, packets: &[Packet], in_order: bool, learns: bool) -> Result<()> {
        let at_once = if in_order { 1 } else { PACKETS };
        for packets in packets.chunks(at_once) {
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

fn differently_refused(theirs: &[Refused], ours: &[Refused]) -> String {
    format!("refused by Open vSwitch: {theirs:?}\nrefused by Ringway: {ours:?}\n")
}

/// Brings what is done in a line of its own in order where a packet may flood: in which one it comes to
/// ports, is open.
fn sort_ports(line: &mut String) {
    if let Some(actions) = line.strip_prefix(ACTIONS) {
        *line = format!("{ACTIONS}{}", in_order_of_text(actions));
    }
}

/// A list in order, and lists in its parts likewise.
fn in_order_of_text(list: &str) -> String {
    let mut parts: Vec<String> = parts(list)
        .map(|part| match part.strip_suffix(')').and_then(|part| part.split_once('(')) {
            Some((name, inner)) => format!("{name}({})", in_order_of_text(inner)),
            None => part.to_owned(),
        })
        .collect();
    parts.sort_unstable();
    parts.join(",")
}

/// The parts of a list between commas, of which there may be more in brackets.
fn parts(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    list.split(move |letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
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
        let connections = outcome.connections.iter().cloned();
        sent.chain(outcome.counts.iter().map(rule)).chain(connections).collect::<Vec<String>>()
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
    fn packets_with_tags_that_are_written_to_behind_a_copy_for_controllers_are_found() {
        let plain = [&[0; 12][..], &[0x08, 0x00]].concat();
        let tagged = [&[0; 12][..], &[0x81, 0, 0, 1, 0x88, 0xA8, 0, 1, 0x08, 0x00]].concat();
        let found = |bytes: &[u8], text: &str| is_miswritten(bytes, &format!("{ACTIONS}{text}"));
        let (push, copy) = ("push_vlan(vid=0,pcp=0)", "userspace(pid=0,controller(reason=2))");
        let write = "set(ipv6(hlimit=2))";
        assert!(found(&plain, &[push, push, copy, "1", write].join(",")));
        assert!(found(&tagged, &[copy, "pop_vlan", write].join(",")));
        assert!(!found(&tagged, &["pop_vlan", copy, write].join(",")));
        assert!(!found(&tagged, &[write, copy, "set(eth(src=1))", "1"].join(",")));
        assert!(!found(&plain, &[push, copy, write].join(",")));
    }

    #[test]
    fn ports_of_a_flood_are_in_order_wherever_it_is() {
        let mut line =
            format!("{ACTIONS}5,check_pkt_len(size=9,gt(3,100,set(ipv4(src=1))),le(2,1)),1");
        sort_ports(&mut line);
        let text = "1,5,check_pkt_len(gt(100,3,set(ipv4(src=1))),le(1,2),size=9)";
        assert_eq!(line.strip_prefix(ACTIONS), Some(text));
    }

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
