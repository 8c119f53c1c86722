//! The reconciler with a real switch, without root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure fails the test")]

use std::path::Path;
use std::time::Duration;

use daemon::{Change, Daemon, Device, Error, Missing, Options, Port, State, file};
use eal::time::Time;

fn start(text: &str) -> Daemon {
    Daemon::start(file::parse(text).unwrap(), Options::default()).unwrap()
}

/// Names of the ports that are open, with `!` behind those that are disabled.
fn ports(daemon: &Daemon) -> Vec<String> {
    let ports = daemon.switch().ports().into_iter();
    ports.map(|port| format!("{}{}", port.name, if port.disabled { "!" } else { "" })).collect()
}

fn statics(daemon: &Daemon) -> Vec<String> {
    let entries = daemon.switch().fdb().into_iter().filter(|entry| entry.is_static);
    entries.map(|entry| format!("{} {} {}", entry.mac, entry.vlan, entry.port)).collect()
}

fn apply(daemon: &mut Daemon, text: &str) -> Result<Vec<String>, Error> {
    let applied = daemon.apply(file::parse(text).unwrap(), Missing::Retry)?;
    Ok(applied.changes.iter().map(Change::to_string).collect())
}

#[test]
fn what_differs_is_changed_and_nothing_else() {
    let mut daemon = start("[ports.a]\ndevice = \"null:\"\n[ports.b]\ndevice = \"null:\"\n");
    assert_eq!((ports(&daemon), daemon.version()), (vec!["a".into(), "b".into()], 1));
    let text = "[fdb]\nageing = 7\n[ports.a]\ndevice = \"null:\"\nmtu = 9000\nenabled = false\n\
                addresses = [\"52:54:00:00:00:01\"]\n[ports.c]\ndevice = \"null:,queues=2\"\n\
                addresses = [\"52:54:00:00:00:02 vlan 7\"]\n";
    let changes = apply(&mut daemon, text).unwrap();
    assert_eq!(
        changes,
        [
            "fdb.ageing 300 -> 7",
            "port a: mtu default -> 9000\nport a: enabled true -> false",
            "port a: address 52:54:00:00:00:01 added",
            "port b removed: null:",
            "port c added: null:,queues=2",
        ]
    );
    assert_eq!((ports(&daemon), daemon.version()), (vec!["a!".into(), "c".into()], 2));
    assert_eq!(statics(&daemon), ["52:54:00:00:00:01 0 a", "52:54:00:00:00:02 7 c"]);
    assert_eq!(daemon.switch().port("a").unwrap().mtu, 9000);
    assert_eq!(daemon.switch().fdb_report().ageing, 7);
    assert_eq!(apply(&mut daemon, text).unwrap(), Vec::<String>::new());
    assert_eq!(daemon.version(), 2, "nothing has changed");
    apply(&mut daemon, "[ports.a]\ndevice = \"null:\"\n").unwrap();
    assert_eq!(daemon.switch().port("a").unwrap().mtu, 1500);
    assert_eq!((statics(&daemon), ports(&daemon)), (vec![], vec!["a".into()]));
}

