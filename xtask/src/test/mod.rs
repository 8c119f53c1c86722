/// What the run consists of.
mod plan;
/// Test programs, as cargo builds them.
mod programs;
/// Things to be done side by side.
mod schedule;

use std::fs;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

pub use self::programs::cargo;

use self::plan::Stage;
use self::schedule::Done;

/// How `cargo xtask test` is run.
#[derive(Debug, Args)]
pub struct Options {
    /// Leave out the tests on real peers
    #[arg(long)]
    quick: bool,
    /// Run only the steps whose name contains NAME (see the table of a whole run), and those that
    /// they need; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Install and set up nothing
    #[arg(long)]
    no_setup: bool,
}

/// Runs the steps, side by side where they can, and gives whether all succeeded.
pub fn run(options: &Options) -> Result<bool> {
    let stage = Stage::new()?;
    let jobs = plan::select(stage.plan(options.quick, options.no_setup)?, &options.only);
    ensure!(!jobs.is_empty(), "no step has a name that contains {:?}", options.only);
    let start = Instant::now();
    let steps = schedule::run(jobs, available_parallelism().map_or(1, NonZero::get));
    Ok(report(&steps, start.elapsed(), &fs::read_to_string(stage.skipped())?))
}

/// Prints the table of steps and the tests skipped; gives whether all succeeded.
fn report(steps: &[Done], total: Duration, skipped: &str) -> bool {
    println!("\n{:<24} {:>8}  result", "step", "seconds");
    for Done { name, result, time } in steps {
        let result =
            result.as_ref().map_or_else(|error| format!("FAILED: {error}"), |()| "ok".into());
        println!("{name:<24} {:>8.1}  {result}", time.as_secs_f64());
    }
    println!("{:<24} {:>8.1}  side by side", "all", total.as_secs_f64());
    for line in skipped.lines() {
        println!("skipped: {line}");
    }
    let failed = steps.iter().filter(|step| step.result.is_err()).count();
    match (failed, skipped.lines().count()) {
        (0, 0) => println!("all tests passed"),
        (0, n) => println!("all tests passed that could be run; {n} skipped"),
        (failed, _) => println!("{failed} of {} steps failed", steps.len()),
    }
    failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_run() {
        let step = |result| Done { name: "x".into(), result, time: Duration::ZERO };
        let total = Duration::ZERO;
        assert!(report(&[step(Ok(()))], total, "a::b: no guest\n"));
        assert!(!report(&[step(Ok(())), step(Err("bad".into()))], total, ""));
    }
}
