//! Members of bonds that ask stations behind them whether they are there.

use std::sync::Arc;

use datapath::trap::Askers;
use litemap::LiteMap;
use ordered::Gather as _;
use packet::MacAddr;

use super::Control;
use super::bonds::{Bond, members};
use crate::bond::monitor::Link;
use crate::ports::Entry;

impl Control {
    /// Has all bonds ask as they are set to, and workers hand over the answers.
    pub(super) fn prepare_monitors(&mut self, bonds: &[String]) {
        for name in bonds {
            self.set_monitor(name);
        }
        let all = self.bonds.all();
        let wanted: LiteMap<u16, Askers> = all.flat_map(askers).gather();
        self.listen_for_answers(&wanted);
    }

    fn set_monitor(&mut self, name: &str) {
        let Ok(entry) = self.ports.get(name) else { return };
        let asking = entry.options().bonding.asking();
        let links: Vec<Link> = match &asking {
            Some(_) => {
                let link = |(member, port): (&str, &Entry)| self.link(member, port, entry);
                members(&self.ports, name).map(link).collect()
            }
            None => Vec::new(),
        };
        self.bonds.of(name).monitor.set(asking, &links);
    }

    fn link(&self, name: &str, member: &Entry, bond: &Entry) -> Link {
        let made_up = self.identity.mac(&format!("member {name}"));
        // Without any, one that no other member of the switch has.
        let numbered = || {
            let [high, low] = member.number().to_be_bytes();
            MacAddr([0x02, 0x52, 0x57, 0, high, low])
        };
        Link {
            port: member.number(),
            macs: [member.control().mac(), made_up.unwrap_or_else(numbered)],
            is_up: is_up(member, bond),
        }
    }

    /// Hears the answers that have come by members of bond `name`.
    pub(super) fn hear_answers(&mut self, name: &str) {
        let Some(bond) = self.bonds.get_mut(name) else { return };
        let numbers: Vec<u16> = bond.monitor.addresses().map(|(number, _)| number).collect();
        for number in numbers {
            let Some(line) = self.ears.answers(number) else { continue };
            line.heard().for_each(|heard| bond.monitor.hear(number, heard.bytes()));
        }
    }
}

/// Whether a member of a bond has a link and is in service.
pub(super) fn is_up(member: &Entry, bond: &Entry) -> bool {
    bond.is_in_service() && member.is_in_service() && member.control().link().up
}

/// Who asks of a bond.
fn askers(bond: &Bond) -> Vec<(u16, Askers)> {
    let all: Arc<[MacAddr]> = bond.monitor.addresses().map(|(_, mac)| mac).collect();
    let asker = |(number, own)| (number, Askers { own, all: Arc::clone(&all) });
    bond.monitor.addresses().map(asker).collect()
}
