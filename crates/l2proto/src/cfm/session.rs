//! One maintenance point: whom it hears, and when it says that it is there.

use std::time::{Duration, Instant};

use eal::time::later;
use litemap::LiteMap;

use super::frame::{Message, parse};
use super::{Cfm, CfmRemote, CfmReport, Faults};

/// The most other maintenance points that are kept.
const MAX_REMOTES: usize = 256;

/// After how many looks it is found out how many messages have come.
const HEALTH_LOOKS: u32 = 6;

/// The most messages of that time that can be expected of a neighbour: 3.5 in each.
const HEALTH_MESSAGES: u32 = HEALTH_LOOKS * 7 / 2;

/// Intervals of the standard, in milliseconds, by their codes from 1 on (clause 21.6.1.3).
const INTERVALS: [u32; 7] = [3, 10, 100, 1_000, 10_000, 60_000, 600_000];

/// On demand, what has come is looked at as with this interval, at least.
const DEMAND_INTERVAL: u32 = 500;

/// For how many intervals frames tell that a neighbour is there that has said so.
const DEMAND_INTERVALS: u32 = 100;

/// Another maintenance point.
#[derive(Clone, Copy, Debug)]
struct Remote {
    /// Whether it was heard since the last look.
    is_heard: bool,
    is_up: bool,
    /// How many of its messages without a fault have come since that was looked at last.
    messages: u32,
}

/// A maintenance point.
#[derive(Debug)]
pub struct Session {
    settings: Cfm,
    /// The code of its interval, and how long that is, in milliseconds.
    interval: (u8, u32),
    remotes: LiteMap<u64, Remote>,
    sequence: u32,
    next_message: Instant,
    next_look: Instant,
    /// Whether it has looked at what came, once.
    has_looked: bool,
    faults: Faults,
    /// What has been wrong with messages since the last look.
    heard_faults: Faults,
    is_remote_up: bool,
    /// What an operator says of faults.
    told: Option<bool>,
    health: Option<u8>,
    health_looks: u32,
    reached: Vec<u64>,
    flaps: u64,
    /// Frames of all kinds that had come in at the last look.
    frames: u64,
    /// Until when they count.
    demand_until: Option<Instant>,
}

impl Session {
    /// One that begins at `now`, when so many frames have come in on its port.
    #[must_use]
    pub fn new(settings: Cfm, frames: u64, now: Instant) -> Self {
        let mut session = Self {
            settings,
            interval: (0, 0),
            remotes: LiteMap::new(),
            sequence: 0,
            next_message: now,
            next_look: now,
            has_looked: false,
            faults: Faults::default(),
            heard_faults: Faults::default(),
            is_remote_up: true,
            told: None,
            health: None,
            health_looks: 0,
            reached: Vec::new(),
            flaps: 0,
            frames,
            demand_until: None,
        };
        session.set(settings, now);
        session
    }

    /// Has it be set so from `now` on.
    pub fn set(&mut self, settings: Cfm, now: Instant) {
        self.settings = settings;
        let interval = interval(&settings);
        if interval != self.interval {
            self.interval = interval;
            self.next_message = now;
            self.next_look = later(now, self.look_interval());
        }
    }

    /// What it is set to.
    #[must_use]
    pub const fn settings(&self) -> &Cfm {
        &self.settings
    }

    /// Has an operator say whether anything is wrong, or say nothing any more.
    pub const fn tell(&mut self, told: Option<bool>) {
        self.told = told;
    }

    const fn is_on_demand(&self) -> bool {
        self.settings.extended && self.settings.demand
    }

    /// Three and a half intervals (clause 20.16.4).
    fn look_interval(&self) -> Duration {
        let (_, own) = self.interval;
        let interval = if self.is_on_demand() { own.max(DEMAND_INTERVAL) } else { own };
        Duration::from_millis(u64::from(interval).saturating_mul(7) / 2)
    }

    /// Hears a frame.
    pub fn hear(&mut self, frame: &[u8], now: Instant) {
        let Some(message) = parse(frame, self.settings.extended) else { return };
        if !message.is_ours {
            return self.heard_faults.add(Faults::MAID);
        }
        let mut faults = Faults::default();
        if message.hears_nobody {
            faults.add(Faults::RDI);
        }
        if !self.remotes.contains_key(&message.mpid) && self.remotes.len() >= MAX_REMOTES {
            return self.heard_faults.add(Faults::OVERFLOW);
        }
        if message.mpid == self.settings.mpid {
            faults.add(Faults::LOOPBACK);
        }
        let remote = self.remotes.entry(message.mpid).or_insert(Remote {
            is_heard: true,
            is_up: true,
            messages: 0,
        });
        (remote.is_heard, remote.is_up) = (true, !message.is_down);
        if faults.is_empty() {
            remote.messages = remote.messages.saturating_add(1);
            if self.is_on_demand() {
                let (_, interval) = self.interval;
                let while_ = u64::from(interval.saturating_mul(DEMAND_INTERVALS));
                self.demand_until = Some(later(now, Duration::from_millis(while_)));
            }
        }
        self.heard_faults.add(faults);
    }

