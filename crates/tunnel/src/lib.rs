//! Tunnels over IP: VXLAN (RFC 7348), Geneve (RFC 8926), GRE (RFC 2784, RFC 2890), ERSPAN (draft-foschiano-erspan-03) and
//! GTP-U (3GPP TS 29.281), of Ethernet and of packets without such a header.
//!
//! Values without ports, clocks or I/O: what an outer header says, and how one is made.
//!
//! - `kind`: which tunnels there are
//! - `meta`: what an outer header says, or is to say
//! - `envelope`: the IP header around a tunnel's own
//! - `erspan`: what is said of mirrored frames
//! - `gpe`: what VXLAN's header says of what is inside
//! - [`parse`]: from an outer header to what it says
//! - `outer`: outer headers, ready to be put in front of frames
//! - `settings`: what a port of a tunnel is set to, and which port a frame is for
//! - `routes`: by which bridge an address is reached
//! - `neighbours`: the MAC addresses of next hops
//!
//! ```
//! use packet::MacAddr;
//! use tunnel::{Envelope, Kind, Link, Meta, Outer, parse};
//!
//! let meta = Meta::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).with_key(5);
//! let link = Link { source: MacAddr([2, 0, 0, 0, 0, 1]), destination: MacAddr([2, 0, 0, 0, 0, 2]) };
//! let outer = Outer::new(Kind::Vxlan, &meta, link, Kind::Vxlan.port()).ok_or("two families")?;
//! let mut frame = vec![0; outer.len() + 60];
//! outer.write(&mut frame, 60, 50_000);
//! let envelope = Envelope::parse(&frame, frame.len())?;
//! let found = parse(Kind::Vxlan, &envelope, &frame)?;
//! assert_eq!((found.meta.key, found.at), (Some(5), outer.len()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod envelope;
mod erspan;
mod gpe;
mod kind;
mod meta;
mod neighbours;
mod outer;
mod parse;
mod routes;
mod settings;

pub use envelope::Envelope;
pub use erspan::{Erspan, ErspanSettings, Said};
pub use kind::Kind;
pub use meta::{Gtpu, Inner, MAX_OPTIONS, Meta, Options, Policy, TunnelOption};
pub use neighbours::{MAX_NEIGHBOURS, NEIGHBOUR_AGE, Neighbour, Neighbours, told};
pub use outer::{Link, MAX_OUTER, Outer};
pub use parse::{Found, Refused, parse};
pub use routes::{MAX_ROUTES, Prefix, Route, Routes};
pub use settings::{Address, Congestion, Inherited, Mode, Settings, TunnelKey, Wish, best};
