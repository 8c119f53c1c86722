//! The control protocol, as its schema has it: real requests, answers, refusals and events.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::peers::{PYTHON, workspace};
use e2e::{Peer, Ringway, require_shared};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Reads lines with the name of a definition and a value, and tells which values are not as it says.
const VALIDATOR: &str = r##"
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
count = 0
for line in sys.stdin:
    name, value = json.loads(line)
    one = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/" + name}
    for error in Draft202012Validator(one).iter_errors(value):
        print(name, json.dumps(value)[:2000], error.message[:500])
    whole = {"ok": value} if name.startswith("answers/") else value
    for error in Draft202012Validator(schema).iter_errors(whole):
        print("any", json.dumps(whole)[:2000], error.message[:500])
    count += 1
print("checked", count)
"##;

struct Session {
    stream: BufReader<UnixStream>,
    /// What was said, with the definition that it is to be.
    said: Vec<(String, Value)>,
}

impl Session {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream: BufReader::new(stream), said: Vec::new() }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn say(&mut self, request: &Value) -> Value {
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        self.line()
    }

    /// Asks for what must be done.
    fn ask(&mut self, request: Value) -> Value {
        let answer = self.say(&request);
        let ok = answer["ok"].clone();
        assert!(!ok.is_null(), "{request}: {answer}");
        let command = request["command"].as_str().unwrap().to_owned();
        self.said.push((format!("answers/$defs/{command}"), ok.clone()));
        self.said.push(("request".to_owned(), request));
        ok
    }

    /// Asks for what must be refused with this code.
    fn fail(&mut self, request: &Value, code: &str) {
        let refusal = self.say(request);
        assert_eq!(refusal["code"], code, "{request}: {refusal}");
        self.said.push(("refusal".to_owned(), refusal));
    }

    /// Reads events until one of this kind has come.
    fn event(&mut self, kind: &str) -> Value {
        loop {
            let event = self.line();
            self.said.push(("event".to_owned(), event.clone()));
            if event["event"] == kind {
                return event;
            }
        }
    }
}

