//! Live migration: a guest moves from one QEMU to another, and so from one port of the switch to
//! another, while it talks to the host.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::migration::{Migration, copy, different_pages, migrate, migrate_by_postcopy, resume};
use e2e::{
    GuestImage, Netns, Nic, Peer, Process, Qemu, Ringway, Vm, require_shared, traffic, wait,
};

/// The worker's core; the guest may use all.
const CORES: &str = "1";
const GUEST: &str = "10.0.0.1";
const HOST: &str = "10.0.0.2";
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a stream that must have gone by before the guest moves, and again after it has.
const SOME: u64 = 1 << 20;

/// Sends over TCP, some 1 MB/s, until there is a file `stop`. What was sent has its digest in
/// `sent`, and what the other side answers comes in `answer`.
/// Parameters: a directory with a file `chunk`; address and port of the other side.
const SEND: &str = r#"cd "$1" && mkfifo pipe && { md5sum <pipe >sent & }
while [ ! -e stop ]; do cat chunk; busybox usleep 60000; done |
    tee pipe | busybox nc "$2" "$3" >answer
wait
touch done
"#;

/// A host with a switch that has two ports for one guest, and a TAP interface.
struct Stage {
    dir: tempfile::TempDir,
    host: Netns,
    ringway: Ringway,
    packed: bool,
    pairs: u16,
}

impl Stage {
    fn new(packed: bool, pairs: u16) -> Self {
        Self::with_options(packed, pairs, "")
    }

