//! The screen, drawn into a buffer, and keys.

use std::time::Duration;

use proptest::prelude::*;
use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;

use super::app::{App, Effect, Over};
use super::canvas::Canvas;
use super::columns::View;
use super::draw::{Look, draw};
use super::keys::Key;
use super::testing::{sample, with_more};
use super::{help, plain};

/// What the screen shows.
fn screen(app: &mut App, width: u16, height: u16) -> String {
    let look = Look { colour: true, unicode: false };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(app, &mut Canvas::new(frame.buffer_mut(), look.colour), look))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row: &[ratatui_core::buffer::Cell]| {
        let text: String = row.iter().map(ratatui_core::buffer::Cell::symbol).collect();
        text.trim_end().to_owned()
    };
    buffer.content.chunks(width.into()).map(line).collect::<Vec<_>>().join("\n")
}

fn app(ports: &[(&str, u64, u64)]) -> App {
    let mut app = App::new(View::Ports, None, "", Duration::from_secs(1));
    app.take(sample(10, &ports.iter().map(|(name, ..)| (*name, 0, 0)).collect::<Vec<_>>()));
    app.take(sample(11, ports));
    app
}

fn press(app: &mut App, keys: &str) {
    for key in keys.chars() {
        app.key(match key {
            '\n' => Key::Enter,
            '\x1b' => Key::Esc,
            key => Key::Char(key),
        });
    }
}

/// The names in the first column, in order.
fn names(app: &mut App) -> Vec<String> {
    let text = screen(app, 80, 24);
    let lines = text.lines().skip(5).take(18).filter(|line| !line.is_empty());
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_screen_of_80_by_24_has_rates_drops_and_workers() {
    let mut app = app(&[("vm1", 1_500_000, 0), ("vm2", 10, 250)]);
    let text = screen(&mut app, 80, 24);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 24);
    assert!(lines[0].starts_with("ringway 1.2.3  pid 77  up 11s  ports 2 of 2 up"), "{text}");
    assert!(lines[0].ends_with("every 1 s"), "{text}");
    assert!(lines[1].contains("rx 1.50M pps 1.20G b/s  tx 0 pps"), "{text}");
    assert!(lines[1].contains("dropped 250/s: ring_full 250"), "{text}");
    assert!(lines[2].starts_with("worker 0 [|||||     ]  50%"), "{text}");
    let titles = "port link rx pps rx b/s tx pps tx b/s drop/s why         vmm";
    assert!(lines[4].starts_with(titles), "{text}");
    assert!(lines[5].starts_with("vm1  up    1.50M  1.20G      0      0      0"), "{text}");
    assert!(
        lines[6].starts_with("vm2  up       10  8.00k      0      0    250 ring_full"),
        "{text}"
    );
    assert!(lines[23].ends_with("q quit"), "{text}");
}

#[test]
fn rows_are_sorted_filtered_and_scrolled() {
    let many: Vec<(String, u64, u64)> =
        (1..=256).map(|n| (format!("vm{n}"), n % 7, u64::from(n == 200))).collect();
    let many: Vec<(&str, u64, u64)> =
        many.iter().map(|(name, packets, dropped)| (name.as_str(), *packets, *dropped)).collect();
    let mut app = app(&many);
    assert_eq!(names(&mut app)[..3], ["vm6", "vm13", "vm20"]);
    press(&mut app, "r");
    assert_eq!(names(&mut app)[..3], ["vm7", "vm14", "vm21"]);
    // By drops.
    press(&mut app, ">>>>");
    assert_eq!(names(&mut app)[0], "vm200");
    assert!(screen(&mut app, 80, 24).contains("by drop/s"));
    // By name, and then the last page.
    press(&mut app, "<<<<<<G");
    assert_eq!(names(&mut app).last().unwrap(), "vm256");
    press(&mut app, "kkg");
    assert_eq!(names(&mut app)[0], "vm1");
    press(&mut app, "/VM25\n");
    assert_eq!(names(&mut app).len(), 8);
    let text = screen(&mut app, 80, 24);
    assert!(text.contains("with 'VM25': 8 of 256"), "{text}");
    press(&mut app, "/\x1b");
    assert_eq!(names(&mut app).len(), 18);
    press(&mut app, "/no such\n");
    assert!(screen(&mut app, 80, 24).contains("nothing has such a word"));
}

