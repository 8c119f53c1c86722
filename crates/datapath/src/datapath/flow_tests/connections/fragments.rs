//! Fragments whose connections are tracked.

use super::*;

/// A long datagram between two ends.
fn long((from, source): ([u8; 4], u16), (to, destination): ([u8; 4], u16)) -> Vec<u8> {
    let frame = FrameBuilder::new(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let frame = frame.ip(from, to).udp(source, destination).payload(&[7; 3000]);
    frame.build().unwrap()
}

/// It in fragments, of 1,480 bytes but for the last one.
fn divided(whole: &[u8], id: u16) -> Vec<Vec<u8>> {
    let (headers, payload) = whole.split_at(34);
    let count = payload.chunks(1480).len();
    let part = |(at, part): (usize, &[u8])| {
        let mut frame = [headers, part].concat();
        let more = if at + 1 < count { 0x2000 } else { 0 };
        let len = u16::try_from(20 + part.len()).unwrap();
        let fields = [len, id, more | u16::try_from(at * 185).unwrap()];
        let mut sum = u16::from_be_bytes([frame[24], frame[25]]);
        for (place, value) in [16, 18, 20].into_iter().zip(fields) {
            let old = u16::from_be_bytes([frame[place], frame[place + 1]]);
            sum = packet::checksum::update(sum, old, value);
            frame[place..place + 2].copy_from_slice(&value.to_be_bytes());
        }
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    payload.chunks(1480).enumerate().map(part).collect()
}

fn there(port: u16, id: u16) -> Vec<Vec<u8>> {
    divided(&long((ONE, port), (OTHER, 53)), id)
}

fn back(port: u16, id: u16) -> Vec<Vec<u8>> {
    divided(&long((OTHER, 53), (ONE, port)), id)
}

#[test]
fn fragments_go_on_as_such_once_all_are_there() {
    let (mut bench, all) = connected(&FIREWALL);
    let [first, middle, last] = there(1000, 1).try_into().unwrap();
    // Others go at once, wherever they are among them.
    let got = bench.send(0, &[last.clone(), udp(1001, false), first.clone()]);
    assert_eq!(got[1], [udp(1001, false)]);
    assert_eq!((all.count(), all.fragments().status().count), (1, 2));
    let got = bench.send(0, &[udp(1002, false), middle.clone()]);
    let all_of_it = [first.clone(), middle, last, udp(1002, false)];
    assert!(got[1] == all_of_it, "{:?}", got[1].iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!((all.count(), all.fragments().status().count), (3, 0));
    // What comes back is of the connection, each of its fragments.
    let answer = back(1000, 2);
    let got = bench.send(1, &[answer[1].clone(), udp(1001, true), answer[0].clone()]);
    assert_eq!(got[0], [udp(1001, true)]);
    assert_eq!(bench.send(1, &answer[2..])[0], answer);
    let nobodys = back(1003, 3);
    assert_eq!(counts(&bench.send(1, &nobodys)), [0, 0, 0, 0]);
    assert_eq!(bench.dropped(DropReason::FlowDrop), 3);
    // Where they are not put together, they are of no connection.
    all.fragments().enable(false, false);
    assert_eq!(counts(&bench.send(1, &back(1000, 4))), [0, 0, 0, 3]);
}

#[test]
fn what_comes_in_by_different_ports_is_not_put_together() {
    let (mut bench, all) = connected(&["ip,actions=ct(commit),output:3"]);
    let parts = there(1000, 1);
    bench.send(0, &parts[..2]);
    assert_eq!(counts(&bench.send(1, &parts[2..])), [0, 0, 0, 0]);
    assert_eq!(all.fragments().status().packets.len(), 2);
    assert_eq!(counts(&bench.send(0, &parts[2..])), [0, 0, 3, 0]);
}

/// A packet in three fragments, of which the last one is from another host, each in the VLAN that he is in.
fn of_two(hosts: [u16; 2]) -> Vec<Vec<u8>> {
    let parts = divided(&long((ONE, 1000), (OTHER, 53)), 1);
    let tag = |mut frame: Vec<u8>, host: u16| {
        let [high, low] = host.to_be_bytes();
        frame.splice(12..12, [0x81, 0, high, low]);
        frame
    };
    let [first, second, last] = parts.try_into().unwrap();
    let [one, other] = hosts;
    vec![tag(first, one), tag(second, one), tag(last, other)]
}

/// Where frames go by these rules: when hosts of two VLANs have sent fragments of one packet, and once each of
/// them has sent the others.
fn shared_out(text: &[&str]) -> [Vec<usize>; 3] {
    let (mut bench, _) = connected(text);
    let [mixed, first, second] = [of_two([1, 2]), of_two([1, 1]), of_two([2, 2])];
    [&mixed[..], &first[2..], &second[..2]].map(|frames| counts(&bench.send(0, frames)))
}

#[test]
fn what_is_of_other_networks_is_not_put_together() {
    // Whatever becomes of tags.
    for text in [
        &[
            "ip,actions=ct(table=1)",
            "table=1,dl_vlan=1,actions=output:2",
            "table=1,dl_vlan=2,actions=output:3",
        ][..],
        &[
            "dl_vlan=1,ip,actions=strip_vlan,set_field:1->metadata,ct(table=1)",
            "dl_vlan=2,ip,actions=strip_vlan,set_field:2->metadata,ct(table=1)",
            "table=1,metadata=1,actions=output:2",
            "table=1,metadata=2,actions=output:3",
        ],
        &[
            "dl_vlan=1,ip,actions=strip_vlan,ct(commit),output:2",
            "dl_vlan=2,ip,actions=strip_vlan,ct(commit),output:3",
        ],
        &[
            "dl_vlan=1,ip,actions=strip_vlan,ct(commit,exec(set_field:1->ct_mark),table=1)",
            "dl_vlan=2,ip,actions=strip_vlan,ct(commit,exec(set_field:2->ct_mark),table=1)",
            "table=1,ct_mark=1,actions=output:2",
            "table=1,ct_mark=2,actions=output:3",
        ],
    ] {
        assert_eq!(shared_out(text), [[0; 4], [0, 3, 0, 0], [0, 0, 3, 0]], "{text:?}");
    }
}

/// Where frames go by these rules: when two stations have sent fragments of one packet, and once each of them has
/// sent the others.
fn shared_by_stations(text: &[&str]) -> [Vec<usize>; 2] {
    let (mut bench, _) = connected(text);
    let one = there(1000, 1);
    let mut other = one.clone();
    other.iter_mut().for_each(|frame| frame[11] = 9);
    let [mut mixed, mut rest] = [Vec::new(), Vec::new()];
    for (at, (one, other)) in one.into_iter().zip(other).enumerate() {
        let (now, later) = if at == 0 { (one, other) } else { (other, one) };
        mixed.push(now);
        rest.push(later);
    }
    [mixed, rest].map(|frames| counts(&bench.send(0, &frames)))
}

/// Though nothing goes on with metadata, as behind `ct` without a table.
#[test]
fn what_has_other_metadata_is_not_put_together() {
    let shared = shared_by_stations(&[
        "dl_src=02:00:00:00:00:01,ip,actions=set_field:1->metadata,ct(commit),output:2",
        "dl_src=02:00:00:00:00:09,ip,actions=set_field:2->metadata,ct(commit),output:3",
    ]);
    assert_eq!(shared, [vec![0; 4], vec![0, 3, 3, 0]]);
}

/// What has no header of Ethernet is none of what has one.
#[test]
fn what_begins_with_something_else_is_not_put_together() {
    let shared = shared_by_stations(&[
        "dl_src=02:00:00:00:00:01,ip,actions=decap(),ct(commit),encap(ethernet),output:2",
        "dl_src=02:00:00:00:00:09,ip,actions=ct(commit),output:3",
    ]);
    assert_eq!(shared, [vec![0; 4], vec![0, 3, 3, 0]]);
}

#[test]
fn what_rules_note_of_the_first_fragment_alone_does_no_harm() {
    // Later ones have no ports: OVN's rules note them all the same.
    for text in [
        &[
            "udp,actions=move:NXM_OF_UDP_DST[]->NXM_NX_REG2[0..15],ct(table=1)",
            "table=1,ip,actions=output:2",
        ][..],
        &[
            "udp,actions=move:NXM_OF_UDP_DST[]->NXM_NX_REG2[0..15],ct(commit,exec(move:NXM_NX_REG2[]->NXM_NX_CT_MARK[])),move:NXM_NX_REG2[0..7]->NXM_NX_IP_TTL[],output:2",
        ],
    ] {
        let (mut bench, _) = connected(text);
        assert_eq!(bench.send(0, &there(1000, 1))[1].len(), 3, "{text:?}");
    }
}

#[test]
fn hostile_fragments_are_dropped_and_counted() {
    let (mut bench, _) = connected(&["ip,actions=ct(commit),output:2"]);
    let parts = there(1000, 1);
    let mut short = parts[0][..800].to_vec();
    short[16..18].copy_from_slice(&786_u16.to_be_bytes());
    assert_eq!(counts(&bench.send(0, &[short, parts[1].clone(), parts[1].clone()])), [0, 0, 0, 0]);
    let reasons = [DropReason::FragmentBad, DropReason::FragmentOverlap];
    assert_eq!(reasons.map(|reason| bench.dropped(reason)), [1, 1]);
    for id in 10..310 {
        bench.send(0, &there(1000, id)[..1]);
    }
    // A quarter of all is a port's.
    assert_eq!(bench.dropped(DropReason::FragmentNoRoom), 51);
}

#[test]
fn what_follows_is_done_with_them_too() {
    let (mut bench, _) = connected(&[
        "in_port=1,ip,actions=output:4,mod_dl_src:02:00:00:00:00:09,clone(dec_ttl,ct(commit),output:2),output:3",
    ]);
    let parts = there(1000, 1);
    let got = bench.send(0, &parts[..2]);
    // Behind the clone, and before, nobody waits.
    assert_eq!(counts(&got), [0, 0, 2, 2]);
    let got = bench.send(0, &parts[2..]);
    assert_eq!(counts(&got), [0, 3, 1, 1]);
    let of =
        |frames: &[Vec<u8>]| frames.iter().map(|frame| (frame[11], frame[22])).collect::<Vec<_>>();
    assert_eq!((of(&got[1]), of(&got[2])), (vec![(9, 63); 3], vec![(9, 64)]));
}

#[test]
fn fragments_are_translated() {
    let (mut bench, _) = connected(&MASQUERADE);
    let got = bench.send(0, &there(1000, 1));
    assert_eq!(got[1], divided(&long((OUTSIDE, 1000), (OTHER, 53)), 1));
    let got = bench.send(1, &divided(&long((OTHER, 53), (OUTSIDE, 1000)), 2));
    assert_eq!(got[0], back(1000, 2));
}

#[test]
fn fragments_go_through_zones() {
    let (mut bench, _) = connected(&[
        "table=0,ip,actions=ct(table=1,zone=1)",
        "table=1,ip,ct_state=+new,actions=ct(commit,zone=1),ct(table=2,zone=2)",
        "table=1,ip,ct_state=+est,actions=ct(table=2,zone=2)",
        "table=2,ip,ct_state=+new,in_port=1,ip_frag=first,actions=ct(commit,zone=2),output:2",
        "table=2,ip,ct_state=+new,in_port=1,ip_frag=later,actions=ct(commit,zone=2),output:2",
        "table=2,ip,ct_state=+est+rpl,actions=output:1",
    ]);
    // In the last table, each goes by a path of its own, and waits for the others there.
    assert_eq!(bench.send(0, &there(1000, 1))[1], there(1000, 1));
    assert_eq!(bench.send(1, &back(1000, 2))[0], back(1000, 2));
}
