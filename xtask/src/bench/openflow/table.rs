use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::back_end::Sample;
use super::super::report::median_of;
use super::Row;

impl Row {
    /// Median cycles per packet of OVS-DPDK and of ours.
    pub fn medians(&self) -> (f64, f64) {
        (cycles(&self.ovs), cycles(&self.ringway))
    }

    /// What share of OVS-DPDK's cycles ours takes, where both were measured.
    fn ratio(&self) -> Option<f64> {
        let (ovs, ringway) = self.medians();
        (!self.ovs.is_empty() && !self.ringway.is_empty()).then(|| ringway / ovs)
    }
}

fn cycles(samples: &[Sample]) -> f64 {
    median_of(&samples.iter().map(|sample| sample.cycles).collect::<Vec<f64>>())
}

fn mpps(samples: &[Sample]) -> f64 {
    median_of(&samples.iter().map(|sample| sample.mpps).collect::<Vec<f64>>())
}

/// Cycles of all rounds, from the fewest on.
fn all(samples: &[Sample]) -> Vec<f64> {
    let mut cycles: Vec<f64> = samples.iter().map(|sample| sample.cycles).collect();
    cycles.sort_by(f64::total_cmp);
    cycles
}

fn shown(samples: &[Sample]) -> String {
    let all: Vec<String> = all(samples).iter().map(|cycles| format!("{cycles:.0}")).collect();
    all.join(" ")
}

/// The table for people.
pub fn markdown(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n| bridge | packet flows | cycles, OVS-DPDK | cycles, ringway | to OVS-DPDK | goal | \
         Mpps, OVS-DPDK | Mpps, ringway | all rounds |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (ovs, ringway) = row.medians();
        let ratio = row.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let goal = row.bridge.goal().map_or_else(|| "-".to_owned(), |goal| goal.to_string());
        let _ = writeln!(
            text,
            "| {} | {} | {ovs:.0} | {ringway:.0} | {ratio} | {goal} | {:.2} | {:.2} | {}; {} |",
            row.bridge,
            row.flows,
            mpps(&row.ovs),
            mpps(&row.ringway),
            shown(&row.ovs),
            shown(&row.ringway),
        );
    }
    text
}

/// Figures for programs.
pub fn json(rows: &[Row]) -> Value {
    let side = |samples: &[Sample]| json!({ "cycles": all(samples), "mpps": mpps(samples) });
    let row = |row: &Row| {
        json!({
            "bridge": row.bridge.to_string(), "flows": row.flows, "ovs": side(&row.ovs),
            "ringway": side(&row.ringway), "to_ovs": row.ratio(), "goal": row.bridge.goal(),
        })
    };
    rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::bridge::Bridge;
    use super::*;

    #[test]
    fn ours_is_compared_by_medians() {
        let samples =
            |all: &[f64]| all.iter().map(|&cycles| Sample { cycles, mpps: 2.0 }).collect();
        let (ovs, ringway) = (samples(&[500.0, 400.0, 900.0]), samples(&[100.0, 300.0, 50.0]));
        let mut rows = [Row { bridge: Bridge::Pipeline, flows: 256, ovs, ringway }];
        let text = markdown(&rows);
        let expected = "| 10 tables of 10 rules | 256 | 500 | 100 | 0.20 | 0.35 | 2.00 | 2.00 | \
                        400 500 900; 50 100 300 |";
        assert!(text.contains(expected), "{text}");
        assert_eq!(json(&rows)[0]["to_ovs"], 0.2);
        rows[0].ovs.clear();
        let text = markdown(&rows);
        assert!(text.contains("| 0 | 100 | - | 0.35 | 0.00 | 2.00 | ; 50 100 300 |"), "{text}");
        assert_eq!(json(&rows)[0]["to_ovs"], Value::Null);
        assert_eq!(markdown(&[]), "");
    }
}
