use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::process::run as output_of;
use e2e::wait;

/// How long a system may take to start, and a service.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked at.
const STEP: Duration = Duration::from_millis(50);

/// A running system with a systemd of its own, in namespaces: what is installed there is gone with
/// it, and the machine's files, processes and interfaces are out of reach.
pub struct Stage {
    unshare: Child,
    /// Its systemd.
    init: u32,
    group: Group,
    _work: tempfile::TempDir,
}

impl Stage {
    /// Starts one that has `packages` in `/run/packages`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(packages: &[&Path]) -> Result<Self> {
        let (group, work) = (Group::new()?, tempfile::tempdir()?);
        // What is killed takes its systemd along, which takes everything.
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec unshare --mount --pid --net --uts --ipc --cgroup \
             --fork --kill-child sh -c \"$SCRIPT\" sh \"$@\"",
            group.0.display()
        );
        let mut command = Command::new("sh");
        command.args(["-euc", &script, "sh"]).arg(work.path()).args(packages);
        command.env("SCRIPT", include_str!("stage.sh")).stdin(Stdio::null());
        let unshare = command.spawn().context("unshare")?;
        let mut stage = Self { unshare, init: 0, group, _work: work };
        stage.init = stage.wait_for_init()?;
        stage.wait("systemctl is-active basic.target")?;
        Ok(stage)
    }

    fn wait_for_init(&mut self) -> Result<u32> {
        let id = self.unshare.id();
        let unshare = &mut self.unshare;
        wait::until("systemd in namespaces", PATIENCE, STEP, || {
            let ended = unshare.try_wait()?;
            ensure!(ended.is_none(), "unshare has ended: {ended:?}");
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
            let Some(child) = children.split_whitespace().next() else { return Ok(None) };
            let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            Ok((name.trim() == "systemd").then(|| child.parse()).transpose()?)
        })
    }

    /// A shell in it that runs `script`.
    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--net", "--uts"]);
        command.args(["--ipc", "--cgroup", "--wd=/", "sh", "-euc", script]);
        // The environment of a login by sudo: nothing of whoever runs this.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    }

    /// Runs `script`, which must succeed, and gives what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, script: &str) -> Result<String> {
        output_of(&mut self.shell(script)).with_context(|| self.journal())
    }

    /// Runs `script`, which must fail, and gives all that it prints.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn fail(&self, script: &str) -> Result<String> {
        let output = self.shell(script).output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(!output.status.success(), "{script} did not fail: {text}");
        Ok(text)
    }

    /// Waits until `script` succeeds, and gives what it prints.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait(&self, script: &str) -> Result<String> {
        let found = wait::until(script, PATIENCE, STEP, || {
            let output = self.shell(script).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(output.status.success().then_some(text))
        });
        found.with_context(|| self.journal())
    }

    /// What the system has to say of what went wrong.
    fn journal(&self) -> String {
        let script = "cat /run/console; journalctl --no-pager --lines 60";
        let output = self.shell(script).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.unshare.kill());
        drop(self.unshare.wait());
        self.group.remove();
    }
}

/// A control group, so that the systemd there finds and makes no others than those below it.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (place, kind) = (words.nth(1)?, words.next()?);
            (kind == "cgroup2").then_some(place)
        });
        let root = root.context("no cgroup2 is mounted")?;
        let path = Path::new(root).join(format!("ringway-stage-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Removes it, once its last process has ended, and those below.
    fn remove(&self) {
        let empty = || Ok(remove_groups(&self.0).is_ok().then_some(()));
        drop(wait::until("the end of the stage", PATIENCE, STEP, empty));
    }
}

fn remove_groups(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_groups(&path)?;
        }
    }
    fs::remove_dir(path)
}
