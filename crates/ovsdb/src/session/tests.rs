//! A session against a server that the test plays.

use serde_json::{Value, json};

use super::*;
use crate::cache::Change;
use crate::datum::Datum;

const ROW: &str = "00000000-0000-0000-0000-0000000000aa";
const DATABASE: &str = "00000000-0000-0000-0000-0000000000bb";

struct Server {
    session: Session,
}

impl Server {
    fn new(wanted: Wanted) -> Self {
        let mut server = Self { session: Session::new(wanted) };
        server.session.connected();
        server
    }

    /// All that the session has sent.
    fn received(&mut self) -> Vec<Value> {
        let mut stream = Splitter::default();
        stream.push(self.session.output());
        self.session.sent(usize::MAX);
        std::iter::from_fn(|| stream.next().unwrap()).collect()
    }

    /// The one message of this method.
    fn question(&mut self, method: &str) -> Value {
        let received = self.received();
        let found = received.iter().find(|message| message["method"] == method);
        found.unwrap_or_else(|| panic!("no {method} in {received:?}")).clone()
    }

    fn say(&mut self, message: &Value) -> Result<(), Failure> {
        self.session.receive(message.to_string().as_bytes())
    }

    fn answer(&mut self, question: &Value, result: &Value) -> Result<(), Failure> {
        self.say(&json!({"id": question["id"], "result": result, "error": null}))
    }

    fn refuse(&mut self, question: &Value) {
        let error = json!({"error": "unknown method"});
        self.say(&json!({"id": question["id"], "result": null, "error": error})).unwrap();
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.next_event()).collect()
    }

    /// Answers up to the question for content, which is returned.
    fn open(&mut self, schema: &Value) -> Value {
        let question = self.question("get_schema");
        self.answer(&question, &server_schema()).unwrap();
        let question = self.question("monitor_cond");
        let row = json!({"name": "D", "model": "standalone", "connected": true, "leader": true,
            "schema": schema.to_string()});
        self.answer(&question, &json!({"Database": {DATABASE: {"initial": row}}})).unwrap();
        self.tell_schema(schema);
        self.question("monitor_cond_since")
    }

    fn tell_schema(&mut self, schema: &Value) {
        let question = self.question("get_schema");
        assert_eq!(question["params"], json!(["D"]));
        self.answer(&question, schema).unwrap();
    }
}

fn server_schema() -> Value {
    let columns = json!({
        "name": {"type": "string"}, "model": {"type": "string"}, "leader": {"type": "boolean"},
        "connected": {"type": "boolean"}, "schema": {"type": {"key": "string", "min": 0}},
    });
    json!({"name": "_Server", "version": "1.2.0", "tables": {"Database": {"columns": columns}}})
}

fn schema(version: &str) -> Value {
    let columns =
        json!({"name": {"type": "string"}, "tag": {"type": {"key": "integer", "min": 0}}});
    json!({"name": "D", "version": version, "tables": {"Port": {"columns": columns}}})
}

fn wanted() -> Wanted {
    Wanted::new("D").table("Port", ["name", "tag", "of_a_later_schema"]).table("Later", ["name"])
}

fn content(found: bool, seen: u8, rows: &Value) -> Value {
    json!([found, Uuid(u128::from(seen)).to_string(), {"Port": rows}])
}

#[test]
fn content_is_asked_for_by_the_schema_that_there_is() {
    let mut server = Server::new(wanted());
    let question = server.open(&schema("1"));
    let tables = json!({"Port": [{"columns": ["name", "tag"]}]});
    let since = Uuid(0).to_string();
    assert_eq!(question["params"], json!(["D", ["monid", "D"], tables, since]));
    assert!(!server.session.is_online());
    server.answer(&question, &content(false, 1, &json!({ROW: {"initial": {"tag": 7}}}))).unwrap();
    let events = server.events();
    assert!(matches!(&events[..], [Event::Changed(_), Event::Online]), "{events:?}");
    let row = server.session.cache().row("Port", Uuid(0xaa)).unwrap();
    assert_eq!((row.get("name").string(), row.get("tag").integer()), (Some(""), Some(7)));
}

