//! Tables of 80 columns, JSON, and the page in the project's documentation.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::cases::Instance;
use crate::judge::{Outcome, Verdict};

/// Columns of a line.
const WIDTH: usize = 80;

/// All results of one back-end.
#[derive(Debug)]
pub struct Results {
    pub name: &'static str,
    pub description: String,
    pub rows: Vec<(Instance, Outcome)>,
}

impl Results {
    /// Cases with a verdict of this name.
    fn count(&self, name: &str) -> usize {
        self.rows.iter().filter(|(_, outcome)| outcome.verdict.name() == name).count()
    }

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(|(_, outcome)| !outcome.verdict.is_fault())
    }

    /// The cases that were not reached.
    pub fn unreached(&self) -> usize {
        self.count("not reached")
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let played = self.rows.len() - self.unreached();
        let mut text =
            format!("{}: {} of {played} survived", self.description, self.count("survived"));
        for name in ["neighbour harmed", "back-end dead", "stuck", "not reached"] {
            match self.count(name) {
                0 => {}
                count => _ = write!(text, ", {count} {name}"),
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let row = |(instance, outcome): &(Instance, Outcome)| {
            json!({
                "case": instance.name(),
                "group": instance.group(),
                "does": instance.case.does,
                "may": instance.case.may.text(),
                "verdict": outcome.verdict.name(),
                "detail": outcome.verdict.detail(),
                "heard": outcome.heard,
                "seconds": outcome.time.as_secs_f64(),
            })
        };
        json!({
            "back_end": self.name,
            "version": self.description,
            "cases": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

/// One line of the table: name, verdict, and as much of the rest as fits.
pub fn line(instance: &Instance, outcome: &Outcome) -> String {
    let rest = match &outcome.verdict {
        Verdict::Survived => outcome.heard.as_str(),
        other => other.detail(),
    };
    let line = format!("{:<38} {:<16} {}", instance.name(), outcome.verdict.name(), rest);
    let line = line.lines().next().unwrap_or_default();
    line.chars().take(WIDTH).collect()
}

/// The generated part of `docs/hostile.md`.
pub fn page(date: &str, results: &[Results]) -> String {
    let mut text = format!("Run on {date}");
    for result in results {
        _ = write!(text, ", {}", result.description);
    }
    text.push_str(".\n\n| Group | Cases |");
    results.iter().for_each(|result| _ = write!(text, " {} |", result.name));
    text.push_str("\n|---|---|");
    results.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    let mut groups: BTreeMap<&str, Vec<Instance>> = BTreeMap::new();
    for (instance, _) in results.iter().flat_map(|result| result.rows.iter()) {
        let group = groups.entry(instance.group()).or_default();
        if group.iter().all(|known| known.name() != instance.name()) {
            group.push(*instance);
        }
    }
    for (group, cases) in &groups {
        _ = write!(text, "| {group} | {} |", cases.len());
        for result in results {
            _ = write!(text, " {} |", share(result, group));
        }
        text.push('\n');
    }
    text.push_str("\n| Case | What is done |");
    results.iter().for_each(|result| _ = write!(text, " {} |", result.name));
    text.push_str("\n|---|---|");
    results.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    for instance in groups.values().flatten() {
        _ = write!(text, "| `{}` | {} |", instance.name(), instance.case.does);
        for result in results {
            let name = instance.name();
            let row = result.rows.iter().find(|(other, _)| other.name() == name);
            _ = write!(text, " {} |", row.map_or("-".to_owned(), |(_, outcome)| cell(outcome)));
        }
        text.push('\n');
    }
    text
}

/// How many of a group's cases a back-end survived.
fn share(result: &Results, group: &str) -> String {
    let rows: Vec<_> =
        result.rows.iter().filter(|(instance, _)| instance.group() == group).collect();
    let survived = rows.iter().filter(|(_, row)| row.verdict == Verdict::Survived).count();
    let unreached =
        rows.iter().filter(|(_, row)| matches!(row.verdict, Verdict::Unreached(_))).count();
    match rows.len() - unreached {
        0 => "-".into(),
        played if played == survived => format!("all {played}"),
        played => format!("**{survived} of {played}**"),
    }
}

/// A verdict in a table of Markdown.
fn cell(outcome: &Outcome) -> String {
    match &outcome.verdict {
        Verdict::Survived => "yes".into(),
        Verdict::Unreached(_) => "-".into(),
        fault => {
            let detail = fault.detail().replace('|', "/");
            let detail: String =
                detail.lines().next().unwrap_or_default().chars().take(60).collect();
            format!("**{}**: {detail}", fault.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn results(verdict: Verdict) -> Results {
        let outcome = Outcome { verdict, heard: "closed".into(), time: Duration::ZERO };
        let rows = vec![(crate::cases::all()[0], outcome)];
        Results { name: "ringway", description: "Ringway 0".into(), rows }
    }

    #[test]
    fn a_fault_is_seen_in_every_form() {
        let dead = results(Verdict::Dead("SIGSEGV, twice".into()));
        assert!(!dead.is_clean());
        assert!(dead.summary().ends_with("0 of 1 survived, 1 back-end dead"));
        assert!(page("today", &[dead]).contains("**back-end dead**: SIGSEGV, twice"));
        let well = results(Verdict::Survived);
        assert!(well.is_clean() && page("today", &[well]).contains("all 1"));
    }

    #[test]
    fn a_case_that_was_not_reached_is_told() {
        let unreached = results(Verdict::Unreached("lacks bits".into()));
        assert_eq!(unreached.unreached(), 1);
        assert!(unreached.summary().ends_with("0 of 0 survived, 1 not reached"));
    }

    #[test]
    fn lines_are_no_longer_than_a_terminal() {
        let outcome =
            Outcome { verdict: Verdict::Survived, heard: "x".repeat(200), time: Duration::ZERO };
        assert!(crate::cases::all().iter().all(|instance| line(instance, &outcome).len() <= WIDTH));
    }
}
