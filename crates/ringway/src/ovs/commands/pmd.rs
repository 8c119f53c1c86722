//! What workers do: `dpif-netdev/pmd-*`, in which a worker is a PMD thread.

use std::fmt::Write as _;
use std::time::Instant;

use flow::PathCounts;
use ordered::Order as _;
use ovs::pmd::{Core, INTERVAL, Worked, intervals};
use ovs::unixctl::Answer;
use switch::WorkerReport;

use super::Appctl;

/// What workers had done when `pmd-stats-clear` was said last, and when that was. Counters themselves are
/// never taken back: others read them, too.
#[derive(Debug)]
pub struct Baseline {
    workers: Vec<WorkerReport>,
    sent: u64,
    since: Instant,
}

impl Baseline {
    /// That of a switch that starts.
    pub const fn new(now: Instant) -> Self {
        Self { workers: Vec::new(), sent: 0, since: now }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// `-pmd`: the core of one worker.
    core: Option<usize>,
    /// `-secs`: for how long.
    seconds: Option<u64>,
}

/// What is asked for; names of data paths, of which there is one, are passed over.
fn asked(arguments: &[String]) -> Result<Asked, String> {
    let (mut rest, mut asked) = (arguments.iter(), Asked::default());
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-pmd" => {
                let core = rest.next().and_then(|core| core.parse().ok());
                asked.core = Some(core.ok_or("-pmd: expected the number of a core")?);
            }
            "-secs" => {
                let seconds = rest.next().and_then(|seconds| seconds.parse::<i64>().ok());
                let seconds = seconds.ok_or("-secs: expected a number of seconds")?;
                // What is too short or too long is the usual time, as in Open vSwitch.
                asked.seconds = u64::try_from(seconds).ok();
            }
            _ => {}
        }
    }
    Ok(asked)
}

/// The core of a worker: that it is bound to, or in a test one that it would be.
fn core(appctl: &Appctl<'_>, worker: &WorkerReport) -> Option<Core> {
    let of_system = || worker.core.map(|number| Core { number, node: 0 });
    appctl.agent.pmd().core(worker.index).or_else(of_system)
}

/// The workers, or the one of a core.
fn workers(appctl: &Appctl<'_>, arguments: &[String]) -> Result<Vec<WorkerReport>, String> {
    let wanted = asked(arguments)?.core;
    let is_wanted = |worker: &WorkerReport| {
        wanted.is_none() || core(appctl, worker).map(|core| core.number) == wanted
    };
    Ok(appctl.daemon.switch().workers().into_iter().filter(is_wanted).collect())
}

/// The same, with what they have done since it was cleared.
fn since_cleared(appctl: &Appctl<'_>, arguments: &[String]) -> Result<Vec<WorkerReport>, String> {
    // They tell then what they have looked up.
    appctl.daemon.switch().flush_flows();
    let mut workers = workers(appctl, arguments)?;
    for worker in &mut workers {
        let mut cleared = appctl.baseline.workers.iter();
        if let Some(before) = cleared.find(|before| before.index == worker.index) {
            subtract(worker, before);
        }
    }
    Ok(workers)
}

fn subtract(worker: &mut WorkerReport, before: &WorkerReport) {
    for (now, then) in [
        (&mut worker.polls, before.polls),
        (&mut worker.busy_polls, before.busy_polls),
        (&mut worker.packets, before.packets),
        (&mut worker.busy_cycles, before.busy_cycles),
        (&mut worker.total_cycles, before.total_cycles),
        (&mut worker.sleeps, before.sleeps),
        (&mut worker.sleep_cycles, before.sleep_cycles),
        (&mut worker.look_ups.hits, before.look_ups.hits),
        (&mut worker.look_ups.misses, before.look_ups.misses),
        (&mut worker.look_ups.again, before.look_ups.again),
    ] {
        // One that came anew has done less than the one before it.
        *now = now.checked_sub(then).unwrap_or(*now);
    }
}

/// Where it was found what to do with frames, in Open vSwitch's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passes {
    /// Those of frames, and of frames that have been here before.
    all: u64,
    /// Of bridges without rules, which look nothing up by what is in a frame but addresses.
    simple: u64,
    /// An entry of the cache of paths: all bits that any rule looks at are as in its packet.
    exact: u64,
    /// The rules themselves.
    upcalls: u64,
}

