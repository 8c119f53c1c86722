//! A port without a device: it swallows what is sent to it, and can make frames up.

use std::sync::Arc;

use eal::sandbox::Needs;
use ethdev::{
    DeviceSpec, DriverInfo, Error, OpenPort, OptionInfo, QueueStats, RxDriver, RxQueue, Sent,
    TxDriver, TxQueue,
};
use packet::{BURST, Capabilities, Frame, FrameBatch, MacAddr};

use crate::control::{OpenFlag, PlainControl};
use packet::slots::{MAX_SLOT_LEN, SlotBatch};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "null",
    syntax: "null:[rx=on][,size=64][,queues=1]",
    summary: "no device: swallows what is sent to it; with rx=on it receives made-up frames",
    options: &[
        OptionInfo {
            name: "rx",
            value: "on|off",
            help: "receive made-up frames as fast as polled (default off: receive nothing)",
        },
        OptionInfo {
            name: "size",
            value: "BYTES",
            help: "size of those frames without checksum, 60 to 65535 (default 64)",
        },
        OptionInfo { name: "queues", value: "N", help: "queue pairs, 1 to 64 (default 1)" },
    ],
};

/// Type of the frames that are made up: an Ethertype for local experiments (IEEE 802, clause
/// 9.2.4).
const ETHERTYPE: [u8; 2] = [0x88, 0xB5];

const DST: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x01]);
const SRC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x02]);

/// Options of a port, parsed.
pub(crate) struct Config {
    generate: bool,
    size: usize,
    queues: usize,
}

impl Config {
    pub(crate) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        spec.allow_option_as_target(&["rx", "size", "queues"])?;
        let config = Self {
            generate: spec.take_switch("rx", false)?,
            size: spec.take_number("size", 64, &(60..=MAX_SLOT_LEN))?,
            queues: spec.take_number("queues", 1, &(1..=64))?,
        };
        if !spec.target().is_empty() {
            let takes = INFO.option_names();
            return Err(spec.error(format!("'{}' is no option; null takes {takes}", spec.target())));
        }
        spec.finish(&INFO.option_names())?;
        Ok(config)
    }
}

/// Reads a device string and opens nothing.
///
/// # Errors
/// Options that make no sense.
pub fn check(spec: DeviceSpec) -> Result<(), Error> {
    Config::parse(spec).map(drop)
}

/// What such a port needs of the system.
#[must_use]
pub fn needs(_: &mut DeviceSpec) -> Needs {
    Needs::new()
}

/// Opens a null port.
///
/// # Errors
/// Options that make no sense.
pub fn open(name: &str, spec: DeviceSpec) -> Result<OpenPort, Error> {
    let device = spec.text().to_owned();
    let Config { generate, size, queues } = Config::parse(spec)?;
    let control = PlainControl::new(INFO.name, queues, Vec::new());
    let rx = (0..queues).map(|_| {
        let driver = NullRx::new(size, generate, control.open_flag());
        RxQueue::new(Box::new(driver), Arc::new(QueueStats::default()))
    });
    let tx = (0..queues).map(|_| {
        let driver = NullTx { open: control.open_flag() };
        TxQueue::new(Box::new(driver), Arc::new(QueueStats::default()))
    });
    let (rx, tx) = (rx.collect(), tx.collect());
    Ok(OpenPort::new(name, &device, Box::new(control), rx, tx))
}

/// Receives the same frame over and over, or nothing.
struct NullRx {
    slots: SlotBatch,
    /// The frame; empty when none are made up.
    template: Vec<u8>,
    /// Somebody may have changed frames in their slots.
    rewritten: bool,
    open: OpenFlag,
}

impl NullRx {
    fn new(size: usize, generate: bool, open: OpenFlag) -> Self {
        let template = if generate { template(size) } else { Vec::new() };
        Self { slots: SlotBatch::new(template.len()), template, rewritten: true, open }
    }
}

