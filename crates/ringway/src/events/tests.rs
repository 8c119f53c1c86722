use std::os::unix::net::UnixStream;

use daemon::{Missing, Options, Port, State};
use packet::MacAddr;
use serde_json::Value;
use testkit::wait_for;

use super::*;

const ME: u64 = 1;

struct Bench {
    daemon: Daemon,
    time: Time,
    events: Events,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(topics: &[Topic]) -> Self {
        let (dir, time) = (tempfile::tempdir().unwrap(), Time::stopped());
        let options = Options { time: time.clone(), ..Options::default() };
        let daemon = Daemon::start(State::default(), options).unwrap();
        let mut events = Events::new(time.clone());
        events.subscribe(ME, topics.to_vec(), 10, &daemon).unwrap();
        Self { daemon, time, events, dir }
    }

    fn edit(&mut self, edit: impl FnOnce(&mut State) -> Result<(), daemon::Error>) {
        self.daemon.edit(Missing::Retry, edit).unwrap();
    }

    /// What is told after a look.
    fn told(&mut self) -> Vec<Value> {
        self.events.turn(&self.daemon);
        let lines = self.events.take(ME, self.daemon.switch().uptime()).unwrap_or_default();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn told_later(&mut self) -> Vec<Value> {
        self.time.warp(TICK);
        self.told()
    }
}

/// Events as they are told.
fn lines(events: &[Event]) -> Vec<Value> {
    let notice = |event: &Event| Notice { uptime_ms: 0, event: event.clone() };
    events.iter().map(|event| serde_json::to_value(notice(event)).unwrap()).collect()
}

/// The name of each event with some members.
fn short(events: &[Value], members: &[&str]) -> Vec<String> {
    let text = |event: &Value| {
        let more = members.iter().map(|member| event[member].to_string());
        let all: Vec<String> = std::iter::once(event["event"].to_string()).chain(more).collect();
        all.join(" ").replace('"', "")
    };
    events.iter().map(text).collect()
}

#[test]
fn what_is_decided_otherwise_is_told_whoever_did_it() {
    let mut bench = Bench::new(&[Topic::Config]);
    assert_eq!(bench.told(), Vec::<Value>::new());
    let missing = format!("vhost-user:{}/none/s", bench.dir.path().display());
    bench.edit(|state| {
        state.add_port("a", Port::new("null:"))?;
        state.add_port("b", Port::new(missing))
    });
    let told = bench.told();
    let members = ["kind", "name", "change"];
    assert_eq!(
        short(&told, &members),
        ["changed port a added", "changed port b added", "waiting null b null"]
    );
    assert_eq!(told[0]["version"], 1);
    std::fs::create_dir(bench.dir.path().join("none")).unwrap();
    bench.time.warp(Duration::from_secs(60));
    bench.daemon.retry();
    assert_eq!(short(&bench.told(), &["name"]), ["opened b"]);
    bench.edit(|state| {
        state.port_mut("a")?.tx_retries = 3;
        state.remove("b")
    });
    assert_eq!(
        short(&bench.told(), &members),
        ["changed port a changed", "changed port b removed"]
    );
    assert!(bench.told_later().is_empty());
}

#[test]
fn guests_and_links_are_told() {
    let mut bench = Bench::new(&[Topic::Link, Topic::Guest]);
    let socket = bench.dir.path().join("vm");
    let device = format!("vhost-user:{}", socket.display());
    bench.edit(|state| {
        state.add_port("sink", Port::new("null:"))?;
        state.add_port("vm", Port::new(device))
    });
    assert_eq!(short(&bench.told_later(), &["port", "up"]), ["link sink true"]);
    let guest = UnixStream::connect(&socket).unwrap();
    wait_for("the guest is there", || {
        bench.daemon.switch().samples().iter().any(|port| port.peer.is_some())
    });
    let us = std::process::id();
    let expected = format!("guest-connected vm {us}");
    assert_eq!(short(&bench.told_later(), &["port", "pid"]), [expected]);
    drop(guest);
    wait_for("it has gone", || {
        bench.daemon.switch().samples().iter().all(|port| port.peer.is_none())
    });
    let expected = format!("guest-disconnected vm {us}");
    assert_eq!(short(&bench.told_later(), &["port", "pid"]), [expected]);
    assert!(bench.told_later().is_empty());
}

#[test]
fn another_active_member_of_a_bond_is_told() {
    let mut bench = Bench::new(&[Topic::Link]);
    bench.edit(|state| {
        state.add_port("a", Port::new("null:"))?;
        state.add_port("b", Port::new("null:"))?;
        state.add_bond("up", Port::bond(), &["a".to_owned(), "b".to_owned()])
    });
    let bonds = |told: Vec<Value>| {
        let told: Vec<Value> =
            told.into_iter().filter(|one| one["event"] == "bond-active").collect();
        short(&told, &["bond", "active", "from"])
    };
    assert_eq!(bonds(bench.told_later()), ["bond-active up a null"]);
    let disable = |bench: &mut Bench, port: &str| {
        bench.edit(|state| {
            state.port_mut(port)?.enabled = false;
            Ok(())
        });
        // Without a second having passed: it is signalled.
        bonds(bench.told())
    };
    assert_eq!(disable(&mut bench, "a"), ["bond-active up b a"]);
    assert_eq!(disable(&mut bench, "b"), ["bond-active up null b"]);
    assert!(bench.told_later().is_empty());
}

#[test]
fn a_port_that_is_shut_and_opened_again_is_told() {
    let mut bench = Bench::new(&[Topic::Link]);
    // A bridge's hello, in a capture file that is played once.
    let mut frame = vec![1, 0x80, 0xc2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 38, 0x42, 0x42, 3];
    frame.resize(60, 0);
    let header = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1, 0, 0, 60, 60];
    let file = bench.dir.path().join("hello.pcap");
    std::fs::write(&file, [header.map(u32::to_le_bytes).concat(), frame].concat()).unwrap();
    let mut port = Port::new(format!("pcap:{}", file.display()));
    port.guard.bpdu_guard = switch::guard::BpduGuard::Shut;
    bench.edit(|state| state.add_port("vm", port));
    wait_for("it is shut", || bench.daemon.switch().samples()[0].is_shut);
    let told = bench.told_later();
    assert_eq!(short(&told, &["port", "reason"]), ["port-shut vm bpdu-guard"]);
    assert!(bench.daemon.switch().reopen_port("vm").unwrap());
    assert_eq!(short(&bench.told(), &["port", "up"]), ["port-reopened vm null", "link vm true"]);
    assert!(bench.told_later().is_empty());
}