impl Passes {
    fn of(worker: &WorkerReport) -> Self {
        let PathCounts { hits, misses, again } = worker.look_ups;
        let all = worker.packets.saturating_add(again);
        let simple = all.saturating_sub(hits.saturating_add(misses));
        Self { all, simple, exact: hits, upcalls: misses }
    }
}

/// Frames that all ports have sent.
fn sent(appctl: &Appctl<'_>) -> u64 {
    let ports = appctl.daemon.switch().ports().into_iter();
    ports
        .filter(|port| port.device != switch::BOND_DEVICE)
        .fold(0, |sum: u64, port| sum.saturating_add(port.stats.tx_total().packets))
}

/// Counts from here on.
pub fn clear(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    appctl.daemon.switch().flush_flows();
    let now = appctl.time.now();
    let cleared = workers(appctl, arguments)?;
    let others = std::mem::take(&mut appctl.baseline.workers).into_iter();
    let others = others.filter(|one| cleared.iter().all(|new| new.index != one.index));
    let workers = others.chain(cleared.iter().cloned()).collect();
    *appctl.baseline = Baseline { workers, sent: sent(appctl), since: now };
    Ok(String::new())
}

/// The worker's line above what is told of it.
fn title(core: Option<Core>) -> String {
    let node = core.map_or(0, |core| core.node);
    let core = core.map_or_else(|| "any".to_owned(), |core| core.number.to_string());
    format!("pmd thread numa_id {node} core_id {core}:\n")
}

/// What workers have done.
pub fn stats(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let mut text = String::new();
    for worker in since_cleared(appctl, arguments)? {
        let WorkerReport { packets, busy_cycles, total_cycles, .. } = worker;
        text += &title(core(appctl, &worker));
        text += &found(&worker);
        let idle = total_cycles.saturating_sub(busy_cycles);
        let share = worker.load() * 100.0;
        let _ = writeln!(text, "  idle cycles: {idle} ({:.2}%)", 100.0 - share);
        let _ = writeln!(text, "  processing cycles: {busy_cycles} ({share:.2}%)");
        if packets > 0 {
            let per_packet = worker.cycles_per_packet();
            let _ = writeln!(
                text,
                "  avg processing cycles per packet: {per_packet:.2} ({busy_cycles}/{packets})"
            );
        }
    }
    Ok(text)
}

/// Where it was found what to do with frames. There are no other caches, and packets wait for nobody who could lose them.
fn found(worker: &WorkerReport) -> String {
    let (packets, passes) = (worker.packets, Passes::of(worker));
    let Passes { simple, exact, upcalls, .. } = passes;
    let again = worker.look_ups.again;
    let each = ratio(passes.all, packets);
    format!(
        "  packets received: {packets}\n  packet recirculations: {again}\n  \
         avg. datapath passes per packet: {each:.2}\n  phwol hits: 0\n  mfex opt hits: 0\n  \
         simple match hits: {simple}\n  emc hits: {exact}\n  smc hits: 0\n  megaflow hits: 0\n  \
         avg. subtable lookups per megaflow hit: 0.00\n  miss with success upcall: {upcalls}\n  \
         miss with failed upcall: 0\n"
    )
}

/// Which worker polls which queue of those ports that Open vSwitch has threads for, and what it took lately.
pub fn queues(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let intervals = intervals(asked(arguments)?.seconds);
    let seconds = INTERVAL.as_secs().saturating_mul(intervals as u64);
    let mut text = format!("Displaying last {seconds} seconds pmd usage %\n");
    let (pmd, usage) = (appctl.agent.pmd(), appctl.agent.usage());
    for worker in workers(appctl, arguments)? {
        text += &title(core(appctl, &worker));
        let _ = writeln!(text, "  isolated : {}", pmd.is_isolated(worker.index));
        let mut queues: Vec<_> = worker.queues.iter().filter(|(port, _)| pmd.polls(port)).collect();
        queues.order();
        let cycles = |(port, queue): &(String, usize)| usage.queue(port, *queue, intervals);
        let queues: Vec<_> = queues.into_iter().map(|queue| (queue, cycles(queue))).collect();
        text += &usage_of(&queues, usage.worker(worker.index, intervals));
    }
    Ok(text)
}

