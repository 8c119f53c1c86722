//! The processes that speak TLS, of a program that starts itself once more for them: this one. What it begins with
//! is not for a harness of tests, so it has none.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Pid, Signal, getpid, kill_process};
use testkit::{PATIENCE, ProcessStatus, wait_for};
use tls::{Identity, Settings, Side, Speaker};

fn main() {
    tls::serve_if_asked();
    those_that_die_are_replaced();
}

fn settings() -> Settings {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests");
    let file = |name| Some(folder.join(name));
    Settings {
        private_key: file("peer-key.pem"),
        certificate: file("peer.pem"),
        ca_cert: file("ca.pem"),
        ..Settings::default()
    }
}

/// Whether something is heard that is said by TLS; why not, if there is no library.
fn is_heard(identity: &Identity) -> Result<(), String> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ends = [(ours, Side::Client), (theirs, Side::Server)];
    let [(mut client, _), (mut server, verdict)] = ends.map(|(socket, side)| {
        let tunnel = identity.wrap(&socket.into(), side).unwrap();
        let plain = UnixStream::from(tunnel.plain);
        plain.set_nonblocking(false).unwrap();
        plain.set_read_timeout(Some(PATIENCE)).unwrap();
        (plain, tunnel.verdict)
    });
    let mut heard = [0; 5];
    let _ = client.write_all(b"hello");
    match server.read_exact(&mut heard) {
        Ok(()) if heard == *b"hello" => Ok(()),
        other => Err(format!("{other:?}: {:?}", verdict.words())),
    }
}

fn those_that_die_are_replaced() {
    let is_needed = std::env::var_os("CI").is_some_and(|value| value == "true");
    let (speaker, mut watch) = Speaker::start().unwrap();
    let identity = Identity::new(Arc::new(speaker), settings());
    let own = getpid().as_raw_pid();
    let children = || ProcessStatus::all().into_iter().filter(|one| one.parent == own);
    let group = children().find(|one| one.name == "ringway-tls: starter").unwrap().group;
    let of_group = || ProcessStatus::all().into_iter().filter(|one| one.group == group);
    let kill = |pid: i32| kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    for ends_starter in [false, true] {
        match is_heard(&identity) {
            Err(why) if why.contains("install it") && !is_needed => return,
            heard => heard.unwrap(),
        }
        let worker = of_group().find(|one| one.name == "ringway-tls: worker").unwrap();
        kill(if ends_starter { worker.parent } else { worker.pid });
    }
    is_heard(&identity).unwrap();
    wait_for("no zombies", || {
        watch.look();
        children().count() == 0
    });
    assert_eq!(watch.fds().count(), 1, "there are others who could say something");
    // All end with the last who could tell them to do something.
    drop(identity);
    wait_for("their end", || of_group().all(|one| one.is_zombie));
    watch.look();
    assert_eq!(watch.fds().count(), 0);
}
