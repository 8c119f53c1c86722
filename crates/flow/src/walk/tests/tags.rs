//! What becomes of tags.

use super::*;

#[test]
fn tags_are_put_on_changed_and_taken_off() {
    let push = Action::PushVlan { ethertype: 0x88A8 };
    let vid = |vid| Action::SetVlanVid { vid, push: true };
    let pushed = |tpid, tci| Op::Edit(Edit::PushVlan { tpid, tci });
    assert_eq!(ops(vec![push.clone(), vid(5), output(2)]), [pushed(0x88A8, 5), Op::Output(12)]);
    assert_eq!(ops(vec![vid(5), output(2)]), [pushed(0x8100, 5), Op::Output(12)]);
    assert_eq!(ops(vec![vid(5), Action::StripVlan, output(2)]), [Op::Output(12)]);
    assert_eq!(ops(vec![Action::StripVlan, output(2)]), [Op::Output(12)]);
    let keep = Action::SetVlanVid { vid: 5, push: false };
    assert_eq!(ops(vec![keep.clone(), output(2)]), [Op::Output(12)]);
    let mut tagged = key();
    tagged.set(slot::VLAN_TCI, VLAN_5.into());
    let pipeline = pipeline(&[(0, 0, Match::new(), vec![keep, output(2), vid(6), output(3)])]);
    let path = walk(&pipeline, &mut tagged, &Start::Table, None);
    let vlan = |tci| Op::Edit(Edit::SetVlan { mask: 0xFFF, tci });
    assert_eq!(*path.ops, [vlan(5), Op::Output(12), vlan(6), Op::Output(13)]);
    assert_eq!(tagged.get_u16(slot::VLAN_TCI), 0x1006);
}

/// The changes of tags of a packet with these tags, the outermost first.
fn tags(tags: &[u16], actions: Vec<Action>) -> Vec<Edit> {
    let mut key = key();
    let places = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)];
    for ((tpid, tci), tag) in places.into_iter().zip(tags) {
        key.set(tpid, 0x8100);
        key.set(tci, u128::from(tag | TAG_PRESENT));
    }
    let actions = actions.into_iter().chain([output(2)]).collect();
    let pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
    let ops = walk(&pipeline, &mut key, &Start::Table, None).ops.into_vec();
    ops.into_iter()
        .filter_map(|op| if let Op::Edit(edit) = op { Some(edit) } else { None })
        .collect()
}

fn set_tci(tci: u64) -> Action {
    Action::Load { target: Subfield::whole(Field::VlanTci), value: tci }
}

#[test]
fn changes_of_tags_are_few() {
    let (push, pop) = (|| Action::PushVlan { ethertype: 0x88A8 }, || Action::PopVlan);
    let vid = |vid| Action::SetVlanVid { vid, push: true };
    let pushed = |tci| Edit::PushVlan { tpid: 0x88A8, tci };
    let set = |tci| Edit::SetVlan { mask: 0xFFF, tci };
    assert_eq!(tags(&[5], vec![vid(7)]), [set(7)]);
    assert_eq!(tags(&[5], vec![vid(7), push(), vid(8)]), [set(7), pushed(8)]);
    assert_eq!(tags(&[5], vec![vid(7), pop()]), [Edit::PopVlan]);
    assert_eq!(tags(&[5], vec![push(), vid(3), pop()]), []);
    assert_eq!(tags(&[5], vec![pop(), push()]), [Edit::PopVlan, pushed(0)]);
    assert_eq!(tags(&[], vec![push(), push(), pop()]), [pushed(0)]);
    assert_eq!(tags(&[5, 6], vec![pop(), vid(7)]), [Edit::PopVlan, set(7)]);
    // Where the outer one says that it is none, there are none.
    let none = || set_tci(0);
    assert_eq!(tags(&[5], vec![push(), none()]), [Edit::PopVlan]);
    assert_eq!(tags(&[5], vec![push(), none(), set_tci(0x1007)]), [pushed(7)]);
    assert_eq!(tags(&[5, 6], vec![none()]), [Edit::PopVlan, Edit::PopVlan]);
    // A third one pushes the innermost out.
    assert_eq!(
        tags(&[5], vec![push(), vid(1), push(), vid(2)]),
        [Edit::PopVlan, pushed(1), pushed(2)]
    );
}

