//! A whole front-end message: its payload and file descriptors, checked together.

use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use eal::PeerFd;

use super::payload::PayloadBuf;
use super::{
    ConfigSpace, FrontendRequest, InflightRegion, IotlbMessage, LogBase, MAX_FDS,
    MAX_TABLE_REGIONS, MemoryRegion, Payload, ProtocolError, StateTransfer, VringAddr, VringFile,
    VringState,
};

/// A message from the front-end. `F` is [`PeerFd`] in what was received, and may be
/// [`BorrowedFd`] in what is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented at the variants of FrontendRequest")]
pub enum FrontendMessage<F> {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemTable(ArrayVec<(MemoryRegion, F), MAX_TABLE_REGIONS>),
    SetLogBase(LogBase, F),
    SetLogFd(F),
    SetVringNum(VringState),
    SetVringAddr(VringAddr),
    SetVringBase(VringState),
    GetVringBase(VringState),
    SetVringKick(VringFile<F>),
    SetVringCall(VringFile<F>),
    SetVringErr(VringFile<F>),
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNum,
    SetVringEnable(VringState),
    SendRarp(u64),
    NetSetMtu(u64),
    SetBackendReqFd(F),
    IotlbMsg(IotlbMessage),
    GetConfig(ConfigSpace),
    SetConfig(ConfigSpace),
    PostcopyAdvise,
    PostcopyListen,
    PostcopyEnd,
    GetInflightFd(InflightRegion),
    SetInflightFd(InflightRegion, F),
    ResetDevice,
    VringKick(VringState),
    GetMaxMemSlots,
    AddMemReg(MemoryRegion, F),
    RemMemReg(MemoryRegion),
    SetStatus(u64),
    GetStatus,
    SetDeviceStateFd(StateTransfer, F),
    CheckDeviceState,
}

impl<F> FrontendMessage<F> {
    /// Which message it is.
    #[must_use]
    pub const fn request(&self) -> FrontendRequest {
        use FrontendRequest as R;
        match self {
            Self::GetFeatures => R::GetFeatures,
            Self::SetFeatures(_) => R::SetFeatures,
            Self::SetOwner => R::SetOwner,
            Self::ResetOwner => R::ResetOwner,
            Self::SetMemTable(_) => R::SetMemTable,
            Self::SetLogBase(..) => R::SetLogBase,
            Self::SetLogFd(_) => R::SetLogFd,
            Self::SetVringNum(_) => R::SetVringNum,
            Self::SetVringAddr(_) => R::SetVringAddr,
            Self::SetVringBase(_) => R::SetVringBase,
            Self::GetVringBase(_) => R::GetVringBase,
            Self::SetVringKick(_) => R::SetVringKick,
            Self::SetVringCall(_) => R::SetVringCall,
            Self::SetVringErr(_) => R::SetVringErr,
            Self::GetProtocolFeatures => R::GetProtocolFeatures,
            Self::SetProtocolFeatures(_) => R::SetProtocolFeatures,
            Self::GetQueueNum => R::GetQueueNum,
            Self::SetVringEnable(_) => R::SetVringEnable,
            Self::SendRarp(_) => R::SendRarp,
            Self::NetSetMtu(_) => R::NetSetMtu,
            Self::SetBackendReqFd(_) => R::SetBackendReqFd,
            Self::IotlbMsg(_) => R::IotlbMsg,
            Self::GetConfig(_) => R::GetConfig,
            Self::SetConfig(_) => R::SetConfig,
            Self::PostcopyAdvise => R::PostcopyAdvise,
            Self::PostcopyListen => R::PostcopyListen,
            Self::PostcopyEnd => R::PostcopyEnd,
            Self::GetInflightFd(_) => R::GetInflightFd,
            Self::SetInflightFd(..) => R::SetInflightFd,
            Self::ResetDevice => R::ResetDevice,
            Self::VringKick(_) => R::VringKick,
            Self::GetMaxMemSlots => R::GetMaxMemSlots,
            Self::AddMemReg(..) => R::AddMemReg,
            Self::RemMemReg(_) => R::RemMemReg,
            Self::SetStatus(_) => R::SetStatus,
            Self::GetStatus => R::GetStatus,
            Self::SetDeviceStateFd(..) => R::SetDeviceStateFd,
            Self::CheckDeviceState => R::CheckDeviceState,
        }
    }

