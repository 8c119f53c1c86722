//! The keys.

/// Lines of the help: a key and what it does.
pub const LINES: &[(&str, &str)] = &[
    ("1 to 7, Tab", "ports, workers, queues, bridges, bonds, mirrors, vDPA devices"),
    ("arrows, j k", "up and down; PgUp PgDn by pages, g G to the ends"),
    ("Enter", "all there is to tell of the marked row; again: back"),
    ("< >", "sort by another column; so do left and right"),
    ("r", "sort the other way round"),
    ("/", "only rows with these words in name, device, VMM, bridge, address;"),
    ("", "or with the link: up, down, off, shut"),
    ("Esc", "all rows again"),
    ("p, space", "stand still, and go on"),
    ("+ -", "look less often, or more often"),
    ("Ctrl-L", "draw the screen anew"),
    ("q, Ctrl-C", "end"),
    ("rx, tx", "from the port into the switch; from there to the port"),
    ("pps, b/s", "frames and bits a second, without frame check sequences"),
    ("drop/s, why", "frames dropped a second, and the reason of most of them"),
    ("load", "of a worker: the share of its time in which it had frames;"),
    ("", "of a queue: its part of that, by its share of the frames"),
    ("burst", "frames that a worker finds at once, 32 at most"),
];
