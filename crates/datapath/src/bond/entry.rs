//! What comes in on a member of a bond, on its way to the bond's bridge.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use packet::{BURST, Burst, Frame};

use super::way::Bonds;
use crate::bridge::Bridge;
use crate::datapath::Source;
use crate::output::pick;

/// Room for frames of a burst: for those that come in on the bond, and for those of them that have not
/// come back.
pub(crate) type Room<'f> = [ArrayVec<Frame<'f>, BURST>; 2];

/// What of the frames that came in on a member of a bond comes in, and where: on the bond. The rest is
/// counted. `bridges` are all of them, by their numbers, in two places.
pub(crate) fn receive<'b, 'f, 's>(
    bonds: &mut Bonds,
    bridges: [&[Option<Bridge>]; 2],
    frames: Burst<'b, 'f>,
    source: &Source<'s>,
    [received, moved]: &'b mut Room<'f>,
) -> Option<(Source<'s>, Burst<'b, 'f>)> {
    let (source, frames) = bonds.receive(frames, source, received)?;
    let at = usize::from(source.bridge.0);
    if bonds.comes_back(source.port)
        && let Some(bridge) = bridges.into_iter().find_map(|all| all.get(at)?.as_ref())
    {
        let back = bridge.came_back(&frames, &source);
        if back != 0 {
            source.stats.count_drops(DropReason::CameBack, back.count_ones() as usize);
            moved.extend(pick(&frames, !back));
            return Some((source, Burst::new(moved)));
        }
    }
    Some((source, frames))
}
