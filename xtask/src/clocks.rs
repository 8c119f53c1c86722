//! Who may ask the system for the time, or sleep by it: all else takes an `eal::time::Time`, so that
//! a test can stop and move it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use e2e::peers::workspace;

/// What a timer of the system's looks like in a source.
const SIGNS: [&str; 7] = [
    "Instant::now(",
    "SystemTime::now(",
    "thread::sleep",
    ".recv_timeout(",
    ".wait_timeout",
    "park_timeout(",
    "Timespec::try_from(",
];

/// Files that have one, and why.
const ALLOWED: [(&str, &str); 36] = [
    ("eal/src/time.rs", "makes the clock"),
    ("eal/src/event.rs", "waits as long as it is told, whoever has stopped what clock"),
    ("eal/src/channel.rs", "waits as long as it is told, as what it is made of"),
    ("eal/src/clock.rs", "measures the cycle counter, by which packets are timed"),
    ("eal/src/ringer.rs", "bounds what a peer costs"),
    ("eal/src/closer.rs", "how long a thread without work stays"),
    ("drivers/src/dummy.rs", "the date in a capture"),
    ("drivers/src/dummy/wire.rs", "how long a peer that is not there is let alone"),
    ("drivers/src/pcap/mod.rs", "the date in a capture"),
    ("switch/src/housekeeper.rs", "waits as long as its clock says"),
    ("vhost/src/control/limit.rs", "bounds what a peer may cause"),
    ("vhost/src/control/socket.rs", "bounds a turn of a peer, and what it may cause"),
    ("vhost/src/frontend.rs", "bounds how long a back-end may take for an answer"),
    ("vhost/src/postcopy/pagers.rs", "bounds how long a process may take to start"),
    ("virtio-net/src/control_queue.rs", "bounds how long a device may take"),
    ("virtio-net/src/link.rs", "bounds how long a thread may take for a change"),
    ("virtio-net/src/pci/hardware.rs", "bounds how long a device may take for its reset"),
    ("igb/src/hardware.rs", "what the datasheet gives a device"),
    ("igb/src/port.rs", "bounds how long a device may take for its link, when it is opened"),
    ("host/src/af_xdp/socket.rs", "bounds how long the kernel may take to let an interface go"),
    ("vdpa/src/backend.rs", "bounds how long a device may take"),
    ("vdpa/src/virtio_pci/relay.rs", "how long a guest may ring at the old place"),
    ("vdpa/src/virtio_pci/session.rs", "bounds how long a device may take to send what it has"),
    ("daemon/src/hub.rs", "bounds how long a device may take"),
    ("ovs/src/export/ipfix.rs", "the date in a datagram"),
    ("ovs/src/export/netflow.rs", "the date in a datagram"),
    ("ovs/src/import.rs", "bounds how long a database may take for an answer"),
    ("capture/src/calendar.rs", "the date in a capture"),
    ("switch/src/mirror/file.rs", "looks for frames now and then; bounds how long an end may take"),
    ("ringway/src/capture/stream.rs", "looks for frames now and then"),
    ("ringway/src/log/date.rs", "the date of a line of the log"),
    ("ringway/src/control/server.rs", "accepts whoever comes to move the clock"),
    ("ringway/src/wait.rs", "of commands that end by themselves, and measure what really happens"),
    ("ringway/src/demo/run.rs", "measures what really happens"),
    ("ringway/src/top/poll.rs", "asks as often as its user wants"),
    ("ringway/src/top/run.rs", "tells how long a switch has been silent"),
];

/// Likewise, whole folders.
const ALLOWED_FOLDERS: [(&str, &str); 5] = [
    ("ovs/src/controller", "waits for peers, and bounds what they may cause"),
    ("tls/src", "bounds what peers may cause, in a process that has nothing else to wait for"),
    ("ringway/src/generate", "measures what really happens"),
    ("ringway/src/l2fwd", "measures what really happens"),
    ("testkit/src", "waits in tests for what really happens"),
];

