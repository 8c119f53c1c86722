use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::frames::{frame, frames};
use crate::netns::Netns;
use crate::process::Process;
use crate::qemu::Vm;
use crate::ringway::binary;
use crate::wait;
use crate::wire::Wire;

const LIMIT: Duration = Duration::from_secs(60);

/// Where frames for a guest come from, and a station that is not there.
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 9];

/// A running `ringway l2fwd --json`, with statistics every 0.1 seconds.
#[derive(Debug)]
pub struct L2fwd {
    process: Process,
}

impl L2fwd {
    /// Starts it with the ports given as `DEVICE` or `NAME=DEVICE` and further arguments. It does
    /// not wait for anything: see [`Self::wait_ready`] and [`Self::wait_links`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(ports: &[&str], arguments: &[&str]) -> Result<Self> {
        Self::start_command(Command::new(binary()?), ports, arguments)
    }

    /// As [`Self::start`], inside a network namespace.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(netns: &Netns, ports: &[&str], arguments: &[&str]) -> Result<Self> {
        let binary = binary()?;
        Self::start_command(netns.command(&binary.display().to_string()), ports, arguments)
    }

    fn start_command(mut command: Command, ports: &[&str], arguments: &[&str]) -> Result<Self> {
        command.args(["l2fwd", "--json", "--stats", "0.1", "--wait-link", "0"]);
        for port in ports {
            command.args(["--port", port]);
        }
        let process = Process::start("ringway l2fwd", {
            command.args(arguments);
            command
        })?;
        Ok(Self { process })
    }

    /// Waits until it forwards: the fields of its first line.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn wait_ready(&self) -> Result<Value> {
        self.object("ready", 0)
    }

    /// The statistics that it prints next.
    ///
    /// # Errors
    /// When it prints none.
    pub fn statistics(&self) -> Result<Value> {
        self.object("statistics", self.process.mark())
    }

    /// Waits until the links of all ports are up.
    ///
    /// # Errors
    /// When one is not within a minute.
    pub fn wait_links(&self) -> Result<()> {
        self.wait("links", |now| {
            let mut ports = now["ports"].as_array().into_iter().flatten();
            ports.all(|port| port["link_up"] == true)
        })
        .map(drop)
    }

    /// Waits until its statistics satisfy `enough`.
    ///
    /// # Errors
    /// When they do not within a minute; the message has the last ones.
    pub fn wait(&self, what: &str, enough: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        wait::until(what, LIMIT, Duration::ZERO, || {
            last = self.statistics()?;
            Ok(enough(&last).then(|| last.clone()))
        })
        .with_context(|| format!("{last:#}"))
    }

    /// The first whole line behind `mark` with an object of this name; gives what is in it.
    fn object(&self, name: &str, mark: usize) -> Result<Value> {
        let start = format!("{{\"{name}\":");
        let before = self.process.wait_for(&start, mark, LIMIT)?;
        let line = self.process.wait_for("\n", mark + before.len(), LIMIT)?;
        let mut value: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        Ok(value[name].take())
    }

    /// Everything it has written.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Sends SIGTERM and waits for the end; gives the status and the last statistics.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<(ExitStatus, Value)> {
        let mark = self.process.mark();
        let status = self.process.stop(limit)?;
        Ok((status, self.object("summary", mark)?))
    }
}

impl Drop for L2fwd {
    /// As with a switch: everything that it does, its sandbox allows.
    fn drop(&mut self) {
        self.process.assert_nothing_refused();
    }
}

/// Has `ringway l2fwd` in a guest forward between two ports whose cables the test has in its hands
/// and whose own addresses are `macs`, and checks all that comes out, both ways: content, number,
/// and the addresses that frames get. Frames for other stations come through in promiscuous mode
/// only. The ports take frames of 9,014 bytes.
///
/// # Errors
/// When a frame is missing or is another one, or the program does not start or end as it should.
pub fn check_in_guest(
    vm: &mut Vm,
    wires: &[Wire; 2],
    ports: [&str; 2],
    macs: [[u8; 6]; 2],
) -> Result<()> {
    check(vm, wires, ports, macs, ("", 240))?;
    check(vm, wires, ports, macs, ("-P", 24))
}

