use std::collections::BTreeMap;
use std::fmt;

use openflow::message::flow_stats::FlowStats;

use super::told::parts;

/// How many packets rules have counted that match on a field, or do something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    fields: BTreeMap<String, u64>,
    actions: BTreeMap<String, u64>,
}

impl Coverage {
    /// What the rules that have counted something match on and do.
    pub fn of(rules: &[FlowStats]) -> Self {
        let mut coverage = Self::default();
        for rule in rules {
            let packets = rule.packets.unwrap_or_default();
            if packets == 0 {
                continue;
            }
            for entry in rule.matching.iter() {
                *coverage.fields.entry(entry.field.to_string()).or_default() += packets;
            }
            for action in names(&rule.instructions.to_string()) {
                *coverage.actions.entry(action).or_default() += packets;
            }
        }
        coverage
    }

    /// Counts what is in another one, too.
    pub fn add(&mut self, other: &Self) {
        let both = [(&mut self.fields, &other.fields), (&mut self.actions, &other.actions)];
        for (all, more) in both {
            more.iter()
                .for_each(|(name, packets)| *all.entry(name.clone()).or_default() += packets);
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |all: &BTreeMap<String, u64>| {
            let all: Vec<String> =
                all.iter().map(|(name, packets)| format!("{name} {packets}")).collect();
            all.join(", ")
        };
        writeln!(f, "fields: {}", line(&self.fields))?;
        write!(f, "actions: {}", line(&self.actions))
    }
}

/// The names of actions in a list, and in lists in them: with the field where one is written.
fn names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in parts(list).filter(|part| !part.is_empty()) {
        let end = part.find([':', '(', '=']).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        let target = part.rsplit_once("->").map(|(_, target)| target);
        names.push(match target.filter(|_| !rest.starts_with('(')) {
            Some(target) => format!("{name}->{}", target.split('[').next().unwrap_or(target)),
            None if part.bytes().all(|byte| byte.is_ascii_digit()) => "output".to_owned(),
            None => name.to_owned(),
        });
        let inner = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        if let Some(inner) = inner.filter(|_| ["clone", "write_actions"].contains(&name)) {
            names.extend(self::names(inner));
        } else if let Some(inner) = inner.filter(|_| name == "ct") {
            let of = parts(inner).map(|part| part.split(['=', '(']).next().unwrap_or(part));
            names.extend(of.map(|part| format!("ct {part}")));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use openflow::Match;
    use openflow::message::flow_mod::Command;
    use openflow::text::{Names, flow_mod};

    use super::*;

    #[test]
    fn what_counts_is_what_has_counted_packets() {
        let rule = |text: &str, packets| {
            let rule = flow_mod(text, Command::Add, Names::NONE).unwrap();
            let (matching, instructions): (Match, _) = (rule.matching, rule.instructions);
            FlowStats { matching, instructions, packets: Some(packets), ..FlowStats::default() }
        };
        let all = [
            rule("tcp,reg0=1,actions=set_field:1->reg1,clone(push_vlan:0x8100,output:2),3", 2),
            rule("ip,reg0=2,actions=move:reg1[0..3]->reg2[1..4],ct(commit,zone=1,table=2)", 3),
            rule("reg3=2,actions=write_actions(dec_ttl)", 0),
        ];
        let coverage = Coverage::of(&all);
        let text = coverage.to_string();
        let (fields, actions) = text.split_once("\nactions: ").unwrap();
        assert!(fields.contains("reg0 5") && !fields.contains("reg3"), "{fields}");
        let words = ["output 4", "clone 2", "push_vlan 2", "ct 3", "ct commit 3", "ct zone 3"];
        for word in words {
            assert!(actions.split(", ").any(|action| action == word), "{word}: {actions}");
        }
        assert!(actions.contains("->reg1 2") && actions.contains("move->"), "{actions}");
        let mut twice = coverage.clone();
        twice.add(&coverage);
        assert!(twice.to_string().contains("reg0 10"));
    }
}
