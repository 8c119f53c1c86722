//! What happens to a burst of frames between the queue where it came in and the ports where it
//! goes out.
//!
//! The frames stay where they are, in the ring of the sender; what is computed here is a bit
//! mask per destination. Neighbouring frames of the same addresses are one *run* and cost one
//! decision. The memory that the decisions need is prefetched for all runs first.

use std::sync::Arc;

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats, RxBurst};
use packet::{BURST, Frame, Packet, PoolCache};

use crate::fdb::{Fdb, Hash, Key};
use crate::header::{self, Addresses};
use crate::output::Output;

/// The VLAN of all frames: this switch does not look at tags yet.
const VLAN: u16 = 0;

/// Where a burst came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'s> {
    /// Number of the port.
    pub(crate) port: u16,
    /// Counters of the receive queue, where frames without destination are counted.
    pub(crate) stats: &'s QueueStats,
    /// The time, in clock cycles, give or take a round.
    pub(crate) now: u64,
}

/// Neighbouring frames with the same addresses.
#[derive(Clone, Copy, Debug)]
struct Run {
    addresses: Addresses,
    /// The frames: bit 0 is the first of the burst.
    mask: u32,
}

/// An address to look up.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    address: u64,
    key: Key,
    hash: Hash,
}

/// A run whose addresses make sense.
#[derive(Clone, Copy, Debug)]
struct Lookup {
    mask: u32,
    /// Whether the run before has the same source.
    same_source: bool,
    source: Wanted,
    /// If it is a group address, it is not looked up.
    destination: Wanted,
}

/// One worker's data path.
#[derive(Debug)]
pub(crate) struct Datapath {
    fdb: Arc<Fdb>,
    /// By port number.
    outputs: Vec<Option<Output>>,
    /// The most addresses that one burst may change in the forwarding database.
    learn_per_burst: usize,
    /// Outputs used since the last flush.
    unflushed: Vec<u16>,
    /// Where buffers of packets go that are done with.
    cache: PoolCache,
}

impl Datapath {
    pub(crate) fn new(fdb: Arc<Fdb>, learn_per_burst: usize, cache: PoolCache) -> Self {
        Self { fdb, outputs: Vec::new(), learn_per_burst, unflushed: Vec::new(), cache }
    }

    /// Puts the output to `port` in place, and returns the one that was there.
    pub(crate) fn set_output(&mut self, port: u16, output: Option<Output>) -> Option<Output> {
        let index = usize::from(port);
        if self.outputs.len() <= index {
            self.outputs.resize_with(index + 1, || None);
        }
        self.unflushed.reserve(self.outputs.len());
        let mut before = std::mem::replace(self.outputs.get_mut(index)?, output);
        if let Some(before) = &mut before {
            before.flush();
        }
        before
    }

    /// Changes how often to try again although `port` takes nothing.
    pub(crate) fn set_retries(&mut self, port: u16, retries: u32) {
        if let Some(Some(output)) = self.outputs.get_mut(usize::from(port)) {
            output.set_retries(retries);
        }
    }

    /// Sends each frame of a burst where it belongs: without a copy if the burst lies in packet
    /// buffers, and all of it goes to one device that sends from such.
    #[inline]
    pub(crate) fn forward_burst(&mut self, burst: RxBurst<'_>, source: &Source<'_>) {
        let gives = burst.gives_packets();
        if let Some(port) = self.forward(burst.frames(), source, gives) {
            self.give(burst, port);
        }
    }

    /// Sends each frame of a burst, of [`BURST`] at most, where it belongs. If all of them are to go
    /// to one port which could have them as packets, and `gives` says that they can be, then they
    /// are not sent, and the port is returned.
    #[inline]
    pub(crate) fn forward(
        &mut self,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let mut runs = ArrayVec::<Run, BURST>::new();
        let longest = gather(frames, source.stats, &mut runs);
        let mut lookups = ArrayVec::<Lookup, BURST>::new();
        for run in &runs {
            self.classify(run, source.stats, &mut lookups);
        }
        self.learn(&lookups, source.port);
        let mut used = ArrayVec::<u16, BURST>::new();
        let mut flood = 0;
        for lookup in &lookups {
            flood |= self.decide(lookup, source, &mut used);
        }
        if flood != 0 {
            self.flood(frames, longest, source, flood);
            return None;
        }
        if gives && let Some(port) = self.only_output(&used, frames.len(), longest, source) {
            return Some(port);
        }
        self.send(frames, longest, source, &used);
        None
    }

