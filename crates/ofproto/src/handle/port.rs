//! Ports and their statistics.

use openflow::message::Kind;
use openflow::message::port::{PortMod, PortReason, PortStatus, config};
use openflow::message::stats::port::{PortStats, decode_request};
use openflow::{ErrorCode, PortNo, Version};

use super::{Answers, Request};
use crate::bridge::Job;
use crate::port::Port;

impl Request<'_> {
    pub(super) fn port_answer(&mut self) -> Answers {
        match self.raw.kind {
            Kind::PortMod => self.port_mod(),
            Kind::PortStatsRequest => self.port_stats(),
            _ => self.port_descs(),
        }
    }

    fn port_mod(&mut self) -> Answers {
        self.check_role()?;
        let version = self.raw.version;
        let wanted = PortMod::decode(version, self.raw.body)?;
        if wanted.config & !wanted.mask != 0 && version == Version::V10 {
            tracing::debug!("a port-mod sets bits that it does not select");
        }
        let port = self.bridge.ports.get_mut(&wanted.number).ok_or(ErrorCode::PmfcBadPort)?;
        if port.desc.mac != wanted.mac {
            return Err(ErrorCode::PmfcBadHwAddr);
        }
        // Without spanning tree of OpenFlow 1.0 there is nothing to say about whether a port has it.
        let known = config::ALL_V10 & !config::NO_STP;
        let mask = wanted.mask & known;
        let next = (port.desc.config & !mask) | (wanted.config & mask);
        if next == port.desc.config {
            return Ok(Vec::new());
        }
        self.bridge.jobs.push((self.id, Job::SetPort { name: port.name.clone(), config: next }));
        // A port goes up or down when others have done it; the rest is our own.
        let down = config::PORT_DOWN;
        let own = (port.desc.config & down) | (next & !down);
        if own != port.desc.config {
            let before = port.desc.clone();
            port.desc.config = own;
            self.bridge.is_dirty = true;
            let status = PortStatus { reason: PortReason::Modify, port: port.desc.clone() };
            self.bridge.tell_port(&status, Some(before), Some(self.id));
        }
        Ok(Vec::new())
    }

    /// Those that are asked for: one, which may not be there, or all.
    pub(super) fn asked(&self, number: PortNo) -> Vec<&Port> {
        let is_asked = |port: &&Port| number == PortNo::ANY || port.desc.number == number;
        self.bridge.ports.values().filter(is_asked).collect()
    }

    fn port_stats(&self) -> Answers {
        let version = self.raw.version;
        let number = decode_request(version, self.raw.body)?;
        let mut replies = self.replies(Kind::PortStatsReply);
        for port in self.asked(number) {
            let age = self.now.saturating_duration_since(port.since);
            let (figures, custom) = (port.figures, port.custom.clone());
            let stats = PortStats { port: port.desc.number, age, figures, custom };
            replies.entry(|out| stats.encode(version, out));
        }
        Ok(replies.finish())
    }

    fn port_descs(&self) -> Answers {
        let version = self.raw.version;
        let number = match version {
            Version::V15 => decode_request(version, self.raw.body)?,
            _ => PortNo::ANY,
        };
        let mut replies = self.replies(Kind::PortDescReply);
        for port in self.asked(number) {
            replies.entry(|out| port.desc.encode(version, out));
        }
        Ok(replies.finish())
    }
}
