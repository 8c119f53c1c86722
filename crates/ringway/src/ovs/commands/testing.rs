//! What tests do: they move the clock, and have frames come in on ports without a device. All of it
//! is there with `--enable-dummy` alone.

use std::time::Duration;

use ovs::device::Dummies;
use ovs::unixctl::Answer;
use packet::BURST;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::flows::collect;
use super::Appctl;
use crate::answer::MAX_WARP;

/// The most steps of one command.
const MAX_STEPS: u64 = 100_000;

/// How often the database is waited for, and for how long each time: it may be late, or never answer.
const ROUNDS: usize = 100;
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// How long workers have to see what has come by a wire, each time.
const BLINK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

const NO_TESTS: &str = "this is for tests: start ovs-vswitchd with --enable-dummy";

/// Stops the clock.
pub fn time_stop(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    if appctl.time.stop() { Ok(String::new()) } else { Err(NO_TESTS.to_owned()) }
}

/// Puts the clock forward, in steps; after each, all that is due has been done.
pub fn time_warp(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let parsed: Option<Vec<u64>> = arguments.iter().map(|text| text.parse().ok()).collect();
    let (total, step) = match parsed.as_deref() {
        Some([all]) => (*all, *all),
        Some([all, step]) => (*all, *step),
        _ => (0, 0),
    };
    if step == 0 || total > MAX_WARP || total / step > MAX_STEPS {
        return Err("invalid MSECS".to_owned());
    }
    let mut left = total;
    while left > 0 {
        let by = left.min(step);
        if !appctl.time.warp(Duration::from_millis(by)) {
            return Err(NO_TESTS.to_owned());
        }
        appctl.daemon.catch_up();
        calm(appctl);
        appctl.follow_database();
        settle(appctl);
        collect(appctl, true);
        left = left.saturating_sub(by);
    }
    Ok("warped".to_owned())
}

/// Waits until what dummy ports have said to each other by their wires has been heard, answered, and so
/// on; a peer in another process may go on for ever.
fn calm(appctl: &Appctl<'_>) {
    let switch = appctl.daemon.switch();
    for _ in 0..ROUNDS {
        let before = switch.dummies().arrivals();
        for port in &before.ports {
            // What was taken from its wire has gone where it goes, when this returns.
            let _ = switch.receive(port, &[]);
        }
        switch.catch_up();
        let after = switch.dummies().arrivals();
        if !after.waits && before == after {
            return;
        }
        // A worker may have to wake up first.
        if after.waits {
            let _ = poll(&mut [], Some(&BLINK));
        }
    }
}

/// Waits until the database has what was to be written.
fn settle(appctl: &mut Appctl<'_>) {
    for _ in 0..ROUNDS {
        let Some(fd) = appctl.agent.fd().filter(|_| appctl.agent.is_writing()) else { return };
        let interest = appctl.agent.interest() | PollFlags::IN;
        // That it fails or is interrupted is as good as that it is over.
        let _ = poll(&mut [PollFd::from_borrowed_fd(fd, interest)], Some(&NAP));
        appctl.follow_database();
    }
}

/// Numbers of ports of a data path are below this.
const MAX_PATH_NUMBER: u32 = 65_535;

/// Takes frames for what has come in on a dummy port; when this answers, they have gone where they
/// go.
pub fn receive(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [name, rest @ ..] = arguments else { return Ok(String::new()) };
    let dummy = appctl.daemon.switch().dummies().get(name).ok_or("no such dummy netdev")?;
    let (queue, frames) = frames(rest)?;
    dummy.note_received(&frames);
    let answered = appctl.daemon.switch().dummies().answered();
    for burst in frames.chunks(BURST) {
        let at = (name.as_str(), queue);
        appctl.daemon.switch().receive_at(at, burst).map_err(|error| error.to_string())?;
    }
    if appctl.daemon.switch().dummies().answered() != answered {
        // So have the answers.
        calm(appctl);
    }
    // What they say to the switch itself has been heard, too.
    appctl.daemon.switch().catch_up();
    collect(appctl, false);
    // Rules have counted them when they came, and not when somebody asks.
    appctl.daemon.switch().flush_flows();
    // And so have controllers, and collectors.
    appctl.agent.settle_controllers();
    appctl.agent.export_now(appctl.daemon);
    Ok(String::new())
}

/// The queue that they come in at, and frames as digits or in words, each perhaps with a length.
fn frames(arguments: &[String]) -> Result<(usize, Vec<Vec<u8>>), String> {
    let (mut queue, mut frames) = (0, Vec::new());
    let mut rest = arguments.iter().peekable();
    while let Some(text) = rest.next() {
        if text == "--qid" {
            let given = rest.next().and_then(|text| text.parse().ok());
            queue = given.ok_or("invalid queue id")?;
            continue;
        }
        let length = match rest.next_if(|next| *next == "--len") {
            Some(_) => {
                Some(rest.next().and_then(|text| text.parse().ok()).ok_or("invalid length")?)
            }
            None => None,
        };
        let frame = match odp::parse_hex(text) {
            Some(bytes) => bytes,
            None => odp::compose(&odp::parse(text)?.key, length),
        };
        frames.push(frame);
    }
    Ok((queue, frames))
}

/// Takes the link of a dummy port, or of all, up or down.
pub fn set_admin_state(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    if appctl.agent.dummies() == Dummies::None {
        return Err(NO_TESTS.to_owned());
    }
    let (names, state) = match arguments {
        [name, state] => (vec![name.clone()], state.as_str()),
        [state] => (appctl.daemon.switch().dummies().names(), state.as_str()),
        _ => return Ok(String::new()),
    };
    let up = match state {
        "up" => true,
        "down" => false,
        _ => return Err("Invalid Admin State".to_owned()),
    };
    for name in names {
        let dummy = appctl.daemon.switch().dummies().get(&name);
        dummy.ok_or("Unknown Dummy Interface")?.set_up(up);
    }
    // What the switch makes of that has been done when this answers.
    appctl.daemon.switch().catch_up();
    calm(appctl);
    Ok("OK".to_owned())
}

/// Gives a port another number in the data path.
pub fn renumber(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [_, port, number] = arguments else { return Ok(String::new()) };
    if appctl.agent.dummies() == Dummies::None {
        return Err(NO_TESTS.to_owned());
    }
    let number = number.parse().ok().filter(|number| *number < MAX_PATH_NUMBER);
    appctl.agent.renumber(port, number.ok_or("bad port number")?)?;
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_as_digits_or_in_words() {
        let frames = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            frames(&words)
        };
        assert_eq!(frames("--qid 3 00ff 0102").unwrap(), (3, vec![vec![0, 255], vec![1, 2]]));
        let words = "eth_type(0x0800),ipv4(proto=17,ttl=1),udp(src=1,dst=2) --len 100";
        assert_eq!(frames(words).unwrap().1[0].len(), 100);
        assert!(frames("x").unwrap_err().contains("syntax error"));
        assert!(frames("00 --len x").is_err() && frames("00 --len").is_err());
        assert!(frames("--qid").is_err() && frames("--qid x 00").is_err());
    }
}
