//! What control threads listen for on ports.

use std::sync::mpsc::Receiver;

use datapath::bond::answers::ANSWER_LEN;
use datapath::inlet::{Heard, Inlet, MOST, PERIODS};
use datapath::trap::{Answers, Askers, Listens, Trap, WATCH_LEN, Watched};
use datapath::worker::{Mailbox, Message};
use l2proto::lacp::pdu::FRAME_LEN as SLOW_LEN;
use l2proto::lldp::frame::MAX_LEN as LLDP_LEN;
use l2proto::rstp::bpdu::FRAME_LEN as BPDU_LEN;
use litemap::LiteMap;

use super::{Control, Switch};

/// The most frames of LLDP from a port that wait.
const LLDP_ROOM: usize = 8;

/// Likewise of messages of spanning tree.
const BPDU_ROOM: usize = 16;

/// Likewise of LACP.
const SLOW_ROOM: usize = 8;

/// Likewise of those by which a link is watched.
const WATCH_ROOM: usize = 16;

/// Likewise of answers to what a member of a bond has asked: a few of each target.
const ANSWER_ROOM: usize = 64;

/// How many frames are taken in a tenth of a second of a link that is watched: twice as many as a neighbour is asked
/// for, who may send a third more than that (RFC 5880, section 6.8.7).
fn most_of(watched: &Watched) -> u8 {
    let asked = watched.bfd.as_ref().map_or(0, |bfd| 2 * (1_000 / PERIODS) / bfd.min_rx.max(1));
    u8::try_from(asked).unwrap_or(u8::MAX).max(MOST)
}

/// Where workers put what neighbours say, and where it is read.
#[derive(Debug)]
pub(super) struct Line {
    inlet: Inlet,
    heard: Receiver<Heard>,
}

impl Line {
    /// One for the first `len` bytes of frames, which has `control` look at port `number` when one comes.
    fn new(len: usize, room: usize, number: u16, control: &Control) -> Self {
        let (inlet, heard) = Inlet::new(len, room, &control.pace, control.notes.of_port(number));
        Self { inlet, heard }
    }

    /// The same, which takes up to so many frames in a tenth of a second.
    fn taking(self, most: u8) -> Self {
        Self { inlet: self.inlet.taking(most), ..self }
    }

    /// What has come since this was asked last.
    pub(super) fn heard(&self) -> impl Iterator<Item = Heard> {
        self.heard.try_iter()
    }
}

/// What is listened for on a port.
#[derive(Debug, Default)]
struct Ear {
    lldp: Option<Line>,
    bpdu: Option<Line>,
    slow: Option<Line>,
    answers: Option<(Askers, Line)>,
    watch: Option<(Watched, Line)>,
}

impl Ear {
    const fn is_deaf(&self) -> bool {
        let Self { lldp, bpdu, slow, answers, watch } = self;
        let are_none = lldp.is_none() && bpdu.is_none() && slow.is_none();
        are_none && answers.is_none() && watch.is_none()
    }

    fn tell(&self, number: u16, workers: &[Mailbox]) {
        let answers = |(asker, line): &(Askers, Line)| Answers {
            asker: asker.clone(),
            inlet: line.inlet.clone(),
        };
        for worker in workers {
            let trap = Trap {
                lldp: self.lldp.as_ref().map(|line| line.inlet.clone()),
                bpdu: self.bpdu.as_ref().map(|line| line.inlet.clone()),
                slow: self.slow.as_ref().map(|line| line.inlet.clone()),
                answers: self.answers.as_ref().map(answers),
                watch: self.watch.as_ref().map(|(what, line)| (what.clone(), line.inlet.clone())),
            };
            let trap = (!self.is_deaf()).then(|| Box::new(trap));
            worker.ask(|done| Message::SetTrap(number, trap, done));
        }
    }
}

/// All of that, by port number.
#[derive(Debug, Default)]
pub(super) struct Ears(LiteMap<u16, Ear>);

impl Ears {
    /// Where frames of LLDP from a port are read, if anybody listens for them.
    pub(super) fn lldp(&self, number: u16) -> Option<&Line> {
        self.0.get(&number)?.lldp.as_ref()
    }

    /// The same of messages of spanning tree.
    pub(super) fn bpdu(&self, number: u16) -> Option<&Line> {
        self.0.get(&number)?.bpdu.as_ref()
    }

    /// The same of LACP, of a port that is no member of a bond.
    pub(super) fn slow(&self, number: u16) -> Option<&Line> {
        self.0.get(&number)?.slow.as_ref()
    }

    /// The ports that are listened to for that.
    pub(super) fn slow_ports(&self) -> impl Iterator<Item = u16> {
        self.0.iter().filter(|(_, ear)| ear.slow.is_some()).map(|(number, _)| *number)
    }

    /// The same of answers to what a member of a bond has asked.
    pub(super) fn answers(&self, number: u16) -> Option<&Line> {
        Some(&self.0.get(&number)?.answers.as_ref()?.1)
    }

    /// The same of frames by which a link is watched.
    pub(super) fn watch(&self, number: u16) -> Option<&Line> {
        Some(&self.0.get(&number)?.watch.as_ref()?.1)
    }

    /// The members that are listened to for those.
    fn askers(&self) -> impl Iterator<Item = (u16, &Askers)> {
        let all = self.0.iter().filter_map(|(number, ear)| Some((number, ear.answers.as_ref()?)));
        all.map(|(number, (asker, _))| (*number, asker))
    }