#[test]
fn a_port_is_told_of_in_full() {
    let mut app = app(&[("vm1", 1000, 0), ("vm2", 10, 250)]);
    app.take(sample(12, &[("vm1", 4000, 0), ("vm2", 20, 250)]));
    press(&mut app, "j\n");
    let text = screen(&mut app, 80, 60);
    for expected in [
        "vm2  up",
        "vhost-user:/run/vm2.sock, bridge default",
        "52:54:00:00:00:09",
        "guest takes CSUM TSO4",
        "#  max   250",
        "rx pps     10     10     10     10     10    20 frames",
        "ring_full       0          0     0        250",
        "65 to 127 bytes",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    // In a small screen it is scrolled, and says that there is more.
    assert!(screen(&mut app, 80, 24).contains("more lines"));
    press(&mut app, "G");
    assert!(screen(&mut app, 80, 24).contains("65 to 127 bytes"));
    app.take(sample(13, &[("vm1", 4000, 0)]));
    assert!(screen(&mut app, 80, 24).contains("vm2 is not there any more"));
    press(&mut app, "\x1b");
    assert_eq!(app.over, Over::Nothing);
}

#[test]
fn a_pause_stands_still_and_a_lost_switch_is_told() {
    let mut app = app(&[("vm1", 1000, 0)]);
    press(&mut app, "p");
    app.take(sample(12, &[("vm1", 9000, 0)]));
    let text = screen(&mut app, 80, 24);
    assert!(text.contains("PAUSED") && text.contains("1.00k") && !text.contains("8.00k"), "{text}");
    press(&mut app, "p");
    app.take(sample(13, &[("vm1", 9000, 0)]));
    assert!(screen(&mut app, 80, 24).contains("4.00k"));
    app.lost = Some("no such file\x1b[2J".to_owned());
    let text = screen(&mut app, 80, 24);
    assert!(text.contains("NO ANSWER, trying again: no such file\u{fffd}[2J"), "{text}");
}

#[test]
fn keys_change_interval_and_view_and_end() {
    let mut app = app(&[("vm1", 1000, 0)]);
    assert_eq!(app.key(Key::Char('+')), Effect::Interval);
    assert_eq!(app.interval, Duration::from_secs(2));
    for _ in 0..20 {
        app.key(Key::Char('-'));
    }
    assert_eq!(app.interval, Duration::from_millis(100));
    press(&mut app, "2");
    let text = screen(&mut app, 80, 24);
    assert!(text.contains("     0 3    running   50%  1.00k"), "{text}");
    assert!(screen(&mut app, 100, 24).contains("[||||||||||          ]"));
    app.key(Key::Tab);
    assert!(screen(&mut app, 80, 24).contains("share"));
    app.key(Key::Tab);
    assert!(screen(&mut app, 80, 24).contains("learnt/s"));
    press(&mut app, "?");
    let text = screen(&mut app, 80, 24);
    for (key, what) in help::LINES {
        assert!(text.contains(key) && text.contains(what), "{key}: {what}\n{text}");
    }
    assert_eq!((app.key(Key::Char('q')), app.over.clone()), (Effect::Draw, Over::Nothing));
    for key in [Key::Char('q'), Key::Ctrl('c')] {
        assert_eq!(app.key(key), Effect::Quit);
    }
}

/// The table of a view with a bond, mirrors and a vDPA device, and what is told of a row of it.
fn view_and_detail(keys: &str, down: &str) -> [String; 2] {
    let mut app = App::new(View::Ports, None, "", Duration::from_secs(1));
    app.take(with_more(sample(10, &[("a", 0, 0), ("b", 0, 0)]), 0));
    app.take(with_more(sample(12, &[("a", 3000, 0), ("b", 0, 0)]), 500));
    press(&mut app, keys);
    let table = screen(&mut app, 80, 24);
    press(&mut app, &format!("{down}\n"));
    [table, screen(&mut app, 80, 24)]
}

fn assert_has(text: &str, all: &[&str]) {
    for expected in all {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
}

#[test]
fn bonds_have_a_row_for_each_member() {
    let [table, bond] = view_and_detail("5", "j");
    assert_has(
        &table,
        &[
            " 5 Bonds 3 ",
            "bond   member   link state      share lacp      rx pps tx pps failures",
            "empty  -        -    -              - -              -      -        0",
            "uplink a        up   active      100% current    1.50k      0        3",
            "uplink b        down not in use    0% defaulted      0      0        3",
        ],
    );
    assert_has(
        &bond,
        &[
            "bond uplink, active-backup",
            "active a, which has changed 5 times",
            "LACP negotiated, system 02:00:00:00:00:01 key 4; a current, partner",
            "b       not in use     0%",
        ],
    );
}

#[test]
fn mirrors_have_rates_and_what_they_miss() {
    let [table, disk] = view_and_detail("6", "j");
    assert_has(
        &table,
        &[
            "mirror state        pps    b/s missed/s copies       to",
            "all    active       250   200k        0 all          w",
            "disk   TROUBLE      250   200k      250 in a         /var/m.pcapng",
        ],
    );
    assert_has(
        &disk,
        &[
            "bridge default, copies in a, to /var/m.pcapng",
            "500 frames with 50,000 bytes, 500 missed",
            "No space left on device",
        ],
    );
}

#[test]
fn vdpa_devices_have_what_they_count() {
    let [table, device] = view_and_detail("7", "");
    assert_has(
        &table,
        &[
            "name state     rings pairs most/s of         device           role",
            "vm5  running       3     4    250 kicks      0000:01:00.0     server",
        ],
    );
    let expected = ["vm5  running", "rings 0,1,8", "features csum", "kicks           250     500"];
    assert_has(&device, &expected);
    let mut app = app(&[("vm1", 1, 0)]);
    for (key, expected) in [("5", "ringway bond add"), ("6", "ringway mirror add"), ("7", "vdpa:")]
    {
        press(&mut app, key);
        assert_has(&screen(&mut app, 80, 24), &["none; ", expected]);
    }
}

#[test]
fn lines_for_scripts_have_all_rows_and_fit() {
    let long = "x".repeat(32);
    let many: Vec<(String, u64, u64)> = (0..300).map(|n| (format!("vm{n}"), 5, 1)).collect();
    let mut ports: Vec<(&str, u64, u64)> =
        many.iter().map(|(name, packets, dropped)| (name.as_str(), *packets, *dropped)).collect();
    ports.push((&long, u64::MAX / 200, u64::MAX / 2));
    let app = app(&ports);
    let text = plain::text(&app, 80);
    assert_eq!(text.lines().count(), 303, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let first = text.lines().nth(2).unwrap();
    assert!(first.starts_with("xxxxxxxxxxxxxxx") && first.contains("x~ up"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// No size of a terminal, no name and no key is too much.
    #[test]
    fn it_draws_whatever_there_is(
        size in (0..230_u16, 0..70_u16),
        names in prop::collection::btree_set("\\PC{0,40}|[a-z\x1b\x07]{1,4}", 0..9),
        keys in prop::collection::vec(prop_oneof![
            Just(Key::Enter), Just(Key::Esc), Just(Key::Tab), Just(Key::Up), Just(Key::Down),
            Just(Key::PageUp), Just(Key::PageDown), Just(Key::End), Just(Key::Left),
            Just(Key::Backspace), any::<char>().prop_map(Key::Char),
            prop::sample::select(vec!['1', '2', '3', '4', '5', '6', '7', '/', 'p', '+', 'r', '?', '>'])
                .prop_map(Key::Char),
        ], 0..12),
        numbers in prop::array::uniform4(any::<u32>()),
    ) {
        let [a, b, c, d] = numbers.map(u64::from);
        let ports: Vec<(&str, u64, u64)> = names.iter().map(|name| (name.as_str(), a, b)).collect();
        let mut app = app(&ports);
        app.take(with_more(sample(11, &ports), a));
        let later: Vec<(&str, u64, u64)> = names.iter().map(|name| (name.as_str(), c, d)).collect();
        for key in keys {
            app.key(key);
            let text = screen(&mut app, size.0.max(1), size.1.max(1));
            prop_assert!(!text.contains('\x1b'));
        }
        app.take(with_more(sample(12, &later), c));
        screen(&mut app, size.0.max(1), size.1.max(1));
        plain::text(&app, size.0.into());
    }
}
