//! A configuration of Ringway's own from the database of an Open vSwitch that runs: whoever moves from one
//! to the other takes bridges and ports along.

use std::path::Path;
use std::time::Duration;

use daemon::State;
use daemon::check::check;
use eal::time::{Time, later};
use ovsdb::{Client, Event, Remote};
use rustix::event::{PollFd, Timespec, poll};

use crate::content::{Content, watched};
use crate::desired::Desired;
use crate::device::{Dummies, Places};

/// How long the database may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A server answers by the system's clock.
const CLOCK: Time = Time::system();

/// What the database says makes this configuration.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Bridges, ports and mirrors.
    pub state: State,
    /// What is not taken along, and why, for people.
    pub left_out: Vec<String>,
}

/// What a database says, which nothing is written into.
///
/// # Errors
/// It cannot be reached, or is none of Open vSwitch's; in words for people.
pub fn fetch(remote: &Remote) -> Result<Content, String> {
    let mut client = Client::new(remote.clone(), watched(), CLOCK.now());
    let end = later(CLOCK.now(), LIMIT);
    loop {
        for event in client.run(CLOCK.now()) {
            if event == Event::Online {
                let content = Content::read(client.cache());
                return content.ok_or_else(|| {
                    format!("{remote}: there is no row in table Open_vSwitch: is it in use?")
                });
            }
        }
        // A server that is to be started later is nothing to wait for.
        if !client.trouble().is_empty() {
            return Err(format!("{remote}: {}", client.trouble()));
        }
        match CLOCK.until(end) {
            Some(left) if !left.is_zero() => wait(&client, left),
            _ => return Err(format!("{remote}: it does not answer")),
        }
    }
}

/// Waits until something comes, or is due.
fn wait(client: &Client, left: Duration) {
    let due = client.due().and_then(|due| CLOCK.until(due));
    let wait = Timespec::try_from(due.unwrap_or(left).min(left)).ok();
    let fd = client.fd();
    let mut fds: Vec<PollFd<'_>> =
        fd.iter().map(|fd| PollFd::from_borrowed_fd(*fd, client.interest())).collect();
    // That it is interrupted is as good as that it is over.
    let _ = poll(&mut fds, wait.as_ref());
}

/// The configuration that `content` makes; sockets without a path of their own are in folder `run`. No
/// device is looked at: it may be another machine's.
#[must_use]
pub fn import(content: &Content, run: &Path) -> Imported {
    // What a file says is done by the switch.
    let shapes = &|_: &str| false;
    let places = Places { dummies: Dummies::None, run, exists: &|_| true, shapes };
    let nothing = State::default();
    let mut desired = Desired::new(content, &nothing, places);
    // A file has both.
    desired.state.lone_patches = false;
    let mut left_out = Vec::new();
    while let Err(error) = check(&nothing, &desired.state) {
        left_out.push(error.to_string());
        if !desired.leave_out(&error, &nothing) {
            break;
        }
    }
    let interfaces = content.interfaces();
    let problems = interfaces.filter_map(|(bridge, _, name, row)| {
        let problem = desired.problems.get(&row.row)?;
        Some(format!("interface {name} of bridge {bridge}: {problem}"))
    });
    // What was found out by checking is told there already.
    let told = left_out.clone();
    left_out
        .extend(problems.filter(|line| !told.iter().any(|error| line.ends_with(error.as_str()))));
    let mirrors = content.bridges.iter().flat_map(|(bridge, row)| {
        let rows = row.mirrors.iter().filter(|(_, row)| !desired.mirrors.contains_key(&row.row));
        rows.map(move |(name, _)| format!("mirror {name} of bridge {bridge}: it copies nothing"))
    });
    left_out.extend(mirrors);
    Imported { state: desired.state, left_out }
}

#[cfg(test)]
mod tests {
    use litemap::LiteMap;
    use ovsdb::Uuid;

    use super::*;
    use crate::content::{Bridge, Interface, Port, Texts};

    /// Name, type and options.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

    fn content(interfaces: &[Row<'_>]) -> Content {
        let mut ports = LiteMap::new();
        for (row, (name, kind, options)) in (1..).zip(interfaces) {
            let options = options.iter().map(|(key, value)| ((*key).into(), (*value).into()));
            let options: Texts = options.collect();
            let interface = Interface { options, ..Interface::bare(Uuid(row), kind) };
            let interfaces = [((*name).to_owned(), interface)].into_iter().collect();
            let port = Port { tag: Some(7), interfaces, ..Port::bare(Uuid(row)) };
            ports.insert((*name).to_owned(), port);
        }
        let bridge = Bridge::bare(Uuid(0xabcdef), Texts::new(), ports);
        Content::bare(Texts::new(), ("br0", bridge))
    }

    #[test]
    fn what_can_be_had_is_a_file_and_the_rest_is_named() {
        let content = content(&[
            ("br0", "internal", &[]),
            ("eth0", "", &[]),
            ("vm1", "dpdkvhostuser", &[]),
            ("vm2", "dpdkvhostuserclient", &[("vhost-server-path", "/run/vm2.sock")]),
            ("tun0", "vxlan", &[("remote_ip", "192.0.2.1")]),
            ("tun1", "lisp", &[("remote_ip", "192.0.2.1")]),
            ("lonely", "patch", &[("peer", "nobody")]),
        ]);
        let imported = import(&content, "/run/openvswitch".as_ref());
        let text = daemon::file::write(&imported.state);
        let state = daemon::file::parse(&text).unwrap();
        assert_eq!(state, imported.state, "{text}");
        assert!(check(&State::default(), &state).is_ok());
        let names: Vec<&String> = state.ports.keys().collect();
        assert_eq!(names, ["br0", "eth0", "tun0", "vm1", "vm2"]);
        assert_eq!(state.ports["vm1"].device, "vhost-user:/run/openvswitch/vm1,queues=8");
        assert_eq!(state.ports["eth0"].vlan.tag, Some(7));
        assert_eq!(imported.left_out.len(), 2, "{:?}", imported.left_out);
        assert!(imported.left_out.iter().any(|line| line.contains("type lisp is not supported")));
        assert!(imported.left_out.iter().any(|line| line.contains("nobody")));
    }

    #[test]
    fn a_database_that_is_not_there_is_an_error() {
        let error = fetch(&"unix:/nonexistent/db.sock".parse().unwrap());
        assert!(error.unwrap_err().starts_with("unix:/nonexistent/db.sock: "));
    }
}