#[test]
fn drops_are_told_when_they_begin_and_when_they_end() {
    let mut subscriber = Subscriber {
        topics: BTreeSet::from([Topic::Drops]),
        drop_rate: 100,
        dropping: BTreeSet::new(),
        queue: VecDeque::new(),
        lost: 0,
    };
    let mut stats = ethdev::Stats::default();
    let mut look = |ring_full: u64, too_long: u64, milliseconds: u64| {
        let before = stats;
        stats.drops[ethdev::DropReason::RingFull as usize] += ring_full;
        stats.drops[ethdev::DropReason::TooLong as usize] += too_long;
        let elapsed = Duration::from_millis(milliseconds);
        let dropping = Dropping::between("vm", "tx", (&before, &stats), elapsed);
        subscriber.look_at_drops(7, &dropping.into_iter().collect::<Vec<_>>());
        let lines = std::mem::take(&mut subscriber.queue);
        let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<Value>>()
    };
    assert!(look(99, 0, 1_000).is_empty());
    let told = look(150, 50, 2_000);
    assert_eq!(short(&told, &["port", "direction", "rate"]), ["drops vm tx 100"]);
    assert_eq!(told[0]["reasons"], serde_json::json!({"ring_full": 75, "too_long": 25}));
    assert!(look(5_000, 0, 1_000).is_empty(), "it is known by now");
    assert_eq!(short(&look(0, 0, 1_000), &["port"]), ["drops-ended vm"]);
}

#[test]
fn addresses_are_told_to_those_who_ask() {
    let mut bench = Bench::new(&[]);
    let entry = |mac: u8, port: &str, is_static| switch::FdbEntry {
        bridge: "default".to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, mac]),
        vlan: 0,
        port: port.to_owned(),
        age: 0,
        is_static,
    };
    let watch = bench.events.watch.as_mut().unwrap();
    let mut found = Vec::new();
    watch.look_at_addresses(Some(vec![entry(1, "a", false), entry(2, "a", false)]), &mut found);
    assert!(found.is_empty(), "that is how it was");
    let now = vec![entry(1, "b", false), entry(3, "a", false), entry(4, "a", true)];
    watch.look_at_addresses(Some(now), &mut found);
    let lines = lines(&found);
    assert_eq!(
        short(&lines, &["mac", "port", "from"]),
        [
            "moved 02:00:00:00:00:01 b a",
            "learned 02:00:00:00:00:03 a null",
            "forgotten 02:00:00:00:00:02 a null"
        ]
    );
    assert!(found.iter().all(|event| !bench.events.subscribers[&ME].wants(event)));
}

