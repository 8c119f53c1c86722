//! The answer to a question that one thread asks another.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// The way to give an answer. Whoever waits for it goes on, too, when this is dropped.
///
/// The answer does not go through a channel of its own type: the compiler makes all that channels can do
/// anew for each.
pub struct Answer<T> {
    place: Arc<Mutex<Option<T>>>,
    is_there: Sender<()>,
}

impl<T> Answer<T> {
    /// Gives the answer. That nobody waits for it any more is no error.
    pub fn give(self, answer: T) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        let _ = self.is_there.send(());
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(..)")
    }
}

impl<T> fmt::Debug for Awaited<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Awaited(..)")
    }
}

/// Where an answer comes.
pub struct Awaited<T> {
    place: Arc<Mutex<Option<T>>>,
    is_there: Receiver<()>,
}

impl<T> Awaited<T> {
    /// Waits for the answer; `None` if none will be given.
    pub fn wait(self) -> Option<T> {
        self.is_there.recv().ok()?;
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An answer that is to be given, and where it comes then.
pub(crate) fn answer<T>() -> (Answer<T>, Awaited<T>) {
    let ((sender, receiver), place) = (channel(), Arc::default());
    let answer = Answer { place: Arc::clone(&place), is_there: sender };
    (answer, Awaited { place, is_there: receiver })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_waits_until_an_answer_is_given_or_will_not_be() {
        let (given, awaited) = answer();
        let waits = std::thread::spawn(|| awaited.wait());
        given.give("yes");
        assert_eq!(waits.join().unwrap(), Some("yes"));
        let (never, awaited) = answer::<u8>();
        let waits = std::thread::spawn(|| awaited.wait());
        drop(never);
        assert_eq!(waits.join().unwrap(), None);
        let (late, awaited) = answer();
        drop(awaited);
        late.give(1);
    }
}
