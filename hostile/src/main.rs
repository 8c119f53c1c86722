//! A hostile vhost-user front-end: it attacks a back-end with every lie that the protocol, the
//! rings and the net header have room for, and tells what became of the back-end and of a
//! well-behaved pair of front-ends beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a tool for tests: what it reads of a back-end is compared, and a panic ends one try"
)]

/// What an attacker works with.
mod attack;
/// The cases, as data.
mod cases;
/// A front-end that introduces itself, truly or not.
mod frontend;
/// A file that everybody waits for.
mod fuse;
/// What became of everybody.
mod judge;
/// Who runs on which CPU.
mod machine;
/// Memory that is shared.
mod memory;
/// Messages as bytes.
mod message;
/// The well-behaved pair.
mod pair;
/// A front-end that behaves.
mod port;
/// The thread that changes things meanwhile.
mod race;
/// Numbers that come again.
mod random;
/// Tables, JSON, Markdown.
mod report;
/// The driver's side of rings.
mod ring;
/// Back-ends, started.
mod stage;
/// The socket.
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

use self::attack::Attack;
use self::cases::{Instance, Play};
use self::frontend::Setup;
use self::judge::{Judge, Outcome, UNREACHED};
use self::random::Random;
use self::report::Results;
use self::stage::{BackEnd, Sockets};

/// Back-ends that are attacked at the same time when it has to be fast, each beside a pair of its
/// own: what a case takes is waiting for the most part. They share the CPUs, which may delay frames: a
/// case that has slowed the pair down or cost it frames, or was not reached, is judged by itself in
/// the end, and that counts.
const SIDE_BY_SIDE: usize = 3;

/// Plays a hostile vhost-user front-end against back-ends, each beside a well-behaved pair.
#[derive(Debug, Parser)]
#[command(name = "ringway-hostile", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Inner>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct Options {
    /// Attack the back-end that listens here, instead of starting one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Another port of that back-end, which exchanges frames with the attacked one
    #[arg(long, value_name = "PATH", requires = "socket")]
    witness: Option<PathBuf>,
    /// Two further ports of that back-end, for the well-behaved pair: give it twice
    #[arg(long, value_name = "PATH", requires = "socket")]
    pair: Vec<PathBuf>,
    /// What to start and attack
    #[arg(long, value_name = "NAME", default_value = "ringway",
        value_parser = ["ringway", "dpdk", "ovs", "all"])]
    back_end: String,
    /// Only cases whose name contains NAME; may be repeated
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// List the cases and do nothing
    #[arg(long)]
    list: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Have every lie last for a moment only: all cases in less than a minute
    #[arg(long)]
    fast: bool,
    /// Print what the back-end logs during each case
    #[arg(long)]
    verbose: bool,
    /// Write the results into docs/hostile.md
    #[arg(long)]
    write: bool,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// Plays one case: what this program starts for each
    #[command(hide = true)]
    Attack {
        #[arg(long)]
        case: String,
        #[arg(long)]
        socket: PathBuf,
        #[arg(long)]
        witness: Option<PathBuf>,
        #[arg(long)]
        dwell_ms: u64,
    },
    /// Serves the file that everybody waits for, on standard input
    #[command(hide = true)]
    ServeFuse {
        #[arg(long)]
        owner: u32,
    },
}

