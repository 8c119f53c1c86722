//! A database of another size in the place of one that is in use.

use std::sync::atomic::Ordering::Relaxed;

use ordered::Order as _;

use super::{Fdb, Full, Key, Learned};

impl Fdb {
    /// A database of at most `limit` entries with what this one has: all static entries, those that
    /// were learnt as far as there is room, as if they were seen just now, and what was counted.
    ///
    /// # Errors
    /// There is no room for the static entries.
    pub fn resized(&self, limit: usize, ports: usize) -> Result<Self, Full> {
        let other = Self::new(limit, ports, self.ageing());
        other.set_now(self.now());
        let mut entries = self.list();
        // Those that were seen last are kept.
        entries.order_by_key(|entry| (!entry.is_static, entry.age));
        let mut writer = other.write();
        for entry in entries {
            let key = Key::new(entry.vlan, entry.mac);
            if entry.is_static {
                if !writer.add_static(key, entry.port) {
                    return Err(Full { mac: entry.mac, limit });
                }
            } else if other.len() >= limit
                || writer.learn(key, other.hash(key), entry.port) == Learned::Refused
            {
                break;
            }
        }
        drop(writer);
        let (from, to) = (&self.counts, &other.counts);
        for (from, to) in [
            (&from.learned, &to.learned),
            (&from.moved, &to.moved),
            (&from.expired, &to.expired),
            (&from.evicted, &to.evicted),
            (&from.refused, &to.refused),
        ] {
            to.set(from.get());
        }
        for (from, to) in self.most.iter().zip(&other.most) {
            to.store(from.load(Relaxed), Relaxed);
        }
        Ok(other)
    }
}
