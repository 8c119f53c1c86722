//! Shaping by the kernel: of interfaces of the system whose `QoS` is `linux-htb`, which a port of AF_PACKET sends to
//! through the kernel's queueing discipline.
//!
//! What the kernel refuses is limited by the switch, as other ports are.

use std::io;

use eal::htb::{self, Class, Htb};
use litemap::LiteMap;
use ordered::Gather as _;

use crate::content::{Qos, Texts};

/// What an interface is taken to carry where nobody knows: 100 Mbit/s, in bytes.
const USUAL: u64 = 100_000_000 / 8;

/// How much more than a frame goes out at once at least.
const ROOM: u64 = 64;

/// How often a second the kernel looks at classes that have had their share, at the least.
const LOOKS: u64 = 100;

/// What is known of an interface: how much a frame carries, and how fast it is, in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) mtu: u16,
    pub(crate) speed: Option<u64>,
}

/// Whether a port's device is one that the kernel can shape, and is to be shaped.
pub(crate) fn is_shaped(device: &str, qos: Option<&Qos>) -> bool {
    device.starts_with("af-packet:") && qos.is_some_and(|qos| qos.kind == "linux-htb")
}

/// How an interface is to be shaped.
fn htb(qos: &Qos, link: Link) -> Htb {
    let max = match bytes(&qos.other_config, "max-rate") {
        0 => link.speed.unwrap_or(USUAL),
        max => max,
    };
    let class = |rate: u64, ceil, burst: u64, priority| {
        // What goes out between two looks has to fit.
        let least = (rate / LOOKS).saturating_add(link.mtu.into());
        Class { rate, ceil, burst: burst.max(u64::from(link.mtu) + ROOM).max(least), priority }
    };
    let of = |settings: &Texts| {
        let rate = bytes(settings, "min-rate").max(link.mtu.into()).min(max);
        let ceil = match bytes(settings, "max-rate") {
            0 => max,
            ceil => ceil.clamp(rate, max),
        };
        let priority = settings.get("priority").and_then(|text| text.parse().ok()).unwrap_or(0);
        class(rate, ceil, bytes(settings, "burst"), priority)
    };
    // What belongs to no queue is of the first one, which there always is.
    let first =
        qos.queues.get(&0).map_or_else(|| of(&Texts::new()), |queue| of(&queue.other_config));
    let others = qos.queues.iter().filter_map(|(number, queue)| {
        let number = u16::try_from(*number).ok().filter(|number| *number <= Htb::MAX_CLASS)?;
        (number != 0).then(|| (number, of(&queue.other_config)))
    });
    Htb { all: class(max, max, 0, 0), classes: std::iter::once((0, first)).chain(others).collect() }
}

/// A number of bits, in bytes; 0 if there is none.
fn bytes(all: &Texts, key: &str) -> u64 {
    all.get(key).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) / 8
}

/// What the kernel was told.
#[derive(Debug, Default)]
pub(crate) struct Shaping {
    /// How interfaces are shaped, by name; with the system's number, which another one of that name has not.
    told: LiteMap<String, (u32, Htb)>,
    /// What it has refused, likewise: it is asked again once it is another interface, or to be shaped otherwise.
    refused: LiteMap<String, (u32, Htb)>,
}

/// Who is told.
pub(crate) trait Kernel {
    /// The number of an interface, if there is one of this name.
    fn index(&self, name: &str) -> Option<u32>;

    /// Has an interface be shaped.
    fn set(&self, index: u32, htb: &Htb) -> io::Result<()> {
        htb.set(index)
    }

    /// Has it be shaped no more.
    fn clear(&self, index: u32) -> io::Result<()> {
        htb::clear(index)
    }
}

impl Shaping {
    /// Whether the kernel has not refused to shape an interface.
    pub(crate) fn can(&self, name: &str) -> bool {
        !self.refused.contains_key(name)
    }

    /// Whether there is nothing to do as long as nothing is wanted.
    pub(crate) fn is_idle(&self) -> bool {
        self.told.is_empty() && self.refused.is_empty()
    }

