//! Channels between control threads, as the standard library has them, but of a lock and a condition.
//!
//! The compiler makes all that a channel of the standard library can do anew for each type, 10 kB, those kinds
//! of channels that are not used, too. Who sends here waits for the lock, which is held while one value is moved.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What both ends have.
struct Shared<T> {
    state: Mutex<State<T>>,
    /// There is something to receive, or nobody sends any more.
    news: Condvar,
}

struct State<T> {
    /// What was sent and not yet received.
    queue: VecDeque<T>,
    senders: usize,
    is_received: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Whether who receives has to wait.
    fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.senders > 0
    }
}

/// The end that sends.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends `value`.
    ///
    /// # Errors
    /// Nobody receives any more; then `value` comes back.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut state = self.0.lock();
        if !state.is_received {
            return Err(SendError(value));
        }
        state.queue.push_back(value);
        drop(state);
        self.0.news.notify_one();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        // Several may wait for what comes next, and nothing does any more.
        self.0.news.notify_all();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender(..)")
    }
}

/// The end that receives. What was not received is dropped with it.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// Waits for what comes next.
    ///
    /// # Errors
    /// Nothing will.
    pub fn recv(&self) -> Result<T, RecvError> {
        let state = self.0.news.wait_while(self.0.lock(), |state| state.is_quiet());
        state.unwrap_or_else(PoisonError::into_inner).queue.pop_front().ok_or(RecvError)
    }

    /// The same, for so long at most.
    ///
    /// # Errors
    /// Nothing has come by then, or will.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let is_quiet = |state: &mut State<T>| state.is_quiet();
        let waited = self.0.news.wait_timeout_while(self.0.lock(), timeout, is_quiet);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        state.queue.pop_front().ok_or(match waited.timed_out() {
            true => RecvTimeoutError::Timeout,
            false => RecvTimeoutError::Disconnected,
        })
    }

    /// What has come, without waiting.
    ///
    /// # Errors
    /// Nothing has yet, or nothing will.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.lock();
        let is_over = state.senders == 0;
        let next = state.queue.pop_front();
        next.ok_or(if is_over { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }

    /// All that has come, without waiting.
    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_received = false;
        let left = std::mem::take(&mut state.queue);
        // Without the lock, as above: somebody who waits for an answer may be told that none will come.
        drop(state);
        drop(left);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver(..)")
    }
}

/// A channel without a limit.
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { queue: VecDeque::new(), senders: 1, is_received: true };
    let shared = Arc::new(Shared { state: Mutex::new(state), news: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_in_order_until_nobody_sends() {
        let (sender, receiver) = channel();
        let other = sender.clone();
        let thread = std::thread::spawn(move || (0..100).for_each(|n| other.send(n).unwrap()));
        assert_eq!((0..100).map(|_| receiver.recv().unwrap()).collect::<Vec<_>>(), {
            (0..100).collect::<Vec<_>>()
        });
        thread.join().unwrap();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        sender.send(3).unwrap();
        drop(sender);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(1));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(receiver.recv(), Err(RecvError));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn what_nobody_receives_is_dropped() {
        let ((sender, receiver), value) = (channel(), Arc::new(()));
        sender.send(Arc::clone(&value)).unwrap();
        assert_eq!(Arc::strong_count(&value), 2);
        drop(receiver);
        assert_eq!(Arc::strong_count(&value), 1);
        assert_eq!(sender.send(Arc::clone(&value)), Err(SendError(Arc::clone(&value))));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn who_waits_hears_that_the_last_of_several_has_stopped_sending() {
        let (sender, receiver) = channel::<u8>();
        let (told, hears) = channel();
        let waits = std::thread::spawn(move || {
            told.send(receiver.recv_timeout(Duration::ZERO)).unwrap();
            (receiver.recv_timeout(Duration::from_secs(600)), receiver.recv())
        });
        let other = sender.clone();
        drop(sender);
        assert_eq!(hears.recv(), Ok(Err(RecvTimeoutError::Timeout)));
        drop(other);
        let never = (Err(RecvTimeoutError::Disconnected), Err(RecvError));
        assert_eq!(waits.join().unwrap(), never);
    }

    #[test]
    fn all_who_wait_hear_that_nobody_sends() {
        let (sender, receiver) = channel::<u8>();
        let receiver = Arc::new(receiver);
        let waits = [0; 2].map(|_| {
            let receiver = Arc::clone(&receiver);
            std::thread::spawn(move || receiver.recv())
        });
        drop(sender);
        assert_eq!(waits.map(|waits| waits.join().unwrap()), [Err(RecvError); 2]);
    }

    #[test]
    fn who_waits_for_an_answer_hears_that_the_question_was_dropped() {
        let (questions, receiver) = channel();
        let (answer, awaited) = channel::<u8>();
        questions.send(answer).unwrap();
        let waits = std::thread::spawn(move || awaited.recv());
        drop(receiver);
        assert_eq!(waits.join().unwrap(), Err(RecvError));
    }
}