fn validate(said: &[(String, Value)]) -> String {
    let mut python = Command::new(PYTHON);
    python.args(["-c", VALIDATOR]).arg(workspace().join("docs/control-protocol.schema.json"));
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = python.stdin.take().unwrap();
    for (name, value) in said {
        writeln!(input, "{}", json!([name, value])).unwrap();
    }
    drop(input);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that the schema has.
fn commands() -> BTreeSet<String> {
    let path = workspace().join("docs/control-protocol.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let requests = schema["$defs"]["request"]["oneOf"].as_array().unwrap();
    let name = |one: &Value| one["properties"]["command"]["const"].as_str().unwrap().to_owned();
    requests.iter().map(name).collect()
}

#[test]
fn what_is_said_is_as_the_schema_has_it() {
    let Some(_turn) = require_shared(&[Peer::Prometheus]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let vm = dir.path().join("vm.sock");
    let text = format!(
        "[ports.a]\ndevice = \"null:,queues=2\"\nvlan.tag = 10\nlimits.rx-rate = \"1Gbit\"\n\
         [ports.vm]\ndevice = \"vhost-user:{}\"\n[ports.late]\ndevice = \"vhost-user:{}/no/s\"\n",
        vm.display(),
        dir.path().display()
    );
    let mut ringway = Ringway::adjustable(dir.path(), &text).unwrap();
    let control = dir.path().join("ringway.ctl");
    let mut listener = Session::connect(&control);
    listener.ask(json!({"command": "subscribe", "drop_rate": 5,
        "topics": ["link", "guest", "config", "drops", "fdb", "reload"]}));
    let mut session = Session::connect(&control);
    session.ask(json!({"command": "time-stop"}));
    for request in [
        json!({"command": "bridge-add", "name": "red", "settings": {"fdb.ageing": 60}}),
        json!({"command": "bridge-set", "name": "red",
            "settings": {"fdb.ageing": null, "rstp.enabled": true}}),
        json!({"command": "port-add", "name": "b", "device": "null:", "mtu": 1400, "workers": [0],
            "bridge": "red", "limits": {"tx-rate": "1Gbit"}, "guard": {"isolated": true},
            "lldp": "both", "rstp": {"admin-edge": true}}),
        json!({"command": "port-set", "name": "b", "settings": {"mtu": null}}),
        json!({"command": "mirror-add", "name": "m",
            "mirror": {"select-all": true, "output-port": "a"}}),
        json!({"command": "mirror-set", "name": "m",
            "mirror": {"select-src-port": ["vm"], "output-port": "a"}}),
        json!({"command": "fdb-add", "mac": "52:54:00:00:00:01", "port": "b", "vlan": 7}),
        json!({"command": "trace", "port": "a", "frame": "525400000001525400000002080045"}),
        json!({"command": "port-add", "name": "c", "device": "null:"}),
        json!({"command": "bond-add", "name": "two", "members": ["c"], "bridge": "red"}),
        json!({"command": "bond-set", "name": "two", "settings": {"mode": "balance-slb"}}),
        json!({"command": "bond-enable-member", "name": "two", "member": "c"}),
        json!({"command": "bond-set-active-member", "name": "two", "member": "c"}),
        json!({"command": "bond-migrate", "name": "two", "member": "c", "part": 7}),
        json!({"command": "bond-disable-member", "name": "two", "member": "c"}),
        json!({"command": "rstp-mcheck", "port": "b"}),
        json!({"command": "rstp-tcn", "bridge": "red"}),
        json!({"command": "log-set", "level": "debug", "target": "vhost"}),
        json!({"command": "subscribe"}),
    ] {
        session.ask(request);
    }
    let mut shown = commands();
    shown.retain(|command| {
        command.starts_with("show-") || matches!(command.as_str(), "info" | "log-show")
    });
    for command in shown.iter().map(String::as_str).chain(["config-show", "config-diff"]) {
        // What it has subscribed to comes between answers.
        Session::connect(&control).ask_into(&mut session.said, json!({"command": command}));
    }
    // A capture file follows the answer.
    let capture = json!({"command": "capture", "ports": ["a"], "direction": "in", "snaplen": 64,
        "dropped": true, "filter": "0006000000040000", "expression": "", "buffer": 131072});
    Session::connect(&control).ask_into(&mut session.said, capture);
    let mut other = Session::connect(&control);
    other.ask(json!({"command": "time-warp", "milliseconds": 1000}));
    // Before there is a guest: links are looked at before trees.
    assert_eq!(listener.event("rstp-root")["bridge"], "red");
    let guest = UnixStream::connect(&vm).unwrap();
    let connected = loop {
        let ports = other.ask(json!({"command": "show-ports"}));
        let port = ports["ports"].as_array().unwrap().iter().find(|port| port["name"] == "vm");
        if port.unwrap()["details"]["front-end"] == "connected" {
            break port.unwrap().clone();
        }
    };
    assert_eq!(connected["bridge"], "default");
    other.ask(json!({"command": "time-warp", "milliseconds": 1000}));
    assert_eq!(listener.event("guest-connected")["pid"], std::process::id());
    drop(guest);
    other.ask(json!({"command": "reload", "exact": false}));
    assert_eq!(listener.event("reload")["ok"], true);
    std::fs::write(dir.path().join("ringway.toml"), "[ports.x]\n").unwrap();
    other.fail(&json!({"command": "reload"}), "invalid");
    assert_eq!(listener.event("reload")["ok"], false);
    for (request, code) in [
        (json!({"command": "dance"}), "bad-request"),
        (json!({"command": "port-del", "name": "z"}), "not-found"),
        (json!({"command": "bridge-del", "name": "none"}), "not-found"),
        (json!({"command": "port-add", "name": "b", "device": "null:"}), "exists"),
        (json!({"command": "bridge-del", "name": "default"}), "not-permitted"),
        (json!({"command": "port-add", "name": "t", "device": "tap:x"}), "not-permitted"),
        (json!({"command": "port-add", "name": "n", "device": "nul:"}), "invalid"),
        (json!({"command": "log-set", "level": "loud"}), "invalid"),
        (json!({"command": "fdb-del", "mac": "52:54:00:00:00:99"}), "not-found"),
    ] {
        other.fail(&request, code);
    }
    for request in [
        json!({"command": "fdb-del", "mac": "52:54:00:00:00:01", "vlan": 7, "bridge": "red"}),
        json!({"command": "fdb-flush", "port": "a"}),
        json!({"command": "mirror-del", "name": "m"}),
        json!({"command": "bond-del", "name": "two"}),
        json!({"command": "port-del", "name": "b"}),
        json!({"command": "bridge-del", "name": "red"}),
    ] {
        other.ask(request);
    }
    while listener.event("changed")["kind"] != "bridge" {}

    let said = [listener.said, session.said, other.said].concat();
    let asked = said.iter().filter(|(name, _)| name == "request");
    let asked: BTreeSet<&str> =
        asked.map(|(_, value)| value["command"].as_str().unwrap()).collect();
    let missed: Vec<String> =
        commands().into_iter().filter(|command| !asked.contains(command.as_str())).collect();
    assert!(missed.is_empty(), "not asked: {missed:?}");
    assert_eq!(validate(&said), format!("checked {}\n", said.len()));
    // That it can tell.
    let wrong = [("event".to_owned(), json!({"event": "link", "uptime_ms": 1, "port": "a"}))];
    assert!(validate(&wrong).contains("not valid under any"), "{}", validate(&wrong));
    ringway.signal(Signal::TERM).unwrap();
    assert!(ringway.wait(Duration::from_secs(60)).unwrap().success());
}

impl Session {
    fn ask_into(mut self, said: &mut Vec<(String, Value)>, request: Value) {
        self.ask(request);
        said.append(&mut self.said);
    }
}