/// A server of 2.6 knows conditions, and older ones do not.
#[test]
fn older_servers_are_asked_for_what_they_know() {
    for is_oldest in [false, true] {
        let mut server = Server::new(wanted());
        let question = server.question("get_schema");
        assert_eq!(question["params"], json!(["_Server"]));
        server.refuse(&question);
        server.tell_schema(&schema("1"));
        let question = server.question("monitor_cond_since");
        server.refuse(&question);
        let mut question = server.question("monitor_cond");
        let (mut first, mut update) = (json!({"initial": {"tag": 7}}), "update2");
        let mut then = json!({"modify": {"tag": 8}});
        if is_oldest {
            server.refuse(&question);
            question = server.question("monitor");
            (first, update) = (json!({"new": {"name": "", "tag": 7}}), "update");
            then = json!({"old": {"tag": 7}, "new": {"name": "", "tag": 8}});
        }
        let tables = json!({"Port": [{"columns": ["name", "tag"]}]});
        assert_eq!(question["params"], json!(["D", ["monid", "D"], tables]));
        server.answer(&question, &json!({"Port": {ROW: first}})).unwrap();
        let events = server.events();
        assert!(matches!(&events[..], [Event::Changed(_), Event::Online]), "{events:?}");
        let params = json!([["monid", "D"], {"Port": {ROW: then}}]);
        server.say(&json!({"id": null, "method": update, "params": params})).unwrap();
        let tag = server.session.cache().row("Port", Uuid(0xaa)).unwrap().get("tag").integer();
        assert!(matches!(&server.events()[..], [Event::Changed(_)]) && tag == Some(8));
    }
    // One that knows none of it is told of with its reason.
    let mut server = Server::new(wanted());
    let mut question = server.question("get_schema");
    server.refuse(&question);
    server.tell_schema(&schema("1"));
    for method in ["monitor_cond_since", "monitor_cond"] {
        question = server.question(method);
        server.refuse(&question);
    }
    let last = server.question("monitor");
    let refusal = json!({"id": last["id"], "result": null, "error": "no"});
    assert!(matches!(server.say(&refusal), Err(Failure::Refused(_))));
}

#[test]
fn only_what_changed_is_told_after_a_reconnect() {
    let mut server = Server::new(wanted());
    let question = server.open(&schema("1"));
    server.answer(&question, &content(false, 1, &json!({ROW: {"initial": {"tag": 7}}}))).unwrap();
    server.events();
    for found in [true, false] {
        server.session.disconnected("gone");
        assert_eq!(server.events(), [Event::Offline("gone".to_owned())]);
        server.session.connected();
        let question = server.open(&schema("1"));
        assert_eq!(question["params"][3], json!(Uuid(1).to_string()));
        let rows = if found { json!({}) } else { json!({ROW: {"initial": {"tag": 7}}}) };
        server.answer(&question, &content(found, 1, &rows)).unwrap();
        assert_eq!(server.events(), [Event::Online], "found: {found}");
    }
    let update = json!({"Port": {ROW: {"modify": {"tag": ["set", []]}}}});
    let params = json!([["monid", "D"], Uuid(2).to_string(), update]);
    server.say(&json!({"id": null, "method": "update3", "params": params})).unwrap();
    let [Event::Changed(changes)] = &server.events()[..] else { panic!() };
    assert_eq!(changes["Port"][&Uuid(0xaa)], Change::Modified(vec!["tag".to_owned()]));
    server.session.disconnected("gone");
    server.session.connected();
    assert_eq!(server.open(&schema("1"))["params"][3], json!(Uuid(2).to_string()));
}

#[test]
fn another_schema_asks_for_another_connection_and_all_content() {
    let mut server = Server::new(wanted());
    let question = server.open(&schema("1"));
    server.answer(&question, &content(false, 1, &json!({}))).unwrap();
    let update = json!({"Database": {DATABASE: {"modify": {"schema": schema("2").to_string()}}}});
    let update = json!({"id": null, "method": "update2", "params": [["monid", "_Server"], update]});
    assert_eq!(server.say(&update), Err(Failure::NewSchema));
    server.session.disconnected("its schema has changed");
    server.session.connected();
    assert_eq!(server.open(&schema("2"))["params"][3], json!(Uuid(0).to_string()));
    assert_eq!(server.session.schema().unwrap().version, "2");
}

