//! Queues of ports: which there are. What goes out by each is not counted.

use openflow::message::Kind;
use openflow::message::stats::port::decode_request;
use openflow::message::stats::queue::{ALL, QueueRequest, QueueStats};
use openflow::message::stats::queue_config::{QueueConfig, encode_port};
use openflow::{ErrorCode, PortNo, Version};

use super::{Answers, Request};

/// What is not counted.
const UNKNOWN: u64 = u64::MAX;

impl Request<'_> {
    pub(super) fn queue_answer(&self) -> Answers {
        match self.raw.kind {
            Kind::QueueStatsRequest => self.queue_stats(),
            _ if self.raw.form.is_stats() => self.queue_descs(),
            _ => self.queue_config(),
        }
    }

    /// The queues that are asked for, by their ports: all, or one of each.
    ///
    /// # Errors
    /// There is no such port, or no port has such a queue.
    fn queues(&self, request: QueueRequest) -> Result<Vec<QueueConfig>, ErrorCode> {
        let ports = self.asked(request.port);
        if ports.is_empty() && request.port != PortNo::ANY {
            return Err(ErrorCode::QofcBadPort);
        }
        let is_asked = |queue: &u32| [ALL, *queue].contains(&request.queue);
        let of = ports.iter().flat_map(|port| {
            let number = port.desc.number;
            port.queues.iter().map(move |queue| QueueConfig::new(number, *queue))
        });
        let found: Vec<_> = of.filter(|of| is_asked(&of.queue)).collect();
        let is_wrong = found.is_empty() && request.queue != ALL;
        if is_wrong { Err(ErrorCode::QofcBadQueue) } else { Ok(found) }
    }

    fn queue_stats(&self) -> Answers {
        let version = self.raw.version;
        let request = QueueRequest::decode(version, self.raw.body)?;
        let mut replies = self.replies(Kind::QueueStatsReply);
        for QueueConfig { port, queue, .. } in self.queues(request)? {
            let (bytes, packets, errors) = (UNKNOWN, UNKNOWN, UNKNOWN);
            let stats = QueueStats { port, queue, bytes, packets, errors, age: None };
            replies.entry(|out| stats.encode(version, out));
        }
        Ok(replies.finish())
    }

    /// From OpenFlow 1.4 on.
    fn queue_descs(&self) -> Answers {
        let version = self.raw.version;
        let request = QueueRequest::decode(version, self.raw.body)?;
        let mut replies = self.replies(Kind::QueueGetConfigReply);
        for queue in self.queues(request)? {
            replies.entry(|out| queue.encode(version, out));
        }
        Ok(replies.finish())
    }

    /// Up to OpenFlow 1.3, in one message.
    fn queue_config(&self) -> Answers {
        let version = self.raw.version;
        let port = decode_request(version, self.raw.body)?;
        // In OpenFlow 1.0 one cannot ask for those of all.
        if port == PortNo::ANY && version < Version::V12 {
            return Err(ErrorCode::QofcBadPort);
        }
        let mut reply = self.reply(Kind::QueueGetConfigReply);
        encode_port(version, port, reply.body());
        for queue in self.queues(QueueRequest { port, queue: ALL })? {
            queue.encode(version, reply.body());
        }
        Ok(vec![reply.finish()])
    }
}
