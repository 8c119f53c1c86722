use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use e2e::peers::{Peer, are_there, workspace};
use e2e::process::run as output_of;

use crate::tested;

/// Bursts of one count. The count has no noise, so few will do.
const BURSTS: u64 = 400;

/// How far a count may lie from the stored one, as a share of it.
const ROOM: f64 = 0.03;

/// How `cargo xtask instructions` is run.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// Store the counts instead of comparing with those stored
    #[arg(long)]
    update: bool,
    /// Count only cases whose name contains NAME; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// Counts the instructions per frame of each kind of burst, compares them with those stored in
/// `benches/instructions.toml`, and gives whether all agree.
///
/// Unlike times, counts do not depend on what else the machine does. They are those of the crates as they
/// are tested, without the LTO of a release, which has some instructions less (docs/decisions/0029).
pub fn run(options: &Options) -> Result<bool> {
    if !are_there(&[Peer::Valgrind]) {
        return Ok(true);
    }
    output_of(&mut tested::build(&["instructions"]))?;
    let program = tested::program("instructions");
    let stored = Stored::load()?;
    let mut counts = BTreeMap::new();
    let mut good = true;
    println!("{:<24} {:>8} {:>8}  instructions per frame", "case", "stored", "counted");
    for line in output_of(Command::new(&program).arg("list"))?.lines() {
        let (case, frames) = parse(line).with_context(|| line.to_owned())?;
        if !options.only.is_empty() && !options.only.iter().any(|part| case.contains(part)) {
            continue;
        }
        let count = count(&program, case, frames).with_context(|| case.to_owned())?;
        let stored = stored.0.get(case).copied();
        let verdict = verdict(stored, count);
        let text = stored.map_or_else(|| "-".to_owned(), |stored| format!("{stored:.1}"));
        println!("{case:<24} {text:>8} {count:>8.1}  {}", verdict.unwrap_or(""));
        good &= verdict.is_none();
        counts.insert(case.to_owned(), count);
    }
    if options.update {
        ensure!(options.only.is_empty(), "--update stores all cases: leave --only out");
        Stored(counts).save()?;
        return Ok(true);
    }
    if !good {
        println!(
            "If a count changed for a reason, `cargo xtask instructions --update` stores it in {}.",
            Stored::path().display()
        );
    }
    Ok(good)
}

/// What is wrong with a count, if anything.
fn verdict(stored: Option<f64>, count: f64) -> Option<&'static str> {
    let Some(stored) = stored else { return Some("not stored yet") };
    if count > stored * (1.0 + ROOM) {
        Some("SLOWER")
    } else if count < stored * (1.0 - ROOM) {
        Some("FASTER: store it, so that it stays so")
    } else {
        None
    }
}

/// A case, and how many frames its bursts have.
fn parse(line: &str) -> Option<(&str, u64)> {
    let (case, frames) = line.split_once(' ')?;
    Some((case, frames.parse().ok()?))
}

/// Instructions per frame inside the function `measured` of `case`, whose bursts have so many.
fn count(program: &PathBuf, case: &str, frames: u64) -> Result<f64> {
    let file = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--toggle-collect=*measured*"]);
    command.args(["--compress-strings=no", "--compress-pos=no"]);
    command.arg(format!("--callgrind-out-file={}", file.path().display()));
    command.arg(program).args([case, &BURSTS.to_string()]);
    output_of(&mut command)?;
    let text = fs::read_to_string(file.path())?;
    let Some(total) = total(&text) else { bail!("valgrind counted nothing") };
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(total as f64 / (BURSTS * frames) as f64)
}

/// Sum of what a callgrind file has for all functions but the copies of the C library, which it
/// chooses for the machine's processor; `None` if that is nothing.
///
/// After a line `fn=NAME` come lines `LINE COUNT`; the one behind a line `calls=..` has what the
/// callee took, which is counted there.
fn total(text: &str) -> Option<u64> {
    let (mut total, mut ours, mut is_call) = (0, true, false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            ours = !name.starts_with("__mem");
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let count = line.split_whitespace().nth(1).and_then(|count| count.parse::<u64>().ok());
            if ours && !std::mem::take(&mut is_call) {
                total += count.unwrap_or(0);
            }
            is_call = false;
        }
    }
    (total > 0).then_some(total)
}

/// The stored counts, by case.
struct Stored(BTreeMap<String, f64>);

impl Stored {
    fn path() -> PathBuf {
        workspace().join("benches/instructions.toml")
    }

    fn load() -> Result<Self> {
        let path = Self::path();
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self(toml::from_str(&text).with_context(|| path.display().to_string())?))
    }

    fn save(&self) -> Result<()> {
        let mut text = String::from(
            "# Instructions per frame in a burst, on x86-64, as `cargo xtask instructions\n\
             # --update` counts them. The test command fails where one is off by more than 3 %.\n",
        );
        for (case, count) in &self.0 {
            text += &format!("{case} = {count:.1}\n");
        }
        fs::write(Self::path(), text).with_context(|| Self::path().display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_judged() {
        let text = "events: Ir\nsummary: 99\n\nfl=a.rs\nfn=ours\n7 10\n8 5\ncfn=__memcpy_avx\n\
                    calls=1 0\n8 40\n9 1\n\nfn=__memcpy_avx\n0 40\n\ntotals: 56\n";
        assert_eq!(total(text), Some(16));
        assert_eq!(total("fn=ours\n7 0\n"), None);
        assert_eq!((parse("lookup 32"), parse("lookup")), (Some(("lookup", 32)), None));
        assert_eq!(verdict(Some(100.0), 102.9), None);
        assert_eq!(verdict(Some(100.0), 103.1), Some("SLOWER"));
        assert!(verdict(Some(100.0), 96.0).is_some() && verdict(None, 1.0).is_some());
    }
}
