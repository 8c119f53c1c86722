//! Which states ports have had in spanning tree, and since when. The log says so in Open vSwitch's
//! words, for which scripts look.

use std::time::{Duration, Instant};

use litemap::LiteMap;
use ordered::Order as _;
use switch::{RstpPort, RstpReport};

use crate::content::Content;
use crate::spanning::{OLD_OFF, RAPID_OFF, old_state, rapid_state};

/// A port's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Branch {
    is_rapid: bool,
    state: &'static str,
    /// Since when it has it.
    entered: Instant,
    /// Since when it takes part.
    joined: Instant,
}

/// How long a port has been what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// Taking part.
    pub uptime: Duration,
    /// In its state.
    pub in_state: Duration,
}

/// The states of all ports of all bridges, by their names.
#[derive(Debug, Default)]
pub(super) struct Trees(LiteMap<(String, String), Branch>);

impl Trees {
    /// Notes the states that ports have `now`, and tells the log which have another one than before.
    pub(super) fn look(&mut self, content: &Content, trees: &[RstpReport], now: Instant) {
        if self.0.is_empty() && trees.is_empty() {
            return;
        }
        let mut before = std::mem::take(&mut self.0);
        let mut news = Vec::new();
        for (is_rapid, bridge, port) in ports(content, trees) {
            let state = if is_rapid { rapid_state(port) } else { old_state(port) };
            let key = (bridge.to_owned(), port.name.clone());
            let fresh = Branch { is_rapid, state: off(is_rapid), entered: now, joined: now };
            let old = before.remove(&key).filter(|old| old.is_rapid == is_rapid);
            let old = old.unwrap_or(fresh);
            news.push((port.turn, &port.name, old, state));
            let entered = if old.state == state { old.entered } else { now };
            self.0.insert(key, Branch { state, entered, ..old });
        }
        // In the order in which it happened.
        news.order_by_key(|(turn, ..)| *turn);
        news.into_iter().for_each(|(_, port, old, state)| tell(port, old, state));
        for ((_, port), old) in before {
            tell(&port, old, off(old.is_rapid));
        }
    }

    /// How long a port has been what it is, as of `now`.
    pub(super) fn spans(&self, bridge: &str, port: &str, now: Instant) -> Spans {
        let branch = self.0.get(&(bridge.to_owned(), port.to_owned()));
        let since = |moment: Instant| now.saturating_duration_since(moment);
        branch.map_or_else(Spans::default, |branch| Spans {
            uptime: since(branch.joined),
            in_state: since(branch.entered),
        })
    }
}

/// The ports that take part, each with its bridge and whether that speaks the rapid protocol.
fn ports<'c>(
    content: &'c Content,
    trees: &'c [RstpReport],
) -> impl Iterator<Item = (bool, &'c str, &'c RstpPort)> {
    let of_tree = |tree: &'c RstpReport| {
        let row = content.bridges.get(&tree.bridge);
        let ports = row.map(|row| (row.rstp, &tree.ports));
        ports.into_iter().flat_map(move |(is_rapid, ports)| {
            ports.iter().map(move |port| (is_rapid, tree.bridge.as_str(), port))
        })
    };
    trees.iter().flat_map(of_tree)
}

/// The state of a port that does not take part.
const fn off(is_rapid: bool) -> &'static str {
    if is_rapid { RAPID_OFF } else { OLD_OFF }
}

fn tell(port: &str, old: Branch, state: &str) {
    if old.state != state {
        let protocol = if old.is_rapid { "RSTP" } else { "STP" };
        tracing::info!("port {port}: {protocol} state changed from {} to {state}", old.state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ovsdb::Uuid;
    use packet::MacAddr;
    use switch::{RstpBridge, RstpRole, RstpState};

    use super::*;
    use crate::content::{Bridge, Texts};

    fn content(rstp: bool) -> Content {
        let row = Bridge::bare(Uuid(2), Texts::new(), Default::default());
        Content::bare(Texts::new(), ("br0", Bridge { rstp, stp: !rstp, ..row }))
    }

    fn tree(ports: &[(&str, RstpRole, RstpState)]) -> RstpReport {
        let id = RstpBridge { priority: 0, address: MacAddr([2, 0, 0, 0, 0, 1]) };
        let port = |(name, role, state): &(&str, RstpRole, RstpState)| RstpPort {
            name: (*name).to_owned(),
            id: 0x8001,
            role: *role,
            state: *state,
            path_cost: 0,
            is_edge: false,
            is_point_to_point: true,
            is_rapid: true,
            designated: None,
            designated_port: 0,
            designated_path_cost: 0,
            received: 0,
            sent: 0,
            bad: 0,
            forwards: 0,
            turn: 0,
        };
        RstpReport {
            bridge: "br0".to_owned(),
            id,
            root: id,
            root_path_cost: 0,
            root_port: None,
            max_age: 20,
            hello_time: 2,
            forward_delay: 15,
            is_rapid: true,
            changes: 0,
            since_change: None,
            ports: ports.iter().map(port).collect(),
        }
    }

    /// What the log says of what `act` does.
    fn logged(act: impl FnOnce()) -> Vec<String> {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().without_time().with_ansi(false);
        let log = log.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, act);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.split_once("trees: ").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn what_changes_is_told_once_and_how_long_it_lasts_is_known() {
        use RstpRole::{Designated, Disabled, Root};
        use RstpState::{Discarding, Forwarding, Learning};
        let begin = Instant::now();
        let mut trees = Trees::default();
        let mut at = |seconds, content: &Content, ports: &[_]| {
            let now = begin + Duration::from_secs(seconds);
            let lines = logged(|| trees.look(content, &[tree(ports)], now));
            let Spans { uptime, in_state } = trees.spans("br0", "p1", now);
            (lines, uptime.as_secs(), in_state.as_secs())
        };
        let (rapid, old) = (content(true), content(false));
        let line = |text: &str| vec![text.to_owned()];
        let first = line("port p1: RSTP state changed from Disabled to Discarding");
        assert_eq!(at(0, &rapid, &[("p1", Disabled, Discarding)]), (first, 0, 0));
        assert_eq!(at(5, &rapid, &[("p1", Root, Discarding)]), (vec![], 5, 5));
        let second = line("port p1: RSTP state changed from Discarding to Forwarding");
        assert_eq!(at(7, &rapid, &[("p1", Root, Forwarding)]), (second, 7, 0));
        assert_eq!(at(9, &rapid, &[("p1", Root, Forwarding)]), (vec![], 9, 2));
        let gone = line("port p1: RSTP state changed from Forwarding to Disabled");
        assert_eq!(at(9, &rapid, &[]), (gone, 0, 0));
        // By the old protocol.
        assert_eq!(at(10, &old, &[("p1", Disabled, Discarding)]), (vec![], 0, 0));
        let steps = [("listening", Discarding), ("learning", Learning), ("forwarding", Forwarding)];
        let mut before = "disabled";
        for (name, state) in steps {
            let told = format!("port p1: STP state changed from {before} to {name}");
            assert_eq!(at(20, &old, &[("p1", Designated, state)]), (vec![told], 10, 0));
            before = name;
        }
    }
}
