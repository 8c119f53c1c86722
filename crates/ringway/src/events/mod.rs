//! Events: what a switch tells those who have subscribed, and `ringway events`.
//!
//! Nothing is watched while nobody has subscribed. A subscriber that does not read has a queue that
//! is bounded; what it misses is counted, and it is told how much that was.
//!
//! - [`watch`]: what has changed since the last look
//! - [`command`]: `ringway events`

pub mod command;
mod watch;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::control::event::{Event, Notice, Topic};
use crate::control::refusal::{Code, Refusal};
use daemon::Daemon;
use eal::time::{Time, later};
use litemap::LiteMap;
use ordered::Gather as _;

use watch::{Dropping, Watch};

/// Subscribers at a time.
const SUBSCRIBERS: usize = 8;

/// Events that are kept for a subscriber that does not read.
const QUEUE: usize = 4096;

/// Bytes that are handed over at once.
const CHUNK: usize = 64 << 10;

/// How often counters and addresses are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The subscribers, and what they have not been told yet.
#[derive(Debug)]
pub struct Events {
    time: Time,
    subscribers: LiteMap<u64, Subscriber>,
    watch: Option<Watch>,
    due: Instant,
}

/// Whoever has subscribed.
#[derive(Debug)]
struct Subscriber {
    topics: BTreeSet<Topic>,
    /// Frames per second from which on drops are worth an event.
    drop_rate: u64,
    /// What has dropped that many at the last look.
    dropping: BTreeSet<(String, &'static str)>,
    queue: VecDeque<String>,
    lost: u64,
}

impl Subscriber {
    fn wants(&self, event: &Event) -> bool {
        event.topic().is_none_or(|topic| self.topics.contains(&topic))
    }

    /// Keeps an event, if there is room.
    fn push(&mut self, uptime_ms: u64, event: &Event) {
        if self.queue.len() >= QUEUE {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        self.tell_lost(uptime_ms);
        self.push_line(uptime_ms, event);
    }

    fn tell_lost(&mut self, uptime_ms: u64) {
        let count = std::mem::take(&mut self.lost);
        if count > 0 {
            self.push_line(uptime_ms, &Event::Lost { count });
        }
    }

    fn push_line(&mut self, uptime_ms: u64, event: &Event) {
        let notice = Notice { uptime_ms, event: event.clone() };
        match serde_json::to_string(&notice) {
            Ok(line) => self.queue.push_back(line + "\n"),
            Err(error) => tracing::error!("an event cannot be written: {error}"),
        }
    }

    /// Compares what drops with what this subscriber puts up with.
    fn look_at_drops(&mut self, uptime_ms: u64, dropping: &[Dropping]) {
        if !self.topics.contains(&Topic::Drops) {
            return;
        }
        let above = |one: &&Dropping| one.rate > 0 && one.rate >= self.drop_rate;
        let above: Vec<&Dropping> = dropping.iter().filter(above).collect();
        let key = |one: &Dropping| (one.port.clone(), one.direction);
        let now: BTreeSet<_> = above.iter().map(|one| key(one)).gather();
        let before = std::mem::replace(&mut self.dropping, now.clone());
        for one in above.into_iter().filter(|one| !before.contains(&key(one))) {
            self.push(uptime_ms, &one.event());
        }
        for (port, direction) in before.difference(&now) {
            let (port, direction) = (port.clone(), (*direction).to_owned());
            self.push(uptime_ms, &Event::DropsEnded { port, direction });
        }
    }
}

impl Events {
    /// Nobody has subscribed yet; looks are taken by `time`.
    pub fn new(time: Time) -> Self {
        let due = time.now();
        Self { time, subscribers: LiteMap::new(), watch: None, due }
    }

