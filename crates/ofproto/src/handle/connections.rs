//! Connections that controllers have end (NXT_CT_FLUSH_ZONE).

use openflow::ErrorCode;

use super::{Answers, Request};

impl Request<'_> {
    /// Has the connections of a zone end.
    pub(super) fn flush_zone(&mut self) -> Answers {
        self.check_role()?;
        let [zeroes @ .., high, low] = self.raw.body else { return Err(ErrorCode::BrcBadLen) };
        if zeroes.iter().any(|byte| *byte != 0) {
            return Err(ErrorCode::NxbrcMustBeZero);
        }
        self.datapath.flush_zone(u16::from_be_bytes([*high, *low]));
        Ok(Vec::new())
    }
}