#[test]
fn the_lock_is_asked_for_told_and_asserted() {
    let mut server = Server::new(wanted().lock("ours"));
    let question = server.question("get_schema");
    server.answer(&question, &server_schema()).unwrap();
    let question = server.question("monitor_cond");
    let row = json!({"name": "D", "model": "standalone", "connected": true,
        "schema": schema("1").to_string()});
    server.answer(&question, &json!({"Database": {DATABASE: {"initial": row}}})).unwrap();
    server.tell_schema(&schema("1"));
    let received = server.received();
    let [lock, aware, monitor] = &received[..] else { panic!("{received:?}") };
    assert_eq!((&lock["method"], &lock["params"]), (&json!("lock"), &json!(["ours"])));
    server.answer(lock, &json!({"locked": false})).unwrap();
    server.answer(aware, &json!({})).unwrap();
    server.answer(monitor, &content(false, 1, &json!({}))).unwrap();
    assert_eq!(server.events(), [Event::Online]);
    server.say(&json!({"id": null, "method": "locked", "params": ["ours"]})).unwrap();
    assert_eq!(server.events(), [Event::Locked(true)]);

    let mut transaction = Transaction::default();
    transaction.update("Port", Uuid(0xaa), [("tag", Datum::from(5))]);
    let id = server.session.transact(transaction).unwrap();
    let question = server.question("transact");
    assert_eq!(question["params"][2], json!({"op": "assert", "lock": "ours"}));
    server.answer(&question, &json!([{"count": 1}, {}])).unwrap();
    let done = Outcome::Done(vec![json!({"count": 1}), json!({})]);
    assert_eq!(server.events(), [Event::Ended(id, done)]);

    server.say(&json!({"id": null, "method": "stolen", "params": ["ours"]})).unwrap();
    assert_eq!(server.events(), [Event::Locked(false)]);
}

#[test]
fn a_transaction_under_way_is_lost_with_its_connection() {
    let mut server = Server::new(wanted());
    let early = server.session.transact(Transaction::default());
    assert_eq!(early, Err(Transaction::default()));
    let question = server.open(&schema("1"));
    server.answer(&question, &content(false, 1, &json!({}))).unwrap();
    server.events();
    let id = server.session.transact(Transaction::default()).unwrap();
    server.session.disconnected("gone");
    let lost = Event::Ended(id, Outcome::Lost);
    assert_eq!(server.events(), [lost, Event::Offline("gone".to_owned())]);
}

#[test]
fn a_database_that_is_not_there_yet_is_waited_for() {
    let mut server = Server::new(wanted());
    let question = server.question("get_schema");
    server.answer(&question, &server_schema()).unwrap();
    let question = server.question("monitor_cond");
    server.answer(&question, &json!({"Database": {}})).unwrap();
    assert_eq!(server.received(), Vec::<Value>::new());
    let row = json!({"name": "D", "model": "standalone", "connected": true,
        "schema": schema("1").to_string()});
    let update = json!({"Database": {DATABASE: {"insert": row}}});
    let update = json!({"id": null, "method": "update2", "params": [["monid", "_Server"], update]});
    server.say(&update).unwrap();
    server.tell_schema(&schema("1"));
    let question = server.question("monitor_cond_since");
    server.answer(&question, &content(false, 1, &json!({}))).unwrap();
    assert_eq!(server.events(), [Event::Online]);
    let update = json!({"Database": {DATABASE: {"delete": null}}});
    let update = json!({"id": null, "method": "update2", "params": [["monid", "_Server"], update]});
    assert!(matches!(server.say(&update), Err(Failure::Unavailable(_))));
}

#[test]
fn who_is_not_the_leader_is_asked_nothing_if_that_matters() {
    for leader_only in [false, true] {
        let wanted = if leader_only { wanted().leader_only() } else { wanted() };
        let mut server = Server::new(wanted);
        let question = server.question("get_schema");
        server.answer(&question, &server_schema()).unwrap();
        let question = server.question("monitor_cond");
        let row = json!({"name": "D", "model": "clustered", "connected": true, "leader": false,
            "schema": schema("1").to_string()});
        server.answer(&question, &json!({"Database": {DATABASE: {"initial": row}}})).unwrap();
        assert_eq!(server.received().is_empty(), leader_only);
    }
}

#[test]
fn nonsense_is_an_error_and_makes_all_content_be_asked_for_again() {
    let mut server = Server::new(wanted());
    let question = server.open(&schema("1"));
    server.answer(&question, &content(false, 1, &json!({}))).unwrap();
    for message in [
        json!({"id": 4000, "result": {}, "error": null}),
        json!({"id": null, "method": "update3", "params": 3}),
        json!({"id": null, "method": "update3", "params": [[], "x", {}]}),
        json!({"id": null, "method": "update2", "params": [[], {"Database": 3}]}),
        json!({"id": null, "method": "monitor_canceled", "params": []}),
        json!({"id": null, "method": "update3", "params": [[], DATABASE, {"Port": {ROW: {"delete": null}}}]}),
    ] {
        assert!(server.say(&message).is_err(), "{message}");
    }
    server.session.disconnected("nonsense");
    server.session.connected();
    assert_eq!(server.open(&schema("1"))["params"][3], json!(Uuid(0).to_string()));
    server.say(&json!({"id": null, "method": "of the future", "params": []})).unwrap();
}