    /// The ports that are listened to for those.
    pub(super) fn bpdu_ports(&self) -> Vec<u16> {
        let listened = self.0.iter().filter(|(_, ear)| ear.bpdu.is_some());
        listened.map(|(number, _)| *number).collect()
    }
}

impl Switch {
    /// Tells `tell` what is listened for on a port: what speaks to the switch itself goes no further.
    pub fn listens<R>(&self, port: &str, tell: impl FnOnce(Listens<'_>) -> R) -> R {
        let control = self.control();
        let Ok(entry) = control.ports.get(port) else { return tell(Listens::default()) };
        let bond = entry.options().bond.as_ref().and_then(|bond| control.bonds.0.get(bond));
        let ear = control.ears.0.get(&entry.number());
        tell(Listens {
            lldp: ear.is_some_and(|ear| ear.lldp.is_some()),
            bpdu: ear.is_some_and(|ear| ear.bpdu.is_some()),
            slow: ear.is_some_and(|ear| ear.slow.is_some())
                || bond.is_some_and(|bond| bond.inlet.is_some()),
            watch: ear.and_then(|ear| ear.watch.as_ref()).map(|(watched, _)| watched),
        })
    }
}

impl Control {
    /// Has frames of LLDP from port `number` be listened for, or not.
    pub(super) fn listen_for_lldp(&mut self, number: u16, listens: bool) {
        if listens != self.ears.lldp(number).is_some() {
            let line = listens.then(|| Line::new(LLDP_LEN, LLDP_ROOM, number, self));
            self.change_ear(number, |ear| ear.lldp = line);
        }
    }

    /// The same of messages of spanning tree.
    pub(super) fn listen_for_bpdus(&mut self, number: u16, listens: bool) {
        if listens != self.ears.bpdu(number).is_some() {
            let line = listens.then(|| Line::new(BPDU_LEN, BPDU_ROOM, number, self));
            self.change_ear(number, |ear| ear.bpdu = line);
        }
    }

    /// The same of LACP, on a port that is no member of a bond.
    pub(super) fn listen_for_lacp(&mut self, number: u16, listens: bool) {
        if listens != self.ears.slow(number).is_some() {
            let line = listens.then(|| Line::new(SLOW_LEN, SLOW_ROOM, number, self));
            self.change_ear(number, |ear| ear.slow = line);
        }
    }

    /// The same of frames by which its link is watched.
    pub(super) fn listen_for_watch(&mut self, number: u16, wanted: Option<Watched>) {
        let known = self.ears.0.get(&number).and_then(|ear| ear.watch.as_ref());
        if known.map(|(known, _)| known) == wanted.as_ref() {
            return;
        }
        let new = wanted.map(|watched| (watched, Line::new(WATCH_LEN, WATCH_ROOM, number, self)));
        self.change_ear(number, |ear| {
            let new = match (new, ear.watch.take()) {
                (Some((watched, _)), Some((_, line))) => Some((watched, line)),
                (new, _) => new,
            };
            ear.watch = new.map(|(watched, line)| {
                let most = most_of(&watched);
                (watched, line.taking(most))
            });
        });
    }

    /// Has answers be listened for that come to these, by the number of the member's port, and to
    /// nobody else.
    pub(super) fn listen_for_answers(&mut self, wanted: &LiteMap<u16, Askers>) {
        let gone = self.ears.askers().filter(|(number, _)| !wanted.contains_key(number));
        let gone: Vec<u16> = gone.map(|(number, _)| number).collect();
        for number in gone {
            self.change_ear(number, |ear| ear.answers = None);
        }
        let is_new = |(number, asker): &(&u16, &Askers)| {
            !self.ears.askers().any(|known| known == (**number, *asker))
        };
        let new: Vec<_> = wanted.iter().filter(is_new).collect();
        for (number, asker) in new {
            let new = Line::new(ANSWER_LEN, ANSWER_ROOM, *number, self);
            self.change_ear(*number, |ear| {
                let line = ear.answers.take().map_or(new, |(_, line)| line);
                ear.answers = Some((asker.clone(), line));
            });
        }
    }

    fn change_ear(&mut self, number: u16, change: impl FnOnce(&mut Ear)) {
        let ear = self.ears.0.entry(number).or_default();
        change(ear);
        ear.tell(number, &self.mailboxes);
        self.ears.0.retain(|_, ear| !ear.is_deaf());
    }

    /// Listens no more on ports that are not there any more.
    pub(super) fn forget_ears(&mut self) {
        let gone = |number: &u16| self.ports.numbered(*number).is_none();
        let gone: Vec<u16> = self.ears.0.keys().copied().filter(gone).collect();
        for number in gone {
            self.ears.0.remove(&number);
            Ear::default().tell(number, &self.mailboxes);
        }
    }

    /// Tells workers of whom some are new what is listened for.
    pub(super) fn tell_ears(&self) {
        self.ears.0.iter().for_each(|(number, ear)| ear.tell(*number, &self.mailboxes));
    }
}

#[cfg(test)]
mod tests {
    use l2proto::Bfd;

    use super::*;

    #[test]
    fn as_many_frames_are_taken_as_a_neighbour_is_asked_for() {
        let most = |min_rx: Option<u32>| {
            let bfd = min_rx.map(|min_rx| Bfd { min_rx, ..Bfd::default() });
            most_of(&Watched { extended: None, bfd })
        };
        assert_eq!([None, Some(1_000), Some(7), Some(0)].map(most), [MOST, MOST, MOST, 200]);
        assert_eq!([6, 3, 1].map(|min_rx| most(Some(min_rx))), [33, 66, 200]);
    }
}
