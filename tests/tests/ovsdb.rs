//! Our client of OVSDB with Open vSwitch's own server and tools.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::{OvsDatabase, Peer, require_shared};
use ovsdb::{Change, Client, Datum, Event, Mutator, Outcome, Remote, Transaction, Uuid, Wanted};
use rustix::event::{PollFd, poll};

const LIMIT: Duration = Duration::from_secs(60);

/// Root table of the database.
const ROOT: &str = "Open_vSwitch";

fn wanted() -> Wanted {
    Wanted::new("Open_vSwitch")
        .table(ROOT, ["bridges", "cur_cfg", "next_cfg", "external_ids"])
        .table("Bridge", ["name", "ports", "datapath_id", "fail_mode"])
        .table("Port", ["name", "interfaces", "tag", "trunks", "vlan_mode"])
        .table("Interface", ["name", "type", "ofport", "options", "column_of_the_future"])
        .table("Table_of_the_future", ["name"])
}

/// A client, and what it has told.
struct Watcher {
    client: Client,
    events: Vec<Event>,
}

impl Watcher {
    fn new(database: &OvsDatabase, wanted: Wanted) -> Self {
        let client = Client::new(Remote::Unix(database.socket()), wanted, Instant::now());
        Self { client, events: Vec::new() }
    }

    /// Runs the client until `done` gives something, which it is asked whenever something comes.
    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let limit = Instant::now() + LIMIT;
        loop {
            let now = Instant::now();
            assert!(now < limit, "waiting for {what}: {:?}", self.events);
            let events = self.client.run(now);
            self.events.extend(events);
            if let Some(found) = done(self) {
                return found;
            }
            let due = self.client.due().unwrap_or(limit).min(limit);
            let left = due.saturating_duration_since(Instant::now()).try_into().unwrap();
            let interest = self.client.interest();
            let fd = self.client.fd();
            let mut fds: Vec<_> =
                fd.iter().map(|fd| PollFd::from_borrowed_fd(*fd, interest)).collect();
            poll(&mut fds, Some(&left)).unwrap();
        }
    }

    /// Waits for an event and forgets it with all before it.
    fn event(&mut self, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
        self.until(what, |watcher| {
            let index = watcher.events.iter().position(&is_it)?;
            watcher.events.drain(..=index).next_back()
        })
    }

    fn online(&mut self) {
        self.event("all content", |event| *event == Event::Online);
    }

    fn commit(&mut self, transaction: Transaction) -> Outcome {
        let id = self.client.transact(transaction).unwrap();
        match self.event(
            "the end of a transaction",
            |event| matches!(event, Event::Ended(ended, _) if *ended == id),
        ) {
            Event::Ended(_, outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// The root row.
    fn root(&self) -> Uuid {
        self.client.cache().rows(ROOT).next().unwrap().0
    }

    /// The row of `table` with this name.
    fn named(&self, table: &str, name: &str) -> Option<Uuid> {
        let mut rows = self.client.cache().rows(table);
        rows.find(|(_, row)| row.get("name").string() == Some(name)).map(|(uuid, _)| uuid)
    }

    fn get(&self, table: &str, row: Uuid, column: &str) -> Datum {
        self.client.cache().row(table, row).unwrap().get(column).clone()
    }
}

/// `ovs-vsctl add-br` waits until the switch has taken its change and given the port a number.
#[test]
fn vsctl_is_served_as_by_a_switch() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let mut switch = Watcher::new(&database, wanted().lock("ovs_vswitchd"));
    switch.online();
    assert!(!switch.client.cache().has("Interface", "column_of_the_future"));
    assert!(switch.client.session().schema().unwrap().column("Port", "tag").is_some());
    switch.until("the lock", |switch| switch.client.session().is_locked().then_some(()));

    let mut vsctl = database.vsctl_command(&["add-br", "br0", "--", "set", "port", "br0", "tag=7"]);
    let mut vsctl = vsctl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let bridge = switch.until("the bridge", |switch| switch.named("Bridge", "br0"));
    let port = switch.get("Bridge", bridge, "ports").uuid().unwrap();
    assert_eq!(switch.get("Port", port, "tag").integer(), Some(7));
    let interface = switch.get("Port", port, "interfaces").uuid().unwrap();
    let root = switch.root();

    let mut answer = Transaction::default();
    answer.update("Interface", interface, [("ofport", Datum::from(65534))]);
    answer.update("Bridge", bridge, [("datapath_id", Datum::from("0000deadbeef0001"))]);
    answer.update(ROOT, root, [("cur_cfg", switch.get(ROOT, root, "next_cfg"))]);
    assert!(matches!(switch.commit(answer), Outcome::Done(_)));
    assert!(vsctl.wait().unwrap().success());
    let ofport = database.vsctl(&["get", "Interface", "br0", "ofport"]).unwrap();
    assert_eq!(ofport.trim(), "65534");
}

/// Two clients want the same lock, one after the other has it.
#[test]
fn who_has_no_lock_changes_nothing() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let mut first = Watcher::new(&database, wanted().lock("ours"));
    first.online();
    first.until("the lock", |first| first.client.session().is_locked().then_some(()));
    let mut second = Watcher::new(&database, wanted().lock("ours"));
    second.online();
    let change = |watcher: &Watcher| {
        let mut change = Transaction::default();
        change.update(ROOT, watcher.root(), [("cur_cfg", Datum::from(5))]);
        change
    };
    let refused = second.commit(change(&second));
    assert_eq!(refused, Outcome::NotLocked);
    drop(first);
    second.event("the lock", |event| *event == Event::Locked(true));
    assert!(matches!(second.commit(change(&second)), Outcome::Done(_)));
}

