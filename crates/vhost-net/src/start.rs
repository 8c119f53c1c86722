//! How a ring starts, once it is known where it lies and what of it is there.

use std::sync::Arc;

use virtio::InflightArea;
use virtio::device::{self, BaseCheck, DeviceQueue, Resumed};

use super::control_ring::ControlRing;
use super::device::{NetDevice, is_sent};
use super::gate::Gate;
use super::postcopy::look_ahead;
use super::ring::Ring;
use vhost::backend::{BackendError, RingSetup};

impl NetDevice {
    /// Starts a ring whose pages are there; `gate` knows of those of its buffers, if some are
    /// missing.
    pub(super) fn launch(
        &mut self,
        index: u16,
        setup: RingSetup,
        mut gate: Option<Box<Gate>>,
    ) -> Result<(), BackendError> {
        let told = setup.place();
        if setup.blank
            && let Some(suppressed) = self.limit.admit_line()
        {
            tracing::warn!(
                port = %self.name,
                suppressed,
                "nobody has ever written to the guest's memory: if the VMM does not share it, no \
                 frame will pass (QEMU: share=on at the memory backend)"
            );
        }
        let recorded = setup.inflight.as_ref().is_some_and(InflightArea::is_in_use);
        let place = if recorded { told } else { self.checked(index, told)? };
        let mut queue = DeviceQueue::new(Arc::clone(&self.memory), place)?;
        if let Some(area) = &setup.inflight {
            let resumed = queue.resume(area.clone())?;
            self.report_resumed(index, resumed);
        }
        self.logs.set_used(index, setup.log);
        queue.set_log(self.logs.ring(index));
        if self.is_control(index) {
            self.start_control(queue, setup);
            return Ok(());
        }
        if let Some(enabled) = self.enabled.get_mut(usize::from(index)) {
            *enabled = setup.enabled;
        }
        let enabled = self.effective(index);
        let slot = self.slots.get(usize::from(index)).ok_or_else(|| {
            format!("there is no ring {index} in a device of {} pairs", self.pairs())
        })?;
        look_ahead(&mut gate, index, &mut queue);
        let mut ring = Ring::new(queue, told.features);
        ring.gate = gate;
        (ring.enabled, ring.pending) = (enabled, setup.pending);
        ring.takes = self.guest_takes();
        ring.filter = self.filter.is_active().then(|| Arc::new(self.filter.clone()));
        ring.asks = self.iommu.as_ref().map(|iommu| Arc::clone(iommu.asks()));
        ring.kick = setup.kick.clone().filter(|_| is_sent(index));
        (ring.call, ring.err) = (setup.call, setup.err);
        ring.inband = setup.inband;
        slot.edit(|place| *place = Some(Box::new(ring)));
        self.await_buffers(index, setup.kick);
        Ok(())
    }

    fn start_control(&mut self, queue: DeviceQueue, setup: RingSetup) {
        let mut ring = ControlRing::new(queue);
        (ring.kick, ring.call) = (setup.kick, setup.call);
        ring.set_err(setup.err);
        self.control = Some(ring);
        self.watch_control();
    }

    /// The ring, with the base that it has where the VMM cannot know it.
    fn checked(
        &mut self,
        ring: u16,
        told: device::RingSetup,
    ) -> Result<device::RingSetup, BackendError> {
        let check = DeviceQueue::check_base(&self.memory, &told)?;
        if check == BaseCheck::Fits {
            return Ok(told);
        }
        // A front-end may have rings started as often as it likes.
        let line = self.limit.admit_line();
        if let BaseCheck::Found(base) = check {
            if let Some(suppressed) = line {
                tracing::info!(
                    port = %self.name,
                    ring,
                    suppressed,
                    "the ring goes on where it says that it is: the VMM does not know ({:#x})",
                    told.base
                );
            }
            return Ok(device::RingSetup { base, ..told });
        }
        if let Some(suppressed) = line {
            tracing::warn!(
                port = %self.name,
                ring,
                suppressed,
                "the VMM does not know where the ring is to go on, and with IN_ORDER the ring does \
                 not tell; start the guest's driver again if no frames pass"
            );
        }
        Ok(told)
    }

    /// Says where a ring goes on after a back-end that has not been stopped.
    fn report_resumed(&mut self, ring: u16, resumed: Resumed) {
        if resumed == Resumed::Anew {
            return;
        }
        // A front-end may have rings started as often as it likes.
        let Some(suppressed) = self.limit.admit_line() else { return };
        let port = self.name.as_str();
        match resumed {
            Resumed::Anew => {}
            Resumed::Here { again } => {
                tracing::info!(
                    port,
                    ring,
                    again,
                    suppressed,
                    "the ring goes on where its records of chains in flight say"
                );
            }
            Resumed::GivenBack { chains } => {
                tracing::warn!(
                    port,
                    ring,
                    chains,
                    suppressed,
                    "another kind of back-end has left chains in flight: they went back unused"
                );
            }
        }
    }
}
