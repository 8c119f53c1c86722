//! Groups of IGMP and MLD.

use std::fmt::Write as _;

use ordered::Order as _;
use ovs::unixctl::Answer;
use switch::GroupsReport;

use super::Appctl;

const OFF: &str = "multicast snooping is disabled";

/// Members of groups and routers of a bridge; those that have not been heard for longest come first.
pub fn show(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, ..] = arguments else { return Ok(String::new()) };
    appctl.check_bridge(bridge)?;
    let report = appctl.daemon.switch().groups().into_iter().find(|one| one.bridge == *bridge);
    let mut report = report.ok_or(OFF)?;
    report.groups.order_by_key(|group| std::cmp::Reverse(group.age));
    report.routers.order_by_key(|router| std::cmp::Reverse(router.age));
    Ok(describe(&report, |port| appctl.number(bridge, port)))
}

fn describe(report: &GroupsReport, number: impl Fn(&str) -> String) -> String {
    let mut text = " port  VLAN  GROUP                Age\n".to_owned();
    for group in &report.groups {
        let (port, age) = (number(&group.port), group.age);
        let _ = writeln!(text, "{port:>5}  {:>4}  {}         {age:>3}", group.vlan, group.group);
    }
    for router in &report.routers {
        let (port, vlan) = (number(&router.port), router.vlan.unwrap_or(0));
        let age = router.age.unwrap_or(0);
        let _ = writeln!(text, "{port:>5}  {vlan:>4}  querier             {age:>3}");
    }
    text
}

/// Forgets them, in one bridge or in all.
pub fn flush(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let switch = appctl.daemon.switch();
    match arguments {
        [] => {
            for report in switch.groups() {
                switch.flush_groups(&report.bridge);
            }
        }
        [bridge, ..] => {
            appctl.check_bridge(bridge)?;
            if !switch.flush_groups(bridge) {
                return Err(OFF.to_owned());
            }
        }
    }
    Ok("table successfully flushed".to_owned())
}

#[cfg(test)]
mod tests {
    use switch::{Group, GroupCounts, GroupRouter, McastSnooping};

    use super::*;

    #[test]
    fn members_and_routers_are_shown_by_the_numbers_of_their_ports() {
        let port = || "p1".to_owned();
        let report = GroupsReport {
            bridge: "br0".to_owned(),
            settings: McastSnooping::default(),
            groups: vec![Group { vlan: 5, group: [239, 1, 2, 3].into(), port: port(), age: 7 }],
            routers: vec![
                GroupRouter { vlan: Some(1725), port: port(), age: Some(0) },
                GroupRouter { vlan: None, port: port(), age: None },
            ],
            counts: GroupCounts::default(),
        };
        let expected = " port  VLAN  GROUP                Age\n\
            \x20   2     5  239.1.2.3           7\n\
            \x20   2  1725  querier               0\n\
            \x20   2     0  querier               0\n";
        assert_eq!(describe(&report, |_| "2".to_owned()), expected);
    }
}