    /// Does what is due at `now`, when so many frames have come in on its port; gives what is to be sent.
    pub fn run(&mut self, frames: u64, now: Instant) -> Option<Message> {
        let message = (now >= self.next_message).then(|| self.say(now));
        if now >= self.next_look {
            self.look(frames, now);
        }
        message
    }

    fn say(&mut self, now: Instant) -> Message {
        let (code, interval) = self.interval;
        self.next_message = later(now, Duration::from_millis(interval.into()));
        self.sequence = self.sequence.wrapping_add(1);
        Message {
            sequence: self.sequence,
            mpid: self.settings.mpid,
            interval_code: code,
            interval: if code == 0 { interval.try_into().unwrap_or(u16::MAX) } else { 0 },
            hears_nobody: self.has_looked && self.remotes.is_empty(),
            is_down: self.settings.down,
            is_ours: true,
        }
    }

    /// Looks at what has come since the last time.
    fn look(&mut self, frames: u64, now: Instant) {
        let before = self.faults;
        self.faults = std::mem::take(&mut self.heard_faults);
        self.look_at_health();
        let has_frames = frames > std::mem::replace(&mut self.frames, frames);
        let may_be_silent = self.is_on_demand()
            && self.remotes.len() == 1
            && has_frames
            && self.demand_until.is_some_and(|until| now < until);
        self.reached.clear();
        let [mut is_up, mut is_down] = [false; 2];
        for (mpid, remote) in self.remotes.iter().filter(|(_, remote)| remote.is_heard) {
            self.reached.push(*mpid);
            is_up |= remote.is_up;
            is_down |= !remote.is_up;
        }
        self.remotes.retain(|_, remote| remote.is_heard || may_be_silent);
        self.remotes.iter_mut().for_each(|(_, remote)| remote.is_heard = false);
        if is_up || is_down {
            self.is_remote_up = !is_down;
        }
        if self.remotes.is_empty() {
            self.faults.add(Faults::RECV);
        }
        if before != self.faults && (before.is_empty() || self.faults.is_empty()) {
            self.flaps = self.flaps.saturating_add(1);
        }
        self.has_looked = true;
        self.next_look = later(now, self.look_interval());
    }

    /// Finds out how many messages have come, now and then.
    fn look_at_health(&mut self) {
        if self.health_looks == HEALTH_LOOKS {
            self.health_looks = 0;
            self.health = match self.remotes.len() {
                0 => Some(0),
                1 => self.remotes.values().next().map(|remote| {
                    let percent = remote.messages.saturating_mul(100) / HEALTH_MESSAGES;
                    percent.min(100).try_into().unwrap_or(100)
                }),
                _ => None,
            };
            if self.remotes.len() == 1 {
                self.remotes.iter_mut().for_each(|(_, remote)| remote.messages = 0);
            }
        }
        self.health_looks = self.health_looks.saturating_add(1);
    }

    /// When there is something to do next.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.next_message.min(self.next_look)
    }

    /// What is wrong.
    const fn faults(&self) -> Faults {
        match self.told {
            Some(true) => Faults::OVERRIDE,
            Some(false) => Faults(0),
            None => self.faults,
        }
    }

    /// Whether the link does.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.faults().is_empty() && (!self.settings.extended || self.is_remote_up)
    }

    /// What it knows at `now`.
    #[must_use]
    pub fn report(&self, now: Instant) -> CfmReport {
        let (_, interval) = self.interval;
        let until = |at: Instant| {
            let left = at.saturating_duration_since(now).as_millis();
            left.try_into().unwrap_or(u64::MAX)
        };
        let remote = |(mpid, remote): (&u64, &Remote)| CfmRemote {
            mpid: *mpid,
            is_heard: remote.is_heard,
            is_up: remote.is_up,
        };
        CfmReport {
            settings: self.settings,
            interval,
            faults: self.faults(),
            is_overridden: self.told.is_some(),
            flaps: self.flaps,
            health: self.health,
            is_remote_up: self.is_remote_up,
            reached: self.reached.clone(),
            remotes: self.remotes.iter().map(remote).collect(),
            next: [until(self.next_message), until(self.next_look)],
        }
    }
}

/// The code and the length of an interval: one of the standard's that is no longer than what is asked for,
/// or just that, with the extension.
fn interval(settings: &Cfm) -> (u8, u32) {
    let coded = (1_u8..=7).zip(INTERVALS).rfind(|(_, long)| *long <= settings.interval);
    let (code, long) = coded.unwrap_or((1, 3));
    if settings.extended && long != settings.interval {
        return (0, settings.interval.min(u16::MAX.into()));
    }
    (code, long)
}
