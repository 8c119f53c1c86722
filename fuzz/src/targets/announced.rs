//! Control connections of FTP and TFTP, whose sides say what they like of connections to come.

use std::net::IpAddr;
use std::sync::Arc;

use conntrack::{Conntrack, Helper, Lane, Nat, NatEnd, Request, Seen, State, carried, dissect};
use flow::{adjust, translate};
use packet::headers::TcpFlags;
use packet::{EditRoom, Frame, MacAddr, builder::FrameBuilder};

use crate::input::Input;

/// A frame's header of the link layer.
const LINK: usize = 14;

const CLIENT: u8 = 1;
const SERVER: u8 = 2;

/// What messages begin with that may be looked at.
const WORDS: [&str; 8] =
    ["PORT ", "EPRT |1|", "227 (", "229 (|||", "PORT 10,0,0,1,", "227 (10,0,0,2,", "\0\x01", ""];

/// The world: two hosts, of which one may have another address for the other one.
struct Play {
    all: Arc<Conntrack>,
    lane: Lane,
    request: Request,
    is_tcp: bool,
    /// Where each side's stream is: its own numbers.
    sent: [u32; 2],
}

/// Plays one input: one connection, and what both sides say.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let bits = input.byte();
    let end = match bits & 3 {
        1 => Some(NatEnd::Source),
        2 => Some(NatEnd::Destination),
        _ => None,
    };
    let other = host(if bits & 4 == 0 { 9 } else { 240 });
    let nat = Nat { end, addresses: end.map(|_| (other, other)), ..Nat::default() };
    let is_tcp = bits & 8 == 0;
    let helper = Some(if is_tcp { Helper::Ftp } else { Helper::Tftp });
    let request = Request { commit: true, nat: Some(nat), helper, ..Request::default() };
    let all = Arc::new(Conntrack::default());
    let lane = Lane::new(Arc::clone(&all));
    let mut play = Play { all, lane, request, is_tcp, sent: [100, 900] };
    play.say(false, TcpFlags::SYN, b"");
    play.say(true, TcpFlags::SYN | TcpFlags::ACK, b"");
    while !input.is_empty() {
        let is_back = input.yes();
        let word = input.pick(&WORDS);
        let text = [word.as_bytes(), input.bytes()].concat();
        let before = play.sent;
        play.say(is_back, TcpFlags::ACK | TcpFlags::PSH, &text);
        if input.yes() {
            // It gets lost, and comes again.
            play.sent = before;
        }
        let port = input.number();
        play.come(port);
    }
    play.all.flush(None);
    play.all.sweep(0, usize::MAX);
    assert_eq!(play.all.count(), 0);
}

fn host(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

fn see(frame: &[u8]) -> Option<Seen> {
    let packet = frame.get(LINK..)?;
    dissect(0x0800, packet, packet.len(), 0)
}

impl Play {
    /// The addresses of a packet of one side, as it is where the other one's own address is not known.
    fn ends(&self, is_back: bool) -> (IpAddr, IpAddr) {
        let to = self.request.nat.and_then(|nat| nat.end.zip(nat.addresses));
        match (is_back, to) {
            (true, Some((NatEnd::Source, (other, _)))) => (host(SERVER), other),
            (true, Some((NatEnd::Destination, (other, _)))) => (other, host(CLIENT)),
            (true, None) => (host(SERVER), host(CLIENT)),
            (false, _) => (host(CLIENT), host(SERVER)),
        }
    }

    /// One side says something.
    fn say(&mut self, is_back: bool, flags: TcpFlags, text: &[u8]) {
        let text = text.get(..100).unwrap_or(text);
        let (from, to) = self.ends(is_back);
        let port = if self.is_tcp { 21 } else { 69 };
        let ports = if is_back { (port, 5000) } else { (5000, port) };
        let [own, others] = if is_back { [1, 0] } else { [0, 1] };
        let numbers = [own, others].map(|side| self.sent.get(side).copied().unwrap_or_default());
        let frame = FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6])).ip(from, to);
        let frame = match self.is_tcp {
            true => frame.tcp(ports, numbers[0], numbers[1], flags),
            false => frame.udp(ports.0, ports.1),
        };
        let Ok(frame) = frame.payload(text).build() else { return };
        self.pass(&frame);
        let is_first = u32::from(flags.contains(TcpFlags::SYN));
        if let Some(sent) = self.sent.get_mut(own) {
            *sent = sent.wrapping_add(u32::try_from(text.len()).unwrap_or_default() + is_first);
        }
    }

    fn pass(&mut self, frame: &[u8]) {
        let Some(seen) = see(frame) else { return };
        let (tracked, how) = self.lane.translate(Some(&seen), &self.request, 0);
        if tracked.helper.is_none() {
            return;
        }
        let packet = frame.get(LINK..).unwrap_or_default();
        let text = carried(0x0800, packet).and_then(|place| packet.get(place)).unwrap_or_default();
        let heard = self.lane.overhear(&seen, &self.request, text, 0);
        let mut room = EditRoom::default();
        let Some(mut open) = room.begin().open_deep(&Frame::from_bytes(frame)) else { return };
        let is_done = how.as_ref().is_none_or(|how| translate(how, &mut open))
            && heard.adjustment.as_ref().is_none_or(|how| adjust(how, &mut open));
        let Some(after) = open.frame().filter(|_| is_done).map(|frame| frame.to_vec()) else {
            return;
        };
        // Whatever was replaced, it is a packet, of the ends that it should be of.
        let ends = see(&after).map(|seen| *seen.tuple());
        assert_eq!(ends, Some(how.map_or(*seen.tuple(), |how| how.after)));
        let packet = after.get(LINK..).unwrap_or_default();
        let len =
            packet.get(2..4).and_then(|len| len.first_chunk().copied()).map(u16::from_be_bytes);
        assert_eq!(len.map(usize::from), Some(packet.len()), "{heard:?}");
        if self.is_tcp {
            let is_right = packet::headers::Ipv4::parse(packet).is_some_and(|ip| {
                let source = ip.source().octets();
                let destination = ip.destination().octets();
                let len = u16::try_from(ip.payload().len()).unwrap_or_default();
                let mut sum = packet::checksum::Checksum::pseudo_v4(source, destination, 6, len);
                sum.add(ip.payload());
                sum.is_valid()
            });
            assert!(is_right, "{heard:?}");
        }
    }

    /// A connection comes to a port: it is related to nobody but one of both sides.
    fn come(&mut self, port: u16) {
        for (from, to) in
            [(SERVER, CLIENT), (CLIENT, SERVER), (SERVER, 9), (9, CLIENT), (SERVER, 7), (7, CLIENT)]
        {
            let frame =
                FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6])).ip(host(from), host(to));
            let frame = match self.is_tcp {
                true => frame.tcp((20, port), 1, 0, TcpFlags::SYN).build(),
                false => frame.udp(20, port).build(),
            };
            let Ok(frame) = frame else { continue };
            let seen = see(&frame);
            let request = Request { commit: false, ..self.request };
            let (tracked, _) = self.all.tell(seen.as_ref(), &request, 0);
            if tracked.state.contains(State::RELATED) {
                assert!(from != 7 && to != 7, "{seen:?}");
                let (_, how) = self.all.tell(seen.as_ref(), &self.request, 0);
                let target = how.map_or(host(to), |how| how.after.destination());
                let is_own = [host(CLIENT), host(SERVER), host(9), host(240)].contains(&target);
                assert!(is_own, "{seen:?} {how:?}");
            }
        }
    }
}