    /// Its payload as bytes.
    #[must_use]
    pub fn payload(&self) -> PayloadBuf {
        match self {
            Self::SetFeatures(value)
            | Self::SetProtocolFeatures(value)
            | Self::SendRarp(value)
            | Self::NetSetMtu(value)
            | Self::SetStatus(value) => value.encode(),
            Self::SetMemTable(regions) => {
                let regions: ArrayVec<_, MAX_TABLE_REGIONS> =
                    regions.iter().map(|(region, _)| *region).collect();
                table_payload(&regions)
            }
            Self::SetLogBase(log, _) => log.encode(),
            Self::SetVringNum(state)
            | Self::SetVringBase(state)
            | Self::GetVringBase(state)
            | Self::SetVringEnable(state)
            | Self::VringKick(state) => state.encode(),
            Self::SetVringAddr(addr) => addr.encode(),
            Self::IotlbMsg(message) => message.encode(),
            Self::SetVringKick(file) | Self::SetVringCall(file) | Self::SetVringErr(file) => {
                file.value().encode()
            }
            Self::AddMemReg(region, _) | Self::RemMemReg(region) => {
                let mut out = 0_u64.encode();
                region.put(&mut out);
                out
            }
            Self::GetConfig(part) | Self::SetConfig(part) => part.encode(),
            Self::GetInflightFd(region) | Self::SetInflightFd(region, _) => region.encode(),
            Self::SetDeviceStateFd(transfer, _) => transfer.encode(),
            Self::GetFeatures
            | Self::SetOwner
            | Self::ResetOwner
            | Self::SetLogFd(_)
            | Self::GetProtocolFeatures
            | Self::GetQueueNum
            | Self::SetBackendReqFd(_)
            | Self::PostcopyAdvise
            | Self::PostcopyListen
            | Self::PostcopyEnd
            | Self::ResetDevice
            | Self::GetMaxMemSlots
            | Self::GetStatus
            | Self::CheckDeviceState => PayloadBuf::new(),
        }
    }
}

impl<F: AsFd> FrontendMessage<F> {
    /// The descriptors that go with it, in order.
    pub fn fds(&self) -> ArrayVec<BorrowedFd<'_>, MAX_FDS> {
        match self {
            Self::SetMemTable(regions) => regions.iter().map(|(_, fd)| fd.as_fd()).collect(),
            Self::SetLogBase(_, fd)
            | Self::SetLogFd(fd)
            | Self::SetBackendReqFd(fd)
            | Self::SetInflightFd(_, fd)
            | Self::SetDeviceStateFd(_, fd)
            | Self::AddMemReg(_, fd) => std::iter::once(fd.as_fd()).collect(),
            Self::SetVringKick(file) | Self::SetVringCall(file) | Self::SetVringErr(file) => {
                file.fd.iter().map(AsFd::as_fd).collect()
            }
            _ => ArrayVec::new(),
        }
    }
}

