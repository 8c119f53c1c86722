//! What the newcomer sees.

use std::path::Path;

use serde::Serialize;

use crate::control::protocol::Counters;
use crate::generate::report::LatencySummary;
use crate::output;
use crate::table::{bit_rate, colour_stdout, count, nanoseconds, packet_rate};

/// The guests' names.
pub const NAMES: [&str; 2] = ["vm1", "vm2"];

/// One row of the live table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Seconds since the start.
    pub seconds: f64,
    /// The traffic.
    pub traffic: &'static str,
    /// Frames per second from the first guest to the second, and back.
    pub pps: [f64; 2],
    /// Bits per second, both directions together.
    pub bps: f64,
    /// One way through the switch, where it is measured.
    pub latency: Option<LatencySummary>,
    /// Frames checked since the start, all of their bytes.
    pub checked: u64,
    /// Damaged, foreign and misordered frames since the start.
    pub wrong: u64,
}

/// Everything that happened.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Seconds of traffic.
    pub seconds: f64,
    /// Frames that the guests gave to their devices.
    pub sent: u64,
    /// Frames that arrived with every byte right.
    pub good: u64,
    /// Their bytes, and those of wrong ones.
    pub bytes: u64,
    /// Frames with wrong bytes.
    pub corrupt: u64,
    /// Frames that nobody sent.
    pub foreign: u64,
    /// Frames that were overtaken.
    pub reordered: u64,
    /// Frames that did not arrive.
    pub lost: u64,
    /// Frames that were dropped for a counted reason, at the guests and in the switch.
    pub dropped: u64,
    /// What the switch counted, both ports together.
    pub switch_received: Counters,
    /// What it sent.
    pub switch_sent: Counters,
    /// Best throughput of a row, in frames and in bits per second.
    pub best_pps: f64,
    /// See above.
    pub best_bps: f64,
    /// One way through the switch, guest to guest.
    pub latency: Option<LatencySummary>,
    /// Cycles that the switch's worker spent per frame.
    pub cycles_per_packet: f64,
}

impl Summary {
    /// What is wrong, if anything.
    pub fn fault(&self) -> Option<String> {
        let faults = [
            (self.corrupt, "frames arrived with wrong bytes"),
            (self.foreign, "frames arrived that nobody sent"),
            (self.reordered, "frames arrived in the wrong order"),
            (self.lost.saturating_sub(self.dropped), "frames were lost without a counted reason"),
        ];
        let found: Vec<String> = faults
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| format!("{} {what}", count(*number)))
            .collect();
        if self.good == 0 {
            return Some("no frame arrived".to_owned());
        }
        (!found.is_empty()).then(|| found.join(", "))
    }
}

/// Prints everything, as text or as one JSON object per line.
#[derive(Debug)]
pub struct Printer {
    json: bool,
    colour: bool,
}