/// Checks the sources of all crates, tests left out.
fn check() -> Result<()> {
    let crates = workspace().join("crates");
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(&crates)? {
        collect(&entry?.path().join("src"), &mut sources)?;
    }
    ensure!(sources.len() > 100, "only {} sources", sources.len());
    let found = timers(&sources);
    let mut allowed: BTreeSet<&str> = ALLOWED.iter().map(|(file, _)| *file).collect();
    for (path, sign) in found {
        let file = path.strip_prefix(&crates)?.to_str().context("a path")?;
        if !allowed.remove(file)
            && !ALLOWED.iter().any(|(known, _)| *known == file)
            && !ALLOWED_FOLDERS.iter().any(|(folder, _)| file.starts_with(folder))
        {
            bail!(
                "{file} has {sign:?}: take the time from an eal::time::Time, or its Alarm; where \
                 it has to be the system's, say why in {}",
                file!()
            );
        }
    }
    ensure!(allowed.is_empty(), "they have no timer of the system's any more: {allowed:?}");
    Ok(())
}

/// All sources in a folder and below, by path.
fn collect(folder: &Path, sources: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            sources.insert(path, text);
        }
    }
    Ok(())
}

/// Where a timer of the system's is used beside tests, and what shows it.
fn timers(sources: &BTreeMap<PathBuf, String>) -> Vec<(&Path, &'static str)> {
    let tests: Vec<PathBuf> =
        sources.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_test = |path: &Path| {
        tests.iter().any(|module| path.starts_with(module) || path == module.with_extension("rs"))
    };
    let mut found = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| !is_test(path)) {
        let code = before_tests(text).lines().filter(|line| !line.trim_start().starts_with("//"));
        for sign in SIGNS {
            if code.clone().any(|line| line.contains(sign)) {
                found.push((path.as_path(), sign));
            }
        }
    }
    found
}

/// The lines of a source up to tests that are in it, which come last.
fn before_tests(text: &str) -> &str {
    let inline = module_heads(text).find(|(_, line)| line.ends_with('{'));
    inline.and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

/// The modules in files of their own that are for tests only; without `.rs`.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_head = ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| path.ends_with(name));
    let base =
        if is_head { path.parent().unwrap_or(path).to_owned() } else { path.with_extension("") };
    let names = module_heads(text).filter_map(|(_, line)| {
        line.split("mod ").nth(1)?.strip_suffix(';').map(|name| base.join(name))
    });
    names.collect()
}

/// Where modules for tests begin, and the line that names them.
fn module_heads(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    let mut begun = None;
    text.lines().filter_map(move |line| {
        let here = at;
        at += line.len() + 1;
        if line.starts_with("#[cfg(") && line.contains("test") && !line.contains("not(test") {
            begun = Some(here);
            return None;
        }
        if line.starts_with("#[") || line.starts_with("///") {
            return None;
        }
        let begun = begun.take()?;
        let names_module = ["mod ", "pub mod ", "pub(crate) mod ", "pub(super) mod "];
        names_module.iter().any(|start| line.starts_with(start)).then_some((begun, line))
    })
}

#[test]
fn timers_wait_by_the_clock_that_can_be_replaced() {
    check().unwrap();
}

#[test]
fn a_timer_is_found_beside_tests_and_not_in_them() {
    let sources = [
        ("a/lib.rs", "#[cfg(test)]\n/// Doubles.\nmod model;\nmod real;\n// Instant::now()\n"),
        ("a/model.rs", "fn f() { Instant::now(); }"),
        ("a/model/deep.rs", "fn f() { Instant::now(); }"),
        ("a/real.rs", "fn f() {\n    thread::sleep(x);\n}\n#[cfg(test)]\nmod tests {}\n"),
        ("b/mod.rs", "fn f() {}\n\n#[cfg(all(test, unix))]\nmod tests {\n    Instant::now();\n}\n"),
        ("c.rs", "#[cfg(test)]\nfn f() {}\nmod it {\n    Instant::now();\n}\n"),
    ];
    let sources =
        sources.map(|(path, text)| (PathBuf::from(path), text.to_owned())).into_iter().collect();
    let expected =
        [(Path::new("a/real.rs"), "thread::sleep"), (Path::new("c.rs"), "Instant::now(")];
    assert_eq!(timers(&sources), expected);
}
