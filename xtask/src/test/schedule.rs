use std::fs::File;
use std::io::{Read, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::load::Load;

/// Something that a run does, beside others where it can.
pub struct Job<'a> {
    pub name: String,
    /// Jobs that must have succeeded before, by name. Those that the run does not have do not count.
    pub after: Vec<&'static str>,
    /// The jobs behind which it comes, if they are to be run, whatever becomes of them.
    pub behind: Vec<&'static str>,
    /// Nothing else may run at the same time: it measures, or it judges how others fare.
    pub alone: bool,
    /// What it takes of the machine: what waits for others has room beside more.
    pub share: usize,
    pub work: Work<'a>,
}

pub type Work<'a> = Box<dyn FnOnce(&Output) -> Result<()> + Send + 'a>;

/// What has become of a job.
#[derive(Debug)]
pub struct Done {
    pub name: String,
    pub result: Result<(), String>,
    pub time: Duration,
    /// How much of the CPUs nobody has used meanwhile, in percent.
    pub idle: u64,
}

/// Where the programs of a job write: to a file, so that what runs side by side is not mixed up.
#[derive(Debug)]
pub struct Output(Option<File>);

impl Output {
    /// Runs a program to its end, which must be a good one.
    ///
    /// # Errors
    /// When it cannot be started or its status is not 0.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        if let Some(file) = &self.0 {
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
        }
        let line = line(command);
        let status = command.status().with_context(|| line.clone())?;
        ensure!(status.success(), "{line}: {status}");
        Ok(())
    }

    /// Runs a program, whose errors go to the output, and gives what it writes, and whether its end
    /// was a good one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn read(&self, command: &mut Command) -> Result<(String, Result<()>)> {
        if let Some(file) = &self.0 {
            command.stdin(Stdio::null()).stderr(file.try_clone()?);
        }
        let line = line(command);
        let child = command.stdout(Stdio::piped()).spawn().with_context(|| line.clone())?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let end = match output.status.success() {
            true => Ok(()),
            false => Err(anyhow!("{line}: {}", output.status)),
        };
        Ok((text, end))
    }

    /// Writes a text as a program would.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, text: &str) -> Result<()> {
        match &self.0 {
            Some(file) => Ok((&*file).write_all(text.as_bytes())?),
            None => Ok(std::io::stdout().write_all(text.as_bytes())?),
        }
    }

    /// Prints what there is.
    fn print(mut self) -> Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        std::io::stdout().write_all(&bytes)?;
        Ok(())
    }
}

/// A command as one would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// The share of a job that computes all the time, of one CPU.
pub const WHOLE: usize = 4;

/// The share of a job that waits for half of the time, or nearly so.
pub const WAITING: usize = 2;

/// The share of a job that hardly computes.
pub const IDLE: usize = 1;

/// Runs all jobs, as many at a time as there is room for on `cpus`, those that come first as early as
/// can be; says when one begins and ends, and what it has written then.
pub fn run(jobs: Vec<Job<'_>>, cpus: usize) -> Vec<Done> {
    let all = jobs.len();
    let (ended, ends) = channel();
    let mut done = Vec::new();
    thread::scope(|scope| {
        let mut waiting = jobs;
        let mut running = Running::default();
        while done.len() < all {
            refuse(&mut waiting, &mut done);
            while let Some(job) = next(&mut waiting, &running, cpus) {
                println!("=== {} begins ({} of {all} done)", job.name, done.len());
                running.jobs.push((job.name.clone(), job.share));
                running.alone = job.alone;
                let ended = ended.clone();
                scope.spawn(move || work(job, all == 1, &ended));
            }
            if !running.jobs.is_empty() {
                let end = take(&ends, done.len() + 1, all);
                running.jobs.retain(|(name, _)| *name != end.name);
                done.push(end);
            }
        }
    });
    done
}

/// What runs at the moment.
#[derive(Default)]
struct Running {
    /// By name, with what each takes.
    jobs: Vec<(String, usize)>,
    /// Whether that is one that runs alone.
    alone: bool,
}

