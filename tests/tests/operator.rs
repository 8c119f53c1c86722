//! What an operator meets: memory, signals, refusals, what pages say of Proxmox and Kubernetes, the live view.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::peers::workspace;
use e2e::process::run;
use e2e::{Netns, OvsDatabase, Peer, Process, Ringway, Terminal, require_shared, ringway, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn device(dir: &Path, n: usize) -> String {
    format!("vm{n}=vhost-user:{},queues=2", dir.join(format!("vm{n}.sock")).display())
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_idle_switch_with_64_ports_is_small_sleeps_and_ends_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<String> = (0..64).map(|n| device(dir.path(), n)).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    for signal in [Signal::TERM, Signal::INT] {
        let ringway = Ringway::switch(dir.path(), &ports, "0").unwrap();
        let kib = resident_kib(ringway.id());
        assert!(kib < 100_000, "{kib} KiB resident");
        let ticks = || e2e::process::ticks_in_a_second(ringway.id()).unwrap();
        wait::until_good("ticks of 100 of a core, and idle", 12, ticks, |ticks| *ticks <= 5)
            .unwrap();
        let mut running = Some(ringway);
        let ends = || {
            let start = || Ringway::switch(dir.path(), &ports, "0").unwrap();
            ending_time(&mut running.take().unwrap_or_else(start), signal, dir.path())
        };
        let is_soon = |time: &Duration| *time < Duration::from_secs(1);
        wait::until_good(&format!("ends by {signal:?}"), 12, ends, is_soon).unwrap();
    }
}

/// Ends a switch well; gives how long that takes.
fn ending_time(ringway: &mut Ringway, signal: Signal, dir: &Path) -> Duration {
    let start = Instant::now();
    ringway.signal(signal).unwrap();
    let status = ringway.wait(Duration::from_secs(60)).unwrap();
    let time = start.elapsed();
    assert!(status.success(), "{status}: {}", ringway.log());
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "files are left over");
    time
}

/// Runs `ringway switch` with arguments that must be refused; gives its exit status and message.
fn refusal(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let control = dir.join("refused.ctl");
    let mut command = ringway::command(&["switch", "--control"]).unwrap();
    command.arg(control).args(arguments);
    let mut process = Process::start("ringway switch", command).unwrap();
    let status = process.wait(Duration::from_secs(60)).unwrap();
    process.wait_output_end(Duration::from_secs(60)).unwrap();
    (status.code(), process.log())
}

#[test]
fn what_cannot_be_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let taken = device(dir.path(), 0);
    let mut running = Ringway::switch(dir.path(), &[&taken], "0").unwrap();
    let long = format!("a=vhost-user:/tmp/{}", "x".repeat(110));
    let absent = format!("a=vhost-user:{}/no/such/dir/s", dir.path().display());
    for (arguments, expected, code) in [
        (vec!["--port", taken.as_str()], "vm0.sock", 1),
        (vec!["--port", long.as_str()], "107", 1),
        (vec!["--port", absent.as_str()], "no/such/dir", 1),
        (vec!["--port", "a=null:", "--port", "a=null:"], "'a'", 2),
        (vec!["--port", "a=tpa:x"], "tpa", 2),
        (vec!["--port", "a=null:,queues=many"], "queues", 2),
        (vec!["--port", "null:"], "NAME=DEVICE", 2),
        (vec!["--port", "a=null:", "--cores", "4000"], "4000", 2),
        (vec!["--config", "/no/such/file"], "/no/such/file", 2),
    ] {
        let (status, text) = refusal(dir.path(), &arguments);
        assert!(text.contains(expected), "{arguments:?}: {expected:?} is not in: {text}");
        assert_eq!(status, Some(code), "{arguments:?}: {text}");
    }
    assert!(running.is_running(), "{}", running.log());
    assert_eq!(running.show("ports").unwrap()["ports"][0]["name"], "vm0");
}

/// A page of the documents.
fn page(name: &str) -> String {
    fs::read_to_string(workspace().join("docs").join(name)).unwrap()
}

