//! Commands to a running switch: what they mean, and what they say when they fail.

mod support;

use std::fs::File;
use std::process::Stdio;

use support::{Switch, ringway};

#[test]
fn a_port_is_added_as_the_command_says_from_the_folder_of_the_command() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = elsewhere.path().to_str().unwrap();
    let args = ["--port", "a=null:", "--workers", "2", "--allow-path", folder];
    let switch = Switch::start(dir.path(), &args);
    let add = |options: &[&str]| {
        let mut command = ringway();
        command.args(["port", "add", "b=vhost-user:vm.sock,queues=2"]).args(options);
        command.arg("--control").arg(&switch.control).current_dir(elsewhere.path());
        command.output().unwrap()
    };
    let refused = add(&["--workers", "7"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("worker 7"));
    let added = add(&["--mtu", "9000", "--workers", "1,1"]);
    assert!(added.status.success(), "{added:?}");
    let socket = elsewhere.path().join("vm.sock");
    assert!(socket.exists());
    let ports = switch.show("ports");
    let port = &ports["ports"][1];
    assert_eq!(port["device"], format!("vhost-user:{},queues=2", socket.display()));
    assert_eq!((&port["mtu"], &port["rx_workers"]), (&9000.into(), &vec![1, 1].into()));
}

#[test]
fn static_entries_have_vlans_and_their_moves_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(dir.path(), &["--port", "a=null:", "--port", "b=null:"]);
    let address = "52:54:00:00:00:01";
    let add = |port: &str, vlan: &str| switch.tell(&["fdb", "add", address, port, "--vlan", vlan]);
    assert_eq!(add("a", "7"), format!("{address} is now always behind a\n"));
    assert_eq!(add("a", "7"), format!("{address} is now always behind a\n"));
    assert!(add("b", "7").ends_with("behind b, and no more behind a\n"));
    let fdb = switch.show("fdb");
    assert_eq!((&fdb["entries"][0]["vlan"], &fdb["entries"][0]["port"]), (&7.into(), &"b".into()));
    assert_eq!(switch.ask(&["fdb", "del", address]).status.code(), Some(1), "none without a VLAN");
    switch.tell(&["fdb", "del", address, "--vlan", "7"]);
    let wrong = switch.ask(&["fdb", "add", address, "a", "--vlan", "4095"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn output_that_is_lost_is_a_failure_and_a_reader_that_has_enough_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(dir.path(), &["--port", "a=null:"]);
    let show = |out: Stdio| {
        let mut command = ringway();
        command.args(["show", "ports", "--control"]).arg(&switch.control);
        command.stdout(out).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
    };
    let full = show(File::options().write(true).open("/dev/full").unwrap().into());
    assert_eq!(full.status.code(), Some(1));
    let errors = String::from_utf8(full.stderr).unwrap();
    assert!(errors.contains("No space left"), "{errors}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(show(writer.into()).status.success());
}

#[test]
fn a_file_says_more_than_the_environment_where_the_socket_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = Switch::start(dir.path(), &["--port", "a=null:"]);
    let file = dir.path().join("ringway.toml");
    let control = dir.path().join("second.sock");
    let text = format!("control = {:?}\n[ports.b]\ndevice = \"null:\"\n", control.display());
    std::fs::write(&file, text).unwrap();
    let mut second = ringway();
    second.args(["switch", "--config"]).arg(&file).env("RINGWAY_CONTROL", &first.control);
    let mut second = second.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    let mut lines = std::io::BufReader::new(second.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut ready).unwrap();
    assert!(ready.contains("second.sock"), "{ready}");
    let shown = ringway().args(["show", "ports"]).env("RINGWAY_CONTROL", &control).output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    assert!(shown.contains("null:") && !shown.contains("a  "), "{shown}");
    second.kill().unwrap();
    second.wait().unwrap();
    // A user who forgets what sudo drops is told.
    let mut lost = ringway();
    lost.args(["show", "ports"]).env("SUDO_USER", "me").env("RINGWAY_CONTROL", "/nonexistent");
    let lost = lost.output().unwrap();
    assert!(String::from_utf8(lost.stderr).unwrap().contains("sudo drops"));
}
