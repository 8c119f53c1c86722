//! Spanning tree: `rstp/show` and `stp/show` are of bridges that speak that protocol.

use std::fmt::Write as _;

use ovs::spanning::{old_role, old_state, rapid_role, rapid_state};
use ovs::unixctl::Answer;
use switch::{RstpBridge, RstpPort, RstpReport, RstpRole, RstpState};

use super::Appctl;

/// How the two protocols differ in what is told of them.
struct Words {
    is_rapid: bool,
    /// What a bridge is called that is not there.
    object: &'static str,
    /// The first characters of a bridge's priority, and of a table's head.
    priority: &'static str,
    cost: usize,
    role: fn(RstpRole) -> &'static str,
    state: fn(&RstpPort) -> &'static str,
}

const RAPID: Words = Words {
    is_rapid: true,
    object: "No such RSTP object",
    priority: "stp-priority    ",
    cost: 8,
    role: rapid_role,
    state: rapid_state,
};

const OLD: Words = Words {
    is_rapid: false,
    object: "no such stp object",
    priority: "stp-priority  ",
    cost: 5,
    role: old_role,
    state: old_state,
};

/// Bridges that speak the rapid protocol.
pub fn show(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    describe_all(appctl, arguments, &RAPID)
}

/// Bridges that speak the old one.
pub fn show_old(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    describe_all(appctl, arguments, &OLD)
}

/// Has bridges that speak the rapid protocol tell their neighbours that the topology has changed, and
/// forget what they have learnt.
pub fn change(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    change_all(appctl, arguments, &RAPID)
}

/// The same for those that speak the old one.
pub fn change_old(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    change_all(appctl, arguments, &OLD)
}