/// QEMU takes what is to stand in the configuration of a guest of Proxmox (docs/proxmox.md), and
/// connects.
#[test]
fn qemu_takes_the_arguments_of_proxmox() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let port = format!("vm100=vhost-user:{}/vm100.sock,queues=2", dir.path().display());
    let switch = Ringway::switch(dir.path(), &[&port], "0").unwrap();
    let page = page("proxmox.md");
    // The keys that are set stand in no line of their own but these (qm.conf(5)).
    let lines: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("args: ")).collect();
    let [whole, memory] = lines[..] else { panic!("{lines:?}") };
    assert!(page.contains("\nnuma: 1\nhugepages: 2\nargs: "));
    // The second is the beginning of one without huge pages, of the memory that such a guest has.
    let (memory, chardev) = memory.split_once("-chardev ").unwrap();
    assert_eq!(chardev, "...");
    let memory = memory.replace("size=4096M", "size=128M");
    let whole = whole.replace("/run/ringway-switch", &dir.path().display().to_string());
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35,accel=tcg", "-smp", "2", "-m", "128", "-nodefaults", "-S"]);
    qemu.args(["-display", "none"]).args(memory.split_whitespace()).args(whole.split_whitespace());
    let mut qemu = Process::start("qemu", qemu).unwrap();
    wait::until("the front-end", LIMIT, Duration::from_millis(50), || {
        anyhow::ensure!(qemu.is_running(), "{}", qemu.log());
        let ports = switch.show("ports")?;
        Ok((ports["ports"][0]["details"]["front-end"] == "connected").then_some(()))
    })
    .unwrap();
    assert_eq!(qemu.log(), "", "QEMU has something to say of its arguments");
}

/// The hook script of the same page adds a port when its guest starts, and takes it away after.
#[test]
fn the_hook_of_proxmox_has_a_port_for_each_guest() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Ringway::switch(dir.path(), &[], "0").unwrap();
    let page = page("proxmox.md");
    let (_, script) = page.split_once("```sh\n").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    let script = script.replace("/run/ringway-switch", &dir.path().display().to_string());
    let programs = tempfile::tempdir().unwrap();
    symlink(ringway::binary().unwrap(), programs.path().join("ringway")).unwrap();
    let hook = |phase: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "hook", "100", phase]);
        let path = format!("{}:/usr/bin:/bin", programs.path().display());
        shell.env("PATH", path).env("RINGWAY_CONTROL", switch.control());
        shell.output().unwrap().status.success()
    };
    let ports = || switch.show("ports").unwrap()["ports"].as_array().unwrap().len();
    assert!(hook("pre-start") && hook("post-start"));
    assert_eq!(ports(), 1);
    assert!(dir.path().join("vm100.sock").exists());
    assert!(hook("pre-start"), "one that a guest has left by migration is made anew");
    assert_eq!(ports(), 1);
    assert!(hook("pre-stop") && hook("post-stop"));
    assert_eq!(ports(), 0);
    assert!(hook("post-stop"), "it is not there, and need not be");
}

/// What the network of docs/kubernetes.md tells the Userspace CNI plugin, of which all has to be what the
/// plugin reads (its `pkg/types`, and CNI's own).
fn documented_network() -> Value {
    let page = page("kubernetes.md");
    let (head, rest) = page.split_once("  config: |\n").unwrap();
    let kind =
        "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata:\n  name: ";
    assert!(head.contains(kind) && head.trim_end().ends_with("\nspec:"));
    let (text, pod) = rest.split_once("```").unwrap();
    let network: Value = serde_json::from_str(text).unwrap();
    let known: [(&str, &[&str]); 6] = [
        (
            "",
            &[
                "cniVersion",
                "type",
                "name",
                "kubeconfig",
                "logFile",
                "logLevel",
                "host",
                "container",
                "ipam",
            ],
        ),
        ("/host", &["engine", "iftype", "netType", "vhost", "bridge"]),
        ("/host/vhost", &["mode"]),
        ("/host/bridge", &["bridgeName"]),
        ("/container", &["engine", "iftype", "netType", "vhost"]),
        ("/ipam", &["type", "subnet"]),
    ];
    for (place, keys) in known {
        let part = network.pointer(place).unwrap().as_object().unwrap();
        assert!(part.keys().eq(keys), "{place}: {part:?}");
    }
    let said = |place: &str| network.pointer(place).unwrap().as_str().unwrap().to_owned();
    assert_eq!((said("/type"), said("/cniVersion")), ("userspace".into(), "0.3.1".into()));
    for side in ["host", "container"] {
        let said = |key: &str| said(&format!("/{side}/{key}"));
        assert_eq!((said("engine"), said("iftype")), ("ovs-dpdk".into(), "vhostuser".into()));
    }
    assert_eq!(
        (said("/host/netType"), said("/container/netType")),
        ("bridge".into(), "interface".into())
    );
    // The pod has the network by its name, and a volume for all that is mounted.
    let name = head.rsplit_once("name: ").unwrap().1.lines().next().unwrap();
    assert!(pod.contains(&format!("\n    k8s.v1.cni.cncf.io/networks: {name}\n")), "{name}");
    let mounts =
        pod.lines().filter_map(|line| line.trim().strip_prefix("- { name: ")?.split(',').next());
    let mounts: Vec<&str> = mounts.collect();
    assert_eq!(mounts, ["shared-dir", "hugepages", "podinfo"], "as the plugin looks for them");
    assert!(mounts.iter().all(|name| pod.contains(&format!("\n    - name: {name}\n"))));
    network
}

