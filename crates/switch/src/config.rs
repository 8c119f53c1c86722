//! Settings of the switch and of its ports.

use std::time::Duration;

use datapath::guard::PortGuard;
use datapath::limit::PortLimits;
use datapath::vlan::PortVlan;
use eal::Access;
use l2proto::lacp::PortLacp;
use l2proto::lldp::LldpMode;
use l2proto::rstp::{PortRstp, Rstp};
use l2proto::{Bfd, Cfm};

use crate::bond::Bonding;
use crate::error::Error;
use crate::identity::Identity;
use crate::snoop::{McastSnooping, PortSnooping};

pub use datapath::port_set::MAX_PORTS;

/// The most bridges that a switch can have.
pub const MAX_BRIDGES: usize = 256;

/// The name of the bridge that is always there, and that ports belong to which say nothing else.
pub const DEFAULT_BRIDGE: &str = "default";

/// The most workers that a switch can have.
pub const MAX_WORKERS: usize = 128;

/// The largest forwarding database: 16 Mi entries take 800 MiB.
pub const MAX_FDB_LIMIT: usize = 1 << 24;

/// The most often that a worker tries a full destination again, which stops all its other ports
/// for that long: some ten microseconds.
pub const MAX_TX_RETRIES: u32 = 256;

/// Settings of a switch; they hold from its start to its end, apart from those of its default
/// bridge ([`bridge`](Self::bridge)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchConfig {
    /// Cores to run on, one worker each. Where there are none, [`workers`](Self::workers)
    /// workers run wherever the kernel puts them.
    pub cores: Vec<usize>,
    /// Number of workers where no cores are given; 1 to [`MAX_WORKERS`].
    pub workers: usize,
    /// The most entries of the forwarding database, 1 to [`MAX_FDB_LIMIT`]. Memory for all of
    /// them is reserved at the start, 50 to 100 bytes each.
    pub fdb_limit: usize,
    /// How long after its last frame an address is forgotten, to the second, with up to an eighth
    /// on top; zero: never.
    pub ageing: Duration,
    /// The most addresses that one burst of 32 frames may add to the forwarding database or move
    /// in it: it bounds what a flood of addresses costs. The rest is learnt from later frames.
    pub learn_per_burst: usize,
    /// Reserved group addresses that are forwarded all the same: bit 0 is 01:80:c2:00:00:00, bit 15
    /// 01:80:c2:00:00:0f. By default none is, as of any bridge (IEEE 802.1Q table 8-1).
    pub group_fwd_mask: u16,
    /// Whether the default bridge looks at tags though no port has VLAN settings: then it learns and
    /// floods in each VLAN by itself, as it does anyway where a port has them.
    pub vlan_aware: bool,
    /// Whether frames are forwarded whose source is no station's address: zero, or a group's. Nothing is
    /// learnt from them. By default they are dropped.
    pub any_source: bool,
    /// What is done about groups of IGMP and MLD.
    pub mcast_snooping: McastSnooping,
    /// Whether workers poll without ever sleeping: for the lowest latency, at the price of a
    /// busy core.
    pub busy_poll: bool,
    /// Who may connect to sockets of ports that do not say it themselves.
    pub sockets: Access,
    /// How long a worker without frames goes on polling before it sleeps.
    pub idle_after: Duration,
    /// Its part in spanning tree: by default none.
    pub rstp: Rstp,
    /// By what its bonds are known to their neighbours.
    pub identity: Identity,
    /// Whether a port whose device cannot have the MTU that is asked for keeps the one that it has, which is
    /// told; otherwise the port is refused.
    pub mtu_is_wish: bool,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        Self {
            cores: Vec::new(),
            workers: 1,
            fdb_limit: 65_536,
            ageing: Duration::from_secs(300),
            learn_per_burst: 8,
            group_fwd_mask: 0,
            vlan_aware: false,
            any_source: false,
            mcast_snooping: McastSnooping::default(),
            busy_poll: false,
            sockets: Access::default(),
            idle_after: Duration::from_micros(100),
            rstp: Rstp::default(),
            identity: Identity::default(),
            mtu_is_wish: false,
        }
    }
}

