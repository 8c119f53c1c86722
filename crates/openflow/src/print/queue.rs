//! Queues, and what collectors of IPFIX are told.

use std::fmt::Write as _;

use ordered::Order as _;

use super::figure;
use crate::error::ErrorCode;
use crate::message::flow_text::Seconds;
use crate::message::port::decode_number;
use crate::message::stats::ipfix::IpfixStats;
use crate::message::stats::queue::{ALL, QueueRequest, QueueStats};
use crate::message::stats::queue_config::{QueueConfig, decode_request};
use crate::message::{Kind, Raw};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::Reader;

/// Tenths of a percent of a port's rate; a rate above is none.
const WHOLE: u16 = 1000;

/// Writes what a message about queues says.
pub(super) fn show(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    match raw.kind {
        Kind::QueueGetConfigRequest => {
            let request = decode_request(raw.version, raw.body)?;
            let _ = write!(text, " port={}", request.port);
            if request.queue != ALL {
                let _ = write!(text, " queue={}", request.queue);
            }
        }
        Kind::QueueGetConfigReply => {
            let mut queues = QueueConfig::decode_all(raw)?;
            if raw.version < Version::V14 {
                // Open vSwitch names the port that was asked about.
                let port = decode_number(raw.version, &mut Reader::new(raw.body))?;
                queues.iter_mut().for_each(|queue| queue.port = port);
            }
            configs(text, queues);
        }
        Kind::QueueStatsRequest => {
            let request = QueueRequest::decode(raw.version, raw.body)?;
            let _ = write!(text, " port={} queue={}", request.port, number(request.queue));
        }
        Kind::QueueStatsReply => all_stats(text, raw)?,
        _ => ipfix(text, raw)?,
    }
    Ok(())
}

fn number(queue: u32) -> String {
    if queue == ALL { "ALL".to_owned() } else { queue.to_string() }
}

/// Ports in the order of their numbers, each with its queues in theirs.
fn configs(text: &mut String, mut queues: Vec<QueueConfig>) {
    queues.order_by_key(|queue| (queue.port.v10(), queue.queue));
    let mut port = PortNo(0);
    text.push(' ');
    for queue in queues {
        if queue.port != port {
            port = queue.port;
            let _ = writeln!(text, "port={port}");
        }
        let _ = write!(text, "queue {}:", queue.queue);
        for (name, rate) in [("min_rate", queue.min_rate), ("max_rate", queue.max_rate)] {
            let _ = match rate {
                Some(rate @ ..=WHOLE) => write!(text, " {name}:{}.{}%", rate / 10, rate % 10),
                Some(..u16::MAX) => write!(text, " {name}:(disabled)"),
                Some(u16::MAX) | None => Ok(()),
            };
        }
        text.push('\n');
    }
}

fn all_stats(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    let (mut reader, mut all) = (Reader::new(raw.body), Vec::new());
    let mut end = Ok(());
    while end.is_ok() && !reader.is_empty() {
        match QueueStats::decode(raw.version, &mut reader) {
            Ok(stats) => all.push(stats),
            Err(code) => end = Err(code),
        }
    }
    let _ = writeln!(text, " {} queues", all.len());
    for stats in &all {
        let age = stats.age.map_or_else(|| "?".to_owned(), |age| Seconds(age).to_string());
        let [bytes, packets, errors] = [stats.bytes, stats.packets, stats.errors].map(figure);
        let _ = writeln!(
            text,
            "  port {} queue {}: bytes={bytes}, pkts={packets}, errors={errors}, duration={age}",
            stats.port,
            number(stats.queue)
        );
    }
    end
}

fn ipfix(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    let all = IpfixStats::decode_all(raw.body)?;
    let is_bridge = raw.kind == Kind::IpfixBridgeStatsReply;
    if !is_bridge {
        let _ = writeln!(text, " {} ids", all.len());
    }
    for stats in all {
        let indent = if is_bridge {
            *text += "\n  bridge ipfix: ";
            16
        } else {
            let _ = write!(text, "  id {:3}: ", stats.set);
            10
        };
        let list = |figures: &[(&str, u64)]| {
            let figures: Vec<String> =
                figures.iter().map(|(name, count)| format!("{name}={}", figure(*count))).collect();
            figures.join(", ")
        };
        let told = [
            ("flows", stats.flows),
            ("current flows", stats.current_flows),
            ("sampled pkts", stats.packets),
            ("ipv4 ok", stats.ipv4),
            ("ipv6 ok", stats.ipv6),
            ("tx pkts", stats.sent),
        ];
        let lost = [
            ("pkts errs", stats.packet_errors),
            ("ipv4 errs", stats.ipv4_errors),
            ("ipv6 errs", stats.ipv6_errors),
            ("tx errs", stats.send_errors),
        ];
        let _ = writeln!(text, "{}\n{:indent$}{}", list(&told), "", list(&lost));
    }
    Ok(())
}
