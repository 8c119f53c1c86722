//! What a cloud of OVN has besides guests, wherever these are: a router, a load balancer, and DHCP.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use e2e::{Netns, Ovn, wait};

use super::LIMIT;

const PAUSE: Duration = Duration::from_millis(20);

/// Joins the logical switch `inside` by a router to another one, `outside`. The router has the last address but
/// one of both.
pub fn add_router(ovn: &Ovn) {
    do_line(
        ovn,
        "ls-add outside -- lr-add router \
         -- lrp-add router to-inside 02:00:00:00:01:00 192.0.2.254/24 \
         -- lrp-add router to-outside 02:00:00:00:01:01 198.51.100.254/24",
    );
    add_router_port(ovn, "inside");
    add_router_port(ovn, "outside");
}

/// Joins a logical switch to the port of the router that is for it.
pub fn add_router_port(ovn: &Ovn, switch: &str) {
    do_line(
        ovn,
        &format!(
            "lsp-add {switch} {switch}-up -- lsp-set-type {switch}-up router \
             -- lsp-set-addresses {switch}-up router \
             -- lsp-set-options {switch}-up router-port=to-{switch}"
        ),
    );
}

/// Has guest 3, which is 198.51.100.3, serve what is asked for at an address of the load balancer of `inside`, and
/// each of the clients ask there.
pub fn balance_page(ovn: &Ovn, dir: &Path, server: &Netns, clients: &[&Netns]) {
    do_line(
        ovn,
        "lb-add balancer 203.0.113.1:80 198.51.100.3:8080 tcp -- ls-lb-add inside balancer",
    );
    std::fs::write(dir.join("page"), "served").unwrap();
    let serve = format!("busybox httpd -f -p 8080 -h {}", dir.display());
    let _server = server.spawn(&serve).unwrap();
    let ask = "busybox timeout 3 busybox wget -q -O - http://203.0.113.1/page";
    for client in clients {
        let page = wait::until_ok("a page", LIMIT, PAUSE, || client.sh(ask));
        assert_eq!(page.with_context(|| ovn.log()).unwrap(), "served");
    }
}

/// Has `guest1` ask for the address that it has, 192.0.2.1: OVN's controller answers, and the packet waits for that.
pub fn lease(ovn: &Ovn, guest: &Netns) {
    let options = "options={lease_time=\"3600\",router=\"192.0.2.254\",\
                   server_id=\"192.0.2.254\",server_mac=\"02:00:00:00:01:00\"}";
    let create = format!("--id=@options create DHCP_Options cidr=192.0.2.0/24 {options}");
    do_line(ovn, &format!("{create} -- set Logical_Switch_Port guest1 dhcpv4_options=@options"));
    let dhcp = "busybox udhcpc -i guest1 -n -q -f -t 20 -T 1 -s /bin/true 2>&1";
    let lease = guest.sh(dhcp).unwrap();
    assert!(lease.contains("lease of 192.0.2.1 obtained from 192.0.2.254"), "{lease}");
}

/// Runs `ovn-nbctl` with the words of a line.
pub fn do_line(ovn: &Ovn, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    ovn.nbctl(&words).unwrap();
}