/// What the Userspace CNI plugin of Kubernetes asks of `ovs-vsctl` and `ovs-ofctl`, for two pods whose
/// programs have made their sockets (`docs/kubernetes.md`).
#[test]
fn the_userspace_plugin_finds_what_it_asks_for() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let _switch = Ringway::vswitchd_in(&host, dir.path()).unwrap();
    let vsctl = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        database.vsctl(&words).unwrap().trim().to_owned()
    };
    let network = documented_network();
    assert_eq!(network["host"]["bridge"]["bridgeName"], "br0");
    // The plugin's way to tell that the pod makes the socket.
    assert_eq!(
        (&network["host"]["vhost"]["mode"], &network["container"]["vhost"]["mode"]),
        (&json!("client"), &json!("server"))
    );
    // It makes the bridge if there is none.
    assert_eq!(vsctl("--bare --columns=name find bridge name=br0"), "");
    vsctl("add-br br0 -- set bridge br0 datapath_type=netdev");
    database.ofctl(&["add-flow", "br0", "actions=NORMAL"]).unwrap();
    assert_eq!(vsctl("--bare --columns=name find bridge name=br0"), "br0");
    let pods = ["0123456789ab-net1", "ba9876543210-net1"];
    for pod in pods {
        let socket = dir.path().join(pod).display().to_string();
        vsctl(&format!(
            "add-port br0 {pod} -- set Interface {pod} type=dpdkvhostuserclient \
             options:vhost-server-path={socket}"
        ));
        assert_eq!(vsctl(&format!("--bare --columns=mac find port name={pod}")), "");
    }
    let [one, two] = pods
        .map(|pod| format!("virtio-user:{},server=on,queues=1", dir.path().join(pod).display()));
    let traffic = ["gen", "latency", "--count", "1000", "--rate", "10k"];
    let ports = ["--port", &one, "--port2", &two];
    run(&mut ringway::command(&[&traffic[..], &ports].concat()).unwrap()).unwrap();
    assert_eq!(vsctl("list-ports br0"), pods.join("\n"));
    // All of it can be a file.
    let remote = format!("unix:{}", database.socket().display());
    let imported = run(&mut ringway::command(&["config", "from-ovs", &remote]).unwrap()).unwrap();
    let file = dir.path().join("ringway.toml");
    fs::write(&file, &imported).unwrap();
    let file = file.display().to_string();
    let checked = run(&mut ringway::command(&["config", "check", &file]).unwrap()).unwrap();
    assert!(pods.iter().all(|pod| checked.contains(pod)), "{checked} {imported}");
    for pod in pods {
        vsctl(&format!("--if-exists del-port br0 {pod}"));
    }
    assert_eq!(vsctl("list-ports br0"), "");
    vsctl("del-br br0");
}

/// Whether a screen tells how much comes in, and that port `a` has all of it: how much that is, is up to
/// the generator, which may get no core for a while.
fn has_rates(screen: &str) -> bool {
    let word = |first: &str, at: usize| {
        let mut rows = screen.lines().map(str::split_whitespace);
        rows.find_map(|mut words| (words.next() == Some(first)).then(|| words.nth(at)).flatten())
    };
    let (all, of_a) = (word("rx", 0), word("a", 1));
    let is_some = |rate: &str| rate.starts_with(|digit: char| ('1'..='9').contains(&digit));
    all == of_a && all.is_some_and(is_some)
}

