//! The control side of ports that have no device with an own mind: null and pcap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ethdev::{Error, Link, PortControl, PortInfo, mtu};
use packet::MacAddr;

/// Whether a port is open; its queues look at it once per burst.
#[derive(Clone, Debug)]
pub(crate) struct OpenFlag(Arc<AtomicBool>);

impl OpenFlag {
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A port whose link is always up and whose addresses are what they are set to.
#[derive(Debug)]
pub(crate) struct PlainControl {
    info: PortInfo,
    mac: MacAddr,
    mtu: u16,
    details: Vec<(String, String)>,
    open: OpenFlag,
}

impl PlainControl {
    pub(crate) fn new(driver: &'static str, queues: usize, details: Vec<(String, String)>) -> Self {
        Self {
            info: PortInfo { driver, rx_queues: queues, tx_queues: queues, max_mtu: mtu::MAX },
            // Locally administered.
            mac: MacAddr([0x02, 0, 0, 0, 0, 0x02]),
            mtu: mtu::DEFAULT,
            details,
            open: OpenFlag(Arc::new(AtomicBool::new(true))),
        }
    }

    /// For the port's queues.
    pub(crate) fn open_flag(&self) -> OpenFlag {
        self.open.clone()
    }
}

impl PortControl for PlainControl {
    fn info(&self) -> PortInfo {
        self.info.clone()
    }

    fn link(&self) -> Link {
        Link { up: true, ..Link::default() }
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.mac = mac;
        Ok(())
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        mtu::check(mtu, &mtu::VALID, || format!("{} port", self.info.driver))?;
        self.mtu = mtu;
        Ok(())
    }

    fn details(&self) -> Vec<(String, String)> {
        self.details.clone()
    }
}

impl Drop for PlainControl {
    fn drop(&mut self) {
        self.open.0.store(false, Relaxed);
    }
}
