use std::fmt;

use openflow::message::flow_mod::ANY_GROUP;
use openflow::message::group::{
    ALL_BUCKETS, Bucket as Sent, GroupCommand, GroupMod, GroupType, Selection,
};
use openflow::testing::Random;
use openflow::text::{Names, instructions};
use openflow::{Field, Match, PortNo};

use super::rule::{Kinds, Rule};
use super::values::PORTS;

/// The most groups of a case.
const GROUPS: u64 = 4;

/// A port that there is not, so that a bucket which watches it is dead.
const DEAD: u16 = 77;

/// A group, as the parts of its text, so that some can be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub id: u32,
    pub kind: GroupType,
    pub buckets: Vec<Bucket>,
}

/// What a group does to a packet, or may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub weight: u16,
    pub watch_port: Option<u16>,
    pub watch_group: Option<u32>,
    pub actions: Vec<String>,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group_id={},type={}", self.id, name(self.kind))?;
        if self.kind == GroupType::Select {
            write!(f, ",selection_method=hash,fields(eth_src)")?;
        }
        for (id, bucket) in self.buckets.iter().enumerate() {
            write!(f, ",bucket=bucket_id:{id}")?;
            if self.kind == GroupType::Select {
                write!(f, ",weight:{}", bucket.weight)?;
            }
            if let Some(port) = bucket.watch_port {
                write!(f, ",watch_port:{port}")?;
            }
            if let Some(group) = bucket.watch_group {
                write!(f, ",watch_group:{group}")?;
            }
            let actions = bucket.actions.join(",");
            write!(f, ",actions={}", if actions.is_empty() { "drop" } else { &actions })?;
        }
        Ok(())
    }
}

impl Group {
    /// What is sent; nothing where the actions of a bucket cannot be.
    pub fn change(&self) -> Option<GroupMod> {
        let buckets = self.buckets.iter().zip(0..).map(|(bucket, id)| self.bucket(bucket, id));
        // By which hash matters little, since one bucket alone can be selected; but for that of the data
        // path Open vSwitch has packets go round, and behind a clone they do not go on then.
        let fields = vec![(Field::EthSrc, Field::EthSrc.full_mask())];
        let selection = Selection { method: "hash".to_owned(), parameter: 0, fields };
        Some(GroupMod {
            command: GroupCommand::Add,
            kind: self.kind,
            group: self.id,
            bucket: ALL_BUCKETS,
            buckets: buckets.collect::<Option<_>>()?,
            selection: (self.kind == GroupType::Select).then_some(selection),
        })
    }

    /// Whether a bucket has a meter.
    pub fn meters(&self) -> bool {
        let mut actions = self.buckets.iter().flat_map(|bucket| &bucket.actions);
        actions.any(|action| action.starts_with("meter:"))
    }

    fn bucket(&self, bucket: &Bucket, id: u32) -> Option<Sent> {
        let text = bucket.actions.join(",");
        let text = if text.is_empty() { "drop" } else { &text };
        Some(Sent {
            id,
            weight: if self.kind == GroupType::Select { bucket.weight } else { 0 },
            watch_port: bucket.watch_port.map_or(PortNo::ANY, |port| PortNo(port.into())),
            watch_group: bucket.watch_group.unwrap_or(ANY_GROUP),
            actions: instructions(text, Names::NONE).ok()?.apply,
        })
    }
}

/// Groups that lead to each other, those with higher numbers first, as they have to be sent; mostly none.
pub fn groups(random: &mut Random) -> Vec<Group> {
    let count = if random.once_in(2) { 1 + random.below(GROUPS) } else { 0 };
    (0..count).rev().map(|place| group(random, place, count)).collect()
}

fn group(random: &mut Random, place: u64, count: u64) -> Group {
    let kinds = [GroupType::All, GroupType::Select, GroupType::Indirect, GroupType::FastFailover];
    let kind = random.one(&kinds).unwrap_or(GroupType::All);
    let most = if kind == GroupType::Indirect { 1 } else { 1 + random.below(4) };
    // Which of several is selected is a matter of a hash of its own.
    let selected = random.below(most);
    let buckets = (0..most).map(|at| {
        let mut bucket = bucket(random, place, count);
        let is_select = kind == GroupType::Select;
        if is_select && at != selected {
            bucket.weight = u16::from(random.once_in(2));
            bucket.watch_port = (bucket.weight > 0).then_some(DEAD);
        }
        if kind == GroupType::FastFailover {
            watch(random, &mut bucket, place, count);
        }
        bucket
    });
    let buckets = buckets.collect();
    Group { id: number(place), kind, buckets }
}