impl Printer {
    /// A printer to standard output.
    pub fn new(json: bool) -> Self {
        Self { json, colour: !json && colour_stdout() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// What is about to happen.
    pub fn introduction(&self, seconds: u64, sockets: &[&Path; 2]) {
        if self.json {
            return;
        }
        let [one, other] = sockets.map(|path| path.display().to_string());
        output::line(&format!(
            "{}\n\n  vm1 {} switch {} vm2\n\n\
             Each guest drives a virtio-net device in its own shared memory; the switch serves\n  \
             {one}\n  {other}\nNo kernel, no root, no set-up. {seconds} seconds; every byte is checked.\n",
            self.paint("1", "Ringway demo: two guests, two vhost-user sockets, one switch"),
            self.paint("2", "<== vhost-user ==>"),
            self.paint("2", "<== vhost-user ==>"),
        ));
        output::line(&self.paint(
            "1",
            &format!(
                "{:>5}  {:<20}  {:>11}  {:>11}  {:>12}  {:>12}  {:>5}",
                "time", "traffic", "vm1 > vm2", "vm2 > vm1", "together", "checked", "wrong"
            ),
        ));
    }

    /// One row.
    pub fn row(&self, row: &Row) {
        if self.json {
            output::json_line(&serde_json::json!({ "interval": row }));
            return;
        }
        let [there, back] = row.pps.map(packet_rate);
        let together = match &row.latency {
            Some(latency) => format!("p50 {}", nanoseconds(latency.p50_ns)),
            None => bit_rate(row.bps),
        };
        let wrong = count(row.wrong);
        let wrong = format!("{wrong:>5}");
        output::line(&format!(
            "{:>4.1}s  {:<20}  {there:>11}  {back:>11}  {together:>12}  {:>12}  {}",
            row.seconds,
            row.traffic,
            count(row.checked),
            self.paint(if row.wrong == 0 { "32" } else { "31" }, &wrong),
        ));
    }

    /// The summary, and what to do next.
    pub fn summary(&self, summary: &Summary) {
        if self.json {
            output::json_line(&serde_json::json!({ "summary": summary }));
            return;
        }
        output::line("");
        let verdict = match summary.fault() {
            None => self.paint("1;32", "All right:"),
            Some(_) => self.paint("1;31", "NOT right:"),
        };
        output::line(&format!(
            "{verdict} {} frames sent, {} arrived with every byte right, {} wrong, {} lost{}",
            count(summary.sent),
            count(summary.good),
            count(summary.corrupt.saturating_add(summary.foreign)),
            count(summary.lost),
            self.loss(summary),
        ));
        output::line(&format!(
            "At best {} and {}{}",
            packet_rate(summary.best_pps),
            bit_rate(summary.best_bps),
            if summary.cycles_per_packet > 0.0 {
                format!("; the switch spent {:.0} cycles per frame", summary.cycles_per_packet)
            } else {
                String::new()
            },
        ));
        if let Some(latency) = &summary.latency {
            output::line(&format!(
                "Guest to guest, one frame at a time: half within {}, 99 % within {}",
                nanoseconds(latency.p50_ns),
                nanoseconds(latency.p99_ns),
            ));
        }
        output::line(&self.what_next());
    }

    fn loss(&self, summary: &Summary) -> String {
        let drops = summary.switch_received.drops.iter().chain(&summary.switch_sent.drops);
        let reasons: Vec<String> =
            drops.map(|(reason, number)| format!("{} {reason}", count(*number))).collect();
        if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) }
    }

    fn what_next(&self) -> String {
        let title = self.paint("1", "Your own virtual machine, in two terminals:");
        let mut text = format!("\n{title}\n\n  ringway switch");
        for name in NAMES {
            text.push_str(&format!(" --port {name}=vhost-user:/tmp/{name}.sock"));
        }
        text.push_str("\n\n");
        text.push_str(&qemu("/tmp/vm1.sock", "52:54:00:00:00:01"));
        text.push_str(
            "\n\nThe second machine takes /tmp/vm2.sock and a MAC address of its own. \
             'ringway show stats --watch'\nshows the traffic.",
        );
        text
    }
}

/// The command that connects a virtual machine to `socket`.
fn qemu(socket: &str, mac: &str) -> String {
    format!(
        "  qemu-system-x86_64 -accel kvm -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on \\\n    \
           -numa node,memdev=mem -chardev socket,id=chr0,path={socket},reconnect-ms=50 \\\n    \
           -netdev vhost-user,id=net0,chardev=chr0 \\\n    \
           -device virtio-net-pci,netdev=net0,mac={mac} YOUR-DISK.img"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named() {
        let good = Summary { sent: 10, good: 10, ..Summary::default() };
        assert_eq!(good.fault(), None);
        assert!(Summary::default().fault().unwrap().contains("no frame"));
        let counted = Summary { good: 8, lost: 2, dropped: 2, ..good.clone() };
        assert_eq!(counted.fault(), None);
        let uncounted = Summary { lost: 3, ..counted };
        assert_eq!(uncounted.fault().unwrap(), "1 frames were lost without a counted reason");
        let corrupt = Summary { corrupt: 1, reordered: 2, ..good };
        assert!(corrupt.fault().unwrap().contains("2 frames arrived in the wrong order"));
    }
}