/// What transactions say: of rows inserted, mutated, deleted; of what is not as expected, and of
/// what the schema does not allow.
#[test]
fn transactions_are_done_or_say_why_not() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let mut watcher = Watcher::new(&database, wanted());
    watcher.online();
    let root = watcher.root();

    let mut insert = Transaction::default();
    let bridge = insert.insert("Bridge", [("name", Datum::from("br0"))]);
    insert.mutate(ROOT, root, "bridges", Mutator::Insert, &Datum::from(bridge));
    insert.mutate(ROOT, root, "next_cfg", Mutator::Add, &Datum::from(1));
    let ids: Datum = [("system-id", "7"), ("hostname", "here")].into_iter().collect();
    insert.update(ROOT, root, [("external_ids", ids)]);
    insert.select(ROOT, root, &["next_cfg"]);
    insert.comment("a bridge of our own");
    let outcome = watcher.commit(insert);
    let bridge = outcome.inserted(0).unwrap();
    let Outcome::Done(results) = &outcome else { panic!("{outcome}") };
    assert_eq!(results[4]["rows"][0]["next_cfg"], 1);
    assert_eq!(watcher.get(ROOT, root, "external_ids").value_of("system-id"), Some("7"));

    let mut stale = Transaction::default();
    stale.expect("Bridge", bridge, [("name", Datum::from("br9"))]);
    stale.delete("Bridge", bridge);
    assert_eq!(watcher.commit(stale), Outcome::Changed);

    let mut wrong = Transaction::default();
    wrong.update("Bridge", bridge, [("fail_mode", Datum::from("sometimes"))]);
    let outcome = watcher.commit(wrong);
    assert!(matches!(&outcome, Outcome::Failed { error, .. } if error == "constraint violation"));
    assert!(outcome.to_string().contains("sometimes"), "{outcome}");

    let mut delete = Transaction::default();
    delete.mutate(ROOT, root, "bridges", Mutator::Delete, &Datum::from(bridge));
    let gone: Datum = [("system-id", "7")].into_iter().collect();
    delete.mutate(ROOT, root, "external_ids", Mutator::Delete, &gone);
    assert!(matches!(watcher.commit(delete), Outcome::Done(_)));
    assert_eq!(watcher.named("Bridge", "br0"), None);
    let ids = watcher.get(ROOT, root, "external_ids");
    assert_eq!(ids.texts().collect::<Vec<_>>(), [("hostname", "here")]);
}