    /// The output of a whole burst of `count` frames, if there is one that takes packets.
    #[inline(never)]
    fn only_output(
        &mut self,
        used: &[u16],
        count: usize,
        longest: usize,
        source: &Source<'_>,
    ) -> Option<u16> {
        let [port] = *used else { return None };
        let output = self.outputs.get_mut(usize::from(port))?.as_mut()?;
        let is_whole = output.mask.count_ones() as usize == count;
        if !is_whole || !output.is_ready(source.now) || !output.takes_packets(longest) {
            return None;
        }
        output.mask = 0;
        Some(port)
    }

    /// Gives a burst to a port, as packets.
    #[inline(never)]
    fn give(&mut self, burst: RxBurst<'_>, port: u16) {
        let Some(Some(output)) = self.outputs.get_mut(usize::from(port)) else { return };
        let mut packets = ArrayVec::<Packet, BURST>::new();
        burst.into_packets(&mut packets, &mut self.cache);
        output.give(&mut packets, &mut self.cache);
        if output.is_first_use() {
            self.unflushed.push(port);
        }
    }

    /// Checks a run's addresses and starts to load what their lookups need.
    #[inline]
    fn classify(&self, run: &Run, stats: &QueueStats, lookups: &mut ArrayVec<Lookup, BURST>) {
        let (from, to) = (run.addresses.source(), run.addresses.destination());
        let count = run.mask.count_ones() as usize;
        if !header::is_station(from) {
            return stats.count_drops(DropReason::BadSource, count);
        }
        if header::is_reserved(to) {
            return stats.count_drops(DropReason::ReservedMulticast, count);
        }
        // One station that sends to many, and many that send to one, are common.
        let last = lookups.last().copied();
        let (source, same_source) = match last {
            Some(last) if last.source.address == from => (last.source, true),
            _ => (self.prepare(from), false),
        };
        let destination = match last {
            Some(last) if last.destination.address == to => last.destination,
            _ => self.prepare(to),
        };
        // There is room for as many lookups as there are runs.
        let _ = lookups.try_push(Lookup { mask: run.mask, same_source, source, destination });
    }

    #[inline]
    fn prepare(&self, address: u64) -> Wanted {
        let key = Key::from_bits(VLAN, address);
        let hash = self.fdb.hash(key);
        self.fdb.prefetch(hash);
        Wanted { address, key, hash }
    }

    /// Notes where the source addresses are.
    #[inline]
    fn learn(&self, lookups: &[Lookup], port: u16) {
        let second = self.fdb.now();
        let mut news = ArrayVec::<Wanted, BURST>::new();
        for lookup in lookups {
            let source = lookup.source;
            if !lookup.same_source
                && self.fdb.see(source.key, source.hash, port, second)
                && news.len() < self.learn_per_burst
            {
                let _ = news.try_push(source);
            }
        }
        if !news.is_empty() {
            self.learn_new(&news, port);
        }
    }

    #[cold]
    fn learn_new(&self, news: &[Wanted], port: u16) {
        // If somebody else is changing the database, later frames will do.
        if let Some(mut writer) = self.fdb.try_write() {
            for new in news {
                writer.learn(new.key, new.hash, port);
            }
        }
    }