impl FrontendMessage<PeerFd> {
    /// The message that a header with `number`, a payload and its descriptors make up. Whatever
    /// is wrong with it, all descriptors that it does not keep are closed.
    ///
    /// # Errors
    /// When the request is unknown, or payload or descriptors are not what it asks for.
    pub fn decode(
        number: u32,
        payload: &[u8],
        fds: ArrayVec<PeerFd, MAX_FDS>,
    ) -> Result<Self, ProtocolError> {
        use FrontendRequest as R;
        let request = FrontendRequest::try_from(number)?;
        let name = request.name();
        let fds = Fds { request: name, fds };
        let message = match request {
            R::SetMemTable => return decode_table(payload, fds),
            R::SetLogBase => {
                return Ok(Self::SetLogBase(Payload::decode(name, payload)?, fds.one()?));
            }
            R::SetLogFd => {
                empty(name, payload)?;
                return Ok(Self::SetLogFd(fds.one()?));
            }
            R::SetBackendReqFd => {
                empty(name, payload)?;
                return Ok(Self::SetBackendReqFd(fds.one()?));
            }
            R::SetInflightFd => {
                let region = InflightRegion::decode(name, payload)?;
                return Ok(Self::SetInflightFd(region, fds.one()?));
            }
            R::SetDeviceStateFd => {
                let transfer = Payload::decode(name, payload)?;
                return Ok(Self::SetDeviceStateFd(transfer, fds.one()?));
            }
            R::SetVringKick => return Ok(Self::SetVringKick(decode_file(payload, fds)?)),
            R::SetVringCall => return Ok(Self::SetVringCall(decode_file(payload, fds)?)),
            R::SetVringErr => return Ok(Self::SetVringErr(decode_file(payload, fds)?)),
            R::AddMemReg => {
                return Ok(Self::AddMemReg(decode_region(name, payload)?, fds.one()?));
            }
            R::RemMemReg => {
                // Some front-ends send the region's descriptor along; it is closed.
                fds.none_or_one()?;
                return Ok(Self::RemMemReg(decode_region(name, payload)?));
            }
            R::SetFeatures => Self::SetFeatures(Payload::decode(name, payload)?),
            R::SetVringNum => Self::SetVringNum(Payload::decode(name, payload)?),
            R::SetVringAddr => Self::SetVringAddr(Payload::decode(name, payload)?),
            R::SetVringBase => Self::SetVringBase(Payload::decode(name, payload)?),
            R::GetVringBase => Self::GetVringBase(Payload::decode(name, payload)?),
            R::SetProtocolFeatures => Self::SetProtocolFeatures(Payload::decode(name, payload)?),
            R::SetVringEnable => Self::SetVringEnable(Payload::decode(name, payload)?),
            R::VringKick => Self::VringKick(Payload::decode(name, payload)?),
            R::SendRarp => Self::SendRarp(Payload::decode(name, payload)?),
            R::IotlbMsg => Self::IotlbMsg(Payload::decode(name, payload)?),
            R::GetConfig => Self::GetConfig(ConfigSpace::decode(name, payload)?),
            R::SetConfig => Self::SetConfig(ConfigSpace::decode(name, payload)?),
            R::GetInflightFd => Self::GetInflightFd(InflightRegion::decode(name, payload)?),
            R::NetSetMtu => Self::NetSetMtu(Payload::decode(name, payload)?),
            R::SetStatus => Self::SetStatus(Payload::decode(name, payload)?),
            R::GetFeatures => empty(name, payload).map(|()| Self::GetFeatures)?,
            R::SetOwner => empty(name, payload).map(|()| Self::SetOwner)?,
            R::ResetOwner => empty(name, payload).map(|()| Self::ResetOwner)?,
            R::GetProtocolFeatures => empty(name, payload).map(|()| Self::GetProtocolFeatures)?,
            R::GetQueueNum => empty(name, payload).map(|()| Self::GetQueueNum)?,
            R::PostcopyAdvise => empty(name, payload).map(|()| Self::PostcopyAdvise)?,
            R::PostcopyListen => empty(name, payload).map(|()| Self::PostcopyListen)?,
            R::PostcopyEnd => empty(name, payload).map(|()| Self::PostcopyEnd)?,
            R::ResetDevice => empty(name, payload).map(|()| Self::ResetDevice)?,
            R::GetMaxMemSlots => empty(name, payload).map(|()| Self::GetMaxMemSlots)?,
            R::GetStatus => empty(name, payload).map(|()| Self::GetStatus)?,
            R::CheckDeviceState => empty(name, payload).map(|()| Self::CheckDeviceState)?,
        };
        fds.none()?;
        Ok(message)
    }
}