#[test]
fn members_of_groups_and_routers_are_told_to_those_who_ask() {
    let mut bench = Bench::new(&[Topic::Groups]);
    let report = |members: &[(u16, u8, &str)], routers: &[(Option<u16>, &str)]| {
        let groups = members.iter().map(|(vlan, group, port)| switch::Group {
            vlan: *vlan,
            group: [239, 0, 0, *group].into(),
            port: (*port).to_owned(),
            age: u64::from(*group),
        });
        let routers = routers.iter().map(|(vlan, port)| switch::GroupRouter {
            vlan: *vlan,
            port: (*port).to_owned(),
            age: vlan.map(u64::from),
        });
        Some(vec![switch::GroupsReport {
            bridge: "default".to_owned(),
            settings: switch::McastSnooping::default(),
            groups: groups.collect(),
            routers: routers.collect(),
            counts: switch::GroupCounts::default(),
        }])
    };
    let watch = bench.events.watch.as_mut().unwrap();
    let mut found = Vec::new();
    watch.look_at_groups(report(&[(0, 1, "a"), (7, 1, "a")], &[(None, "up")]), &mut found);
    assert!(found.is_empty(), "that is how it was");
    let now = report(&[(0, 1, "a"), (0, 1, "b")], &[(None, "up"), (Some(7), "b")]);
    watch.look_at_groups(now, &mut found);
    watch.look_at_groups(report(&[(0, 1, "a"), (0, 1, "b")], &[(Some(7), "b")]), &mut found);
    let lines = lines(&found);
    assert_eq!(
        short(&lines, &["vlan", "group", "port"]),
        [
            "group-left 7 239.0.0.1 a",
            "group-joined 0 239.0.0.1 b",
            "router-found 7 null b",
            "router-lost null null up"
        ]
    );
    assert!(found.iter().all(|event| bench.events.subscribers[&ME].wants(event)));
    // Where nobody asks any more, the next one is told of what comes from then on.
    let watch = bench.events.watch.as_mut().unwrap();
    watch.look_at_groups(None, &mut found);
    watch.look_at_groups(report(&[], &[]), &mut found);
    assert_eq!(found.len(), 4);
}

#[test]
fn who_does_not_read_is_told_how_much_that_was() {
    let mut bench = Bench::new(&[Topic::Reload]);
    let reload = |ok| Event::Reload { ok, changes: Vec::new(), error: None };
    for number in 0..QUEUE + 5 {
        bench.events.tell(&bench.daemon, &reload(number == 0));
    }
    bench.events.tell(&bench.daemon, &Event::Opened { name: "nothing for it".to_owned() });
    let (mut events, uptime) = (Vec::new(), bench.daemon.switch().uptime());
    while let Some(lines) = bench.events.take(ME, uptime) {
        assert!(lines.len() < CHUNK + 1_000);
        events.extend(lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    assert_eq!(events.len(), QUEUE + 1);
    assert_eq!((&events[0]["ok"], &events[1]["ok"]), (&Value::from(true), &Value::from(false)));
    assert_eq!(short(&events[QUEUE..], &["count"]), ["lost 5"]);
    // And goes on.
    bench.events.tell(&bench.daemon, &reload(true));
    assert!(bench.events.take(ME, uptime).is_some());
}

#[test]
fn nothing_is_watched_when_nobody_has_subscribed_and_not_all_can() {
    let mut bench = Bench::new(&[]);
    assert!(bench.events.is_watching() && bench.events.next_turn().is_none());
    for client in 2..=SUBSCRIBERS as u64 {
        let topics = bench.events.subscribe(client, Vec::new(), 1, &bench.daemon).unwrap();
        assert_eq!(topics.len(), 5);
    }
    let refused = bench.events.subscribe(99, Vec::new(), 1, &bench.daemon).unwrap_err();
    assert_eq!(refused.code, Code::Full);
    // One that has subscribed may do so otherwise.
    bench.events.subscribe(ME, vec![Topic::Fdb], 1, &bench.daemon).unwrap();
    (1..=SUBSCRIBERS as u64).for_each(|client| bench.events.unsubscribe(client));
    assert!(!bench.events.is_watching());
    assert!(bench.events.take(ME, Duration::ZERO).is_none());
}

#[test]
fn roots_and_roles_of_spanning_trees_are_told() {
    let mut bench = Bench::new(&[Topic::Link]);
    bench.edit(|state| {
        state.set_bridge("default", serde_json::from_str(r#"{"rstp.enabled":true}"#).unwrap())?;
        state.add_port("a", Port::new("null:"))
    });
    let trees = |told: Vec<Value>| {
        let told: Vec<Value> = told
            .into_iter()
            .filter(|one| one["event"].as_str().unwrap().starts_with("rstp-"))
            .collect();
        short(&told, &["bridge", "port", "role", "state"])
    };
    let first = trees(bench.told());
    assert!(first[0].starts_with("rstp-root default"), "{first:?}");
    assert_eq!(first[1], "rstp-port default a designated discarding");
    bench.time.warp(Duration::from_secs(3));
    bench.daemon.catch_up();
    assert_eq!(trees(bench.told()), ["rstp-port default a designated forwarding"]);
}
