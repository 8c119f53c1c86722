//! `ringway switch` and the commands that talk to it.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use support::{Switch, refusal};

#[test]
fn a_switch_gets_ready_is_looked_into_and_ends_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("vm1.sock");
    let vm1 = format!("vm1=vhost-user:{}", socket.display());
    let mut switch = Switch::start(dir.path(), &["--port", &vm1, "--port", "sink=null:,queues=2"]);
    assert!(switch.ready.contains("ready: 2 ports, 1 worker, control socket"), "{}", switch.ready);
    let mode = std::fs::metadata(&switch.control).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(socket.exists());

    let ports = switch.show("ports");
    let names: Vec<&str> =
        ports["ports"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["sink", "vm1"]);
    assert_eq!(
        (&ports["ports"][0]["link_up"], &ports["ports"][1]["link_up"]),
        (&true.into(), &false.into())
    );
    assert_eq!(ports["ports"][0]["rx_queues"], 2);
    assert_eq!(ports["ports"][0]["device"], "null:,queues=2");

    let stats = switch.show("stats");
    assert_eq!(stats["ports"][0]["rx_queues"].as_array().unwrap().len(), 2);
    assert_eq!(stats["ports"][1]["rx"]["packets"], 0);
    assert_eq!(switch.show("fdb")["entries"].as_array().unwrap().len(), 0);
    let workers = switch.show("workers");
    assert_eq!(workers["workers"][0]["alive"], true);
    assert_eq!(workers["workers"][0]["queues"].as_array().unwrap().len(), 3);

    assert_eq!(switch.terminate().0.code(), Some(0), "{}", switch.log());
    assert!(!switch.control.exists() && !socket.exists());
}

#[test]
fn sockets_let_in_whom_they_are_told_to_and_the_log_says_whom() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mode = |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
    let port =
        |name: &str, options: &str| format!("{name}=vhost-user:{}{options}", path(name).display());
    let group = rustix::process::getegid().as_raw().to_string();
    let mut switch = Switch::start(
        dir.path(),
        &["--socket-group", &group, "--control-mode", "0640", "-p", &port("all", "")]
            .into_iter()
            .chain(["-p", &port("own", ",mode=0600")])
            .collect::<Vec<_>>(),
    );
    switch.tell(&["port", "add", &port("late", ",mode=0666")]);
    assert_eq!((mode("all"), mode("own"), mode("late")), (0o660, 0o600, 0o666));
    let control = std::fs::metadata(&switch.control).unwrap().permissions().mode();
    assert_eq!(control & 0o777, 0o640);
    assert_eq!(switch.terminate().0.code(), Some(0));
    let log = switch.log();
    for expected in ["(mode 0660)", "(mode 0600)", "may_connect=everyone (mode 0666)"] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
}

#[test]
fn tables_are_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(dir.path(), &["--port", "a=null:", "--port", "b=null:"]);
    let ports = switch.tell(&["show", "ports"]);
    assert!(
        ports.lines().next().unwrap().starts_with("port  link   mtu  queues  stations"),
        "{ports}"
    );
    assert!(!ports.contains('\x1b'));
    assert!(switch.tell(&["show", "ports", "a"]).contains("transmit queues"));
    assert!(!switch.ask(&["show", "ports", "c"]).status.success());
    assert!(switch.tell(&["show", "stats"]).contains("packets"));
    assert!(switch.tell(&["show", "stats", "--queues"]).contains("a:0"));
    assert!(switch.tell(&["show", "fdb"]).contains("0 of 65,536 addresses"));
    assert!(switch.tell(&["show", "workers"]).contains("running"));
}

