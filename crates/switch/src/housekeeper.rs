//! What happens on a thread of its own: once a second time goes on and entries expire, and when
//! the link of a port changes the port is looked after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use eal::channel::{Receiver, Sender, channel};
use eal::time::Time;
use fdb::Fdb;

use crate::error::Error;

pub(crate) const TICK: Duration = Duration::from_secs(1);

/// The share of the ageing time in which all entries are looked at once.
const SHARE: u32 = 8;

/// The most seconds between two looks at an entry.
const LONGEST: u32 = 30;

/// The most that is done one after the other before notes are looked at again.
const AT_ONCE: usize = 1_000;

/// Keeps the time of a forwarding database and removes what has expired, a piece per second.
#[derive(Debug)]
pub(crate) struct Ager {
    fdb: Arc<Fdb>,
    /// The bucket to go on with.
    next: usize,
    second: u32,
}

impl Ager {
    /// Ages `fdb`.
    pub(crate) fn new(fdb: Arc<Fdb>) -> Self {
        Self { second: fdb.now(), fdb, next: 0 }
    }

    /// How many buckets to look at per second.
    fn step(&self) -> usize {
        let rounds = (self.fdb.ageing() / SHARE).clamp(1, LONGEST) as usize;
        self.fdb.buckets().div_ceil(rounds)
    }

    /// It is `elapsed` since the start.
    pub(crate) fn tick(&mut self, elapsed: Duration) {
        let now = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let seconds = now.saturating_sub(self.second).min(LONGEST);
        if seconds > 0 {
            self.second = now;
            self.fdb.set_now(now);
        }
        // After a longer time, as when the machine was suspended, all that was not done meanwhile.
        for _ in 0..seconds {
            self.next = self.fdb.expire(self.next, self.step());
        }
    }
}

/// Does so for all forwarding databases.
#[derive(Debug, Default)]
pub(crate) struct Agers(Vec<Ager>);

impl Agers {
    /// It is `elapsed` since the start, and `fdbs` are all that there are by now.
    pub(crate) fn tick(&mut self, fdbs: Vec<Arc<Fdb>>, elapsed: Duration) {
        self.0.retain(|ager| fdbs.iter().any(|fdb| Arc::ptr_eq(fdb, &ager.fdb)));
        for fdb in fdbs {
            if !self.0.iter().any(|ager| Arc::ptr_eq(&fdb, &ager.fdb)) {
                self.0.push(Ager::new(fdb));
            }
        }
        self.0.iter_mut().for_each(|ager| ager.tick(elapsed));
    }
}

/// What the thread is woken up for.
enum Note {
    Notice(Arc<Notice>),
    /// The clock was moved.
    Time,
    /// Something has become due, or will.
    Due,
    /// Somebody waits until what is due has been done.
    Answer(Sender<()>),
    Stop,
}

/// What there is to do.
#[derive(Debug)]
pub(crate) enum Task {
    /// A second is over: it is so long since the start.
    Second(Duration),
    /// The link of the port of this number may have changed.
    Link(u16),
    /// Something is due that was asked for, or somebody wants to be asked when something is.
    Due,
}

/// The way to have a port looked after.
#[derive(Clone, Debug)]
pub(crate) struct Notes(Sender<Note>);

impl Notes {
    /// Has it be asked when there is something to do.
    pub(crate) fn ask(&self) {
        // It fails when the thread is gone, and nothing is to be done any more.
        let _ = self.0.send(Note::Due);
    }

    /// The same, for those who would do so often: however often that happens, at most one note is
    /// under way.
    pub(crate) fn once(&self) -> impl Fn() + Send + Sync + 'static {
        self.noticed(None)
    }

    /// For the listener of port `number`: calling it is quick, and however often that happens,
    /// at most one note is under way.
    pub(crate) fn of_port(&self, number: u16) -> impl Fn() + Send + Sync + 'static {
        self.noticed(Some(number))
    }

    fn noticed(&self, number: Option<u16>) -> impl Fn() + Send + Sync + 'static {
        let notice = Arc::new(Notice { number, sent: AtomicBool::new(false) });
        let notes = self.0.clone();
        move || {
            if !notice.sent.swap(true, SeqCst) {
                // It fails when the thread is gone, and the ports will be soon.
                let _ = notes.send(Note::Notice(Arc::clone(&notice)));
            }
        }
    }
}

