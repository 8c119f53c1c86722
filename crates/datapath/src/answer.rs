//! The answer to a question that one thread asks another.

use eal::channel::{Receiver, Sender, channel};

/// The way to give an answer. Whoever waits for it goes on, too, when this is dropped.
#[derive(Debug)]
pub struct Answer<T>(Sender<T>);

impl<T> Answer<T> {
    /// Gives the answer. That nobody waits for it any more is no error.
    pub fn give(self, answer: T) {
        let _ = self.0.send(answer);
    }
}

/// Where an answer comes.
#[derive(Debug)]
pub struct Awaited<T>(Receiver<T>);

impl<T> Awaited<T> {
    /// Waits for the answer; `None` if none will be given.
    pub fn wait(self) -> Option<T> {
        self.0.recv().ok()
    }
}

/// An answer that is to be given, and where it comes then.
pub(crate) fn answer<T>() -> (Answer<T>, Awaited<T>) {
    let (sender, receiver) = channel();
    (Answer(sender), Awaited(receiver))
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