/// The payload of SET_MEM_TABLE with these regions, of which the first [`MAX_TABLE_REGIONS`] count.
pub(crate) fn table_payload(regions: &[MemoryRegion]) -> PayloadBuf {
    let regions = regions.get(..MAX_TABLE_REGIONS).unwrap_or(regions);
    let mut out = PayloadBuf::new();
    u32::try_from(regions.len()).unwrap_or(u32::MAX).put(&mut out);
    0_u32.put(&mut out);
    regions.iter().for_each(|region| region.put(&mut out));
    out
}

pub(super) fn empty(request: &'static str, payload: &[u8]) -> Result<(), ProtocolError> {
    match payload.len() {
        0 => Ok(()),
        got => Err(ProtocolError::PayloadSize { request, got, expected: 0 }),
    }
}

fn decode_region(request: &'static str, payload: &[u8]) -> Result<MemoryRegion, ProtocolError> {
    let mut rest = payload;
    match (u64::take(&mut rest), MemoryRegion::take(&mut rest)) {
        (Some(_padding), Some(region)) if rest.is_empty() => Ok(region),
        _ => {
            let expected = u64::SIZE + MemoryRegion::SIZE;
            Err(ProtocolError::PayloadSize { request, got: payload.len(), expected })
        }
    }
}

fn decode_table(payload: &[u8], fds: Fds) -> Result<FrontendMessage<PeerFd>, ProtocolError> {
    let mut rest = payload;
    let wrong_size = |expected| ProtocolError::PayloadSize {
        request: fds.request,
        got: payload.len(),
        expected,
    };
    let (Some(count), Some(_padding)) = (u32::take(&mut rest), u32::take(&mut rest)) else {
        return Err(wrong_size(8));
    };
    let len = usize::try_from(count).unwrap_or(usize::MAX);
    if len > MAX_TABLE_REGIONS {
        return Err(ProtocolError::TooManyRegions(count));
    }
    let mut regions = ArrayVec::<MemoryRegion, MAX_TABLE_REGIONS>::new();
    for _ in 0..len {
        regions.extend(MemoryRegion::take(&mut rest));
    }
    // User Mode Linux sends its whole array of regions, used or not, and so may others: what
    // comes behind those that count is ignored, if it is no more than a table can have.
    let unused = rest.len() / MemoryRegion::SIZE;
    let whole = rest.len().is_multiple_of(MemoryRegion::SIZE);
    if regions.len() != len || !whole || len.saturating_add(unused) > MAX_TABLE_REGIONS {
        return Err(wrong_size(8 + len * MemoryRegion::SIZE));
    }
    let fds = fds.exactly(len)?;
    Ok(FrontendMessage::SetMemTable(regions.into_iter().zip(fds).collect()))
}

fn decode_file(payload: &[u8], fds: Fds) -> Result<VringFile<PeerFd>, ProtocolError> {
    let request = fds.request;
    let value = u64::decode(request, payload)?;
    let Ok(index) = u8::try_from(value & !VringFile::<PeerFd>::NO_FD) else {
        return Err(ProtocolError::VringFile { request, value });
    };
    let fd = if value & VringFile::<PeerFd>::NO_FD == 0 {
        Some(fds.one()?)
    } else {
        fds.none()?;
        None
    };
    Ok(VringFile { index, fd })
}

/// The descriptors of a message, whose number has yet to be checked.
pub(super) struct Fds {
    pub(super) request: &'static str,
    pub(super) fds: ArrayVec<PeerFd, MAX_FDS>,
}

impl Fds {
    fn wrong(&self, expected: usize) -> ProtocolError {
        ProtocolError::FdCount { request: self.request, got: self.fds.len(), expected }
    }

    fn exactly(self, expected: usize) -> Result<ArrayVec<PeerFd, MAX_FDS>, ProtocolError> {
        if self.fds.len() == expected { Ok(self.fds) } else { Err(self.wrong(expected)) }
    }

    pub(super) fn none(self) -> Result<(), ProtocolError> {
        self.exactly(0).map(drop)
    }

