//! Groups, as controllers set them, ask for them and hear of them.

use openflow::message::flow_mod::ANY_GROUP;
use openflow::message::group::{
    ALL_BUCKETS, ALL_GROUPS, Bucket, GroupCommand, GroupDesc, GroupMod, GroupStats, GroupType,
    LAST_BUCKET, ask as request,
};

use super::*;

fn group_mod(command: GroupCommand, group: u32, ports: &[u32]) -> GroupMod {
    let bucket = |(id, port): (u32, &u32)| Bucket {
        id,
        weight: 0,
        watch_port: PortNo::ANY,
        watch_group: ANY_GROUP,
        actions: vec![Action::output(PortNo(*port))],
    };
    let buckets = (0..).zip(ports).map(bucket).collect();
    let (kind, bucket) = (GroupType::All, ALL_BUCKETS);
    GroupMod { command, kind, group, bucket, buckets, selection: None }
}

fn sends_to(version: Version, group: u32) -> Vec<u8> {
    let add = flow_mod(version, Command::Add, 3);
    let instructions = Instructions::apply(vec![Action::Group(group)]);
    FlowMod { instructions, ..add }.encode(version, Form::Of, false, 2)
}

#[test]
fn groups_are_set_told_and_go_with_their_rules_in_all_versions() {
    for version in Version::ALL {
        let (mut bridge, id) = connected(version, Origin::Service);
        let controller = join(&mut bridge, version, Origin::Controller);
        let mut asked = |message: &[u8]| ask(&mut bridge, id, message);
        let mut change = |command, group, ports: &[u32]| {
            asked(&group_mod(command, group, ports).encode(version, 1))
        };
        assert!(change(GroupCommand::Add, 5, &[1, 2]).is_empty());
        assert!(change(GroupCommand::Add, 6, &[2]).is_empty());
        let again = change(GroupCommand::Add, 6, &[2]);
        assert_eq!(error(&again), ErrorCode::GmfcGroupExists);
        assert!(change(GroupCommand::Modify, 6, &[1]).is_empty());
        assert_eq!(error(&change(GroupCommand::Modify, 7, &[1])), ErrorCode::GmfcUnknownGroup);
        assert_eq!(error(&asked(&sends_to(version, 7))), ErrorCode::BacBadOutGroup);
        assert!(asked(&sends_to(version, 5)).is_empty());

        let answers = asked(&request(version, Kind::GroupDescRequest, ALL_GROUPS, 9));
        let descs = GroupDesc::decode_all(&Raw::read(&answers[0]).unwrap()).unwrap();
        let descs: Vec<_> = descs.iter().map(|desc| (desc.group, desc.buckets.len())).collect();
        assert_eq!(descs, [(5, 2), (6, 1)]);
        for (group, expected) in [(5, vec![(5, 1, 2)]), (6, vec![(6, 0, 1)]), (7, Vec::new())] {
            let answers = asked(&request(version, Kind::GroupStatsRequest, group, 9));
            let stats = GroupStats::decode_all(&Raw::read(&answers[0]).unwrap()).unwrap();
            let stats = stats.iter().map(|of| (of.group, of.references, of.buckets.len()));
            assert_eq!(stats.collect::<Vec<_>>(), expected);
        }
        let delete = group_mod(GroupCommand::Delete, 5, &[]).encode(version, 1);
        assert!(asked(&delete).is_empty());
        assert!(bridge.tables.is_empty());
        let told = sent(&mut bridge, controller);
        let told = told.iter().map(|told| FlowRemoved::decode(&Raw::read(told).unwrap()).unwrap());
        // Whoever speaks an older version has not heard that there is such a reason.
        let count = usize::from(version >= Version::V13);
        let reasons: Vec<RemovedReason> = told.map(|told| told.reason).collect();
        assert_eq!(reasons, vec![RemovedReason::GROUP_DELETE; count], "{version}");
    }
}

