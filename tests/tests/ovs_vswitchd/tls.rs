//! Controllers and the database by TLS, with keys that `ovs-pki` makes.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::ovsdb::{SCHEMA, environment};
use e2e::process::run;
use e2e::{Netns, Peer, Process, Ringway, require_shared, wait};
use rustix::process::{Pid, Signal, kill_process};
use testkit::ProcessStatus;

use super::{LIMIT, Lab};

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// HELLO of OpenFlow 1.3. The end of the line is the begin of another message.
const HELLO: &str = "\u{4}\0\0\u{8}\0\0\0\u{1}";

/// Keys of a switch, of a controller, and of somebody whom neither knows.
struct Keys(PathBuf);

impl Keys {
    fn make(dir: &Path) -> Self {
        let script = "exec >keys.log 2>&1; pki='ovs-pki --dir=pki --log=pki.log'; $pki init; \
                      $pki req+sign switch switch; $pki req+sign controller controller; \
                      openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=foreign \
                      -keyout foreign-privkey.pem -out foreign-cert.pem";
        run(Command::new("sh").args(["-ec", script]).current_dir(dir)).unwrap();
        Self(dir.to_owned())
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// The options of Open vSwitch's programs for whoever is `name`, and knows those of `authority`.
    fn options(&self, name: &str, authority: &str) -> Vec<String> {
        let [key, certificate] =
            ["privkey", "cert"].map(|kind| self.file(&format!("{name}-{kind}.pem")));
        let authority = self.file(&format!("pki/{authority}/cacert.pem"));
        vec![
            format!("--private-key={key}"),
            format!("--certificate={certificate}"),
            format!("--ca-cert={authority}"),
        ]
    }

    /// A controller that says HELLO to the switch, by OpenSSL's own server, with the certificate of `name`.
    fn controller(&self, host: &Netns, name: &str) -> Process {
        let [key, certificate] =
            ["privkey", "cert"].map(|kind| self.file(&format!("{name}-{kind}.pem")));
        let authority = self.file("pki/switchca/cacert.pem");
        let mut command = host.command("openssl");
        command.args(["s_server", "-quiet", "-accept", "127.0.0.1:6653", "-Verify", "2"]);
        command.args(["-verify_return_error", "-key", &key, "-cert", &certificate]);
        command.args(["-CAfile", &authority]);
        let mut server = Process::start("openssl s_server", command).unwrap();
        server.send_line(HELLO).unwrap();
        server
    }
}

/// Waits until the switch says why a controller is not connected.
fn wait_error(lab: &Lab, what: &str) {
    let said = || {
        let status = lab.vsctl("--if-exists get Controller . status:last_error");
        Ok(status.contains(what).then_some(()))
    };
    wait::until(what, LIMIT, PAUSE, said).unwrap();
}

#[test]
fn controllers_are_dialled_and_listened_for_by_tls() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (keys, lab) = (Keys::make(dir.path()), Lab::start(dir.path()));
    lab.host.sh("ip link set lo up").unwrap();
    let set_ssl = |key: &str| {
        let [certificate, authority] =
            ["switch-cert.pem", "pki/controllerca/cacert.pem"].map(|name| keys.file(name));
        lab.vsctl(&format!("set-ssl {} {certificate} {authority}", keys.file(key)));
    };

    // One that is dialled: without keys, with a key that is not there, by one whom nobody knows, and then.
    let foreign = keys.controller(&lab.host, "foreign");
    lab.vsctl("set-controller br0 ssl:127.0.0.1:6653 -- set Controller br0 max_backoff=1000");
    wait_error(&lab, "no private key is set: use 'ovs-vsctl set-ssl");
    set_ssl("nobody.pem");
    wait_error(&lab, "/nobody.pem': No such file or directory");
    set_ssl("switch-privkey.pem");
    wait_error(&lab, "the peer's certificate is refused: self-signed certificate");
    drop(foreign);
    let _controller = keys.controller(&lab.host, "controller");
    lab.vsctl("wait-until Controller . is_connected=true status:state=ACTIVE");

    // One that comes; whoever says nothing, or is not known, holds nobody up.
    lab.vsctl("set-controller br0 pssl:6654:127.0.0.1");
    let silent: Vec<TcpStream> = (0..8)
        .map(|_| lab.host.within(|| TcpStream::connect("127.0.0.1:6654")).unwrap().unwrap())
        .collect();
    let show = |name: &str| {
        let mut command = lab.host.command("ovs-ofctl");
        command.args(keys.options(name, "switchca")).args(["--timeout=60", "show"]);
        run(command.arg("ssl:127.0.0.1:6654"))
    };
    let shown = show("controller").unwrap();
    assert!(shown.contains(" 1(left): addr:"), "{shown}");
    assert!(show("foreign").is_err());
    wait_error(&lab, "the peer's certificate is refused: self-signed certificate");
    show("controller").unwrap();
    drop(silent);
    lab.ping();
}

/// A database, and keys and a namespace for those who are to be at it.
fn make_database(dir: &Path) -> (Keys, Netns) {
    let (keys, host) = (Keys::make(dir), Netns::new().unwrap());
    host.sh("ip link set lo up").unwrap();
    run(Command::new("ovsdb-tool").arg("create").arg(dir.join("conf.db")).arg(SCHEMA)).unwrap();
    (keys, host)
}