#[derive(Debug)]
struct Notice {
    /// The port, if it is about one.
    number: Option<u16>,
    /// A note is under way, so that whatever a peer does, there is no second one.
    sent: AtomicBool,
}

/// The way to the thread, and where it will read; see [`Housekeeper::start`].
pub(crate) fn notes() -> (Notes, Inbox) {
    let (sender, inbox) = channel();
    (Notes(sender), Inbox(inbox))
}

/// Where the thread reads.
pub(crate) struct Inbox(Receiver<Note>);

impl Inbox {
    /// The next note, if one comes within `wait`; absent: for ever.
    fn next(&self, wait: Option<Duration>) -> Option<Note> {
        match wait {
            Some(wait) => match self.0.recv_timeout(wait) {
                Ok(note) => Some(note),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Note::Stop),
            },
            None => Some(self.0.recv().unwrap_or(Note::Stop)),
        }
    }
}

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    notes: Notes,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeper {
    /// Starts the thread, which calls `work` once a second, by `time`, for every note, and when that
    /// has said that it is to be called next.
    pub(crate) fn start(
        notes: Notes,
        inbox: Inbox,
        time: Time,
        work: impl FnMut(Task) -> Option<Instant> + Send + 'static,
    ) -> Result<Self, Error> {
        let moved = notes.0.clone();
        time.on_change(move || moved.send(Note::Time).is_ok());
        // Not when the thread begins: the clock may have been moved by then.
        let start = time.now();
        let thread = Builder::new().name("switch-time".to_owned());
        let thread = eal::thread::spawn(thread, move || run(&inbox, &time, start, work))
            .map_err(|source| Error::System { action: "start a thread", source })?;
        Ok(Self { notes, thread: Some(thread) })
    }

    /// Returns when all that was due is done.
    pub(crate) fn catch_up(&self) {
        let (sender, done) = channel();
        if self.notes.0.send(Note::Answer(sender)).is_ok() {
            // An error says that the thread has ended.
            let _ = done.recv();
        }
    }
}

