//! Forwarding databases.

use std::fmt::Write as _;

use ordered::Order as _;
use ovs::unixctl::Answer;
use packet::MacAddr;
use switch::FdbEntry;

use super::Appctl;

/// The entries of a bridge; those that have not been seen for longest come first.
pub fn show(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, ..] = arguments else { return Ok(String::new()) };
    appctl.check_bridge(bridge)?;
    let mut text = " port  VLAN  MAC                Age\n".to_owned();
    let mut entries = entries(appctl, bridge);
    entries.order_by_key(|entry| std::cmp::Reverse(entry.age));
    for entry in entries {
        let port = appctl.number(bridge, &entry.port);
        let age = if entry.is_static { "static".to_owned() } else { entry.age.to_string() };
        let _ = writeln!(text, "{port:>5}  {:>4}  {}  {age:>3}", entry.vlan, entry.mac);
    }
    Ok(text)
}

fn entries(appctl: &Appctl<'_>, bridge: &str) -> Vec<FdbEntry> {
    let all = appctl.daemon.switch().fdb().into_iter();
    all.filter(|entry| entry.bridge == bridge).collect()
}

/// Forgets what was learnt, in one bridge or in all.
pub fn flush(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let switch = appctl.daemon.switch();
    let flushed = match arguments {
        [] => switch.fdb_flush(None),
        [bridge, ..] => {
            appctl.check_bridge(bridge)?;
            switch.fdb_flush_bridge(bridge)
        }
    };
    flushed.map_err(|error| error.to_string())?;
    Ok("table successfully flushed".to_owned())
}

/// The entry of an address, if there is one.
fn entry(
    appctl: &Appctl<'_>,
    (bridge, vlan, mac): (&str, &str, &str),
) -> Result<(u16, MacAddr, Option<FdbEntry>), String> {
    appctl.check_bridge(bridge)?;
    let vlan = vlan.parse().map_err(|_| "bad vlan".to_owned())?;
    let mac: MacAddr = mac.parse().map_err(|_| "bad MAC address".to_owned())?;
    let all = entries(appctl, bridge).into_iter();
    let found = all.into_iter().find(|entry| (entry.vlan, entry.mac) == (vlan, mac));
    Ok((vlan, mac, found))
}

/// Has an address be behind a port for good.
pub fn add(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, port, vlan, mac] = arguments else { return Ok(String::new()) };
    let (vlan, mac, before) = entry(appctl, (bridge, vlan, mac))?;
    if appctl.agent.number(bridge, port).is_none()
        && !appctl.daemon.state().ports.contains_key(port)
    {
        return Err("software error, odp port is present but no ofp port".to_owned());
    }
    let added = appctl.daemon.switch().fdb_add_static(mac, vlan, port);
    added.map_err(|error| error.to_string())?;
    let Some(before) = before.filter(|before| !before.is_static || before.port != *port) else {
        return Ok(String::new());
    };
    let kind = if before.is_static { "static" } else { "dynamic" };
    let number = appctl.number(bridge, &before.port);
    Ok(format!("Overriding already existing {kind} entry on {number}"))
}

/// Takes that back.
pub fn remove(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, vlan, mac] = arguments else { return Ok(String::new()) };
    let (vlan, mac, found) = entry(appctl, (bridge, vlan, mac))?;
    let found = found.filter(|entry| entry.is_static);
    let removed = found.map(|entry| {
        let removed = appctl.daemon.switch().fdb_remove_static(mac, vlan, &entry.port);
        removed.map_err(|error| error.to_string())
    });
    match removed.transpose()? {
        Some(true) => Ok(String::new()),
        _ => Err("could not find static mac entry".to_owned()),
    }
}

/// What was counted in a bridge.
pub fn stats(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, ..] = arguments else { return Ok(String::new()) };
    appctl.check_bridge(bridge)?;
    let report = appctl.daemon.switch().bridges().into_iter().find(|report| report.name == *bridge);
    let report = report.ok_or("no such bridge")?.fdb;
    let mut text = format!("Statistics for bridge \"{bridge}\":\n");
    for (name, value) in [
        (
            "Current/maximum MAC entries in the table",
            format!("{}/{}", report.entries, report.limit),
        ),
        ("Current static MAC entries in the table", report.statics.to_string()),
        ("Total number of learned MAC entries", report.learned.to_string()),
        ("Total number of expired MAC entries", report.expired.to_string()),
        ("Total number of evicted MAC entries", report.evicted.to_string()),
        ("Total number of port moved MAC entries", report.moved.to_string()),
    ] {
        let _ = writeln!(text, "  {name:<40}: {value}");
    }
    Ok(text)
}
