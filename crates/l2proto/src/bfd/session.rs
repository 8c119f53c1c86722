//! The state machine of one session (RFC 5880, section 6.8), and what Open vSwitch has beside it: frames of
//! any kind may tell that the link does (`forwarding-if-rx`), and where hardly any come, less often than
//! usual does (`decay-min-rx`).

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use eal::time::later;

use super::frame::{Packet, parse};
use super::{Bfd, BfdDiag, BfdFlags, BfdReport, BfdSide, BfdState};

/// How often packets go out as long as the session is not up, in milliseconds (section 6.8.3).
const SLOW: u64 = 1_000;

/// For how long frames tell that the link does, and for how long at least it is looked at how many come, in
/// milliseconds.
const LEAST: u64 = 2_000;

/// How often it is looked at whether frames have come, where they count, in milliseconds.
const LOOK: u64 = 500;

/// For how many intervals frames tell that the link does when the neighbour says nothing.
const DEMAND_INTERVALS: u64 = 100;

/// Ports that packets come from (RFC 5881, section 4).
const PORTS: std::ops::Range<u16> = 49_152..65_535;

/// Numbers that nobody guesses.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }

    /// One below `end`.
    const fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Frames of any kind that have come in, as the session sees them.
#[derive(Debug, Default)]
struct Frames {
    /// How many there were when it was looked at last.
    seen: u64,
    /// Until when they tell that the link does, in milliseconds.
    tell_until: u64,
    /// Until when they may.
    may_until: u64,
    /// Whether hardly any come.
    are_few: bool,
    /// How many there were when that was looked at last, and how many packets of the session came since.
    before: u64,
    packets: u64,
    /// When it is looked at next.
    next_look: u64,
    /// When it was looked at last whether any have come.
    looked_at: u64,
}

/// A session. Times are in milliseconds since it began, by `now` of its functions.
#[derive(Debug)]
pub struct Session {
    settings: Bfd,
    began: Instant,
    random: Random,
    /// The UDP port that packets come from.
    port: u16,
    state: BfdState,
    diag: BfdDiag,
    flags: BfdFlags,
    discriminator: u32,
    remote: BfdSide,
    /// How often it sends and can receive, by what is agreed, and as it asks the neighbour by a poll.
    agreed: [u64; 2],
    polled: [u64; 2],
    last_packet: Option<u64>,
    next_packet: u64,
    /// When the neighbour is taken for gone.
    detect_at: u64,
    frames: Frames,
    was_forwarding: bool,
    /// What an operator says of that.
    told: Option<bool>,
    flaps: u64,
}

const fn max(one: u64, other: u64) -> u64 {
    if one > other { one } else { other }
}

impl Session {
    /// One that begins at `now`, when so many frames have come in on its port.
    #[must_use]
    pub fn new(settings: Bfd, frames: u64, now: Instant) -> Self {
        let mut random = Random::new();
        let ports = u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start.saturating_add(random.below(ports).try_into().unwrap_or(0));
        let discriminator = random.below(u32::MAX.into()).try_into().unwrap_or(0_u32);
        let agreed = [settings.min_tx, settings.min_rx].map(u64::from);
        let next_look = max(settings.decay_min_rx.into(), LEAST);
        Self {
            settings,
            began: now,
            random,
            port,
            state: BfdState::Down,
            diag: BfdDiag::NONE,
            flags: BfdFlags::default(),
            discriminator: discriminator.saturating_add(1),
            remote: BfdSide { min_rx: 1, ..BfdSide::default() },
            agreed,
            polled: agreed,
            last_packet: None,
            next_packet: 0,
            detect_at: 0,
            frames: Frames { seen: frames, before: frames, next_look, ..Frames::default() },
            was_forwarding: false,
            told: None,
            flaps: 0,
        }
    }

    fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_millis();
        since.try_into().unwrap_or(u64::MAX)
    }

    /// What it is set to.
    #[must_use]
    pub const fn settings(&self) -> &Bfd {
        &self.settings
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> (BfdState, BfdDiag) {
        (self.state, self.diag)
    }

    /// Has an operator say whether the link does, or say nothing any more.
    pub const fn tell(&mut self, told: Option<bool>) {
        self.told = told;
    }

    /// Has it be set so from `now` on.
    pub fn set(&mut self, settings: Bfd, now: Instant) {
        if settings == self.settings {
            return;
        }
        let now = self.at(now);
        let before = std::mem::replace(&mut self.settings, settings);
        let may = self.state != BfdState::Up || !self.is_polling();
        let [tx, rx] = [self.settings.min_tx, self.settings.min_rx].map(u64::from);
        let is_up = self.state == BfdState::Up;
        let mut asks = false;
        if before.min_tx != self.settings.min_tx {
            if may && (!is_up || tx < self.agreed[0]) {
                self.agreed[0] = tx;
            }
            asks = true;
        }
        let has_other_rx = before.min_rx != self.settings.min_rx;
        if has_other_rx {
            if may && (!is_up || rx > self.agreed[1]) {
                self.agreed[1] = rx;
            }
            asks = true;
        }
        if has_other_rx || before.decay_min_rx != self.settings.decay_min_rx {
            self.frames.are_few = false;
            self.begin_decay(now);
            asks = true;
        }
        if before.cpath_down != self.settings.cpath_down {
            self.enter(self.state, BfdDiag::NONE, now);
            asks = true;
        }
        self.set_frames(&before, now);
        if asks {
            self.poll();
        }
    }

    /// Frames of any kind count by now, or no more.
    const fn set_frames(&mut self, before: &Bfd, now: u64) {
        let counts = self.settings.forwarding_if_rx;
        let is_up = matches!(self.state, BfdState::Up);
        if counts != before.forwarding_if_rx {
            self.frames.tell_until = 0;
            if counts && is_up {
                self.count_frames(now);
            }
        } else if counts && is_up && self.settings.mult != before.mult {
            self.count_frames(now);
        }
    }

    const fn is_polling(&self) -> bool {
        self.flags.has(BfdFlags::POLL)
    }

    /// How often it is to send and can receive.
    const fn wanted(&self) -> [u64; 2] {
        let rx =
            if self.frames.are_few { self.settings.decay_min_rx } else { self.settings.min_rx };
        [self.settings.min_tx as u64, rx as u64]
    }

    /// Asks the neighbour whether it has taken note of how often (section 6.5).
    const fn poll(&mut self) {
        let is_heard = matches!(self.state, BfdState::Init | BfdState::Up);
        if is_heard && !self.is_polling() && !self.flags.has(BfdFlags::FINAL) {
            self.polled = self.wanted();
            self.flags.set(BfdFlags::POLL, true);
            self.next_packet = 0;
        }
    }

    const fn min_tx(&self) -> u64 {
        let [tx, _] = self.agreed;
        if matches!(self.state, BfdState::Up) { tx } else { max(tx, SLOW) }
    }

    const fn intervals(&self) -> [u64; 2] {
        let [_, rx] = self.agreed;
        [max(self.min_tx(), self.remote.min_rx as u64), max(rx, self.remote.min_tx as u64)]
    }

    /// When the next packet goes out: not in step with others (section 6.8.7).
    fn plan(&mut self) {
        let [interval, _] = self.intervals();
        let percent = match self.settings.mult {
            1 => self.random.below(16).saturating_add(10),
            _ => self.random.below(26),
        };
        let less = interval.saturating_mul(percent) / 100;
        let last = self.last_packet.unwrap_or(0);
        self.next_packet = last.saturating_add(interval.saturating_sub(less));
    }

    /// Frames that have come tell that the link does.
    const fn count_frames(&mut self, now: u64) {
        let [_, rx] = self.intervals();
        let long = rx.saturating_mul(self.settings.mult as u64);
        self.frames.tell_until = now.saturating_add(max(long, LEAST));
    }

    /// It is looked at from now on how many frames come.
    const fn begin_decay(&mut self, now: u64) {
        self.frames.before = self.frames.seen;
        self.frames.packets = 0;
        let long = max(self.settings.decay_min_rx as u64, LEAST);
        self.frames.next_look = now.saturating_add(long);
    }

    /// Whether the link does; notes whether that has changed.
    fn look(&mut self, now: u64) -> bool {
        if let Some(told) = self.told {
            return told;
        }
        let frames = self.settings.forwarding_if_rx
            && now < self.frames.tell_until
            && now < self.frames.may_until;
        let is_forwarding = (self.state == BfdState::Up || frames) && !self.remote.diag.is_broken();
        if is_forwarding != std::mem::replace(&mut self.was_forwarding, is_forwarding) {
            self.flaps = self.flaps.saturating_add(1);
        }
        is_forwarding
    }

    fn enter(&mut self, state: BfdState, diag: BfdDiag, now: u64) {
        let diag = if self.settings.cpath_down { BfdDiag::CONCATENATED_DOWN } else { diag };
        if (state, diag) == (self.state, self.diag) {
            return;
        }
        (self.state, self.diag) = (state, diag);
        if state <= BfdState::Down {
            let mult = self.remote.mult;
            self.remote = BfdSide { min_rx: 1, mult, ..BfdSide::default() };
            if std::mem::take(&mut self.frames.are_few) {
                self.agreed[1] = self.settings.min_rx.into();
            }
        }
        if state == BfdState::Up && self.settings.decay_min_rx > 0 {
            self.begin_decay(now);
        }
    }

    /// Hears a frame that [is for](super::frame::is_for) it.
    ///
    /// # Errors
    /// It is not taken: what is wrong with it.
    pub fn hear(&mut self, frame: &[u8], now: Instant) -> Result<(), &'static str> {
        let now = self.at(now);
        self.frames.packets = self.frames.packets.saturating_add(1);
        self.look(now);
        let packet = parse(frame).ok_or("too short, or from behind a router")?;
        packet.check()?;
        if packet.other == 0 && packet.state > BfdState::Down {
            return Err("Null your_disc");
        }
        if packet.other != 0 && packet.other != self.discriminator {
            return Err("Incorrect your_disc");
        }
        self.take(&packet, now);
        self.follow(packet.state, now);
        if self.settings.forwarding_if_rx {
            let long = u64::from(self.settings.min_rx).saturating_mul(DEMAND_INTERVALS);
            self.frames.may_until = now.saturating_add(long);
        }
        self.look(now);
        Ok(())
    }

    /// What the neighbour says of itself, and of polls.
    fn take(&mut self, packet: &Packet, now: u64) {
        let milliseconds = |microseconds: u32| (microseconds / 1_000).max(1);
        let before = self.remote.min_rx;
        self.remote = BfdSide {
            flags: packet.flags,
            state: packet.state,
            diag: packet.diag,
            discriminator: packet.own,
            min_tx: milliseconds(packet.min_tx),
            min_rx: milliseconds(packet.min_rx),
            mult: packet.mult,
        };
        if packet.flags.has(BfdFlags::FINAL) && self.is_polling() {
            self.agreed = self.polled;
            self.flags.set(BfdFlags::POLL, false);
        }
        if packet.flags.has(BfdFlags::POLL) {
            self.flags.set(BfdFlags::POLL, false);
            self.flags.set(BfdFlags::FINAL, true);
        }
        if self.remote.min_rx != before && self.next_packet != 0 {
            self.plan();
        }
        let [_, rx] = self.intervals();
        self.detect_at = now.saturating_add(rx.saturating_mul(packet.mult.into()));
    }

    /// Follows the neighbour's state (section 6.8.6).
    fn follow(&mut self, remote: BfdState, now: u64) {
        let (state, diag) = match (self.state, remote) {
            (BfdState::AdminDown, _) => return,
            (BfdState::Init | BfdState::Up, BfdState::AdminDown)
            | (BfdState::Up, BfdState::Down) => (BfdState::Down, BfdDiag::NEIGHBOUR_DOWN),
            (BfdState::Down, BfdState::Down) => (BfdState::Init, self.diag),
            (BfdState::Down, BfdState::Init) | (BfdState::Init, BfdState::Init | BfdState::Up) => {
                (BfdState::Up, self.diag)
            }
            _ => return,
        };
        self.enter(state, diag, now);
    }

    /// Does what is due at `now`, when so many frames have come in on its port; gives what is to be sent, and
    /// the UDP port that it comes from.
    pub fn run(&mut self, frames: u64, now: Instant) -> Option<(Packet, u16)> {
        let now = self.at(now);
        let has_frames = frames > std::mem::replace(&mut self.frames.seen, frames);
        self.frames.looked_at = now;
        if has_frames && self.settings.forwarding_if_rx {
            self.look(now);
            self.count_frames(now);
            self.look(now);
        }
        let is_due = self.flags.has(BfdFlags::FINAL) || now >= self.next_packet;
        let packet = is_due.then(|| (self.say(now), self.port));
        if self.state > BfdState::Down && now >= self.detect_at {
            self.enter(BfdState::Down, BfdDiag::EXPIRED, now);
        }
        self.look(now);
        self.look_at_traffic(now);
        packet
    }

    /// Has the neighbour send less often where hardly anything but that comes.
    fn look_at_traffic(&mut self, now: u64) {
        let decay = u64::from(self.settings.decay_min_rx);
        let were_few = self.frames.are_few;
        if self.state == BfdState::Up && decay > 0 && now >= self.frames.next_look {
            let come = self.frames.seen.saturating_sub(self.frames.before);
            self.frames.are_few = come <= self.frames.packets.max(1).saturating_mul(2);
            self.begin_decay(now);
        }
        let [tx, rx] = self.agreed;
        let min_rx = u64::from(self.settings.min_rx);
        let is_other = tx != u64::from(self.settings.min_tx) || (rx != min_rx && rx != decay);
        if is_other || were_few != self.frames.are_few {
            self.poll();
        }
    }

    fn say(&mut self, now: u64) -> Packet {
        let [tx, rx] = match self.is_polling() {
            true => self.polled,
            false => [self.min_tx(), self.agreed[1]],
        };
        let microseconds = |milliseconds: u64| {
            u32::try_from(milliseconds.saturating_mul(1_000)).unwrap_or(u32::MAX)
        };
        let packet = Packet {
            diag: self.diag,
            state: self.state,
            flags: self.flags,
            mult: self.settings.mult,
            own: self.discriminator,
            other: self.remote.discriminator,
            min_tx: microseconds(tx),
            min_rx: microseconds(rx),
            ..Packet::new()
        };
        self.flags.set(BfdFlags::FINAL, false);
        self.last_packet = Some(now);
        self.plan();
        packet
    }

    /// When there is something to do next.
    #[must_use]
    pub fn due(&self) -> Instant {
        if self.flags.has(BfdFlags::FINAL) {
            return self.began;
        }
        let mut due = self.next_packet;
        if self.state > BfdState::Down {
            due = due.min(self.detect_at);
        }
        if self.settings.forwarding_if_rx {
            due = due.min(self.frames.looked_at.saturating_add(LOOK));
        }
        later(self.began, Duration::from_millis(due))
    }

    /// Whether the link does, as it was when that was looked at last.
    #[must_use]
    pub const fn is_forwarding(&self) -> bool {
        match self.told {
            Some(told) => told,
            None => self.was_forwarding,
        }
    }

    /// What it is at `now`.
    pub fn report(&mut self, now: Instant) -> BfdReport {
        let now = self.at(now);
        let is_forwarding = self.look(now);
        let short = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let until = |at: u64| {
            let [at, now] = [at, now].map(|at| i64::try_from(at).unwrap_or(i64::MAX));
            at.saturating_sub(now)
        };
        let local = BfdSide {
            flags: self.flags,
            state: self.state,
            diag: self.diag,
            discriminator: self.discriminator,
            min_tx: short(self.min_tx()),
            min_rx: short(self.agreed[1]),
            mult: self.settings.mult,
        };
        BfdReport {
            settings: self.settings.clone(),
            is_forwarding,
            flaps: self.flaps,
            local,
            remote: self.remote,
            intervals: self.intervals().map(short),
            times: [self.detect_at, self.next_packet, self.last_packet.unwrap_or(0)].map(until),
        }
    }
}
