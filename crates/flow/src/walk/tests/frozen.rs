//! Packets that stop, and go on later.

use super::*;
use crate::groups::PlaceHash;

/// What a packet does until it stops, and from there each time that it is let go on.
fn in_parts(pipeline: &Pipeline) -> (Vec<Op>, usize) {
    let (mut all, mut stops) = (Vec::new(), 0);
    let mut left = vec![(path(pipeline).ops, key())];
    while let Some((ops, key)) = left.pop() {
        for op in ops {
            let Op::Controller(about) = &op else {
                all.push(op);
                continue;
            };
            let frozen = about.frozen.as_deref().unwrap();
            assert_eq!((frozen.key.beside(), frozen.table), (*frozen.key, None));
            stops += 1;
            let mut packet = key;
            let path = walk(pipeline, &mut packet, &Start::Frozen(frozen), None);
            left.push((path.ops, key));
        }
    }
    (all, stops)
}

pub(super) fn pause() -> Action {
    Action::Controller(Box::new(openflow::action::Controller {
        pause: true,
        ..openflow::action::Controller::default()
    }))
}

#[test]
fn a_packet_that_stops_does_what_one_does_that_does_not() {
    let part = |field| Subfield { field, offset: 0, bits: 32 };
    let rules = |pause: &[Action]| {
        let list = |parts: &[&[Action]]| parts.concat();
        let go_on = Instructions {
            apply: list(&[pause, &[output(2)], pause]),
            write: Some(vec![output(4)]),
            metadata: Some((1, 1)),
            goto_table: Some(5),
            clear: true,
        };
        let mut pipeline = pipeline(&[
            (
                0,
                0,
                Match::new(),
                list(&[
                    &[set(Field::Reg0, 3), Action::Push(part(Field::Reg0))],
                    pause,
                    &[Action::resubmit_table(1), Action::Pop(part(Field::Reg1))],
                    pause,
                    &[Action::OutputField { source: part(Field::Reg1), max_len: 0 }, output(2)],
                    pause,
                    &[Action::Clone(vec![output(2), output(4)]), output(2)],
                    pause,
                ]),
            ),
            (2, 0, Match::new().with(Field::Reg0, 3), list(&[&[output(4)], pause])),
            (5, 0, Match::new().with(Field::Metadata, 1), list(&[pause, &[output(3)], pause])),
        ]);
        pipeline.tables.change(&Change::add(1, Match::new(), go_on), 0).unwrap();
        pipeline
    };
    let (parts, stops) = in_parts(&rules(&[pause()]));
    let (whole, none) = in_parts(&rules(&[]));
    assert_eq!(none, 0);
    assert!(stops > 6, "{stops}");
    let outputs = |ops: &[Op]| {
        let mut ports: Vec<_> = ops
            .iter()
            .filter_map(|op| if let Op::Output(to) = op { Some(*to) } else { None })
            .collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(outputs(&parts), outputs(&whole));
}

/// As in Open vSwitch, where it is an end as `exit` is; one that goes round for whoever asks is none.
#[test]
fn nothing_is_done_behind_a_clone_in_which_a_packet_stops() {
    let pop = Action::Decap { packet_type: 0xFFFE };
    let encap =
        openflow::action::Encap { packet_type: 0x1_894F, header_size: 0, properties: vec![] };
    for stop in [vec![pause()], vec![Action::Encap(Box::new(encap)), pop], vec![Action::Exit]] {
        let clone = Action::Clone([stop, vec![output(2)]].concat());
        let rules = [
            (0, 0, Match::new(), vec![Action::resubmit_table(1), output(3)]),
            (1, 0, Match::new(), vec![output(2), clone, output(4)]),
        ];
        let sent = path(&pipeline(&rules)).ops;
        let sent = sent.iter().filter(|op| matches!(op, Op::Output(_)));
        assert_eq!(sent.cloned().collect::<Vec<_>>(), [Op::Output(12)]);
    }
    // What is left of the copy is done once that goes on.
    let clone = Action::Clone(vec![output(3), pause(), output(2)]);
    let all = [(0, 0, Match::new(), vec![clone, output(4)])];
    assert_eq!(in_parts(&pipeline(&all)), (vec![Op::Output(13), Op::Output(12)], 1));
    let clone = Action::Clone(vec![Action::DebugRecirc, output(2)]);
    assert_eq!(ops(vec![clone, output(4)]), [Op::Output(12), Op::Output(14)]);
}

/// Has packets go round where actions say so, and keeps what they go on with.
#[derive(Default)]
struct Rounds(Vec<Frozen>);

impl Watch for Rounds {
    fn goes_round(&self) -> bool {
        true
    }

    fn round(&mut self, _: &Key, hash: Option<PlaceHash>, next: Frozen) {
        assert_eq!(hash, None);
        self.0.push(next);
    }
}

#[test]
fn a_packet_goes_round_only_for_whoever_asks() {
    let resubmit = Action::Resubmit { port: None, table: Some(1), ct: false };
    let any = Match::new();
    let pipeline = pipeline(&[
        (0, 1, any.clone(), vec![output(2), resubmit, output(3)]),
        (1, 1, any, vec![Action::DebugSlow, Action::DebugRecirc, output(4)]),
    ]);
    let all = [Op::Output(12), Op::Output(14), Op::Output(13)];
    assert_eq!(*walk(&pipeline, &mut key(), &Start::Table, None).ops, all);
    let mut rounds = Rounds::default();
    let way = walk(&pipeline, &mut key(), &Start::Table, Some(&mut rounds));
    let [next] = rounds.0.as_slice() else { panic!("{rounds:?}", rounds = rounds.0) };
    assert_eq!(*way.ops, all[..1]);
    assert_eq!(*walk(&pipeline, &mut key(), &Start::Frozen(next), None).ops, all[1..]);
}
