//! Each test enters in a process of its own: there is no way back.

use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use super::*;

/// Runs the ignored test `name` of this module in a process of its own.
fn child(name: &str, dir: &Path) -> Output {
    let test = format!("sandbox::tests::{name}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("SANDBOX_TEST_DIR", dir).output().unwrap()
}

fn passes(name: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["in", "out", "changed"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        std::fs::write(dir.path().join(folder).join("file"), "text").unwrap();
    }
    let output = child(name, dir.path());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    err
}

fn dir() -> PathBuf {
    std::env::var_os("SANDBOX_TEST_DIR").unwrap().into()
}

/// Enters on this thread; what test harness and C library need is for them.
fn enter_with(needs: Needs) -> Entered {
    enter(needs.path("/proc/self", Reach::READ)).unwrap()
}

fn status(field: &str) -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

#[test]
fn capabilities_are_given_up() {
    passes("enters_and_looks_at_capabilities");
}

#[test]
#[ignore = "run by capabilities_are_given_up"]
fn enters_and_looks_at_capabilities() {
    let had = u64::from_str_radix(&status("CapPrm"), 16).unwrap();
    let entered = enter_with(Needs::new().capabilities(CapabilitySet::NET_RAW));
    assert!(["cap_net_raw", "none"].contains(&entered.capabilities().as_str()));
    let kept = format!("{:016x}", had & CapabilitySet::NET_RAW.bits());
    assert_eq!((status("CapEff"), status("CapPrm")), (kept.clone(), kept.clone()));
    assert_eq!((status("CapInh"), status("CapAmb")), ("0".repeat(16), "0".repeat(16)));
    if had & CapabilitySet::SETPCAP.bits() != 0 {
        assert_eq!(status("CapBnd"), kept);
    }
    assert_eq!((status("NoNewPrivs").as_str(), status("Seccomp").as_str()), ("1", "2"));
    // A thread that comes later has no more.
    let thread = std::thread::spawn(|| (status("CapEff"), status("Seccomp")));
    assert_eq!(thread.join().unwrap(), (kept, "2".to_owned()));
    let wants = |capability| entered.permits(&Needs::new().capabilities(capability));
    assert_eq!(wants(CapabilitySet::NET_RAW), Ok(()));
    let had = CapabilitySet::from_bits_retain(had);
    let gone = had.contains(CapabilitySet::SYS_ADMIN);
    assert_eq!(wants(CapabilitySet::SYS_ADMIN).is_err(), gone, "what was never there is not gone");
}

#[test]
fn files_are_out_of_reach() {
    passes("enters_and_opens_files");
}

#[test]
#[ignore = "run by files_are_out_of_reach"]
fn enters_and_opens_files() {
    let [inside, outside, changed] = ["in", "out", "changed"].map(|folder| dir().join(folder));
    let needs = Needs::new().path(&inside, Reach::SOCKETS | Reach::READ);
    let entered = enter_with(needs.path(&changed, Reach::WRITE));
    assert!(entered.files, "these tests need Landlock");
    assert_eq!(std::fs::read_to_string(inside.join("file")).unwrap(), "text");
    for refused in ["/etc/shadow", "/proc/1/environ", "/dev/null"] {
        assert!(std::fs::File::open(refused).is_err(), "{refused}");
    }
    assert!(std::fs::read_to_string(outside.join("file")).is_err());
    assert!(std::fs::write(inside.join("file"), "other").is_err());
    assert!(std::fs::write(inside.join("new"), "other").is_err());
    // All of a file that is there, as those of sysfs are written.
    std::fs::write(changed.join("file"), "other").unwrap();
    assert!(std::fs::write(changed.join("new"), "other").is_err());
    let path = inside.join("socket");
    drop(UnixListener::bind(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    assert!(UnixListener::bind(outside.join("socket")).is_err());
    assert!(std::fs::remove_file(outside.join("file")).is_err());
    assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
    let wants = |path: &Path, reach| entered.permits(&Needs::new().path(path, reach));
    assert_eq!(wants(&inside, Reach::SOCKETS), Ok(()));
    assert_eq!(wants(&inside, Reach::FILES), Err(Missing::Path(inside.clone())));
    assert_eq!(wants(&outside, Reach::SOCKETS), Err(Missing::Path(outside.clone())));
    assert_eq!(wants(&outside.join("none"), Reach::READ), Ok(()), "for others to tell");
}

#[test]
fn calls_that_are_not_on_the_list_fail_and_are_told_once() {
    let told = passes("enters_and_calls");
    let count = |call: &str| told.matches(&format!("refused the system call {call} (")).count();
    assert_eq!((count("unshare"), count("socket"), count("bpf")), (1, 1, 1));
}

#[test]
#[ignore = "run by calls_that_are_not_on_the_list_fail_and_are_told_once"]
fn enters_and_calls() {
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, socket};
    let entered = enter_with(Needs::new());
    assert!(entered.calls, "these tests need seccomp");
    for _ in 0..3 {
        // SAFETY: it is refused, and what it would do is safe.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
        assert_eq!(unshared, -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
    }
    let started = Command::new("/bin/true").status();
    assert_eq!(started.unwrap_err().raw_os_error(), Some(libc::EPERM));
    // SAFETY: no arguments are read before it is refused.
    assert_eq!(unsafe { libc::syscall(libc::SYS_bpf, 0, 0, 0) }, -1);
    assert!(socket(AddressFamily::UNIX, SocketType::STREAM, None).is_ok());
    let vsock = AddressFamily::from_raw(40);
    assert_eq!(socket(vsock, SocketType::STREAM, None).unwrap_err(), Errno::PERM);
    let both = rustix::mm::ProtFlags::WRITE | rustix::mm::ProtFlags::EXEC;
    let flags = rustix::mm::MapFlags::PRIVATE;
    // SAFETY: new memory, which would go with the process.
    let mapped = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, both, flags) };
    assert_eq!(mapped.unwrap_err(), Errno::PERM);
    assert!(crate::SharedMemory::allocate("test", 1 << 16).is_ok());
    assert!(crate::Workers::new().is_ok());
    assert_eq!(entered.permits(&Needs::new().calls(Calls::BPF)), Err(Missing::Calls));
}

#[test]
fn needs_add_up() {
    let needs = Needs::new()
        .folder_of("/run/a.sock", Reach::SOCKETS)
        .folder_of("b.sock", Reach::SOCKETS)
        .and(Needs::new().path("/run", Reach::READ).calls(Calls::BPF));
    assert_eq!(needs.paths.get(Path::new("/run")), Some(&(Reach::SOCKETS | Reach::READ)));
    assert_eq!(needs.paths.get(Path::new(".")), Some(&Reach::SOCKETS));
    assert_eq!(needs.calls, Calls::BPF);
}

#[test]
fn roots_right_to_pass_over_permissions_is_seen_to_be_needed() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!paths::overrides_permissions([dir.path()]).unwrap());
    let missing = dir.path().join("none");
    assert!(!paths::overrides_permissions([missing.as_path()]).unwrap());
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o500))
        .unwrap();
    assert!(paths::overrides_permissions([dir.path()]).unwrap());
}
