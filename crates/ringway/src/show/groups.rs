//! `ringway show groups`.

use ethdev::hint;

use crate::control::protocol::{Group, GroupBridge, GroupRouter, Groups};
use crate::exit::Failure;
use crate::table::{Align, Cell, Table, Tone, count, paragraph, seconds};

/// What is known of groups in all bridges that look at them, or in one.
pub fn show_groups(
    mut answer: Groups,
    bridge: Option<&str>,
    colour: bool,
) -> Result<String, Failure> {
    if answer.bridges.is_empty() {
        return Ok(paragraph(
            "no bridge looks at groups: 'ringway bridge set default --mcast-snooping on' has the \
             default one do so",
        ));
    }
    if let Some(name) = bridge {
        let names: Vec<&str> = answer.bridges.iter().map(|bridge| bridge.name.as_str()).collect();
        if !names.contains(&name) {
            let hint = hint(name, names.iter().copied());
            return Err(Failure::runtime(format!(
                "no bridge '{name}' looks at groups{hint} (those that do: {})",
                names.join(", ")
            )));
        }
        answer.bridges.retain(|bridge| bridge.name == name);
        answer.groups.retain(|group| group.bridge == name);
        answer.routers.retain(|router| router.bridge == name);
    }
    // Where there is but one bridge, nobody wants to read its name in each line.
    let several = answer.bridges.len() > 1;
    let mut text = table(&answer, several, colour);
    for bridge in &answer.bridges {
        text.push_str(&figures(bridge, &answer, several));
    }
    Ok(text)
}

fn table(answer: &Groups, several: bool, colour: bool) -> String {
    let bridge = several.then_some(("bridge", Align::Left));
    let columns = [
        ("vlan", Align::Right),
        ("group", Align::Left),
        ("age", Align::Right),
        ("port", Align::Left),
    ];
    let columns: Vec<_> = bridge.into_iter().chain(columns).collect();
    let mut table = Table::new(&columns);
    for router in &answer.routers {
        table.row(router_row(router, several));
    }
    let mut before: Option<&Group> = None;
    for group in &answer.groups {
        let is_same = before.is_some_and(|before| {
            (&before.bridge, before.vlan, before.group) == (&group.bridge, group.vlan, group.group)
        });
        before = Some(group);
        let name = several.then(|| Cell::from(if is_same { "" } else { group.bridge.as_str() }));
        let (vlan, address) = match is_same {
            true => (String::new(), String::new()),
            false => (group.vlan.to_string(), group.group.to_string()),
        };
        let rest = [vlan.into(), address.into(), seconds(group.age_seconds).into()];
        let rest = rest.into_iter().chain([Cell::from(group.port.as_str())]);
        table.row(name.into_iter().chain(rest).collect());
    }
    if table.is_empty() { String::new() } else { table.render(colour) }
}

fn router_row(router: &GroupRouter, several: bool) -> Vec<Cell> {
    let age = match router.age_seconds {
        Some(age) => Cell::from(seconds(age)),
        None => Cell::toned("set", Tone::Faint),
    };
    let vlan = router.vlan.map_or_else(|| "all".to_owned(), |vlan| vlan.to_string());
    let name = several.then(|| Cell::from(router.bridge.as_str()));
    let rest = [vlan.into(), Cell::toned("router", Tone::Good), age, router.port.as_str().into()];
    name.into_iter().chain(rest).collect()
}

/// How many groups a bridge has, and what became of them.
fn figures(bridge: &GroupBridge, answer: &Groups, several: bool) -> String {
    let of = if several { format!("{}: ", bridge.name) } else { String::new() };
    let own = answer.groups.iter().filter(|group| group.bridge == bridge.name);
    let mut all: Vec<_> = own.map(|group| (group.vlan, group.group)).collect();
    all.dedup();
    let seldom = [("evicted", bridge.evicted), ("refused", bridge.refused), ("bad", bridge.bad)];
    let seldom = seldom.iter().filter(|(_, value)| *value > 0);
    let seldom: String =
        seldom.map(|(name, value)| format!(", {name} {}", count(*value))).collect();
    let rest = if bridge.flood_unregistered { "to all ports" } else { "to routers alone" };
    paragraph(&format!(
        "{of}{} of {} groups; joined {}, left {}, expired {}{seldom}; others go {rest}{}",
        count(all.len() as u64),
        count(bridge.limit as u64),
        count(bridge.joined),
        count(bridge.left),
        count(bridge.expired),
        if bridge.querier { ", querier" } else { "" },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str) -> GroupBridge {
        GroupBridge {
            name: name.to_owned(),
            limit: 2_048,
            ageing_seconds: 300,
            flood_unregistered: true,
            querier: true,
            joined: 3,
            left: 0,
            expired: 1,
            evicted: 0,
            refused: 2,
            bad: 0,
        }
    }

    fn group(bridge: &str, vlan: u16, group: &str, port: &str) -> Group {
        let (bridge, port) = (bridge.to_owned(), port.to_owned());
        Group { bridge, vlan, group: group.parse().unwrap(), port, age_seconds: 75 }
    }

    #[test]
    fn groups_are_shown_by_their_members() {
        let none = Groups { bridges: Vec::new(), groups: Vec::new(), routers: Vec::new() };
        assert!(show_groups(none, None, false).unwrap().contains("--mcast-snooping on"));
        let router = |vlan, age_seconds| GroupRouter {
            bridge: "default".to_owned(),
            vlan,
            port: "uplink".to_owned(),
            age_seconds,
        };
        let mut answer = Groups {
            bridges: vec![bridge("default")],
            groups: vec![
                group("default", 5, "239.1.2.3", "vm1"),
                group("default", 5, "239.1.2.3", "vm2"),
                group("default", 5, "ff02::1:ff00:7", "vm2"),
            ],
            routers: vec![router(None, None), router(Some(5), Some(1))],
        };
        let text = show_groups(answer.clone(), None, false).unwrap();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["all", "router", "set", "uplink"], "{text}");
        assert_eq!(lines[2], ["5", "router", "1s", "uplink"], "{text}");
        assert_eq!(lines[3], ["5", "239.1.2.3", "1m15s", "vm1"], "{text}");
        assert_eq!(lines[4], ["1m15s", "vm2"], "{text}");
        assert_eq!(lines[5][1], "ff02::1:ff00:7", "{text}");
        let last = "2 of 2,048 groups; joined 3, left 0, expired 1, refused 2; others go to all \
                    ports, querier";
        assert_eq!(lines[6..].concat().join(" "), last, "{text}");
        answer.bridges.push(bridge("red"));
        answer.groups.push(group("red", 0, "239.9.9.9", "vm9"));
        let text = show_groups(answer.clone(), None, false).unwrap();
        assert!(text.contains("red: 1 of 2,048 groups"), "{text}");
        let text = show_groups(answer.clone(), Some("red"), false).unwrap();
        assert!(text.contains("239.9.9.9") && !text.contains("239.1.2.3"), "{text}");
        let error = show_groups(answer, Some("rad"), false).unwrap_err().to_string();
        assert!(error.contains("did you mean 'red'?"), "{error}");
    }
}