/// Takes a job out that can begin: [`refuse`] has left none that needs one which has failed.
fn next<'a>(waiting: &mut Vec<Job<'a>>, running: &Running, cpus: usize) -> Option<Job<'a>> {
    let busy = !running.jobs.is_empty();
    if busy && running.alone {
        return None;
    }
    let taken: usize = running.jobs.iter().map(|(_, share)| share).sum();
    let awaited = |name: &str, waiting: &[Job<'_>]| {
        waiting.iter().any(|job| job.name == name)
            || running.jobs.iter().any(|(now, _)| now == name)
    };
    let ready = |job: &Job<'_>| {
        let room = taken + job.share <= WHOLE * cpus;
        let may_run = !busy || (room && !job.alone);
        let mut before = job.after.iter().chain(&job.behind);
        may_run && !before.any(|name| awaited(name, waiting))
    };
    let at = waiting.iter().position(ready)?;
    Some(waiting.remove(at))
}

/// Ends the jobs that one which has failed was needed for.
fn refuse(waiting: &mut Vec<Job<'_>>, done: &mut Vec<Done>) {
    let needs = |job: &Job<'_>, done: &[Done]| {
        job.after.iter().copied().find(|name| failed(name, done)).map(str::to_owned)
    };
    while let Some((at, name)) =
        waiting.iter().enumerate().find_map(|(at, job)| Some((at, needs(job, done)?)))
    {
        let result = Err(format!("not run: {name} failed"));
        done.push(Done { name: waiting.remove(at).name, result, time: Duration::ZERO, idle: 0 });
    }
}

fn failed(name: &str, done: &[Done]) -> bool {
    done.iter().any(|done| done.name == name && done.result.is_err())
}

/// Does a job and tells that it has ended.
fn work(job: Job<'_>, to_terminal: bool, ended: &Sender<(Done, Option<Output>)>) {
    let Job { name, work, .. } = job;
    let (start, load) = (Instant::now(), Load::now());
    let output = if to_terminal { Ok(None) } else { tempfile::tempfile().map(Some) };
    let (result, output) = match output.map(Output).context("a file for what it writes") {
        Ok(output) => {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&output)));
            (outcome.unwrap_or_else(|_| bail!("it has panicked")), Some(output))
        }
        Err(error) => (Err(error), None),
    };
    let result = result.map_err(|error| format!("{error:#}"));
    // Who runs the jobs waits for each of them.
    let idle = Load::now().idle_since(load);
    drop(ended.send((Done { name, result, time: start.elapsed(), idle }, output)));
}

