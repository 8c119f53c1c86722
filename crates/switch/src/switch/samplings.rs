//! Samplings of a running switch.

use std::sync::Arc;

use super::{Control, Switch};
use crate::error::Error;
use crate::sample::{SampleReader, Sampling};

impl Switch {
    /// Begins to sample frames that come in on the ports of a bridge. One that is removed and added again by the
    /// same name is sampled again. Frames that come in from another bridge, by a patch port, are sampled there
    /// alone.
    ///
    /// ```
    /// use switch::{PortOptions, Sampled, Sampling, Sides, Switch, SwitchConfig};
    ///
    /// let switch = Switch::start(&SwitchConfig::default())?;
    /// switch.open_port("vm1", "null:", &PortOptions::default())?;
    /// let what = Sampled::Frames { rate: 1, sides: Sides::IN };
    /// let sampling = Sampling { bridge: switch::DEFAULT_BRIDGE.into(), what, bytes: 64 };
    /// let mut reader = switch.sample(&sampling)?;
    /// switch.receive("vm1", &[vec![2; 60]])?;
    /// let mut seen = Vec::new();
    /// reader.read(|sample| seen.push(sample.bytes().to_vec()));
    /// assert_eq!(seen, [[2; 60]]);
    /// # Ok::<(), switch::Error>(())
    /// ```
    ///
    /// # Errors
    /// A number out of range, or [`MAX_SAMPLINGS`](crate::MAX_SAMPLINGS) samplings already.
    pub fn sample(&self, sampling: &Sampling) -> Result<SampleReader, Error> {
        let control = &mut *self.control();
        let (id, rooms) = control.samplings.add(sampling, control.mailboxes.len())?;
        control.tell_mirrors(&sampling.bridge, None);
        Ok(SampleReader::new(id, Arc::downgrade(&self.control), rooms))
    }
}

impl Control {
    /// Ends a sampling, if it goes on: nothing is sampled for it any more when this returns.
    pub(crate) fn end_sampling(&mut self, id: u64) {
        if let Some(bridge) = self.samplings.remove(id) {
            self.tell_mirrors(&bridge, None);
        }
    }
}