    /// The same, whose ports have further options.
    fn with_options(packed: bool, pairs: u16, options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Netns::new().unwrap();
        let port = |n| {
            format!("vm{n}=vhost-user:{},queues={pairs}{options}", socket(dir.path(), n).display())
        };
        let ports = [&port(0), &port(1), "up=tap:rwa"];
        let ringway = Ringway::switch_in(&host, dir.path(), &ports, CORES).unwrap();
        host.sh(&format!("ip address add {HOST}/24 dev rwa && ip link set rwa up")).unwrap();
        std::fs::write(dir.path().join("send.sh"), SEND).unwrap();
        Self { dir, host, ringway, packed, pairs }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A QEMU for the guest at port `n`.
    fn qemu(&self, n: usize) -> Qemu {
        let mut nic = Nic::new(&socket(self.path(), n), "52:54:00:00:00:01").queues(self.pairs);
        if self.packed {
            nic = nic.options("packed=on");
        }
        let image = GuestImage::network().unwrap();
        Qemu::new(&format!("vm{n}"), &image).cpus(self.pairs).nic(nic)
    }

    /// The guest, booted at port 0, with a script for its streams.
    fn guest(&self) -> Vm {
        let mut vm = self.qemu(0).start(self.path()).unwrap();
        vm.wait_boot().unwrap();
        traffic::configure(&mut vm, GUEST, 1500).unwrap();
        self.ringway.wait_links(&["vm0"]).unwrap();
        vm.sh(&format!("cat >/tmp/send.sh <<'EOF'\n{SEND}\nEOF")).unwrap();
        vm.ping(HOST, "-c 3 -i 0.1").unwrap();
        vm
    }

    /// Moves the guest to port `n`, while the host pings it and something else goes on; the ports'
    /// counters must show that that has happened before and after.
    fn migrate(&self, vm: &mut Vm, n: usize) {
        let mut target = self.qemu(n).incoming().start(self.path()).unwrap();
        let migration = self
            .under_ping(n, || migrate(vm, &mut target, &self.path().join("migration")).unwrap());
        assert_eq!(migration.late, 0);
        *vm = target;
    }

    /// The same by post-copy: frames pass in both directions while most of the memory is missing.
    fn migrate_by_postcopy(&self, vm: &mut Vm, n: usize) {
        let new = format!("vm{n}");
        let mut target = self.qemu(n).incoming_by_postcopy().start(self.path()).unwrap();
        let start = self.ringway.counters(&new).unwrap();
        let passes = || {
            wait::until("frames", LIMIT, PAUSE, || {
                let now = self.ringway.counters(&new)?;
                let some = |now: u64, start: u64| now >= start + 100;
                let both = some(now.rx_packets, start.rx_packets)
                    && some(now.tx_packets, start.tx_packets);
                Ok(both.then_some(()))
            })
        };
        let socket = self.path().join("migration");
        let migration =
            self.under_ping(n, || migrate_by_postcopy(vm, &mut target, &socket, passes).unwrap());
        assert!(migration.late > 0, "{migration:?}");
        let text = self.ringway.log();
        for line in ["the guest arrives by post-copy", "all of the guest's memory has arrived"] {
            assert!(text.contains(line), "{text}");
        }
        *vm = target;
    }

    /// Does what moves the guest to port `n` under pings, as [`migrate`](Self::migrate) says.
    fn under_ping(&self, n: usize, action: impl FnOnce() -> Migration) -> Migration {
        let (old, new) = (format!("vm{}", 1 - n), format!("vm{n}"));
        let ping = |options: &str| self.host.spawn(&format!("ping {options} {GUEST}")).unwrap();
        let mut ping = [ping("-i 0.05"), ping("-q -f -l 100 -s 1000")];
        self.wait_bytes(&old, SOME);
        let migration = action();
        self.wait_bytes(&new, SOME);
        // Enough answers to say something about the time before and after the move.
        let enough = answers(&ping[0].log()).saturating_add(5).max(21);
        let come = || Ok((answers(&ping[0].log()) >= enough).then_some(()));
        wait::until("answers to ping", LIMIT, PAUSE, come).unwrap();
        for ping in &mut ping {
            ping.signal(rustix::process::Signal::INT).unwrap();
            ping.wait(LIMIT).unwrap();
            ping.wait_output_end(LIMIT).unwrap();
        }
        let [log, flood] = ping.map(|ping| ping.log());
        println!("{flood}");
        println!(
            "{migration:?}; longest time without an answer to ping: {:?}",
            longest_silence(&log)
        );
        // Requests that lay in the guest's ring when it was stopped are answered once, if at all.
        let whole = !flood.contains("duplicates") && !flood.contains("wrong");
        assert!(whole && flood.contains(" received"), "{flood}");
        // Each port was told when to log, and when no longer.
        let text = self.ringway.log();
        assert!(text.contains("writes to the guest's memory are logged"), "{text}");
        assert!(!text.contains("is not whole"), "{text}");
        migration
    }

    /// Waits until `bytes` more have passed through a port.
    fn wait_bytes(&self, port: &str, bytes: u64) {
        let passed = || self.ringway.counters(port).map(|count| count.rx_bytes + count.tx_bytes);
        let start = passed().unwrap();
        let more = || Ok((passed()? >= start + bytes).then_some(()));
        wait::until("bytes", LIMIT, PAUSE, more).unwrap();
    }

    /// Starts a stream to the guest, which keeps what comes.
    fn send_to_guest(&self, vm: &mut Vm) -> Process {
        vm.sh("nc -l -p 5000 -e sh -c 'tee /tmp/kept | md5sum' >/dev/null 2>&1 & \
             until netstat -ltn | grep -q ':5000 '; do usleep 10000; done")
            .unwrap();
        let dir = self.path().join("to-guest");
        std::fs::create_dir(&dir).unwrap();
        let (script, dir) = (self.path().join("send.sh").display().to_string(), dir.display());
        self.host.sh(&format!("head -c 65536 /dev/urandom >{dir}/chunk")).unwrap();
        self.host.spawn(&format!("sh {script} {dir} {GUEST} 5000")).unwrap()
    }

    /// Ends it; all that was sent must have arrived, and must still be there.
    fn end_to_guest(&self, vm: &mut Vm, mut sender: Process) {
        let dir = self.path().join("to-guest");
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        std::fs::write(dir.join("stop"), "").unwrap();
        assert!(sender.wait(LIMIT).unwrap().success(), "{}", sender.log());
        assert_eq!(read("sent"), read("answer"), "to the guest: sent and arrived");
        assert_eq!(read("sent"), vm.sh("md5sum </tmp/kept").unwrap(), "in the guest's memory");
        vm.sh("rm /tmp/kept").unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// Starts a stream of the guest's; gives the host's side.
    fn send_from_guest(&self, vm: &mut Vm) -> Process {
        let receiver = self.host.spawn("busybox nc -l -p 5001 -e md5sum").unwrap();
        self.host.sh("until busybox netstat -ltn | grep -q ':5001 '; do sleep 0.01; done").unwrap();
        vm.sh(&format!(
            "mkdir /tmp/stream && head -c 65536 /dev/urandom >/tmp/stream/chunk && \
             {{ sh /tmp/send.sh /tmp/stream {HOST} 5001 >/dev/null 2>&1 & }}"
        ))
        .unwrap();
        receiver
    }

    /// Ends it; all that was sent must have arrived.
    fn end_from_guest(vm: &mut Vm, mut receiver: Process) {
        let command = "cd /tmp/stream && touch stop && until [ -e done ]; do usleep 10000; done && \
                       cat sent answer && cd / && rm -r /tmp/stream";
        let digests = vm.sh(command).unwrap();
        let (sent, arrived) = digests.split_once('\n').unwrap();
        assert!(sent.len() > 30, "{digests}");
        assert_eq!(sent, arrived.trim_end(), "from the guest: sent and arrived");
        receiver.wait(LIMIT).unwrap();
    }
}

fn socket(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("vm{n}.sock"))
}

/// How many answers ping has printed.
fn answers(log: &str) -> usize {
    log.lines().filter(|line| line.contains(" bytes from ")).count()
}

/// The longest time between two answers that ping has printed, as 50 ms for each that is missing.
fn longest_silence(log: &str) -> Duration {
    let number = |line: &str| {
        let (_, rest) = line.split_once("icmp_seq=")?;
        rest.split(' ').next()?.parse::<u32>().ok()
    };
    let numbers: Vec<u32> = log.lines().filter_map(number).collect();
    let steps = numbers.iter().zip(numbers.iter().skip(1)).map(|(a, b)| b.saturating_sub(*a));
    50 * Duration::from_millis(1) * steps.max().unwrap_or(0)
}

/// There with a stream to the guest, and back with one from it, each with the memory that came
/// with the guest in use.
fn a_guest_moves_there_and_back(packed: bool, pairs: u16) {
    let stage = Stage::new(packed, pairs);
    let mut vm = stage.guest();
    let sender = stage.send_to_guest(&mut vm);
    stage.migrate(&mut vm, 1);
    stage.end_to_guest(&mut vm, sender);
    let receiver = stage.send_from_guest(&mut vm);
    stage.migrate(&mut vm, 0);
    Stage::end_from_guest(&mut vm, receiver);
    // And once more without anything that could hide behind a retransmission.
    vm.ping(HOST, "-c 50 -i 0.02").unwrap();
}

/// The strictest check: the memory of both sides, byte by byte, while the guest stands still. There
/// are few frames, so that buffers lie in the ring for seconds before the switch writes to them,
/// and they are short, so that the guest copies them: since QEMU copied those pages for the last
/// time but one, nobody but the switch has written to them. (Linux clears pages before it makes
/// buffers of them, which QEMU sees by itself.)
fn memory_arrives_as_it_was(packed: bool) {
    let stage = Stage::new(packed, 1);
    let mut vm = stage.guest();
    let mut ping = stage.host.spawn(&format!("ping -q -i 0.02 {GUEST}")).unwrap();
    for n in [1, 0] {
        let mut target = stage.qemu(n).incoming().start(stage.path()).unwrap();
        stage.wait_bytes(&format!("vm{}", 1 - n), SOME / 128);
        println!("{:?}", copy(&mut vm, &mut target, &stage.path().join("migration")).unwrap());
        let different = different_pages(&vm, &target).unwrap();
        assert!(different.is_empty(), "these pages differ: {different:x?}");
        resume(&mut target).unwrap();
        stage.wait_bytes(&format!("vm{n}"), SOME / 128);
        vm = target;
    }
    ping.signal(rustix::process::Signal::INT).unwrap();
    ping.wait(LIMIT).unwrap();
    vm.ping(HOST, "-c 50 -i 0.02").unwrap();
}

#[test]
fn all_that_was_written_to_split_rings_arrives() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    memory_arrives_as_it_was(false);
}

