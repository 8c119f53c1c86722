//! What a running switch is to be: read again, changed, compared and saved.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code outside of test functions"
)]

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use support::{Switch, refusal, ringway, run};

const FILE: &str = "\
# Rack 7
[fdb]
ageing = 60   # short

[ports.a]
device = \"null:\"   # nothing
addresses = [\"52:54:00:00:00:01\"]

[ports.b]
device = \"null:\"
";

struct Bench {
    switch: Switch,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringway.toml");
        fs::write(&file, FILE).unwrap();
        let args = [&["--config", file.to_str().unwrap()], more].concat();
        Self { switch: Switch::start(dir.path(), &args), file, _dir: dir }
    }

    fn write(&self, text: &str) {
        fs::write(&self.file, text).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }

    fn failure(&self, args: &[&str]) -> String {
        let output = self.switch.ask(args);
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Name, MTU and whether it is in service, of each port.
    fn ports(&self) -> Vec<(String, u64, bool)> {
        let ports = self.switch.show("ports");
        let port = |port: &Value| {
            let name = port["name"].as_str().unwrap().to_owned();
            (name, port["mtu"].as_u64().unwrap(), port["enabled"].as_bool().unwrap())
        };
        ports["ports"].as_array().unwrap().iter().map(port).collect()
    }

    fn names(&self) -> Vec<String> {
        self.ports().into_iter().map(|(name, ..)| name).collect()
    }
}

#[test]
fn a_file_that_is_read_again_changes_what_it_says_otherwise_and_nothing_else() {
    let bench = Bench::start(&["--port", "up=null:"]);
    assert_eq!(bench.switch.tell(&["reload"]), "nothing has changed\n");
    bench.switch.tell(&["port", "add", "late=null:"]);
    bench.switch.tell(&["port", "set", "b", "--mtu", "9000"]);
    bench.write(&FILE.replace("ageing = 60", "ageing = 30").replace("[ports.a]", "[ports.c]"));
    let diff = bench.switch.tell(&["config", "diff"]);
    let expected = "fdb.ageing 60 -> 30\nport b: mtu 9000 -> default\nport a removed: null:\n\
                    port late removed: null:\nport c added: null:\n";
    assert_eq!(diff, expected);
    let done = bench.switch.tell(&["reload"]);
    assert_eq!(done, "fdb.ageing 60 -> 30\nport a removed: null:\nport c added: null:\n");
    assert_eq!(bench.names(), ["b", "c", "late", "up"]);
    assert_eq!(bench.ports()[0].1, 9000, "what a command has set stays");
    let fdb = bench.switch.show("fdb");
    assert_eq!((&fdb["ageing_seconds"], &fdb["entries"][0]["port"]), (&30.into(), &"c".into()));
    bench.switch.tell(&["reload", "--exact"]);
    assert_eq!(
        (bench.names(), bench.ports()[0].1),
        (vec!["b".into(), "c".into(), "up".into()], 1500)
    );
    let same = "the switch is what its file and command line say\n";
    assert_eq!(bench.switch.tell(&["config", "diff"]), same);
}

#[test]
fn workers_come_and_go_with_the_file() {
    let bench = Bench::start(&[]);
    let cores = || {
        let workers = bench.switch.show("workers");
        let workers = workers["workers"].as_array().unwrap().iter();
        workers.map(|worker| worker["core"].as_u64()).collect::<Vec<_>>()
    };
    let core = eal::CoreList::available().unwrap().as_slice()[0];
    for (text, told, expected) in [
        ("workers = 3\n".to_owned(), "workers 1 -> 3".to_owned(), vec![None; 3]),
        (
            format!("cores = \"{core}\"\n"),
            format!("workers 3 -> on cores {core}"),
            vec![u64::try_from(core).ok()],
        ),
        ("workers = 2\n".to_owned(), format!("workers on cores {core} -> 2"), vec![None; 2]),
    ] {
        bench.write(&(text + FILE));
        let output = bench.switch.tell(&["reload"]);
        assert!(output.contains(&told), "{output}");
        assert_eq!(cores(), expected);
    }
}

#[test]
fn a_file_that_cannot_be_applied_changes_nothing() {
    let bench = Bench::start(&[]);
    for (text, expected) in [
        ("[sockets]\nmode = \"0600\"\n", "'sockets.mode' stays default"),
        ("[ports.a]\ndevice = \"null:\"\nmtu = 3\n", "port 'a': null port"),
        (
            "[ports.a]\ndevice = \"null:\"\nmtuu = 3\n",
            "ringway.toml:3: unknown key 'mtuu'; did you",
        ),
        ("[ports.a]\ndevice = \"tap:x\"\n", "--allow-port tap"),
    ] {
        bench.write(text);
        let error = bench.failure(&["reload"]);
        assert!(error.contains(expected), "{text}: {error}");
        assert_eq!(bench.names(), ["a", "b"]);
    }
    bench.write("[sockets]\nmode = \"0600\"\n");
    let diff = bench.switch.tell(&["config", "diff"]);
    assert!(diff.contains("sockets.mode default -> \"0600\", which takes a new start"), "{diff}");
    bench.write("workers = 2\nbusy-poll = true\n");
    let diff = bench.switch.tell(&["config", "diff"]);
    assert!(
        diff.contains("workers 1 -> 2\n") && diff.contains("busy-poll false -> true"),
        "{diff}"
    );
    let dir = tempfile::tempdir().unwrap();
    let bare = Switch::start(dir.path(), &["--port", "a=null:"]);
    let error = String::from_utf8(bare.ask(&["reload"]).stderr).unwrap();
    assert!(error.contains("without a configuration file"), "{error}");
    let add = bare.ask(&["port", "add", "b=null:", "--save"]);
    assert!(String::from_utf8(add.stderr).unwrap().contains("without a configuration file"));
    assert_eq!(bare.show("ports")["ports"].as_array().unwrap().len(), 1);
}

#[test]
fn changes_are_saved_in_the_file_with_its_comments() {
    let bench = Bench::start(&["--port", "up=null:"]);
    let set = ["port", "set", "a", "--mtu", "9000", "--enabled", "off", "--save"];
    assert!(bench.switch.tell(&set).starts_with("port a changed\nsaved in "));
    assert_eq!(bench.ports()[0], ("a".to_owned(), 9000, false));
    let text = bench.text();
    for kept in ["# Rack 7", "ageing = 60   # short", "device = \"null:\"   # nothing"] {
        assert!(text.contains(kept), "{text}");
    }
    assert!(text.contains("mtu = 9000") && text.contains("enabled = false"), "{text}");
    bench.switch.tell(&["port", "add", "c=null:,queues=2", "--save"]);
    bench.switch.tell(&["fdb", "add", "52:54:00:00:00:01", "c", "--save"]);
    bench.switch.tell(&["fdb", "add", "52:54:00:00:00:09", "b", "--vlan", "7", "--save"]);
    bench.switch.tell(&["port", "set", "a", "--mtu", "default", "--enabled", "on", "--save"]);
    let text = bench.text();
    assert!(text.contains("[ports.c]\ndevice = \"null:,queues=2\""), "{text}");
    assert!(text.contains("52:54:00:00:00:09 vlan 7") && !text.contains("mtu"), "{text}");
    bench.switch.tell(&["fdb", "del", "52:54:00:00:00:01", "--save"]);
    bench.switch.tell(&["port", "del", "b", "--save"]);
    assert!(!bench.text().contains("52:54:00") && !bench.text().contains("[ports.b]"));
    // The file says what runs.
    assert_eq!(bench.switch.tell(&["reload"]), "nothing has changed\n");
    let same = "the switch is what its file and command line say\n";
    assert_eq!(bench.switch.tell(&["config", "diff"]), same);
    let error = bench.failure(&["port", "del", "up", "--save"]);
    assert!(error.contains("'up' is on the command line"), "{error}");
    assert!(bench.names().contains(&"up".to_owned()));
}

#[test]
fn what_a_switch_is_to_be_is_shown_as_a_file() {
    let bench = Bench::start(&["--port", "up=null:,queues=2"]);
    let shown = bench.switch.tell(&["config", "show"]);
    let copy = bench.file.with_file_name("copy.toml");
    fs::write(&copy, &shown).unwrap();
    for expected in ["ageing = 60", "[ports.up]", "idle-after = 100", "52:54:00:00:00:01"] {
        assert!(shown.contains(expected), "{shown}");
    }
    let good = run(&["config", "check", copy.to_str().unwrap()]);
    assert!(good.status.success(), "{good:?}");
    assert!(String::from_utf8(good.stdout).unwrap().contains("good; ports: a, b, up;"));
    let json = String::from_utf8(bench.switch.ask(&["config", "show", "--json"]).stdout).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["version"], &json["arguments"][0]), (&1.into(), &"up".into()));
    assert_eq!(json["file"], bench.file.to_str().unwrap());
    fs::write(&copy, "[ports.a]\ndevice = \"nul:\"\n").unwrap();
    let (code, message) = refusal(&["config", "check", copy.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("copy.toml:2: port 'a'"), "{message}");
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let bench = Bench::start(&[]);
    for (args, expected) in [
        (&["port", "set", "c", "--mtu", "1500"][..], "no port 'c'"),
        (&["port", "set", "a", "--mtu", "3"], "null port"),
        (
            &["port", "set", "a", "--mtu", "x"],
            "expected a whole number from 0 to 65535, or default",
        ),
        (&["port", "set", "a", "--workers", "1"], "there is no worker 1"),
        (&["port", "set", "a", "--workers", "0,x"], "expected numbers of workers"),
        (&["port", "set", "a", "--enabled", "maybe"], "expected on or off"),
        (&["port", "set", "a"], "--mtu"),
    ] {
        let error = bench.failure(args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    bench.switch.tell(&["port", "set", "a", "--workers", "0", "--tx-retries", "3"]);
    bench.switch.tell(&["port", "set", "a", "--workers", "default", "--tx-retries", "default"]);
    assert_eq!(bench.switch.show("workers")["workers"][0]["queues"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_logged_changes_while_it_runs() {
    let mut bench = Bench::start(&["--quiet"]);
    bench.switch.tell(&["port", "add", "silent=null:"]);
    bench.switch.tell(&["log", "set", "info"]);
    bench.switch.tell(&["port", "add", "told=null:"]);
    assert!(bench.failure(&["log", "set", "loud"]).contains("expected error, warn, info"));
    bench.switch.terminate();
    let log = bench.switch.log();
    assert!(log.contains("told") && !log.contains("silent"), "{log}");
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("notify"), dir.path().join("ringway.toml"));
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let next = || {
        let mut bytes = [0; 1024];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    fs::write(&file, FILE).unwrap();
    let mut command = ringway();
    command.env("NOTIFY_SOCKET", &path);
    let mut switch = Switch::start_with(command, dir.path(), &["--config", file.to_str().unwrap()]);
    // The sandbox leaves the way to the manager open.
    assert!(next().starts_with("READY=1\nSTATUS=2 ports, 1 worker"));
    switch.tell(&["port", "add", "late=null:"]);
    assert!(next().starts_with("STATUS=3 ports"));
    // It is ready again whether there was a mistake in the file or not.
    for (text, ends_well) in [(FILE, true), ("what = 1\n", false)] {
        fs::write(&file, text).unwrap();
        assert_eq!(switch.ask(&["reload"]).status.success(), ends_well);
        assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert!(next().starts_with("READY=1\nSTATUS=3 ports"));
    }
    switch.terminate();
    assert!(next().starts_with("STOPPING=1"));
}

#[test]
fn bridges_come_and_go_by_command_and_file() {
    let bench = Bench::start(&[]);
    bench.switch.tell(&["bridge", "add", "red", "--ageing", "60", "--save"]);
    bench.switch.tell(&["port", "set", "a", "--bridge", "red", "--save"]);
    bench.switch.tell(&[
        "bridge",
        "set",
        "red",
        "--ageing",
        "default",
        "--group-fwd-mask",
        "0x4000",
    ]);
    let shown = bench.switch.show("bridges");
    let red = &shown["bridges"][1];
    assert_eq!((&red["name"], &red["ports"]), (&"red".into(), &serde_json::json!(["a"])));
    assert_eq!((&red["ageing_seconds"], &red["group_fwd_mask"]), (&60.into(), &0x4000.into()));
    assert_eq!(bench.switch.show("ports")["ports"][0]["bridge"], "red");
    let text = bench.text();
    assert!(text.contains("[bridges.red]\nfdb.ageing = 60\n"), "{text}");
    assert!(text.contains("bridge = \"red\"") && text.starts_with("# Rack 7"), "{text}");
    // What is saved must not rest on what is not.
    bench.switch.tell(&["bridge", "add", "blue"]);
    let error = bench.failure(&["port", "set", "b", "--bridge", "blue", "--save"]);
    assert!(error.contains("not saved") && error.contains("no bridge 'blue'"), "{error}");
    assert_eq!(bench.text(), text);
    bench.switch.tell(&["port", "set", "b", "--bridge", "default"]);
    // The same address behind a port of each bridge; one is forgotten.
    let mac = "52:54:00:00:00:01";
    bench.switch.tell(&["fdb", "add", mac, "b"]);
    bench.switch.tell(&["fdb", "del", mac]);
    let fdb = bench.switch.tell(&["show", "fdb"]);
    assert!(fdb.contains("red     52:54:00:00:00:01     0  a     static"), "{fdb}");
    bench.switch.tell(&["bridge", "del", "blue"]);
    assert!(fdb.contains("default: 0 of 65,536") && fdb.contains("red: 1 of 65,536"), "{fdb}");
    assert!(!bench.switch.tell(&["show", "fdb", "default"]).contains(mac));
    for (args, expected) in [
        (&["bridge", "del", "red"][..], "bridge 'red' has ports: a"),
        (&["bridge", "add", "red"], "'red' exists already"),
        (&["bridge", "set", "rad", "--ageing", "1"], "did you mean 'red'?"),
        (&["bridge", "set", "red"], "nothing to change"),
        (&["bridge", "set", "red", "--fdb-size", "0"], "limit is 0"),
        (&["port", "add", "x=null:", "--bridge", "rad"], "did you mean 'red'?"),
        (&["show", "fdb", "rad"], "did you mean 'red'?"),
    ] {
        let error = bench.failure(args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    // The file as it was: the bridge goes, and its port comes back.
    bench.write(FILE);
    bench.switch.tell(&["reload", "--exact"]);
    assert_eq!(bench.switch.show("bridges")["bridges"].as_array().unwrap().len(), 1);
    assert_eq!(bench.switch.show("fdb")["entries"][0]["bridge"], "default");
    assert_eq!(bench.names(), ["a", "b"]);
}

#[test]
fn one_line_makes_both_ends_of_a_patch_and_one_removes_them() {
    let bench = Bench::start(&[]);
    bench.switch.tell(&["bridge", "add", "red", "--save"]);
    bench.switch.tell(&["port", "add", "out=patch:in", "--peer-bridge", "red", "--save"]);
    assert_eq!(bench.names(), ["a", "b", "in", "out"]);
    let ports = bench.switch.show("ports");
    let of = |index: usize| {
        let port = &ports["ports"][index];
        (port["bridge"].as_str().unwrap(), port["link_up"].as_bool().unwrap())
    };
    assert_eq!((of(2), of(3)), (("red", true), ("default", true)));
    let text = bench.text();
    assert!(text.contains("[ports.in]\ndevice = \"patch:out\"\nbridge = \"red\"\n"), "{text}");
    assert!(text.contains("[ports.out]\ndevice = \"patch:in\"\n"), "{text}");
    assert_eq!(bench.switch.tell(&["reload"]), "nothing has changed\n");
    for (args, expected) in [
        (&["port", "add", "x=patch:y"][..], "no port 'y' to be its peer"),
        (&["port", "add", "x=patch:x", "--peer-bridge", "red"], "'x' exists already"),
        (&["port", "add", "x=null:", "--peer-bridge", "red"], "a peer is for patch ports"),
        (&["port", "add", "x=patch:y", "--peer-bridge", "default"], "is in bridge 'default', too"),
        (&["port", "set", "in", "--bridge", "default"], "is in bridge 'default', too"),
        (&["port", "set", "in", "--mtu", "1400"], "has no such setting"),
    ] {
        let error = bench.failure(args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    bench.switch.tell(&["port", "del", "in", "--save"]);
    assert_eq!(bench.names(), ["a", "b"]);
    assert!(!bench.text().contains("patch"));
}
