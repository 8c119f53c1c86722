//! Which of several links a packet takes, by a hash of it: `multipath` and `bundle`.

use openflow::PortNo;
use openflow::action::{Algorithm, Bundle, Multipath};

use super::Walk;
use crate::hash;

impl Walk<'_> {
    /// Writes the number of a link.
    pub(super) fn multipath(&mut self, multipath: &Multipath) {
        let Multipath { fields, basis, algorithm, max_link, arg, target } = *multipath;
        let hash = hash::of_fields(&self.state.key, fields, basis);
        self.write(target, hash::link(hash, algorithm, max_link, arg).into());
    }

    /// Sends the packet to one of several ports that are alive, or writes that port's number; where none
    /// is, to no port.
    pub(super) fn bundle(&mut self, bundle: &Bundle) {
        let port = self.member(bundle).unwrap_or(PortNo::ANY);
        match bundle.target {
            Some(target) => {
                // In the numbers of OpenFlow 1.0, in which there is one for each port.
                let number = port.v10().or(PortNo::ANY.v10()).unwrap_or_default();
                self.write(target, number.into());
            }
            None => self.output(port, 0),
        }
    }

    fn member(&mut self, bundle: &Bundle) -> Option<PortNo> {
        let alive: Vec<u32> = (0..)
            .zip(&bundle.members)
            .filter(|(_, port)| self.is_up(**port))
            .map(|(at, _)| at)
            .collect();
        let place = if bundle.algorithm == Algorithm::Hrw {
            let hash = hash::of_fields(&self.state.key, bundle.fields, bundle.basis);
            hash::member(hash, alive.into_iter())
        } else {
            alive.first().copied()
        };
        bundle.members.get(usize::try_from(place?).ok()?).copied()
    }

    /// Whether a member can be taken: those that stand for other ports always can.
    fn is_up(&mut self, port: PortNo) -> bool {
        match port {
            PortNo::IN_PORT
            | PortNo::TABLE
            | PortNo::NORMAL
            | PortNo::FLOOD
            | PortNo::ALL
            | PortNo::ANY => true,
            PortNo::CONTROLLER => false,
            port => self.is_port_alive(port),
        }
    }
}

#[cfg(test)]
mod tests {
    use openflow::action::HashFields;
    use openflow::{Action, Field, Match, Subfield};

    use super::*;
    use crate::key::slot;
    use crate::path::{Lost, Op};
    use crate::walk::tests::{key, ops, output, path, pipeline};
    use crate::walk::{Start, walk};

    fn bundle(algorithm: Algorithm, members: &[u32], target: Option<Subfield>) -> Action {
        let members = members.iter().copied().map(PortNo).collect();
        let fields = HashFields::SymmetricL4;
        Action::Bundle(Box::new(Bundle { fields, basis: 0, algorithm, members, target }))
    }

    #[test]
    fn the_first_member_that_is_up_is_taken() {
        let backup = |members: &[u32]| ops(vec![bundle(Algorithm::ActiveBackup, members, None)]);
        assert_eq!(backup(&[9, 3, 2]), [Op::Output(13)]);
        assert_eq!(backup(&[9, PortNo::IN_PORT.0]), [Op::Output(11)]);
        assert_eq!(backup(&[]), []);
        let all = [(0, 0, Match::new(), vec![bundle(Algorithm::ActiveBackup, &[2, 3], None)])];
        let mut pipeline = pipeline(&all);
        assert!(pipeline.tables.go_by_links() && path(&pipeline).basis.links);
        pipeline.ports.get_mut(&PortNo(2)).unwrap().is_dead = true;
        assert_eq!(*path(&pipeline).ops, [Op::Output(13)]);
        pipeline.ports.get_mut(&PortNo(3)).unwrap().is_dead = true;
        assert_eq!(path(&pipeline).lost, Some(Lost::Dropped));
        pipeline.tables.clear();
        assert!(!pipeline.tables.go_by_links());
    }

    #[test]
    fn members_share_packets_and_a_port_can_be_written() {
        let target = Some(Subfield { field: Field::Reg1, offset: 0, bits: 16 });
        let actions =
            vec![bundle(Algorithm::Hrw, &[2, 3, 4], None), bundle(Algorithm::Hrw, &[9], target)];
        let pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
        let mut taken = std::collections::BTreeSet::new();
        for address in 0..40 {
            let mut key = key();
            key.set(slot::IPV4_DST, address);
            let path = walk(&pipeline, &mut key, &Start::Table, None);
            taken.extend(path.ops.iter().map(|op| format!("{op:?}")));
            assert_eq!(key.get(slot::reg(1)), 0xFFFF, "no member is there");
        }
        assert_eq!(taken.len(), 3);
        assert_eq!(pipeline.tables.relevant().get(slot::IPV4_DST), slot::IPV4_DST.ones());
    }

    #[test]
    fn the_number_of_a_link_is_written() {
        let multipath = Action::Multipath(Box::new(Multipath {
            fields: HashFields::EthSrc,
            basis: 50,
            algorithm: Algorithm::ModuloN,
            max_link: 2,
            arg: 0,
            target: Subfield { field: Field::Reg0, offset: 4, bits: 8 },
        }));
        let choose = |link: u128| {
            let matching = Match::new().with_masked(Field::Reg0, link << 4, 0xFF0);
            let port = u32::try_from(link).unwrap() + 2;
            (1, 1, matching, vec![output(port)])
        };
        let first = (0, 0, Match::new(), vec![multipath, Action::resubmit_table(1)]);
        let pipeline = pipeline(&[first, choose(0), choose(1), choose(2)]);
        let mut taken = [0; 3];
        for source in 0..60 {
            let mut key = key();
            key.set(slot::ETH_SRC, source);
            match *walk(&pipeline, &mut key, &Start::Table, None).ops {
                [Op::Output(port @ 12..=14)] => taken[usize::from(port - 12)] += 1,
                ref other => panic!("{other:?}"),
            }
        }
        assert!(taken.iter().all(|count| *count > 5), "{taken:?}");
    }
}