    /// Has `client` told of these topics from now on: of the [usual](Topic::usual) ones where it names none.
    ///
    /// # Errors
    /// There are as many subscribers as there can be.
    pub fn subscribe(
        &mut self,
        client: u64,
        topics: Vec<Topic>,
        drop_rate: u64,
        daemon: &Daemon,
    ) -> Result<Vec<Topic>, Refusal> {
        let topics = if topics.is_empty() { Topic::usual() } else { topics };
        let topics: BTreeSet<Topic> = topics.into_iter().gather();
        if self.subscribers.len() >= SUBSCRIBERS && !self.subscribers.contains_key(&client) {
            let message = format!("{SUBSCRIBERS} have subscribed already, which is the most");
            return Err(Refusal::new(Code::Full, message));
        }
        if self.watch.is_none() {
            let _ = daemon.switch().heed_links();
            self.watch = Some(Watch::new(daemon));
            self.due = later(self.time.now(), TICK);
        }
        let told = topics.iter().copied().collect();
        let (dropping, queue) = (BTreeSet::new(), VecDeque::new());
        let subscriber = Subscriber { topics, drop_rate, dropping, queue, lost: 0 };
        self.subscribers.insert(client, subscriber);
        Ok(told)
    }

    /// `client` has gone.
    pub fn unsubscribe(&mut self, client: u64) {
        self.subscribers.remove(&client);
        if self.subscribers.is_empty() {
            self.watch = None;
        }
    }

    /// Whether anybody is to be told anything.
    pub fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// How long until the next look.
    pub fn next_turn(&self) -> Option<Duration> {
        self.watch.as_ref().and_then(|_| self.time.until(self.due))
    }

    /// Looks at what has changed, as far as it is time to.
    pub fn turn(&mut self, daemon: &Daemon) {
        let now = self.time.now();
        let Some(watch) = &mut self.watch else { return };
        let mut found = Vec::new();
        watch.look_at_state(daemon, &mut found);
        let is_due = self.due <= now;
        let uptime = daemon.switch().uptime();
        let mut dropping = Vec::new();
        if daemon.switch().heed_links() || is_due {
            let ports = daemon.switch().samples();
            watch.look_at_links(&ports, &mut found);
            watch.look_at_bonds(&daemon.switch().bonds(), &mut found);
            watch.look_at_trees(&daemon.switch().rstp(), &mut found);
            if is_due {
                self.due = later(now, TICK);
                dropping = watch.look_at_drops(&ports, uptime);
                let subscribers = &self.subscribers;
                let is_wanted = |topic| subscribers.values().any(|one| one.topics.contains(&topic));
                let addresses = is_wanted(Topic::Fdb).then(|| daemon.switch().fdb());
                watch.look_at_addresses(addresses, &mut found);
                let groups = is_wanted(Topic::Groups).then(|| daemon.switch().groups());
                watch.look_at_groups(groups, &mut found);
            }
        }
        let uptime_ms = milliseconds(uptime);
        for (_, subscriber) in &mut self.subscribers {
            for event in &found {
                if subscriber.wants(event) {
                    subscriber.push(uptime_ms, event);
                }
            }
            if is_due {
                subscriber.look_at_drops(uptime_ms, &dropping);
            }
        }
    }

    /// Tells of something that cannot be seen by looking.
    pub fn tell(&mut self, daemon: &Daemon, event: &Event) {
        let uptime_ms = milliseconds(daemon.switch().uptime());
        let wanting = self.subscribers.iter_mut().filter(|(_, one)| one.wants(event));
        wanting.for_each(|(_, one)| one.push(uptime_ms, event));
    }

    /// The lines that `client` is to be sent next.
    pub fn take(&mut self, client: u64, uptime: Duration) -> Option<String> {
        let subscriber = self.subscribers.get_mut(&client)?;
        if subscriber.queue.len() < QUEUE {
            subscriber.tell_lost(milliseconds(uptime));
        }
        let mut lines = String::new();
        while lines.len() < CHUNK {
            let Some(line) = subscriber.queue.pop_front() else { break };
            lines.push_str(&line);
        }
        (!lines.is_empty()).then_some(lines)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
