//! Replays all inputs that were worth keeping.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;

use fuzz::TARGETS;

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Plays the corpus of one target.
fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let directory = corpus().join(name);
    let mut inputs = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", directory.display());
    for path in inputs {
        // The last one named is the one that fails.
        println!("{}", path.display());
        (target.run)(&std::fs::read(path).unwrap());
    }
}

/// A test for each target.
macro_rules! replayed {
    ($($name:ident)*) => {
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*
    };
}

replayed! {
    vhost_message
    vhost_session
    vhost_options
    split_device
    packed_device
    split_driver
    packed_driver
    segments
    kernel_segments
    vhost_frontend
    vduse_session
    virtio_pci
    configuration
    control_request
    capture_file
    guarded_frame
    translated
    announced
    fragments
    tunnel_header
    lldp_frame
    spanning_tree
    bfd_session
    cfm_session
    groups
    openflow_session
    openflow_flow
    openflow_text
}

#[test]
fn every_target_is_replayed_and_has_no_other_corpus() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED);
    for entry in std::fs::read_dir(corpus()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name.as_str()), "corpus of {name}, which is no target");
    }
}
