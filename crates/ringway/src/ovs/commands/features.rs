//! What the data path can, and all rules of a bridge.

use std::fmt::Write as _;

use flow::Rule;
use odp::Abilities;
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
    let line = |(title, name, can): &(&str, &str, Feature)| match now(appctl, name, *can) {
        Feature::Is(is) => format!("{title}: {}\n", if is { "Yes" } else { "No" }),
        Feature::Count(count) => format!("{title}: {count}\n"),
    };
    Ok(FEATURES.iter().map(line).collect())
}

/// What a data path is taken to be able to do, of that which it `can`.
fn now(appctl: &Appctl<'_>, name: &str, can: Feature) -> Feature {
    let Abilities { labels, cuts, clones, samples, lengths } = appctl.flows.abilities;
    match name {
        "tnl_push_pop" => Feature::Is(appctl.underlay.pushes()),
        "add_mpls" => Feature::Is(labels),
        "trunc" => Feature::Is(cuts),
        "clone" => Feature::Is(clones),
        "sample_nesting" => Feature::Count(samples),
        "check_pkt_len" => Feature::Is(lengths),
        _ => can,
    }
}

/// Has ways be told as those of a data path that cannot do something.
pub fn set(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, rest @ ..] = arguments else { return Ok(String::new()) };
    appctl.check_bridge(bridge)?;
    let [name, rest @ ..] = rest else {
        return Ok(FEATURES.iter().map(|feature| both(appctl, feature)).collect());
    };
    let feature = FEATURES.iter().find(|(_, known, _)| known == name);
    let feature = feature.ok_or("Unexpected support field")?;
    match rest {
        [value, ..] => switch(appctl, feature, value),
        [] => Ok(both(appctl, feature)),
    }
}

/// What a data path is taken to be able to do, and what it can.
fn both(appctl: &Appctl<'_>, &(title, name, can): &(&str, &str, Feature)) -> String {
    let shown = |feature| match feature {
        Feature::Is(is) => is.to_string(),
        Feature::Count(count) => count.to_string(),
    };
    let [run, boot] = [now(appctl, name, can), can].map(shown);
    format!("{name} ({title}) : [run time]:{run}, [boot time]:{boot}\n")
}

fn switch(appctl: &mut Appctl<'_>, feature: &(&str, &str, Feature), value: &str) -> Answer {
    let &(_, name, can) = feature;
    let can = wanted(can, value)?;
    if can == now(appctl, name, feature.2) {
        return Ok(String::new());
    }
    let mut abilities = appctl.flows.abilities;
    match (name, can) {
        // Without it, tunnels carry nothing.
        ("tnl_push_pop", Feature::Is(is)) if appctl.agent.dummies() != Dummies::None => {
            appctl.underlay.set_pushes(is);
            underlay::update(appctl);
            return Ok(String::new());
        }
        ("tnl_push_pop", _) => {
            return Err("tunnels would carry nothing: only there with --enable-dummy".to_owned());
        }
        ("add_mpls", Feature::Is(is)) => abilities.labels = is,
        ("trunc", Feature::Is(is)) => abilities.cuts = is,
        ("clone", Feature::Is(is)) => abilities.clones = is,
        ("check_pkt_len", Feature::Is(is)) => abilities.lengths = is,
        ("sample_nesting", Feature::Count(count)) => abilities.samples = count,
        _ => return Err(format!("{name} makes no difference here, and stays what it is")),
    }
    // What has come in until now was of flows that there are no more.
    flows::collect(appctl, false);
    appctl.flows.all().for_each(Flows::clear);
    appctl.flows.abilities = abilities;
    trace::renumber();
    Ok(String::new())
}

/// What a data path is to be taken to be able to do, which is no more than it `can`.
fn wanted(can: Feature, value: &str) -> Result<Feature, String> {
    match can {
        Feature::Is(can) => match value.to_ascii_lowercase().as_str() {
            "true" if can => Ok(Feature::Is(true)),
            "true" => Err("Can not enable features not supported by the datapath".to_owned()),
            "false" => Ok(Feature::Is(false)),
            _ => Err(format!("Boolean value expected, got {value}")),
        },
        Feature::Count(most) => match value.parse() {
            Ok(count) if count <= most => Ok(Feature::Count(count)),
            Ok(_) => Err(format!("Can not set value beyond the datapath capability, {most}")),
            Err(_) => Err(format!("Positive integer number expected, got {value}")),
        },
    }
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
    if let Some(flows) = &flows {
        let tables = &flows.pipeline.tables;
        tables.iter().chain(tables.hidden()).for_each(|rule| put_rule(&mut text, rule, now));
    }
    text += &super::bond::rules(appctl, bridge);
    Ok(text)
}

/// A rule in a line.
fn put_rule(text: &mut String, rule: &Rule, now: u64) {
    let (table, priority) = rule.shown_place();
    if table != 0 {
        let _ = write!(text, "table_id={table}, ");
    }
    let seconds = now.saturating_sub(rule.created) / 1_000;
    let (packets, bytes) = (rule.stats.packets(), rule.stats.bytes());
    let _ = write!(text, "duration={seconds}s, n_packets={packets}, n_bytes={bytes}, ");
    let matching = rule.matching.to_string();
    let comma = if matching.is_empty() { "" } else { "," };
    if priority != u32::from(DEFAULT_PRIORITY) {
        let _ = write!(text, "priority={priority}{comma}");
    }
    let _ = writeln!(text, "{matching},actions={}", rule.instructions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_switched_on_that_is_not_there() {
        use Feature::{Count, Is};
        assert_eq!(wanted(Is(true), "True"), Ok(Is(true)));
        assert_eq!(wanted(Is(true), "false"), Ok(Is(false)));
        assert_eq!(wanted(Count(10), "2"), Ok(Count(2)));
        for (can, value, why) in [
            (Is(false), "true", "not supported"),
            (Is(true), "2", "Boolean value expected, got 2"),
            (Count(10), "11", "beyond the datapath capability, 10"),
            (Count(10), "-1", "Positive integer number expected"),
            (Count(10), "999", "Positive integer number expected"),
        ] {
            assert!(wanted(can, value).unwrap_err().contains(why), "{value}");
        }
    }

    /// What can be switched off is in the table as what it is by itself.
    #[test]
    fn features_are_those_of_the_table() {
        let Abilities { labels, cuts, clones, samples, lengths } = Abilities::ALL;
        assert!(labels && cuts && clones && lengths);
        let of = |wanted: &str| FEATURES.iter().find(|(_, name, _)| *name == wanted).unwrap().2;
        for name in ["add_mpls", "trunc", "clone", "check_pkt_len", "tnl_push_pop"] {
            assert_eq!(of(name), Feature::Is(true), "{name}");
        }
        assert_eq!(of("sample_nesting"), Feature::Count(samples));
    }
}
