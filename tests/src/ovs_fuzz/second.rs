use openflow::testing::Random;
use openflow::{Field, Match};

use super::group::Group;
use super::rule::{Banned, Rule, any_rule};
use super::values::{PATCHES, PORTS};

/// The most rules of the other bridge.
const RULES: u64 = 8;

/// Rules of another bridge, to which some of `rules` send packets, by one of two pairs of ports; mostly none.
/// They send them nowhere back: how far packets go in circles is a limit of its own. No packet has two tags
/// then: the other bridge looks at packets anew here, and not in Open vSwitch, with one tag at most.
pub fn second(
    random: &mut Random,
    (groups, rules): (&mut [Group], &mut [Rule]),
    banned: &mut Banned,
) -> Vec<Rule> {
    if !random.once_in(4) {
        return Vec::new();
    }
    ["push_vlan", "mod_vlan"].into_iter().for_each(|word| banned.add(word));
    rules.iter_mut().for_each(|rule| banned.leave(&mut rule.actions));
    let buckets = groups.iter_mut().flat_map(|group| &mut group.buckets);
    buckets.for_each(|bucket| banned.leave(&mut bucket.actions));
    let mut banned = banned.clone();
    for word in
        ["all", "flood", "in_port", "output:reg", "output:NXM", "NORMAL", "learn(", "check_pkt"]
    {
        banned.add(word);
    }
    for rule in rules {
        if random.once_in(2) {
            let at = random.place(rule.actions.len() + 1);
            rule.insert(at, format!("output:{}", patch(random)));
        }
    }
    let count = 2 + random.below(RULES);
    let mut second: Vec<Rule> = (0..count).map(|_| any_rule(random)).collect();
    for rule in &mut second {
        banned.leave(&mut rule.actions);
        if rule.matching.get(Field::InPortOxm).is_some() || random.once_in(4) {
            rule.matching.set(Field::InPortOxm, patch(random).into());
        }
    }
    second.push(last(random));
    second
}

fn patch(random: &mut Random) -> u16 {
    random.one(&PATCHES).unwrap_or(PATCHES[0])
}

/// What becomes of all that no other rule is for.
fn last(random: &mut Random) -> Rule {
    let port = 1 + random.below(PORTS.into());
    let actions = vec![format!("output:{port}"), format!("resubmit(,{})", 1 + random.below(3))];
    Rule { table: 0, priority: 0, matching: Match::new(), actions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_go_on_to_the_other_bridge_and_not_back() {
        let mut random = Random::new(1);
        let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            let (mut rules, mut banned) = super::super::rule::rules(&mut random, false, &mut []);
            let second = second(&mut random, (&mut [], &mut rules), &mut banned);
            seconds.extend(second.iter().map(ToString::to_string));
            firsts.extend(rules.iter().map(ToString::to_string));
        }
        assert!(firsts.iter().any(|text| text.contains("output:12")));
        assert!(seconds.iter().any(|text| text.contains("in_port=12")), "{seconds:?}");
        let is_back = |text: &&String| text.contains("output:11") || text.contains("output:all");
        assert_eq!(seconds.iter().find(is_back), None);
    }
}