impl SwitchConfig {
    /// Checks all settings.
    ///
    /// # Errors
    /// One that is out of range.
    pub fn check(&self) -> Result<(), Error> {
        check_worker_count(self.worker_count())?;
        self.bridge().check()
    }

    /// The settings of the default bridge.
    #[must_use]
    pub fn bridge(&self) -> BridgeOptions {
        BridgeOptions {
            fdb_limit: self.fdb_limit,
            ageing: self.ageing,
            learn_per_burst: self.learn_per_burst,
            group_fwd_mask: self.group_fwd_mask,
            vlan_aware: self.vlan_aware,
            any_source: self.any_source,
            rstp: self.rstp.clone(),
            mcast_snooping: self.mcast_snooping,
        }
    }

    /// Number of workers.
    #[must_use]
    pub const fn worker_count(&self) -> usize {
        if self.cores.is_empty() { self.workers } else { self.cores.len() }
    }
}

/// Settings of a bridge; those of [`SwitchConfig`] say what each is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeOptions {
    /// The most entries of its forwarding database.
    pub fdb_limit: usize,
    /// How long after its last frame an address is forgotten; zero: never.
    pub ageing: Duration,
    /// The most addresses that one burst may add to the forwarding database or move in it.
    pub learn_per_burst: usize,
    /// Reserved group addresses that are forwarded all the same, as bits.
    pub group_fwd_mask: u16,
    /// Whether it looks at tags though no port has VLAN settings.
    pub vlan_aware: bool,
    /// Whether it forwards frames whose source is no station's address.
    pub any_source: bool,
    /// Its part in spanning tree.
    pub rstp: Rstp,
    /// What is done about groups of IGMP and MLD.
    pub mcast_snooping: McastSnooping,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        SwitchConfig::default().bridge()
    }
}

impl BridgeOptions {
    /// Checks all settings.
    ///
    /// # Errors
    /// One that is out of range.
    pub fn check(&self) -> Result<(), Error> {
        range("forwarding database limit", self.fdb_limit, 1..=MAX_FDB_LIMIT)?;
        range("addresses learnt per burst", self.learn_per_burst, 0..=packet::BURST)?;
        let snooping = self.mcast_snooping.check();
        snooping.map_err(|(setting, value, expected)| Error::Config {
            setting,
            value,
            expected,
        })?;
        ageing_seconds(self.ageing)?;
        self.rstp.check().map_err(|(setting, reason)| Error::Rstp { setting, reason })
    }
}

/// Checks a number of workers.
pub(crate) fn check_worker_count(count: usize) -> Result<(), Error> {
    range("number of workers", count, 1..=MAX_WORKERS)
}

fn range(
    setting: &'static str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(Error::Config { setting, value: value.to_string(), expected })
}

