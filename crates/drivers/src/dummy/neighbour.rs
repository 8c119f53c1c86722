//! A dummy port as a neighbour: what asks by ARP for an address of its own comes back answered, as if a host
//! were behind it. As Open vSwitch has it, that goes for IPv4 alone.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;

use eal::EventFd;
use packet::builder::FrameBuilder;
use packet::headers::{Arp, ArpOperation, EtherType, Ethernet};
use packet::{Frame, MacAddr};

/// Answers that may wait: more than a burst asks for.
const MOST: usize = 256;

/// An answer's bytes.
pub(super) const LEN: usize = 42;

/// Its addresses, and the answers that nobody has taken yet.
pub(super) struct Neighbour {
    own: Vec<Ipv4Addr>,
    answers: VecDeque<Vec<u8>>,
    /// Readable while there are any.
    ready: EventFd,
    /// How many there have been, and how many of them were taken.
    pub(super) given: u64,
    pub(super) taken: u64,
}

impl Neighbour {
    pub(super) const fn new(ready: EventFd, own: Vec<Ipv4Addr>) -> Self {
        Self { own, answers: VecDeque::new(), ready, given: 0, taken: 0 }
    }

    /// Has it answer for these addresses.
    pub(super) fn set(&mut self, own: Vec<Ipv4Addr>) {
        self.own = own;
    }

    /// Whether it answers for any.
    pub(super) const fn is_there(&self) -> bool {
        !self.own.is_empty()
    }

    /// Whether an answer waits.
    pub(super) fn has_answer(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Hears a frame that is sent to it, whose station has this address; what cannot wait is lost, as on a wire.
    pub(super) fn hear(&mut self, frame: &Frame<'_>, mac: MacAddr) {
        if self.own.is_empty() || self.answers.len() >= MOST {
            return;
        }
        let Some(answer) = answer(&frame.to_vec(), &self.own, mac) else { return };
        self.answers.push_back(answer);
        self.given = self.given.wrapping_add(1);
        // A worker looks by itself now and then.
        let _ = self.ready.signal();
    }

    /// The next answer.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let answer = self.answers.pop_front()?;
        self.taken = self.taken.wrapping_add(1);
        if self.answers.is_empty() {
            let _: io::Result<bool> = self.ready.drain();
        }
        Some(answer)
    }
}

/// The answer to a question for one of these addresses. Behind whatever tags it comes, it goes without.
fn answer(frame: &[u8], own: &[Ipv4Addr], mac: MacAddr) -> Option<Vec<u8>> {
    let ethernet = Ethernet::parse(frame)?;
    let (_, payload) = ethernet.inner().filter(|(kind, _)| *kind == EtherType::ARP)?;
    let question = Arp::parse(payload).filter(|arp| arp.operation() == ArpOperation::REQUEST)?;
    let asked = question.target_ip();
    if !own.contains(&asked) {
        return None;
    }
    let asker = (ethernet.source(), question.sender_ip());
    FrameBuilder::new(mac, asker.0).arp(ArpOperation::REPLY, (mac, asked), asker).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const OWN: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

    fn asks(operation: ArpOperation, target: Ipv4Addr, tagged: bool) -> Vec<u8> {
        let frame = FrameBuilder::new(ASKER, MacAddr::BROADCAST);
        let frame = if tagged { frame.tag(EtherType::VLAN, 5) } else { frame };
        let sender = (ASKER, OTHER);
        frame.arp(operation, sender, (MacAddr([0; 6]), target)).build().unwrap()
    }

    #[test]
    fn it_answers_for_its_own_addresses_alone() {
        let mut neighbour = Neighbour::new(EventFd::new().unwrap(), Vec::new());
        let request = |target, tagged| asks(ArpOperation::REQUEST, target, tagged);
        neighbour.hear(&Frame::from_bytes(&request(OWN, false)), MAC);
        assert!(!neighbour.is_there() && !neighbour.has_answer(), "it has none");
        neighbour.set(vec![OWN]);
        let reply = asks(ArpOperation::REPLY, OWN, false);
        for none in [request(OTHER, false), reply, vec![0; 13], request(OWN, false)[..41].to_vec()]
        {
            neighbour.hear(&Frame::from_bytes(&none), MAC);
        }
        assert!(neighbour.take().is_none());
        let expected = FrameBuilder::new(MAC, ASKER)
            .arp(ArpOperation::REPLY, (MAC, OWN), (ASKER, OTHER))
            .build()
            .unwrap();
        assert_eq!(expected.len(), LEN);
        for tagged in [false, true] {
            neighbour.hear(&Frame::from_bytes(&request(OWN, tagged)), MAC);
            assert!(neighbour.has_answer());
            assert_eq!(neighbour.take().as_ref(), Some(&expected));
        }
        assert_eq!((neighbour.given, neighbour.taken), (2, 2));
    }

    #[test]
    fn a_flood_of_questions_is_bounded() {
        let mut neighbour = Neighbour::new(EventFd::new().unwrap(), vec![OWN]);
        let request = asks(ArpOperation::REQUEST, OWN, false);
        for _ in 0..2 * MOST {
            neighbour.hear(&Frame::from_bytes(&request), MAC);
        }
        assert_eq!(std::iter::from_fn(|| neighbour.take()).count(), MOST);
    }
}
