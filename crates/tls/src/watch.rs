//! What the switch hears of the processes that speak TLS for it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::Child;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Pid, PidfdFlags, WaitOptions, waitpgid};

/// The longest that is said at once, and how much is heard in one turn.
const WORDS: usize = 512;
const TURN: usize = 16;

/// What is said of the processes, for the log.
#[derive(Debug)]
pub struct Watch {
    /// `None`: nobody is left who could say something.
    news: Option<OwnedFd>,
    /// The processes. The first one is our child, and those that lose their parent may be.
    group: Pid,
    /// That one, as long as it is there, if the kernel tells of ends.
    first: Option<OwnedFd>,
}

impl Watch {
    pub(crate) fn new(news: OwnedFd, first: &Child) -> Self {
        let group = Pid::from_child(first);
        let first = rustix::process::pidfd_open(group, PidfdFlags::empty()).ok();
        Self { news: Some(news), group, first }
    }

    /// What is to be polled for reading.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.news.iter().chain(&self.first).map(|fd| fd.as_fd())
    }

    /// Tells the log what was said, and takes notice of those that are gone; waits for nobody.
    pub fn look(&mut self) {
        let mut words = [0; WORDS];
        for _ in 0..TURN {
            let Some(news) = &self.news else { break };
            match recv(news, &mut words, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => break,
                Ok((len, 1..)) => tell(words.get(..len).unwrap_or_default()),
                _ => {
                    self.news = None;
                    tracing::error!(
                        "no process is left that could speak TLS: connections with ssl: fail until the \
                         switch is started anew"
                    );
                }
            }
        }
        while let Ok(Some((gone, _))) = waitpgid(self.group, WaitOptions::NOHANG) {
            self.first = self.first.take().filter(|_| gone != self.group);
        }
    }
}

fn tell(said: &[u8]) {
    let text = String::from_utf8_lossy(said);
    let text: String = text.chars().filter(|char| !char.is_control()).collect();
    tracing::warn!("{text}");
}