fn template(size: usize) -> Vec<u8> {
    let header = DST.0.into_iter().chain(SRC.0).chain(ETHERTYPE);
    // The payload counts up, so that a tool that looks at it sees where it is.
    header.chain((0..=u8::MAX).cycle()).take(size).collect()
}

impl RxDriver for NullRx {
    fn receive(&mut self, max: usize, _stats: &QueueStats) {
        self.slots.clear();
        if self.template.is_empty() || !self.open.is_open() {
            return;
        }
        if std::mem::take(&mut self.rewritten) {
            self.write_slots();
        }
        for _ in 0..max.min(BURST) {
            self.slots.commit(self.template.len());
        }
    }

    fn batch(&self) -> &FrameBatch {
        self.slots.batch()
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        self.rewritten = true;
        self.slots.batch_mut()
    }

    fn release(&mut self) {
        self.slots.clear();
    }
}

impl NullRx {
    fn write_slots(&mut self) {
        while let Some(slot) = self.slots.next_slot() {
            for (to, from) in slot.iter_mut().zip(&self.template) {
                *to = *from;
            }
            self.slots.commit(self.template.len());
        }
        self.slots.clear();
    }
}

/// Takes everything and keeps nothing.
struct NullTx {
    open: OpenFlag,
}

impl TxDriver for NullTx {
    fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
        if self.is_ready() { Sent::first(frames.len()) } else { Sent::NONE }
    }

    fn takes(&self) -> Capabilities {
        // Nobody will ever miss a checksum.
        Capabilities::all()
    }

    fn is_ready(&self) -> bool {
        self.open.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Drivers, open};

    fn open_null(device: &str) -> OpenPort {
        open("p0", device, &Drivers::new()).unwrap()
    }

    #[test]
    fn it_receives_nothing_unless_told_to_and_swallows_all() {
        let mut null = open_null("null:");
        assert_eq!(null.rx[0].rx_burst(BURST).frames().len(), 0);
        assert_eq!(null.tx[0].tx_burst(&[Frame::from_bytes(&[0; 100]); 40]), 40);
        let stats = null.port.stats();
        assert_eq!((stats.rx_total().packets, stats.tx_total().packets), (0, 40));
        assert_eq!(stats.tx_total().bytes, 4000);
    }

    #[test]
    fn made_up_frames_are_always_the_same() {
        let mut null = open_null("null:rx=on,size=70,queues=2");
        let queue = &mut null.rx[1];
        for _ in 0..3 {
            let mut burst = queue.rx_burst(20);
            assert_eq!(burst.frames().len(), 20);
            for index in 0..20 {
                assert_eq!(burst.frames()[index].to_vec(), template(70));
                burst.head_mut(index).unwrap().fill(0xEE);
            }
        }
        assert_eq!(null.port.stats().rx[1].packets, 60);
        assert_eq!(null.port.stats().rx[0].packets, 0);
        let named = null.port.extended_stats();
        for name in ["rx_good_packets", "rx_q1_good_packets", "rx_q1_size_65_127_packets"] {
            assert!(named.contains(&(name.to_owned(), 60)), "{name}");
        }
        assert!(named.contains(&("rx_q0_good_packets".to_owned(), 0)));
    }

    #[test]
    fn a_closed_port_carries_nothing() {
        let OpenPort { port, mut rx, mut tx } = open_null("null:rx=on");
        drop(port);
        assert_eq!(rx[0].rx_burst(BURST).frames().len(), 0);
        assert_eq!(tx[0].tx_burst(&[Frame::from_bytes(&[0; 60])]), 0);
        assert!(!tx[0].is_ready());
    }

    #[test]
    fn a_target_or_a_wrong_size_is_refused() {
        for (device, part) in [
            ("null:eth0", "'eth0' is no option"),
            ("null:size=12", "size=12: expected a number from 60 to 65535"),
            ("null:,queues=0", "queues=0"),
            ("null:rx=perhaps", "rx=perhaps"),
        ] {
            let error = open("p0", device, &Drivers::new()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
