//! Packages are installed, started, used, upgraded and removed, as an administrator does it, on a
//! system that is made for that ([`Stage`]).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::process::run as output_of;

use super::apparmor;
use super::stage::Stage;

/// The packages that are tried.
pub struct Packages<'a> {
    pub deb: &'a Path,
    /// The same with the next revision.
    pub next: &'a Path,
    pub rpm: &'a Path,
}

/// The worst that `systemd-analyze security` may say of a unit, in tenths.
const EXPOSURE: u32 = 29;

/// Two guests, who send frames to each other through the ports `vm1` and `vm2`.
const GUESTS: &str = "ringway gen latency --count 1000 --rate 10k \
    --port virtio-user:/run/ringway-switch/vm1.sock --port2 virtio-user:/run/ringway-switch/vm2.sock";

/// Tries all of `packages`, and the pages that are in them.
pub fn run(packages: &Packages<'_>, pages: &Path) -> Result<()> {
    pages_are_right(pages)?;
    let stage = Stage::start(&[packages.deb, packages.next, packages.rpm])?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let step = |what: &str| println!("package: {what}");
    step("installing the .deb");
    installs(&stage, &name(packages.deb))?;
    step("a service with ports");
    serves(&stage)?;
    step("profiles of AppArmor");
    apparmor::check(&stage)?;
    step("mistakes in its file");
    tells_of_mistakes(&stage)?;
    step("a second switch");
    has_instances(&stage)?;
    step("upgrading");
    upgrades(&stage, &name(packages.next))?;
    step("removing");
    removes(&stage)?;
    step("the .rpm");
    rpm(&stage, &name(packages.rpm))
}

/// What `man` and a shell say of the pages and completions.
fn pages_are_right(pages: &Path) -> Result<()> {
    // All in one go, as man(1) formats each. Long words that leave a line short are no fault.
    let script =
        "groff -Kutf8 -t -mandoc -ww -Tutf8 -Z -rLL=100n -rLT=100n man/*.1 2>&1 >/dev/null |
        grep -v 'cannot adjust line' || true";
    let mut man = Command::new("sh");
    man.args(["-euc", script]).current_dir(pages).env("LC_ALL", "C.UTF-8");
    let warnings = output_of(&mut man)?;
    ensure!(warnings.is_empty(), "groff warns of pages: {warnings}");
    let script = ". ./ringway.bash; complete -p ringway; COMP_WORDS=(ringway sho); COMP_CWORD=1
        _ringway ringway sho ringway; echo ${COMPREPLY[*]}";
    let reply = output_of(Command::new("bash").args(["-euc", script]).current_dir(pages))?;
    ensure!(reply.lines().any(|line| line == "show"), "bash completes 'sho' to: {reply}");
    Ok(())
}

fn installs(stage: &Stage, deb: &str) -> Result<()> {
    dpkg(stage, &format!("--install /run/packages/{deb}"))?;
    stage.run("test \"$(dpkg --verify ringway)\" = ''")?;
    stage.run(
        "id ringway | grep -w kvm && test \"$(stat -c %U:%a /run/ringway-switch)\" = ringway:755
        test \"$(stat -c %U:%G:%a /run/ringway-switch/vmm)\" = ringway:kvm:2770",
    )?;
    // dpkg has started it, and waits until it is ready.
    stage.run("systemctl is-active ringway && systemctl is-enabled ringway")?;
    let status = stage.run("systemctl show -p StatusText ringway")?;
    ensure!(status.contains("0 ports, 1 worker"), "{status}");
    let owner = stage.run("ps -o user= -p $(systemctl show -P MainPID ringway)")?;
    ensure!(owner.trim() == "ringway", "it runs as {owner}");
    // As documented: without saying where the switch is.
    stage.run("ringway show ports && ringway --version")?;
    stage.run(
        "systemd-analyze verify ringway.service ringway@lab.service 2>&1 | tee /tmp/verify
        ! grep -i ringway /tmp/verify",
    )?;
    for unit in ["ringway.service", "ringway@.service"] {
        let line = format!("systemd-analyze security --offline=true --threshold={EXPOSURE} {unit}");
        stage.run(&line)?;
    }
    stage.run("man --where ringway ringway-switch ringway-port-add").map(drop)
}

/// Ports of all kinds that it has the privileges for, under all that the unit forbids.
fn serves(stage: &Stage) -> Result<()> {
    stage.run(
        "ip link add up0 type veth peer name up1 && ip link set up0 up && ip link set up1 up
        cat >>/etc/ringway/ringway.toml <<'END'
[ports.vm1]
device = \"vhost-user:/run/ringway-switch/vm1.sock,postcopy=on\"
[ports.vm2]
device = \"vhost-user:/run/ringway-switch/vm2.sock\"
[ports.host]
device = \"tap:rw0\"
[ports.xdp]
device = \"af-xdp:up0\"
[ports.packet]
device = \"af-packet:up1\"
END
        ringway config check /etc/ringway/ringway.toml
        systemctl restart ringway",
    )?;
    let status = stage.run("systemctl show -p StatusText ringway")?;
    ensure!(status.contains("5 ports"), "not all ports could be opened: {status}");
    stage.run("test \"$(stat -c %U:%G:%a /run/ringway-switch/vm1.sock)\" = ringway:kvm:660")?;
    stage.run("ip link show rw0")?;
    stage.run(GUESTS)?;
    let refused = "journalctl -u ringway | grep 'refused the system call' && exit 1 || true";
    stage.run(refused)?;
    // A crash is not the end.
    let before = main_pid(stage)?;
    stage.run("systemctl kill --signal KILL ringway")?;
    stage.wait(&format!(
        "systemctl is-active ringway && test $(systemctl show -P MainPID ringway) != {before}"
    ))?;
    stage.run(GUESTS).map(drop)
}

