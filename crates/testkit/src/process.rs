//! Processes of the machine, for tests of programs that start others.

/// A process, as the kernel tells of it (proc(5)).
#[derive(Debug)]
pub struct ProcessStatus {
    /// Its number.
    pub pid: i32,
    /// That of its parent.
    pub parent: i32,
    /// That of its group.
    pub group: i32,
    /// Whether it has ended, and nobody has taken notice of it.
    pub is_zombie: bool,
    /// The first word of its command line.
    pub name: String,
}

impl ProcessStatus {
    /// All that there are.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| Self::of(name.parse().ok()?)).collect()
    }

    fn of(pid: i32) -> Option<Self> {
        let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let (stat, line) = (read("stat")?, read("cmdline")?);
        // What stands before may have blanks in it.
        let mut words = stat.rsplit_once(") ")?.1.split(' ');
        let is_zombie = words.next()? == "Z";
        let mut number = || words.next()?.parse().ok();
        let (parent, group) = (number()?, number()?);
        let name = line.split('\0').next()?.to_owned();
        Some(Self { pid, parent, group, is_zombie, name })
    }
}
