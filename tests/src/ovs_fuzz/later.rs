use std::fmt;

use openflow::message::flow_mod::{Command, FlowMod};
use openflow::testing::Random;
use openflow::{Field, Match};

use super::frame::{Packet, packet};
use super::rule::{Banned, Rule, any_rule, other_actions};
use super::values::kind;

/// The most times that rules are changed, how often at once, and packets behind that.
const ROUNDS: u64 = 3;
const TURNS: u64 = 5;
const PACKETS: usize = 20;

/// Rules that are changed at once, and packets that come in then: most have come in before, so that it is
/// decided whether what is known of them still holds.
#[derive(Clone, Debug)]
pub struct Round {
    pub turns: Vec<Turn>,
    pub packets: Vec<Packet>,
}

/// A change of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    command: Command,
    /// The rule that there is to be, or of those that are meant what one is by.
    pub rule: Rule,
}

/// As a line of a file for `ovs-ofctl --bundle add-flows`.
impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { table, priority, matching, .. } = &self.rule;
        match self.command {
            Command::Add => write!(f, "add {}", self.rule),
            Command::Modify => write!(f, "modify {}", self.rule),
            Command::ModifyStrict => write!(f, "modify_strict {}", self.rule),
            Command::Delete => write!(f, "delete table={table},{matching}"),
            Command::DeleteStrict => {
                write!(f, "delete_strict table={table},priority={priority},{matching}")
            }
        }
    }
}

impl Turn {
    /// What is sent; nothing where the rule cannot be.
    pub fn change(&self) -> Option<FlowMod> {
        let mut change = self.rule.change()?;
        change.command = self.command;
        if self.command.is_delete() {
            change.instructions = openflow::Instructions::default();
        }
        Some(change)
    }
}

/// Changes of these rules, and packets between them; mostly none. Rules do nothing that is `banned`.
pub fn rounds(
    random: &mut Random,
    rules: &[Rule],
    packets: &[Packet],
    banned: &Banned,
) -> Vec<Round> {
    if !random.once_in(3) || rules.iter().any(Rule::learns) {
        return Vec::new();
    }
    let mut rules = rules.to_vec();
    let mut banned = banned.clone();
    banned.add("learn(");
    // Those do not go together.
    let has = |word: &str| rules.iter().any(|rule| rule.has(word));
    let apart: &[_] =
        if has("check_pkt_larger") { &["exit", "pop:"] } else { &["check_pkt_larger"] };
    apart.iter().for_each(|word| banned.add(word));
    let in_order = super::case::in_order(&rules);
    let count = 1 + random.below(ROUNDS);
    let rounds = (0..count).map(|_| {
        let turns = (0..1 + random.below(TURNS)).map(|_| turn(random, &mut rules, &banned));
        let mut turns: Vec<Turn> = turns.collect();
        turns.retain(|turn| {
            turn.command != Command::Add || !rules.iter().any(|rule| rule.hides(&turn.rule))
        });
        // What one bundle adds Open vSwitch may not find when it looks for more than one rule in that bundle.
        turns.sort_by_key(|turn| match turn.command {
            Command::Delete | Command::DeleteStrict => 0,
            Command::Modify => 1,
            Command::Add | Command::ModifyStrict => 2,
        });
        let matches: Vec<Match> = rules.iter().map(|rule| rule.matching.clone()).collect();
        let count = if in_order { PACKETS / 4 } else { PACKETS };
        let again = |random: &mut Random| packets.get(random.place(packets.len())).cloned();
        let packets = (0..count).map(|_| {
            let before = if random.once_in(4) { None } else { again(random) };
            before.unwrap_or_else(|| packet(random, &matches, banned.has("vlan")))
        });
        let packets = packets.collect();
        Round { turns, packets }
    });
    rounds.collect()
}

/// A change of the rules that there are by then, which are changed by it.
fn turn(random: &mut Random, rules: &mut Vec<Rule>, banned: &Banned) -> Turn {
    let at = random.place(rules.len().max(1));
    let Some(old) = rules.get(at).cloned() else { return add(random, rules, None, banned) };
    match random.below(8) {
        0 | 1 => {
            rules.remove(at);
            Turn { command: Command::DeleteStrict, rule: old }
        }
        2 | 3 => {
            let rule = other_actions(random, &old, banned);
            if let Some(old) = rules.get_mut(at) {
                old.clone_from(&rule);
            }
            Turn { command: Command::ModifyStrict, rule }
        }
        4 => add(random, rules, Some(&old), banned),
        5 => {
            // All that are for packets of a kind, or for some of them.
            let mut rule = Rule { matching: Match::new(), actions: Vec::new(), ..old };
            kind(random).iter().for_each(|(field, value)| rule.matching.set(*field, *value));
            if random.once_in(2) {
                return Turn { command: Command::Delete, rule };
            }
            Turn { command: Command::Modify, rule: other_actions(random, &rule, banned) }
        }
        _ => add(random, rules, None, banned),
    }
}

/// Another rule; one for packets of this rule, if there is one: most of these are for some of them alone.
fn add(random: &mut Random, rules: &mut Vec<Rule>, of: Option<&Rule>, banned: &Banned) -> Turn {
    let mut rule = any_rule(random);
    if let Some(of) = of {
        (rule.table, rule.matching) = (of.table, of.matching.clone());
        let port = 1 + u128::from(random.below(u64::from(super::values::PORTS)));
        if rule.matching.get(Field::InPortOxm).is_none() {
            rule.matching.set(Field::InPortOxm, port);
        }
    }
    let rule = other_actions(random, &rule, banned);
    rules.push(rule.clone());
    Turn { command: Command::Add, rule }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_can_be_sent_and_packets_come_again() {
        let mut random = Random::new(1);
        let (mut texts, mut again) = (Vec::new(), 0);
        for _ in 0..100 {
            let (rules, banned) = super::super::rule::rules(&mut random, false, &mut []);
            let packets: Vec<Packet> = (0..9).map(|_| packet(&mut random, &[], false)).collect();
            for round in rounds(&mut random, &rules, &packets, &banned) {
                let turns = round.turns.iter();
                assert!(turns.clone().all(|turn| turn.change().is_some()), "{:?}", round.turns);
                texts.extend(turns.map(ToString::to_string));
                again += round.packets.iter().filter(|packet| packets.contains(packet)).count();
            }
        }
        for word in ["add ", "modify ", "modify_strict ", "delete ", "delete_strict "] {
            assert!(texts.iter().any(|text| text.starts_with(word)), "{word}");
        }
        assert!(again > 100, "{again}");
    }
}
