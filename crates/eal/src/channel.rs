//! Channels between control threads, as the standard library has them, of which only the queue is of the type
//! that goes through.
//!
//! The compiler makes all that a channel of the standard library can do anew for each type, 10 kB, those kinds
//! of channels that are not used, too. So there is one here, through which nothing goes but word that there is
//! something in the queue. Who sends waits for the lock of the queue, which is held while one value is moved.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{self, RecvError, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What was sent and not yet received.
struct Queue<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what nobody will receive: without the lock, since that may do anything.
    fn clear(&self) {
        let left = std::mem::take(&mut *self.lock());
        drop(left);
    }
}

/// The end that sends.
pub struct Sender<T> {
    queue: Queue<T>,
    word: mpsc::Sender<()>,
}

impl<T> Sender<T> {
    /// Sends `value`.
    ///
    /// # Errors
    /// Nobody receives any more; then `value` is dropped.
    pub fn send(&self, value: T) -> Result<(), RecvError> {
        self.queue.lock().push_back(value);
        self.word.send(()).map_err(|_| {
            self.queue.clear();
            RecvError
        })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { queue: Queue(Arc::clone(&self.queue.0)), word: self.word.clone() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender(..)")
    }
}

/// The end that receives. What was not received is dropped with it.
pub struct Receiver<T> {
    // The order matters: what is sent after word can no longer be given is dropped by who sends it.
    word: mpsc::Receiver<()>,
    queue: Left<T>,
}

/// A queue that is emptied when it is dropped.
struct Left<T>(Queue<T>);

impl<T> Drop for Left<T> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl<T> Receiver<T> {
    /// Waits for what comes next.
    ///
    /// # Errors
    /// Nothing will.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.word.recv()?;
        self.next().ok_or(RecvError)
    }

    /// The same, for so long at most.
    ///
    /// # Errors
    /// Nothing has come by then, or will.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.word.recv_timeout(timeout)?;
        self.next().ok_or(RecvTimeoutError::Disconnected)
    }

    /// What has come, without waiting.
    ///
    /// # Errors
    /// Nothing has yet, or nothing will.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.word.try_recv()?;
        self.next().ok_or(TryRecvError::Disconnected)
    }

    /// All that has come, without waiting.
    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    /// What there was word of.
    fn next(&self) -> Option<T> {
        self.queue.0.lock().pop_front()
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
    let (sends, receives) = mpsc::channel();
    let queue = Arc::new(Mutex::new(VecDeque::new()));
    let sender = Sender { queue: Queue(Arc::clone(&queue)), word: sends };
    (sender, Receiver { word: receives, queue: Left(Queue(queue)) })
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
        assert_eq!(sender.send(Arc::clone(&value)), Err(RecvError));
        assert_eq!(Arc::strong_count(&value), 1);
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
