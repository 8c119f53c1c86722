//! Others listen to what goes between a bridge and its controller, and the log has it.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::ovsdb::environment;
use e2e::{Peer, Process, require_shared, wait};
use openflow::message::hello::Hello;
use openflow::message::{Kind, Message};
use openflow::{Version, VersionSet};

use super::{LIMIT, Lab, receive};

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(20);

#[test]
fn what_a_controller_says_is_heard_and_logged() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let path = dir.path().join("controller");
    let listener = UnixListener::bind(&path).unwrap();
    let set = format!("set-controller br0 unix:{}", path.display());
    // Nobody answers before all is in place.
    lab.vsctl(&format!("{set} -- set Controller br0 inactivity_probe=0"));
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
    let deadline = Instant::now() + LIMIT;
    while !snoop.log().contains(heard) {
        assert!(Instant::now() < deadline, "{}", snoop.log());
        switch.write_all(&ask).unwrap();
        receive(&mut switch);
    }
    assert!(snoop.log().contains("OFPT_GET_CONFIG_REQUEST (xid=0x7):"), "{}", snoop.log());
    for said in [
        "received: OFPT_HELLO (xid=0x1):\n version bitmap: 0x01",
        "negotiated OpenFlow version 0x01 (we support version 0x06 and earlier, peer supports version 0x01)",
        "sent (Success): OFPT_GET_CONFIG_REPLY (xid=0x7): frags=normal miss_send_len=128",
    ] {
        // It is written down once it is on its way.
        let told = || Ok(lab.switch.log().contains(said).then_some(()));
        wait::until(said, LIMIT, PAUSE, told).with_context(|| lab.switch.log()).unwrap();
    }
}