/// What `ringway top` shows on a terminal, and that it gives that back as it was.
#[test]
fn top_shows_256_ports_on_a_terminal_and_gives_it_back() {
    let Some(_turn) = require_shared(&[Peer::Terminal]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
    let mut ports: Vec<String> = (1..=254).map(|n| format!("null{n}=null:")).collect();
    ports.extend([("a", &a), ("b", &b)].map(|(n, p)| format!("{n}=vhost-user:{}", p.display())));
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let switch = Ringway::switch(dir.path(), &ports, "0").unwrap();
    let device = |path: &Path| format!("virtio-user:{}", path.display());
    let (from, to) = (device(&a), device(&b));
    let gen_args = ["gen", "flowgen", "--rate", "200", "--port", &from, "--port2", &to];
    let _traffic = Process::start("gen", ringway::command(&gen_args).unwrap()).unwrap();

    let top = ringway::binary().unwrap();
    let top = format!("{} top --control {}", top.display(), switch.control().display());
    let terminal = Terminal::start(dir.path(), (80, 24), &top).unwrap();
    let screen = terminal.wait_for("with rates", has_rates).unwrap();
    assert!(screen.contains("ports 256 of 256 up"), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    assert!(screen.contains("ringway "), "the process behind a port: {screen}");
    terminal.keys(&["/", "n", "u", "l", "l", "2", "5", "Enter"]).unwrap();
    terminal.wait_for("a filter", |s| s.contains("with 'null25': 6 of 256")).unwrap();
    // Back, to the end of the table by its names.
    terminal.keys(&["Escape"]).unwrap();
    terminal.wait_for("no filter", |s| s.contains("q quit")).unwrap();
    terminal.keys(&["<", "<", "G"]).unwrap();
    terminal.wait_for("the last row", |s| s.contains("by port") && s.contains("null254")).unwrap();
    terminal.keys(&["g", "Enter"]).unwrap();
    terminal.wait_for("a port", |s| s.contains("guest takes") && s.contains("the last ")).unwrap();
    terminal.keys(&["q", "2"]).unwrap();
    terminal.wait_for("workers", |s| s.contains("cycles/frame")).unwrap();
    switch.client(&["bond", "add", "uplink", "--members", "null253,null254"]).unwrap();
    switch.client(&["mirror", "add", "watch", "--src", "a", "--to", "null252"]).unwrap();
    terminal.keys(&["5"]).unwrap();
    let is_bond = |s: &str| s.contains("uplink null253  up   active");
    let screen = terminal.wait_for("a bond", is_bond).unwrap();
    assert!(screen.contains(" 5 Bonds 2 "), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    terminal.keys(&["6"]).unwrap();
    let is_mirror = |s: &str| s.contains("watch  active") && s.contains("in a");
    terminal.wait_for("a mirror", is_mirror).unwrap();
    terminal.keys(&["7"]).unwrap();
    terminal
        .wait_for("no vDPA device", |s| s.contains("none; 'ringway port add NAME=vdpa:"))
        .unwrap();
    terminal.keys(&["2"]).unwrap();
    terminal.wait_for("workers again", |s| s.contains("cycles/frame")).unwrap();
    terminal.resize(200, 60).unwrap();
    terminal.wait_for("a large screen", |s| s.contains("load of the core")).unwrap();

    switch.kill();
    terminal.wait_for("that it is lost", |s| s.contains("NO ANSWER")).unwrap();
    let switch = Ringway::switch(dir.path(), &["c=null:"], "0").unwrap();
    let found = format!("pid {} ", switch.id());
    terminal.wait_for("the new one", |s| s.contains(&found) && !s.contains("NO ANSWER")).unwrap();
    for (index, signal) in [Signal::TERM, Signal::HUP].into_iter().enumerate() {
        if index > 0 {
            terminal.again().unwrap();
            terminal.wait_for("it once more", |s| s.contains("q quit")).unwrap();
        }
        terminal.signal(signal).unwrap();
        terminal.wait_end(0).unwrap();
    }
    terminal.again().unwrap();
    terminal.wait_for("it once more", |s| s.contains("q quit")).unwrap();
    terminal.keys(&["q"]).unwrap();
    terminal.wait_end(0).unwrap();

    let text = switch.client(&["top", "--batch", "-n", "2", "--interval", "0.1"]).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("c  ")).count();
    assert_eq!(rows, 2, "{text}");
    let alone = dir.path().join("none.ctl");
    let mut command = ringway::command(&["top", "--control"]).unwrap();
    let output = command.arg(alone).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
