//! A vDPA device that does nothing, on a socket.

use std::path::Path;

use ::vdpa::{DeviceError, Setup, Statistic, VdpaDevice};
use eal::PeerEvent;

use crate::error::Error;
use crate::hub::Hub;
use crate::vdpa::Vdpa;

/// A device that does nothing.
#[derive(Debug)]
pub struct Idle;

impl VdpaDevice for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn queue_pairs(&self) -> u16 {
        2
    }

    fn features(&self) -> u64 {
        1 << 32
    }

    fn start(&mut self, _setup: Setup) -> Result<(), DeviceError> {
        Ok(())
    }

    fn stop(&mut self) -> Vec<(u16, u32)> {
        Vec::new()
    }

    fn is_running(&self) -> bool {
        true
    }

    fn set_ring_enabled(&mut self, _: u16, _: bool) -> Result<(), DeviceError> {
        Ok(())
    }

    fn set_ring_kick(&mut self, _: u16, _: Option<PeerEvent>) -> Result<(), DeviceError> {
        Ok(())
    }

    fn set_ring_call(&mut self, _: u16, _: Option<PeerEvent>) -> Result<(), DeviceError> {
        Ok(())
    }

    fn read_config(&self, _: u32, _: &mut [u8]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn write_config(&mut self, _: u32, _: &[u8]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn statistics(&self) -> Vec<Statistic> {
        let count = |name: &str, value| Statistic { name: name.to_owned(), value };
        vec![count("device_starts", 3), count("rx0_kicks", 7), count("tx1_kicks", 9)]
    }
}

/// Device `test:idle` with its socket at `socket`.
#[must_use]
pub fn idle_at(socket: &Path) -> Vdpa {
    let device = "test:idle".to_owned();
    Vdpa { device, socket: socket.to_owned(), client: false, group: None, mode: None }
}

/// A hub with an idle device `a` at a socket in `dir`.
///
/// # Errors
/// When the socket cannot be made.
pub fn hub_with_idle(dir: &Path) -> Result<Hub, Error> {
    let mut hub = Hub::default();
    hub.attach("a", &idle_at(&dir.join("a")), Box::new(Idle))?;
    Ok(hub)
}
