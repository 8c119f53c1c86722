//! vDPA devices as tables and JSON.

use std::collections::BTreeMap;

use daemon::hub::{Hub, Report};
use ordered::Gather as _;
use serde_json::{Value, json};
use vdpa::{Found, State, Status};
use virtio::Features;

use crate::control::protocol::VdpaDevice;
use crate::table::{Align, Cell, Table, Tone, count, paragraph};

/// The names of feature bits, in lower case; a bit without a name is left out.
pub fn feature_names(bits: u64) -> Vec<String> {
    let known = Features::from_bits_truncate(bits);
    known.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect()
}

/// The devices that are attached to sockets.
pub fn devices(hub: &Hub) -> Vec<VdpaDevice> {
    hub.report().into_iter().map(device).collect()
}

fn device(report: Report) -> VdpaDevice {
    let Report { name, device, queue_pairs, offered_features, status } = report;
    let Status { state, rings, mapped_doorbells, features, statistics } = status;
    let (state, reason) = match state {
        State::Waiting => ("waiting", None),
        State::Connected => ("connected", None),
        State::Running => ("running", None),
        State::Failed(reason) => ("failed", Some(reason)),
        State::Busy => ("busy", Some("the device has not answered for a while".to_owned())),
    };
    let statistics = statistics.into_iter().map(|statistic| (statistic.name, statistic.value));
    VdpaDevice {
        name,
        device: device.device,
        socket: device.socket.display().to_string(),
        role: if device.client { "client" } else { "server" }.to_owned(),
        state: state.to_owned(),
        reason,
        queue_pairs,
        rings,
        mapped_doorbells,
        offered_features: feature_names(offered_features),
        features: feature_names(features),
        statistics: statistics.gather(),
    }
}

/// The devices of this machine, in JSON.
pub fn found_json(found: &[Found]) -> Value {
    let device = |found: &Found| {
        json!({
            "device": found.device,
            "description": found.description,
            "queue_pairs": found.queue_pairs,
            "features": found.features.map(feature_names),
            "obstacle": found.obstacle,
        })
    };
    json!({ "devices": found.iter().map(device).collect::<Vec<_>>() })
}

/// The devices of this machine, and those that are attached.
pub fn list(found: &[Found], attached: &[VdpaDevice], colour: bool) -> String {
    if found.is_empty() && attached.is_empty() {
        return "no vDPA devices; docs/vdpa.md tells what can be one\n".to_owned();
    }
    let mut table = Table::new(&[
        ("device", Align::Left),
        ("queues", Align::Right),
        ("state", Align::Left),
        ("what", Align::Left),
    ]);
    let dash = || Cell::toned("-", Tone::Faint);
    let mut notes = String::new();
    let is_attached = |found: &Found| attached.iter().any(|device| device.device == found.device);
    for device in attached {
        let what = found.iter().find(|found| found.device == device.device);
        table.row(vec![
            device.device.as_str().into(),
            device.queue_pairs.to_string().into(),
            state_cell(device),
            what.map_or_else(|| device.socket.clone(), |found| found.description.clone()).into(),
        ]);
        notes.push_str(&note(&device.device, "features", &device.offered_features));
    }
    for device in found.iter().filter(|found| !is_attached(found)) {
        let state = match &device.obstacle {
            None => Cell::toned("free", Tone::Good),
            Some(_) => Cell::toned("cannot be used", Tone::Bad),
        };
        table.row(vec![
            device.device.as_str().into(),
            device.queue_pairs.map_or_else(dash, |pairs| pairs.to_string().into()),
            state,
            device.description.as_str().into(),
        ]);
        if let Some(features) = device.features {
            notes.push_str(&note(&device.device, "features", &feature_names(features)));
        }
        if let Some(obstacle) = &device.obstacle {
            notes.push_str(&paragraph(&format!("{}: {obstacle}", device.device)));
        }
    }
    table.render(colour) + &notes
}

