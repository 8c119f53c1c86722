//! What a bridge needs to know so that controllers are reached through it: who they are, as the database says, and the
//! addresses of the links to them, as the host knows them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use eal::netlink::Socket;
use eal::routing;
use litemap::LiteMap;
use ofproto::in_band::{InBand, Remote, address};
use packet::MacAddr;

use crate::content::{Bridge, Content};

/// Ports where they are asked where none is said: of OpenFlow, and of OVSDB.
const OPENFLOW: u16 = 6_653;
const OVSDB: u16 = 6_640;

/// How long what is known of a link is gone by, and what is not known.
const KNOWN: Duration = Duration::from_secs(10);
const UNKNOWN: Duration = Duration::from_secs(1);

/// Who is to be reached through a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InBandSpec {
    /// Where they are.
    pub remotes: Vec<SocketAddrV4>,
    /// The queue of ports that what is for them goes out by.
    pub queue: Option<u32>,
}

impl InBandSpec {
    /// As the database says: all that is not said to be out of band.
    #[must_use]
    pub fn of(content: &Content, bridge: &Bridge) -> Self {
        let said = |key: &str| bridge.other_config.get(key);
        if said("disable-in-band").is_some_and(|text| text == "true") {
            return Self::default();
        }
        let controllers = bridge.controllers.values().filter(|one| !one.is_out_of_band);
        let controllers = controllers.filter_map(|one| address(&one.target, OPENFLOW));
        let managers = content.managers.iter().filter_map(|target| address(target, OVSDB));
        let mut remotes: Vec<SocketAddrV4> = controllers.chain(managers).collect();
        remotes.sort_unstable();
        remotes.dedup();
        Self { remotes, queue: said("in-band-queue").and_then(|queue| queue.parse().ok()) }
    }
}

/// What is known of a link, and until when that is gone by.
type Link = (Option<MacAddr>, Instant);

/// What is known of them.
#[derive(Debug, Default)]
pub struct Links {
    by: LiteMap<Ipv4Addr, Link>,
    /// By which the host is asked.
    socket: Option<Socket>,
}

impl Links {
    /// When the host is to be asked for what is wanted.
    pub fn due(&self, spec: &InBandSpec) -> Option<Instant> {
        let remotes = spec.remotes.iter();
        let due = remotes.filter_map(|remote| self.by.get(remote.ip()).map(|(_, until)| *until));
        due.min()
    }

    /// All that there is to know, where the bridge's own port has the address `local`; the host is asked for what is
    /// not known, or was not asked for long. `bridge` is whose links they are.
    pub fn look(
        &mut self,
        bridge: &str,
        spec: &InBandSpec,
        local: Option<MacAddr>,
        now: Instant,
    ) -> InBand {
        self.by.retain(|ip, _| spec.remotes.iter().any(|remote| remote.ip() == ip));
        let remotes = spec.remotes.iter().map(|address| {
            let next_hop = self.next_hop(bridge, *address.ip(), now);
            Remote { address: *address, next_hop }
        });
        let remotes = remotes.collect();
        InBand { local, queue: spec.queue, remotes }
    }

    fn next_hop(&mut self, bridge: &str, ip: Ipv4Addr, now: Instant) -> Option<MacAddr> {
        let before = self.by.get(&ip).copied();
        if let Some((link, until)) = before
            && now < until
        {
            return link;
        }
        let link = self.ask(ip).unwrap_or_else(|error| {
            // As long as it is so, it is told once.
            if before.is_none_or(|(link, _)| link.is_some()) {
                tracing::warn!(
                    "bridge {bridge}: no way to {ip}, which is to be reached in band: {error}"
                );
            }
            None
        });
        let until = now.checked_add(if link.is_some() { KNOWN } else { UNKNOWN }).unwrap_or(now);
        self.by.insert(ip, (link, until));
        link
    }

    fn ask(&mut self, ip: Ipv4Addr) -> std::io::Result<Option<MacAddr>> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open(None)?,
        };
        let link = routing::next_hop(&socket, ip);
        self.socket = Some(socket);
        Ok(link?.map(MacAddr))
    }
}

#[cfg(test)]
mod tests {
    use ovsdb::Uuid;

    use super::*;
    use crate::content::{Controller, Texts};

    fn spec(other: &[(&str, &str)]) -> InBandSpec {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let mut bridge = Bridge::bare(Uuid(1), other.iter().map(pair).collect(), LiteMap::new());
        for (row, target, is_out_of_band) in [
            (1, "tcp:10.0.0.9", false),
            (2, "tcp:10.0.0.8:1", true),
            (3, "tcp:127.0.0.1:6653", false),
            (4, "tcp:10.0.0.9:6653", false),
        ] {
            let target = target.to_owned();
            let row_of = Controller { target, is_out_of_band, ..Controller::default() };
            bridge.controllers.insert(Uuid(row), row_of);
        }
        let mut content = Content::bare(Texts::new(), ("br0", bridge.clone()));
        content.managers = vec!["ssl:10.0.0.7".to_owned(), "ptcp:6640".to_owned()];
        InBandSpec::of(&content, &bridge)
    }

    #[test]
    fn all_are_reached_in_band_that_are_not_said_to_be_out_of_band() {
        let remotes = ["10.0.0.7:6640", "10.0.0.9:6653"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(spec(&[]), InBandSpec { remotes, queue: None });
        assert_eq!(spec(&[("in-band-queue", "3")]).queue, Some(3));
        assert_eq!(spec(&[("disable-in-band", "true")]), InBandSpec::default());
    }

    #[test]
    fn the_host_is_asked_now_and_then() {
        let spec = InBandSpec { remotes: vec!["127.0.0.1:1".parse().unwrap()], queue: Some(2) };
        let (mut links, now) = (Links::default(), Instant::now());
        assert_eq!(links.due(&spec), None);
        let local = Some(MacAddr([2; 6]));
        let known = links.look("br0", &spec, local, now);
        assert_eq!((known.local, known.queue, known.remotes.len()), (local, Some(2), 1));
        let due = links.due(&spec).unwrap();
        assert!(due == now + UNKNOWN || due == now + KNOWN);
        // Not before it is due.
        links.look("br0", &spec, local, due - Duration::from_millis(1));
        assert_eq!(links.due(&spec), Some(due));
        links.look("br0", &spec, local, due);
        assert!(links.due(&spec).unwrap() > due);
        // Who is not wanted any more is forgotten.
        links.look("br0", &InBandSpec::default(), local, due);
        assert!(links.by.is_empty());
    }
}
