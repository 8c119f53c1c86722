//! What tunnels do with packets, told to who asks: by the ways that workers have, and by the code that they
//! run.

use std::net::IpAddr;
use std::sync::Arc;

use datapath::tunnel::hop::NoHop;
use datapath::tunnel::{ended, inner_of, meta_of, wish, words};
use flow::{Key, OptionField, TunnelWords, slot};
use packet::headers::EtherType;
use tunnel::{Inner, Kind, Meta, Mode, Outer, Settings, best};

use super::{Control, Switch};

/// A packet that goes into a tunnel.
#[derive(Clone, Debug)]
pub struct IntoTunnel {
    /// What the port is set to.
    pub settings: Arc<Settings>,
    /// What goes around the packet.
    pub meta: Meta,
    /// Where it goes.
    pub way: Result<TunnelWay, NoTunnelWay>,
}

/// Where an outer packet goes.
#[derive(Clone, Debug)]
pub struct TunnelWay {
    /// The port by which it goes.
    pub port: String,
    /// The next hop.
    pub next: IpAddr,
    /// All that is in front of the packet.
    pub outer: Outer,
}

/// Why it goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTunnelWay {
    /// No route leads there, or there is no address to send it from.
    Route,
    /// The next hop is not known, and is asked first.
    Neighbour(IpAddr),
}

impl Switch {
    /// What becomes of a packet of this kind that is sent to a port of a tunnel, in a bridge with these fields
    /// for options, by what workers know of neighbours; `None` if it is no such port, or nobody says where the
    /// tunnel leads.
    #[must_use]
    pub fn enter_tunnel(
        &self,
        port: &str,
        key: &Key,
        fields: &[OptionField],
    ) -> Option<IntoTunnel> {
        self.control().enter_tunnel(port, key, fields)
    }

    /// The tunnel that a frame ends by, which is sent to a bridge's own port: its kind, and the port of UDP.
    #[must_use]
    pub fn ended_tunnel(&self, port: &str, frame: &[u8]) -> Option<(Kind, u16)> {
        let control = self.control();
        let number = control.port_number(port).ok()?;
        let end = control.told_ways().ends.iter().find(|end| end.port == number)?;
        let all = control.tubes().map(|(_, tube)| tube.settings());
        ended(all, end, (frame, frame.len()))
    }

    /// The port where a packet comes in that has come by a tunnel of this kind, to this port of UDP.
    #[must_use]
    pub fn tunnel_port(&self, found: (Kind, u16), meta: &Meta) -> Option<String> {
        let control = self.control();
        let all = control.tubes().map(|(entry, tube)| (entry.number(), tube.settings()));
        let number = best(all, found, meta)?;
        control.ports.name_of(number).map(str::to_owned)
    }
}

impl Control {
    fn enter_tunnel(&self, port: &str, key: &Key, fields: &[OptionField]) -> Option<IntoTunnel> {
        let tube = self.ports.get(port).ok()?.tube()?;
        let (wished, options, oam) = wish(&key.tunnel(), fields);
        let is_ip = matches!(key.get_u16(slot::ETH_TYPE), 0x0800 | 0x86DD);
        let inner = is_ip.then(|| (key.get_u8(slot::IP_TOS), key.get_u8(slot::IP_TTL)));
        let settings = tube.shared_settings();
        let carried = match inner_of(key) {
            Inner::Ethernet if settings.mode == Mode::Packets => {
                Inner::Bare(EtherType(key.get_u16(slot::ETH_TYPE)))
            }
            inner => inner,
        };
        let meta = Meta { options, oam, inner: carried, ..settings.meta(&wished, inner)? };
        let way = self.way_of(&settings, &meta);
        Some(IntoTunnel { settings, meta, way })
    }

    fn way_of(&self, settings: &Settings, meta: &Meta) -> Result<TunnelWay, NoTunnelWay> {
        let (hop, next) = match self.told_ways().hop(meta, settings.mark) {
            Ok(found) => found,
            Err(NoHop::Lost(_)) => return Err(NoTunnelWay::Route),
            Err(NoHop::Ask(_, _, next)) => return Err(NoTunnelWay::Neighbour(next)),
        };
        let meta = Meta { source: hop.source, ..*meta };
        let outer = Outer::new(settings.kind, &meta, hop.link, settings.port);
        let port = self.ports.name_of(hop.end.port).ok_or(NoTunnelWay::Route)?.to_owned();
        Ok(TunnelWay { port, next, outer: outer.ok_or(NoTunnelWay::Route)? })
    }
}

/// The words of a packet that has come with this outer header, in a bridge with these fields for options;
/// `None` if it has an option that must not be passed over and that no field stands for.
#[must_use]
pub fn tunnel_words(meta: &Meta, fields: &[OptionField]) -> Option<TunnelWords> {
    words(meta, fields)
}

/// What a packet with this key is to who looks into a tunnel.
#[must_use]
pub fn tunnel_inner(key: &Key) -> Inner {
    inner_of(key)
}

/// As much of the outer header that a packet with this key has come with as tells which port it is for;
/// `None` if it has come by no tunnel.
#[must_use]
pub fn tunnel_meta(key: &Key) -> Option<Meta> {
    meta_of(key)
}
