use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result};
use e2e::process::run as output_of;

use crate::tested;

/// Cycles per packet by the number of something.
#[derive(Debug, Clone)]
pub struct Growth {
    /// Of what.
    pub dimension: String,
    /// Number and median cycles.
    pub points: Vec<(u64, f64)>,
}

/// Runs a program of `ringway-benches` so many times that prints how costs grow, and gives the medians. It
/// is built as releases are, or as the tests are.
pub fn run(program: &str, rounds: usize, as_tested: bool) -> Result<Vec<Growth>> {
    let name = program;
    let program = match as_tested {
        true => super::executable(tested::build(&[program]))?,
        false => super::build(program)?,
    };
    let mut order = Vec::new();
    let mut all: BTreeMap<(String, u64), Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        eprintln!("{name}, round {} of {rounds}", round + 1);
        for line in output_of(&mut Command::new(&program))?.lines() {
            let (dimension, value, cycles) = parse(line).with_context(|| line.to_owned())?;
            let key = (dimension, value);
            if round == 0 {
                order.push(key.clone());
            }
            all.entry(key).or_default().push(cycles);
        }
    }
    let mut result: Vec<Growth> = Vec::new();
    for key in order {
        let mut samples = all.remove(&key).unwrap_or_default();
        samples.sort_by(f64::total_cmp);
        let median = samples.get(samples.len() / 2).copied().unwrap_or_default();
        match result.last_mut().filter(|last| last.dimension == key.0) {
            Some(last) => last.points.push((key.1, median)),
            None => {
                result.push(Growth { dimension: key.0, points: vec![(key.1, median)] });
            }
        }
    }
    Ok(result)
}

/// Dimension, number and cycles, with tabs between.
fn parse(line: &str) -> Option<(String, u64, f64)> {
    let mut parts = line.split('\t');
    let dimension = parts.next()?.to_owned();
    Some((dimension, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        assert_eq!(parse("ports\t2\t66.5"), Some(("ports".into(), 2, 66.5)));
        assert_eq!(parse("ports 2 66.5"), None);
    }
}
