//! Monitors of flows.

use openflow::message::Kind;
use openflow::message::flow_monitor::{FlowMonitorRequest, decode_cancel};

use super::{Answers, Request};

impl Request<'_> {
    pub(super) fn monitor_answer(&mut self) -> Answers {
        let raw = self.raw;
        let connection = self.bridge.connections.get_mut(&self.id);
        let session = connection.and_then(|connection| connection.session.as_mut());
        let Some(session) = session else { return Ok(Vec::new()) };
        if raw.kind == Kind::FlowMonitorCancel {
            session.cancel_monitor(decode_cancel(raw.body)?)?;
            return Ok(Vec::new());
        }
        let mut requests = FlowMonitorRequest::decode_all(raw)?;
        let tlv = &self.bridge.tlv;
        requests.iter_mut().try_for_each(|request| tlv.fit(&mut request.matching))?;
        session.change_monitors(requests, &self.bridge.tables, raw.xid)
    }
}
