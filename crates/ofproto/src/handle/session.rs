//! What a controller sets for its connection.

use openflow::ErrorCode;
use openflow::Version;
use openflow::message::Kind;
use openflow::message::config::{Config, INVALID_TTL_TO_CONTROLLER};
use openflow::message::nicira::{
    FlowFormat, PacketInFormat, decode_controller_id, decode_flow_mod_table_id,
};
use openflow::message::role::{Role, RoleReason, RoleRequest, RoleStatus};

use super::{Answers, Request};
use crate::connection::{MISS_SEND_LEN, Origin};

impl Request<'_> {
    pub(super) fn session_answer(&mut self) -> Answers {
        let body = self.raw.body;
        match self.raw.kind {
            Kind::GetConfigRequest => return self.config(),
            Kind::SetConfig => self.set_config()?,
            Kind::RoleRequest => return self.role(),
            Kind::GetAsyncRequest => {
                let (version, xid) = (self.raw.version, self.raw.xid);
                return Ok(vec![self.session()?.asynchronous.encode(version, xid)]);
            }
            Kind::SetAsyncConfig => {
                let raw = self.raw;
                self.session()?.asynchronous.change(raw)?;
                self.listen();
            }
            Kind::SetFlowFormat => self.session()?.flow_format = FlowFormat::decode(body)?,
            Kind::SetPacketInFormat => {
                self.session()?.packet_in_format = PacketInFormat::decode(body)?;
            }
            Kind::SetControllerId => {
                self.session()?.controller_id = decode_controller_id(body)?;
            }
            _ => self.session()?.has_table_id = decode_flow_mod_table_id(body)?,
        }
        Ok(Vec::new())
    }

    /// Who says what it wants to be told is told it, also if it has not said how much of packets.
    fn listen(&mut self) {
        let connection = self.bridge.connections.get_mut(&self.id);
        let connection = connection.filter(|connection| connection.origin == Origin::Service);
        if let Some(session) = connection.and_then(|connection| connection.session.as_mut())
            && session.miss_send_len == 0
        {
            session.miss_send_len = MISS_SEND_LEN;
        }
    }

    fn config(&mut self) -> Answers {
        let (version, xid) = (self.raw.version, self.raw.xid);
        let fragments = self.bridge.tables.fragments().flags();
        let session = self.session()?;
        let tells_ttl = session.invalid_ttl && version < Version::V13;
        let flags = fragments | if tells_ttl { INVALID_TTL_TO_CONTROLLER } else { 0 };
        let config = Config { flags, miss_send_len: session.miss_send_len };
        Ok(vec![config.encode(version, Kind::GetConfigReply, xid)])
    }

    fn set_config(&mut self) -> Result<(), ErrorCode> {
        let config = Config::decode(self.raw.body)?;
        let version = self.raw.version;
        if !config.is_known_in(version) {
            return Err(ErrorCode::ScfcBadFlags);
        }
        let session = self.session()?;
        session.miss_send_len = config.miss_send_len;
        if version < Version::V13 {
            session.invalid_ttl = config.flags & INVALID_TTL_TO_CONTROLLER != 0;
            session.asynchronous.set_invalid_ttl(session.invalid_ttl);
        }
        let may_change = session.role != Role::Secondary;
        if may_change {
            match config.fragments() {
                Ok(fragments) => self.bridge.set_fragments(fragments),
                Err(mode) => tracing::warn!("unsupported fragment handling mode {mode}"),
            }
        }
        Ok(())
    }

    fn role(&mut self) -> Answers {
        let request = RoleRequest::decode(self.raw)?;
        if let Some(role) = request.role {
            let elected = request.generation.filter(|_| role != Role::Equal);
            if let Some(generation) = elected {
                let is_stale = |last: u64| generation.wrapping_sub(last).cast_signed() < 0;
                if self.bridge.generation.is_some_and(is_stale) {
                    return Err(ErrorCode::RrfcStale);
                }
                self.bridge.generation = Some(generation);
            }
            if role == Role::Primary {
                self.demote_others();
            }
            self.session()?.role = role;
        }
        let role = Some(self.session()?.role);
        let answer = RoleRequest { role, generation: self.bridge.generation };
        let (version, form, xid) = (self.raw.version, self.raw.form, self.raw.xid);
        Ok(vec![answer.encode(version, Kind::RoleReply, form, xid)])
    }

    /// There is one primary: who was it before is a secondary now, and is told so.
    fn demote_others(&mut self) {
        let (id, generation) = (self.id, self.bridge.generation);
        let xid = self.bridge.next_xid();
        let others = self.bridge.connections.iter_mut().filter(|(other, _)| **other != id);
        for (_, connection) in others {
            let Some(session) = &mut connection.session else { continue };
            if session.role != Role::Primary {
                continue;
            }
            session.role = Role::Secondary;
            let status = RoleStatus {
                role: Some(Role::Secondary),
                reason: RoleReason::PrimaryRequest,
                generation,
            };
            if let Some(message) = status.encode(session.version, xid) {
                connection.outbox.tell(message);
            }
        }
    }
}
