use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};
use e2e::peers::workspace;
use serde_json::{Value, json};

use super::back_end::{Sample, describe};
use super::cell::Cell;
use super::growth::Growth;
use super::guest::{self, Program};
use super::kernel::{Forwarder, Rate};
use super::latency::Latency;
use super::{openflow, plot};

/// The lines of `docs/performance.md` between which a part lies; all else is written by people.
fn marks(part: &str) -> (String, String) {
    let by = format!("cargo xtask bench --parts {part} --write");
    (format!("<!-- written by {by} -->"), format!("<!-- end of what {by} wrote -->"))
}

/// The back-end that others are compared with.
const YARDSTICK: &str = "testpmd io";

/// All samples of one back-end in one cell.
#[derive(Debug, Clone)]
pub struct Row {
    pub cell: Cell,
    pub back_end: String,
    pub samples: Vec<Sample>,
}

impl Row {
    fn sorted(&self) -> Vec<f64> {
        let mut cycles: Vec<f64> = self.samples.iter().map(|sample| sample.cycles).collect();
        cycles.sort_by(f64::total_cmp);
        cycles
    }

    /// Median cycles per packet.
    pub fn median(&self) -> f64 {
        median(&self.sorted())
    }

    fn mpps(&self) -> f64 {
        let mut mpps: Vec<f64> = self.samples.iter().map(|sample| sample.mpps).collect();
        mpps.sort_by(f64::total_cmp);
        median(&mpps)
    }
}

/// The median of samples in any order.
pub fn median_of(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    median(&sorted)
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    machine: String,
    pub rows: Vec<Row>,
    pub latency: Vec<Latency>,
    pub growth: Vec<Growth>,
    /// The same on bridges that go by rules.
    pub flows: Vec<Growth>,
    pub openflow: Vec<openflow::Row>,
    pub kernel: Vec<Rate>,
    pub guest: Vec<guest::Rate>,
}

impl Report {
    pub fn new() -> Self {
        Self { machine: describe(), ..Self::default() }
    }

    /// The best yardstick of a cell: the smallest median among all testpmds.
    pub fn yardstick(&self, cell: Cell) -> Option<f64> {
        let of_cell = self.rows.iter().filter(|row| row.cell == cell);
        let medians = of_cell.filter(|row| row.back_end.starts_with(YARDSTICK)).map(Row::median);
        medians.min_by(f64::total_cmp)
    }

    /// Tables for people.
    pub fn markdown(&self) -> String {
        let tables: String = self.tables().into_iter().map(|(_, table)| table).collect();
        format!("{}.\n{tables}", self.machine)
    }

    /// The table of each part that was measured.
    fn tables(&self) -> Vec<(&'static str, String)> {
        let tables = [
            ("matrix", self.matrix_table()),
            ("latency", self.latency_table()),
            ("growth", growth_table(&self.growth)),
            ("flows", growth_table(&self.flows)),
            ("openflow", openflow::table::markdown(&self.openflow)),
            ("kernel", self.kernel_table()),
            ("guest", self.guest_table()),
        ];
        tables.into_iter().filter(|(_, table)| !table.is_empty()).collect()
    }

