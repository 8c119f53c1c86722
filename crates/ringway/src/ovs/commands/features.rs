//! What the data path can, and all rules of a bridge.

use std::fmt::Write as _;

use odp::flows::Flows;
use openflow::message::flow_mod::DEFAULT_PRIORITY;
use ovs::features::{FEATURES, Feature};
use ovs::unixctl::Answer;

use ovs::device::Dummies;

use super::super::{flows, underlay};
use super::{Appctl, trace};

/// What the data path of a bridge can.
pub fn show(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    if let Some(bridge) = arguments.last() {
        appctl.check_bridge(bridge)?;
    }
    let line = |(name, _, feature): &(&str, &str, Feature)| match feature {
        Feature::Is(is) => format!("{name}: {}\n", if *is { "Yes" } else { "No" }),
        Feature::Count(count) => format!("{name}: {count}\n"),
    };
    Ok(FEATURES.iter().map(line).collect())
}

/// Has the data path of a bridge be unable to do something: for tests.
pub fn set(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, rest @ ..] = arguments else { return Ok(String::new()) };
    appctl.check_bridge(bridge)?;
    if appctl.agent.dummies() == Dummies::None {
        return Err("only there with --enable-dummy, for tests".to_owned());
    }
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (feature, can) = match words.as_slice() {
        [feature @ ("tnl_push_pop" | "add_mpls"), value] => match *value {
            "true" => (*feature, true),
            "false" => (*feature, false),
            value => return Err(format!("Boolean value expected, got {value}")),
        },
        _ => return Err("expected tnl_push_pop or add_mpls, and true or false".to_owned()),
    };
    if feature == "tnl_push_pop" {
        appctl.underlay.set_pushes(can);
        underlay::update(appctl);
        return Ok(String::new());
    }
    // What has come in until now was of flows that there are no more.
    flows::collect(appctl, false);
    appctl.flows.all().for_each(Flows::clear);
    appctl.underlay.set_adds_labels(can);
    trace::renumber();
    Ok(String::new())
}

/// All rules of a bridge, with those that no controller made.
pub fn dump_rules(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let Some(bridge) = arguments.last() else { return Ok(String::new()) };
    appctl.check_bridge(bridge)?;
    let switch = appctl.daemon.switch();
    switch.flush_flows();
    let now = switch.flow_time();
    let flows = switch.flows(bridge).map_err(|error| error.to_string())?;
    let mut text = String::new();
    for rule in flows.iter().flat_map(|flows| flows.pipeline.tables.iter()) {
        if rule.table != 0 {
            let _ = write!(text, "table_id={}, ", rule.table);
        }
        let seconds = now.saturating_sub(rule.created) / 1_000;
        let (packets, bytes) = (rule.stats.packets(), rule.stats.bytes());
        let _ = write!(text, "duration={seconds}s, n_packets={packets}, n_bytes={bytes}, ");
        let matching = rule.matching.to_string();
        let comma = if matching.is_empty() { "" } else { "," };
        if rule.priority != DEFAULT_PRIORITY {
            let _ = write!(text, "priority={}{comma}", rule.priority);
        }
        let _ = writeln!(text, "{matching},actions={}", rule.instructions);
    }
    text += &super::bond::rules(appctl, bridge);
    Ok(text)
}
