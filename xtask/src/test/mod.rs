/// What the machine has to do.
mod load;
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

use self::load::Load;
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
    let (start, load) = (Instant::now(), Load::now());
    let steps = schedule::run(jobs, available_parallelism().map_or(1, NonZero::get));
    let idle = Load::now().idle_since(load);
    Ok(report(&steps, start.elapsed(), idle, &fs::read_to_string(stage.skipped())?))
}

/// Prints the table of steps and the tests skipped; gives whether all succeeded. `idle` is how much of
/// the CPUs the run has not used, in percent.
fn report(steps: &[Done], total: Duration, idle: u64, skipped: &str) -> bool {
    println!("\n{:<24} {:>8} {:>9}  result", "step", "seconds", "CPU idle");
    let line = |name: &str, time: Duration, idle: u64, result: &str| {
        println!("{name:<24} {:>8.1} {idle:>7} %  {result}", time.as_secs_f64());
    };
    for Done { name, result, time, idle } in steps {
        let result =
            result.as_ref().map_or_else(|error| format!("FAILED: {error}"), |()| "ok".into());
        line(name, *time, *idle, &result);
    }
    line("all", total, idle, "side by side");
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
        let step = |result| Done { name: "x".into(), result, time: Duration::ZERO, idle: 0 };
        let total = Duration::ZERO;
        assert!(report(&[step(Ok(()))], total, 0, "a::b: no guest\n"));
        assert!(!report(&[step(Ok(())), step(Err("bad".into()))], total, 0, ""));
    }
}
