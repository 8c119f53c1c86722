//! Wrong arguments and configurations: named, with exit status 2, before anything has started.

mod support;

use support::{refusal, run};

#[test]
fn help_is_there_for_every_command() {
    for command in ["switch", "l2fwd", "show", "port", "fdb", "gen", "demo", "vdpa"] {
        let output = run(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Example"), "{command}: {text}");
    }
    let text = String::from_utf8(run(&["switch", "--help"]).stdout).unwrap();
    for device in ["vhost-user:", "tap:", "pcap:", "null:"] {
        assert!(text.contains(device), "{device} is missing in {text}");
    }
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["swtich"], "switch"),
        (&["switch", "--prot", "a=null:"], "--port"),
        (&["switch", "--port", "null:"], "expected NAME=DEVICE"),
        (&["switch", "--port", "a b=null:"], "port name"),
        (&["switch", "--port", "a=nul:"], "did you mean 'null'"),
        (&["switch", "--port", "a=null:,colour=red"], "colour"),
        (&["switch", "--port", "a=null:", "--port", "a=null:"], "'a'"),
        (&["switch", "--port", "a=vhost-user:/x,mode=999"], "expected octal permissions"),
        (&["switch", "--port", "a=vhost-user:/x,mac=01:00:5e:00:00:01"], "one station"),
        (&["switch", "--ageing", "soon"], "'--ageing <SECS>': expected a whole number"),
        (&["switch", "--cores", "x"], "\"x\" is no core"),
        (&["switch", "--cores", "1000"], "1000"),
        (&["switch", "--fdb-size", "0"], "expected 1 to"),
        (&["switch", "--workers", "0"], "number of workers"),
        (&["switch", "--config", "/nonexistent/ringway.toml"], "/nonexistent/ringway.toml"),
        (&["show", "prots"], "ports"),
        (&["show", "ports", "--watch", "soon"], "seconds"),
        (&["fdb", "add", "52:54:00", "vm1"], "MAC address"),
        (&["gen", "txonly"], "--port"),
        (&["gen", "txonly", "--port", "null:", "--size", "20"], "60 to 65535"),
        (&["gen", "txonly", "--port", "null:", "--rate", "fast"], "frames per second"),
        (&["gen", "blast", "--port", "null:"], "txonly"),
        (&["gen", "txonly", "--port", "xyz:"], "no driver 'xyz'"),
        (&["demo", "--seconds", "0"], "--seconds"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control.sock");
    for (args, expected) in cases {
        let mut args = args.to_vec();
        if args.first() == Some(&"switch") {
            args.extend(["--control", control.to_str().unwrap()]);
        }
        let (code, message) = refusal(&args);
        assert_eq!(code, Some(2), "{args:?}: {message}");
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringway.toml");
    let cases = [
        ("busy-pol = true\n", 1, "did you mean 'busy-poll'?"),
        (
            "[fdb]\nsize = 10\nageing = \"long\"\n",
            3,
            "in 'ageing = \"long\"': invalid type: string \"long\", expected a whole number",
        ),
        ("\n[ports.vm1]\ndevise = \"null:\"\n", 3, "did you mean 'device'?"),
        ("[ports.vm1\n", 1, "expected"),
    ];
    for (text, line, expected) in cases {
        std::fs::write(&file, text).unwrap();
        let (code, message) = refusal(&["switch", "--config", file.to_str().unwrap()]);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains(&format!("ringway.toml:{line}: ")), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    // A name that the file and the command line both give.
    std::fs::write(&file, "[ports.vm1]\ndevice = \"null:\"\n").unwrap();
    let (code, message) =
        refusal(&["switch", "--config", file.to_str().unwrap(), "--port", "vm1=null:"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("'vm1' is given twice"), "{message}");
}

#[test]
fn without_a_switch_the_clients_fail_and_say_where_they_looked() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("none.sock");
    for args in [&["show", "ports"][..], &["port", "del", "a"], &["fdb", "flush"]] {
        let mut args = args.to_vec();
        args.extend(["--control", control.to_str().unwrap()]);
        let (code, message) = refusal(&args);
        assert_eq!(code, Some(1), "{message}");
        assert!(message.contains("none.sock"), "{message}");
    }
}

#[test]
fn a_configuration_can_be_checked_without_a_switch() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringway.toml");
    let socket = dir.path().join("vm.sock");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(&["switch", "--check", "--config", file.to_str().unwrap()])
    };
    let device = format!("[ports.a]\ndevice = \"vhost-user:{}\"\n", socket.display());
    let good =
        check(&format!("idle-after = 50\n[fdb]\nlearn-per-burst = 32\n{device}tx-retries = 3"));
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(String::from_utf8(good.stdout).unwrap().contains("good; ports: a;"));
    assert!(!socket.exists(), "nothing is opened");
    // One of each kind of device: each reads its own options.
    for (text, expected) in [
        ("[fdb]\nlearn-per-burst = 33", "addresses learnt per burst is 33"),
        ("workers = 0", "number of workers"),
        ("[ports.a]\ndevice = \"vhost-user:\"", "expected the path of a socket"),
        ("[ports.a]\ndevice = \"virtio-user:/x,colour=red\"", "unknown option 'colour'"),
        ("[ports.a]\ndevice = \"igb:0000:01:00.0,colour=red\"", "unknown option 'colour'"),
        ("[ports.a]\ndevice = \"virtio-pci:0000:01:00.0,colour=red\"", "unknown option 'colour'"),
        ("[ports.a]\ndevice = \"af-xdp:x,colour=red\"", "unknown option 'colour'"),
        ("[ports.a]\ndevice = \"af-packet:x,colour=red\"", "unknown option 'colour'"),
        ("[ports.a]\ndevice = \"vduse:x,colour=red\"", "unknown option 'colour'"),
        ("[ports.a]\ndevice = \"tap:x,colour=red\"", "unknown option 'colour'"),
        ("[ports.a]\ndevice = \"pcap:x,colour=red\"", "unknown option 'colour'"),
        ("[ports.a]\ndevice = \"null:colour=red\"", "'colour=red' is no option"),
        ("[ports.a]\ndevice = \"nul:\"", "port 'a': device 'nul:': there is no driver 'nul'"),
        ("[ports.a]\ndevice = \"null:\"\nworkers = [1]", "there is no worker 1"),
        ("[ports.a]\ndevice = \"vdpa:vhost-vdpa:x\"", "expected socket=PATH"),
        ("[ports.a]\ndevice = \"vdpa:vhost-vdpa:x,socket=/s\"\nmtu = 1400", "are for ports"),
    ] {
        let output = check(text);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}: {message}");
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn the_version_names_the_commit_where_there_is_one() {
    let text = String::from_utf8(run(&["--version"]).stdout).unwrap();
    let rest = text.strip_prefix(concat!("ringway ", env!("CARGO_PKG_VERSION"))).unwrap();
    let commit = rest.trim_end().strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
    let is_commit = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(rest == "\n" || commit.is_some_and(is_commit), "{text:?}");
}
