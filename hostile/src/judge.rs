//! What became of the back-end and of everybody else, case by case.

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::Process;

use crate::cases::Instance;
use crate::pair::Tally;
use crate::stage::{BackEnd, Stage};

/// Percent of its pace that the pair may lose.
const SLOWER: u64 = 5;
/// How long the pair may wait for a frame.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a question of the pair's may be unanswered.
const SILENCE: Duration = Duration::from_millis(500);
/// How long an attacker may take; one that takes longer is ended.
const ATTACK: Duration = Duration::from_secs(20);
/// How long a fresh front-end may take until its frame passes.
const FRESH: Duration = Duration::from_secs(5);
/// How often a machine that is too busy to tell is asked again.
const TRIES: usize = 8;
/// The status of an attacker that did not get to its lie.
pub const UNREACHED: i32 = 3;

/// What a case comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody but the attacker noticed anything.
    Survived,
    /// The pair lost frames, or had to wait.
    Harmed(String),
    /// The process has ended.
    Dead(String),
    /// A fresh front-end on the attacked port gets no frame through.
    Stuck(String),
    /// The attacker did not get to its lie, so nothing is known.
    Unreached(String),
}

impl Verdict {
    /// In a word or two.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Survived => "survived",
            Self::Harmed(_) => "neighbour harmed",
            Self::Dead(_) => "back-end dead",
            Self::Stuck(_) => "stuck",
            Self::Unreached(_) => "not reached",
        }
    }

    /// More about it.
    pub fn detail(&self) -> &str {
        match self {
            Self::Survived => "",
            Self::Harmed(why) | Self::Dead(why) | Self::Stuck(why) | Self::Unreached(why) => why,
        }
    }

    /// Whether it counts against the back-end.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Harmed(_) | Self::Dead(_) | Self::Stuck(_))
    }
}

/// The result of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// What the attacker heard.
    pub heard: String,
    pub time: Duration,
}

/// One try of a case.
struct Try {
    verdict: Verdict,
    heard: String,
    /// Whether the pair lost or waited only, which a busy machine can do, too.
    only_slow: bool,
    /// Whether what came at all came unchanged: when the pair itself does not run, because others
    /// do, a flood may leave it no buffers.
    only_late: bool,
}

/// Plays cases on a back-end and starts it again where that is needed.
#[derive(Debug)]
pub struct Judge {
    back_end: BackEnd,
    stage: Option<Stage>,
    dwell: Duration,
    verbose: bool,
}

impl Judge {
    /// Starts the back-end.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn new(back_end: BackEnd, dwell: Duration, verbose: bool) -> Result<Self> {
        let stage = Some(Stage::start(&back_end)?);
        Ok(Self { back_end, stage, dwell, verbose })
    }

    /// Plays a case, and again where something was found.
    ///
    /// # Errors
    /// When the back-end cannot be started again.
    pub fn judge(&mut self, instance: &Instance) -> Result<Outcome> {
        let start = Instant::now();
        let first = self.play(instance)?;
        self.conclude(instance, first, start)
    }

    /// As [`judge`](Self::judge), while others are judged on the same machine. `None` when the pair
    /// was slow or lost frames, or the attacker did not get to its lie, which they may have been the
    /// reason for: such a case is to be judged by itself.
    ///
    /// # Errors
    /// As there.
    pub fn judge_beside_others(&mut self, instance: &Instance) -> Result<Option<Outcome>> {
        let start = Instant::now();
        let first = self.play(instance)?;
        if first.only_late || matches!(first.verdict, Verdict::Unreached(_)) {
            return Ok(None);
        }
        self.conclude(instance, first, start).map(Some)
    }

    fn conclude(&mut self, instance: &Instance, first: Try, start: Instant) -> Result<Outcome> {
        let verdict = match first.verdict {
            Verdict::Survived | Verdict::Unreached(_) => first.verdict,
            _ if first.only_slow => self.confirm_slow(instance)?,
            // What has happened has happened; whether it happens every time is worth knowing.
            fault => {
                let next = self.play(instance)?;
                let again = if next.verdict.is_fault() { "twice" } else { "once in two" };
                let say = |why: String| format!("{why}, {again}");
                match fault {
                    Verdict::Harmed(why) => Verdict::Harmed(say(why)),
                    Verdict::Dead(why) => Verdict::Dead(say(why)),
                    Verdict::Stuck(why) => Verdict::Stuck(say(why)),
                    other => other,
                }
            }
        };
        Ok(Outcome { verdict, heard: first.heard, time: start.elapsed() })
    }

    /// Whether a case slows the pair down every time. A busy machine is no fault of the back-end's:
    /// a try counts only after the pair has kept its pace with nobody attacking, and they last
    /// longer than the first.
    fn confirm_slow(&mut self, instance: &Instance) -> Result<Verdict> {
        for _ in 0..TRIES {
            let dwell = 4 * self.dwell;
            if let Some(pair) = &self.stage()?.pair {
                let begin = pair.begin();
                std::thread::sleep(dwell);
                if harm(&pair.end(begin)).is_some() {
                    continue;
                }
            }
            let usual = std::mem::replace(&mut self.dwell, dwell);
            let again = self.play(instance);
            self.dwell = usual;
            let again = again?.verdict;
            if let Verdict::Harmed(why) = again {
                return Ok(Verdict::Harmed(format!("{why}, twice")));
            }
            return Ok(again);
        }
        Ok(Verdict::Unreached("the machine is too busy to tell".into()))
    }

    /// The back-end, started if it does not run.
    fn stage(&mut self) -> Result<&mut Stage> {
        let stage = match self.stage.take() {
            Some(stage) => stage,
            None => Stage::start(&self.back_end)?,
        };
        Ok(self.stage.insert(stage))
    }

    fn play(&mut self, instance: &Instance) -> Result<Try> {
        let dwell = self.dwell;
        let verbose = self.verbose;
        let stage = self.stage()?;
        let mark = stage.log().len();
        let begin = stage.pair.as_ref().map(crate::pair::Pair::begin);
        let start = Instant::now();
        let (heard, reached) = attack(stage, instance, dwell)?;
        // Long enough for a rate.
        std::thread::sleep(Duration::from_millis(60).saturating_sub(start.elapsed()));
        let mut result =
            Try { verdict: Verdict::Survived, heard, only_slow: false, only_late: false };
        let mut restart = false;
        if let Some(status) = stage.ended() {
            (result.verdict, restart) = (Verdict::Dead(how_ended(status)), true);
        } else {
            let tally = stage.pair.as_ref().zip(begin).map(|(pair, begin)| pair.end(begin));
            let fresh = stage.probe(FRESH);
            let flows = stage.pair.as_ref().is_none_or(crate::pair::Pair::flows);
            if let Some(status) = stage.ended() {
                (result.verdict, restart) = (Verdict::Dead(how_ended(status)), true);
            } else if !flows {
                let why = "nothing passes any more".to_owned();
                (result.verdict, restart) = (Verdict::Harmed(why), true);
            } else if let Err(error) = fresh {
                (result.verdict, restart) = (Verdict::Stuck(format!("{error:#}")), true);
            } else if let Some(why) = tally.as_ref().and_then(harm) {
                result.verdict = Verdict::Harmed(why);
                result.only_slow = tally.is_some_and(|tally| tally.lost + tally.wrong == 0);
                result.only_late = tally.is_some_and(|tally| tally.wrong == 0);
            } else if !reached {
                result.verdict = Verdict::Unreached(result.heard.clone());
            }
        }
        if verbose {
            let log = stage.log();
            println!("{}", log.get(mark..).unwrap_or_default());
        }
        if restart && !matches!(self.back_end, BackEnd::Given(_)) {
            self.stage = None;
        }
        Ok(result)
    }
}

