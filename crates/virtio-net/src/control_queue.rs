//! The driver side of the control queue (virtio 1.3 section 5.1.6.5).

use std::time::{Duration, Instant};

use eal::PeerEvent;
use packet::MacAddr;
use rustix::event::{PollFd, PollFlags, Timespec};
use virtio::driver::{Buffer, DmaPart, DriverQueue, DriverRing, RingError};

use virtio_queues::kick::Kick;

/// Entries of the ring: one command at a time takes three.
pub const SIZE: u16 = 16;

/// Bytes of memory for a command.
pub const BUFFER: usize = 512;

/// Where the parts of a command lie in its memory.
const HEADER: (usize, usize) = (0, 2);
const DATA_AT: usize = 16;
const MAX_DATA: usize = 448;
const ACK: (usize, usize) = (480, 1);

/// Most entries of a table that spreads flows over queues; a power of two.
pub const MAX_SPREAD: u16 = 128;

/// The key of the hash that spreads flows: with this one both directions of a flow have the same
/// hash, and so the same queue (Woo and Park, "Scalable TCP Session Monitoring with Symmetric
/// Receive-side Scaling").
const SPREAD_KEY: [u8; 2] = [0x6D, 0x5A];
const SPREAD_KEY_LEN: u8 = 40;

/// How long to wait before the first look for an answer without a signal, and how long at most:
/// devices in the same machine answer at once.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LAST_PAUSE: Duration = Duration::from_millis(10);

/// The device's answer: done.
const OK: u8 = 0;

/// Something for the device to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Let all frames through, or not.
    Promiscuous(bool),
    /// Let all multicast frames through, or not.
    AllMulticast(bool),
    /// Take this address.
    Mac(MacAddr),
    /// Let this VLAN through.
    AddVlan(u16),
    /// The driver has announced itself.
    AnnounceAck,
    /// Use this many queue pairs.
    QueuePairs(u16),
    /// Spread flows over receive queues.
    Spread(Spread),
}

/// How the device is to spread flows over receive queues (virtio 1.3 section 5.1.6.5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Queue pairs to use.
    pub pairs: u16,
    /// Entries of the table: a power of two, [`MAX_SPREAD`] at most.
    pub entries: u16,
    /// What to take the hash of, as the device's configuration names it.
    pub hash_types: u32,
}

impl Spread {
    fn encode(self) -> arrayvec::ArrayVec<u8, MAX_DATA> {
        let entries = self.entries.clamp(1, MAX_SPREAD);
        let mut data = arrayvec::ArrayVec::new();
        data.extend(self.hash_types.to_le_bytes());
        data.extend((entries - 1).to_le_bytes());
        // The queue for what has no hash.
        data.extend(0_u16.to_le_bytes());
        let queue = |entry: u16| entry.checked_rem(self.pairs).unwrap_or(0);
        data.extend((0..entries).flat_map(|entry| queue(entry).to_le_bytes()));
        data.extend(self.pairs.to_le_bytes());
        data.push(SPREAD_KEY_LEN);
        data.extend(SPREAD_KEY.iter().copied().cycle().take(SPREAD_KEY_LEN.into()));
        data
    }
}

