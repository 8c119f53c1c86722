//! Pagers as they run, with this test program for theirs.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use eal::Mapping;
use virtio::GuestMemory;
use virtio::memory::Region;

use super::*;
use crate::backend::RegionFile;
use crate::testing::faults::{FaultServer, file, pagers, serve_pager, wait_readable};

const PAGE: u64 = 4096;

/// One that is there, for as long as the process is that has started it.
fn pager() -> (Arc<Pagers>, Pager) {
    let pagers = pagers("postcopy::tests::the_process_itself");
    let coming = pagers.order().unwrap();
    coming.wait().unwrap();
    (pagers, coming.arrive().unwrap().unwrap())
}

#[test]
#[ignore = "what other tests start"]
fn the_process_itself() {
    serve_pager();
}

/// The next report of a pager.
fn report(pager: &Pager) -> Report {
    wait_readable(&**pager.link());
    pager.link().next_report().unwrap()
}

fn region(memory: &File, offset: u64, len: u64) -> RegionFile<'_> {
    RegionFile { guest_addr: 0, fd: memory.as_fd(), offset, len }
}

#[test]
fn a_pager_waits_for_pages_and_tells_when_they_are_there() {
    let (_pagers, mut pager) = pager();
    let memory = file(8);
    let userfault = pager.take_userfault().unwrap();
    assert!(pager.take_userfault().is_none());
    let at = pager.map(&[region(&memory, 0, 8 * PAGE)]).unwrap()[0];
    assert_eq!(report(&pager), Report::Mapped);
    let server = FaultServer::new(userfault, &memory, at);
    // Several at once; they come in whatever order the front-end likes.
    for page in [3, 5] {
        assert!(pager.link().touch(at + page * PAGE));
    }
    let mut faults = [server.next(), server.next()];
    faults.sort_unstable();
    assert_eq!(faults, [3, 5]);
    assert_eq!(pager.link().next_report(), None);
    for page in [5, 3] {
        server.bring(page, b"late");
        assert_eq!(report(&pager), Report::Touched(at + page * PAGE));
    }
    // One that is there already, and one that nobody has.
    memory.write_all_at(b"x", 7 * PAGE).unwrap();
    assert!(pager.link().touch(at - PAGE) && pager.link().touch(at + 7 * PAGE + 9));
    assert_eq!(report(&pager), Report::Touched(at + 7 * PAGE + 9));
}

