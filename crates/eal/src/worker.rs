//! Workers: named threads, each bound to a core of its own where one is given.

#[cfg(all(test, loom))]
mod models;

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use thiserror::Error;

use crate::cores::{CoreError, pin_current};
use crate::counter::CacheAligned;
use crate::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{EventFd, mpsc};

/// Why a worker did not start.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The worker cannot run on its core.
    #[error("worker \"{name}\": {source}")]
    Core {
        /// Name of the worker.
        name: String,
        /// What is wrong with the core.
        source: CoreError,
    },
    /// Another worker of the same group, which has not ended, has the core.
    #[error("worker \"{name}\": core {core} already belongs to worker \"{owner}\"")]
    Taken {
        /// Name of the worker.
        name: String,
        /// The core.
        core: usize,
        /// Name of the worker that has it.
        owner: String,
    },
    /// The name cannot be a thread's.
    #[error("worker name {name:?}: expected a name without NUL")]
    Name {
        /// The name given.
        name: String,
    },
    /// The system has no thread or descriptor left.
    #[error("worker \"{name}\": cannot start a thread: {source}")]
    Spawn {
        /// Name of the worker.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Name of the worker.
    pub name: String,
    /// Index of the worker.
    pub index: usize,
    /// The message of the panic that ended it; `None` when it returned.
    pub panic: Option<String>,
}

/// What a worker knows about itself.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    index: usize,
    core: Option<usize>,
    stop: Arc<Stop>,
}

/// The wish that a group of workers end: a flag for those that poll, an event for those asleep.
#[derive(Debug)]
struct Stop {
    flag: CacheAligned<AtomicBool>,
    event: EventFd,
}

impl WorkerContext {
    /// Whether the worker is asked to return: one load, to be asked once per round of bursts.
    #[must_use]
    #[inline]
    pub fn should_stop(&self) -> bool {
        self.stop.flag.0.load(Acquire)
    }

    /// Readable once the worker is asked to return, and ever after: for a worker that sleeps. Do
    /// not read from it; the other workers of the group wait for the same.
    #[must_use]
    pub fn stop_event(&self) -> BorrowedFd<'_> {
        self.stop.event.as_fd()
    }

    /// Number of the worker in its group, from 0 in the order of starting.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The core that it is bound to, if any.
    #[must_use]
    pub const fn core(&self) -> Option<usize> {
        self.core
    }
}

struct Worker {
    name: String,
    core: Option<usize>,
    /// Whether its work is over, set before `exited` tells so: the thread itself takes a moment
    /// more to end.
    ended: Arc<AtomicBool>,
    /// `None` once it was waited for.
    thread: Option<JoinHandle<Option<String>>>,
    /// The message of its panic, if it was waited for.
    panic: Option<String>,
}

impl Worker {
    /// Waits until it has ended, and gives the message of its panic.
    fn join(&mut self) -> Option<String> {
        if let Some(thread) = self.thread.take() {
            self.panic = thread.join().unwrap_or_else(|payload| Some(message(&*payload)));
        }
        self.panic.clone()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, core, ended, thread: _, panic: _ } = self;
        f.debug_struct("Worker")
            .field("name", name)
            .field("core", core)
            .field("ended", &ended.load(Acquire))
            .finish_non_exhaustive()
    }
}

/// What a worker does. In a box, so that starting one is the same whatever it does.
type Work = Box<dyn FnOnce(WorkerContext) + Send>;

/// A group of workers that are stopped together. Dropping it stops and joins them.
#[derive(Debug)]
pub struct Workers {
    stop: Arc<Stop>,
    exited: Arc<EventFd>,
    workers: Vec<Worker>,
}

impl Workers {
    /// A group without workers.
    ///
    /// # Errors
    ///
    /// When the process has too many file descriptors open.
    pub fn new() -> io::Result<Self> {
        let flag = CacheAligned(AtomicBool::new(false));
        let stop = Stop { flag, event: EventFd::new()? };
        let exited = Arc::new(EventFd::new()?);
        Ok(Self { stop: Arc::new(stop), exited, workers: Vec::new() })
    }

    /// Starts a worker on `core` (`None`: wherever the kernel likes), which runs `work` until
    /// that returns, and tells its index. `name` is the thread's, of which Linux shows 15 bytes.
    ///
    /// A panic in `work` is logged, once, and ends this worker only; [`join`](Self::join) tells
    /// it.
    ///
    /// # Errors
    ///
    /// When it cannot be bound to its core, or no thread can be had; then `work` has not run.
    pub fn start(
        &mut self,
        name: &str,
        core: Option<usize>,
        work: impl FnOnce(WorkerContext) + Send + 'static,
    ) -> Result<usize, WorkerError> {
        self.start_boxed(name, core, Box::new(work))
    }

