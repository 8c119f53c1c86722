//! What bridges, ports and bonds know by protocols: spanning tree, LLDP, IGMP and MLD, LACP.

use std::collections::BTreeSet;

use daemon::Daemon;
use export::Told;
use switch::{
    BondReport, GroupTotals, LldpReport, MemberReport, RstpPort, RstpReport, RstpRole, RstpState,
};

use super::family::{self, Family};
use super::text::{Number, Text};
use crate::rstp::{id, protocol};

/// A metric, and what it is of something.
type Figure<T> = (&'static Family, fn(&T) -> Number);

/// What a member of a bond can know of its partner (`switch::MemberLacp::state`).
const LACP_STATES: [&str; 4] = ["current", "expired", "defaulted", "disabled"];

/// Parts of a bond's traffic, which its members share.
const SHARES: f64 = 256.0;

/// All of it at one moment.
#[derive(Debug)]
pub struct Protocols {
    trees: Vec<RstpReport>,
    neighbours: Vec<LldpReport>,
    groups: Vec<GroupTotals>,
    bonds: Vec<BondReport>,
    told: Vec<Told>,
}

impl Protocols {
    /// What `daemon` knows by now.
    pub fn take(daemon: &Daemon) -> Self {
        let switch = daemon.switch();
        Self {
            trees: switch.rstp(),
            neighbours: switch.neighbours(),
            groups: switch.group_totals(),
            bonds: switch.bonds(),
            told: daemon.told(),
        }
    }

    /// Writes all of it.
    pub fn write(&self, text: &mut Text) {
        self.write_told(text);
        self.write_trees(text);
        self.write_tree_ports(text);
        self.write_neighbours(text);
        self.write_groups(text);
        self.write_bonds(text);
        self.write_members(text);
        self.write_lacp(text);
    }

    fn write_told(&self, text: &mut Text) {
        let mut samples = text.family(&family::EXPORT_RECORDS);
        for Told { bridge, protocol, tally } in &self.told {
            let outcomes = [("sent", tally.sent()), ("lost", tally.lost())];
            samples.add_each(&[bridge, protocol.name()], outcomes.into_iter());
        }
    }

    fn write_trees(&self, text: &mut Text) {
        let mut samples = text.family(&family::RSTP);
        for tree in &self.trees {
            let root_port = tree.root_port.as_deref().unwrap_or_default();
            let (own, root) = (id(tree.id), id(tree.root));
            samples.add(&[&tree.bridge, &own, &root, root_port, protocol(tree.is_rapid)], 1_u64);
        }
        let figures: [Figure<RstpReport>; 3] = [
            (&family::RSTP_IS_ROOT, |tree| (tree.id == tree.root).into()),
            (&family::RSTP_ROOT_COST, |tree| u64::from(tree.root_path_cost).into()),
            (&family::RSTP_CHANGES, |tree| tree.changes.into()),
        ];
        write_each(text, &self.trees.iter(), |tree| &tree.bridge, &figures);
    }

    fn write_tree_ports(&self, text: &mut Text) {
        let ports = || self.trees.iter().flat_map(|tree| &tree.ports);
        let mut roles = text.family(&family::RSTP_ROLE);
        for port in ports() {
            let each = RstpRole::ALL.map(|role| (role.name(), (role == port.role).into()));
            roles.add_each(&[&port.name], each.into_iter());
        }
        let mut states = text.family(&family::RSTP_STATE);
        for port in ports() {
            let each = RstpState::ALL.map(|state| (state.name(), (state == port.state).into()));
            states.add_each(&[&port.name], each.into_iter());
        }
        let figures: [Figure<RstpPort>; 2] = [
            (&family::RSTP_FORWARDS, |port| port.forwards.into()),
            (&family::RSTP_BAD, |port| port.bad.into()),
        ];
        write_each(text, &ports(), |port| &port.name, &figures);
        let frames = |port: &RstpPort| [("rx", port.received), ("tx", port.sent)];
        let mut samples = text.family(&family::RSTP_FRAMES);
        ports().for_each(|port| samples.add_each(&[&port.name], frames(port).into_iter()));
    }

    fn write_neighbours(&self, text: &mut Text) {
        let mut samples = text.family(&family::LLDP_NEIGHBOUR);
        for report in &self.neighbours {
            // What they call themselves is theirs, and a series may be there once only.
            let mut seen = BTreeSet::new();
            for neighbour in &report.neighbours {
                let ((chassis_type, chassis), (port_type, port)) =
                    (&neighbour.chassis, &neighbour.port);
                let name = neighbour.system_name.as_deref().unwrap_or_default();
                let labels = [&*report.port, *chassis_type, chassis, *port_type, port, name];
                if seen.insert(labels) {
                    samples.add(&labels, 1_u64);
                }
            }
        }
        let figures: [Figure<LldpReport>; 4] = [
            (&family::LLDP_NEIGHBOURS, |report| report.neighbours.len().into()),
            (&family::LLDP_AGED, |report| report.aged.into()),
            (&family::LLDP_BAD, |report| report.bad.into()),
            (&family::LLDP_IGNORED, |report| report.ignored.into()),
        ];
        write_each(text, &self.neighbours.iter(), |report| &report.port, &figures);
        let mut samples = text.family(&family::LLDP_FRAMES);
        for report in &self.neighbours {
            let frames = [("rx", report.received), ("tx", report.sent)];
            samples.add_each(&[&report.port], frames.into_iter());
        }
    }

    fn write_groups(&self, text: &mut Text) {
        let figures: [Figure<GroupTotals>; 9] = [
            (&family::MCAST_GROUPS, |bridge| bridge.groups.into()),
            (&family::MCAST_MAX, |bridge| bridge.limit.into()),
            (&family::MCAST_ROUTERS, |bridge| bridge.routers.into()),
            (&family::MCAST_JOINED, |bridge| bridge.counts.joined.into()),
            (&family::MCAST_LEFT, |bridge| bridge.counts.left.into()),
            (&family::MCAST_EXPIRED, |bridge| bridge.counts.expired.into()),
            (&family::MCAST_EVICTED, |bridge| bridge.counts.evicted.into()),
            (&family::MCAST_REFUSED, |bridge| bridge.counts.refused.into()),
            (&family::MCAST_BAD, |bridge| bridge.counts.bad.into()),
        ];
        write_each(text, &self.groups.iter(), |bridge| &bridge.bridge, &figures);
        let ports: [Figure<(String, usize)>; 1] =
            [(&family::MCAST_PORT_GROUPS, |(_, groups)| (*groups).into())];
        let all = self.groups.iter().flat_map(|bridge| &bridge.ports);
        write_each(text, &all, |(name, _)| name, &ports);
    }

    fn write_bonds(&self, text: &mut Text) {
        let mut samples = text.family(&family::BOND);
        for bond in &self.bonds {
            samples.add(&[&bond.name, &bond.bridge, &bond.bonding.mode.to_string()], 1_u64);
        }
        let figures: [Figure<BondReport>; 3] = [
            (&family::BOND_MEMBERS, |bond| bond.members.len().into()),
            (&family::BOND_CHANGES, |bond| bond.active_changes.into()),
            (&family::BOND_MOVED, |bond| bond.moved.into()),
        ];
        write_each(text, &self.bonds.iter(), |bond| &bond.name, &figures);
        let mut samples = text.family(&family::BOND_NEGOTIATED);
        for bond in &self.bonds {
            if let Some(lacp) = &bond.lacp {
                samples.add(&[&bond.name], lacp.is_negotiated);
            }
        }
    }

    /// The members of all bonds, with the names of those.
    fn members(&self) -> impl Iterator<Item = ([&str; 2], &MemberReport)> + Clone {
        self.bonds.iter().flat_map(|bond| {
            bond.members.iter().map(|member| ([&*bond.name, &*member.name], member))
        })
    }

    fn write_members(&self, text: &mut Text) {
        #[allow(clippy::cast_precision_loss, reason = "256 at most")]
        let figures: [Figure<MemberReport>; 5] = [
            (&family::BOND_LINK, |member| member.is_up.into()),
            (&family::BOND_ENABLED, |member| member.is_enabled.into()),
            (&family::BOND_ACTIVE, |member| member.is_active.into()),
            (&family::BOND_SHARE, |member| (member.share as f64 / SHARES).into()),
            (&family::BOND_FAILURES, |member| member.failures.into()),
        ];
        for (family, figure) in figures {
            let mut samples = text.family(family);
            self.members().for_each(|(labels, member)| samples.add(&labels, figure(member)));
        }
    }

    fn write_lacp(&self, text: &mut Text) {
        let members = self.members();
        let all = members.filter_map(|(labels, member)| Some((labels, member.lacp.as_ref()?)));
        let mut states = text.family(&family::BOND_LACP_STATE);
        for (labels, lacp) in all.clone() {
            let each = LACP_STATES.map(|state| (state, (state == lacp.state).into()));
            states.add_each(&labels, each.into_iter());
        }
        let mut samples = text.family(&family::BOND_LACP_IN_USE);
        all.clone().for_each(|(labels, lacp)| samples.add(&labels, lacp.is_in_use));
        let mut samples = text.family(&family::BOND_LACP_FRAMES);
        for (labels, lacp) in all.clone() {
            samples.add_each(&labels, [("rx", lacp.received), ("tx", lacp.sent)].into_iter());
        }
        let mut samples = text.family(&family::BOND_LACP_BAD);
        all.for_each(|(labels, lacp)| samples.add(&labels, lacp.bad));
    }
}

/// Figures of each of several things that one name tells apart.
fn write_each<'t, T: 't>(
    text: &mut Text,
    all: &(impl Iterator<Item = &'t T> + Clone),
    name: fn(&T) -> &String,
    figures: &[Figure<T>],
) {
    for (family, figure) in figures {
        let mut samples = text.family(family);
        all.clone().for_each(|one| samples.add(&[name(one)], figure(one)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use daemon::{Options, file};
    use export::Tally;
    use export::tally::Protocol;
    use switch::{LldpMode, Neighbour};

    use super::*;
    use crate::metrics::text::Format;

    fn page(protocols: &Protocols) -> Vec<String> {
        let mut text = Text::new(Format::OpenMetrics, 0);
        protocols.write(&mut text);
        let text = text.finish();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    const SWITCH: &str = r#"
        [rstp]
        enabled = true
        [mcast-snooping]
        enabled = true
        table-size = 7
        [ports.a]
        device = "null:"
        lldp = "both"
        [ports.up]
        device = "bond:"
        bonding.lacp = "active"
        [ports.m1]
        device = "null:"
        bond = "up"
        [ports.m2]
        device = "null:"
        bond = "up"
        enabled = false
    "#;

    #[test]
    fn a_switch_tells_of_all_its_protocols() {
        let state = file::parse(SWITCH).unwrap();
        let daemon = Daemon::start(state, Options::default()).unwrap();
        let protocols = Protocols::take(&daemon);
        let page = page(&protocols);
        for expected in [
            "ringway_rstp_is_root{bridge=\"default\"} 1",
            "ringway_rstp_port_role{port=\"a\",role=\"designated\"} 1",
            "ringway_rstp_port_role{port=\"a\",role=\"root\"} 0",
            "ringway_rstp_port_state{port=\"a\",state=\"discarding\"} 1",
            "ringway_rstp_port_bad_frames_total{port=\"a\"} 0",
            "ringway_lldp_neighbours{port=\"a\"} 0",
            "ringway_lldp_frames_total{port=\"a\",direction=\"rx\"} 0",
            "ringway_mcast_max_groups{bridge=\"default\"} 7",
            "ringway_mcast_groups{bridge=\"default\"} 0",
            "ringway_bond_info{bond=\"up\",bridge=\"default\",mode=\"active-backup\"} 1",
            "ringway_bond_members{bond=\"up\"} 2",
            "ringway_bond_lacp_negotiated{bond=\"up\"} 0",
            "ringway_bond_member_link_up{bond=\"up\",port=\"m1\"} 1",
            "ringway_bond_member_link_up{bond=\"up\",port=\"m2\"} 0",
            "ringway_bond_member_enabled{bond=\"up\",port=\"m2\"} 0",
            "ringway_bond_member_lacp_state{bond=\"up\",port=\"m2\",state=\"disabled\"} 1",
            "ringway_bond_member_lacp_in_use{bond=\"up\",port=\"m1\"} 0",
        ] {
            assert!(page.iter().any(|line| line == expected), "{expected}: {page:#?}");
        }
        let members = protocols.members().filter_map(|(_, member)| member.lacp);
        assert!(members.into_iter().all(|lacp| LACP_STATES.contains(&lacp.state)));
    }

    #[test]
    fn a_neighbour_has_one_line_whatever_it_calls_itself() {
        let neighbour = |name: &str| Neighbour {
            chassis: ("local", "a\"} 9\nringway_x 1".to_owned()),
            port: ("interface", "eth0".to_owned()),
            ttl: Duration::from_secs(120),
            left: Duration::from_secs(100),
            port_description: Some(name.to_owned()),
            system_name: None,
            system_description: None,
            capabilities: Vec::new(),
            addresses: Vec::new(),
        };
        let report = LldpReport {
            port: "a".to_owned(),
            mode: LldpMode::Receive,
            received: 3,
            sent: 0,
            bad: 1,
            ignored: 0,
            aged: 2,
            neighbours: vec![neighbour("one"), neighbour("other")],
        };
        let neighbours = vec![report];
        let (trees, groups, bonds) = (Vec::new(), Vec::new(), Vec::new());
        let told = Vec::new();
        let page = page(&Protocols { trees, neighbours, groups, bonds, told });
        let expected = [
            "ringway_lldp_neighbour_info{port=\"a\",chassis_id_type=\"local\",\
             chassis_id=\"a\\\"} 9\\nringway_x 1\",port_id_type=\"interface\",port_id=\"eth0\",\
             system_name=\"\"} 1",
            "ringway_lldp_neighbours{port=\"a\"} 2",
            "ringway_lldp_aged_neighbours_total{port=\"a\"} 2",
            "ringway_lldp_bad_frames_total{port=\"a\"} 1",
            "ringway_lldp_ignored_frames_total{port=\"a\"} 0",
            "ringway_lldp_frames_total{port=\"a\",direction=\"rx\"} 3",
            "ringway_lldp_frames_total{port=\"a\",direction=\"tx\"} 0",
        ];
        assert_eq!(page, expected);
    }

    #[test]
    fn what_has_become_of_what_collectors_are_told_is_told() {
        let tally = Tally::default();
        tally.add_sent(5);
        tally.add_lost(2);
        let told = vec![Told { bridge: "br0".to_owned(), protocol: Protocol::Sflow, tally }];
        let (trees, neighbours, groups, bonds) = Default::default();
        let page = page(&Protocols { trees, neighbours, groups, bonds, told });
        let line = |outcome: &str, count: u64| {
            format!(
                "ringway_export_records_total{{bridge=\"br0\",protocol=\"sflow\",outcome=\"{outcome}\"}} {count}"
            )
        };
        assert_eq!(page, [line("sent", 5), line("lost", 2)]);
    }
}
