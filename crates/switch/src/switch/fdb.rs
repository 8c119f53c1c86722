//! What a switch's forwarding databases have, and how an operator changes that.

use std::sync::Arc;

use datapath::vlan::MAX_VLAN;
use fdb::{Entry, Fdb, Full, Key};
use ordered::Order as _;
use packet::MacAddr;

use super::{Control, Switch};
use crate::config::DEFAULT_BRIDGE;
use crate::error::Error;
use crate::ports::Entry as Port;
use crate::report::{FdbEntry, FdbReport};

impl Switch {
    /// The forwarding databases of all bridges, sorted by bridge, VLAN and address. Does not
    /// disturb the workers.
    #[must_use]
    pub fn fdb(&self) -> Vec<FdbEntry> {
        let fdbs: Vec<(String, Arc<Fdb>)> = {
            let control = self.control();
            let bridges = control.bridges.iter();
            bridges.map(|(name, entry)| (name.to_owned(), Arc::clone(entry.fdb()))).collect()
        };
        // Without the lock, since it may take a while.
        let lists: Vec<_> = fdbs.into_iter().map(|(name, fdb)| (name, sorted(&fdb))).collect();
        let control = self.control();
        let named = |bridge: &str, entry: Entry| {
            // The port may have been removed since.
            let port = control.ports.name_of(entry.port)?.to_owned();
            let Entry { vlan, mac, age, is_static, .. } = entry;
            Some(FdbEntry { bridge: bridge.to_owned(), mac, vlan, port, age, is_static })
        };
        let all = lists.into_iter().flat_map(|(bridge, entries)| {
            let named = entries.into_iter().filter_map(|entry| named(&bridge, entry));
            named.collect::<Vec<_>>()
        });
        all.collect()
    }

    /// Size and counters of the default bridge's forwarding database; [`bridges`](Self::bridges)
    /// has those of all.
    #[must_use]
    pub fn fdb_report(&self) -> FdbReport {
        let control = self.control();
        control.bridges.get(DEFAULT_BRIDGE).map(|entry| entry.fdb().report()).unwrap_or_default()
    }

    /// Forgets all addresses that were learnt, on one port only if one is given; returns how
    /// many. Static entries stay.
    ///
    /// # Errors
    /// There is no such port.
    pub fn fdb_flush(&self, port: Option<&str>) -> Result<usize, Error> {
        let control = self.control();
        let Some(name) = port else {
            return Ok(control.bridges.fdbs().map(|fdb| fdb.write().flush(None)).sum());
        };
        let entry = control.ports.get(name)?;
        Ok(control.fdb_of(entry)?.write().flush(Some(entry.number())))
    }

    /// Forgets all addresses that were learnt in a bridge; returns how many. Static entries stay.
    ///
    /// # Errors
    /// There is no such bridge.
    pub fn fdb_flush_bridge(&self, bridge: &str) -> Result<usize, Error> {
        Ok(self.control().bridges.get(bridge)?.fdb().write().flush(None))
    }

    /// Sets a static entry: `mac` is behind `port`, whatever frames say, until it is deleted, or the
    /// port is removed or moved to another bridge. Returns the port that the entry was behind
    /// before, if it was a static one of another port.
    ///
    /// # Errors
    /// There is no such port or VLAN, the port is a member of a bond, the address is a group's or
    /// zero, or there is no room.
    pub fn fdb_add_static(
        &self,
        mac: MacAddr,
        vlan: u16,
        port: &str,
    ) -> Result<Option<String>, Error> {
        if mac.is_multicast() || mac == MacAddr::default() {
            return Err(Error::NotUnicast { mac });
        }
        let key = checked_key(mac, vlan)?;
        // The lock is held until the entry is there, so that the port is not removed before.
        let control = self.control();
        let entry = control.ports.get(port)?;
        if let Some(bond) = &entry.options().bond {
            let reason = format!("it is a member of bond '{bond}': an address is behind that");
            return Err(Error::Bond { name: port.to_owned(), reason });
        }
        let (number, fdb) = (entry.number(), control.fdb_of(entry)?);
        let mut writer = fdb.write();
        let before = fdb.find(key, fdb.hash(key));
        let before = before.filter(|value| value.is_static() && value.port() != number);
        if writer.add_static(key, number) {
            let name = before.and_then(|before| control.ports.name_of(before.port()));
            return Ok(name.map(str::to_owned));
        }
        drop(writer);
        Err(Full { mac, limit: fdb.report().limit }.into())
    }

    /// Deletes an entry of a bridge, static or learnt.
    ///
    /// # Errors
    /// There is no such bridge or entry.
    pub fn fdb_delete(&self, bridge: &str, mac: MacAddr, vlan: u16) -> Result<(), Error> {
        let key = checked_key(mac, vlan)?;
        let removed = self.control().bridges.get(bridge)?.fdb().write().remove(key);
        if removed { Ok(()) } else { Err(Error::UnknownEntry { mac, vlan }) }
    }

    /// Deletes a static entry of `port`; returns whether there was one.
    ///
    /// # Errors
    /// There is no such port or VLAN.
    pub fn fdb_remove_static(&self, mac: MacAddr, vlan: u16, port: &str) -> Result<bool, Error> {
        let key = checked_key(mac, vlan)?;
        let control = self.control();
        let entry = control.ports.get(port)?;
        let (number, fdb) = (entry.number(), control.fdb_of(entry)?);
        let mut writer = fdb.write();
        let found = fdb.find(key, fdb.hash(key));
        let is_its = found.is_some_and(|value| value.is_static() && value.port() == number);
        Ok(is_its && writer.remove(key))
    }
}

impl Control {
    /// The forwarding database of a port's bridge.
    pub(super) fn fdb_of(&self, port: &Port) -> Result<&Arc<Fdb>, Error> {
        Ok(self.bridges.get(port.bridge_name())?.fdb())
    }
}

/// What is in a database, sorted by VLAN and address.
fn sorted(fdb: &Fdb) -> Vec<Entry> {
    let mut entries = fdb.list();
    entries.order_by_key(|entry| (entry.vlan, entry.mac));
    entries
}

fn checked_key(mac: MacAddr, vlan: u16) -> Result<Key, Error> {
    if vlan > MAX_VLAN { Err(Error::Vlan { vlan }) } else { Ok(Key::new(vlan, mac)) }
}