/// Has another process attack; gives what it heard, and whether it got to its lie.
fn attack(stage: &Stage, instance: &Instance, dwell: Duration) -> Result<(String, bool)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["attack", "--case", &instance.name(), "--socket"]).arg(&stage.sockets.attacked);
    command.args(["--dwell-ms", &dwell.as_millis().to_string()]);
    if let Some(witness) = &stage.sockets.witness {
        command.arg("--witness").arg(witness);
    }
    let mut attacker = Process::start("attacker", command).context("the attacker")?;
    let status = attacker.wait(ATTACK);
    // One that did not come to its end has not said all that it had to say.
    let reached = status.as_ref().is_ok_and(|status| status.code() != Some(UNREACHED));
    attacker.kill();
    // It is at its end.
    let _ = attacker.wait_output_end(Duration::from_secs(1));
    let text = attacker.log();
    let heard = match status {
        Ok(status) if status.success() || status.code() == Some(UNREACHED) => {
            text.trim().to_owned()
        }
        Ok(status) => format!("attacker {}: {}", how_ended(status), text.trim()),
        Err(_) => "attacker waited for too long".to_owned(),
    };
    Ok((heard, reached))
}

fn how_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(libc::SIGSEGV), _) => "SIGSEGV".into(),
        (Some(libc::SIGBUS), _) => "SIGBUS".into(),
        (Some(libc::SIGABRT), _) => "SIGABRT".into(),
        (Some(libc::SIGFPE), _) => "SIGFPE".into(),
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("status {}", code.unwrap_or(-1)),
    }
}

/// What the pair suffered, if anything.
fn harm(tally: &Tally) -> Option<String> {
    let mut all = Vec::new();
    if tally.lost > 0 {
        all.push(format!("{} of {} lost", tally.lost, tally.due));
    }
    if tally.wrong > 0 {
        all.push(format!("{} wrong", tally.wrong));
    }
    if tally.slower() > SLOWER {
        all.push(format!("{} % slower", tally.slower()));
    }
    if tally.pause > PAUSE {
        all.push(format!("paused {} ms", tally.pause.as_millis()));
    }
    if tally.silence > SILENCE {
        all.push(format!("unanswered for {} ms", tally.silence.as_millis()));
    }
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_over_a_limit_is_harm() {
        let tally = Tally { received: 95, missed: 5, due: 100, pause: PAUSE, ..Tally::default() };
        assert_eq!(harm(&tally), None);
        assert_eq!(harm(&Tally { lost: 1, ..tally }).unwrap(), "1 of 100 lost");
        assert_eq!(harm(&Tally { missed: 6, ..tally }).unwrap(), "6 % slower");
        let pause = PAUSE + Duration::from_millis(1);
        assert_eq!(harm(&Tally { pause, wrong: 2, ..tally }).unwrap(), "2 wrong, paused 201 ms");
    }

    #[test]
    fn a_case_that_was_not_reached_is_no_fault_and_no_success() {
        let unreached = Verdict::Unreached("no such feature".into());
        assert!(!unreached.is_fault() && unreached != Verdict::Survived);
        assert!(Verdict::Stuck(String::new()).is_fault());
    }
}