    pub(super) fn one(mut self) -> Result<PeerFd, ProtocolError> {
        let error = self.wrong(1);
        match (self.fds.pop(), self.fds.is_empty()) {
            (Some(fd), true) => Ok(fd),
            _ => Err(error),
        }
    }

    fn none_or_one(self) -> Result<(), ProtocolError> {
        if self.fds.len() <= 1 { Ok(()) } else { Err(self.wrong(1)) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn fds(count: usize) -> ArrayVec<PeerFd, MAX_FDS> {
        (0..count).map(|_| crate::testing::null().into()).collect()
    }

    fn fd() -> PeerFd {
        fds(1).pop().unwrap()
    }

    fn samples() -> Vec<FrontendMessage<PeerFd>> {
        use FrontendMessage as M;
        let state = VringState { index: 1, num: 256 };
        let region = MemoryRegion { guest_addr: 1, size: 2, user_addr: 3, mmap_offset: 4 };
        let bytes = [1, 2, 3].into_iter().collect();
        let part = ConfigSpace { offset: 4, flags: ConfigSpace::MIGRATION, bytes };
        let with = |index| VringFile { index, fd: Some(fd()) };
        let without = |index| VringFile { index, fd: None };
        vec![
            M::GetFeatures,
            M::SetFeatures(1 << 30),
            M::SetOwner,
            M::ResetOwner,
            M::SetMemTable((0..3).map(|_| (region, fd())).collect()),
            M::SetLogBase(LogBase { size: 4096, offset: 0 }, fd()),
            M::SetLogFd(fd()),
            M::SetVringNum(state),
            M::SetVringAddr(VringAddr { index: 1, desc: 4096, ..VringAddr::default() }),
            M::SetVringBase(state),
            M::GetVringBase(state),
            M::SetVringKick(with(3)),
            M::SetVringCall(without(255)),
            M::SetVringErr(with(0)),
            M::GetProtocolFeatures,
            M::SetProtocolFeatures(0xff),
            M::GetQueueNum,
            M::SetVringEnable(state),
            M::SendRarp(0x5452),
            M::NetSetMtu(1500),
            M::SetBackendReqFd(fd()),
            M::IotlbMsg(IotlbMessage { kind: IotlbMessage::UPDATE, ..Default::default() }),
            M::GetConfig(part.clone()),
            M::SetConfig(part),
            M::PostcopyAdvise,
            M::PostcopyListen,
            M::PostcopyEnd,
            M::GetInflightFd(InflightRegion { rings: 2, entries: 256, ..Default::default() }),
            M::SetInflightFd(InflightRegion { size: 1, offset: 2, rings: 3, entries: 4 }, fd()),
            M::ResetDevice,
            M::VringKick(state),
            M::GetMaxMemSlots,
            M::AddMemReg(region, fd()),
            M::RemMemReg(region),
            M::SetStatus(7),
            M::GetStatus,
            M::SetDeviceStateFd(StateTransfer { direction: 1, phase: 0 }, fd()),
            M::CheckDeviceState,
        ]
    }

    #[test]
    fn every_message_goes_both_ways() {
        let samples = samples();
        assert!(
            samples.iter().map(FrontendMessage::request).eq(FrontendRequest::ALL.iter().copied())
        );
        for message in samples {
            let number = message.request().number();
            let (payload, raw) = (message.payload(), format!("{message:?}"));
            let fds = match message {
                FrontendMessage::SetMemTable(regions) => {
                    regions.into_iter().map(|(_, fd)| fd).collect()
                }
                FrontendMessage::SetLogBase(_, fd)
                | FrontendMessage::SetLogFd(fd)
                | FrontendMessage::SetBackendReqFd(fd)
                | FrontendMessage::SetInflightFd(_, fd)
                | FrontendMessage::SetDeviceStateFd(_, fd)
                | FrontendMessage::AddMemReg(_, fd) => std::iter::once(fd).collect(),
                FrontendMessage::SetVringKick(file)
                | FrontendMessage::SetVringCall(file)
                | FrontendMessage::SetVringErr(file) => file.fd.into_iter().collect(),
                _ => ArrayVec::new(),
            };
            let numbers: Vec<_> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
            let decoded = FrontendMessage::decode(number, &payload, fds).unwrap();
            assert_eq!(format!("{decoded:?}"), raw);
            let sent: Vec<_> = decoded.fds().iter().map(AsRawFd::as_raw_fd).collect();
            assert_eq!(sent, numbers);
        }
    }

    #[test]
    fn every_message_checks_its_payload_size() {
        for message in samples() {
            let payload = message.payload();
            let decode = |bytes: &[u8]| {
                let fds = fds(message.fds().len());
                FrontendMessage::decode(message.request().number(), bytes, fds)
            };
            let longer = [&payload[..], &[0]].concat();
            let error = decode(&longer).unwrap_err();
            assert!(matches!(error, ProtocolError::PayloadSize { .. }), "{error}");
            if let Some(shorter) = payload.len().checked_sub(1) {
                let error = decode(&payload[..shorter]).unwrap_err();
                assert!(matches!(error, ProtocolError::PayloadSize { .. }), "{error}");
            }
        }
    }

    #[test]
    fn every_message_checks_its_descriptors() {
        for message in samples() {
            let payload = message.payload();
            for count in 0..=MAX_FDS {
                let ok = match message.request() {
                    FrontendRequest::RemMemReg => count <= 1,
                    _ => count == message.fds().len(),
                };
                let number = message.request().number();
                let decoded = FrontendMessage::decode(number, &payload, fds(count));
                match decoded {
                    Ok(_) => assert!(ok, "{} with {count}", message.request().name()),
                    Err(ProtocolError::FdCount { got, .. }) => {
                        assert!(!ok, "{} with {count}", message.request().name());
                        assert_eq!(got, count);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    #[test]
    fn a_table_has_eight_regions_at_most() {
        let mut payload = [0; 8 + 9 * 32];
        payload[..4].copy_from_slice(&9_u32.to_ne_bytes());
        let decoded = FrontendMessage::decode(5, &payload, fds(8));
        assert_eq!(decoded.unwrap_err(), ProtocolError::TooManyRegions(9));
        payload[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        let decoded = FrontendMessage::decode(5, &payload, fds(8));
        assert_eq!(decoded.unwrap_err(), ProtocolError::TooManyRegions(u32::MAX));
    }

    #[test]
    fn unused_places_of_a_table_are_ignored() {
        // As User Mode Linux sends it: room for two regions, of which one counts.
        let region = MemoryRegion { guest_addr: 1, size: 2, user_addr: 3, mmap_offset: 4 };
        let mut payload =
            FrontendMessage::SetMemTable([(region, fd())].into_iter().collect()).payload().to_vec();
        payload.resize(8 + 2 * 32, 0xa5);
        let decoded = FrontendMessage::decode(5, &payload, fds(1)).unwrap();
        assert!(matches!(decoded, FrontendMessage::SetMemTable(table) if table[..].len() == 1
                && table[0].0 == region));
        // Its descriptors are those of the regions that count.
        assert!(matches!(
            FrontendMessage::decode(5, &payload, fds(2)),
            Err(ProtocolError::FdCount { got: 2, expected: 1, .. })
        ));
        // A table of eight, all unused but one, is the longest.
        for (places, fits) in [(8, true), (9, false)] {
            payload.resize(8 + places * 32, 0);
            assert_eq!(FrontendMessage::decode(5, &payload, fds(1)).is_ok(), fits, "{places}");
        }
    }

    #[test]
    fn ring_files_have_no_other_bits() {
        for value in [0x200_u64, 0x1_0000, 1 << 63, 0x300] {
            let decoded = FrontendMessage::decode(12, &value.to_ne_bytes(), fds(1));
            let request = "SET_VRING_KICK";
            assert_eq!(decoded.unwrap_err(), ProtocolError::VringFile { request, value });
        }
    }
}