/// What is done with a packet whose tag is taken off, and of which so much is sent.
fn sent_of_tagged(max_len: u32) -> Vec<Op> {
    let mut key = key();
    key.set(slot::VLAN_TCI, VLAN_5.into());
    let cut = Action::OutputTruncated { port: PortNo(2), max_len };
    let pipeline = pipeline(&[(0, 0, Match::new(), vec![Action::PopVlan, cut, output(3)])]);
    let ops = walk(&pipeline, &mut key, &Start::Table, None).ops.into_vec();
    ops.into_iter().filter(|op| *op != Op::Output(13)).collect()
}

#[test]
fn a_length_is_that_before_tags_that_are_still_to_be() {
    let cut = || Action::OutputTruncated { port: PortNo(2), max_len: 60 };
    assert_eq!(sent_of_tagged(18).len(), 5);
    assert_eq!(sent_of_tagged(17), [Op::Edit(Edit::PopVlan)]);
    let of = |actions: Vec<Action>| {
        let ops = ops(actions);
        ops.into_iter().find_map(|op| if let Op::Cut(len) = op { Some(len) } else { None })
    };
    let push = || Action::PushVlan { ethertype: 0x8100 };
    assert_eq!(of(vec![cut()]), Some(60));
    assert_eq!(of(vec![push(), cut()]), Some(64));
    assert_eq!(of(vec![push(), output(3), cut()]), Some(60));
}

/// What is done with a packet that begins with a header of IP.
fn ops_of_bare(rules: &[(u8, u16, Match, Vec<Action>)]) -> (Vec<Op>, Option<Lost>) {
    let mut pipeline = pipeline(rules);
    pipeline.ports.iter_mut().for_each(|(_, port)| port.takes_bare = true);
    let mut key = key();
    key.set_packet_type(0x1_0800);
    let path = walk(&pipeline, &mut key, &Start::Table, None);
    (path.ops.into_vec(), path.lost)
}

#[test]
fn without_ethernet_there_are_no_tags() {
    let encap = openflow::action::Encap { packet_type: 0, header_size: 0, properties: vec![] };
    let tag = |vid| Action::SetVlanVid { vid, push: true };
    for action in [tag(5), Action::PushVlan { ethertype: 0x8100 }, Action::PopVlan, set_tci(0x1005)]
    {
        let sent = vec![output(2), action.clone(), output(3), action.clone()];
        let (ops, lost) = ops_of_bare(&[(0, 0, Match::new(), sent)]);
        assert_eq!((ops, lost), (vec![Op::Output(12), Op::Output(13)], None), "{action:?}");
        // Nor behind one that is put on then.
        let actions = vec![action.clone(), Action::Encap(Box::new(encap.clone())), output(3)];
        let (ops, _) = ops_of_bare(&[(0, 0, Match::new(), actions)]);
        let is_tag = |op: &Op| matches!(op, Op::Edit(Edit::PushVlan { .. } | Edit::SetVlan { .. }));
        assert!(!ops.iter().any(is_tag) && ops.last() == Some(&Op::Output(13)), "{ops:?}");
    }
    // Rules find what was written all the same, until it goes out.
    let tagged = Match::new().with(Field::PacketType, 0x1_0800).with(Field::VlanTci, 0x1005);
    let asks = Action::resubmit_table(1);
    let actions = vec![tag(5), asks.clone(), output(3), asks];
    let (ops, _) = ops_of_bare(&[(0, 0, Match::new(), actions), (1, 0, tagged, vec![output(2)])]);
    assert_eq!(ops, [Op::Output(12), Op::Output(13)]);
}
