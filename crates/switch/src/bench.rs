//! What measuring programs need to make a [`Bench`] as control threads make a worker.

use std::sync::Weak;

use datapath::bond::way::Way;
use datapath::bridge::BridgeId;
use eal::time::Time;

pub use datapath::bench::Bench;

use crate::bond::group::{Agreement, Group, Seen as Member};
use crate::bond::{BondMode, Bonding};
use crate::capture::wanted::{Seen, Wanted};
use crate::capture::{Capture, CaptureReader};
use crate::error::Error;

/// The way of a bond of `members` in this mode: by flow as if the other end had agreed.
#[must_use]
pub fn bond(mode: BondMode, members: &[u16]) -> Way {
    let member = |number: &u16| Member {
        port: *number,
        name: number.to_string(),
        is_up: true,
        is_agreed: true,
        is_answered: true,
    };
    let agreement = match mode {
        BondMode::BalanceTcp => Agreement::Reached,
        BondMode::ActiveBackup | BondMode::BalanceSlb => Agreement::None,
    };
    let mut group = Group::default();
    group.set(&Bonding { mode, ..Bonding::default() });
    group.run(members.iter().map(member).collect(), agreement, Time::system().now());
    group.way(BridgeId::DEFAULT)
}

/// Has `bench` capture what goes through the port with this number.
///
/// # Errors
/// A setting out of range.
pub fn capture(bench: &mut Bench, capture: &Capture, number: u16) -> Result<CaptureReader, Error> {
    let mut wanted = Wanted::default();
    let (id, shared) = wanted.add(capture, 1)?;
    let seen = Seen { name: "port", device: "bench:", number };
    bench.capture(wanted.captures(&[seen], 0));
    Ok(CaptureReader::new(id, Weak::new(), &shared))
}