/// As [`check_in_guest`], in promiscuous mode only: for a port whose device is told to let
/// everything through, since its other end filters.
///
/// # Errors
/// As there.
pub fn check_promiscuous_in_guest(
    vm: &mut Vm,
    wires: &[Wire; 2],
    ports: [&str; 2],
    macs: [[u8; 6]; 2],
) -> Result<()> {
    check(vm, wires, ports, macs, ("-P", 240))
}

fn check(
    vm: &mut Vm,
    wires: &[Wire; 2],
    ports: [&str; 2],
    macs: [[u8; 6]; 2],
    (options, count): (&str, u32),
) -> Result<()> {
    start_in_guest(vm, ports, options)?;
    let passed = pass_both_ways(wires, macs, (options, count));
    // What it has counted says where frames were lost.
    let log = stop_in_guest(vm)?;
    passed.with_context(|| log.clone())?;
    let count = if options.is_empty() { 2 * count } else { 2 * (count + count / 8) };
    ensure!(log.contains(&count.to_string()) && !log.contains("panicked"), "{log}");
    Ok(())
}

fn pass_both_ways(
    wires: &[Wire; 2],
    macs: [[u8; 6]; 2],
    (options, count): (&str, u32),
) -> Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        let pass = |sent: &[Vec<u8>], forwarded: &[Vec<u8>]| {
            let expected: Vec<_> =
                forwarded.iter().map(|frame| rewritten(frame, to, macs[to])).collect();
            pass(&wires[from], &wires[to], sent, &expected)
                .with_context(|| format!("from port {from} to port {to}, {options:?}"))
        };
        let own = frames(macs[from], STATION, &[64, 1514, 9000], count);
        // Others than those: once the addresses are rewritten, their contents tell them apart.
        let foreign = (count..).zip([64, 1514].into_iter().cycle()).take((count / 8) as usize);
        let foreign: Vec<_> = foreign.map(|(seed, len)| frame(OTHER, STATION, len, seed)).collect();
        for (own, foreign) in own.chunks(8).zip(&foreign) {
            // One that is not filtered would come out before the others.
            let sent = [std::slice::from_ref(foreign), own].concat();
            pass(&sent, if options.is_empty() { own } else { &sent })?;
        }
    }
    Ok(())
}

/// A frame as it leaves by port `number`, whose address is `mac`.
fn rewritten(frame: &[u8], number: usize, mac: [u8; 6]) -> Vec<u8> {
    let station = [2, 0, 0, 0, 0, u8::try_from(number).unwrap_or(0)];
    [&station[..], &mac, frame.get(12..).unwrap_or_default()].concat()
}

/// Sends frames into one wire, and expects what is expected, and nothing before or between it, from
/// the other.
fn pass(into: &Wire, from: &Wire, sent: &[Vec<u8>], expected: &[Vec<u8>]) -> Result<()> {
    for frame in sent {
        into.send(frame)?;
    }
    // The guest's kernel may have sent frames of another type before.
    from.expect(expected, LIMIT)
}

fn start_in_guest(vm: &mut Vm, [a, b]: [&str; 2], options: &str) -> Result<()> {
    // The first frame that a device has before its driver is there is lost: see `Wire`.
    let patience = LIMIT.as_secs();
    let command =
        format!("ringway l2fwd --port {a} --port {b} -T 0 --wait-link {patience} {options}");
    vm.spawn("l2fwd", &command)?;
    vm.sh("until grep -q 'l2fwd ready' /tmp/l2fwd.log; do \
             usleep 50000; [ -d /proc/$(cat /tmp/l2fwd.pid) ] || { cat /tmp/l2fwd.log; exit 1; }; \
         done")
        .map(drop)
}

/// Ends it as Ctrl-C does; gives what it has said.
fn stop_in_guest(vm: &mut Vm) -> Result<String> {
    vm.end("l2fwd", "INT")?;
    vm.sh("cat /tmp/l2fwd.log")
}