    /// Finds the port of a run. Returns the run's frames if they must go to all ports; otherwise
    /// they are noted at their output, which is added to `used`.
    #[inline]
    fn decide(
        &mut self,
        lookup: &Lookup,
        source: &Source<'_>,
        used: &mut ArrayVec<u16, BURST>,
    ) -> u32 {
        let to = lookup.destination;
        if header::is_group(to.address) {
            return lookup.mask;
        }
        let Some(found) = self.fdb.find(to.key, to.hash) else { return lookup.mask };
        let port = found.port();
        if port == source.port {
            source.stats.count_drops(DropReason::Hairpin, lookup.mask.count_ones() as usize);
            return 0;
        }
        let Some(Some(output)) = self.outputs.get_mut(usize::from(port)) else {
            // The port is just being removed.
            source.stats.count_drops(DropReason::LinkDown, lookup.mask.count_ones() as usize);
            return 0;
        };
        if output.mask == 0 {
            let _ = used.try_push(port);
        }
        output.mask |= lookup.mask;
        0
    }

    /// Sends the frames noted at the outputs in `used`.
    #[inline]
    fn send(
        &mut self,
        frames: &[Frame<'_>],
        longest: usize,
        source: &Source<'_>,
        used: &ArrayVec<u16, BURST>,
    ) {
        for port in used {
            let Some(Some(output)) = self.outputs.get_mut(usize::from(*port)) else { continue };
            let mask = std::mem::take(&mut output.mask);
            output.is_ready(source.now);
            if !output.send(frames, mask, longest) {
                source.stats.count_drops(DropReason::LinkDown, mask.count_ones() as usize);
            }
            if output.is_first_use() {
                self.unflushed.push(*port);
            }
        }
    }

    /// Sends the frames of `flood` to all ports that are ready, except where they came from,
    /// and those noted at single outputs with them, so that they stay in order.
    #[cold]
    fn flood(&mut self, frames: &[Frame<'_>], longest: usize, source: &Source<'_>, flood: u32) {
        let mut somebody = false;
        for (index, output) in self.outputs.iter_mut().enumerate() {
            let Some(output) = output else { continue };
            if index == usize::from(source.port) {
                continue;
            }
            let mut mask = std::mem::take(&mut output.mask);
            if output.is_ready(source.now) {
                somebody = true;
                mask |= flood;
            }
            if mask == 0 {
                continue;
            }
            if !output.send(frames, mask, longest) {
                source.stats.count_drops(DropReason::LinkDown, mask.count_ones() as usize);
            }
            if output.is_first_use()
                && let Ok(port) = u16::try_from(index)
            {
                self.unflushed.push(port);
            }
        }
        if !somebody {
            source.stats.count_drops(DropReason::LinkDown, flood.count_ones() as usize);
        }
    }

    /// Lets the devices finish what was sent. To be called after a round over the inputs that found
    /// frames, and again after every further one as long as it returns that a device has not taken
    /// all.
    #[inline]
    pub(crate) fn flush(&mut self) -> bool {
        let outputs = &mut self.outputs;
        self.unflushed.retain(|port| {
            let output = outputs.get_mut(usize::from(*port)).and_then(Option::as_mut);
            output.is_some_and(Output::flush)
        });
        !self.unflushed.is_empty()
    }
}

/// Divides a burst into runs; frames without Ethernet header are dropped. Returns the length of
/// the longest frame.
#[inline]
fn gather(frames: &[Frame<'_>], stats: &QueueStats, runs: &mut ArrayVec<Run, BURST>) -> usize {
    let mut longest = 0;
    let mut bit = 1_u32;
    let mut present = Run { addresses: Addresses::default(), mask: 0 };
    for frame in frames {
        longest = longest.max(frame.len());
        match Addresses::of(frame) {
            Some(addresses) if addresses == present.addresses => present.mask |= bit,
            Some(addresses) => {
                push_run(runs, present);
                present = Run { addresses, mask: bit };
            }
            None => stats.count_drops(DropReason::TooShort, 1),
        }
        bit = bit.wrapping_shl(1);
    }
    push_run(runs, present);
    longest
}

#[inline]
fn push_run(runs: &mut ArrayVec<Run, BURST>, run: Run) {
    if run.mask != 0 {
        // There are no more runs than frames.
        let _ = runs.try_push(run);
    }
}

#[cfg(test)]
mod tests;