const fn name(kind: GroupType) -> &'static str {
    match kind {
        GroupType::All => "all",
        GroupType::Select => "select",
        GroupType::Indirect => "indirect",
        GroupType::FastFailover => "ff",
    }
}

/// The number of a group by its place.
fn number(place: u64) -> u32 {
    u32::try_from(place + 1).unwrap_or(1)
}

/// One of the groups that are sent before one.
fn later(random: &mut Random, place: u64, count: u64) -> Option<u32> {
    let left = count - place - 1;
    (left > 0).then(|| number(place + 1 + random.below(left)))
}

fn bucket(random: &mut Random, place: u64, count: u64) -> Bucket {
    let kinds = Kinds { matching: Match::new(), table: 0 };
    let mut actions: Vec<String> = Vec::new();
    for _ in 0..1 + random.below(4) {
        let group = random.once_in(6).then(|| later(random, place, count)).flatten();
        let action = group.map_or_else(|| kinds.action(random, 1), |id| format!("group:{id}"));
        // A meter is written in front of all else, wherever it is done.
        let is_meter = action.starts_with("meter:");
        match actions.first() {
            _ if !may_be(&action) => {}
            Some(first) if is_meter && first.starts_with("meter:") => {}
            _ => actions.insert(if is_meter { 0 } else { actions.len() }, action),
        }
    }
    Bucket { weight: 1, watch_port: None, watch_group: None, actions }
}

/// Whether a bucket may have an action: not those whose place among others matters ([`Rule`]).
fn may_be(action: &str) -> bool {
    let words = ["learn(", "check_pkt_larger"];
    !words.iter().any(|word| action.contains(word)) && instructions(action, Names::NONE).is_ok()
}

fn watch(random: &mut Random, bucket: &mut Bucket, place: u64, count: u64) {
    let group = random.once_in(4).then(|| later(random, place, count)).flatten();
    let port = 1 + u16::try_from(random.below(PORTS.into())).unwrap_or(0);
    let port = if random.once_in(2) { DEAD } else { port };
    bucket.watch_group = group;
    bucket.watch_port = (group.is_none() || random.once_in(2)).then_some(port);
}

/// Has some rules send packets to groups.
pub fn used_by(random: &mut Random, groups: &[Group], rules: &mut [Rule]) {
    let count = groups.len() as u64;
    if count == 0 {
        return;
    }
    for rule in rules {
        if random.once_in(3) {
            let group = number(random.below(count));
            let at = random.place(rule.actions.len() + 1);
            rule.insert(at, format!("group:{group}"));
        } else if random.once_in(10) {
            let group = number(random.below(count));
            rule.insert(rule.actions.len(), format!("write_actions(group:{group})"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_can_be_sent_and_rules_lead_to_them() {
        let mut random = Random::new(1);
        let mut texts = Vec::new();
        for _ in 0..200 {
            let groups = groups(&mut random);
            assert!(groups.iter().all(|group| group.change().is_some()), "{groups:?}");
            assert!(groups.is_sorted_by(|group, next| group.id > next.id));
            let (mut rules, _) = super::super::rule::rules(&mut random, false, &mut []);
            // Some cannot be by now, as where others are left out of them.
            rules.retain(|rule| rule.change().is_some());
            used_by(&mut random, &groups, &mut rules);
            assert!(rules.iter().all(|rule| rule.change().is_some()));
            texts.extend(groups.iter().map(ToString::to_string));
            texts.extend(rules.iter().map(ToString::to_string));
        }
        for word in [
            "=all,",
            "=select,",
            "=indirect,",
            "=ff,",
            "watch_port:77",
            "watch_group:",
            "actions=group:",
            "meter:",
            "write_actions(group:",
            "weight:0",
        ] {
            assert!(texts.iter().any(|text| text.contains(word)), "{word}");
        }
    }
}
