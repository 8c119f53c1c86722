//! Meters, as controllers set them, ask for them and hear of them.

use openflow::message::meter::{ALL_METERS, Band, Meter, MeterCommand, MeterMod, MeterStats};
use openflow::message::stats::limits::MeterFeatures;

use super::*;

fn meter_mod(version: Version, command: MeterCommand, id: u32, rate: u32) -> Vec<u8> {
    let bands = vec![Band { remark: None, rate, burst: 9 }];
    MeterMod { command, meter: Meter { id, flags: 5, bands } }.encode(version, 1)
}

fn request(version: Version, kind: Kind, id: u32) -> Vec<u8> {
    let mut request = Message::new(version, kind, 9);
    request.body().u32(id);
    request.body().u32(0);
    request.finish()
}

#[test]
fn meters_are_set_told_and_go_with_their_rules() {
    for version in [Version::V13, Version::V14, Version::V15] {
        let (mut bridge, id) = connected(version, Origin::Service);
        let controller = join(&mut bridge, version, Origin::Controller);
        let mut asked = |message: &[u8]| ask(&mut bridge, id, message);
        let mut change = |command, id, rate| asked(&meter_mod(version, command, id, rate));
        assert!(change(MeterCommand::Add, 5, 100).is_empty());
        assert_eq!(error(&change(MeterCommand::Add, 5, 100)), ErrorCode::MmfcMeterExists);
        assert_eq!(error(&change(MeterCommand::Add, 0, 100)), ErrorCode::MmfcInvalidMeter);
        assert_eq!(error(&change(MeterCommand::Add, 6, 0)), ErrorCode::MmfcBadRate);
        assert!(change(MeterCommand::Modify, 5, 200).is_empty());
        assert_eq!(error(&change(MeterCommand::Modify, 7, 9)), ErrorCode::MmfcUnknownMeter);
        let rule = |id| {
            let instructions =
                Instructions::apply(vec![Action::Meter(id), Action::output(PortNo(1))]);
            let add = flow_mod(version, Command::Add, 3);
            FlowMod { instructions, ..add }.encode(version, Form::Of, false, 2)
        };
        assert_eq!(error(&asked(&rule(7))), ErrorCode::MmfcInvalidMeter);
        assert!(asked(&rule(5)).is_empty());

        let answers = asked(&request(version, Kind::MeterConfigRequest, ALL_METERS));
        let meters = Meter::decode_all(&Raw::read(&answers[0]).unwrap()).unwrap();
        assert_eq!((meters.len(), meters[0].id, meters[0].bands[0].rate), (1, 5, 200));
        let answers = asked(&request(version, Kind::MeterStatsRequest, 5));
        let stats = MeterStats::decode_all(&Raw::read(&answers[0]).unwrap()).unwrap();
        assert_eq!((stats.len(), stats[0].flows, &stats[0].bands[..]), (1, 1, &[(0, 0)][..]));
        let unknown = asked(&request(version, Kind::MeterStatsRequest, 7));
        assert_eq!(error(&unknown), ErrorCode::MmfcUnknownMeter);
        let answers = asked(&Message::new(version, Kind::MeterFeaturesRequest, 9).finish());
        let features = MeterFeatures::decode(Raw::read(&answers[0]).unwrap().body).unwrap();
        assert_eq!((features.max_bands, features.band_types), (8, 6));

        assert!(asked(&meter_mod(version, MeterCommand::Delete, ALL_METERS, 1)).is_empty());
        assert!(bridge.tables.is_empty() && bridge.tables.meters().is_empty());
        let told = sent(&mut bridge, controller);
        let told = told.iter().map(|told| FlowRemoved::decode(&Raw::read(told).unwrap()).unwrap());
        let reasons: Vec<RemovedReason> = told.map(|told| told.reason).collect();
        // Whoever speaks an older version has not heard that there is such a reason.
        let count = usize::from(version >= Version::V14);
        assert_eq!(reasons, vec![RemovedReason::METER_DELETE; count]);
    }
}
