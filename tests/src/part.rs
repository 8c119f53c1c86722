use serde_json::{Value, json};

/// A part of a machine that can be there from the start or be added while it runs.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// A connection of QEMU's own, such as that to a vhost-user back-end.
    Chardev(String),
    /// What is at the other end of a network device, as QMP describes it.
    Netdev(Value),
    /// A device that the guest sees.
    Device(String),
}

impl Part {
    /// Arguments of QEMU that make it.
    pub(crate) fn arguments(&self) -> [String; 2] {
        match self {
            Self::Chardev(value) => ["-chardev".to_owned(), value.clone()],
            Self::Netdev(value) => ["-netdev".to_owned(), value.to_string()],
            Self::Device(value) => ["-device".to_owned(), value.clone()],
        }
    }

    /// The command of QMP that makes it, with its arguments. That for people takes the properties of
    /// a device in the same form as the command line, but none of newer network back-ends.
    pub(crate) fn command(&self) -> (&'static str, Value) {
        let line = |line: String| ("human-monitor-command", json!({ "command-line": line }));
        match self {
            Self::Chardev(value) => line(format!("chardev-add {value}")),
            Self::Netdev(value) => ("netdev_add", value.clone()),
            Self::Device(value) => line(format!("device_add {value}")),
        }
    }
}
