//! Frames whose connections are tracked, and translated.

use std::sync::Arc;

use conntrack::{Conntrack, Lane, Nat, NatEnd, Request, Seen, State, Translation, dissect};
use flow::translate;
use packet::{EditRoom, Frame};

use crate::input::Input;

/// Connections that there may be.
const LIMIT: usize = 16;

/// A frame's header of the link layer.
const LINK: usize = 14;

/// Plays one input: frames, one after the other, with what is asked for each.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let all = Arc::new(Conntrack::default());
    all.set_limit(LIMIT);
    let mut lanes = [Lane::new(Arc::clone(&all)), Lane::new(Arc::clone(&all))];
    let mut now = 0;
    // Each takes at least two bytes of the input.
    while !input.is_empty() {
        let which = usize::from(input.yes());
        let request = request(&mut input);
        now += u64::from(input.byte()) * 100;
        let frame = frame(&mut input);
        if let Some(lane) = lanes.get_mut(which) {
            step(lane, &frame, &request, now);
        }
        assert!(all.count() <= LIMIT, "{}", all.count());
    }
    all.sweep(u64::MAX, usize::MAX);
    assert_eq!(all.count(), 0);
}

fn request(input: &mut Input<'_>) -> Request {
    let bits = input.byte();
    let address = |host: u8| std::net::IpAddr::from([10, 0, 0, host]);
    let end = match bits >> 4 & 3 {
        1 => Some(NatEnd::Source),
        2 => Some(NatEnd::Destination),
        _ => None,
    };
    let nat = Nat {
        end,
        addresses: (bits & 8 != 0).then(|| (address(1), address(3))),
        ports: (bits & 0x40 != 0).then_some((1, 3)),
        ..Nat::default()
    };
    Request {
        zone: (bits & 1).into(),
        commit: bits & 2 != 0,
        force: bits & 6 == 6,
        nat: (bits & 0x80 != 0).then_some(nat),
        ..Request::default()
    }
}

/// A frame of IPv4 that mostly begins well: with one of few addresses and ports.
fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let bits = input.byte();
    if bits & 0x80 != 0 {
        return input.exactly(usize::from(bits & 0x7F)).to_vec();
    }
    let protocol = [6, 17, 1, 132].get(usize::from(bits & 3)).copied().unwrap_or_default();
    let (from, to) = (bits >> 2 & 3, bits >> 4 & 3);
    let body = input.exactly(40).to_vec();
    let len = u8::try_from(20 + body.len()).unwrap_or(u8::MAX);
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, len, 0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend([10, 0, 0, from, 10, 0, 0, to]);
    frame.extend(body);
    frame
}

fn see(frame: &[u8], zone: u16) -> Option<Seen> {
    let kind = frame.get(12..LINK)?.first_chunk().copied()?;
    let packet = frame.get(LINK..)?;
    dissect(u16::from_be_bytes(kind), packet, packet.len(), zone)
}

fn step(lane: &mut Lane, frame: &[u8], request: &Request, now: u64) {
    let seen = see(frame, request.zone);
    let told = lane.all().tell(seen.as_ref(), request, now);
    let (tracked, how) = lane.translate(seen.as_ref(), request, now);
    let is_forced = request.force && told.0.state.contains(State::REPLY);
    // What nobody knows yet may have other ends by chance.
    if told.0.state.contains(State::ESTABLISHED) && tracked.state == told.0.state && !is_forced {
        assert_eq!(how, told.1, "{tracked:?}");
    }
    let Some(how) = how else { return };
    assert!(request.nat.is_some() && tracked.state.0 & 0xC0 != 0, "{tracked:?}");
    assert_eq!(Some(how.before), seen.map(|seen| *seen.tuple()));
    let Some(after) = translated(frame, &how) else { return };
    assert_eq!(after.len(), frame.len());
    // What it has become is what was said, and the way back leads back.
    assert_eq!(see(&after, request.zone).map(|seen| *seen.tuple()), Some(how.after));
    let back = Translation { before: how.after, after: how.before, ..how };
    let again = translated(&after, &back);
    assert_eq!(
        again.and_then(|again| see(&again, request.zone)).map(|seen| *seen.tuple()),
        Some(how.before)
    );
}

fn translated(frame: &[u8], how: &Translation) -> Option<Vec<u8>> {
    let mut room = EditRoom::default();
    let mut open = room.begin().open_deep(&Frame::from_bytes(frame))?;
    translate(how, &mut open).then(|| open.frame().map(|frame| frame.to_vec()))?
}
