//! Others listen to what goes between a bridge and its controller, and the log has it.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::process::Command;

use e2e::ovsdb::environment;
use e2e::{Peer, Process, require_shared};
use openflow::message::hello::Hello;
use openflow::message::{Kind, Message};
use openflow::{Version, VersionSet};

use super::{LIMIT, Lab, receive};

#[test]
fn what_a_controller_says_is_heard_and_logged() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let path = dir.path().join("controller");
    let listener = UnixListener::bind(&path).unwrap();
    lab.vsctl(&format!("set-controller br0 unix:{}", path.display()));
    lab.appctl("vlog/set vconn:dbg");
    let mut snoop = Command::new("ovs-ofctl");
    snoop.arg("snoop").arg(dir.path().join("br0.snoop"));
    let (mut switch, _) = listener.accept().unwrap();
    // Its HELLO, before anybody listens.
    receive(&mut switch);
    let snoop = Process::start("snoop", environment(snoop, dir.path())).unwrap();
    switch.write_all(&Hello { versions: VersionSet::up_to(1) }.encode(1)).unwrap();
    let ask = Message::new(Version::V10, Kind::GetConfigRequest, 7).finish();
    // It listens from some moment on.
    let heard = "OFPT_GET_CONFIG_REPLY (xid=0x7): frags=normal";
    let deadline = std::time::Instant::now() + LIMIT;
    while !snoop.log().contains(heard) {
        assert!(std::time::Instant::now() < deadline, "{}", snoop.log());
        switch.write_all(&ask).unwrap();
        receive(&mut switch);
    }
    assert!(snoop.log().contains("OFPT_GET_CONFIG_REQUEST (xid=0x7):"), "{}", snoop.log());
    let log = lab.switch.log();
    for said in [
        "received: OFPT_HELLO (xid=0x1):\n version bitmap: 0x01",
        "negotiated OpenFlow version 0x01 (we support version 0x06 and earlier, peer supports version 0x01)",
        "sent (Success): OFPT_GET_CONFIG_REPLY (xid=0x7): frags=normal miss_send_len=128",
    ] {
        assert!(log.contains(said), "{said} is not in {log}");
    }
}
