//! Options of tunnels as fields.

use openflow::message::tlv_table::TlvTableMod;

use super::{Answers, Request};

impl Request<'_> {
    pub(super) fn tlv_table_mod(&mut self) -> Answers {
        self.check_role()?;
        let change = TlvTableMod::decode(self.raw.body)?;
        let crate::Bridge { tlv, tables, .. } = &mut *self.bridge;
        tlv.change(&change, tables)?;
        // What forwards has to know the options.
        self.bridge.renew();
        Ok(Vec::new())
    }

    pub(super) fn tlv_table(&self) -> Vec<Vec<u8>> {
        vec![self.bridge.tlv.table().encode(self.raw)]
    }
}
