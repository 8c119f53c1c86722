//! Meters: changes of them, what they are, and what they have done.

use std::sync::Arc;
use std::time::Duration;

use flow::{Command, MAX_BANDS, MAX_METERS, Meter, MeterRefusal, Stats};
use openflow::ErrorCode;
use openflow::message::Kind;
use openflow::message::meter::{ALL_METERS, MeterMod, MeterStats};
use openflow::message::stats::limits::MeterFeatures;
use openflow::wire::Reader;

use super::{Answers, Request};

/// Bits of the bands that there are: drop, and DSCP remark.
const BANDS: u32 = 1 << 1 | 1 << 2;

/// Kilobits and packets per second, bursts, statistics.
const CAPABILITIES: u32 = 0xF;

impl Request<'_> {
    pub(super) fn meter_answer(&mut self) -> Answers {
        match self.raw.kind {
            Kind::MeterMod => self.meter_mod(),
            Kind::MeterStatsRequest => self.meter_stats(),
            Kind::MeterConfigRequest => self.meter_configs(),
            _ => Ok(self.meter_features()),
        }
    }

    fn meter_mod(&mut self) -> Answers {
        self.check_role()?;
        let change = MeterMod::decode(self.raw)?;
        let now = self.datapath.now();
        let outcome = self.bridge.tables.change_meter(&change, now).map_err(refusal)?;
        self.made(&outcome, Command::Delete, now);
        self.bridge.forward_meters(&change, self.raw.xid, self.id);
        Ok(Vec::new())
    }

    /// Those that are asked for: one, which has to be there, or all.
    fn asked_meters(&self) -> Result<Vec<&Arc<Meter>>, ErrorCode> {
        let meters = self.bridge.tables.meters();
        match Reader::new(self.raw.body).u32()? {
            ALL_METERS => Ok(meters.iter().collect()),
            id => Ok(vec![meters.get(id).ok_or(ErrorCode::MmfcUnknownMeter)?]),
        }
    }

    fn meter_stats(&mut self) -> Answers {
        self.bridge.count(self.datapath);
        let now = self.datapath.now();
        let mut replies = self.replies(Kind::MeterStatsReply);
        for meter in self.asked_meters()? {
            let counts = |stats: &Stats| (stats.packets(), stats.bytes());
            let id = meter.desc.id;
            let stats = MeterStats {
                id,
                flows: self.bridge.tables.meter_uses(id),
                counts: counts(&meter.stats.seen),
                duration: Duration::from_millis(now.saturating_sub(meter.created)),
                bands: meter.stats.bands.iter().map(counts).collect(),
            };
            replies.entry(|out| stats.encode(out));
        }
        Ok(replies.finish())
    }

    fn meter_configs(&self) -> Answers {
        let mut replies = self.replies(Kind::MeterConfigReply);
        for meter in self.asked_meters()? {
            replies.entry(|out| meter.desc.encode(out));
        }
        Ok(replies.finish())
    }

    fn meter_features(&self) -> Vec<Vec<u8>> {
        let features = MeterFeatures {
            max_meters: u32::try_from(MAX_METERS).unwrap_or(u32::MAX),
            band_types: BANDS,
            capabilities: CAPABILITIES,
            max_bands: u8::try_from(MAX_BANDS).unwrap_or(u8::MAX),
            max_color: 0,
        };
        self.stats_reply(Kind::MeterFeaturesReply, |out| features.encode(out))
    }
}

/// The errors that Open vSwitch has for what is refused.
fn refusal(why: MeterRefusal) -> ErrorCode {
    tracing::debug!("a change of meters is refused: {why}");
    match why {
        MeterRefusal::BadNumber => ErrorCode::MmfcInvalidMeter,
        MeterRefusal::Exists(_) => ErrorCode::MmfcMeterExists,
        MeterRefusal::Unknown(_) => ErrorCode::MmfcUnknownMeter,
        MeterRefusal::Full => ErrorCode::MmfcOutOfMeters,
        MeterRefusal::TooManyBands => ErrorCode::MmfcOutOfBands,
        MeterRefusal::BadFlags => ErrorCode::MmfcBadFlags,
        MeterRefusal::BadRate => ErrorCode::MmfcBadRate,
    }
}
