//! Which packets have come in, for somebody who looks at flows.
//!
//! A worker counts packets by all that rules could match on, until that is taken away. What it costs, a
//! look-up in a table of keys for each packet, is paid while it is told to record all; otherwise it does
//! so [sparingly](sparing), or not at all.

pub(crate) mod sparing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eal::clock;
use flow::{Depth, Frozen, Key, extract, slot};
use packet::Frame;

use crate::datapath::Source;

pub use sparing::Record;

/// How many kinds of packets a worker counts until they are taken; packets of others are only counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    kinds: usize,
    /// The most that come in on one port: it leaves room for those of others.
    of_port: usize,
    /// For how long kinds are kept that nobody takes.
    keeps: Option<Duration>,
}

impl Room {
    /// While all is recorded.
    pub(crate) const ALL: Self = Self { kinds: 8_192, of_port: 6_144, keeps: None };

    /// While little is.
    pub(crate) const SPARING: Self =
        Self { kinds: 1_024, of_port: 768, keeps: Some(Duration::from_secs(10)) };
}

impl Default for Room {
    fn default() -> Self {
        Self::ALL
    }
}

/// How many bytes of headers are looked at, as where frames go by rules.
const HEAD: usize = 192;

/// Packets that no rule could tell from each other, and that came in on one port, or have come again since
/// they were tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// All that rules can match on. The number of the port is the switch's, not OpenFlow's; of those that
    /// have come again it is OpenFlow's.
    pub key: Key,
    /// What those go on with.
    pub onward: Option<Arc<Frozen>>,
    /// And in which bridge.
    pub bridge: String,
    /// The place of the worker that took them.
    pub worker: u16,
    /// The switch's number of the port where they came in, before they went through patch ports.
    pub origin: u16,
    /// How many they were.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the first one.
    pub first_bytes: u64,
    /// When the last one came, in clock cycles.
    pub last: u64,
}

/// What has come in since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Kinds of packets; of each worker in the order in which they came first.
    pub kinds: Vec<Recorded>,
    /// Packets of further kinds, for which there was no room while all was recorded.
    pub missed: u64,
    /// When packets came last that were not recorded, as little was; in clock cycles.
    pub passed: Option<u64>,
}

/// A worker's part.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    recording: Recording,
    /// Places in it.
    places: HashMap<Key, usize>,
    /// How many kinds there are of each port.
    of_ports: HashMap<u32, usize>,
    room: Room,
    /// What was recorded before that, and when this began, in clock cycles.
    before: Vec<Recorded>,
    since: u64,
}

impl Recorder {
    pub(crate) const fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// Whether what came lately was taken, so that it lacks where it is to be kept as by this room.
    const fn has_given_away(&self, room: Room) -> bool {
        self.room.keeps.is_none() && room.keeps.is_some()
    }

    /// Packets were not recorded until `now`.
    pub(crate) const fn pass(&mut self, now: u64) {
        self.recording.passed = Some(now);
    }