/// Waits for the end of a job and says how it went.
fn take(ends: &Receiver<(Done, Option<Output>)>, count: usize, all: usize) -> Done {
    let (mut done, output) = ends.recv().unwrap_or_else(|_| unreachable!("a sender is ours"));
    println!("\n=== {}", done.name);
    if let Some(Err(error)) = output.map(Output::print) {
        done.result = Err(format!("its output: {error:#}"));
    }
    let outcome =
        done.result.as_ref().map_or_else(|error| format!("FAILED: {error}"), |()| "ok".into());
    println!(
        "=== {}: {outcome} ({:.0} s, {count} of {all} done)",
        done.name,
        done.time.as_secs_f64()
    );
    done
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use super::*;

    fn job<'a>(
        name: &str,
        after: &[&'static str],
        work: impl FnOnce() -> Result<()> + Send + 'a,
    ) -> Job<'a> {
        let work = Box::new(move |_: &Output| work());
        let after = after.to_vec();
        Job { name: name.to_owned(), after, behind: Vec::new(), alone: false, share: WHOLE, work }
    }

    fn outcomes(done: &[Done]) -> Vec<(&str, Option<&str>)> {
        done.iter()
            .map(|done| (done.name.as_str(), done.result.as_ref().err().map(String::as_str)))
            .collect()
    }

    #[test]
    fn jobs_wait_for_those_that_they_need_and_fail_with_them() {
        let order = Mutex::new(Vec::new());
        let note = |name: &'static str| {
            let order = &order;
            move || {
                order.lock().unwrap().push(name);
                ensure!(name != "bad", "broken");
                Ok(())
            }
        };
        let done = run(
            vec![
                job("last", &["first", "absent"], note("last")),
                job("never", &["bad"], note("never")),
                job("nor", &["never"], note("nor")),
                job("first", &[], note("first")),
                job("bad", &[], note("bad")),
            ],
            1,
        );
        assert_eq!(*order.lock().unwrap(), ["first", "last", "bad"]);
        let expected = [
            ("first", None),
            ("last", None),
            ("bad", Some("broken")),
            ("never", Some("not run: bad failed")),
            ("nor", Some("not run: never failed")),
        ];
        assert_eq!(outcomes(&done), expected);
    }

    #[test]
    fn a_job_comes_behind_others_whatever_becomes_of_them() {
        let order = Mutex::new(Vec::new());
        let note = |name: &'static str| order.lock().unwrap().push(name);
        let mut last = job("last", &[], || {
            note("last");
            Ok(())
        });
        last.behind = vec!["bad", "absent"];
        let bad = job("bad", &[], || {
            note("bad");
            bail!("broken")
        });
        let done = run(vec![last, bad], 2);
        assert_eq!(*order.lock().unwrap(), ["bad", "last"]);
        assert_eq!(outcomes(&done), [("bad", Some("broken")), ("last", None)]);
    }

    #[test]
    fn as_many_jobs_run_side_by_side_as_there_are_places() {
        // Each of the two ends only when the other one runs as well.
        let both = Barrier::new(2);
        let meet = || {
            both.wait();
            Ok(())
        };
        let done = run(vec![job("a", &[], meet), job("b", &[], meet)], 2);
        assert!(done.len() == 2 && done.iter().all(|done| done.result.is_ok()), "{done:?}");
    }

    #[test]
    fn nothing_runs_beside_a_job_that_must_be_alone() {
        let mut alone = job("alone", &[], || Ok(()));
        alone.alone = true;
        let mut waiting = vec![alone, job("a", &[], || Ok(())), job("b", &[], || Ok(()))];
        let mut running = Running::default();
        let mut next = |running: &Running| next(&mut waiting, running, 2).map(|job| job.name);
        running.jobs.push(("before".to_owned(), WHOLE));
        assert_eq!(next(&running).as_deref(), Some("a"));
        running.jobs.push(("a".to_owned(), WHOLE));
        assert_eq!(next(&running), None);
        running.jobs.clear();
        assert_eq!(next(&running).as_deref(), Some("alone"));
        running = Running { jobs: vec![("alone".to_owned(), WHOLE)], alone: true };
        assert_eq!(next(&running), None);
    }

    #[test]
    fn jobs_that_wait_for_others_have_room_beside_more() {
        let mut waiting: Vec<_> =
            ["a", "b", "c", "d", "e", "f"].map(|name| job(name, &[], || Ok(()))).into();
        for job in waiting.iter_mut().skip(1) {
            job.share = WAITING;
        }
        let mut running = Running::default();
        while let Some(job) = next(&mut waiting, &running, 2) {
            running.jobs.push((job.name.clone(), job.share));
        }
        let names: Vec<&str> = running.jobs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        running.jobs.retain(|(name, _)| name != "a");
        for name in ["d", "e"] {
            let job = next(&mut waiting, &running, 2).unwrap();
            assert_eq!(job.name, name);
            running.jobs.push((job.name, job.share));
        }
        assert!(next(&mut waiting, &running, 2).is_none());
        let mut waiting: Vec<_> = ["g", "h", "i"].map(|name| job(name, &[], || Ok(()))).into();
        waiting.iter_mut().for_each(|job| job.share = IDLE);
        running.jobs.retain(|(name, _)| name != "b");
        for name in ["g", "h"] {
            let job = next(&mut waiting, &running, 2).unwrap();
            assert_eq!(job.name, name);
            running.jobs.push((job.name, job.share));
        }
        assert!(next(&mut waiting, &running, 2).is_none());
    }

    #[test]
    fn what_a_program_writes_is_kept_and_its_failure_named() {
        let output = Output(Some(tempfile::tempfile().unwrap()));
        output.run(Command::new("sh").args(["-c", "echo one; echo two >&2"])).unwrap();
        let (text, end) = output.read(Command::new("sh").args(["-c", "echo three"])).unwrap();
        assert!(text == "three\n" && end.is_ok());
        let (text, end) =
            output.read(Command::new("sh").args(["-c", "echo four; exit 4"])).unwrap();
        let error = end.unwrap_err().to_string();
        assert!(text == "four\n" && error.ends_with("exit status: 4"), "{text} {error}");
        let error = output.run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(error.to_string().starts_with("sh -c exit 3: exit status: 3"), "{error}");
        output.write("five\n").unwrap();
        let mut file = output.0.unwrap();
        let mut written = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut written).unwrap();
        assert_eq!(written, "one\ntwo\nfive\n");
    }
}
