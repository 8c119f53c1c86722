//! What an operator has a bond do at once, whatever its settings say.

use datapath::bond::way::BUCKETS;

use super::{BondMode, Group};

/// Something that a bond is to do. Members are known by the names of their ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondOrder<'o> {
    /// This member is to be the active one, as long as it is in use.
    Activate(&'o str),
    /// This member is not to be used, until it is enabled.
    Disable(&'o str),
    /// It may be used again, when its link is up and agreed on.
    Enable(&'o str),
    /// This part of the traffic goes to this member, until load is moved the next time.
    Migrate(u8, &'o str),
}

/// Why a bond does not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BondRefusal {
    /// There is no bond of this name.
    #[error("no such bond")]
    NoBond,
    /// It has no such member.
    #[error("no such member")]
    NoMember,
    /// The member that is to be active is not in use.
    #[error("cannot make disabled member active")]
    Disabled,
    /// Another one is the primary member, and in use: it would be active again at once.
    #[error("another member is the primary one: change bond-primary")]
    Primary,
    /// The member that is to have a part of the traffic is not in use.
    #[error("cannot migrate to disabled member")]
    MigrateToDisabled,
    /// Traffic is not divided by source address.
    #[error("not an SLB bond")]
    NotSlb,
}

impl Group {
    /// Does it with the next [`run`](Self::run). Returns whether anything changes by it.
    pub(crate) fn order(&mut self, order: BondOrder<'_>) -> Result<bool, BondRefusal> {
        match order {
            BondOrder::Activate(name) => self.activate(name),
            BondOrder::Disable(name) => self.hold(name, true),
            BondOrder::Enable(name) => self.hold(name, false),
            BondOrder::Migrate(part, name) => self.migrate(part, name),
        }
    }

    /// A member's number, and whether it is in use.
    fn find(&self, name: &str) -> Result<(u16, bool), BondRefusal> {
        let found = self.members.iter().find(|member| member.seen.name == name);
        found.map(|member| (member.seen.port, member.is_enabled)).ok_or(BondRefusal::NoMember)
    }

    fn activate(&mut self, name: &str) -> Result<bool, BondRefusal> {
        let (port, is_enabled) = self.find(name)?;
        if !is_enabled {
            return Err(BondRefusal::Disabled);
        }
        let primary = self.settings.primary.as_deref().filter(|primary| *primary != name);
        if primary.is_some_and(|primary| self.find(primary).is_ok_and(|(_, enabled)| enabled)) {
            return Err(BondRefusal::Primary);
        }
        self.wish = Some(port);
        Ok(self.active != Some(port))
    }

    fn hold(&mut self, name: &str, is_held: bool) -> Result<bool, BondRefusal> {
        let member = self.members.iter_mut().find(|member| member.seen.name == name);
        let member = member.ok_or(BondRefusal::NoMember)?;
        Ok(std::mem::replace(&mut member.is_held, is_held) != is_held)
    }

    fn migrate(&mut self, part: u8, name: &str) -> Result<bool, BondRefusal> {
        if self.mode() != BondMode::BalanceSlb {
            return Err(BondRefusal::NotSlb);
        }
        let (port, is_enabled) = self.find(name)?;
        if !is_enabled {
            return Err(BondRefusal::MigrateToDisabled);
        }
        Ok(self.shares.give(usize::from(part) % BUCKETS, port))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::bond::Bonding;
    use crate::bond::group::{Agreement, Seen};

    fn run(group: &mut Group) -> bool {
        let seen = |(port, name): (u16, &str)| Seen {
            port,
            name: name.to_owned(),
            is_up: true,
            is_agreed: true,
            is_answered: true,
        };
        let seen = [(1, "a"), (2, "b")].map(seen).into();
        group.run(seen, Agreement::None, Instant::now())
    }

    fn group(mode: BondMode) -> Group {
        let mut group = Group::default();
        group.set(&Bonding { mode, ..Bonding::default() });
        run(&mut group);
        group
    }

    #[test]
    fn a_member_is_active_when_it_is_told_to_be() {
        let mut group = group(BondMode::ActiveBackup);
        assert_eq!(group.order(BondOrder::Activate("b")), Ok(true));
        assert!(run(&mut group) && group.active() == Some(2), "another one is active");
        assert!(!run(&mut group) && group.active() == Some(2), "and stays so");
        assert_eq!(group.order(BondOrder::Activate("b")), Ok(false));
        assert_eq!(group.order(BondOrder::Activate("c")), Err(BondRefusal::NoMember));
        group.set(&Bonding { primary: Some("a".to_owned()), ..Bonding::default() });
        assert_eq!(group.order(BondOrder::Activate("b")), Err(BondRefusal::Primary));
    }

    #[test]
    fn a_member_that_is_disabled_is_not_used_until_it_is_enabled() {
        let mut group = group(BondMode::ActiveBackup);
        assert_eq!(group.order(BondOrder::Disable("a")), Ok(true));
        assert!(run(&mut group) && group.active() == Some(2));
        assert!(!run(&mut group), "its link is up all the same");
        assert_eq!(group.order(BondOrder::Activate("a")), Err(BondRefusal::Disabled));
        assert_eq!(group.order(BondOrder::Enable("a")), Ok(true));
        run(&mut group);
        assert_eq!(group.order(BondOrder::Activate("a")), Ok(true));
        assert_eq!(group.order(BondOrder::Migrate(0, "a")), Err(BondRefusal::NotSlb));
    }

    #[test]
    fn a_part_of_the_traffic_goes_where_it_is_told_to() {
        let mut group = group(BondMode::BalanceSlb);
        let mut parts = (0..=u8::MAX).filter(|part| group.shares.table()[usize::from(*part)] == 1);
        let part = parts.next().unwrap();
        let share = group.share(2);
        assert_eq!(group.order(BondOrder::Migrate(part, "b")), Ok(true));
        run(&mut group);
        assert_eq!((group.share(2), group.shares.table()[usize::from(part)]), (share + 1, 2));
        assert_eq!(group.order(BondOrder::Migrate(part, "b")), Ok(false));
    }
}