fn main() -> ExitCode {
    let Arguments { command, options } = Arguments::parse();
    let result = match command {
        Some(Inner::Attack { case, socket, witness, dwell_ms }) => {
            let attack = Attack { socket, witness, dwell: Duration::from_millis(dwell_ms) };
            return attack_once(&attack, &case);
        }
        Some(Inner::ServeFuse { owner }) => fuse::serve_for(owner).map(|()| true),
        None => run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringway-hostile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays one case, and prints what was heard.
fn attack_once(attack: &Attack, name: &str) -> ExitCode {
    machine::stay_away();
    let Some(instance) = cases::all().into_iter().find(|instance| instance.name() == name) else {
        eprintln!("there is no case {name}");
        return ExitCode::FAILURE;
    };
    match play(attack, &instance) {
        Ok(heard) => {
            println!("{heard}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            u8::try_from(UNREACHED).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// Plays a case as it is and, where it is one of rings, again while another thread changes what it
/// has written.
fn play(attack: &Attack, instance: &Instance) -> Result<String> {
    let (setup, lie) = match (instance.case.play, instance.format) {
        (Play::Wire(play), _) => return Ok(play(attack)?.0),
        (Play::Rings(setup, lie), Some(format)) => (setup(Setup::new(format, attack::SIZE)), lie),
        (Play::Rings(..), None) => bail!("a case of rings needs a format"),
    };
    let mut scene = attack.scene(&setup)?;
    lie(&mut scene);
    scene.dwell(attack.dwell / 2);
    let heard = cases::Heard::on(&scene.frontend.wire).0;
    drop(scene);

    let mut scene = attack.scene(&setup)?;
    let before = race::snapshot(&scene.frontend.memory);
    lie(&mut scene);
    let seed = Random::named(&instance.name()).next();
    scene.race(&before, attack.dwell, seed)?;
    Ok(format!("{heard}; racing: {}", cases::Heard::on(&scene.frontend.wire).0))
}

fn run(options: &Options) -> Result<bool> {
    let asked = |instance: &Instance| {
        options.case.is_empty() || options.case.iter().any(|part| instance.name().contains(part))
    };
    let cases: Vec<_> = cases::all().into_iter().filter(asked).collect();
    ensure!(!cases.is_empty(), "no case has a name that contains {:?}; try --list", options.case);
    if options.list {
        list(&cases, options.json);
        return Ok(true);
    }
    let mut all = Vec::new();
    for back_end in back_ends(options)? {
        if let Some(why) = back_end.missing() {
            ensure!(options.back_end == "all", "{}: {why}", back_end.name());
            eprintln!("{}: left out: {why}", back_end.name());
            continue;
        }
        all.push(play_all(&back_end, &cases, options)?);
    }
    if options.json {
        let json: Vec<_> = all.iter().map(Results::json).collect();
        println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        all.iter().for_each(|results| println!("{}", results.summary()));
    }
    if options.write {
        write_page(&all)?;
    }
    // Others are looked at, not tested.
    let ours = all.iter().filter(|results| ["ringway", "given"].contains(&results.name));
    Ok(ours
        .into_iter()
        .all(|results| results.is_clean() && (results.name == "given" || results.unreached() == 0)))
}

fn play_all(back_end: &BackEnd, cases: &[Instance], options: &Options) -> Result<Results> {
    let (name, description) = (back_end.name(), back_end.describe());
    if !options.json {
        println!("{description}: {} cases", cases.len());
    }
    let dwell = Duration::from_millis(if options.fast { 40 } else { 240 });
    let judge = || Judge::new(back_end.clone(), dwell, options.verbose);
    let say = |instance: &Instance, outcome: &Outcome| {
        if !options.json {
            println!("{}", report::line(instance, outcome));
        }
    };
    let mut outcomes = vec![None; cases.len()];
    if options.fast && back_end.can_be_several() {
        play_side_by_side(cases, judge, say, &mut outcomes)?;
    }
    if outcomes.contains(&None) {
        let mut judge = judge()?;
        for (instance, outcome) in cases.iter().zip(&mut outcomes) {
            if outcome.is_none() {
                let judged = judge.judge(instance).with_context(|| instance.name())?;
                say(instance, &judged);
                *outcome = Some(judged);
            }
        }
    }
    let rows = cases.iter().copied().zip(outcomes.into_iter().flatten()).collect();
    Ok(Results { name, description, rows })
}

/// Plays cases on several back-ends; leaves those without an outcome that are to be judged by
/// themselves.
fn play_side_by_side(
    cases: &[Instance],
    judge: impl Fn() -> Result<Judge> + Sync,
    say: impl Fn(&Instance, &Outcome) + Sync,
    outcomes: &mut [Option<Outcome>],
) -> Result<()> {
    let rest = Mutex::new(cases.iter().zip(outcomes));
    let play_some = || {
        let mut judge = judge()?;
        loop {
            let next = rest.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((instance, outcome)) = next else { return Ok(()) };
            *outcome = judge.judge_beside_others(instance).with_context(|| instance.name())?;
            if let Some(outcome) = outcome {
                say(instance, outcome);
            }
        }
    };
    std::thread::scope(|scope| {
        let judges = [(); SIDE_BY_SIDE].map(|()| scope.spawn(play_some));
        judges.into_iter().try_for_each(|judge| judge.join().expect("a judge has panicked"))
    })
}

fn back_ends(options: &Options) -> Result<Vec<BackEnd>> {
    if let Some(socket) = &options.socket {
        let pair = match options.pair.as_slice() {
            [] => None,
            [a, b] => Some([a.clone(), b.clone()]),
            _ => bail!("--pair: {} ports given, expected none or two", options.pair.len()),
        };
        let (attacked, witness) = (socket.clone(), options.witness.clone());
        return Ok(vec![BackEnd::Given(Sockets { attacked, witness, pair })]);
    }
    let asked =
        |back_end: &BackEnd| options.back_end == "all" || options.back_end == back_end.name();
    Ok(BackEnd::ALL.into_iter().filter(asked).collect())
}

fn list(cases: &[Instance], json: bool) {
    if json {
        let row = |instance: &Instance| {
            serde_json::json!({
                "case": instance.name(),
                "group": instance.group(),
                "does": instance.case.does,
                "may": instance.case.may.text(),
            })
        };
        println!("{:#}", cases.iter().map(row).collect::<serde_json::Value>());
        return;
    }
    for instance in cases {
        println!(
            "{}\n    {}; may: {}",
            instance.name(),
            instance.case.does,
            instance.case.may.text()
        );
    }
    println!("{} cases", cases.len());
}

/// Replaces what is generated in docs/hostile.md.
fn write_page(results: &[Results]) -> Result<()> {
    const MARK: &str = "<!-- generated by `cargo xtask hostile --back-end all --write` -->\n";
    let path: &Path = &e2e::peers::workspace().join("docs/hostile.md");
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (head, _) =
        text.split_once(MARK).with_context(|| format!("no mark in {}", path.display()))?;
    let date = e2e::process::run(std::process::Command::new("date").args(["-u", "+%-d %B %Y"]))?;
    std::fs::write(path, format!("{head}{MARK}\n{}", report::page(date.trim(), results)))?;
    Ok(())
}
