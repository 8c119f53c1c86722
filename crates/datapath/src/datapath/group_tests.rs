//! Groups of IGMP and MLD on the data path.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use ethdev::DropReason::{MulticastQuery, NoListener, RateLimited};

use super::tests::{BROADCAST, Bench, frame, station};
use crate::bridge::BridgeChange;
use crate::inlet::{Heard, Inlet, Pace};
use crate::port_set::PortSet;
use crate::snoop::message::tests::{query_frame, report};
use crate::snoop::message::{Message, parse};
use crate::snoop::stage::{LONGEST, Snoop};
use crate::snoop::view::{Ports, View};
use crate::vlan::PortVlan;
use crate::vlan::policy::Policy;

const GROUP: [u8; 4] = [239, 1, 2, 3];

/// What a bridge with four ports knows, and what it was told by hosts and routers.
struct Known {
    bench: Bench,
    heard: Receiver<Heard>,
    ports: Ports,
    members: BTreeSet<(u16, IpAddr, u16)>,
    routers: BTreeSet<(u16, u16)>,
}

impl Known {
    fn new(ports: Ports) -> Self {
        let (inlet, heard) = Inlet::by_port(LONGEST, 128, &Pace::of(1_000_000_000), || {});
        let (members, routers) = Default::default();
        let mut known = Self { bench: Bench::new(4), heard, ports, members, routers };
        let groups = Default::default();
        let snoop = Some(Box::new(Snoop { groups, inlet }));
        known.bench.change(0, BridgeChange::Snoop(snoop));
        known.tell();
        known
    }

    /// Has what was heard known to the data path.
    fn tell(&mut self) {
        for heard in self.heard.try_iter() {
            let (port, vlan) = (heard.port, heard.vlan);
            match parse(heard.bytes(), heard.is_whole) {
                Some(Message::Report(records)) => {
                    self.members.extend(records.map(|(group, _)| (vlan, group, port)));
                }
                Some(_) => drop(self.routers.insert((vlan, port))),
                None => panic!("what workers take for a message is none"),
            }
        }
        self.bench.change(0, BridgeChange::Groups(Arc::new(self.view())));
    }

    /// What workers are to know.
    fn view(&self) -> View {
        let mut view = View::new(&self.ports);
        let routers = |vlan| {
            let heard = self.routers.iter().filter(|(of, _)| *of == vlan);
            let heard: PortSet = heard.map(|(_, port)| *port).collect();
            heard.with(&self.ports.routers)
        };
        for (vlan, _) in &self.routers {
            view.set_routers(*vlan, &routers(*vlan));
        }
        let mut groups = BTreeMap::<_, Vec<u16>>::new();
        for (vlan, group, port) in &self.members {
            groups.entry((*vlan, *group)).or_default().push(*port);
        }
        for (key, members) in groups {
            let members: PortSet = members.into_iter().collect();
            view.set_group(key, &members.with(&routers(key.0)));
        }
        view
    }

    /// How many frames come out of each port.
    fn counts(&mut self, port: u16, frames: &[Vec<u8>]) -> [usize; 4] {
        let got = self.bench.send(port, frames);
        std::array::from_fn(|port| got[port].len())
    }
}

