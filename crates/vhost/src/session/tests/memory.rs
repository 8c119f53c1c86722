//! The memory table.

use super::*;

#[test]
fn memory_comes_as_a_table_or_one_by_one() {
    let mut bench = Bench::ready(|_| ());
    let span = |number: u64| (number * MEMORY, 0x7000_0000 + number * MEMORY, MEMORY);
    bench.ok(table((0..8).map(region)));
    bench.ok(M::AddMemReg(region(8), memory()));
    bench.ok(M::RemMemReg(region(0)));
    bench.ok(table([region(3)]));
    let calls = [
        Call::Memory((0..8).map(span).collect()),
        Call::Memory((0..9).map(span).collect()),
        Call::Memory((1..9).map(span).collect()),
        Call::Memory(vec![span(3)]),
    ];
    assert_eq!(bench.calls.take(), calls);
}

#[test]
fn a_region_goes_only_if_it_is_named_exactly() {
    let mut bench = Bench::ready(|_| ());
    let known = region(0);
    for wrong in [
        MemoryRegion { guest_addr: 1, ..known },
        MemoryRegion { user_addr: 1, ..known },
        MemoryRegion { size: 4096, ..known },
        region(1),
    ] {
        let error = bench.refused(M::RemMemReg(wrong));
        assert!(matches!(error, SessionError::NoSuchRegion { .. }), "{error}");
    }
    // The offset in the file is not part of its name, and a file may come along.
    let named = MemoryRegion { mmap_offset: 77, ..known };
    let payload = M::RemMemReg(named).payload();
    bench.raw(Header::request(38, 40, false), &payload, vec![memory()]).unwrap();
    assert_eq!(bench.calls.take(), [Call::Memory(vec![])]);
    let error = bench.refused(M::SetVringKick(with_fd(0)));
    assert!(error.to_string().contains("before SET_MEM_TABLE"), "{error}");
}

#[test]
fn regions_may_not_overlap() {
    let mut bench = Bench::ready(|_| ());
    let by_guest = MemoryRegion { guest_addr: MEMORY - 1, ..region(5) };
    let by_user = MemoryRegion { user_addr: 0x7000_0000 + MEMORY - 1, ..region(5) };
    for overlapping in [by_guest, by_user, region(0)] {
        let error = bench.refused(M::AddMemReg(overlapping, memory()));
        assert!(error.to_string().contains("overlap"), "{error}");
        let error = bench.refused(table([region(0), overlapping]));
        assert!(error.to_string().contains("overlap"), "{error}");
    }
    assert_eq!(bench.calls.take(), []);
    bench.start(0);
}

#[test]
fn regions_must_fit_their_file_and_the_address_space() {
    let mut bench = Bench::ready(|_| ());
    let known = region(9);
    for wrong in [
        MemoryRegion { size: 0, ..known },
        MemoryRegion { size: MEMORY + 1, ..known },
        MemoryRegion { size: u64::MAX, ..known },
        MemoryRegion { mmap_offset: 1, ..known },
        MemoryRegion { mmap_offset: u64::MAX - MEMORY + 1, ..known },
        MemoryRegion { mmap_offset: u64::MAX, size: 2, ..known },
        MemoryRegion { guest_addr: u64::MAX - MEMORY + 2, ..known },
        MemoryRegion { user_addr: u64::MAX - MEMORY + 2, ..known },
    ] {
        bench.refused(table([wrong]));
        bench.refused(M::AddMemReg(wrong, memory()));
    }
    for fd in [null(), event()] {
        let error = bench.refused(M::AddMemReg(known, fd));
        assert!(error.to_string().contains("share=on"), "{error}");
    }
    let error = bench.refused(table([]));
    assert!(matches!(error, SessionError::NoMemory), "{error}");
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn files_whose_pages_somebody_has_to_fetch_need_leave() {
    let program = std::env::current_exe().unwrap();
    let on_disk = || -> OwnedFd {
        let file = tempfile::tempfile_in(program.parent().unwrap()).unwrap();
        file.set_len(MEMORY).unwrap();
        file.into()
    };
    let mut bench = Bench::ready(|_| ());
    let error = bench.refused(M::AddMemReg(region(9), on_disk()));
    assert!(error.to_string().contains("tmpfs"), "{error}");
    assert_eq!(bench.calls.take(), []);
    let mut bench = Bench::ready(|device| device.kinds = MemoryKinds::Any);
    bench.ok(M::AddMemReg(region(9), on_disk()));
    assert_eq!(bench.calls.take().len(), 1);
}

#[test]
fn memory_is_limited() {
    let file = || {
        let file = memory();
        rustix::fs::ftruncate(&file, MAX_MEMORY).unwrap();
        file
    };
    let at = |place: u64, size| MemoryRegion {
        guest_addr: place,
        size,
        user_addr: place,
        mmap_offset: 0,
    };
    let mut bench = Bench::ready(|_| ());
    // One region is there already.
    let rest = at(1 << 42, MAX_MEMORY - MEMORY);
    let error = bench.refused(M::AddMemReg(at(1 << 42, MAX_MEMORY), file()));
    assert!(matches!(error, SessionError::TooMuchMemory { .. }), "{error}");
    bench.ok(M::AddMemReg(rest, file()));
    bench.refused(M::AddMemReg(at(1 << 41, 1), file()));
    let two = [at(0, MEMORY), at(1 << 42, MAX_MEMORY)].map(|region| (region, file()));
    let error = bench.refused(M::SetMemTable(two.into_iter().collect()));
    assert!(matches!(error, SessionError::TooMuchMemory { .. }), "{error}");
}

#[test]
fn memory_slots_are_limited() {
    let mut bench = Bench::ready(|_| ());
    for number in 1..MAX_SLOTS as u64 {
        bench.ok(M::AddMemReg(region(number), memory()));
    }
    let error = bench.refused(M::AddMemReg(region(1000), memory()));
    assert!(matches!(error, SessionError::NoSlot), "{error}");
    bench.ok(M::RemMemReg(region(1)));
    bench.ok(M::AddMemReg(region(1000), memory()));
}