/// Settings of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortOptions {
    /// The bridge that it belongs to; `None`: the [default](DEFAULT_BRIDGE) one.
    pub bridge: Option<String>,
    /// The MTU to set; `None` keeps the device's own.
    pub mtu: Option<u16>,
    /// How often to try again when a destination has no room for any frame of a burst, before
    /// they are dropped; [`MAX_TX_RETRIES`] at most. As long as it takes some, the switch goes
    /// on in any case.
    pub tx_retries: u32,
    /// Workers for the receive queues, by index and in turn; empty: spread evenly.
    pub workers: Vec<usize>,
    /// Taken out of service by the operator: the device stays open, and no frame goes in or out.
    pub disabled: bool,
    /// Its part in VLANs.
    pub vlan: PortVlan,
    /// How much may come in and go out.
    pub limits: PortLimits,
    /// The bond that it is a member of: then it belongs to no bridge itself, and without the bond
    /// nothing goes in or out.
    pub bond: Option<String>,
    /// What it does as a bond, if it is one.
    pub bonding: Bonding,
    /// What it says by LACP, as a member of a bond.
    pub lacp: PortLacp,
    /// What it may send.
    pub guard: PortGuard,
    /// Whether it and its neighbours tell each other who they are; of no meaning for patch ports and
    /// bonds, whose members have it.
    pub lldp: LldpMode,
    /// The maintenance point by which its link is watched; of no meaning for bonds, whose members have it.
    pub cfm: Option<Cfm>,
    /// The session of BFD by which it is watched, in the same way.
    pub bfd: Option<Bfd>,
    /// Its part in spanning tree.
    pub rstp: PortRstp,
    /// Its part in snooping.
    pub mcast_snooping: PortSnooping,
}

/// An ageing time as the forwarding database counts it; see [`SwitchConfig::ageing`].
pub(crate) fn ageing_seconds(ageing: Duration) -> Result<u32, Error> {
    let seconds = u32::try_from(ageing.as_secs()).ok().filter(|seconds| *seconds <= u32::MAX / 2);
    let is_too_short = ageing > Duration::ZERO && ageing < Duration::from_secs(1);
    seconds.filter(|_| !is_too_short).ok_or_else(|| Error::Config {
        setting: "ageing",
        value: format!("{ageing:?}"),
        expected: "0 (never) or 1 s and more, at most 68 years".to_owned(),
    })
}

impl PortOptions {
    /// The name of the bridge that the port belongs to.
    #[must_use]
    pub fn bridge_name(&self) -> &str {
        self.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE)
    }

    /// Checks them for port `name` of a switch with so many workers.
    ///
    /// # Errors
    /// A worker that there is not, VLAN settings that contradict each other, a limit or a setting of
    /// bonds out of range, or a guard that makes no sense.
    pub fn check(&self, name: &str, workers: usize) -> Result<(), Error> {
        let vlan = self.vlan.check();
        vlan.map_err(|reason| Error::PortVlan { name: name.to_owned(), reason })?;
        let limits = self.limits.check();
        limits.map_err(|reason| Error::PortLimits { name: name.to_owned(), reason })?;
        let bonding = self.bonding.check();
        bonding.map_err(|(_, reason)| Error::Bond { name: name.to_owned(), reason })?;
        let lacp = self.lacp.check();
        lacp.map_err(|reason| Error::PortLacp { name: name.to_owned(), reason })?;
        let guard = self.guard.check();
        guard.map_err(|reason| Error::PortGuard { name: name.to_owned(), reason })?;
        let rstp = self.rstp.check();
        rstp.map_err(|reason| Error::PortRstp { name: name.to_owned(), reason })?;
        let wrong =
            |protocol| move |reason| Error::PortWatch { name: name.to_owned(), protocol, reason };
        self.cfm.as_ref().map_or(Ok(()), Cfm::check).map_err(wrong("cfm"))?;
        self.bfd.as_ref().map_or(Ok(()), Bfd::check).map_err(wrong("bfd"))?;
        match self.workers.iter().find(|worker| **worker >= workers) {
            None => Ok(()),
            Some(&worker) => Err(Error::UnknownWorker { name: name.to_owned(), worker, workers }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let check = |change: fn(&mut SwitchConfig)| {
            let mut config = SwitchConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(SwitchConfig::default().check().is_ok());
        assert!(check(|c| c.workers = 0).contains("number of workers is 0: expected 1 to 128"));
        assert!(check(|c| c.fdb_limit = 0).contains("forwarding database limit is 0"));
        assert!(check(|c| c.learn_per_burst = 33).contains("expected 0 to 32"));
        assert!(check(|c| c.ageing = Duration::from_millis(5)).contains("ageing is 5ms"));
    }
}
