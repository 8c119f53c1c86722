//! What the database is told: all that is different from what it has.

use std::os::fd::OwnedFd;

use daemon::Daemon;
use litemap::LiteMap;
use ordered::Gather as _;
use ovsdb::{Cache, Transaction, Uuid};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use switch::{BfdReport, BondReport, CfmReport, MirrorReport, PortReport, RstpReport};

use super::{Agent, Spans};
use crate::content::{Bridge, Content};
use crate::desired::RESERVED;
use crate::mirror;
use crate::report::{self, Column};
use crate::spanning::{self, is_same_status};
use crate::watch;

/// The switch at one moment.
struct Seen<'d> {
    ports: LiteMap<String, PortReport>,
    bonds: Vec<BondReport>,
    /// Those that speak LACP, and ports that do so by themselves.
    lacp: Vec<BondReport>,
    trees: Vec<RstpReport>,
    mirrors: Vec<MirrorReport>,
    /// Why ports are not open, by their names.
    waiting: LiteMap<&'d str, &'d str>,
    /// How links are watched, by the ports' names.
    cfm: LiteMap<String, CfmReport>,
    bfd: LiteMap<String, BfdReport>,
}

impl<'d> Seen<'d> {
    fn of(daemon: &'d Daemon) -> Self {
        let switch = daemon.switch();
        let ports = switch.ports().into_iter().map(|port| (port.name.clone(), port));
        Self {
            ports: ports.gather(),
            bonds: switch.bonds(),
            lacp: switch.lacp(),
            trees: switch.rstp(),
            mirrors: switch.mirrors(),
            waiting: daemon.waiting().gather(),
            cfm: switch.cfm().into_iter().gather(),
            bfd: switch.bfd().into_iter().gather(),
        }
    }
}

/// What is to be written.
struct News<'c> {
    cache: &'c Cache,
    transaction: Transaction,
    /// With statistics.
    counts: bool,
}

impl News<'_> {
    fn write(&mut self, table: &str, row: Uuid, columns: Vec<Column>) {
        report::write(&mut self.transaction, self.cache, table, row, columns);
    }
}

impl Agent {
    /// Writes what is different from what the database has; with statistics, if `counts`.
    pub(super) fn report(&mut self, daemon: &Daemon, counts: bool) {
        let Some(content) = &self.content else { return };
        let seen = Seen::of(daemon);
        let cache = self.client.cache();
        let mut news = News { cache, transaction: Transaction::default(), counts };
        let mut root = report::root_columns(env!("CARGO_PKG_VERSION"), self.settings.dummies);
        root.push(report::taken(content.next_cfg));
        news.write("Open_vSwitch", content.root, root);
        let now = self.settings.time.now();
        let spans = |bridge: &str, port: &str| self.trees.spans(bridge, port, now);
        for (name, bridge) in &content.bridges {
            report_bridge(&mut news, &seen, (name, bridge), spans);
        }
        self.report_interfaces(&mut news, &seen, content);
        for (row, columns) in self.controllers.columns(content) {
            news.write("Controller", row, columns);
        }
        for (row, columns) in content.zones.columns() {
            news.write("Datapath", row, columns);
        }
        if counts {
            self.report_mirrors(&mut news, &seen, content);
        }
        if !news.transaction.is_empty() {
            self.under_way = self.client.transact(news.transaction).ok();
        }
    }

