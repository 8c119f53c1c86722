//! One worker's part in the limits of all ports.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use packet::{BURST, Burst, Frame};

use super::limiter::Limiter;
use crate::datapath::Source;
use crate::marks::all_of;
use crate::output::pick;
use crate::outputs::Outputs;

/// Which way frames go through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From it into the switch.
    Rx,
    /// From the switch to it.
    Tx,
}

/// Limiters by port number.
type Ports = Vec<Option<Box<Limiter>>>;

/// The limits of all ports.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    rx: Ports,
    tx: Ports,
    /// Whether there are any, in either direction.
    any_rx: bool,
    any_tx: bool,
}

impl Limits {
    /// Whether no port has any.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        !self.any_rx && !self.any_tx
    }

    /// Gives `port` another limit, or none.
    pub(crate) fn set(&mut self, port: u16, direction: Direction, limiter: Option<Box<Limiter>>) {
        let (ports, any) = match direction {
            Direction::Rx => (&mut self.rx, &mut self.any_rx),
            Direction::Tx => (&mut self.tx, &mut self.any_tx),
        };
        let index = usize::from(port);
        if ports.len() <= index {
            ports.resize_with(index + 1, || None);
        }
        if let Some(place) = ports.get_mut(index) {
            *place = limiter;
        }
        *any = ports.iter().any(Option::is_some);
    }

    /// The frames of a burst that come in; the others are counted. Where that is not all of them,
    /// they are put into `kept`.
    #[inline(never)]
    pub(crate) fn receive<'b, 'f>(
        &mut self,
        frames: Burst<'b, 'f>,
        source: &Source<'_>,
        kept: &'b mut ArrayVec<Frame<'f>, BURST>,
    ) -> Burst<'b, 'f> {
        let limiter = self.rx.get_mut(usize::from(source.port)).and_then(Option::as_mut);
        let Some(limiter) = limiter else { return frames };
        let all = all_of(frames.len());
        let passed = limiter.pass(&frames, all, source.now);
        if passed == all {
            return frames;
        }
        source.stats.count_drops(DropReason::RateLimited, (all ^ passed).count_ones() as usize);
        kept.extend(pick(&frames, passed));
        Burst::new(kept)
    }

    /// Takes those frames from the verdicts on a burst that go out beyond a limit.
    #[inline(never)]
    pub(crate) fn send(&mut self, frames: &[Frame<'_>], outputs: &mut Outputs, now: u64) {
        if !self.any_tx {
            return;
        }
        let ports = &mut self.tx;
        outputs.limit(frames, |port, mask| {
            let limiter = ports.get_mut(usize::from(port)).and_then(Option::as_mut);
            limiter.map_or(mask, |limiter| limiter.pass(frames, mask, now))
        });
    }
}
