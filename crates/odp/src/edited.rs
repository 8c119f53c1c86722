//! A frame that is there, as rules have made it.

use flow::{Edit, Key, Slot, TAG_PRESENT, rewrite, slot};
use packet::{EditRoom, Frame, Open};

use crate::compose::compose;
use crate::kind::Kind;

/// The words of a key that tell what is in headers, behind those of tags.
const HEADERS: std::ops::Range<u8> = 4..20;

/// The frame, of which this was the key, with the headers that its key says now. What else there is of it stays:
/// only where other headers are in front of it, it is made anew, as long as it is.
#[must_use]
pub fn edited(frame: &[u8], was: &Key, key: &Key) -> Vec<u8> {
    let is_same = |slot| was.get(slot) == key.get(slot);
    let has_its_headers = is_same(slot::ETH_TYPE) && is_same(slot::PACKET_TYPE);
    let changed = || {
        let mut room = EditRoom::default();
        let mut editing = room.begin();
        let mut open = editing.open(&Frame::from_bytes(frame))?;
        change(&mut open, was, key).then(|| whole(&open))?
    };
    let changed = if has_its_headers { changed() } else { None };
    changed.unwrap_or_else(|| compose(key, Some(frame.len())))
}

/// All bytes of a frame.
fn whole(open: &Open<'_>) -> Option<Vec<u8>> {
    let frame = open.frame()?;
    let mut bytes = vec![0; frame.len()];
    let len = frame.copy_to(&mut bytes);
    bytes.truncate(len);
    Some(bytes)
}

/// Tags, the outermost first: kind and control information.
fn tags(key: &Key) -> impl DoubleEndedIterator<Item = (u16, u16)> {
    let places = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)];
    let all = places.map(|(tpid, tci)| (key.get_u16(tpid), key.get_u16(tci)));
    all.into_iter().filter(|(_, tci)| tci & TAG_PRESENT != 0)
}

/// Changes tags and headers; returns whether there is room for that.
fn change(frame: &mut Open<'_>, was: &Key, key: &Key) -> bool {
    if !tags(was).eq(tags(key)) {
        let pops = tags(was).map(|_| Edit::PopVlan);
        let push = |(tpid, tci): (u16, u16)| Edit::PushVlan { tpid, tci: tci & !TAG_PRESENT };
        let mut edits = pops.chain(tags(key).rev().map(push));
        if !edits.all(|edit| rewrite(&edit, frame)) {
            return false;
        }
    }
    let addresses = [slot::ETH_DST, slot::ETH_SRC].map(Slot::word);
    let addresses = addresses.into_iter().filter_map(|word| u8::try_from(word).ok());
    // Where nothing is said of the protocol, nothing behind the link layer is written, as by rules.
    let kind = Kind::of(key);
    let is_written = key.get(slot::IP_PROTO) != 0 || matches!(kind, Kind::Mpls | Kind::Nsh);
    for word in addresses.chain(HEADERS.filter(|_| is_written)) {
        let [was, value] = [was, key].map(|key| key.word(word.into()));
        let mask = was ^ value;
        if mask != 0 && !rewrite(&Edit::Set { word, mask, value: value & mask }, frame) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use flow::{Depth, extract};
    use packet::MacAddr;
    use packet::builder::FrameBuilder;
    use packet::headers::TcpFlags;

    use super::*;

    fn key(frame: &[u8]) -> Key {
        let mut key = Key::default();
        extract(&mut key, frame, frame.len(), 2, Depth::All);
        key
    }

    /// A segment with bytes that no key tells of.
    fn segment(payload: &[u8]) -> Vec<u8> {
        let [from, to] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
        let frame = FrameBuilder::new(from, to).ip([10, 0, 0, 1], [10, 0, 0, 2]);
        frame.tcp((1, 2), 77, 99, TcpFlags::ACK).payload(payload).build().unwrap()
    }

    #[test]
    fn what_a_key_does_not_tell_stays() {
        let payload: Vec<u8> = (0..=u8::MAX).rev().collect();
        let frame = segment(&payload);
        let was = key(&frame);
        assert_eq!(edited(&frame, &was, &was), frame);
        let mut now = was;
        now.set(slot::ETH_DST, 0x0200_0000_0009);
        now.set(slot::IPV4_DST, 0x0A00_0009);
        now.set(slot::TP_SRC, 4711);
        now.set(slot::IP_TTL, 9);
        now.set(slot::VLAN_TPID, 0x8100);
        now.set(slot::VLAN_TCI, u128::from(TAG_PRESENT | 7));
        now.set(slot::METADATA, 5);
        let told = edited(&frame, &was, &now);
        assert_eq!(told.len(), frame.len() + 4);
        assert_eq!(told[12..16], [0x81, 0, 0, 7]);
        assert!(told.ends_with(&payload));
        // Sequence numbers, of which a key says nothing.
        assert_eq!(told[42..50], frame[38..46]);
        now.set(slot::METADATA, 0);
        assert_eq!(key(&told), now);
        // Back again, checksums are what they were.
        assert_eq!(edited(&told, &now, &was), frame);
    }

    #[test]
    fn what_has_other_headers_in_front_is_made_anew() {
        let frame = segment(&[1; 20]);
        let was = key(&frame);
        let mut now = was;
        now.set(slot::ETH_TYPE, 0x8847);
        now.set(slot::MPLS_LSE, 0x0001_2140);
        let told = edited(&frame, &was, &now);
        assert_eq!((told.len(), &told[12..18]), (frame.len(), &[0x88, 0x47, 0, 1, 0x21, 0x40][..]));
    }
}
