//! Connections that controllers have end (NXT_CT_FLUSH_ZONE and NXT_CT_FLUSH).

use openflow::ErrorCode;
use openflow::message::ct_flush::CtFlush;

use super::{Answers, Request};

impl Request<'_> {
    /// Has the connections of a zone end.
    pub(super) fn flush_zone(&mut self) -> Answers {
        self.check_role()?;
        let [zeroes @ .., high, low] = self.raw.body else { return Err(ErrorCode::BrcBadLen) };
        if zeroes.iter().any(|byte| *byte != 0) {
            return Err(ErrorCode::NxbrcMustBeZero);
        }
        let zone = Some(u16::from_be_bytes([*high, *low]));
        self.datapath.flush_connections(&CtFlush { zone, ..CtFlush::default() });
        Ok(Vec::new())
    }

    /// Has connections end by what they have.
    pub(super) fn flush_connections(&mut self) -> Answers {
        self.check_role()?;
        self.datapath.flush_connections(&CtFlush::decode(self.raw.body)?);
        Ok(Vec::new())
    }
}
