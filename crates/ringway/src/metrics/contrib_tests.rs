//! What is in `contrib/` names metrics that there are.

use std::collections::BTreeSet;

use serde_json::Value;

use super::family::{ALL, Kind};

fn file(name: &str) -> String {
    let path = format!("{}/../../contrib/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// The names that samples have.
fn samples() -> BTreeSet<String> {
    let names = ALL.iter().flat_map(|family| {
        let ends = match family.kind {
            Kind::Histogram => vec!["_bucket", "_sum", "_count"],
            _ => vec![family.suffix()],
        };
        ends.into_iter().map(|end| format!("{}{end}", family.name))
    });
    names.collect()
}

/// The words of an expression that can only be metrics.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(move |c| !is_part(c));
    words.filter(|word| word.starts_with("ringway_") || word.starts_with("process_"))
}

/// All texts of a value with this key.
fn texts<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| match value.as_str() {
            Some(text) if name == key => found.push(text),
            _ => texts(value, key, found),
        }),
        Value::Array(all) => all.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

#[test]
fn the_board_and_the_alerts_ask_for_metrics_that_there_are() {
    let board: Value = serde_json::from_str(&file("grafana/ringway.json")).unwrap();
    let (mut expressions, mut queries) = (Vec::new(), Vec::new());
    texts(&board, "expr", &mut expressions);
    texts(&board, "definition", &mut queries);
    let rules = file("prometheus/ringway.rules.yml");
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(expressions.len() >= 20 && queries.len() == 2 && alerts.len() >= 10);
    let samples = samples();
    for expression in expressions.into_iter().chain(queries).chain(alerts) {
        let names: Vec<&str> = named(expression).collect();
        assert!(!names.is_empty() || expression.starts_with("up{"), "{expression}");
        for name in names {
            assert!(samples.contains(name), "{name}: {expression}");
        }
    }
    // Each reason that an alert names is one.
    for reasons in rules.split("reason=~\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        for reason in reasons.split('|') {
            assert!(ethdev::DropReason::ALL.iter().any(|one| one.name() == reason), "{reason}");
        }
    }
}