    fn start_boxed(
        &mut self,
        name: &str,
        core: Option<usize>,
        work: Work,
    ) -> Result<usize, WorkerError> {
        self.check(name, core)?;
        let index = self.workers.len();
        let context = WorkerContext { index, core, stop: Arc::clone(&self.stop) };
        let exited = Arc::clone(&self.exited);
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ended);
        let (pinned, is_pinned) = mpsc::channel();
        let thread_name = name.to_owned();
        let spawn_error = |source| WorkerError::Spawn { name: name.to_owned(), source };
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = core.map_or(Ok(()), pin_current);
                let ready = result.is_ok();
                if pinned.send(result).is_err() || !ready {
                    return None;
                }
                let panic = run(&thread_name, context, work);
                has_ended.store(true, Release);
                let _ = exited.signal();
                panic
            })
            .map_err(spawn_error)?;
        match is_pinned.recv() {
            Ok(Ok(())) => {}
            Ok(Err(source)) => {
                let _ = thread.join();
                return Err(WorkerError::Core { name: name.to_owned(), source });
            }
            Err(_) => return Err(spawn_error(io::Error::other("the thread ended at once"))),
        }
        self.workers.push(Worker {
            name: name.to_owned(),
            core,
            ended,
            thread: Some(thread),
            panic: None,
        });
        Ok(index)
    }

    fn check(&self, name: &str, core: Option<usize>) -> Result<(), WorkerError> {
        if name.contains('\0') {
            return Err(WorkerError::Name { name: name.to_owned() });
        }
        let Some(core) = core else { return Ok(()) };
        let owns = |worker: &&Worker| worker.core == Some(core) && !worker.ended.load(Acquire);
        match self.workers.iter().find(owns) {
            None => Ok(()),
            Some(owner) => {
                Err(WorkerError::Taken { name: name.to_owned(), core, owner: owner.name.clone() })
            }
        }
    }

    /// Number of workers started, whether they still run or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether none was started.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Whether worker `index` has ended, by returning or by a panic; `false` if there is none. What
    /// its work has written is seen by whoever hears of it here.
    #[must_use]
    pub fn has_ended(&self, index: usize) -> bool {
        self.workers.get(index).is_some_and(|worker| worker.ended.load(Acquire))
    }

    /// Readable once a worker has ended, for a main loop that wants to know of a panic at once:
    /// [`has_ended`](Self::has_ended) tells which one.
    #[must_use]
    pub fn exited(&self) -> BorrowedFd<'_> {
        self.exited.as_fd()
    }

    /// Asks all workers to return; does not wait for them.
    pub fn stop(&self) {
        self.stop.flag.0.store(true, Release);
        // It fails only for a descriptor of another kind.
        let _ = self.stop.event.signal();
    }

    /// Waits until worker `index` has ended, which it must have been told in a way of its own. Its core
    /// is free for another one then.
    pub fn wait(&mut self, index: usize) {
        if let Some(worker) = self.workers.get_mut(index) {
            let _ = worker.join();
        }
    }

    /// Waits until all workers have ended, which they do only when [`stop`](Self::stop)ped or by
    /// themselves, and tells how, in the order of starting.
    pub fn join(mut self) -> Vec<Exit> {
        self.join_all()
    }

    fn join_all(&mut self) -> Vec<Exit> {
        let workers = std::mem::take(&mut self.workers).into_iter().enumerate();
        workers
            .map(|(index, mut worker)| {
                let panic = worker.join();
                Exit { name: worker.name, index, panic }
            })
            .collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
        self.join_all();
    }
}

