//! Counts of what collectors of IPFIX are told (NXST_IPFIX_BRIDGE, NXST_IPFIX_FLOW).

use crate::error::ErrorCode;
use crate::wire::{Reader, Writer as _};

/// That a count is not known.
pub const UNKNOWN: u64 = u64::MAX;

/// Counts of one exporter: of a bridge, or of a set of collectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpfixStats {
    /// Flows that there were in all.
    pub flows: u64,
    /// Flows that there are now.
    pub current_flows: u64,
    /// Packets that were sampled.
    pub packets: u64,
    /// Of these, those of IPv4.
    pub ipv4: u64,
    /// Of these, those of IPv6.
    pub ipv6: u64,
    /// Packets that could not be sampled.
    pub packet_errors: u64,
    /// Of these, those of IPv4.
    pub ipv4_errors: u64,
    /// Of these, those of IPv6.
    pub ipv6_errors: u64,
    /// Messages that went to collectors.
    pub sent: u64,
    /// Messages that could not be sent.
    pub send_errors: u64,
    /// The number of the set of collectors; 0 of a bridge.
    pub set: u32,
}

impl IpfixStats {
    /// Reads all of an answer.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, ErrorCode> {
        let (mut reader, mut all) = (Reader::new(body), Vec::new());
        while !reader.is_empty() {
            all.push(Self::decode(&mut reader)?);
        }
        Ok(all)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let mut stats = Self::default();
        for count in stats.counts_mut() {
            *count = reader.u64()?;
        }
        stats.set = reader.u32()?;
        reader.skip(4)?;
        Ok(stats)
    }

    /// Appends it.
    pub fn encode(mut self, out: &mut Vec<u8>) {
        self.counts_mut().into_iter().for_each(|count| out.u64(*count));
        out.u32(self.set);
        out.zeroes(4);
    }

    /// As they are in messages.
    const fn counts_mut(&mut self) -> [&mut u64; 10] {
        [
            &mut self.flows,
            &mut self.current_flows,
            &mut self.packets,
            &mut self.ipv4,
            &mut self.ipv6,
            &mut self.packet_errors,
            &mut self.ipv4_errors,
            &mut self.ipv6_errors,
            &mut self.sent,
            &mut self.send_errors,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_are_written() {
        let first = IpfixStats { flows: 1, current_flows: 2, packets: 3, ..IpfixStats::default() };
        let second = IpfixStats { send_errors: UNKNOWN, sent: 5, set: 7, ..first };
        let mut bytes = Vec::new();
        [first, second].into_iter().for_each(|stats| stats.encode(&mut bytes));
        assert_eq!(bytes.len(), 2 * 88);
        assert_eq!(IpfixStats::decode_all(&bytes), Ok(vec![first, second]));
        assert_eq!(IpfixStats::decode_all(&bytes[..100]), Err(ErrorCode::BrcBadLen));
    }
}
