//! Frames of connections that have a helper: what they carry is looked at, and may be changed.

use conntrack::{Adjustment, Overheard, Seen, State, Tracked, carried};
use flow::{Depth, Key, Track, extract, slot};
use packet::Frame;

use super::Inner;
use super::enter::Manner;

/// Bytes of a frame that helpers look at: headers, and a line.
const HEARD: usize = 512;

impl Inner {
    /// Has a helper look at what a frame carries whose connection has one: what it is then, and how it is to
    /// be changed.
    #[cold]
    pub(super) fn overheard(
        &mut self,
        frame: &Frame<'_>,
        (seen, tracked): (Option<Seen>, Tracked),
        track: &Track,
        manner: Manner,
    ) -> (Tracked, Option<Adjustment>) {
        let mut bytes = [0; HEARD];
        let len = frame.copy_to(&mut bytes);
        let bytes = bytes.get(..len).unwrap_or_default();
        let vlans = self.cache.pipeline().vlans.tags();
        let lane = self.lane();
        let now = lane.all().now();
        let carried = carried_by(bytes, frame.len(), vlans).unwrap_or_default();
        let heard = match seen.filter(|_| manner == Manner::Real) {
            Some(seen) => lane.overhear(&seen, &track.request, carried, now),
            None => Overheard::default(),
        };
        let state = if heard.is_bad { tracked.state | State::INVALID } else { tracked.state };
        (Tracked { state, ..tracked }, heard.adjustment)
    }
}

/// What the packet of a frame carries, of which these bytes are the first.
fn carried_by(bytes: &[u8], len: usize, vlans: u8) -> Option<&[u8]> {
    let mut key = Key::default();
    let layers = extract(&mut key, bytes, len, vlans, Depth::All);
    let packet = bytes.get(usize::from(layers.network)..)?;
    packet.get(carried(key.get_u16(slot::ETH_TYPE), packet)?)
}