/// A file with a mistake changes nothing, and the journal has what it is at its priority.
fn tells_of_mistakes(stage: &Stage) -> Result<()> {
    let file = "/etc/ringway/ringway.toml";
    stage.run(&format!("cp {file} /tmp/good.toml; echo 'colour = 1' >>{file}"))?;
    stage.fail("systemctl reload ringway")?;
    stage.run("systemctl is-active ringway && ringway show ports vm1")?;
    stage.fail("systemctl restart ringway")?;
    // Another start would not help, so there is none.
    stage.run(
        "test $(systemctl show -P ActiveState ringway) = failed
        test $(systemctl show -P ExecMainStatus ringway) = 2",
    )?;
    let errors = stage.run("journalctl --sync; journalctl -u ringway -p err -o cat")?;
    ensure!(errors.contains("colour"), "the journal has no error: {errors}");
    stage.run(&format!("cp /tmp/good.toml {file}; systemctl start ringway"))?;
    stage.run("systemctl reload ringway && systemctl is-active ringway").map(drop)
}

fn has_instances(stage: &Stage) -> Result<()> {
    stage.run(
        "echo '[ports.a]\ndevice = \"null:\"' >/etc/ringway/lab.toml
        systemctl start ringway@lab
        ringway show ports a --control /run/ringway-switch-lab/control.sock",
    )?;
    let first = stage.run("ringway show ports")?;
    ensure!(first.contains("vm1") && !first.contains("null:"), "{first}");
    Ok(())
}

fn upgrades(stage: &Stage, next: &str) -> Result<()> {
    let before = main_pid(stage)?;
    let text = dpkg(stage, &format!("--install /run/packages/{next}"))?;
    ensure!(text.contains("systemctl restart ringway"), "nobody is told of the restart: {text}");
    ensure!(main_pid(stage)? == before, "the upgrade has started the switch anew");
    stage.run(GUESTS)?;
    // The administrator's file is as it was.
    stage.run("cmp /tmp/good.toml /etc/ringway/ringway.toml")?;
    stage.run("systemctl restart ringway")?;
    stage.run(GUESTS).map(drop)
}

fn removes(stage: &Stage) -> Result<()> {
    dpkg(stage, "--remove ringway")?;
    stage.run("! systemctl is-active ringway && ! systemctl is-active ringway@lab")?;
    stage.run("! ls /usr/bin/ringway /usr/share/man/man1/ringway* 2>/dev/null")?;
    stage.run("cmp /tmp/good.toml /etc/ringway/ringway.toml && ! ip link show rw0 2>/dev/null")?;
    dpkg(stage, "--purge ringway")?;
    let left = "/etc/ringway/ringway.toml /etc/apparmor.d/ringway /run/ringway-switch \
                /usr/share/doc/ringway";
    stage.run(&format!("! ls -d {left} 2>/dev/null"))?;
    // That of a further switch is the administrator's.
    stage.run("test -e /etc/ringway/lab.toml && rm -r /etc/ringway").map(drop)
}

/// Debian's rpm knows nothing of what dpkg has installed, hence `--nodeps`.
fn rpm(stage: &Stage, rpm: &str) -> Result<()> {
    stage.run(&format!(
        "rpm --install --nodeps /run/packages/{rpm} && rpm --verify --nodeps ringway"
    ))?;
    let needs = stage.run("rpm --query --requires ringway")?;
    ensure!(needs.contains("libc.so.6(GLIBC_2."), "{needs}");
    stage.run("systemctl start ringway && ringway show ports && echo '# mine' >>/etc/ringway/ringway.toml")?;
    stage.run(
        "rpm --erase ringway && ! systemctl is-active ringway && ! ls /usr/bin/ringway 2>/dev/null",
    )?;
    stage.run("grep mine /etc/ringway/ringway.toml.rpmsave").map(drop)
}

fn main_pid(stage: &Stage) -> Result<u32> {
    let pid = stage.run("systemctl show -P MainPID ringway")?;
    pid.trim().parse().with_context(|| format!("systemctl printed {pid:?}"))
}

/// Runs dpkg and gives all that it prints, that of the scripts in the package too.
fn dpkg(stage: &Stage, action: &str) -> Result<String> {
    stage.run(&format!("dpkg --force-unsafe-io {action} 2>&1"))
}
