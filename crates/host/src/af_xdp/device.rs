//! What is particular to the control side of an AF_XDP port.

use packet::LINK_HEADERS;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::sockopt::xdp_statistics;

use super::attach::Attached;
use super::rest::Rest;
use super::socket::{Socket, is_bound};
use super::umem::{CHUNK, HEADROOM};
use crate::kernel::interface::TagsKept;
use crate::kernel::options::MAX_MTU;
use crate::kernel::session::Device;

/// Largest MTU with frames of one piece: what a chunk has room for.
#[allow(clippy::cast_possible_truncation, reason = "a constant that fits")]
const MAX_MTU_ONE_PIECE: u16 = (CHUNK - HEADROOM - LINK_HEADERS) as u16;

/// The control side's own part.
#[derive(Debug)]
pub(super) struct Port {
    attached: Attached,
    sockets: Vec<Arc<OwnedFd>>,
    zero_copy: bool,
    multi_buffer: bool,
    begun: bool,
    busy_poll: bool,
    /// What is undone when the port is closed.
    tags_kept: Option<TagsKept>,
    rest: Option<Rest>,
}

impl Port {
    pub(super) fn new(
        attached: Attached,
        sockets: &[Socket],
        begun: bool,
        busy_poll: bool,
        (tags_kept, rest): (Option<TagsKept>, Option<Rest>),
    ) -> Self {
        Self {
            attached,
            sockets: sockets.iter().map(|socket| Arc::clone(&socket.fd)).collect(),
            zero_copy: sockets.iter().all(|socket| socket.zero_copy),
            multi_buffer: sockets.iter().all(|socket| socket.multi_buffer),
            begun,
            busy_poll,
            tags_kept,
            rest,
        }
    }

    /// Whether checksums of received frames may be only begun.
    pub(super) const fn begun(&self) -> bool {
        self.begun
    }
}

impl Device for Port {
    /// A socket is bound once only, so whichever interface it is, it is the one.
    fn is_attached(&self, _index: u32) -> bool {
        self.sockets.iter().all(|socket| is_bound(socket.as_fd()))
    }

    fn max_mtu(&self) -> u16 {
        if self.multi_buffer { MAX_MTU } else { MAX_MTU_ONE_PIECE }
    }

    /// What the kernel counts per socket (`XDP_STATISTICS`).
    fn extended_stats(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        for (queue, socket) in self.sockets.iter().enumerate() {
            let Ok(counts) = xdp_statistics(socket) else { continue };
            let rx = [
                ("dropped", Some(counts.rx_dropped)),
                ("invalid_descriptors", Some(counts.rx_invalid_descs)),
                ("ring_full", counts.rx_ring_full),
                ("fill_ring_empty", counts.rx_fill_ring_empty_descs),
            ];
            let tx = [
                ("invalid_descriptors", Some(counts.tx_invalid_descs)),
                ("ring_empty", counts.tx_ring_empty_descs),
            ];
            let name = |side: &str, name: &str| format!("{side}_q{queue}_xdp_{name}");
            all.extend(rx.iter().filter_map(|(of, count)| Some((name("rx", of), (*count)?))));
            all.extend(tx.iter().filter_map(|(of, count)| Some((name("tx", of), (*count)?))));
        }
        all
    }

    fn details(&self) -> Vec<(String, String)> {
        let transfer = if self.zero_copy { "zero-copy" } else { "copy" };
        let checksums = if self.begun { "maybe begun" } else { "complete" };
        let onoff = |on| if on { "on" } else { "off" };
        let busy_poll = match (self.busy_poll, &self.rest) {
            (true, Some(_)) => "on, interrupts rest",
            (true, None) => "on, beside interrupts",
            (false, _) => "off",
        };
        [
            ("mode", format!("{}, {transfer}", self.attached.hook.name())),
            ("multi_buffer", onoff(self.multi_buffer).to_owned()),
            ("busy_poll", busy_poll.to_owned()),
            ("checksums", checksums.to_owned()),
            (
                "vlan_stripping",
                if self.tags_kept.is_some() { "off for now" } else { "untouched" }.to_owned(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}