/// A worker's queues with the clock cycles that their frames took, of those that it had, if that is known.
fn usage_of(queues: &[(&(String, usize), u64)], worked: Option<Worked>) -> String {
    let percent = |cycles: u64| match worked {
        Some(worked) => {
            format!("{:>2} %", cycles.saturating_mul(100).checked_div(worked.total).unwrap_or(0))
        }
        None => "NOT AVAIL".to_owned(),
    };
    let mut text = String::new();
    for ((port, queue), cycles) in queues {
        let usage = percent(*cycles);
        let _ = writeln!(
            text,
            "  port: {port:<16}  queue-id: {queue:>2} (enabled)   pmd usage: {usage}"
        );
    }
    if !queues.is_empty() {
        let polled = queues.iter().fold(0_u64, |sum, (_, cycles)| sum.saturating_add(*cycles));
        let busy = worked.map_or(0, |worked| worked.busy);
        let _ = writeln!(text, "  overhead: {}", percent(busy.saturating_sub(polled)));
    }
    text
}

/// Divides queues among workers by what they take by now.
pub fn rebalance(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    appctl.agent.rebalance();
    appctl.follow_database();
    Ok("pmd rxq rebalance requested.".to_owned())
}

/// What workers have done, round by round.
pub fn perf(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let since = appctl.baseline.since;
    let duration = appctl.time.now().saturating_duration_since(since).as_secs_f64();
    let workers = since_cleared(appctl, arguments)?;
    let mut text = String::new();
    for worker in &workers {
        let _ = write!(
            text,
            "\nMeasurement duration: {duration:.3} s\n\n{}\n",
            title(core(appctl, worker))
        );
        text += &perf_of(worker, eal::clock::hz(), duration);
    }
    // Workers put what they send together for each port; it is counted there.
    let sent = sent(appctl).saturating_sub(appctl.baseline.sent);
    let _ =
        writeln!(text, "\nTx packets of all threads: {sent} ({:.0} Kpps)", kilo(sent, duration));
    Ok(text)
}

/// Thousands in a second.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn kilo(count: u64, duration: f64) -> f64 {
    if duration > 0.0 { count as f64 / duration / 1000.0 } else { 0.0 }
}

/// How much of another number one is.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * ratio(part, whole)
}

fn line(text: &mut String, name: &str, value: u64, note: &str) {
    let _ = writeln!(text, "  {name:<20}{value:>12}  ({note})");
}

/// A worker's figures, on a clock of so many cycles a second: the lines of Open vSwitch's that there are
/// figures for.
fn perf_of(worker: &WorkerReport, hz: u64, duration: f64) -> String {
    rounds_of(worker, hz) + &frames_of(worker, duration)
}

fn rounds_of(worker: &WorkerReport, hz: u64) -> String {
    let WorkerReport { polls, busy_polls, busy_cycles, total_cycles, .. } = worker;
    let (sleeps, sleep_cycles) = (worker.sleeps, worker.sleep_cycles);
    let used = total_cycles.saturating_sub(sleep_cycles);
    let idle_cycles = used.saturating_sub(*busy_cycles);
    let micros = |cycles: u64| ratio(cycles, hz) * 1e6;
    let mut text = String::new();
    let each = micros(*total_cycles) * ratio(1, *polls);
    line(&mut text, "Iterations:", *polls, &format!("{each:.2} us/it"));
    let idle_polls = polls.saturating_sub(*busy_polls);
    for (name, value, share, of) in [
        ("- Used TSC cycles:", used, percent(used, *total_cycles), "total cycles"),
        ("- idle iterations:", idle_polls, percent(idle_cycles, used), "used cycles"),
        ("- busy iterations:", *busy_polls, percent(*busy_cycles, used), "used cycles"),
        ("- sleep iterations:", sleeps, percent(sleeps, *polls), "iterations"),
    ] {
        line(&mut text, name, value, &format!("{share:5.1} % of {of}"));
    }
    let (asleep, mean) = (micros(sleep_cycles), micros(sleep_cycles) * ratio(1, sleeps));
    let name = "Sleep time (us):";
    let _ = writeln!(text, "  {name:<20}{asleep:>12.0}  ({mean:3.0} us/iteration avg.)");
    text
}