    fn report_interfaces(&self, news: &mut News<'_>, seen: &Seen<'_>, content: &Content) {
        let index = Index::new();
        let members = || seen.lacp.iter().flat_map(|bond| &bond.members);
        for (bridge, _, name, interface) in content.interfaces() {
            let problem = self.problems.get(&interface.row).map(String::as_str);
            // That is for the log, as with Open vSwitch.
            let problem = problem.filter(|why| *why != RESERVED);
            let problem = problem.or_else(|| seen.waiting.get(name).copied());
            let open = seen.ports.get(name);
            let number = self.number(bridge, name);
            let mut columns = report::interface_columns(name, number, open, problem);
            // Others have none, and are not asked for twice a second.
            let is_of_host = matches!(interface.kind.as_str(), "" | "system" | "internal" | "tap");
            let index = open.filter(|_| is_of_host).and_then(|_| index.of(name));
            let member = members().find(|member| member.name == name);
            let lacp = member.and_then(|member| member.lacp);
            columns.extend(report::host_columns(index, lacp));
            columns.extend(open.filter(|_| news.counts).map(report::statistics));
            columns.extend(watch::cfm_columns(seen.cfm.get(name)));
            columns.push(watch::bfd_status(seen.bfd.get(name)));
            news.write("Interface", interface.row, columns);
        }
    }

    fn report_mirrors(&self, news: &mut News<'_>, seen: &Seen<'_>, content: &Content) {
        for row in content.bridges.values().flat_map(|bridge| bridge.mirrors.values()) {
            let name = self.mirrors.get(&row.row);
            let of = |name: &String| seen.mirrors.iter().find(|mirror| mirror.name == *name);
            if let Some(mirror) = name.and_then(of) {
                news.write("Mirror", row.row, report::mirror_columns(mirror));
            }
        }
    }
}

fn report_bridge(
    news: &mut News<'_>,
    seen: &Seen<'_>,
    (name, bridge): (&str, &Bridge),
    spans: impl Fn(&str, &str) -> Spans,
) {
    let tree = seen.trees.iter().find(|tree| tree.bridge == *name);
    let mut columns = report::bridge_columns(bridge);
    columns.extend(spanning::bridge_columns(bridge, tree));
    news.write("Bridge", bridge.row, columns);
    let names = mirror::port_names(bridge);
    for (port_name, port) in &bridge.ports {
        let branch = names
            .get(&port.row)
            .and_then(|name| tree?.ports.iter().find(|port| port.name == *name));
        let spans = branch.map_or_else(Spans::default, |branch| spans(name, &branch.name));
        let mut columns = spanning::port_columns(bridge, branch, spans, news.counts);
        // That time goes on is told with the counters.
        let row = news.cache.row("Port", port.row).filter(|_| !news.counts);
        let is_told = |column: &Column| {
            let had = row.map(|row| row.get(column.0));
            column.0 == "status" && had.is_some_and(|had| is_same_status(had, &column.1))
        };
        columns.retain(|column| !is_told(column));
        if port.interfaces.len() > 1 {
            let bond = seen.bonds.iter().find(|bond| bond.name == *port_name);
            let active = bond.and_then(|bond| seen.ports.get(bond.active.as_ref()?));
            columns.push(report::active_member(active));
        }
        news.write("Port", port.row, columns);
    }
}

/// The numbers that the system has for its interfaces.
struct Index(Option<OwnedFd>);

impl Index {
    fn new() -> Self {
        // Any socket will do.
        let kind = (AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC);
        Self(socket_with(kind.0, kind.1, kind.2, None).ok())
    }

    fn of(&self, name: &str) -> Option<u32> {
        netdevice::name_to_index(self.0.as_ref()?, name).ok()
    }

    fn name(&self, number: u32) -> Option<String> {
        netdevice::index_to_name(self.0.as_ref()?, number).ok()
    }
}

/// The number that the system has for the interface of this name.
#[must_use]
pub fn interface_index(name: &str) -> Option<u32> {
    Index::new().of(name)
}

/// The names that the system has for interfaces of these numbers, with their numbers.
pub fn interface_names(
    numbers: impl IntoIterator<Item = u32>,
) -> impl Iterator<Item = (u32, String)> {
    let index = Index::new();
    numbers.into_iter().filter_map(move |number| Some((number, index.name(number)?)))
}

/// Whether the system has an interface of this name.
pub(super) fn exists(name: &str) -> bool {
    Index::new().of(name).is_some()
}