#[test]
fn ports_come_and_go_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(dir.path(), &["--port", "a=null:"]);
    let socket = dir.path().join("b.sock");
    switch.tell(&["port", "add", &format!("b=vhost-user:{}", socket.display())]);
    assert!(socket.exists());
    assert_eq!(switch.show("ports")["ports"].as_array().unwrap().len(), 2);

    let failure = |args: &[&str]| {
        let output = switch.ask(args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(failure(&["port", "add", "b=null:"]).contains("'b' exists already"));
    assert!(failure(&["port", "add", "c=nul:"]).contains("did you mean 'null'"));
    assert!(failure(&["port", "del", "c"]).contains("there are: a, b"));
    let taken = failure(&["port", "add", &format!("c=vhost-user:{}", socket.display())]);
    assert!(taken.contains("b.sock"), "{taken}");

    switch.tell(&["port", "del", "b"]);
    assert!(!socket.exists());
    assert_eq!(switch.show("ports")["ports"].as_array().unwrap().len(), 1);
}

#[test]
fn a_port_that_cannot_be_opened_does_not_keep_the_others_from_working() {
    let dir = tempfile::tempdir().unwrap();
    let port = format!("bad=vhost-user:{}/missing/vm1.sock", dir.path().display());
    let mut switch = Switch::start(dir.path(), &["--port", &port, "--port", "good=null:"]);
    assert!(switch.ready.contains("ready: 1 of 2 ports"), "{}", switch.ready);
    assert_eq!(switch.show("ports")["ports"][0]["name"], "good");
    assert_eq!(switch.terminate().0.code(), Some(0));
    assert!(switch.log().contains("port 'bad'"));

    let control = dir.path().join("other.sock");
    let (code, message) =
        refusal(&["switch", "--control", control.to_str().unwrap(), "--port", &port]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("none of the ports"), "{message}");
    assert!(!control.exists());
}

#[test]
fn the_forwarding_database_takes_static_entries() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(dir.path(), &["--port", "a=null:", "--fdb-size", "100"]);
    switch.tell(&["fdb", "add", "52:54:00:00:00:01", "a"]);
    let fdb = switch.show("fdb");
    assert_eq!(fdb["limit"], 100);
    assert_eq!(fdb["entries"][0]["mac"], "52:54:00:00:00:01");
    assert_eq!(
        (&fdb["entries"][0]["port"], &fdb["entries"][0]["static"]),
        (&"a".into(), &true.into())
    );
    // Flushing is for learned entries.
    assert!(switch.tell(&["fdb", "flush"]).starts_with("0 learned"));
    switch.tell(&["fdb", "del", "52:54:00:00:00:01"]);
    assert_eq!(switch.show("fdb")["entries"].as_array().unwrap().len(), 0);
    for args in [
        &["fdb", "del", "52:54:00:00:00:01"][..],
        &["fdb", "add", "52:54:00:00:00:01", "b"],
        &["fdb", "add", "ff:ff:ff:ff:ff:ff", "a"],
        &["fdb", "flush", "--port", "b"],
    ] {
        let output = switch.ask(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    }
}

#[test]
fn frames_are_switched_and_learned() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("in.pcap");
    let device = format!("pcap:,tx={}", capture.display());
    let output = support::run(&["gen", "txonly", "--port", &device, "--count", "500"]);
    assert!(output.status.success(), "{output:?}");

    let from = format!("from=pcap:{}", capture.display());
    let switch = Switch::start(dir.path(), &["--port", "to=null:", "--port", &from]);
    let start = std::time::Instant::now();
    let stats = loop {
        let stats = switch.show("stats");
        // What was received may be of a moment before what was sent.
        let counted = [&stats["ports"][0]["rx"], &stats["ports"][1]["tx"]];
        let all = counted.iter().all(|side| side["packets"] == 500);
        if all || start.elapsed() > Duration::from_secs(60) {
            break stats;
        }
    };
    assert_eq!(stats["ports"][1]["tx"]["packets"], 500, "{stats:#}");
    assert_eq!(stats["ports"][0]["rx"]["packets"], 500);
    assert_eq!(stats["ports"][0]["rx"]["bytes"], 500 * 64);
    assert_eq!(stats["ports"][0]["rx"]["sizes"], serde_json::json!({"size_64": 500}));
    let fdb = switch.show("fdb");
    assert_eq!(fdb["entries"][0]["mac"], "02:52:57:00:00:01");
    assert_eq!(fdb["entries"][0]["port"], "from");
    assert!(switch.tell(&["fdb", "flush", "--port", "from"]).starts_with("1 learned"));
}

#[test]
fn the_socket_speaks_json_lines_and_refuses_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(dir.path(), &["--port", "a=null:"]);
    let mut client = BufReader::new(UnixStream::connect(&switch.control).unwrap());
    let mut ask = |line: &str| {
        client.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_line(&mut answer).unwrap();
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()
    };
    assert_eq!(ask(r#"{"command":"info"}"#)["ok"]["version"], env!("CARGO_PKG_VERSION"));
    let error = |answer: serde_json::Value| answer["error"].as_str().unwrap().to_owned();
    assert!(error(ask("{")).contains("bad request"));
    assert!(error(ask(r#"{"command":"reboot"}"#)).contains("reboot"));
    assert!(
        error(ask(r#"{"command":"port-add","name":"../x","device":"null:"}"#)).contains("../x")
    );
    assert!(error(ask(r#"{"command":"fdb-add","mac":"1:2","port":"a"}"#)).contains("MAC address"));
    assert_eq!(
        ask(r#"{"command":"port-add","name":"b","device":"null:"}"#)["ok"],
        serde_json::json!({})
    );
}

#[test]
fn a_second_switch_on_the_same_control_socket_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(dir.path(), &["--port", "a=null:"]);
    let (code, message) = refusal(&["switch", "--control", switch.control.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(message.contains("taken by a live process"), "{message}");
    assert_eq!(switch.show("ports")["ports"][0]["name"], "a");
}

#[test]
fn the_configuration_file_and_the_command_line_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringway.toml");
    std::fs::write(
        &file,
        "[fdb]\nsize = 50\nageing = 7\n[ports.b]\ndevice = \"null:\"\n[ports.a]\ndevice = \"null:\"\n",
    )
    .unwrap();
    let args = ["--config", file.to_str().unwrap(), "--port", "c=null:", "--ageing", "9"];
    let switch = Switch::start(dir.path(), &args);
    let ports = switch.show("ports");
    let names: Vec<&str> =
        ports["ports"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let fdb = switch.show("fdb");
    assert_eq!((&fdb["limit"], &fdb["ageing_seconds"]), (&50.into(), &9.into()));
}