    /// Counts a burst.
    #[cold]
    pub(crate) fn note(&mut self, frames: &[Frame<'_>], source: &Source<'_>) {
        for frame in frames {
            let Some(key) = key_of(frame, source.port) else { continue };
            self.count(&key, (None, source.port), frame.len() as u64, source.now);
        }
    }

    /// Counts a burst that has come by a tunnel, and in at the port that OpenFlow knows by this number. What has no header
    /// of Ethernet is counted so, whatever rules see of it.
    #[cold]
    pub(crate) fn note_arrival(&mut self, frames: &[Frame<'_>], source: &Source<'_>, port: u32) {
        let tunnel = source.tunnel();
        if tunnel.is_none() {
            return;
        }
        for frame in frames {
            let Some(mut key) = key_of(frame, source.port) else { continue };
            key.set(slot::IN_PORT, port.into());
            key.set_tunnel(&tunnel);
            if source.place() != 0 {
                key.set_packet_type(1 << 16 | key.get_u32(slot::ETH_TYPE));
            }
            let bytes = frame.len().saturating_sub(source.place());
            self.count(&key, (None, source.origin), bytes as u64, source.now);
        }
    }

    /// Counts a packet that was tracked, and goes on with `onward`.
    #[cold]
    pub(crate) fn note_tracked(
        &mut self,
        key: &Key,
        onward: &Arc<Frozen>,
        bytes: u64,
        source: &Source<'_>,
    ) {
        self.count(key, (Some(onward), source.origin), bytes, source.now);
    }

    fn count(
        &mut self,
        key: &Key,
        (onward, origin): (Option<&Arc<Frozen>>, u16),
        bytes: u64,
        now: u64,
    ) {
        self.turn(now);
        let Recording { kinds, missed, passed } = &mut self.recording;
        let known = self.places.get(key).and_then(|place| kinds.get_mut(*place));
        // Numbers of what packets go on with are used again.
        if let Some(known) =
            known.filter(|known| known.onward.as_ref() == onward && known.origin == origin)
        {
            known.packets = known.packets.wrapping_add(1);
            known.bytes = known.bytes.wrapping_add(bytes);
            known.last = now;
        } else if kinds.len() < self.room.kinds
            && has_room(&mut self.of_ports, key, self.room.of_port)
        {
            self.places.insert(*key, kinds.len());
            kinds.push(Recorded {
                key: *key,
                onward: onward.cloned(),
                bridge: String::new(),
                worker: 0,
                origin,
                packets: 1,
                bytes,
                first_bytes: bytes,
                last: now,
            });
        } else if self.room.keeps.is_some() {
            *passed = Some(now);
        } else {
            *missed = missed.wrapping_add(1);
        }
    }

    /// Where kinds are kept for a while only, begins anew when that is over; what there is stays as long again.
    fn turn(&mut self, now: u64) {
        let Some(keeps) = self.room.keeps else { return };
        if now.wrapping_sub(self.since) > clock::cycles(keeps) {
            self.places.clear();
            self.of_ports.clear();
            self.before = std::mem::take(&mut self.recording.kinds);
            self.since = now;
        }
    }

    /// Gives away what was counted, and begins anew.
    pub(crate) fn take(&mut self) -> Recording {
        self.places.clear();
        self.of_ports.clear();
        let mut all = std::mem::take(&mut self.recording);
        if !self.before.is_empty() {
            let last = std::mem::replace(&mut all.kinds, std::mem::take(&mut self.before));
            all.kinds.extend(last);
        }
        all
    }
}

/// Whether there may be one kind more of the port where a packet came in, which is counted then.
fn has_room(of_ports: &mut HashMap<u32, usize>, key: &Key, most: usize) -> bool {
    let count = of_ports.entry(key.get_u32(slot::IN_PORT)).or_insert(0);
    let has_room = *count < most;
    *count += usize::from(has_room);
    has_room
}

/// Tags that are looked at: as many as rules of any bridge may.
const VLANS: u8 = flow::VlanLimit::MOST.tags();

/// What rules could match on; `None` for what is no frame, or has headers that are longer than what is
/// looked at.
fn key_of(frame: &Frame<'_>, port: u16) -> Option<Key> {
    let mut key = Key::default();
    key.set(slot::IN_PORT, port.into());
    let mut layers = extract(&mut key, frame.head(), frame.len(), VLANS, Depth::All);
    if layers.is_cut {
        let mut head = [0; HEAD];
        let count = frame.copy_to(&mut head);
        key.clear_packet();
        let head = head.get(..count)?;
        layers = extract(&mut key, head, frame.len(), VLANS, Depth::All);
    }
    (layers.network != 0 && !layers.is_cut).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn key(port: u16) -> Key {
        let mut key = Key::default();
        key.set(slot::IN_PORT, port.into());
        key
    }

    #[test]
    fn packets_are_counted_by_kind_until_they_are_taken() {
        let mut recorder = Recorder::default();
        recorder.count(&key(2), (None, 7), 60, 5);
        recorder.count(&key(1), (None, 7), 100, 6);
        recorder.count(&key(2), (None, 7), 70, 7);
        let taken = recorder.take();
        let second = Recorded {
            key: key(2),
            onward: None,
            bridge: String::new(),
            worker: 0,
            origin: 7,
            packets: 2,
            bytes: 130,
            first_bytes: 60,
            last: 7,
        };
        assert_eq!(taken.kinds[0], second);
        assert_eq!((taken.kinds[1].key, taken.kinds[1].packets, taken.missed), (key(1), 1, 0));
        recorder.count(&key(2), (None, 7), 60, 8);
        assert_eq!(recorder.take().kinds[0].packets, 1);
        assert_eq!(recorder.take(), Recording::default());
    }

    #[test]
    fn there_is_an_end_to_kinds() {
        let mut recorder = Recorder::default();
        for port in 0..=u16::MAX {
            recorder.count(&key(port), (None, 7), 60, 1);
        }
        recorder.count(&key(0), (None, 7), 60, 2);
        let taken = recorder.take();
        assert_eq!((taken.kinds.len(), taken.kinds[0].packets), (Room::ALL.kinds, 2));
        assert_eq!(taken.missed, (1 << 16) - Room::ALL.kinds as u64);
    }

    #[test]
    fn one_port_leaves_room_for_others() {
        let mut recorder = Recorder::default();
        for source in 0..10_000 {
            let mut key = key(1);
            key.set(slot::IPV4_SRC, source);
            recorder.count(&key, (None, 7), 60, 1);
        }
        recorder.count(&key(2), (None, 7), 60, 2);
        let taken = recorder.take();
        assert_eq!((taken.kinds.len(), taken.missed), (Room::ALL.of_port + 1, 10_000 - 6_144));
        recorder.count(&key(1), (None, 7), 60, 3);
        assert_eq!(recorder.take().kinds.len(), 1);
    }

    #[test]
    fn what_nobody_takes_is_kept_for_a_while() {
        let mut recorder = Recorder::default();
        recorder.set_room(Room::SPARING);
        let second = clock::cycles(Duration::from_secs(1));
        let start = 100 * second;
        for (port, at) in [(1, 0), (2, 9), (1, 11), (3, 12)] {
            recorder.count(&key(port), (None, port), 60, start + at * second);
        }
        let ports =
            |taken: &Recording| -> Vec<u16> { taken.kinds.iter().map(|of| of.origin).collect() };
        assert_eq!(ports(&recorder.take()), [1, 2, 1, 3]);
        for (port, at) in [(1, 20), (2, 31), (3, 42)] {
            recorder.count(&key(port), (None, port), 60, start + at * second);
        }
        assert_eq!(ports(&recorder.take()), [2, 3]);
        // What finds no room is not lost, as not all is recorded.
        (0..2_000)
            .for_each(|port| recorder.count(&key(port), (None, port), 60, start + 50 * second));
        let taken = recorder.take();
        assert_eq!((taken.kinds.len(), taken.missed), (Room::SPARING.kinds, 0));
        assert_eq!(taken.passed, Some(start + 50 * second));
    }

    #[test]
    fn frames_are_looked_at_as_rules_do() {
        assert_eq!(key_of(&Frame::from_bytes(&[0; 9]), 1), None);
        let mut bytes = [0; 60];
        bytes[12..14].copy_from_slice(&[0x12, 0x34]);
        let key = key_of(&Frame::from_bytes(&bytes), 3).unwrap();
        assert_eq!((key.get_u32(slot::IN_PORT), key.get_u16(slot::ETH_TYPE)), (3, 0x1234));
    }
}