    /// Has the kernel shape these and no others. Returns whether it refuses what
    /// it was not known to, or shapes what it has refused before.
    pub(crate) fn follow<'w>(
        &mut self,
        wanted: impl Iterator<Item = (&'w str, &'w Qos, Link)>,
        kernel: &dyn Kernel,
    ) -> bool {
        let wanted: LiteMap<&str, Htb> =
            wanted.map(|(name, qos, link)| (name, htb(qos, link))).gather();
        let gone = self.told.iter().filter(|(name, _)| !wanted.contains_key(name.as_str()));
        for (name, (index, _)) in gone {
            // It may be gone, or have been given another discipline.
            if kernel.index(name) == Some(*index)
                && let Err(error) = kernel.clear(*index)
            {
                tracing::info!("interface {name} was not shaped any more: {error}");
            }
        }
        self.told.retain(|name, _| wanted.contains_key(name.as_str()));
        self.refused.retain(|name, _| wanted.contains_key(name.as_str()));
        wanted.into_iter().fold(false, |news, (name, htb)| self.tell(name, htb, kernel) || news)
    }

    fn tell(&mut self, name: &str, htb: Htb, kernel: &dyn Kernel) -> bool {
        let Some(index) = kernel.index(name) else {
            self.told.remove(name);
            return false;
        };
        let asked = (index, htb);
        if [&self.told, &self.refused].iter().any(|known| known.get(name) == Some(&asked)) {
            return false;
        }
        self.told.remove(name);
        let was_refused = self.refused.remove(name).is_some();
        let outcome = kernel.set(index, &asked.1);
        let is_refused = outcome.is_err();
        if let Err(error) = outcome {
            tracing::warn!(
                "interface {name}: the kernel does not shape by linux-htb ({error}); the switch limits it instead"
            );
            // What it has taken of it must not shape, too; it may have taken nothing.
            let _ = kernel.clear(index);
            self.refused.insert(name.to_owned(), asked);
        } else {
            self.told.insert(name.to_owned(), asked);
        }
        is_refused != was_refused
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::content::Queue;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn qos(settings: &[(&str, &str)], queues: &[(u32, &[(&str, &str)])]) -> Qos {
        let queue = |settings| Queue { other_config: texts(settings), ..Queue::default() };
        let queues = queues.iter().map(|(number, settings)| (*number, queue(settings)));
        Qos {
            kind: "linux-htb".to_owned(),
            other_config: texts(settings),
            queues: queues.collect(),
        }
    }

    const LINK: Link = Link { mtu: 1_500, speed: None };

    #[test]
    fn rates_and_bursts_are_in_bytes() {
        let queue: &[(&str, &str)] =
            &[("min-rate", "2000000"), ("max-rate", "3000000"), ("burst", "3000000")];
        let made = htb(&qos(&[("max-rate", "3000000")], &[(0, queue)]), LINK);
        let burst = 375_000;
        assert_eq!(made.classes, [(0, Class { rate: 250_000, ceil: burst, burst, priority: 0 })]);
        assert_eq!((made.all.rate, made.all.ceil, made.all.burst), (375_000, 375_000, 5_250));
    }

    #[test]
    fn what_is_not_said_is_as_much_as_there_is() {
        let made = htb(&qos(&[], &[(7, &[("priority", "3")]), (70_000, &[])]), LINK);
        assert_eq!((made.all.rate, made.classes.len()), (USUAL, 2), "{made:?}");
        let (number, class) = made.classes[1];
        assert_eq!((number, class.rate, class.ceil, class.priority), (7, 1_500, USUAL, 3));
        let fast = Link { speed: Some(1 << 30), ..LINK };
        assert_eq!(htb(&qos(&[], &[]), fast).all.ceil, 1 << 30);
        // A queue has no more than all, and no less than it always has.
        let queue: &[(&str, &str)] = &[("min-rate", "80000"), ("max-rate", "8")];
        let made = htb(&qos(&[("max-rate", "40000")], &[(1, queue)]), LINK);
        assert_eq!((made.classes[1].1.rate, made.classes[1].1.ceil), (5_000, 5_000));
    }

    /// A kernel with an interface `p1`, that may refuse, and what it was told.
    #[derive(Default)]
    struct Fake(Option<u32>, bool, RefCell<Vec<String>>);

    impl Kernel for Fake {
        fn index(&self, _: &str) -> Option<u32> {
            self.0
        }

        fn set(&self, index: u32, htb: &Htb) -> io::Result<()> {
            self.2.borrow_mut().push(format!("{index}: {}", htb.all.rate));
            if self.1 { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
        }

        fn clear(&self, index: u32) -> io::Result<()> {
            self.2.borrow_mut().push(format!("{index}: none"));
            Ok(())
        }
    }

    #[test]
    fn the_kernel_is_told_what_is_news() {
        let (slow, fast) = (qos(&[("max-rate", "8000")], &[]), qos(&[("max-rate", "16000")], &[]));
        let (mut shaping, mut kernel) = (Shaping::default(), Fake::default());
        let follow = |shaping: &mut Shaping, kernel: &Fake, qos: Option<&Qos>| {
            let refused = shaping.follow(qos.map(|qos| ("p1", qos, LINK)).into_iter(), kernel);
            (refused, std::mem::take(&mut *kernel.2.borrow_mut()))
        };
        assert_eq!(follow(&mut shaping, &kernel, Some(&slow)), (false, vec![]), "not there yet");
        kernel.0 = Some(5);
        assert_eq!(follow(&mut shaping, &kernel, Some(&slow)), (false, vec!["5: 1000".into()]));
        assert_eq!(follow(&mut shaping, &kernel, Some(&slow)), (false, vec![]));
        assert_eq!(follow(&mut shaping, &kernel, Some(&fast)), (false, vec!["5: 2000".into()]));
        // Another one of that name has come.
        kernel.0 = Some(6);
        assert_eq!(follow(&mut shaping, &kernel, Some(&fast)), (false, vec!["6: 2000".into()]));
        assert_eq!(follow(&mut shaping, &kernel, None), (false, vec!["6: none".into()]));
        assert!(shaping.is_idle());
        kernel.1 = true;
        assert!(follow(&mut shaping, &kernel, Some(&slow)).0 && !shaping.can("p1"));
        assert_eq!(follow(&mut shaping, &kernel, Some(&slow)), (false, vec![]), "it stays so");
        assert_eq!(follow(&mut shaping, &kernel, None), (false, vec![]));
        assert!(shaping.is_idle() && shaping.can("p1"));
    }

    #[test]
    fn what_the_kernel_refuses_is_taken_back_and_tried_again_when_it_is_another() {
        let (slow, fast) = (qos(&[("max-rate", "8000")], &[]), qos(&[("max-rate", "16000")], &[]));
        let (mut shaping, mut kernel) =
            (Shaping::default(), Fake(Some(5), true, RefCell::default()));
        let follow = |shaping: &mut Shaping, kernel: &Fake, qos: &Qos| {
            let news = shaping.follow(std::iter::once(("p1", qos, LINK)), kernel);
            (news, std::mem::take(&mut *kernel.2.borrow_mut()))
        };
        // What it has taken of it is taken back.
        let refused =
            |asked: &str, index| vec![format!("{index}: {asked}"), format!("{index}: none")];
        assert_eq!(follow(&mut shaping, &kernel, &slow), (true, refused("1000", 5)));
        assert_eq!(follow(&mut shaping, &kernel, &slow), (false, vec![]));
        // Another interface of that name is asked for, and other rates are.
        kernel.0 = Some(6);
        assert_eq!(follow(&mut shaping, &kernel, &slow), (false, refused("1000", 6)));
        kernel.1 = false;
        assert_eq!(follow(&mut shaping, &kernel, &slow), (false, vec![]));
        assert!(!shaping.can("p1"));
        assert_eq!(follow(&mut shaping, &kernel, &fast), (true, vec!["6: 2000".into()]));
        assert!(shaping.can("p1"), "the switch has to stop limiting it");
        assert_eq!(follow(&mut shaping, &kernel, &fast), (false, vec![]));
    }

    #[test]
    fn only_what_goes_through_the_kernel_is_shaped() {
        let htb = qos(&[], &[]);
        assert!(is_shaped("af-packet:p1,qdisc=on", Some(&htb)));
        assert!(!is_shaped("af-packet:p1,qdisc=on", None));
        assert!(!is_shaped("vhost-user:/p1", Some(&htb)));
        let other = Qos { kind: "egress-policer".to_owned(), ..htb };
        assert!(!is_shaped("af-packet:p1,qdisc=on", Some(&other)));
    }
}