#[test]
fn regions_lie_as_in_their_files_and_never_twice_in_one_place() {
    let (_pagers, mut pager) = pager();
    let memory = file(8);
    let regions = [region(&memory, 0, 1), region(&memory, PAGE + 5, PAGE)];
    let mut seen = Vec::new();
    for _ in 0..2 {
        let places = pager.map(&regions).unwrap();
        assert_eq!(report(&pager), Report::Mapped);
        assert_eq!(places[1] % PAGE, 5);
        assert!(places.iter().all(|at| !seen.contains(at)));
        seen.extend(places);
    }
    let error = pager.map(&[region(&memory, 0, u64::MAX)]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
}

#[test]
fn a_pager_ends_with_its_migration_whatever_it_waits_for() {
    let (_pagers, mut pager) = pager();
    let memory = file(1);
    let userfault = pager.take_userfault().unwrap();
    let at = pager.map(&[region(&memory, 0, PAGE)]).unwrap()[0];
    assert_eq!(report(&pager), Report::Mapped);
    assert!(pager.link().touch(at));
    let server = FaultServer::new(userfault, &memory, at);
    assert_eq!(server.next(), 0);
    let link = Arc::clone(pager.link());
    drop(pager);
    wait_readable(&*link);
    assert_eq!(link.next_report(), Some(Report::Gone));
}

#[test]
fn a_pager_has_nothing_that_a_front_end_could_use() {
    let (_pagers, pager) = pager();
    let info = format!("/proc/self/fdinfo/{}", pager.process().as_raw_fd());
    let info = std::fs::read_to_string(info).unwrap();
    let id = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim();
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let tasks: Vec<_> = tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .collect();
    let having = |line: &str| tasks.iter().filter(|status| status.contains(line)).count();
    assert_eq!(having("Seccomp:\t2\n"), tasks.len(), "a filter for each thread");
    assert_eq!(having("NoNewPrivs:\t1\n"), tasks.len());
    // The thread of this test program that waits for the one that is the pager is no part of it.
    assert!(having("CapPrm:\t0000000000000000\n") >= tasks.len() - 1);
}

#[test]
fn a_pager_that_cannot_go_on_says_that_it_is_gone() {
    let (_pagers, mut pager) = pager();
    let null = File::open("/dev/null").unwrap();
    pager.map(&[region(&null, 0, PAGE)]).unwrap();
    assert_eq!(report(&pager), Report::Gone);
    assert_eq!(report(&pager), Report::Gone, "and stays it");
}

#[test]
fn a_program_that_is_no_pager_is_told() {
    // This one is a pager only where it is told by which test.
    assert!(matches!(Pagers::shared().unwrap_err(), PagersError::Unprepared));
    let pagers = Pagers::start(Command::new("true")).unwrap();
    // It may be gone before it is asked, or after.
    if let Ok(coming) = pagers.order() {
        drop(pagers);
        coming.wait().unwrap();
        assert!(coming.arrive().is_err());
    }
    assert!(matches!(
        Pagers::start(Command::new("/nonexistent")).unwrap_err(),
        PagersError::Start(_)
    ));
}

#[test]
fn pages_are_known_to_be_there_once_they_are_marked() {
    const AT: u64 = 0x1000_0000_0000;
    let memory = file(200);
    let map = |offset, len| Arc::new(Mapping::map(memory.as_fd(), offset, len).unwrap());
    // The second region begins and ends within pages.
    let regions = [(0, map(0, 100 * PAGE)), (1 << 30, map(100 * PAGE + 100, 2 * PAGE))];
    let region = |(guest_addr, mapping): &(u64, Arc<Mapping>)| Region {
        guest_addr: *guest_addr,
        user_addr: *guest_addr,
        mapping: Arc::clone(mapping),
    };
    let guest = GuestMemory::new(regions.iter().map(region).collect()).unwrap();
    let places = [(0, AT), (1 << 30, AT + (1 << 30) + 100)];
    let pages = Pages::new(&guest, &places);
    let missing = |region: usize, offset: usize, len: usize| {
        // SAFETY: it is not accessed.
        let host = unsafe { regions[region].1.ptr().add(offset) };
        let mut missing = Vec::new();
        let all = pages.check(host, len, |page| missing.push(page));
        assert!(!all || missing.is_empty());
        (all, missing)
    };
    assert_eq!(missing(0, 0, 0), (true, vec![]));
    assert_eq!(missing(0, 4095, 2), (false, vec![AT, AT + PAGE]));
    pages.mark_present(AT + 17);
    assert!(pages.is_present(AT) && !pages.is_present(AT + PAGE));
    assert_eq!(missing(0, 4095, 2), (false, vec![AT + PAGE]));
    pages.mark_present(AT + PAGE);
    assert_eq!(missing(0, 0, 8192), (true, vec![]));
    // Three pages for two pages' length.
    let second = AT + (1 << 30);
    assert_eq!(missing(1, 0, 8192), (false, vec![second, second + PAGE, second + 2 * PAGE]));
    for page in 0..3 {
        pages.mark_present(second + page * PAGE);
    }
    assert_eq!(missing(1, 0, 8192), (true, vec![]));
    // What is not the guest's is never there, and marks for it change nothing.
    assert_eq!(missing(0, 0, usize::MAX), (false, vec![]));
    let elsewhere = 0_u8;
    assert!(!pages.check(std::ptr::NonNull::from(&elsewhere), 1, |_| panic!("it has no page")));
    for outside in [0, AT - 1, AT + 100 * PAGE, second + 3 * PAGE, u64::MAX] {
        pages.mark_present(outside);
        assert!(pages.is_present(outside));
    }
    assert!(!pages.is_present(AT + 2 * PAGE));
}

#[test]
fn pages_far_apart_are_kept_apart() {
    const AT: u64 = 0x1000_0000_0000;
    const FAR: u64 = 1 << 30;
    let memory = file(1 << 20);
    let mapping = Arc::new(Mapping::map(memory.as_fd(), 0, PAGE << 20).unwrap());
    let region = Region { guest_addr: 0, user_addr: 0, mapping };
    let pages = Pages::new(&GuestMemory::new(vec![region]).unwrap(), &[(0, AT)]);
    let marked = [0, 63, 64, 32_767, 32_768, FAR / PAGE, (1 << 20) - 1];
    for page in marked {
        assert!(!pages.is_present(AT + page * PAGE));
        pages.mark_present(AT + page * PAGE);
    }
    let present = (0..1 << 20).filter(|page| pages.is_present(AT + page * PAGE));
    assert_eq!(present.collect::<Vec<_>>(), marked);
}