/// The devices that are attached.
pub fn attached(devices: &[VdpaDevice], colour: bool) -> String {
    if devices.is_empty() {
        return "no vDPA devices; 'ringway port add NAME=vdpa:DEVICE,socket=PATH' adds one\n"
            .to_owned();
    }
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("state", Align::Left),
        ("queues", Align::Right),
        ("rings", Align::Right),
        ("doorbells", Align::Right),
        ("socket", Align::Left),
        ("device", Align::Left),
    ]);
    for device in devices {
        table.row(vec![
            device.name.as_str().into(),
            state_cell(device),
            device.queue_pairs.to_string().into(),
            device.rings.len().to_string().into(),
            device.mapped_doorbells.len().to_string().into(),
            device.socket.as_str().into(),
            device.device.as_str().into(),
        ]);
    }
    let mut text = table.render(colour);
    for device in devices {
        if let Some(reason) = &device.reason {
            text.push_str(&paragraph(&format!("{}: {reason}", device.name)));
        }
        text.push_str(&note(&device.name, "features", &device.features));
        let counted = device.statistics.iter().filter(|(_, value)| **value != 0);
        let counted: Vec<String> =
            counted.map(|(name, value)| format!("{name} {}", count(*value))).collect();
        if !counted.is_empty() {
            text.push_str(&paragraph(&format!("{}: {}", device.name, counted.join(", "))));
        }
    }
    text
}

/// Counters, of queue pair `queue` only if one is given.
pub fn statistics(all: &BTreeMap<String, u64>, queue: Option<u16>, colour: bool) -> String {
    let mut table = Table::new(&[("counter", Align::Left), ("value", Align::Right)]);
    let wanted = |name: &str| match queue {
        None => true,
        Some(queue) => ["rx", "tx"].iter().any(|kind| {
            name.strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix(&queue.to_string()))
                .is_some_and(|rest| rest.starts_with('_'))
        }),
    };
    for (name, value) in all.iter().filter(|(name, _)| wanted(name)) {
        table.row(vec![name.as_str().into(), count(*value).into()]);
    }
    if table.is_empty() { "nothing is counted there\n".to_owned() } else { table.render(colour) }
}

fn state_cell(device: &VdpaDevice) -> Cell {
    let tone = match device.state.as_str() {
        "running" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Plain,
    };
    Cell::toned(device.state.as_str(), tone)
}

fn note(name: &str, what: &str, words: &[String]) -> String {
    match words.is_empty() {
        true => String::new(),
        false => paragraph(&format!("{name}: {what} {}", words.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use daemon::testing::hub_with_idle;

    use super::*;

    fn found(device: &str, obstacle: Option<&str>) -> Found {
        Found {
            device: device.to_owned(),
            description: "a card".to_owned(),
            queue_pairs: Some(4),
            features: Some(1 << 32 | 1 << 22 | 1 << 57),
            obstacle: obstacle.map(Into::into),
        }
    }

    #[test]
    fn found_devices_are_rows_and_values() {
        let all = [found("x:1", None), found("x:2", Some("bind it first"))];
        let text = list(&all, &[], false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "device  queues  state           what");
        assert_eq!(lines[1], "x:1          4  free            a card");
        assert_eq!(lines[2], "x:2          4  cannot be used  a card");
        assert_eq!(lines[3], "x:1: features mq version_1");
        assert_eq!(lines[5], "x:2: bind it first");
        let value = found_json(&all);
        assert_eq!(value["devices"][0]["features"], json!(["mq", "version_1"]));
        assert_eq!(value["devices"][0]["obstacle"], Value::Null);
        assert!(list(&[], &[], false).contains("no vDPA devices"));
    }

    #[test]
    fn attached_devices_show_their_state_and_what_they_have_counted() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub_with_idle(dir.path()).unwrap();
        let devices = devices(&hub);
        let text = attached(&devices, false);
        assert!(text.contains("a     waiting       2      0          0"), "{text}");
        assert!(text.contains("a: device_starts 3, rx0_kicks 7, tx1_kicks 9"), "{text}");
        // In the list of all, an attached one is there once.
        let all = [found("test:idle", None), found("x:1", None)];
        let text = list(&all, &devices, false);
        assert_eq!(text.matches("test:idle  ").count(), 1, "{text}");
        assert!(text.contains("waiting") && text.contains("free"), "{text}");
    }

    #[test]
    fn counters_are_those_of_the_queue() {
        let names = ["device_starts", "rx1_kicks", "tx1_kicks", "rx10_kicks", "rx1"];
        let all: BTreeMap<String, u64> = names.map(|name| (name.to_owned(), 1)).into();
        let text = statistics(&all, Some(1), false);
        assert!(text.contains("rx1_kicks") && text.contains("tx1_kicks"));
        assert!(!text.contains("rx10") && !text.contains("device"));
        assert_eq!(statistics(&all, None, false).lines().count(), 6);
        assert!(statistics(&all, Some(7), false).contains("nothing"));
    }
}
