//! What an operator has bonds do at once.

use ovs::unixctl::Answer;
use switch::BondOrder;

use super::Appctl;

/// Makes a member the active one.
pub fn activate(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bond, member] = arguments else { return Ok(String::new()) };
    give(appctl, bond, BondOrder::Activate(member), |changes| match changes {
        true => "done",
        false => "no change",
    })
}

/// Has a member be used again.
pub fn enable(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bond, member] = arguments else { return Ok(String::new()) };
    give(appctl, bond, BondOrder::Enable(member), |_| "enabled")
}

/// Takes a member out of use, until it is enabled again.
pub fn disable(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bond, member] = arguments else { return Ok(String::new()) };
    give(appctl, bond, BondOrder::Disable(member), |_| "disabled")
}

/// Moves a part of the traffic to a member.
pub fn migrate(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bond, part, member] = arguments else { return Ok(String::new()) };
    // Of a number that is too large the last eight bits count, as with Open vSwitch.
    let part = part.parse::<u64>().map_err(|_| "bad hash")?.to_le_bytes();
    let [part, ..] = part;
    give(appctl, bond, BondOrder::Migrate(part, member), |_| "migrated")
}

fn give(
    appctl: &Appctl<'_>,
    bond: &str,
    order: BondOrder<'_>,
    word: impl Fn(bool) -> &'static str,
) -> Answer {
    let done = appctl.daemon.switch().bond_order(bond, order);
    done.map(|changes| word(changes).to_owned()).map_err(|refusal| refusal.to_string())
}