fn data(group: [u8; 4]) -> Vec<u8> {
    let [_, b, c, d] = group;
    let mut bytes = frame(0x0100_5E00_0000, station(7));
    (bytes[3], bytes[4], bytes[5]) = (b & 0x7F, c, d);
    bytes[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    (bytes[17], bytes[23]) = (46, 17);
    bytes[30..34].copy_from_slice(&group);
    bytes
}

#[test]
fn data_goes_to_members_and_routers_and_reports_to_routers() {
    let mut known = Known::new(Ports::default());
    assert_eq!(known.counts(3, &[data(GROUP)]), [1, 1, 1, 0], "nobody has reported yet");
    assert_eq!(known.counts(1, &[report(GROUP, true)]), [0; 4], "there is no router");
    assert_eq!(known.bench.dropped(NoListener), 1);
    known.tell();
    assert_eq!(known.counts(3, &[data(GROUP)]), [0, 1, 0, 0]);
    assert_eq!(known.counts(1, &[data(GROUP)]), [0; 4], "not back to where it comes from");
    assert_eq!(known.bench.dropped(NoListener), 2);
    assert_eq!(known.counts(0, &[query_frame([192, 0, 2, 1], [0; 4])]), [0, 1, 1, 1]);
    known.tell();
    assert_eq!(known.counts(3, &[data(GROUP)]), [1, 1, 0, 0]);
    assert_eq!(known.counts(2, &[report(GROUP, true)]), [1, 0, 0, 0]);
    known.tell();
    // Of one burst, each frame goes its own way: this is another group of the same address.
    let burst = [data(GROUP), data([239, 129, 2, 3]), frame(BROADCAST, station(7)), data(GROUP)];
    assert_eq!(known.counts(3, &burst), [4, 4, 4, 0]);
    let local = data([224, 0, 0, 251]);
    assert_eq!(known.counts(3, &[local, frame(station(1), station(7))]), [2, 2, 2, 0]);
}

#[test]
fn settings_of_ports_and_bridges_are_heeded() {
    let port = |port: u16| [port].into_iter().collect();
    let mut known = Known::new(Ports {
        flood: port(0),
        flood_reports: port(1),
        routers: port(2),
        without: port(3),
        keeps_unregistered: true,
    });
    assert_eq!(known.counts(3, &[data(GROUP)]), [1, 0, 1, 0]);
    assert_eq!(known.counts(3, &[report(GROUP, true)]), [0, 1, 1, 0]);
    assert_eq!(known.counts(3, &[query_frame([192, 0, 2, 1], [0; 4])]), [0; 4]);
    assert_eq!(known.bench.dropped(MulticastQuery), 1);
    known.tell();
    assert_eq!(known.counts(1, &[data(GROUP)]), [1, 0, 1, 1]);
    // Off again, all is as it was.
    known.bench.change(0, BridgeChange::Snoop(None));
    assert_eq!(known.counts(1, &[data(GROUP)]), [1, 0, 1, 1]);
    assert_eq!(known.counts(1, &[query_frame([192, 0, 2, 1], [0; 4])]), [1, 0, 1, 1]);
}

#[test]
fn groups_are_known_in_their_vlans() {
    let mut known = Known::new(Ports::default());
    for (port, tag) in [(1, 5), (2, 6)] {
        let vlan = PortVlan { tag: Some(tag), ..PortVlan::default() };
        known.bench.change(0, BridgeChange::SetVlan(port, Some(Arc::new(Policy::from(&vlan)))));
    }
    for port in [1, 2] {
        known.counts(port, &[report(GROUP, true)]);
    }
    known.tell();
    let tagged = |vlan, frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, vlan], &frame[12..]].concat();
    assert_eq!(known.counts(0, &[tagged(5, data(GROUP))]), [0, 1, 0, 0]);
    assert_eq!(known.counts(0, &[tagged(6, data(GROUP))]), [0, 0, 1, 0]);
    assert_eq!(known.counts(0, &[tagged(7, data(GROUP))]), [0, 0, 0, 1], "a trunk of all");
    assert_eq!(known.counts(0, &[tagged(5, report(GROUP, false))]), [0; 4]);
}

#[test]
fn too_many_reports_are_dropped_and_counted() {
    let routers = [0].into_iter().collect();
    let mut known = Known::new(Ports { routers, ..Ports::default() });
    let reports = |from| (from..from + 32).map(|group| report([239, 0, 0, group], true));
    assert_eq!(known.counts(1, &reports(0).collect::<Vec<_>>()), [32, 0, 0, 0]);
    assert_eq!(known.counts(1, &reports(32).collect::<Vec<_>>()), [0; 4]);
    assert_eq!(known.bench.dropped(RateLimited), 32);
    assert_eq!(known.counts(2, &reports(64).collect::<Vec<_>>()), [32, 0, 0, 0], "of each port");
    known.tell();
    assert_eq!(known.members.len(), 64);
}
