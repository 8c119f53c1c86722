//! Connecting to front-ends that listen, on threads that may wait.
//!
//! A front-end has made the file at the path, or a link instead, which may lead into a file system
//! that it serves itself. Looking a path up waits for whoever serves it. So the control thread has
//! others do it, and none of those that wait keeps another port from being connected: as long as
//! ports wait for their turn, there is a thread that comes for the next one. Where there can be none,
//! their attempts end, and they try again later.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use eal::unix::{SocketError, connect};
use eal::{Closer, EventFd, PeerFd};

/// What came of it: `None` where nobody accepts connections there at the moment.
pub(super) type Connected = Result<Option<PeerFd>, SocketError>;

/// Bytes of a thread's stack.
const STACK: usize = 64 << 10;

/// Threads without work that stay. Where nothing hangs, there are one or two all in all.
const SPARE: usize = 2;

/// The threads that connect, for all ports of a control thread. They come with the first attempt, and
/// end with this.
#[derive(Debug)]
pub(super) struct Connector(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is a job, or no more will come.
    news: Condvar,
    /// For the control thread: attempts have ended.
    done: EventFd,
    /// Bytes of a thread's stack.
    stack: usize,
}

#[derive(Debug, Default)]
struct State {
    /// One for each port at most: it has one attempt at a time.
    jobs: VecDeque<Job>,
    /// Ports whose attempts have ended since the control thread has asked.
    ended: Vec<u32>,
    /// Threads that are not at a job, or about to start.
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
struct Job {
    port: u32,
    path: PathBuf,
    /// Closes the socket if nobody takes it.
    closer: Closer,
    result: SyncSender<Connected>,
}

impl Job {
    fn run(self) {
        let connected = match connect(&self.path) {
            Ok(socket) => Ok(Some(PeerFd::new(socket, self.closer))),
            Err(SocketError::Nobody { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        // Where nobody waits any more, the socket is closed.
        let _ = self.result.send(connected);
    }
}

impl Connector {
    /// One without threads.
    pub(super) fn new() -> io::Result<Self> {
        Self::with_stacks(STACK)
    }

    fn with_stacks(stack: usize) -> io::Result<Self> {
        let (state, news, done) = (Mutex::default(), Condvar::new(), EventFd::new()?);
        Ok(Self(Arc::new(Shared { state, news, done, stack })))
    }

    /// Readable when attempts have ended.
    pub(super) fn done(&self) -> &EventFd {
        &self.0.done
    }

    /// The ports whose attempts have ended since this was asked.
    pub(super) fn ended(&self) -> Vec<u32> {
        // It is ours and cannot fail; before the list, so that none is slept over.
        let _ = self.0.done.drain();
        std::mem::take(&mut self.0.lock().ended)
    }

    /// Begins to connect `port` to `path`. `closer` closes the socket if nobody takes it.
    pub(super) fn begin(&self, port: u32, path: PathBuf, closer: &Closer) -> io::Result<Attempt> {
        let (result, attempt) = sync_channel(1);
        let mut state = self.0.lock();
        if state.idle == 0 {
            self.0.start_thread(&mut state)?;
        }
        state.jobs.push_back(Job { port, path, closer: closer.clone(), result });
        drop(state);
        self.0.news.notify_one();
        Ok(Attempt(attempt))
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.0.news.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("connect".into()).stack_size(self.stack);
        eal::thread::spawn(thread, move || shared.work())?;
        state.idle += 1;
        Ok(())
    }

    /// What a thread does.
    fn work(self: &Arc<Self>) {
        let mut state = self.lock();
        loop {
            let Some(job) = state.jobs.pop_front() else {
                if state.closed || state.idle > SPARE {
                    state.idle -= 1;
                    return;
                }
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.idle -= 1;
            if state.idle == 0 && !state.jobs.is_empty() && self.start_thread(&mut state).is_err() {
                // They would wait for this one, for as long as it hangs.
                let waiting = std::mem::take(&mut state.jobs);
                self.tell(&mut state, waiting.into_iter().map(|job| job.port));
            }
            drop(state);
            let port = job.port;
            job.run();
            state = self.lock();
            state.idle += 1;
            self.tell(&mut state, [port]);
        }
    }

    /// Tells the control thread that attempts of `ports` have ended.
    fn tell(&self, state: &mut State, ports: impl IntoIterator<Item = u32>) {
        let was_told = !state.ended.is_empty();
        state.ended.extend(ports);
        if !was_told {
            let _ = self.done.signal();
        }
    }
}

/// An attempt to connect that goes on for as long as it takes.
#[derive(Debug)]
pub(super) struct Attempt(Receiver<Connected>);

impl Attempt {
    /// What came of it, if it has ended.
    pub(super) fn result(&self) -> Option<Connected> {
        match self.0.try_recv() {
            Ok(connected) => Some(connected),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Ok(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use eal::Epoll;
    use eal::event::{Events, Interest};

    use super::*;

    /// A control thread's side.
    struct Waiting {
        connector: Connector,
        epoll: Epoll,
        events: Events,
    }

    impl Waiting {
        fn new() -> Self {
            Self::with(Connector::new().unwrap())
        }

        fn with(connector: Connector) -> Self {
            let epoll = Epoll::new().unwrap();
            epoll.add(connector.done(), 5, Interest::READ).unwrap();
            Self { connector, epoll, events: Events::new() }
        }

        fn begin(&self, port: u32, path: &Path) -> Attempt {
            self.connector.begin(port, path.to_owned(), &Closer::default()).unwrap()
        }

        fn ended(&mut self) -> Vec<u32> {
            self.epoll.wait(&mut self.events, None).unwrap();
            self.connector.ended()
        }
    }

    #[test]
    fn what_came_of_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (mut waiting, path) = (Waiting::new(), dir.path().join("socket"));
        let mut connect = || {
            let attempt = waiting.begin(7, &path);
            assert_eq!(waiting.ended(), [7]);
            attempt.result().unwrap()
        };
        assert!(connect().unwrap().is_none());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(connect().unwrap().is_some());
        assert!(listener.accept().is_ok());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(connect().is_err());
    }

    #[test]
    fn few_threads_serve_many_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut waiting = Waiting::new();
        for _ in 0..20 {
            let begin = |port| waiting.begin(port, &dir.path().join("nobody"));
            let attempts: Vec<Attempt> = (0..50).map(begin).collect();
            let mut ended = Vec::new();
            while ended.len() < attempts.len() {
                ended.extend(waiting.ended());
            }
            ended.sort_unstable();
            assert!(ended.into_iter().eq(0..50));
            assert!(attempts.iter().all(|attempt| matches!(attempt.result(), Some(Ok(None)))));
        }
        let shared = Arc::clone(&waiting.connector.0);
        drop(waiting);
        // Each thread has one, too.
        while Arc::strong_count(&shared) > 1 {
            std::thread::yield_now();
        }
        assert_eq!(shared.lock().idle, 0);
    }

    /// A job that waits for ever: for room in the channel that its result goes to.
    #[test]
    fn who_waits_keeps_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut waiting = Waiting::new();
        let (full, hung) = sync_channel(0);
        let path = dir.path().join("nobody");
        let job = |port| {
            let (path, closer) = (path.clone(), Closer::default());
            Job { port, path, closer, result: full.clone() }
        };
        {
            let mut state = waiting.connector.0.lock();
            state.jobs.extend((0..3).map(job));
            waiting.connector.0.start_thread(&mut state).unwrap();
        }
        let attempt = waiting.begin(9, &path);
        assert_eq!(waiting.ended(), [9]);
        assert!(attempt.result().is_some());
        drop(hung);
        let mut ended = Vec::new();
        while ended.len() < 3 {
            ended.extend(waiting.ended());
        }
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2]);
    }

    /// A thread whose stack no address space has room for never starts.
    #[test]
    fn where_no_thread_can_start_attempts_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut waiting = Waiting::with(Connector::with_stacks(1 << 60).unwrap());
        let path = dir.path().join("nobody");
        let none = waiting.connector.begin(1, path.clone(), &Closer::default());
        assert!(none.is_err());
        // The only thread hangs at the first job, while another has come already.
        let (full, hung) = sync_channel(0);
        let (result, attempt) = sync_channel(1);
        let job =
            |port, result| Job { port, path: path.clone(), closer: Closer::default(), result };
        let shared = Arc::clone(&waiting.connector.0);
        {
            let mut state = shared.lock();
            state.jobs.extend([job(2, full), job(3, result)]);
            state.idle = 1;
        }
        let worker = std::thread::spawn(move || shared.work());
        assert_eq!(waiting.ended(), [3]);
        assert!(matches!(Attempt(attempt).result(), Some(Ok(None))));
        drop(hung);
        assert_eq!(waiting.ended(), [2]);
        drop(waiting);
        worker.join().unwrap();
    }
}