    fn matrix_table(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut text =
            String::from("\n| guests | by | median cycles | to testpmd | Mpps | all rounds |\n");
        text += "|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let ratio = self.yardstick(row.cell).map(|best| row.median() / best);
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let all: Vec<String> =
                row.sorted().iter().map(|cycles| format!("{cycles:.0}")).collect();
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {ratio} | {:.2} | {} |",
                row.cell,
                row.back_end,
                row.median(),
                row.mpps(),
                all.join(" ")
            );
        }
        text
    }

    fn latency_table(&self) -> String {
        if self.latency.is_empty() {
            return String::new();
        }
        let mut text = String::from(
            "\n| load | by | frames per second | half within | 99 % within | 99.9 % within |\n",
        );
        text += "|---|---|---|---|---|---|\n";
        for one in &self.latency {
            let _ = writeln!(
                text,
                "| {} % | {} | {} | {:.1} µs | {:.1} µs | {:.1} µs |",
                one.share, one.back_end, one.rate, one.p50, one.p99, one.p999
            );
        }
        text
    }

    /// How many times the packets of the kernel's bridge a forwarder passes.
    fn to_bridge(&self, rate: &Rate) -> Option<f64> {
        let is_bridge =
            |other: &&Rate| other.size == rate.size && other.forwarder == Forwarder::Bridge;
        Some(median_of(&rate.mpps) / median_of(&self.kernel.iter().find(is_bridge)?.mpps))
    }

    fn kernel_table(&self) -> String {
        if self.kernel.is_empty() {
            return String::new();
        }
        let mut text = String::from(
            "\n| bytes | between two interfaces of the host | median Mpps | to the bridge |\n",
        );
        text += "|---|---|---|---|\n";
        for rate in &self.kernel {
            let ratio = self.to_bridge(rate).unwrap_or(1.0);
            let (size, mpps) = (rate.size, median_of(&rate.mpps));
            let _ = writeln!(text, "| {size} | {} | {mpps:.2} | {ratio:.2} |", rate.forwarder);
        }
        text
    }

    /// How many times testpmd's packets a program passes, between devices of the same kind.
    fn to_testpmd(&self, rate: &guest::Rate) -> Option<f64> {
        let is_testpmd =
            |other: &&guest::Rate| other.device == rate.device && other.program == Program::Testpmd;
        Some(median_of(&rate.kpps) / median_of(&self.guest.iter().find(is_testpmd)?.kpps))
    }

    fn guest_table(&self) -> String {
        if self.guest.is_empty() {
            return String::new();
        }
        let mut text = String::from(
            "\n| in a guest, between two | by | median kpps | to testpmd | all rounds |\n",
        );
        text += "|---|---|---|---|---|\n";
        for rate in &self.guest {
            let ratio = self.to_testpmd(rate).unwrap_or(1.0);
            let (device, kpps) = (rate.device, median_of(&rate.kpps));
            let all: Vec<String> = rate.kpps.iter().map(|kpps| format!("{kpps:.1}")).collect();
            let (program, all) = (rate.program, all.join(" "));
            let _ = writeln!(text, "| {device} | {program} | {kpps:.1} | {ratio:.2} | {all} |");
        }
        text
    }

    /// Figures for programs.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "size": row.cell.size.to_string(),
                "ring": format!("{:?}", row.cell.ring).to_lowercase(),
                "mergeable": format!("{:?}", row.cell.mergeable).to_lowercase(),
                "queues": row.cell.queues,
                "by": row.back_end,
                "cycles": row.sorted(),
                "median_cycles": row.median(),
                "mpps": row.mpps(),
                "to_testpmd": self.yardstick(row.cell).map(|best| row.median() / best),
            })
        });
        let latency = self.latency.iter().map(|one| {
            json!({
                "by": one.back_end, "share": one.share, "rate": one.rate,
                "p50_us": one.p50, "p99_us": one.p99, "p999_us": one.p999,
            })
        });
        let growth = |all: &[Growth]| -> Vec<Value> {
            all.iter().map(|one| json!({ "of": one.dimension, "points": one.points })).collect()
        };
        let kernel = self.kernel.iter().map(|rate| {
            json!({
                "by": rate.forwarder.to_string(), "size": rate.size, "mpps": rate.mpps,
                "median_mpps": median_of(&rate.mpps), "to_bridge": self.to_bridge(rate),
            })
        });
        let guest = self.guest.iter().map(|rate| {
            json!({
                "by": rate.program.to_string(), "device": rate.device, "kpps": rate.kpps,
                "median_kpps": median_of(&rate.kpps), "to_testpmd": self.to_testpmd(rate),
            })
        });
        json!({
            "machine": self.machine,
            "matrix": rows.collect::<Vec<_>>(),
            "latency": latency.collect::<Vec<_>>(),
            "growth": growth(&self.growth),
            "flows": growth(&self.flows),
            "openflow": openflow::table::json(&self.openflow),
            "kernel": kernel.collect::<Vec<_>>(),
            "guest": guest.collect::<Vec<_>>(),
        })
    }

    /// Puts the tables and plots of what was measured into the documentation.
    pub fn write(&self) -> Result<()> {
        let docs = workspace().join("docs");
        let plots = docs.join("plots");
        fs::create_dir_all(&plots)?;
        let drawn = plot::draw(self, &plots)?;
        let path = docs.join("performance.md");
        let mut page = fs::read_to_string(&path)?;
        for (part, table) in self.tables() {
            let mut text = format!("{}.\n{table}", self.machine);
            for plot in drawn.iter().filter(|plot| plot.part == part) {
                let _ = write!(text, "\n![{}](plots/{})\n", plot.title, plot.file);
            }
            let (begin, end) = marks(part);
            page = replace(&page, part, &text)
                .with_context(|| format!("{}: expected {begin} and {end}", path.display()))?;
        }
        fs::write(&path, page)?;
        println!("written to {}", path.display());
        Ok(())
    }
}

