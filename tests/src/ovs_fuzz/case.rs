use std::fmt;

use openflow::Match;
use openflow::testing::Random;

use super::channel::Change;
use super::connection;
use super::frame::{Packet, has_many_labels, packet, tags};
use super::group::{Group, groups, used_by};
use super::lab::{Bridge, digits};
use super::later::{Round, rounds};
use super::rule::{Rule, rules};
use super::second::second;

/// Packets for one set of rules.
const PACKETS: usize = 60;

/// The same, where controllers are told of them.
const TOLD: usize = 12;

/// The same, where what becomes of one depends on those before.
const IN_ORDER: usize = 12;

/// Of so many sets one is about connections.
const TRACKED: u64 = 3;

/// A set of rules, with the groups that they lead to, and packets.
#[derive(Clone, Debug)]
pub struct Case {
    pub groups: Vec<Group>,
    pub rules: Vec<Rule>,
    pub packets: Vec<Packet>,
    /// What comes then.
    pub rounds: Vec<Round>,
    /// What becomes of packets that go on to another bridge.
    pub second: Vec<Rule>,
    /// Packets come one by one in any case.
    pub is_slow: bool,
}

impl Case {
    pub fn new(seed: u64) -> Self {
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
        let second = second(&mut random, (&mut groups, &mut rules), &mut banned);
        let has_second = !second.is_empty();
        // What Open vSwitch has sent before a `pop_mpls` of more labels than it knows it takes back in both bridges.
        let is_for_two = |bytes: &[u8]| tags(bytes) < 2 && !has_many_labels(bytes);
        packets.retain(|packet| !has_second || is_for_two(&packet.bytes));
        if !switch && groups.is_empty() && seed.is_multiple_of(TRACKED) {
            let packets = connection::tracked(&mut random, &mut rules, &mut banned);
            return Self { groups, rules, packets, rounds: Vec::new(), second, is_slow: false };
        }
        // Which packets get lost is asked when rules are as they are in the end.
        let rounds = match switch || has_second {
            true => Vec::new(),
            false => rounds(&mut random, &rules, &packets, &banned),
        };
        Self { groups, rules, packets, rounds, second, is_slow: false }
    }

    /// All rules that there ever are.
    pub fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        let turns = self.rounds.iter().flat_map(|round| &round.turns);
        self.rules.iter().chain(&self.second).chain(turns.map(|turn| &turn.rule))
    }

    /// How many packets there are.
    pub fn count(&self) -> usize {
        self.packets.len() + self.rounds.iter().map(|round| round.packets.len()).sum::<usize>()
    }

    /// Whether packets have to come one by one.
    pub fn is_in_order(&self) -> bool {
        self.is_slow || self.all_rules().any(Rule::remembers)
    }

    /// How many packets come at once: one where they matter to each other, and few where controllers are told of them,
    /// since Open vSwitch tells no more than a hundred that have not been read.
    pub fn packets_at_once(&self) -> usize {
        if self.is_in_order() {
            1
        } else if self.tells() {
            TOLD
        } else {
            PACKETS
        }
    }

    fn tells(&self) -> bool {
        let buckets = self.groups.iter().flat_map(|group| &group.buckets);
        let in_bucket = |action: &String| tells(action);
        self.all_rules().any(|rule| rule.actions.iter().any(|action| tells(action)))
            || buckets.flat_map(|bucket| &bucket.actions).any(in_bucket)
    }

    /// The same packets one by one, in the order in which they come otherwise: ours knows of each what it
    /// knows then, and Open vSwitch nothing.
    pub fn slowly(&self) -> Self {
        let mut case = Self { is_slow: true, ..self.clone() };
        let rounds = case.rounds.iter_mut().map(|round| &mut round.packets);
        for packets in [&mut case.packets].into_iter().chain(rounds) {
            packets.sort_by_key(|packet| packet.port);
        }
        case
    }

    /// Leaves out what cannot be sent.
    pub fn settle(&mut self) {
        self.groups.retain(|group| group.change().is_some());
        self.rules.retain(|rule| rule.change().is_some());
        self.second.retain(|rule| rule.change().is_some());
        for round in &mut self.rounds {
            round.turns.retain(|turn| turn.change().is_some());
        }
    }

    /// What is sent, in this order, to the first bridge, or to the second.
    pub fn changes(&self, bridge: Bridge) -> Vec<Change> {
        if bridge == Bridge::Second {
            return self.second.iter().filter_map(Rule::change).map(Change::Rule).collect();
        }
        let groups = self.groups.iter().filter_map(Group::change).map(Change::Group);
        groups.chain(self.rules.iter().filter_map(Rule::change).map(Change::Rule)).collect()
    }

    /// Leaves out what has this place among all that is sent.
    pub fn remove(&mut self, bridge: Bridge, at: usize) {
        if bridge == Bridge::Second {
            return drop(self.second.remove(at));
        }
        match at.checked_sub(self.groups.len()) {
            Some(at) => drop(self.rules.remove(at)),
            None => drop(self.groups.remove(at)),
        }
    }
}

/// Whether an action may have controllers be told of packets: also where a time to live is over.
fn tells(action: &str) -> bool {
    ["controller", "CONTROLLER", "dec_"].iter().any(|word| action.contains(word))
}

/// Whether packets have to come one by one.
pub fn in_order(rules: &[Rule]) -> bool {
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
        for rule in &self.second {
            writeln!(f, "  in {}: {rule}", Bridge::Second.name())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_the_same_for_the_same_seed() {
        let text = |seed| Case::new(seed).to_string();
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }
}