#[test]
fn all_that_was_written_to_packed_rings_arrives() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    memory_arrives_as_it_was(true);
}

#[test]
fn a_guest_with_split_rings_moves_there_and_back() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    a_guest_moves_there_and_back(false, 1);
}

#[test]
fn a_guest_with_packed_rings_moves_there_and_back() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    a_guest_moves_there_and_back(true, 1);
}

#[test]
fn a_guest_with_two_queue_pairs_moves_there_and_back() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    a_guest_moves_there_and_back(false, 2);
}

/// As [`a_guest_moves_there_and_back`], each time before its memory.
fn a_guest_runs_before_its_memory_is_there(packed: bool, pairs: u16) {
    let stage = Stage::with_options(packed, pairs, ",postcopy=on");
    let mut vm = stage.guest();
    // So that all of it comes late enough: beside other work the guest takes long to get going.
    vm.sh(&traffic::random_file("/tmp/more", 32)).unwrap();
    let sender = stage.send_to_guest(&mut vm);
    stage.migrate_by_postcopy(&mut vm, 1);
    stage.end_to_guest(&mut vm, sender);
    let receiver = stage.send_from_guest(&mut vm);
    stage.migrate_by_postcopy(&mut vm, 0);
    Stage::end_from_guest(&mut vm, receiver);
    vm.ping(HOST, "-c 50 -i 0.02").unwrap();
}

#[test]
fn a_guest_with_split_rings_runs_before_its_memory_is_there() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    a_guest_runs_before_its_memory_is_there(false, 1);
}

#[test]
fn a_guest_with_packed_rings_runs_before_its_memory_is_there() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    a_guest_runs_before_its_memory_is_there(true, 1);
}