fn run(inbox: &Inbox, time: &Time, start: Instant, mut work: impl FnMut(Task) -> Option<Instant>) {
    let mut next = TICK;
    let mut due: Option<Instant> = None;
    loop {
        let mut asked = None;
        let tick = start.checked_add(next);
        let soonest = tick.into_iter().chain(due).min();
        match inbox.next(soonest.and_then(|soonest| time.until(soonest))) {
            Some(Note::Stop) => return,
            Some(Note::Notice(notice)) => {
                // First this: what happens from now on is worth another note.
                notice.sent.store(false, SeqCst);
                due = work(notice.number.map_or(Task::Due, Task::Link));
            }
            Some(Note::Due) => due = work(Task::Due),
            Some(Note::Answer(sender)) => asked = Some(sender),
            Some(Note::Time) | None => {}
        }
        // Notes, however many, do not stop the time.
        let elapsed = time.now().saturating_duration_since(start);
        if elapsed >= next {
            next = elapsed.saturating_add(TICK);
            due = work(Task::Second(elapsed));
        }
        // Where the clock was put forward, one thing after the other.
        for _ in 0..AT_ONCE {
            if due.is_none_or(|due| due > time.now()) {
                break;
            }
            due = work(Task::Due);
        }
        if let Some(asked) = asked {
            let _ = asked.send(());
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        let _ = self.notes.0.send(Note::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that ages the forwarding database has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use fdb::Key;

    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_port_has_one_note_under_way_at_most_and_time_goes_on_meanwhile() {
        let (notes, inbox) = notes();
        let (links, seconds) = (mpsc::channel(), mpsc::channel());
        let (told, may_go_on) = mpsc::channel::<()>();
        let (link, second) = (links.0, seconds.0);
        let notify = [notes.of_port(3), notes.of_port(4)];
        for _ in 0..1_000 {
            notify[0]();
        }
        let time = Time::stopped();
        let housekeeper = Housekeeper::start(notes, inbox, time.clone(), move |task| {
            match task {
                Task::Link(number) => {
                    link.send(number).unwrap();
                    let _ = may_go_on.recv();
                }
                Task::Second(elapsed) => second.send(elapsed).unwrap(),
                Task::Due => unreachable!(),
            }
            None
        });
        let housekeeper = housekeeper.unwrap();
        assert_eq!(links.1.recv().unwrap(), 3);
        // It is at work: what comes now is told afterwards, once.
        notify[0]();
        notify[0]();
        notify[1]();
        told.send(()).unwrap();
        assert_eq!(links.1.recv().unwrap(), 3);
        told.send(()).unwrap();
        assert_eq!(links.1.recv().unwrap(), 4);
        told.send(()).unwrap();
        housekeeper.catch_up();
        assert!(seconds.1.try_recv().is_err());
        time.warp(TICK);
        housekeeper.catch_up();
        assert_eq!(seconds.1.try_recv(), Ok(TICK));
        assert!(links.1.try_recv().is_err());
        drop(housekeeper);
        // Nobody listens any more, which harms nobody.
        notify[1]();
    }

    #[test]
    fn what_is_due_is_done_in_turn_though_the_clock_was_put_forward() {
        let (notes, inbox) = notes();
        let (done, times) = mpsc::channel();
        let time = Time::stopped();
        let start = time.now();
        let mut steps = [300, 1_200, 1_200, 5_000].map(|ms| start + Duration::from_millis(ms));
        let work = move |task: Task| {
            if matches!(task, Task::Due) {
                done.send(steps[0].saturating_duration_since(start).as_millis()).unwrap();
                steps.rotate_left(1);
            }
            Some(steps[0])
        };
        let housekeeper = Housekeeper::start(notes.clone(), inbox, time.clone(), work).unwrap();
        notes.ask();
        housekeeper.catch_up();
        assert_eq!(times.try_iter().collect::<Vec<_>>(), [300]);
        time.warp(Duration::from_secs(4));
        housekeeper.catch_up();
        assert_eq!(times.try_iter().collect::<Vec<_>>(), [1_200, 1_200]);
        time.warp(Duration::from_secs(1));
        housekeeper.catch_up();
        assert_eq!(times.try_iter().next(), Some(5_000));
    }

    #[test]
    fn every_entry_expires_within_an_eighth_of_its_time() {
        let fdb = Arc::new(Fdb::new(1_000, 1, 80));
        for mac in 1..=1_000 {
            let key = Key::from_bits(0, mac);
            fdb.write().learn(key, fdb.hash(key), 0);
        }
        let mut ager = Ager::new(Arc::clone(&fdb));
        for second in 0..=80 {
            ager.tick(Duration::from_secs(second));
            // A second time in the same second changes nothing.
            ager.tick(Duration::from_millis(second * 1_000 + 500));
        }
        assert_eq!((fdb.len(), fdb.now()), (1_000, 81));
        for second in 81..=90 {
            ager.tick(Duration::from_secs(second));
        }
        assert_eq!((fdb.len(), fdb.report().expired), (0, 1_000));
    }

    #[test]
    fn a_shorter_time_is_for_the_entries_that_there_are_too() {
        let fdb = Arc::new(Fdb::new(1_000, 1, 0));
        let key = Key::from_bits(0, 1);
        fdb.write().learn(key, fdb.hash(key), 0);
        let mut ager = Ager::new(Arc::clone(&fdb));
        for second in 0..=80 {
            ager.tick(Duration::from_secs(second));
        }
        assert_eq!((fdb.len(), fdb.list().len()), (1, 1));
        fdb.set_ageing(8);
        assert_eq!(fdb.list(), []);
        ager.tick(Duration::from_secs(81));
        assert_eq!((fdb.len(), fdb.report().expired, fdb.report().ageing), (0, 1, 8));
    }
}
