//! What has happened how often. What Open vSwitch counts, too, has its names; drops have ours, with
//! `drop_` before them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ethdev::{DropReason, Stats};
use ovs::unixctl::Answer;
use switch::{FdbReport, GroupCounts};

use super::Appctl;

/// Why rules have not let frames pass, and how Open vSwitch calls it.
const DROPS: [(DropReason, &str); 8] = [
    (DropReason::FlowDrop, "drop_action_of_pipeline"),
    (DropReason::NoFlow, "drop_action_of_pipeline"),
    (DropReason::FlowTooDeep, "drop_action_recursion_too_deep"),
    (DropReason::FlowTooLong, "drop_action_too_many_resubmit"),
    (DropReason::FlowStack, "drop_action_stack_too_deep"),
    (DropReason::FlowLabels, "drop_action_too_many_mpls_labels"),
    (DropReason::FlowPacketType, "drop_action_unsupported_packet_type"),
    (DropReason::FlowMeter, "datapath_drop_meter"),
];

/// Counters by name.
type Counters = BTreeMap<String, u64>;

/// All that are not zero, and how many are.
pub fn show(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    Ok(describe(&counters(appctl)))
}

/// One of them.
pub fn read(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [name, ..] = arguments else { return Ok(String::new()) };
    let value = counters(appctl).get(name).copied();
    value.map(|value| value.to_string()).ok_or_else(|| "No such counter".to_owned())
}

fn counters(appctl: &Appctl<'_>) -> Counters {
    let switch = appctl.daemon.switch();
    let mut all = Counters::new();
    for bridge in switch.bridges() {
        count_addresses(&mut all, &bridge.fdb);
    }
    // How often decisions about frames were made anew, since bridges were configured so.
    add(&mut all, "rev_reconfigure", appctl.agent.reconfigurations());
    count_groups(&mut all, &GroupCounts::default());
    for report in switch.groups() {
        count_groups(&mut all, &report.counts);
    }
    // Members of a bond are counted, and the bond, which has what they have, is not.
    let ports = switch.ports().into_iter().filter(|port| port.device != switch::BOND_DEVICE);
    for port in ports {
        let received = port.stats.rx_total();
        count_frames(&mut all, "rx", &received);
        // What rules have dropped, and what no rule was for.
        for (reason, name) in DROPS {
            add(&mut all, name, received.dropped_for(reason));
        }
        count_frames(&mut all, "tx", &port.stats.tx_total());
    }
    all
}

fn add(all: &mut Counters, name: &str, value: u64) {
    let sum = all.entry(name.to_owned()).or_default();
    *sum = sum.saturating_add(value);
}

fn count_addresses(all: &mut Counters, fdb: &FdbReport) {
    for (what, value) in [
        ("learned", fdb.learned),
        ("expired", fdb.expired),
        ("evicted", fdb.evicted),
        ("moved", fdb.moved),
        ("static_none_move", fdb.kept),
    ] {
        add(all, &format!("mac_learning_{what}"), value);
    }
}

fn count_groups(all: &mut Counters, counts: &GroupCounts) {
    add(all, "mcast_snooping_learned", counts.joined);
    add(all, "mcast_snooping_expired", counts.expired);
}

fn count_frames(all: &mut Counters, direction: &str, stats: &Stats) {
    add(all, &format!("{direction}_packets"), stats.packets);
    for reason in DropReason::ALL {
        add(all, &format!("drop_{}", reason.name()), stats.dropped_for(reason));
    }
}

fn describe(all: &Counters) -> String {
    let mut text = "Event coverage:\n".to_owned();
    let hit = all.iter().filter(|(_, value)| **value > 0);
    for (name, value) in hit {
        let _ = writeln!(text, "{name:<28} total: {value}");
    }
    let _ =
        writeln!(text, "{} events never hit", all.values().filter(|value| **value == 0).count());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_and_the_rest_is_counted() {
        let mut all = Counters::new();
        let fdb = FdbReport { learned: 3, ..FdbReport::default() };
        count_addresses(&mut all, &fdb);
        count_addresses(&mut all, &fdb);
        assert_eq!((all["mac_learning_learned"], all["mac_learning_moved"]), (6, 0));
        let expected =
            "Event coverage:\nmac_learning_learned         total: 6\n4 events never hit\n";
        assert_eq!(describe(&all), expected);
        count_frames(&mut all, "rx", &Stats { packets: 7, ..Stats::default() });
        assert_eq!((all["rx_packets"], all["drop_link_down"]), (7, 0));
    }
}