/// How costs grow; what is left of a rate is in per cent.
fn growth_table(all: &[Growth]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n| number of | cycles per packet, by number | last to first |\n|---|---|---|\n",
    );
    for Growth { dimension, points } in all {
        let shown: Vec<String> =
            points.iter().map(|(number, cycles)| format!("{number}: {cycles:.0}")).collect();
        let ratio = match (points.first(), points.last()) {
            (Some((_, first)), Some((_, last))) => last / first,
            _ => 1.0,
        };
        let _ = writeln!(text, "| {dimension} | {} | {ratio:.2} |", shown.join(", "));
    }
    text
}

/// `page` with `text` between the marks of a part.
fn replace(page: &str, part: &str, text: &str) -> Option<String> {
    let (begin, end) = marks(part);
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{text}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Mergeable, Ring, Size};
    use super::*;

    fn row(back_end: &str, cycles: &[f64]) -> Row {
        let (size, ring, mergeable) = (Size::Fixed(64), Ring::Split, Mergeable::On);
        Row {
            cell: Cell { size, ring, mergeable, queues: 1 },
            back_end: back_end.into(),
            samples: cycles.iter().map(|&cycles| Sample { cycles, mpps: 1.0 }).collect(),
        }
    }

    #[test]
    fn medians_and_ratios_to_the_best_testpmd_are_shown() {
        let rows = vec![
            row("ringway switch", &[120.0, 90.0, 100.0]),
            row("testpmd io", &[300.0]),
            row("testpmd io (/opt/testpmd)", &[200.0]),
        ];
        let report = Report { rows, ..Report::default() };
        let text = report.markdown();
        assert!(text.contains("| ringway switch | 100 | 0.50 | 1.00 | 90 100 120 |"), "{text}");
        assert_eq!(report.json()["matrix"][0]["to_testpmd"], 0.5);
    }

    #[test]
    fn forwarders_are_compared_with_the_bridge_at_the_same_size() {
        let rate = |forwarder, size, mpps: &[f64]| Rate { forwarder, size, mpps: mpps.to_vec() };
        let kernel = vec![
            rate(Forwarder::Bridge, 64, &[0.5, 0.4, 0.6]),
            rate(Forwarder::AfXdp, 64, &[1.0, 2.0, 0.1]),
            rate(Forwarder::Bridge, 1500, &[0.25]),
        ];
        let report = Report { kernel, ..Report::default() };
        let text = report.markdown();
        assert!(text.contains("| 64 | ringway switch, AF_XDP | 1.00 | 2.00 |"), "{text}");
        assert_eq!(report.json()["kernel"][2]["to_bridge"], 1.0);
    }

    #[test]
    fn programs_in_a_guest_are_compared_on_the_same_devices() {
        let rate = |device, program, kpps: f64| guest::Rate { device, program, kpps: vec![kpps] };
        let guest = vec![
            rate("igb", Program::L2fwd, 30.0),
            rate("igb", Program::Testpmd, 20.0),
            rate("virtio-net", Program::Testpmd, 40.0),
        ];
        let report = Report { guest, ..Report::default() };
        let text = report.markdown();
        assert!(text.contains("| igb | ringway l2fwd | 30.0 | 1.50 | 30.0 |"), "{text}");
        assert_eq!(report.json()["guest"][2]["to_testpmd"], 1.0);
    }

    #[test]
    fn only_what_lies_between_the_marks_of_a_part_is_replaced() {
        let [(begin, end), (other, other_end)] = ["guest", "kernel"].map(marks);
        let rest = format!("{other}\nkept\n{other_end}\nb\n");
        let page = format!("a\n{begin}\nold\n{end}\n{rest}");
        let expected = format!("a\n{begin}\n\nnew\n\n{end}\n{rest}");
        assert_eq!(replace(&page, "guest", "new\n").unwrap(), expected);
        assert_eq!(replace(&page, "matrix", "new"), None);
    }
}