/// `ovs-vsctl` by the socket of the server.
fn vsctl(dir: &Path, line: &str) -> String {
    let mut command = Command::new("ovs-vsctl");
    command.arg(format!("--db=unix:{}", dir.join("db.sock").display()));
    run(command.arg("--timeout=60").args(line.split(' '))).unwrap()
}

/// `ovsdb-server` in a namespace, which listens for TLS alone beside its socket.
fn serve(host: &Netns, keys: &Keys, dir: &Path) -> Process {
    let socket = dir.join("db.sock");
    let _ = std::fs::remove_file(&socket);
    let mut command = host.command("ovsdb-server");
    command.arg(dir.join("conf.db")).arg(format!("--remote=punix:{}", socket.display()));
    command.args(["--remote=pssl:6640:127.0.0.1", "--no-chdir", "-vconsole:warn", "-vsyslog:off"]);
    command.arg(format!("--unixctl={}", dir.join("ovsdb.ctl").display()));
    command.args(keys.options("controller", "switchca"));
    command.arg(format!("--peer-ca-cert={}", keys.file("pki/controllerca/cacert.pem")));
    let server = Process::start("ovsdb-server", environment(command, dir)).unwrap();
    server.wait_for_listener(&socket, LIMIT).unwrap();
    server
}

#[test]
fn a_database_is_followed_by_tls() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (keys, host) = make_database(dir.path());
    let server = serve(&host, &keys, dir.path());
    let vsctl = |line: &str| vsctl(dir.path(), line);
    vsctl("--no-wait init");

    // The file of authorities is made of what the server has for one, and the switch connects again.
    let [key, certificate, ..] = &keys.options("switch", "controllerca")[..] else {
        panic!("keys")
    };
    let authority = dir.path().join("found.pem");
    let bootstrap = format!("--bootstrap-ca-cert={}", authority.display());
    let arguments = ["ssl:127.0.0.1:6640", key, certificate, &bootstrap];
    let _switch = Ringway::vswitchd_with(&host, dir.path(), &arguments).unwrap();
    let known = std::fs::read_to_string(keys.file("pki/controllerca/cacert.pem")).unwrap();
    let found = std::fs::read_to_string(authority).unwrap();
    assert!(known.contains(found.trim()), "{found}");
    vsctl("add-br br0");

    // A server that is started anew is connected to again.
    drop(server);
    let _server = serve(&host, &keys, dir.path());
    vsctl("add-port br0 p1 -- set Interface p1 type=internal");
}

/// Who speaks TLS is ended, who starts it, and who takes the place of that: each time another one does its work.
#[test]
fn those_who_speak_tls_are_replaced() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (keys, host) = make_database(dir.path());
    let _server = serve(&host, &keys, dir.path());
    let vsctl = |line: &str| vsctl(dir.path(), line);
    vsctl("--no-wait init");
    let options = keys.options("switch", "controllerca");
    let arguments: Vec<&str> =
        ["ssl:127.0.0.1:6640"].into_iter().chain(options.iter().map(String::as_str)).collect();
    let mut switch = Ringway::vswitchd_with(&host, dir.path(), &arguments).unwrap();
    let own = i32::try_from(switch.id()).unwrap();
    let group = {
        let all = ProcessStatus::all().into_iter();
        let is_starter =
            |one: &ProcessStatus| one.parent == own && one.name == "ringway-tls: starter";
        all.filter(is_starter).map(|one| one.group).next().unwrap()
    };
    let of_group = || ProcessStatus::all().into_iter().filter(|one| one.group == group);
    // This waits until the switch has done it, which needs its connection to the database; after that there is
    // a worker again.
    let add = |name: &str| {
        vsctl(&format!("add-port br0 {name} -- set Interface {name} type=internal"));
        of_group().find(|one| one.name == "ringway-tls: worker").unwrap()
    };
    let kill = |pid: i32| kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let heard = |what: &str, times: usize| {
        let said = || Ok((switch.log().matches(what).count() == times).then_some(()));
        wait::until(what, LIMIT, PAUSE, said).unwrap();
    };

    vsctl("add-br br0");
    kill(add("p1").pid);
    heard("the process that speaks TLS has ended (signal: 9 (SIGKILL))", 1);
    kill(add("p2").parent);
    heard("another one is in its place", 1);
    kill(add("p3").parent);
    heard("another one is in its place", 2);
    add("p4");
    heard("the process that speaks TLS has ended", 1);
    let zombies = || {
        let all = ProcessStatus::all();
        let is_left = all.iter().any(|one| one.is_zombie && one.parent == own);
        Ok((!is_left).then_some(()))
    };
    wait::until("no zombies", LIMIT, PAUSE, zombies).unwrap();

    // All of them end with the switch, also if that has no time to tell them.
    switch.signal(Signal::KILL).unwrap();
    switch.wait(LIMIT).unwrap();
    let is_empty = || Ok(of_group().all(|one| one.is_zombie).then_some(()));
    wait::until("the end of all processes", LIMIT, PAUSE, is_empty).unwrap();
}