#[test]
fn a_bundle_has_groups_and_the_rules_that_use_them() {
    let version = Version::V15;
    let (mut bridge, id) = connected(version, Origin::Service);
    let mut commit = |messages: &[Vec<u8>]| {
        let control =
            |step| BundleControl { id: 1, flags: ATOMIC, step }.encode(version, Form::Of, 2);
        ask(&mut bridge, id, &control(BundleStep::OpenRequest));
        for message in messages {
            let add = BundleAdd { id: 1, flags: ATOMIC, message };
            assert!(ask(&mut bridge, id, &add.encode(version, 2)).is_empty());
        }
        let answers = ask(&mut bridge, id, &control(BundleStep::CommitRequest));
        let made = kinds(&answers) == [Kind::BundleControl];
        (made, bridge.tables.len(), bridge.tables.groups().len())
    };
    let add = group_mod(GroupCommand::Add, 5, &[1]).encode(version, 2);
    let mut insert = group_mod(GroupCommand::InsertBucket, 5, &[2]);
    insert.bucket = LAST_BUCKET;
    // Two buckets of one number: nothing of it is made.
    let wrong = insert.encode(version, 2);
    insert.buckets[0].id = 8;
    let right = insert.encode(version, 2);
    let rule = sends_to(version, 5);
    assert_eq!(commit(&[add.clone(), rule.clone(), wrong]), (false, 0, 0));
    assert_eq!(commit(&[add, rule, right]), (true, 1, 1));
    let delete = group_mod(GroupCommand::Delete, ALL_GROUPS, &[]).encode(version, 2);
    assert_eq!(commit(&[delete]), (true, 0, 0));
}

#[test]
fn packets_from_controllers_go_to_groups_that_are_there() {
    let version = Version::V13;
    let (mut bridge, id) = connected(version, Origin::Service);
    let actions = vec![Action::Group(5)];
    let out =
        openflow::message::packet_out::PacketOut::new(PortNo::CONTROLLER, actions, vec![1; 60]);
    let out = out.encode(version, 1);
    assert_eq!(error(&ask(&mut bridge, id, &out)), ErrorCode::BacBadOutGroup);
    ask(&mut bridge, id, &group_mod(GroupCommand::Add, 5, &[1]).encode(version, 1));
    assert!(ask(&mut bridge, id, &out).is_empty());
}

/// What a controller is told of requests of others: their kinds, and what commands they have.
fn forwarded(bridge: &mut Bridge, id: ConnectionId) -> Vec<GroupCommand> {
    let command = |message: &Vec<u8>| {
        let raw = Raw::read(message).unwrap();
        assert_eq!(raw.kind, Kind::RequestForward);
        let inner = Raw::read(raw.body).unwrap();
        assert_eq!((inner.xid, inner.version), (7, raw.version));
        GroupMod::decode(&inner).unwrap().command
    };
    sent(bridge, id).iter().map(command).collect()
}

#[test]
fn changes_of_groups_are_told_to_others_who_want_to_know_them() {
    let (mut bridge, id) = connected(Version::V15, Origin::Service);
    let listeners = [Version::V10, Version::V14, Version::V15].map(|version| {
        let listener = join(&mut bridge, version, Origin::Controller);
        let mut asynchronous = openflow::message::asynchronous::AsyncConfig::default();
        asynchronous.set(Unasked::RequestForward, true, 1);
        let session = bridge.connections.get_mut(&listener).unwrap().session.as_mut().unwrap();
        session.asynchronous = asynchronous;
        listener
    });
    let silent = join(&mut bridge, Version::V15, Origin::Controller);
    let mut insert = group_mod(GroupCommand::InsertBucket, 5, &[]);
    insert.bucket = LAST_BUCKET;
    for change in [
        group_mod(GroupCommand::AddOrModify, 5, &[1]),
        group_mod(GroupCommand::AddOrModify, 5, &[2]),
        insert,
    ] {
        assert!(ask(&mut bridge, id, &change.encode(Version::V15, 7)).is_empty());
    }
    let wrong = group_mod(GroupCommand::Add, 5, &[1]).encode(Version::V15, 7);
    error(&ask(&mut bridge, id, &wrong));
    let [oldest, old, new] = listeners.map(|listener| forwarded(&mut bridge, listener));
    let both = [GroupCommand::Add, GroupCommand::Modify];
    assert_eq!(new, [&both[..], &[GroupCommand::InsertBucket]].concat());
    assert_eq!((&oldest, old), (&new, [&both[..], &[GroupCommand::Modify]].concat()));
    assert!(sent(&mut bridge, silent).is_empty());
}