fn frames_of(worker: &WorkerReport, duration: f64) -> String {
    let (packets, name) = (worker.packets, "Rx packets:");
    if packets == 0 {
        return format!("  {name:<20}{packets:>12}\n");
    }
    let (rate, cost) = (kilo(packets, duration), worker.cycles_per_packet());
    let mut text = String::new();
    line(&mut text, name, packets, &format!("{rate:.0} Kpps, {cost:.0} cycles/pkt"));
    let Passes { all, simple, exact, upcalls } = Passes::of(worker);
    line(&mut text, "Datapath passes:", all, &format!("{:.2} passes/pkt", ratio(all, packets)));
    for (name, value) in
        [("- Simple Match hits:", simple), ("- EMC hits:", exact), ("- Upcalls:", upcalls)]
    {
        line(&mut text, name, value, &format!("{:5.1} %", percent(value, all)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> WorkerReport {
        WorkerReport {
            index: 0,
            core: Some(3),
            alive: true,
            polls: 1_000,
            busy_polls: 250,
            packets: 4_000,
            busy_cycles: 1_200_000,
            total_cycles: 4_000_000,
            sleeps: 10,
            sleep_cycles: 1_000_000,
            look_ups: PathCounts { hits: 3_500, misses: 40, again: 600 },
            queues: Vec::new(),
        }
    }

    #[test]
    fn figures_are_laid_out_as_open_vswitch_has_them() {
        let text = perf_of(&worker(), 1_000_000, 2.0);
        let expected = "  Iterations:                 1000  (4000.00 us/it)\n  \
            - Used TSC cycles:       3000000  ( 75.0 % of total cycles)\n  \
            - idle iterations:           750  ( 60.0 % of used cycles)\n  \
            - busy iterations:           250  ( 40.0 % of used cycles)\n  \
            - sleep iterations:           10  (  1.0 % of iterations)\n  \
            Sleep time (us):         1000000  (100000 us/iteration avg.)\n  \
            Rx packets:                 4000  (2 Kpps, 300 cycles/pkt)\n  \
            Datapath passes:            4600  (1.15 passes/pkt)\n  \
            - Simple Match hits:        1060  ( 23.0 %)\n  \
            - EMC hits:                 3500  ( 76.1 %)\n  \
            - Upcalls:                    40  (  0.9 %)\n";
        assert_eq!(text, expected);
        let idle = WorkerReport { packets: 0, polls: 0, sleeps: 0, ..worker() };
        assert!(perf_of(&idle, 1_000_000, 0.0).ends_with("Rx packets:                    0\n"));
    }

    #[test]
    fn look_ups_are_told_by_where_they_found_something() {
        let text = found(&worker());
        for line in [
            "packets received: 4000",
            "packet recirculations: 600",
            "avg. datapath passes per packet: 1.15",
            "simple match hits: 1060",
            "emc hits: 3500",
            "miss with success upcall: 40",
        ] {
            assert!(text.contains(&format!("  {line}\n")), "{line}: {text}");
        }
        let idle = WorkerReport { packets: 0, look_ups: PathCounts::default(), ..worker() };
        assert!(found(&idle).contains("avg. datapath passes per packet: 0.00\n"));
    }

    #[test]
    fn counters_go_on_from_where_they_were_cleared() {
        let mut later = WorkerReport { packets: 4_100, polls: 1_500, busy_polls: 7, ..worker() };
        subtract(&mut later, &worker());
        assert_eq!((later.packets, later.polls, later.busy_polls), (100, 500, 7));
        let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        let both = Asked { core: Some(3), seconds: Some(61) };
        assert_eq!(asked(&words("dp0 -pmd 3 -secs 61")), Ok(both));
        assert_eq!(asked(&words("dp0 -secs -1")), Ok(Asked::default()));
        assert!(asked(&words("-pmd x")).is_err() && asked(&words("-pmd")).is_err());
        assert!(asked(&words("-secs x")).is_err() && asked(&words("-secs")).is_err());
        assert_eq!([0, 1, 6, 60, 61].map(|seconds| intervals(Some(seconds))), [12, 1, 2, 12, 12]);
    }

    #[test]
    fn a_workers_time_is_its_queues_and_the_rest() {
        let ports = [("vm1".to_owned(), 0), ("vm1".to_owned(), 11)];
        let queues = [(&ports[0], 250), (&ports[1], 5)];
        let expected = "  port: vm1               queue-id:  0 (enabled)   pmd usage: 25 %\n  \
                        port: vm1               queue-id: 11 (enabled)   pmd usage:  0 %\n  \
                        overhead: 14 %\n";
        assert_eq!(usage_of(&queues, Some(Worked { total: 1_000, busy: 400 })), expected);
        assert!(usage_of(&queues[..1], None).ends_with("NOT AVAIL\n  overhead: NOT AVAIL\n"));
        assert_eq!(usage_of(&[], None), "");
    }
}
