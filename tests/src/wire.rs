use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::frames::{difference, frame};

/// The largest frame that QEMU sends.
const LARGEST: usize = 70_000;

/// After how long wires that are joined look whether they still are.
const LOOK: Duration = Duration::from_millis(20);

/// The cable of a guest's network device, whose other end is in the test's hands: every frame is
/// a datagram on a Unix socket. None is lost: a full socket makes the device wait. But of those that
/// are sent before the device has a driver QEMU takes the first one off the socket, and drops it when
/// the driver comes (it tells the network of the new status before it takes it down itself).
///
/// Make it before the guest starts.
#[derive(Debug)]
pub struct Wire {
    socket: UnixDatagram,
    ours: PathBuf,
    theirs: PathBuf,
}

impl Wire {
    /// A wire whose sockets are in `dir` and begin with `name`.
    ///
    /// # Errors
    /// When the path is taken or too long.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let path = |end: &str| dir.join(format!("{name}.{end}"));
        let (ours, theirs) = (path("test"), path("nic"));
        let socket = UnixDatagram::bind(&ours).with_context(|| ours.display().to_string())?;
        Ok(Self { socket, ours, theirs })
    }

    /// Sends a frame, without FCS, to the device.
    ///
    /// # Errors
    /// When QEMU does not take it within a minute, or is not there.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.set_write_timeout(Some(Duration::from_secs(60)))?;
        let sent = self.socket.send_to(frame, &self.theirs);
        sent.with_context(|| format!("{} takes no frame", self.theirs.display())).map(drop)
    }

    /// The next frame from the device; `None` when there is none within `limit`.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn receive(&self, limit: Duration) -> Result<Option<Vec<u8>>> {
        // A timeout of zero would be none.
        self.socket.set_read_timeout(Some(limit.max(Duration::from_micros(1))))?;
        let mut frame = vec![0; LARGEST];
        match self.socket.recv(&mut frame) {
            Ok(len) => {
                frame.truncate(len);
                Ok(Some(frame))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The next `count` frames from the device that `wanted` picks.
    ///
    /// # Errors
    /// When they do not come within `limit`; the message has how many did.
    pub fn receive_some(
        &self,
        count: usize,
        limit: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        match self.receive_into(&mut frames, count, limit, wanted)? {
            true => Ok(frames),
            false => bail!("{} of {count} frames within {limit:?}", frames.len()),
        }
    }

    /// The next frames from the device that `wanted` picks, into `frames` until these are `count`;
    /// returns whether they are within `limit`.
    fn receive_into(
        &self,
        frames: &mut Vec<Vec<u8>>,
        count: usize,
        limit: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while frames.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left)? {
                Some(frame) if wanted(&frame) => frames.push(frame),
                Some(_) if !left.is_zero() => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes the frames of the tests' own type that come from the device, which are to be those of
    /// `expected`, in any order, and nothing else.
    ///
    /// # Errors
    /// When they are others, or do not come within `limit`; the message says which.
    pub fn expect(&self, expected: &[Vec<u8>], limit: Duration) -> Result<()> {
        let is_ours = |frame: &[u8]| frame.get(12..14) == Some(&[0x88, 0xb5]);
        let mut arrived = Vec::new();
        let in_time = self.receive_into(&mut arrived, expected.len(), limit, is_ours)?;
        let Some(difference) = difference(expected, &arrived) else { return Ok(()) };
        let missing = (0..).zip(expected).filter(|(_, frame)| !arrived.contains(frame));
        let missing: Vec<usize> = missing.map(|(index, _)| index).collect();
        let when =
            if in_time { "before others came".to_owned() } else { format!("within {limit:?}") };
        bail!("{difference}; frames {missing:?} of them did not come {when}")
    }

    /// Takes frames until none comes for `quiet`.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn drain(&self, quiet: Duration) -> Result<()> {
        while self.receive(quiet)?.is_some() {}
        Ok(())
    }

    /// Joins the test's ends of two wires, so that one device is at the other end of the other's
    /// cable, until what is returned is dropped.
    ///
    /// # Errors
    /// Without file descriptors or threads.
    pub fn join(&self, other: &Self) -> Result<Joined> {
        let mut joined = Joined { over: Arc::default(), threads: Vec::new() };
        for (from, to) in [(self, other), (other, self)] {
            let (from, over) = (from.socket.try_clone()?, Arc::clone(&joined.over));
            let (to, path) = (to.socket.try_clone()?, to.theirs.clone());
            from.set_read_timeout(Some(LOOK))?;
            joined.threads.push(thread::Builder::new().spawn(move || {
                let mut frame = vec![0; LARGEST];
                while !over.load(Relaxed) {
                    if let Ok(len) = from.recv(&mut frame) {
                        // A device that is gone or slow loses frames, as on a cable.
                        drop(to.send_to(frame.get(..len).unwrap_or_default(), &path));
                    }
                }
            })?);
        }
        Ok(joined)
    }

    /// The network back-end for QEMU, with the name `id`.
    #[must_use]
    pub fn netdev(&self, id: &str) -> Value {
        json!({
            "type": "dgram",
            "id": id,
            "local": { "type": "unix", "path": self.theirs },
            "remote": { "type": "unix", "path": self.ours },
        })
    }

    /// Arguments of QEMU that plug the wire, called `id`, into its hub `hub`.
    #[must_use]
    pub fn plug_into_hub(&self, id: &str, hub: u8) -> [String; 4] {
        let port = format!("hubport,id={id}port,hubid={hub},netdev={id}");
        ["-netdev".to_owned(), self.netdev(id).to_string(), "-netdev".to_owned(), port]
    }
}

/// Two wires that are one.
#[derive(Debug)]
pub struct Joined {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for path in [&self.ours, &self.theirs] {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Stations at the ends of two wires.
pub const LEFT: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The one at the second wire.
pub const RIGHT: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Sends frames into each of two wires, at least `count`, and checks what comes out of the other one:
/// the same, and nothing else of their type. They go in bursts of eight, which a wire holds; their
/// sizes are those of `sizes` in turn, and their contents come of `next`, which is counted up.
/// Returns how many there were in all.
///
/// # Errors
/// When a frame does not come out within `limit`, or another one does.
pub fn exchange(
    wires: &[Wire; 2],
    sizes: &[usize],
    next: &mut u32,
    count: u32,
    limit: Duration,
) -> Result<u64> {
    let [left, right] = wires;
    let mut passed = 0;
    for (from, to, src, dst) in [(left, right, LEFT, RIGHT), (right, left, RIGHT, LEFT)] {
        for _ in 0..count.div_ceil(8) {
            let seeds = *next..*next + 8;
            *next += 8;
            let frames = seeds.zip(sizes.iter().cycle());
            let sent: Vec<_> = frames.map(|(seed, len)| frame(dst, src, *len, seed)).collect();
            for frame in &sent {
                from.send(frame)?;
            }
            let arrived = to.expect(&sent, limit);
            arrived.with_context(|| format!("from {}", from.ours.display()))?;
            passed += sent.len() as u64;
        }
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_datagrams_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let wire = Wire::new(dir.path(), "w").unwrap();
        assert!(wire.send(b"x").is_err());
        let device = UnixDatagram::bind(dir.path().join("w.nic")).unwrap();
        wire.send(&[1; 60]).unwrap();
        let mut frame = [0; 100];
        assert_eq!(device.recv(&mut frame).unwrap(), 60);
        for byte in [2, 3, 3] {
            device.send_to(&[byte; 9000], dir.path().join("w.test")).unwrap();
        }
        let threes = wire.receive_some(2, Duration::from_secs(60), |frame| frame[0] == 3).unwrap();
        assert_eq!((threes.len(), threes[0].len()), (2, 9000));
        assert_eq!(wire.receive(Duration::from_millis(1)).unwrap(), None);
        assert!(wire.receive_some(1, Duration::from_millis(1), |_| true).is_err());
    }
}