/// A server that dies takes nothing with it: what changed meanwhile is told, and nothing else.
#[test]
fn a_restart_of_the_server_tells_only_what_changed() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut database = OvsDatabase::start(dir.path()).unwrap();
    database.vsctl(&["--no-wait", "add-br", "br0", "--", "add-port", "br0", "p1"]).unwrap();
    let mut watcher = Watcher::new(&database, wanted());
    watcher.online();
    database.restart().unwrap();
    database.vsctl(&["--no-wait", "set", "port", "p1", "trunks=1,2,3"]).unwrap();
    watcher.event("the end", |event| matches!(event, Event::Offline(_)));
    assert!(watcher.named("Port", "p1").is_some(), "what was known stays");
    let changed = |changes: &ovsdb::Changes| {
        changes.keys().all(|table| table == "Port")
            && changes["Port"].values().all(|change| matches!(change, Change::Modified(_)))
    };
    watcher.until("the change", |watcher| {
        let port = watcher.named("Port", "p1")?;
        (watcher.get("Port", port, "trunks").len() == 3).then_some(())
    });
    watcher.online();
    for event in &watcher.events {
        assert!(matches!(event, Event::Changed(changes) if changed(changes)), "{event:?}");
    }
}

/// A server changes a database's schema while it serves it.
#[test]
fn another_schema_is_used_as_soon_as_it_is_there() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let mut watcher = Watcher::new(&database, wanted());
    watcher.online();
    let schema = std::fs::read_to_string(e2e::ovsdb::SCHEMA).unwrap();
    let mut schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let column = serde_json::json!({"type": {"key": "string", "min": 0}});
    schema["tables"]["Interface"]["columns"]["column_of_the_future"] = column;
    schema["version"] = "99.0.0".into();
    let file = dir.path().join("later.ovsschema");
    std::fs::write(&file, schema.to_string()).unwrap();
    database.client(&["convert"], &[file.to_str().unwrap()]).unwrap();
    watcher.until("the new schema", |watcher| {
        let version = &watcher.client.session().schema()?.version;
        (version == "99.0.0").then_some(())
    });
    watcher.online();
    assert!(watcher.client.cache().has("Interface", "column_of_the_future"));
}

/// After some hundred changes by other clients our copy is what the server has.
#[test]
fn the_copy_stays_what_the_server_has() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let mut watcher = Watcher::new(&database, wanted());
    let mut editor = Watcher::new(&database, wanted());
    watcher.online();
    editor.online();
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let root = editor.root();
    let mut add = Transaction::default();
    let interface = add.insert("Interface", [("name", Datum::from("p1"))]);
    let columns = [("name", Datum::from("p1")), ("interfaces", Datum::from(interface))];
    let port = add.insert("Port", columns);
    let columns = [("name", Datum::from("br0")), ("ports", Datum::from(port))];
    let bridge = add.insert("Bridge", columns);
    add.mutate(ROOT, root, "bridges", Mutator::Insert, &Datum::from(bridge));
    assert!(matches!(editor.commit(add), Outcome::Done(_)));
    let port = editor.named("Port", "p1").unwrap();
    for _ in 0..300 {
        let mut change = Transaction::default();
        let vlans: Datum = (0..next(4)).map(|_| i64::try_from(next(8)).unwrap()).collect();
        let mutator = if next(2) == 0 { Mutator::Insert } else { Mutator::Delete };
        match next(4) {
            0 => change.update("Port", port, [("trunks", vlans)]),
            1 => change.mutate("Port", port, "trunks", mutator, &vlans),
            2 => change.update(
                "Port",
                port,
                [("tag", vlans.integer().map_or_else(Datum::default, Datum::from))],
            ),
            _ => {
                let pairs =
                    (0..next(4)).map(|_| (format!("key{}", next(3)), format!("{}", next(2))));
                change.update(ROOT, root, [("external_ids", pairs.collect())]);
            }
        }
        let outcome = editor.commit(change);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
    }
    let mut last = Transaction::default();
    last.update(ROOT, root, [("next_cfg", Datum::from(4711))]);
    assert!(matches!(editor.commit(last), Outcome::Done(_)));
    watcher.until("the last change", |watcher| {
        (watcher.get(ROOT, root, "next_cfg").integer() == Some(4711)).then_some(())
    });
    let mut fresh = Watcher::new(&database, wanted());
    fresh.online();
    for table in [ROOT, "Bridge", "Port", "Interface"] {
        for (uuid, row) in fresh.client.cache().rows(table) {
            assert_eq!(watcher.client.cache().row(table, uuid), Some(row), "{table}");
        }
        let count = |watcher: &Watcher| watcher.client.cache().rows(table).count();
        assert_eq!(count(&watcher), count(&fresh));
    }
}
