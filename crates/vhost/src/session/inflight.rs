//! The region in which the device records the chains that it has in flight (GET_INFLIGHT_FD,
//! SET_INFLIGHT_FD; chapter "Inflight I/O tracking").
//!
//! We make it, and the front-end keeps it: when we are gone it hands it to whoever comes next.
//! A ring that is stopped in an orderly way needs it no more, since the front-end is told where the
//! ring was; so what it says of that ring is taken back.

use std::os::fd::AsFd;
use std::sync::Arc;

use eal::{Mapping, PeerFd};
use virtio::Features;
use virtio::inflight::{ALIGN, InflightArea, Layout};

use super::{Reply, Session, SessionError};
use crate::protocol::{FrontendRequest, InflightRegion};

/// Largest size of a ring (virtio 1.3 sections 2.7 and 2.8).
const MAX_ENTRIES: u16 = 32_768;

/// The region of a session, if it has one.
#[derive(Debug, Default)]
pub(super) struct InflightState {
    region: Option<(InflightRegion, Arc<Mapping>)>,
}

/// The layout for rings with these features.
fn layout(features: u64) -> Layout {
    if features & Features::RING_PACKED.bits() != 0 { Layout::Packed } else { Layout::Split }
}

impl InflightState {
    /// The area of ring `index`, with these features and `size` entries; `None` where there is no
    /// region, or not for this ring.
    pub(super) fn area(
        &self,
        index: u16,
        size: u16,
        features: u64,
    ) -> Result<Option<InflightArea>, SessionError> {
        let Some((region, map)) = &self.region else { return Ok(None) };
        if index >= region.rings {
            return Ok(None);
        }
        // The format may have been chosen since the region came, and then it may be too small.
        let layout = layout(features);
        let whole = layout.region_bytes(region.rings, region.entries) <= map.len();
        let area = InflightArea::new(Arc::clone(map), layout, index, region.entries);
        let area = area.filter(|area| whole && area.entries() >= size);
        let InflightRegion { entries, size: bytes, .. } = *region;
        area.map(Some).ok_or(SessionError::InflightArea { index, size, entries, bytes })
    }

    /// Takes back what is recorded of ring `index`: the front-end is told where it was, or it
    /// starts anew.
    pub(super) fn forget(&self, index: u16, features: u64) {
        if let Ok(Some(area)) = self.area(index, 0, features) {
            area.forget();
        }
    }
}

impl Session {
    /// Makes a region for the front-end to keep.
    pub(super) fn get_inflight(&mut self, asked: InflightRegion) -> Result<Reply, SessionError> {
        let request = FrontendRequest::GetInflightFd;
        self.check_inflight(request, asked)?;
        let InflightRegion { rings, entries, .. } = asked;
        // Where the format is not known yet, it has room for either.
        let features = self.features.unwrap_or(Features::RING_PACKED.bits());
        let bytes = layout(features).region_bytes(rings, entries) as u64;
        let file = eal::mem::memory_file(c"ringway-inflight", bytes)
            .map_err(|source| SessionError::Inflight { request: request.name(), source })?;
        self.attached = Some(file);
        Ok(Reply::Inflight(InflightRegion { size: bytes, offset: 0, rings, entries }))
    }

    /// Takes the region that the front-end has kept.
    pub(super) fn set_inflight(
        &mut self,
        region: InflightRegion,
        fd: &PeerFd,
    ) -> Result<(), SessionError> {
        let request = FrontendRequest::SetInflightFd;
        self.check_inflight(request, region)?;
        self.check_stopped(request.name())?;
        let aligned = region.offset.is_multiple_of(ALIGN as u64);
        let needed = layout(self.features.unwrap_or(0)).region_bytes(region.rings, region.entries);
        if !aligned || region.size < needed as u64 {
            let InflightRegion { size, offset, .. } = region;
            let needed = needed as u64;
            return Err(SessionError::InflightPlace { size, offset, needed });
        }
        // The format may still be chosen; more is of no use in either.
        let most = Layout::Packed.region_bytes(region.rings, region.entries) as u64;
        let map = Mapping::map(fd.as_fd(), region.offset, region.size.min(most))
            .map_err(|source| SessionError::MapInflight { source })?
            .closed_by(fd.closer());
        self.inflight.region = Some((region, Arc::new(map)));
        Ok(())
    }

    /// Refuses numbers of rings and entries that no device of ours has.
    fn check_inflight(
        &self,
        request: FrontendRequest,
        region: InflightRegion,
    ) -> Result<(), SessionError> {
        let value = |what, value: u16, expected| {
            Err(SessionError::Value {
                request: request.name(),
                what,
                value: value.into(),
                expected,
            })
        };
        if region.rings == 0 || usize::from(region.rings) > self.rings.len() {
            return value(
                "the number of rings",
                region.rings,
                "1 to the number of rings there are",
            );
        }
        if !(1..=MAX_ENTRIES).contains(&region.entries) {
            return value("the size of a ring", region.entries, "1 to 32768 entries");
        }
        Ok(())
    }

    /// Takes back what is recorded of all rings.
    pub(super) fn forget_inflight(&self) {
        let features = self.features.unwrap_or(0);
        for (index, _) in (0..).zip(&self.rings) {
            self.inflight.forget(index, features);
        }
    }
}