#[test]
fn workers_are_as_many_as_the_state_says() {
    let port = |name: &str, more: &str| format!("[ports.{name}]\ndevice = \"null:\"\n{more}\n");
    let mut daemon = start(&port("a", ""));
    let polled = |daemon: &Daemon| {
        let workers = daemon.switch().workers();
        let queues = workers.iter().map(|worker| worker.queues.iter().map(|(port, _)| &**port));
        queues.map(|queues| queues.collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    // More workers come before the ports that want them, and go after those that did.
    let two =
        "workers = 3\n".to_owned() + &port("a", "workers = [2]") + &port("b", "workers = [1]");
    let changes = apply(&mut daemon, &two).unwrap();
    assert_eq!(
        changes,
        ["workers 1 -> 3", "port a: workers default -> [2]", "port b added: null:"]
    );
    assert_eq!(polled(&daemon), ["", "b", "a"]);
    let error = apply(&mut daemon, &two.replace("= 3", "= 2")).unwrap_err().to_string();
    assert!(error.contains("port 'a': there is no worker 2: the switch has 2"), "{error}");
    assert_eq!(polled(&daemon), ["", "b", "a"]);
    // What was done is undone if the last port cannot be.
    let core = eal::CoreList::available().unwrap().as_slice()[0];
    let wrong = format!("cores = \"{core}\"\n") + &port("a", "") + &port("c", "mtu = 3");
    let refused = daemon.apply(file::parse(&wrong).unwrap(), Missing::Refuse).unwrap_err();
    assert!(refused.to_string().contains("port 'c'"), "{refused}");
    assert_eq!(
        (polled(&daemon), daemon.state().workers),
        (vec!["".into(), "b".into(), "a".into()], Some(3))
    );
    let changes = apply(&mut daemon, &(format!("cores = \"{core}\"\n") + &port("a", ""))).unwrap();
    assert_eq!(
        changes,
        [
            "port a: workers [2] -> default".to_owned(),
            "port b removed: null:".to_owned(),
            format!("workers 3 -> on cores {core}"),
        ]
    );
    assert_eq!(daemon.switch().workers().iter().map(|w| w.core).collect::<Vec<_>>(), [Some(core)]);
    assert_eq!(polled(&daemon), ["a"]);
}

#[test]
fn workers_sleep_as_the_state_says() {
    let port = "[ports.a]\ndevice = \"null:\"\n";
    let mut daemon = start(port);
    let counts = |daemon: &Daemon| {
        let worker = &daemon.switch().workers()[0];
        (worker.sleeps, worker.polls)
    };
    let wait = |daemon: &Daemon, is_so: &dyn Fn((u64, u64)) -> bool| {
        while !is_so(counts(daemon)) {
            std::thread::yield_now();
        }
    };
    wait(&daemon, &|(sleeps, _)| sleeps > 0);
    let busy = format!("busy-poll = true\nidle-after = 7\n{port}");
    let changes = apply(&mut daemon, &busy).unwrap();
    assert_eq!(changes, ["busy-poll false -> true\nidle-after 100 -> 7"]);
    let (sleeps, polls) = counts(&daemon);
    wait(&daemon, &|(_, now)| now > polls + 1_000);
    assert_eq!(counts(&daemon).0, sleeps);
    assert_eq!(apply(&mut daemon, port).unwrap(), ["busy-poll true -> false\nidle-after 7 -> 100"]);
    wait(&daemon, &|(now, _)| now > sleeps);
}

#[test]
fn an_address_moves_with_whatever_else_changes() {
    let with = |a: &str, b: &str| {
        let port = |name: &str, address: &str| match address {
            "gone" => String::new(),
            "" => format!("[ports.{name}]\ndevice = \"null:\"\n"),
            _ => format!("[ports.{name}]\ndevice = \"null:\"\naddresses = [\"{address}\"]\n"),
        };
        port("a", a) + &port("b", b)
    };
    let mac = "52:54:00:00:00:01";
    let at = |port: &str| vec![format!("{mac} 0 {port}")];
    let mut daemon = start(&with(mac, ""));
    for (a, b, port) in [("", mac, "b"), (mac, "gone", "a"), ("gone", mac, "b"), (mac, "", "a")] {
        apply(&mut daemon, &with(a, b)).unwrap();
        assert_eq!(statics(&daemon), at(port), "{a} {b}");
    }
    let moved = |daemon: &mut Daemon, port: &str| {
        let mut from = None;
        let address = mac.parse().unwrap();
        let edit = |state: &mut State| {
            from = state.add_address(address, port)?;
            Ok(())
        };
        daemon.edit(Missing::Refuse, edit).unwrap();
        from
    };
    assert_eq!(moved(&mut daemon, "b").as_deref(), Some("a"));
    assert_eq!((moved(&mut daemon, "b"), statics(&daemon)), (None, at("b")));
}

#[test]
fn a_state_that_cannot_be_made_true_changes_nothing() {
    let before = "[ports.a]\ndevice = \"null:\"\naddresses = [\"52:54:00:00:00:01\"]\n\
                  [ports.b]\ndevice = \"null:\"\n";
    let mut daemon = start(before);
    let first = (daemon.state().clone(), daemon.version(), statics(&daemon), ports(&daemon));
    for (text, expected) in [
        // Settings that hold to the end.
        (
            "control-mode = \"0600\"\n[sockets]\nmode = \"0600\"\n",
            "'control-mode' stays default, 'sockets.mode' stays",
        ),
        // A part that is wrong in itself, behind changes that are not.
        ("[ports.a]\ndevice = \"null:\"\n[ports.c]\ndevice = \"nul:\"\n", "did you mean 'null'"),
        ("[ports.a]\ndevice = \"null:\"\nworkers = [1]\n", "there is no worker 1"),
        ("[fdb]\nageing = 9999999999\n", "ageing is"),
        // What only the device knows: everything before is undone.
        (
            "[fdb]\nageing = 9\n[ports.a]\ndevice = \"null:\"\nmtu = 9000\n[ports.b]\n\
             device = \"null:\"\nmtu = 3\n",
            "port 'b'",
        ),
    ] {
        let error = apply(&mut daemon, text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        let now = (daemon.state().clone(), daemon.version(), statics(&daemon), ports(&daemon));
        assert_eq!(now, first, "{text}");
        assert_eq!(daemon.switch().port("a").unwrap().mtu, 1500);
        assert_eq!(daemon.switch().fdb_report().ageing, 300);
    }
}

#[test]
fn limits_change_while_a_port_is_open() {
    let port = |limits: &str| format!("[ports.a]\ndevice = \"null:\"\nlimits = {{ {limits} }}\n");
    let mut daemon = start(&port(""));
    let limits = |daemon: &Daemon| daemon.switch().port("a").unwrap().limits;
    assert!(limits(&daemon).is_default());
    let changes = apply(&mut daemon, &port("rx-rate = \"1M\", tx-packet-rate = 300")).unwrap();
    let expected = r#"limits default -> {"rx-rate":"1Mbit","tx-packet-rate":"300"}"#;
    assert_eq!(changes, [format!("port a: {expected}")]);
    assert_eq!(limits(&daemon), daemon.state().ports["a"].limits);
    let before = limits(&daemon);
    for (wrong, expected) in [
        ("rx-rate = \"1k\"", "port 'a': rx-rate 1kbit: expected 8kbit to 1Tbit"),
        ("rx-burst = \"1M\"", "rx-burst without rx-rate"),
    ] {
        match apply(&mut daemon, &port(wrong)) {
            Err(Error::Invalid { part, reason }) => {
                assert_eq!(part, "ports.a.limits");
                assert!(reason.contains(expected), "{reason}");
            }
            other => unreachable!("{other:?}"),
        }
        assert_eq!(limits(&daemon), before);
    }
    apply(&mut daemon, &port("")).unwrap();
    assert!(limits(&daemon).is_default());
}

#[test]
fn guards_change_while_a_port_is_open() {
    let port = |guard: &str| format!("[ports.a]\ndevice = \"null:\"\nguard = {{ {guard} }}\n");
    let mut daemon = start(&port(""));
    let guard = |daemon: &Daemon| daemon.switch().port("a").unwrap().guard;
    assert!(guard(&daemon).is_default());
    let changes = apply(&mut daemon, &port("allowed-ips = [\"192.0.2.7\"]")).unwrap();
    assert_eq!(changes, [r#"port a: guard default -> {"allowed-ips":["192.0.2.7"]}"#]);
    assert_eq!(guard(&daemon), daemon.state().ports["a"].guard);
    // A command changes what it names, and nothing else of it.
    let set = |daemon: &mut Daemon, text: &str| {
        let mut state = daemon.state().clone();
        let settings = [("guard".to_owned(), serde_json::from_str(text).unwrap())];
        state.set_port("a", settings.into_iter().collect())?;
        daemon.apply(state, Missing::Retry).map(drop)
    };
    set(&mut daemon, r#"{"allowed-macs":["52:54:00:00:00:01"],"ra-guard":false}"#).unwrap();
    let text = serde_json::to_string(&guard(&daemon)).unwrap();
    let expected =
        r#"{"allowed-macs":["52:54:00:00:00:01"],"allowed-ips":["192.0.2.7"],"ra-guard":false}"#;
    assert_eq!(text, expected);
    set(&mut daemon, r#"{"allowed-ips":null,"ra-guard":null}"#).unwrap();
    assert_eq!(
        serde_json::to_string(&guard(&daemon)).unwrap(),
        r#"{"allowed-macs":["52:54:00:00:00:01"]}"#
    );
    let before = guard(&daemon);
    for (wrong, expected) in [
        (r#"{"allowed-macs":["ff:ff:ff:ff:ff:ff"]}"#, "is not the address of one station"),
        (r#"{"max-addresses":0}"#, "expected 1 at least"),
        (r#"{"beyond-max":"flood"}"#, "beyond-max without max-addresses"),
        (r#"{"allowed-mac":null}"#, "did you mean 'allowed-macs'?"),
        (r#"{"allowed-ips":["10.0.0.1/8"]}"#, "did you mean 10.0.0.0/8?"),
    ] {
        let error = set(&mut daemon, wrong).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("port 'a'"), "{error}");
        assert_eq!(guard(&daemon), before);
    }
    set(&mut daemon, "null").unwrap();
    assert!(guard(&daemon).is_default());
}

#[test]
fn mirrors_are_a_part_of_the_state() {
    let port = |name: &str| format!("[ports.{name}]\ndevice = \"null:\"\n");
    let all = ["a", "b", "w"].map(port).concat();
    let mirror = |more: &str| format!("{all}[mirrors.m]\noutput-port = \"w\"\n{more}\n");
    let mut daemon = start(&mirror("select-src-port = [\"a\"]"));
    let report = |daemon: &Daemon| daemon.switch().mirrors().pop().map(|mirror| mirror.mirror);
    assert_eq!(report(&daemon).as_ref(), Some(&daemon.state().mirrors["m"]));
    let changes = apply(&mut daemon, &mirror("select-all = true\nsnaplen = 96")).unwrap();
    assert!(changes[0].starts_with("mirror m: {") && changes.len() == 1, "{changes:?}");
    assert_eq!(report(&daemon).unwrap().snaplen, Some(96));
    let before = report(&daemon);
    let elsewhere = "[bridges.red]\n[ports.r]\ndevice = \"null:\"\nbridge = \"red\"\n";
    let red = elsewhere.to_owned() + &mirror("select-src-port = [\"r\"]");
    let two = mirror("select-all = true")
        + "[mirrors.n]\noutput-port = \"a\"\nselect-dst-port = [\"w\"]\n";
    let fixed = all.replace(
        "[ports.w]\ndevice = \"null:\"\n",
        "[ports.w]\ndevice = \"null:\"\naddresses = [\"52:54:00:00:00:01\"]\n",
    ) + "[mirrors.m]\noutput-port = \"w\"\nselect-all = true\n";
    for (text, part, expected) in [
        (mirror("select-src-port = [\"c\"]"), "mirrors.m.select-src-port", "no port 'c'"),
        (mirror(""), "mirrors.m.select-all", "selects nothing"),
        (red, "mirrors.m.select-src-port", "port 'r' is of bridge 'red', not of 'default'"),
        (two, "mirrors.n.select-dst-port", "'w' is the output port of mirror 'm'"),
        (fixed, "mirrors.m.output-port", "has static addresses"),
        // A port that a mirror names does not go.
        (
            port("a") + "[mirrors.m]\noutput-port = \"w\"\nselect-all = true\n",
            "mirrors.m.output-port",
            "no port 'w'",
        ),
    ] {
        match apply(&mut daemon, &text) {
            Err(Error::Invalid { part: found, reason }) => {
                assert_eq!(found, part, "{text}");
                assert!(reason.contains(expected), "{text}: {reason}");
            }
            other => unreachable!("{text}: {other:?}"),
        }
        assert_eq!(report(&daemon), before);
    }
    let error = daemon.edit(Missing::Refuse, |state| state.remove("w")).unwrap_err().to_string();
    assert!(error.contains("mirror 'm': output-port: there is no port 'w'"), "{error}");
    // With the mirror it may.
    assert_eq!(
        apply(&mut daemon, &port("a")).unwrap(),
        ["port b removed: null:", "port w removed: null:", "mirror m removed"]
    );
    assert_eq!(report(&daemon), None);
    let error = daemon.edit(Missing::Refuse, |state| state.remove_mirror("m")).unwrap_err();
    assert_eq!(error.to_string(), "there is no mirror 'm'; there are no mirrors");
}

#[test]
fn what_a_state_says_twice_is_refused_by_name() {
    let null = |name: &str, more: &str| format!("[ports.{name}]\ndevice = \"null:\"\n{more}\n");
    let socket = |name: &str| format!("[ports.{name}]\ndevice = \"vhost-user:/run/x.sock\"\n");
    let vdpa = "[vdpa.v]\ndevice = \"vhost-vdpa:net0\"\nsocket = \"/run/x.sock\"\n";
    let address = "addresses = [\"52:54:00:00:00:01\"]";
    for (text, part, expected) in [
        (null("a", address) + &null("b", address), "ports.b.addresses", "port 'a' and 'b'"),
        (socket("a") + &socket("b"), "ports.b.device", "is the socket of port 'a' already"),
        (socket("a") + vdpa, "vdpa.v.socket", "is the socket of port 'a' already"),
        (
            "control = \"/run/x.sock\"\n".to_owned() + &socket("a"),
            "ports.a.device",
            "is the socket of the control socket already",
        ),
        (null("v", "") + vdpa, "vdpa.v", "the name of a port, too"),
        ("[fdb]\nsize = 1\n".to_owned() + &null("a", address), "", ""),
    ] {
        let state = file::parse(&text).unwrap();
        match Daemon::start(state, Options::default()) {
            Ok(_) => assert!(expected.is_empty(), "{text}"),
            Err(Error::Invalid { part: found, reason }) => {
                assert_eq!(found, part, "{text}");
                assert!(reason.contains(expected), "{text}: {reason}");
            }
            Err(other) => unreachable!("{other}"),
        }
    }
}

#[test]
fn a_device_that_is_not_there_yet_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("later");
    let socket = folder.join("vm.sock");
    let text = format!(
        "[ports.vm]\ndevice = \"vhost-user:{}\"\naddresses = [\"52:54:00:00:00:01\"]\n",
        socket.display()
    );
    let time = Time::stopped();
    let options = Options { time: time.clone(), ..Options::default() };
    let mut daemon = Daemon::start(file::parse(&text).unwrap(), options).unwrap();
    let waiting = |daemon: &Daemon| daemon.waiting().map(|(name, _)| name.to_owned()).collect();
    assert_eq!((ports(&daemon), waiting(&daemon)), (vec![], vec!["vm".to_owned()]));
    // It can be changed meanwhile.
    let address = "52:54:00:00:00:02".parse().unwrap();
    daemon.edit(Missing::Refuse, |state| state.add_address(address, "vm").map(drop)).unwrap();
    let change = |state: &mut State| {
        state.port_mut("vm")?.mtu = Some(9000);
        Ok(())
    };
    daemon.edit(Missing::Refuse, change).unwrap();
    std::fs::create_dir(&folder).unwrap();
    // Not before its time.
    daemon.retry();
    assert_eq!((ports(&daemon), daemon.next_retry()), (vec![], None));
    time.warp(Duration::from_secs(1));
    assert_eq!(daemon.next_retry(), Some(Duration::ZERO));
    daemon.retry();
    assert_eq!((ports(&daemon), waiting(&daemon)), (vec!["vm".to_owned()], Vec::<String>::new()));
    assert_eq!(daemon.switch().port("vm").unwrap().mtu, 9000);
    assert_eq!(statics(&daemon).len(), 2);
    // One that is removed waits no more.
    let nowhere =
        |name: &str| Port::new(format!("vhost-user:{}/none/{name}", dir.path().display()));
    let wanted = |state: &mut State| state.add_port("x", nowhere("x"));
    assert!(matches!(daemon.edit(Missing::Refuse, wanted), Err(Error::Switch(_))));
    assert_eq!(waiting(&daemon), Vec::<String>::new());
    let applied = daemon.edit(Missing::Retry, wanted).unwrap();
    assert_eq!(applied.waiting[0].0, "x");
    daemon.edit(Missing::Refuse, |state| state.remove("x")).unwrap();
    assert_eq!(daemon.next_retry(), None);
}

#[test]
fn vdpa_devices_wait_and_go_like_ports() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[vdpa.v]\ndevice = \"vhost-vdpa:no-such-device\"\nsocket = \"{}\"\n",
        dir.path().join("v.sock").display()
    );
    let mut daemon = start(&text);
    assert_eq!(daemon.waiting().next().map(|(name, _)| name), Some("v"));
    let changes = apply(&mut daemon, "").unwrap();
    assert_eq!(changes, ["vDPA device v removed: vhost-vdpa:no-such-device"]);
    assert_eq!((daemon.waiting().count(), daemon.hub().len()), (0, 0));
}

#[test]
fn devices_are_opened_with_permission_only() {
    let permit = |device: Device<'_>| match device {
        Device::Port(text) if text.contains("queues") => Err(format!("no {text}")),
        _ => Ok(()),
    };
    let state = file::parse("[ports.a]\ndevice = \"null:\"\n").unwrap();
    let mut daemon =
        Daemon::start(state, Options { permit: Some(Box::new(permit)), ..Options::default() })
            .unwrap();
    let error = apply(&mut daemon, "[ports.a]\ndevice = \"null:,queues=2\"\n").unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), ports(&daemon)),
        ("no null:,queues=2", vec!["a".into()])
    );
}

#[test]
fn a_port_that_is_not_there_is_named_with_the_nearest_that_is() {
    let mut daemon = start("[ports.vm1]\ndevice = \"null:\"\n[ports.up]\ndevice = \"null:\"\n");
    let error = daemon.edit(Missing::Refuse, |state| state.remove("vm2")).unwrap_err();
    let expected = "there is no port 'vm2'; did you mean 'vm1'?; there are: vm1, up";
    assert_eq!(error.to_string(), expected);
    assert!(error.is_permanent());
}

#[test]
fn a_file_names_the_line_of_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringway.toml");
    std::fs::write(&path, "[ports.a]\ndevice = \"null:\"\nworkers = [3]\n").unwrap();
    let read = file::File::read(&path).unwrap();
    let error = Daemon::start(read.state.clone(), Options::default()).unwrap_err();
    let message = read.explain(&error);
    let place = format!("configuration {}:3: port 'a': there is no worker 3", path.display());
    assert!(message.starts_with(&place), "{message}");
    assert!(file::File::read(Path::new("/none.toml")).unwrap_err().contains("/none.toml"));
}

#[test]
fn bridges_come_change_and_go_with_their_ports() {
    let port = |name: &str, more: &str| format!("[ports.{name}]\ndevice = \"null:\"\n{more}");
    let mac = "addresses = [\"52:54:00:00:00:01\"]\n";
    let mut daemon = start(&(port("a", mac) + &port("b", "")));
    let red = "bridge = \"red\"\n";
    let text = "group-fwd-mask = 4\n[fdb]\nageing = 60\n[bridges.red.fdb]\nsize = 100\n".to_owned()
        + &port("a", &(red.to_owned() + mac))
        + &port("b", mac)
        + &port("c", red);
    let changes = apply(&mut daemon, &text).unwrap();
    let expected = [
        "port a: address 52:54:00:00:00:01 removed",
        "group-fwd-mask 0 -> 4\nfdb.ageing 300 -> 60",
        "bridge red added",
        "port a: bridge default -> \"red\"",
        "port a: address 52:54:00:00:00:01 added",
        "port b: address 52:54:00:00:00:01 added",
        "port c added: null:",
    ];
    assert_eq!(changes, expected);
    assert_eq!(statics(&daemon), ["52:54:00:00:00:01 0 b", "52:54:00:00:00:01 0 a"]);
    let of = |daemon: &Daemon| {
        let bridges = daemon.switch().bridges().into_iter();
        bridges.map(|b| (b.name, b.fdb.limit, b.fdb.ageing, b.ports.join(" "))).collect::<Vec<_>>()
    };
    let default = |ports: &str| ("default".to_owned(), 65_536, 60, ports.to_owned());
    let red = |limit, ports: &str| ("red".to_owned(), limit, 60, ports.to_owned());
    assert_eq!(of(&daemon), [default("b"), red(100, "a c")]);
    let text = text.replace("size = 100", "size = 50");
    assert_eq!(apply(&mut daemon, &text).unwrap(), ["bridge red: fdb.size 100 -> 50"]);
    assert_eq!(of(&daemon)[1], red(50, "a c"));
    // An edit of one kind each.
    let settings = serde_json::json!({ "fdb.ageing": 7, "fdb.size": null });
    let settings = settings.as_object().unwrap().clone();
    daemon.edit(Missing::Refuse, |state| state.set_bridge("red", settings.clone())).unwrap();
    assert_eq!(of(&daemon)[1].2, 7);
    daemon.edit(Missing::Refuse, |state| state.set_bridge("default", settings)).unwrap();
    assert_eq!(of(&daemon)[0].2, 7);
    let error = daemon.edit(Missing::Refuse, |state| state.remove_bridge("red")).unwrap_err();
    assert!(error.to_string().contains("bridge 'red' has ports: a, c"), "{error}");
    assert!(error.is_permanent());
    apply(&mut daemon, &port("a", "")).unwrap();
    assert_eq!(of(&daemon).len(), 1);
}

#[test]
fn what_is_wrong_with_a_bridge_is_told_with_its_place() {
    let red = "[bridges.red]\n";
    let on = |bridge: &str| format!("[ports.a]\ndevice = \"null:\"\nbridge = \"{bridge}\"\n");
    for (text, part, expected) in [
        (on("rad") + red, "ports.a.bridge", "no bridge 'rad'; did you mean 'red'?; there are: def"),
        ("[bridges.default]\n".to_owned(), "bridges.default", "outside of [bridges]"),
        ("[bridges.\"a b\"]\n".to_owned(), "bridges.a b", "bridge name 'a b': expected 1 to 32"),
        (red.to_owned() + "fdb.size = 0\n", "bridges.red.fdb.size", "limit is 0"),
        (
            red.to_owned()
                + "fdb.size = 1\n"
                + &on("red")
                + "addresses = [\"52:54:00:00:00:01\", \"52:54:00:00:00:02\"]\n",
            "bridges.red.fdb.size",
            "2 static addresses",
        ),
    ] {
        let state = file::parse(&text).unwrap();
        let error = Daemon::start(state, Options::default()).err();
        let Some((found, reason)) = error.as_ref().and_then(Error::part) else {
            unreachable!("{text}");
        };
        assert_eq!(found, part, "{text}");
        assert!(reason.contains(expected), "{text}: {reason}");
    }
    let settings = |text: &str| serde_json::from_str(text).unwrap();
    let mut state = file::parse(red).unwrap();
    let mut error = |name, text| state.set_bridge(name, settings(text)).unwrap_err().to_string();
    assert!(error("red", "{\"fdb.agein\": 3}").contains("did you mean 'ageing'?"));
    assert!(error("red", "{\"fdb\": 3}").contains("bridge 'red': "));
    assert!(error("blue", "{}").contains("no bridge 'blue'"));
    assert!(daemon::Bridge::of(settings("{\"mask\": 3}")).unwrap_err().contains("unknown key"));
}

#[test]
fn a_patch_port_may_wait_for_its_peer_where_ports_come_one_by_one() {
    let mut daemon = start("[bridges.red]\n");
    let lone = |state: &mut State| {
        state.lone_patches = true;
        state.add_port("a", Port::patch("b"))
    };
    daemon.edit(Missing::Refuse, lone).unwrap();
    let is_up = |daemon: &Daemon| daemon.switch().port("a").unwrap().link.up;
    assert!(!is_up(&daemon));
    let peer = |state: &mut State| {
        let bridge = Some("red".to_owned());
        state.add_port("b", Port { bridge, ..Port::patch("a") })
    };
    daemon.edit(Missing::Refuse, peer).unwrap();
    assert!(is_up(&daemon));
    // There a bridge may be its own neighbour, too.
    let own = |state: &mut State| {
        state.add_port("c", Port::patch("d"))?;
        state.add_port("d", Port::patch("c"))
    };
    daemon.edit(Missing::Refuse, own).unwrap();
    assert!(["c", "d"].iter().all(|port| daemon.switch().port(port).unwrap().link.up));
}

/// What comes to a port of UDP is read by the one way or by the other; whoever was there first stays.
#[test]
fn tunnels_at_one_port_have_policies_in_their_headers_or_have_none() {
    let vxlan = |more: &str| Port::new(format!("vxlan:remote=flow{more}"));
    let mut daemon = start("");
    let mut add = |name: &str, more: &str| {
        daemon.edit(Missing::Refuse, |state: &mut State| state.add_port(name, vxlan(more)))
    };
    add("z", "").unwrap();
    let refused = add("a", ",key=1,gbp=on").unwrap_err().to_string();
    assert!(refused.contains("port 'a': all tunnels of VXLAN at one port"), "{refused}");
    add("b", ",key=1,gbp=on,port=7").unwrap();
    add("c", ",key=2,gpe=on").unwrap();
    assert!(add("d", ",key=2,port=7").unwrap_err().to_string().contains("port 'd'"));
}

#[test]
fn patch_ports_come_and_go_in_pairs() {
    let end = |name: &str, device: &str, more: &str| {
        format!("[ports.{name}]\ndevice = \"{device}\"\n{more}")
    };
    let red = "bridge = \"red\"\n";
    let bridges = "[bridges.red]\n[bridges.blue]\n";
    let mut daemon =
        start(&(bridges.to_owned() + &end("a", "patch:b", "") + &end("b", "patch:a", red)));
    let up = |daemon: &Daemon| {
        let ports = daemon.switch().ports().into_iter();
        ports
            .map(|port| format!("{} {} {}", port.name, port.bridge, port.link.up))
            .collect::<Vec<_>>()
    };
    assert_eq!(up(&daemon), ["a default true", "b red true"]);
    let to_blue = |state: &mut State| {
        state.port_mut("b")?.bridge = Some("blue".into());
        Ok(())
    };
    daemon.edit(Missing::Refuse, to_blue).unwrap();
    assert_eq!(up(&daemon), ["a default true", "b blue true"]);
    let add = |state: &mut State| state.add_patch("c", Port::patch("d"), "red");
    daemon.edit(Missing::Refuse, add).unwrap();
    // They change partners, and stay the ports that they are.
    let turn = |state: &mut State| {
        for (name, peer) in [("a", "d"), ("d", "a"), ("b", "c"), ("c", "b")] {
            state.port_mut(name)?.device = format!("patch:{peer}");
        }
        Ok(())
    };
    let applied = daemon.edit(Missing::Refuse, turn).unwrap();
    assert!(applied.changes.iter().all(|change| matches!(change, Change::Set { .. })));
    let all = ["a default true", "b blue true", "c default true", "d red true"];
    assert_eq!(up(&daemon), all);
    let devices = daemon.switch().ports().into_iter().map(|port| port.device);
    assert_eq!(devices.collect::<Vec<_>>(), ["patch:d", "patch:c", "patch:b", "patch:a"]);
    let back = |state: &mut State| {
        for (name, peer) in [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")] {
            state.port_mut(name)?.device = format!("patch:{peer}");
        }
        Ok(())
    };
    daemon.edit(Missing::Refuse, back).unwrap();
    daemon.edit(Missing::Refuse, |state| state.remove("a")).unwrap();
    assert_eq!(up(&daemon), ["c default true", "d red true"]);
    let before = daemon.state().clone();
    for (text, part, expected) in [
        (end("a", "patch:a", ""), "ports.a.device", "cannot be its own peer"),
        (
            end("a", "patch:bb", "") + &end("b", "null:", ""),
            "ports.a.device",
            "no port 'bb' to be its peer; did you mean 'b'?",
        ),
        (
            end("a", "patch:b", "") + &end("b", "null:", red),
            "ports.a.device",
            "its peer 'b' has device 'null:', not 'patch:a'",
        ),
        (
            end("a", "patch:b", red) + &end("b", "patch:a", red),
            "ports.a.device",
            "its peer 'b' is in bridge 'red', too",
        ),
        (
            end("a", "patch:b", "mtu = 9000\n") + &end("b", "patch:a", red),
            "ports.a.mtu",
            "has no such setting",
        ),
        (end("a", "patch:b,x=1", ""), "ports.a.device", "expected patch:PORT"),
    ] {
        let state = file::parse(&(bridges.to_owned() + &text)).unwrap();
        let error = daemon.apply(state, Missing::Retry).err();
        let Some((found, reason)) = error.as_ref().and_then(Error::part) else {
            unreachable!("{text}");
        };
        assert_eq!(found, part, "{text}");
        assert!(reason.contains(expected), "{text}: {reason}");
        assert_eq!(daemon.state(), &before);
    }
}

#[test]
fn what_is_known_behind_a_port_stays_when_its_device_has_other_options() {
    let dir = tempfile::tempdir().unwrap();
    let sent = dir.path().join("sent.pcap");
    let text = |device: &str, more: &str| {
        format!(
            "[ports.a]\ndevice = \"{device}\"\naddresses = [\"52:54:00:00:00:01\"]\n{more}\
             [ports.b]\ndevice = \"dummy:\"\n"
        )
    };
    let mut daemon = start(&text("dummy:", ""));
    let frame = |to: u8, from: u8| {
        let ends = [[2, 0, 0, 0, 0, to], [2, 0, 0, 0, 0, from]].concat();
        [ends, vec![0x88, 0xB5], vec![0; 46]].concat()
    };
    daemon.switch().receive("a", &[frame(9, 7)]).unwrap();
    let changes =
        apply(&mut daemon, &text(&format!("dummy:tx={}", sent.display()), "mtu = 1400\n")).unwrap();
    let device = format!("dummy:tx={}", sent.display());
    assert_eq!(
        changes,
        ["port a: mtu default -> 1400".to_owned(), format!("port a: device dummy: -> {device}")]
    );
    let known = |daemon: &Daemon| {
        let port = daemon.switch().port("a").unwrap();
        (port.device, port.mtu, port.fdb_entries, statics(daemon).len())
    };
    assert_eq!(known(&daemon), (device.clone(), 1400, 1, 1));
    // Nobody but this port has it: it was not flooded.
    let of_b = daemon.switch().trace("b", &frame(7, 8), false).unwrap();
    assert_eq!(of_b.outputs.len(), 1);
    daemon.switch().receive("b", &[frame(7, 8)]).unwrap();
    assert_eq!(std::fs::metadata(&sent).unwrap().len(), 24 + 16 + 60, "one frame is there");
    // One that cannot be opened is refused, or waited for.
    let wrong = |state: &mut State| {
        state.port_mut("a")?.device = "dummy:tx=/nonexistent/a".to_owned();
        Ok(())
    };
    daemon.edit(Missing::Refuse, wrong).unwrap_err();
    assert_eq!(known(&daemon), (device, 1400, 1, 1));
    daemon.edit(Missing::Retry, wrong).unwrap();
    assert_eq!(daemon.waiting().map(|(name, _)| name).collect::<Vec<_>>(), ["a"]);
    apply(&mut daemon, &text("dummy:mac=02:00:00:00:00:33", "")).unwrap();
    assert_eq!((daemon.waiting().count(), ports(&daemon)), (0, vec!["a".into(), "b".into()]));
    // Another driver's is another port.
    let changes = apply(&mut daemon, &text("null:", "")).unwrap();
    assert_eq!(
        changes,
        ["port a removed: dummy:mac=02:00:00:00:00:33", "port a added: null:"].map(str::to_owned)
    );
}

#[test]
fn ports_that_change_places_go_before_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let text = |a: &str, b: &str| {
        let path = |name: &str| dir.path().join(name).display().to_string();
        format!(
            "[ports.a]\ndevice = \"vhost-user:{}\"\n[ports.b]\ndevice = \"vhost-user:{}\"\n",
            path(a),
            path(b)
        )
    };
    let mut daemon = start(&text("1", "2"));
    assert_eq!(apply(&mut daemon, &text("2", "1")).unwrap().len(), 4);
    assert_eq!(apply(&mut daemon, &text("2", "3")).unwrap().len(), 1, "this one is free");
    assert_eq!(daemon.waiting().count(), 0);
}