/// The protocol of spanning tree because of which a port sends nothing.
pub fn closed_by(appctl: &Appctl<'_>, bridge: &str, port: &str) -> Option<&'static str> {
    let tree = appctl.daemon.switch().rstp().into_iter().find(|tree| tree.bridge == bridge)?;
    let found = tree.ports.iter().find(|found| found.name == port)?;
    let row = appctl.agent.content()?.bridges.get(bridge)?;
    let protocol = if row.rstp { "RSTP" } else { "STP" };
    (found.state != RstpState::Forwarding).then_some(protocol)
}

/// The bridges that speak a protocol, or the one that is asked for.
fn trees(
    appctl: &Appctl<'_>,
    arguments: &[String],
    words: &Words,
) -> Result<Vec<RstpReport>, String> {
    let bridges = appctl.agent.content().map(|content| &content.bridges);
    let is_one = |tree: &RstpReport| {
        let row = bridges.and_then(|bridges| bridges.get(&tree.bridge));
        row.is_some_and(|row| row.rstp == words.is_rapid)
            && arguments.first().is_none_or(|name| *name == tree.bridge)
    };
    let trees: Vec<RstpReport> = appctl.daemon.switch().rstp().into_iter().filter(is_one).collect();
    if trees.is_empty() && !arguments.is_empty() {
        return Err(words.object.to_owned());
    }
    Ok(trees)
}

fn describe_all(appctl: &Appctl<'_>, arguments: &[String], words: &Words) -> Answer {
    let trees = trees(appctl, arguments, words)?;
    Ok(trees.iter().map(|tree| describe(tree, words)).collect())
}

fn change_all(appctl: &Appctl<'_>, arguments: &[String], words: &Words) -> Answer {
    for tree in trees(appctl, arguments, words)? {
        appctl.daemon.switch().rstp_change(&tree.bridge);
    }
    Ok("OK".to_owned())
}

fn describe(tree: &RstpReport, words: &Words) -> String {
    let mut text =
        format!("---- {} ----\nRoot ID:\n{}", tree.bridge, known(tree.root, tree, words));
    match &tree.root_port {
        None => text += "  This bridge is the root\n",
        Some(port) => {
            let _ = writeln!(text, "  root-port       {port}");
            let _ = writeln!(text, "  root-path-cost  {}", tree.root_path_cost);
        }
    }
    let _ = writeln!(text, "\nBridge ID:\n{}", known(tree.id, tree, words));
    let cost = words.cost;
    let _ = writeln!(
        text,
        "  {:<11}{:<11}{:<11}{:<width$} {:<8}",
        "Interface",
        "Role",
        "State",
        "Cost",
        "Pri.Nbr",
        width = cost
    );
    let line = "-".repeat(10);
    let _ = writeln!(text, "  {line} {line} {line} {} -------", "-".repeat(cost));
    for port in tree.ports.iter().filter(|port| port.role != RstpRole::Disabled) {
        let name: String = port.name.chars().take(10).collect();
        let (role, state) = ((words.role)(port.role), (words.state)(port));
        let (priority, number) = (port.id >> 8, port.id & 0xFF);
        let path_cost = port.path_cost;
        let _ = writeln!(
            text,
            "  {name:<11}{role:<11}{state:<11}{path_cost:<cost$} {priority}.{number}"
        );
    }
    text.push('\n');
    text
}

/// A bridge with the times of the tree, which its root decides.
fn known(bridge: RstpBridge, tree: &RstpReport, words: &Words) -> String {
    format!(
        "  {}{}\n  stp-system-id   {}\n  stp-hello-time  {}s\n  stp-max-age     {}s\n  \
         stp-fwd-delay   {}s\n",
        words.priority,
        bridge.priority,
        bridge.address,
        tree.hello_time,
        tree.max_age,
        tree.forward_delay
    )
}

#[cfg(test)]
mod tests {
    use packet::MacAddr;

    use super::*;

    #[test]
    fn trees_look_as_open_vswitch_shows_them() {
        let bridge =
            |last, priority| RstpBridge { priority, address: MacAddr([0, 0, 0, 0, 0, last]) };
        let port = RstpPort {
            name: "a-long-name-of-a-port".to_owned(),
            id: 0x8001,
            role: RstpRole::Root,
            state: RstpState::Discarding,
            path_cost: 200_000,
            is_edge: false,
            is_point_to_point: true,
            is_rapid: true,
            designated: Some(bridge(1, 4096)),
            designated_port: 0x8002,
            designated_path_cost: 0,
            received: 0,
            sent: 0,
            bad: 0,
            forwards: 0,
            turn: 0,
        };
        let tree = RstpReport {
            bridge: "br0".to_owned(),
            id: bridge(2, 32768),
            root: bridge(1, 4096),
            root_path_cost: 200_000,
            root_port: Some("p1".to_owned()),
            max_age: 20,
            hello_time: 2,
            forward_delay: 15,
            is_rapid: true,
            changes: 0,
            since_change: None,
            ports: vec![port],
        };
        let rapid = describe(&tree, &RAPID);
        let expected = "---- br0 ----\n\
            Root ID:\n\
            \x20 stp-priority    4096\n\
            \x20 stp-system-id   00:00:00:00:00:01\n\
            \x20 stp-hello-time  2s\n\
            \x20 stp-max-age     20s\n\
            \x20 stp-fwd-delay   15s\n\
            \x20 root-port       p1\n\
            \x20 root-path-cost  200000\n\
            \n\
            Bridge ID:\n\
            \x20 stp-priority    32768\n\
            \x20 stp-system-id   00:00:00:00:00:02\n\
            \x20 stp-hello-time  2s\n\
            \x20 stp-max-age     20s\n\
            \x20 stp-fwd-delay   15s\n\
            \n\
            \x20 Interface  Role       State      Cost     Pri.Nbr \n\
            \x20 ---------- ---------- ---------- -------- -------\n\
            \x20 a-long-nam Root       Discarding 200000   128.1\n\n";
        assert_eq!(rapid, expected);
        let old = describe(&RstpReport { root_port: None, ..tree }, &OLD);
        for line in [
            "  stp-priority  4096\n",
            "  This bridge is the root\n",
            "  Interface  Role       State      Cost  Pri.Nbr \n",
            "  ---------- ---------- ---------- ----- -------\n",
            "  a-long-nam root       listening  200000 128.1\n",
        ] {
            assert!(old.contains(line), "{old}");
        }
    }
}
