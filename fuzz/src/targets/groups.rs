//! What hosts and routers say of groups to a bridge that snoops.

use std::time::Duration;

use switch::snoop::probe::Probe;
use switch::{McastRouter, McastSnooping, PortSnooping};

use crate::input::Input;

/// How frames to groups of IPv4 and of IPv6 begin, with and without a tag.
const STARTS: [&[u8]; 4] = [
    &[1, 0, 0x5E, 0, 0, 22, 2, 0, 0, 0, 0, 1, 8, 0, 0x46],
    &[1, 0, 0x5E, 0, 0, 22, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 5, 8, 0, 0x45],
    &[0x33, 0x33, 0, 0, 0, 22, 2, 0, 0, 0, 0, 1, 0x86, 0xDD, 0x60],
    &[],
];

/// Plays one input: a bridge, and frames that come in on its ports while time passes.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let settings = McastSnooping {
        enabled: true,
        aging_time: 60,
        table_size: usize::from(choice & 7) + 1,
        querier: choice & 8 != 0,
        disable_flood_unregistered: choice & 16 != 0,
        ..McastSnooping::default()
    };
    let mut ports = <[PortSnooping; 4]>::default();
    ports[1].max_groups = Some(u32::from(choice >> 5));
    ports[2].router = McastRouter::Never;
    ports[3].router = McastRouter::Always;
    let mut probe = Probe::new(settings, ports);
    // As many as there is room for in the queue.
    for _ in 0..128 {
        if input.is_empty() {
            break;
        }
        let place = input.byte();
        let start = STARTS[usize::from(place >> 2 & 3)];
        let frame = [start, input.bytes()].concat();
        probe.hear(u16::from(place & 3), u16::from(place >> 4 & 1), &frame);
        if place & 0x20 != 0 {
            let wait = u64::from(input.byte());
            probe.wait(Duration::from_millis(wait * if place & 0x40 != 0 { 1_000 } else { 10 }));
        }
    }
    probe.wait(Duration::from_secs(1));
    probe.wait(Duration::from_secs(60 + 255));
}
