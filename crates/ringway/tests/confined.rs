//! A switch that may not do what others may.

#![allow(unsafe_code, reason = "system calls that have no safe form")]
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use std::io;
use std::thread;

use support::Switch;

/// Has memfd_create(2) refused to this thread and to what it starts, as a container's seccomp
/// filter does (seccomp(2)).
fn refuse_memfd() {
    // A bare statement of classic BPF: no jumps.
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    let number = u32::try_from(libc::SYS_memfd_create).unwrap();
    let refusal = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
    // The number is the first word of `struct seccomp_data`.
    let is_memfd = libc::sock_filter {
        jf: 1,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number)
    };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        is_memfd,
        statement(libc::BPF_RET | libc::BPF_K, refusal),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let len = u16::try_from(filter.len()).unwrap();
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the first call takes numbers only, the second a program of `len` statements, which
    // outlives the call.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(set, "{}", io::Error::last_os_error());
}

#[test]
fn a_switch_needs_no_memfd() {
    let test = thread::spawn(|| {
        refuse_memfd();
        let dir = tempfile::tempdir().unwrap();
        let ports = ["a", "b"].map(|name| {
            let socket = dir.path().join(format!("{name}.sock"));
            format!("{name}=vhost-user:{}", socket.display())
        });
        let back = format!("c=virtio-user:{}", dir.path().join("a.sock").display());
        let [a, b] = &ports;
        let mut switch = Switch::start(dir.path(), &["--port", a, "--port", b, "--port", &back]);
        assert!(switch.ready.contains("3 ports"), "{}", switch.ready);
        // The ports of one switch are connected with each other: shared memory, too.
        let is_up = |name: &str| {
            let ports = switch.show("ports");
            let ports = ports["ports"].as_array().unwrap();
            ports.iter().any(|port| port["name"] == name && port["link_up"] == true)
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !is_up("a") || !is_up("c") {
            assert!(std::time::Instant::now() < deadline, "{}", switch.show("ports"));
            thread::yield_now();
        }
        assert!(switch.terminate().0.success(), "{}", switch.log());
    });
    test.join().unwrap();
}
