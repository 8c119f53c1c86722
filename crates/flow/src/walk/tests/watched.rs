//! Walks that are watched.

use proptest::prelude::*;

use super::frozen::pause;
use super::*;
use crate::classifier::Classifier;

/// What a watcher hears of a walk.
#[derive(Default)]
pub(super) struct Heard(pub(super) Vec<String>);

impl Watch for Heard {
    fn look_up(&mut self, _: &Key, _: u8, rules: &Classifier<Arc<Rule>>) {
        self.0.push(format!("among {}", rules.len()));
    }

    fn enter(&mut self, _: &Key, place: Place<'_>) {
        self.0.push(match place {
            Place::Table(table, rule) => format!("{table} {:?}", rule.map(|rule| rule.priority)),
            Place::Fragments(table) => format!("{table} fragments"),
            Place::ActionSet => "set".to_owned(),
            Place::Bucket(id) => format!("bucket {id}"),
        });
    }

    fn leave(&mut self) {
        self.0.push("leave".to_owned());
    }

    fn step(&mut self, _: &Key, step: Step<'_>, is_last: bool) {
        let step = match step {
            Step::Action(action) => action.to_string(),
            other => format!("{other:?}"),
        };
        self.0.push(format!("{step}{}", if is_last { "." } else { "" }));
    }

    fn send(&mut self, key: &Key, op: &Op) {
        self.0.push(format!("{op:?} {}", key.get(slot::ETH_DST)));
    }

    fn note(&mut self, kind: Kind, note: Arguments<'_>) {
        self.0.push(format!("{kind:?}: {note}"));
    }
}

#[test]
fn a_watcher_hears_of_every_step() {
    let clone = Action::Clone(vec![set(Field::EthDst, 7), output(2)]);
    let actions = vec![Action::resubmit_table(1), clone, output(1)];
    let pipeline = pipeline(&[(0, 5, Match::new(), actions)]);
    let mut heard = Heard::default();
    let mut key = key();
    key.set(slot::ETH_DST, 1);
    walk(&pipeline, &mut key, &Start::Table, Some(&mut heard));
    let copy = "clone(set_field:00:00:00:00:00:07->eth_dst,output:2)";
    assert_eq!(
        heard.0,
        [
            "among 1",
            "0 Ok(5)",
            "resubmit(,1)",
            "1 Err(false)",
            "Drop.",
            "leave",
            copy,
            "set_field:00:00:00:00:00:07->eth_dst",
            "output:2.",
            "Output(12) 7",
            "output:1.",
            "Warning: skipping output to input port",
            "leave",
        ]
    );
}

/// Watches, and wants to know nothing.
struct Idle;

impl Watch for Idle {}

/// Actions that go on to other tables, forwards and back, or matter to what comes behind them.
fn wandering() -> impl Strategy<Value = Action> {
    let to = |table| Action::resubmit_table(table);
    prop_oneof![
        4 => (0..6_u8).prop_map(to),
        1 => (0..6_u8, 1..4_u32).prop_map(|(table, port)| Action::Resubmit {
            port: Some(PortNo(port)),
            table: Some(table),
            ct: false,
        }),
        2 => (1..5_u32).prop_map(output),
        2 => (0..3_u128).prop_map(|value| set(Field::Reg0, value)),
        1 => (0..3_u128).prop_map(|value| set(Field::EthDst, value)),
        1 => (0..6_u8).prop_map(move |table| Action::Clone(vec![to(table), output(4)])),
        1 => Just(Action::Exit),
        1 => Just(Action::output(PortNo::CONTROLLER)),
        1 => Just(pause()),
    ]
}

proptest! {
    /// Chains of tables are gone along in another manner when nobody watches.
    #[test]
    fn a_way_is_the_same_when_it_is_watched(
        rules in prop::collection::vec(
            (
                (0..6_u8, 0..3_u16, prop::option::of(0..3_u128)),
                prop::collection::vec(wandering(), 0..4),
                (prop::option::of(wandering()), prop::option::of(1..6_u8)),
            ),
            0..20,
        ),
        asks in any::<bool>(),
    ) {
        let mut pipeline = pipeline(&[]);
        pipeline.asks_controllers = asks;
        for ((table, priority, reg), apply, (write, goto)) in rules {
            let matching = reg.map_or(Match::new(), |reg| Match::new().with(Field::Reg0, reg));
            let mut instructions = Instructions::apply(apply);
            instructions.write = write.map(|action| vec![action]);
            instructions.goto_table = goto.filter(|goto| *goto > table);
            let add = Change::add(table, matching, instructions).with_priority(priority);
            pipeline.tables.change(&add, 0).unwrap();
        }
        let (mut alone, mut watched) = (key(), key());
        let path = walk(&pipeline, &mut alone, &Start::Table, None);
        let other = walk(&pipeline, &mut watched, &Start::Table, Some(&mut Idle));
        prop_assert!(path == other, "{path:?}\n{other:?}");
        prop_assert_eq!(alone, watched);
    }
}
