use std::fs::File;
use std::os::fd::AsFd as _;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::Result;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::ping;
use crate::process::{Process, run};

/// A network namespace of its own, removed when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback interface up.
    ///
    /// Each interface answers ARP requests for its own addresses alone. Linux answers on all for the
    /// addresses of all (`arp_ignore` 0), so an interface that a switch reads frames from, of which the
    /// kernel has a copy, would answer in place of the switch's own, at times as the first.
    ///
    /// # Errors
    /// Without root or iproute2.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_left_over();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringway-{}-{n}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let ns = Self { name };
        ns.sh("ip link set lo up && echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")?;
        Ok(ns)
    }

    /// The name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a shell line inside and gives its standard output.
    ///
    /// # Errors
    /// When its status is not 0.
    pub fn sh(&self, line: &str) -> Result<String> {
        run(self.command("sh").args(["-c", line]))
    }

    /// Pings `address` and demands every answer, as [`ping::line`] does; gives what ping prints.
    ///
    /// # Errors
    /// When an answer is missing.
    pub fn ping(&self, address: &str, options: &str) -> Result<String> {
        self.sh(&ping::line("busybox ping", address, options)?)
    }

    /// Calls `make` inside, for sockets that are to be there: they stay.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `make` does.
    pub fn within<T: Send>(&self, make: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = File::open(Path::new("/run/netns").join(&self.name))?;
        // The thread that has entered it ends there.
        thread::scope(|scope| {
            let entered = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(make())
            });
            entered.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a shell line inside and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, line: &str) -> Result<Process> {
        let mut command = self.command("sh");
        command.args(["-c", &format!("exec {line}")]);
        Process::start(format!("{line} in {}", self.name), command)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A namespace that is already gone is as good as one deleted here.
        drop(run(Command::new("ip").args(["netns", "del", &self.name])));
    }
}

/// Removes what killed test processes have left.
fn remove_left_over() {
    let Ok(list) = run(Command::new("ip").args(["netns", "list"])) else { return };
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let pid = name.strip_prefix("ringway-").and_then(|rest| rest.split('-').next());
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !std::fs::exists(format!("/proc/{pid}")).unwrap_or(true) {
            drop(run(Command::new("ip").args(["netns", "del", name])));
        }
    }
}