/// Runs `work` and returns the message of its panic, if it panicked.
fn run(name: &str, context: WorkerContext, work: Work) -> Option<String> {
    let (index, core) = (context.index, context.core);
    // What `work` owned is dropped by the unwinding and seen by nobody afterwards; what it
    // shared is made for being left at any point (`Handover`, counters).
    let payload = catch_unwind(AssertUnwindSafe(|| work(context))).err()?;
    let panic = message(&*payload);
    tracing::error!(worker = name, index, core, panic, "worker panicked; the others go on");
    Some(panic)
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
        .to_owned()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::cores::CoreList;
    use crate::event::{Epoll, Events, Interest};

    fn poll(context: &WorkerContext) {
        while !context.should_stop() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_worker_that_has_ended_leaves_its_core_to_another() {
        let core = CoreList::available().unwrap().iter().next();
        let mut workers = Workers::new().unwrap();
        let (end, ends) = channel::<()>();
        let first = workers.start("first", core, move |_| _ = ends.recv()).unwrap();
        assert!(matches!(workers.start("second", core, |_| ()), Err(WorkerError::Taken { .. })));
        end.send(()).unwrap();
        workers.wait(first);
        assert!(workers.has_ended(first));
        let second = workers.start("second", core, |_| panic!("on purpose")).unwrap();
        (0..2).for_each(|_| workers.wait(second));
        workers.start("third", core, |context| poll(&context)).unwrap();
        workers.stop();
        let panics: Vec<_> = workers.join().into_iter().map(|exit| exit.panic).collect();
        assert_eq!(panics, [None, Some("on purpose".to_owned()), None]);
    }

    #[test]
    fn workers_run_on_their_cores_until_stopped() {
        let cores = CoreList::available().unwrap();
        let mut workers = Workers::new().unwrap();
        let (told, hears) = channel();
        for core in cores.iter().map(Some).chain([None]) {
            let told = told.clone();
            let start = workers.start("poller", core, move |context| {
                let runs_on = CoreList::available().unwrap();
                let name = std::thread::current().name().map(str::to_owned);
                told.send((context.index(), context.core(), runs_on, name)).unwrap();
                poll(&context);
            });
            let index = start.unwrap();
            let (told_index, told_core, runs_on, name) = hears.recv().unwrap();
            assert_eq!((told_index, told_core, name.as_deref()), (index, core, Some("poller")));
            assert_eq!(runs_on, core.map_or(cores.clone(), |c| c.to_string().parse().unwrap()));
            assert!(!workers.has_ended(index));
        }
        workers.stop();
        let exits = workers.join();
        assert_eq!(exits.len(), cores.len() + 1);
        assert!(exits.iter().all(|exit| exit.panic.is_none()));
    }

    #[test]
    fn a_panic_is_told_and_the_others_go_on() {
        let mut workers = Workers::new().unwrap();
        let (told, hears) = channel();
        workers
            .start("good", None, move |context| {
                poll(&context);
                told.send(()).unwrap();
            })
            .unwrap();
        workers.start("bad", None, |context| panic!("worker {} broke", context.index())).unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(workers.exited(), 0, Interest::READ).unwrap();
        let mut events = Events::new();
        epoll.wait(&mut events, Some(Duration::from_secs(20))).unwrap();
        assert_eq!(events.as_slice().len(), 1);
        assert!(!workers.has_ended(0) && workers.has_ended(1));
        assert!(hears.try_recv().is_err());
        workers.stop();
        let exits = workers.join();
        hears.recv().unwrap();
        assert_eq!(exits[0], Exit { name: "good".to_owned(), index: 0, panic: None });
        assert_eq!(exits[1].panic.as_deref(), Some("worker 1 broke"));
    }

    #[test]
    fn a_core_that_cannot_be_had_is_named_and_nothing_runs() {
        let mut workers = Workers::new().unwrap();
        let (told, hears) = channel::<()>();
        let error = workers.start("w", Some(1_000), move |_| told.send(()).unwrap()).unwrap_err();
        assert!(error.to_string().contains("core 1000"), "{error}");
        assert!(hears.recv().is_err() && workers.is_empty());

        let core = CoreList::available().unwrap().as_slice()[0];
        workers.start("first", Some(core), |context| poll(&context)).unwrap();
        let error = workers.start("second", Some(core), |_| ()).unwrap_err().to_string();
        assert!(error.contains("first") && error.contains("second"), "{error}");
    }

    #[test]
    fn workers_that_sleep_hear_of_the_stop() {
        let mut workers = Workers::new().unwrap();
        for _ in 0..2 {
            let sleep = |context: WorkerContext| {
                let epoll = Epoll::new().unwrap();
                epoll.add(context.stop_event(), 7, Interest::READ).unwrap();
                let mut events = Events::new();
                epoll.wait(&mut events, Some(Duration::from_secs(20))).unwrap();
                assert!(context.should_stop() && events.as_slice()[0].token == 7);
            };
            workers.start("sleeper", None, sleep).unwrap();
        }
        workers.stop();
        assert!(workers.join().iter().all(|exit| exit.panic.is_none()));
    }

    #[test]
    fn dropping_the_group_stops_it() {
        let (told, hears) = channel();
        let mut workers = Workers::new().unwrap();
        workers
            .start("w", None, move |context| {
                poll(&context);
                told.send(()).unwrap();
            })
            .unwrap();
        drop(workers);
        hears.try_recv().unwrap();
    }
}
