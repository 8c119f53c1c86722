//! What a switch is and what it can do.

use super::port::PortDesc;
use super::{Kind, Message};
use crate::error::ErrorCode;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// The answer to FEATURES_REQUEST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// By which a switch is known to controllers.
    pub datapath_id: u64,
    /// How many packets it keeps for controllers at a time.
    pub buffers: u32,
    /// How many tables it has.
    pub tables: u8,
    /// Which of several connections of a controller it is; from OpenFlow 1.3.
    pub auxiliary: u8,
    /// Bits of [`capability`].
    pub capabilities: u32,
    /// Actions that it knows, a bit for each type; OpenFlow 1.0 only.
    pub actions: u32,
    /// Its ports, which OpenFlow 1.3 has elsewhere.
    pub ports: Vec<PortDesc>,
}

/// Bits of what a switch can do.
pub mod capability {
    /// Statistics of flows.
    pub const FLOW_STATS: u32 = 1 << 0;
    /// Statistics of tables.
    pub const TABLE_STATS: u32 = 1 << 1;
    /// Statistics of ports.
    pub const PORT_STATS: u32 = 1 << 2;
    /// 802.1D spanning tree; OpenFlow 1.0 only.
    pub const STP: u32 = 1 << 3;
    /// Statistics of groups; from OpenFlow 1.1.
    pub const GROUP_STATS: u32 = 1 << 3;
    /// Reassembly of IP fragments.
    pub const IP_REASM: u32 = 1 << 5;
    /// Statistics of queues.
    pub const QUEUE_STATS: u32 = 1 << 6;
    /// Matches addresses in ARP packets; OpenFlow 1.0 and 1.1.
    pub const ARP_MATCH_IP: u32 = 1 << 7;
    /// Ports that lead into a loop are blocked; from OpenFlow 1.2.
    pub const PORT_BLOCKED: u32 = 1 << 8;
    /// Changes can be bundled; from OpenFlow 1.4.
    pub const BUNDLES: u32 = 1 << 9;
    /// Flows can be monitored; from OpenFlow 1.4.
    pub const FLOW_MONITORING: u32 = 1 << 10;
}

impl Features {
    /// Reads an answer.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN` if it is no whole number of ports long.
    pub fn decode(version: Version, body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let mut features = Self {
            datapath_id: reader.u64()?,
            buffers: reader.u32()?,
            tables: reader.u8()?,
            auxiliary: reader.u8()?,
            ..Self::default()
        };
        reader.skip(2)?;
        features.capabilities = reader.u32()?;
        features.actions = reader.u32()?;
        if version < Version::V13 {
            features.ports = PortDesc::decode_all(version, reader.rest())?;
        } else {
            features.actions = 0;
        }
        Ok(features)
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self, version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, Kind::FeaturesReply, xid);
        let out = message.body();
        out.u64(self.datapath_id);
        out.u32(self.buffers);
        out.u8(self.tables);
        out.u8(if version >= Version::V13 { self.auxiliary } else { 0 });
        out.u16(0);
        out.u32(self.capabilities);
        out.u32(if version == Version::V10 { self.actions } else { 0 });
        if version < Version::V13 {
            for port in &self.ports {
                // A message has room for no more.
                if out.len().saturating_add(PortDesc::LONGEST) > usize::from(u16::MAX) {
                    break;
                }
                port.encode(version, out);
            }
        }
        message.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PortNo;

    #[test]
    fn it_is_read_as_it_is_written() {
        for version in Version::ALL {
            let features = Features {
                datapath_id: 0x0000_fe00_0000_0001,
                buffers: 5,
                tables: 254,
                auxiliary: if version >= Version::V13 { 3 } else { 0 },
                capabilities: capability::FLOW_STATS | capability::QUEUE_STATS,
                actions: if version == Version::V10 { 0xfff } else { 0 },
                ports: match version {
                    Version::V10 | Version::V11 | Version::V12 => vec![PortDesc::new(PortNo(1)); 3],
                    _ => Vec::new(),
                },
            };
            let bytes = features.encode(version, 1);
            assert_eq!(Features::decode(version, &bytes[8..]), Ok(features), "{version}");
            assert_eq!(Features::decode(version, &bytes[8..20]), Err(ErrorCode::BrcBadLen));
        }
    }

    #[test]
    fn it_has_no_more_ports_than_fit() {
        let ports = vec![PortDesc::new(PortNo(1)); 3_000];
        let bytes = Features { ports, ..Features::default() }.encode(Version::V10, 1);
        let read = Features::decode(Version::V10, &bytes[8..]).unwrap();
        assert!((1_000..1_400).contains(&read.ports.len()));
    }
}
