//! Metrics as Prometheus' own parsers read them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::peers::PYTHON;
use e2e::process::run;
use e2e::{Peer, Ringway, require_shared, wait};
use serde_json::Value;

/// Reads the page at a Unix socket by HTTP, asks as Prometheus does, and tells what the parser for the
/// content type of the answer has found, in JSON.
const READER: &str = r#"
import http.client, json, socket, sys
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics import parser as open_parser

path, accept = sys.argv[1:]

class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)

connection = Connection("localhost", timeout=20)
connection.request("GET", "/metrics", headers={"Accept": accept})
answer = connection.getresponse()
kind, text = answer.getheader("Content-Type"), answer.read().decode()
assert answer.status == 200, answer.status
is_open = kind.startswith("application/openmetrics-text; version=1.0.0")
assert is_open or kind.startswith("text/plain; version=0.0.4"), kind
parse = open_parser.text_string_to_metric_families if is_open else parser.text_string_to_metric_families
samples = [
    {"name": sample.name, "labels": sample.labels, "value": sample.value}
    for family in parse(text) for sample in family.samples
]
families = {family.name: [family.type, family.unit] for family in parse(text)}
json.dump({"open": is_open, "families": families, "samples": samples}, sys.stdout)
"#;

/// As Prometheus 2.42 asks.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

fn read(socket: &Path, accept: &str) -> Value {
    let mut python = Command::new(PYTHON);
    let output = run(python.args(["-c", READER]).arg(socket).arg(accept)).unwrap();
    serde_json::from_str(&output).unwrap()
}

/// The value of the series with these labels.
fn value(page: &Value, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = page["samples"].as_array().unwrap();
    let is_it = |sample: &&Value| {
        sample["name"] == name && labels.iter().all(|(key, value)| sample["labels"][key] == *value)
    };
    let found: Vec<&Value> = samples.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0]["value"].as_f64().unwrap()
}

#[test]
fn both_formats_are_what_their_parsers_expect() {
    let Some(_turn) = require_shared(&[Peer::Prometheus]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("frames.pcap");
    let device = format!("pcap:,tx={}", capture.display());
    run(&mut e2e::ringway::command(&["gen", "txonly", "--port", &device, "--count", "500"])
        .unwrap())
    .unwrap();
    let socket = dir.path().join("metrics.sock");
    let text = format!(
        "[metrics]\naddress = \"unix:{}\"\nmode = \"0600\"\n\
         [ports.to]\ndevice = \"null:,queues=2\"\n\
         [ports.from]\ndevice = \"pcap:{}\"\nlimits.rx-packet-rate = 1\nlimits.rx-packet-burst = 64\n\
         [ports.absent]\ndevice = \"vhost-user:{}/none/s\"\n\
         [bridges.b]\nrstp.enabled = true\nmcast-snooping.enabled = true\n\
         [ports.up]\ndevice = \"bond:\"\nbridge = \"b\"\nbonding.lacp = \"active\"\n\
         [ports.m]\ndevice = \"null:\"\nbond = \"up\"\nlldp = \"both\"\n",
        socket.display(),
        capture.display(),
        dir.path().display(),
    );
    let mut ringway = Ringway::configured(dir.path(), &text, "0").unwrap();

    let limited = |page: &Value| {
        let labels = [("port", "from"), ("direction", "rx"), ("reason", "rate_limited")];
        value(page, "ringway_port_dropped_frames_total", &labels)
    };
    let passed = |page: &Value| {
        value(page, "ringway_port_frames_total", &[("port", "to"), ("direction", "tx")])
    };
    let pause = Duration::from_millis(50);
    // What has come is counted before what has become of it.
    let page = wait::until("all frames", Duration::from_secs(60), pause, || {
        let page = read(&socket, PROMETHEUS);
        let labels = [("port", "from"), ("direction", "rx")];
        let came = value(&page, "ringway_port_frames_total", &labels);
        Ok((came == 500.0 && passed(&page) + limited(&page) >= 500.0).then_some(page))
    })
    .unwrap();
    assert_eq!(page["open"], true);
    for (family, kind, unit) in [
        ("ringway_port_bytes", "counter", "bytes"),
        ("ringway_port_frame_size_bytes", "histogram", "bytes"),
        ("ringway_worker_busy_seconds", "counter", "seconds"),
        ("ringway_build", "info", ""),
        ("ringway_port_waiting", "gauge", ""),
    ] {
        assert_eq!(page["families"][family], serde_json::json!([kind, unit]), "{family}");
    }
    assert_eq!(passed(&page) + limited(&page), 500.0);
    let of = [("port", "from"), ("direction", "rx"), ("le", "64.0")];
    assert_eq!(value(&page, "ringway_port_frame_size_bytes_bucket", &of), 500.0);
    let of = [("port", "from"), ("queue", "0")];
    assert!(value(&page, "ringway_queue_bursts_total", &of) >= 500.0 / 32.0);
    assert!(value(&page, "ringway_queue_full_bursts_total", &of) >= 1.0);
    assert_eq!(value(&page, "ringway_port_waiting", &[("port", "absent")]), 1.0);
    assert!(value(&page, "ringway_metrics_scrapes_total", &[]) >= 0.0);
    for (name, labels, expected) in [
        ("ringway_rstp_is_root", vec![("bridge", "b")], 1.0),
        ("ringway_rstp_port_role", vec![("port", "up"), ("role", "backup")], 0.0),
        ("ringway_mcast_groups", vec![("bridge", "b")], 0.0),
        ("ringway_lldp_neighbours", vec![("port", "m")], 0.0),
        ("ringway_bond_lacp_negotiated", vec![("bond", "up")], 0.0),
        ("ringway_bond_member_link_up", vec![("bond", "up"), ("port", "m")], 1.0),
    ] {
        assert_eq!(value(&page, name, &labels), expected, "{name}");
    }

    let plain = read(&socket, "text/plain;version=0.0.4");
    assert_eq!(plain["open"], false);
    assert_eq!((passed(&plain), limited(&plain)), (passed(&page), limited(&page)));
    let count = |page: &Value| page["samples"].as_array().unwrap().len();
    assert_eq!(count(&plain), count(&page));
    ringway.signal(rustix::process::Signal::TERM).unwrap();
    assert!(ringway.wait(Duration::from_secs(60)).unwrap().success());
    assert!(!socket.exists());
}