impl Command {
    /// Class, command, and data.
    fn encode(self) -> ([u8; 2], arrayvec::ArrayVec<u8, MAX_DATA>) {
        match self {
            Self::Promiscuous(on) => ([0, 0], [u8::from(on)].into_iter().collect()),
            Self::AllMulticast(on) => ([0, 1], [u8::from(on)].into_iter().collect()),
            Self::Mac(mac) => ([1, 1], mac.0.into_iter().collect()),
            Self::AddVlan(id) => ([2, 0], id.to_le_bytes().into_iter().collect()),
            Self::AnnounceAck => ([3, 0], arrayvec::ArrayVec::new()),
            Self::Spread(spread) => ([4, 1], spread.encode()),
            Self::QueuePairs(count) => ([4, 0], count.to_le_bytes().into_iter().collect()),
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The device says no.
    #[error("the device refuses {0:?}")]
    Refused(Command),
    /// It did not answer in time.
    #[error("the device has not answered {0:?} within {1:?}; the control queue is given up")]
    Timeout(Command, Duration),
    /// It did not answer an earlier command.
    #[error("the control queue has been given up")]
    GivenUp,
    /// It broke the ring.
    #[error("control queue: {0}")]
    Ring(#[from] RingError),
}

/// The control queue of a session.
#[derive(Debug)]
pub struct ControlQueue {
    queue: DriverQueue,
    /// Private to the driver and the device.
    buffer: DmaPart,
    kick: Kick,
    /// What the device signals with its answer, where it does.
    call: Option<PeerEvent>,
    /// The device kept a command: its memory cannot be used for another.
    given_up: bool,
}

impl ControlQueue {
    /// A control queue on `queue`, with `buffer`, of [`BUFFER`] bytes, for commands.
    #[must_use]
    pub const fn new(
        queue: DriverQueue,
        buffer: DmaPart,
        kick: Kick,
        call: Option<PeerEvent>,
    ) -> Self {
        Self { queue, buffer, kick, call, given_up: false }
    }

    /// Its ring, for the device to be told of.
    #[must_use]
    pub const fn queue(&self) -> &DriverQueue {
        &self.queue
    }

    /// Has the device carry out `command`, and waits for its answer.
    ///
    /// # Errors
    /// When it does not, or not in time.
    pub fn run(&mut self, command: Command, timeout: Duration) -> Result<(), CommandError> {
        if self.given_up {
            return Err(CommandError::GivenUp);
        }
        self.post(command).ok_or(CommandError::GivenUp)?;
        if !self.take_back(timeout)? {
            self.given_up = true;
            return Err(CommandError::Timeout(command, timeout));
        }
        if self.answer() == Some(OK) { Ok(()) } else { Err(CommandError::Refused(command)) }
    }

    /// Takes a command back that the last device has kept, now that another one serves the ring.
    ///
    /// # Errors
    /// When that one breaks the ring.
    pub fn recover(&mut self, timeout: Duration) -> Result<(), CommandError> {
        if self.given_up {
            self.kick.signal(self.queue.position());
            self.given_up = !self.take_back(timeout)?;
        }
        Ok(())
    }

    /// Waits for the command that is under way; returns whether it has come back.
    fn take_back(&mut self, timeout: Duration) -> Result<bool, CommandError> {
        let deadline = Instant::now() + timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            self.queue.poll_used()?;
            if let Some(used) = self.queue.next_used()? {
                self.queue.recycle(used.head);
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.wait(pause.min(deadline.saturating_duration_since(Instant::now())));
            pause = LAST_PAUSE.min(pause * 2);
        }
    }

    fn post(&mut self, command: Command) -> Option<()> {
        let (header, data) = command.encode();
        let parts = [
            self.buffer.slice(HEADER.0, HEADER.1)?,
            self.buffer.slice(DATA_AT, data.len())?,
            self.buffer.slice(ACK.0, ACK.1)?,
        ];
        let [header_part, data_part, ack_part] = parts;
        let bytes = [(HEADER.0, &header[..]), (DATA_AT, &data[..]), (ACK.0, &[u8::MAX])];
        if !bytes.into_iter().all(|(at, bytes)| self.buffer.write(at, bytes)) {
            return None;
        }
        // Some commands have no data, and an empty descriptor is not allowed.
        let data = (!data.is_empty()).then_some(Buffer::readable(data_part));
        let buffers: arrayvec::ArrayVec<Buffer, 3> = [Buffer::readable(header_part)]
            .into_iter()
            .chain(data)
            .chain([Buffer::writable(ack_part)])
            .collect();
        self.queue.add(&buffers)?;
        if self.queue.publish() {
            self.kick.signal(self.queue.position());
        }
        Some(())
    }

    /// The device's answer, read once.
    fn answer(&self) -> Option<u8> {
        let mut ack = [u8::MAX; ACK.1];
        self.buffer.read(ACK.0, &mut ack).then_some(ack[0])
    }

    /// Waits for a signal, but not for long: one may be lost with a device that is no friend, or
    /// there are none.
    fn wait(&mut self, pause: Duration) {
        let Some(call) = &self.call else {
            std::thread::sleep(pause);
            return;
        };
        let _ = call.drain();
        if !self.queue.enable_interrupts() {
            return;
        }
        let timeout = Timespec::try_from(pause).unwrap_or_default();
        let mut fds = [PollFd::new(call, PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
    }
}
