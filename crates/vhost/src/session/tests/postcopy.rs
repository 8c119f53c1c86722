//! Post-copy migration towards the device.

use super::*;
use crate::testing::PLACED;

/// A front-end that has negotiated all that goes with post-copy.
fn ready(prepare: impl FnOnce(&mut Recording)) -> Bench {
    let mut bench = Bench::with(|device| {
        device.postcopy = true;
        prepare(device);
    });
    let features = bench.ok(M::GetProtocolFeatures).unwrap();
    bench.ok(M::SetProtocolFeatures(features));
    bench.ok(M::SetFeatures(SPLIT));
    bench.calls.take();
    bench
}

/// The same, which listens for faults.
fn listening() -> Bench {
    let mut bench = ready(|_| ());
    advise(&mut bench);
    bench.ok(M::PostcopyListen);
    bench.calls.take();
    bench
}

#[track_caller]
fn advise(bench: &mut Bench) {
    let answer = bench.send(&M::PostcopyAdvise, false).unwrap();
    assert!(answer.refused.is_none() && answer.attached.is_some());
    assert_eq!(answer.reply, Some(Reply::Userfault));
}

/// The word that faults are served: as QEMU sends it, a zero of 64 bits.
fn faults_are_served() -> M {
    let message = M::SetMemTable(ArrayVec::new());
    assert_eq!(message.payload()[..], [0; 8]);
    message
}

#[track_caller]
fn order(error: &SessionError) {
    assert!(matches!(error, SessionError::PostcopyOrder { .. }), "{error}");
}

#[test]
fn it_is_offered_instead_of_memory_slots() {
    let mut bench = Bench::with(|device| device.postcopy = true);
    let offered = bench.ok(M::GetProtocolFeatures).unwrap();
    let other = ProtocolFeatures::PAGEFAULT | ProtocolFeatures::CONFIGURE_MEM_SLOTS;
    assert_eq!(offered ^ IMPLEMENTED.bits(), other.bits());
    bench.refused(M::SetProtocolFeatures(other.bits()));
}

#[test]
fn a_guest_arrives_while_its_memory_is_on_the_way() {
    let mut bench = ready(|_| ());
    advise(&mut bench);
    // QEMU asks for an acknowledgement of these, and of the first SET_MEM_TABLE.
    assert_eq!(bench.send(&M::PostcopyListen, true).unwrap().reply, Some(Reply::U64(0)));
    let answer = bench.send(&table([region(1), region(0)]), true).unwrap();
    let placed =
        [1, 0].map(|number| MemoryRegion { user_addr: PLACED + number * MEMORY, ..region(number) });
    assert_eq!(answer.reply, Some(Reply::MemTable(placed.into_iter().collect())));
    let calls = bench.calls.take();
    assert!(matches!(calls[..], [Call::Advise, Call::Memory(_), Call::Missing]), "{calls:?}");
    // The second one has none of its own, and the one after it is not affected.
    let answer = bench.send(&faults_are_served(), false).unwrap();
    assert_eq!(answer.reply, Some(Reply::U64(0)));
    assert_eq!(bench.send(&M::SetOwner, false).unwrap().reply, None);
    bench.start(0);
    assert_eq!(bench.calls.take(), [Call::Acknowledged, Call::Start(started(0))]);
    // One reply, asked for or not.
    assert_eq!(bench.send(&M::PostcopyEnd, true).unwrap().reply, Some(Reply::U64(0)));
    assert_eq!(bench.calls.take(), [Call::EndPostcopy]);
    // Memory is as ever from now on, and the guest may come again.
    assert_eq!(bench.send(&table([region(0)]), true).unwrap().reply, Some(Reply::U64(0)));
    advise(&mut bench);
    assert_eq!(bench.ok(M::PostcopyEnd), Some(0), "the migration did not take place");
}

#[test]
fn acknowledgements_are_owed_once_each() {
    for (first, second) in [(false, false), (false, true), (true, true)] {
        let mut bench = listening();
        bench.send(&table([region(0)]), first).unwrap();
        let answer = bench.send(&faults_are_served(), second).unwrap();
        assert_eq!(answer.reply, second.then_some(Reply::U64(0)));
        assert_eq!(bench.send(&M::SetOwner, false).unwrap().reply, None);
    }
}

#[test]
fn messages_out_of_turn_are_refused() {
    let mut bench = ready(|_| ());
    order(&bench.refused(M::PostcopyListen));
    order(&bench.send(&M::PostcopyEnd, true).unwrap_err());
    bench.ok(table([region(0)]));
    advise(&mut bench);
    // It has memory already, of which nobody would tell the front-end.
    order(&bench.refused(M::PostcopyListen));

    let mut bench = listening();
    order(&bench.refused(M::PostcopyListen));
    let answer = bench.send(&M::PostcopyAdvise, false).unwrap();
    assert_eq!((answer.reply, answer.attached.is_none()), (Some(Reply::Empty), true));
    order(&answer.refused.unwrap());
    // An empty table is a word only where its turn is.
    assert!(matches!(bench.refused(faults_are_served()), SessionError::NoMemory));
    bench.send(&table([region(0)]), false).unwrap();
    bench.calls.take();
    for message in [table([region(0)]), M::PostcopyListen, M::SetVringKick(with_fd(0))] {
        order(&bench.refused(message));
    }
    for message in [M::PostcopyEnd, M::GetFeatures] {
        order(&bench.send(&message, false).unwrap_err());
    }
    assert_eq!(bench.calls.take(), []);
    bench.ok(faults_are_served());
}

#[test]
fn a_device_that_cannot_says_so_and_stays_connected() {
    let mut bench = ready(|device| device.refuse = Some("advise_postcopy"));
    let answer = bench.send(&M::PostcopyAdvise, false).unwrap();
    assert_eq!((answer.reply, answer.attached.is_none()), (Some(Reply::Empty), true));
    assert!(matches!(answer.refused, Some(SessionError::Backend { .. })));
    bench.ok(M::GetFeatures);

    let mut bench = ready(|device| device.refuse = Some("set_memory"));
    advise(&mut bench);
    bench.ok(M::PostcopyListen);
    bench.refused(table([region(0)]));
    assert_eq!(bench.calls.take(), [Call::Advise]);
}
