//! Connections that end by what they have, for controllers and for `ovs-appctl`.

use std::net::IpAddr;

use conntrack::{Conntrack, Entry, Tuple};
use openflow::message::ct_flush::{CtEnds, CtFlush, is_icmp};
use packet::headers::IpProtocol;

/// The data path's name in the log.
const DATAPATH: &str = "netdev@ovs-netdev";

/// Ends the connections that are meant.
pub fn flush(connections: &Conntrack, which: &CtFlush) {
    if which.is_any() {
        match which.zone {
            Some(zone) => tracing::debug!(target: "ct_dpif", "{DATAPATH}: ct_flush: zone {zone}"),
            None => tracing::debug!(target: "ct_dpif", "{DATAPATH}: ct_flush: <all>"),
        }
        connections.flush(which.zone);
        return;
    }
    let zone = which.zone.unwrap_or(0);
    tracing::debug!(target: "ct_dpif", "{DATAPATH}: ct_flush: zone={zone} {which}");
    let now = connections.now();
    match tuple(which, zone) {
        Some(tuple) => _ = connections.flush_tuple(&tuple, now),
        None => _ = connections.flush_if(now, |entry| is_meant(which, entry)),
    }
}

/// The first packet of the only connection that is meant.
fn tuple(which: &CtFlush, zone: u16) -> Option<Tuple> {
    let CtFlush { protocol, original, .. } = *which;
    let (source, destination) = original.source.zip(original.destination)?;
    let (from, to) = match is_icmp(protocol) {
        true => (original.icmp.0, original.icmp.1.into()),
        false => original.ports,
    };
    let tuple = Tuple::new(IpProtocol(protocol), (source, from), (destination, to), zone);
    tuple.filter(|_| which.is_one())
}

/// Whether a connection is meant.
fn is_meant(which: &CtFlush, entry: &Entry) -> bool {
    let CtFlush { protocol, original, reply, zone, mark, label } = which;
    zone.is_none_or(|zone| zone == entry.original.zone())
        && (*protocol == 0 || *protocol == entry.original.protocol().0)
        && which.is_v4().is_none_or(|is_v4| is_v4 == entry.original.source().is_ipv4())
        && are_of(original, *protocol, &entry.original)
        && are_of(reply, *protocol, &entry.reply)
        && entry.mark & mark.1 == mark.0 & mark.1
        && entry.label & label.1 == label.0 & label.1
}

/// Whether packets have these ends.
fn are_of(ends: &CtEnds, protocol: u8, tuple: &Tuple) -> bool {
    let is = |wanted: Option<IpAddr>, own| wanted.is_none_or(|wanted| wanted == own);
    if ends.is_any(protocol) {
        return true;
    }
    let (from, to) = tuple.ports();
    let are_numbers = match is_icmp(protocol) {
        true => tuple.query().is_some_and(|own| own == (ends.icmp.0, ends.icmp.1)),
        false => [(ends.ports.0, from), (ends.ports.1, to)]
            .into_iter()
            .all(|(wanted, own)| wanted == 0 || wanted == own),
    };
    is(ends.source, tuple.source()) && is(ends.destination, tuple.destination()) && are_numbers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conntrack::{Lane, Request, dissect};
    use packet::MacAddr;
    use packet::builder::FrameBuilder;

    use super::*;

    /// Connections of UDP from three ports, in zones 0 and 5, the first with a mark.
    fn some() -> Arc<Conntrack> {
        let all = Arc::new(Conntrack::default());
        let mut lane = Lane::new(Arc::clone(&all));
        for zone in [0, 5] {
            for port in 1..=3 {
                let frame = FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6]));
                let frame = frame.ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(port, 53).build().unwrap();
                let mark = (port == 1).then_some((7, u32::MAX));
                let request = Request { zone, commit: true, mark, ..Request::default() };
                let seen = dissect(0x0800, &frame[14..], frame.len() - 14, zone);
                lane.track(seen.as_ref(), &request, 0);
            }
        }
        all
    }

    #[test]
    fn those_end_that_are_meant() {
        let there = "ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_dst=53";
        let one = format!("{there},ct_tp_src=2");
        for (words, left) in [
            (&[][..], 0),
            (&["zone=5"], 3),
            (&["zone=7"], 6),
            (&["mark=7"], 4),
            (&["zone=5", "mark=1/1"], 5),
            (&["mark=8/8"], 6),
            (&["labels=1/1"], 6),
            (&[there], 0),
            (&["zone=5", there], 3),
            // One without a zone is of zone 0.
            (&[&one], 5),
            (&["zone=5", &one], 5),
            (&["", "ct_nw_src=10.0.0.2,ct_nw_proto=17,ct_tp_dst=2"], 4),
            (&["ct_nw_src=10.0.0.2"], 6),
            (&["ct_nw_proto=6"], 6),
            (&["ct_ipv6_src=fd00::1"], 6),
        ] {
            let all = some();
            flush(&all, &CtFlush::parse(words).unwrap());
            assert_eq!(all.count(), left, "{words:?}");
        }
    }
}
