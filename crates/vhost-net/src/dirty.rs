//! Where the rings of a device log what they write, while its guest is being migrated.

use std::sync::Arc;

use virtio::DirtyLog;
use virtio::device::RingLog;

use vhost::control::SharedLimit;

/// The log of a device, and where each ring is to log its used ring.
#[derive(Debug, Default)]
pub(super) struct Logs {
    log: Option<Arc<DirtyLog>>,
    /// By ring.
    used: Vec<Option<u64>>,
}

impl Logs {
    /// Goes over to another log, or to none; says so if marks were lost in the old one. `name` is
    /// for log lines.
    pub(super) fn replace(&mut self, name: &str, limit: &SharedLimit, log: Option<Arc<DirtyLog>>) {
        if self.log.is_some() != log.is_some()
            && let Some(suppressed) = limit.admit_line()
        {
            let now = if log.is_some() {
                "are logged: it is being migrated"
            } else {
                "are not logged any more"
            };
            tracing::info!(port = name, suppressed, "writes to the guest's memory {now}");
        }
        if let Some(old) = std::mem::replace(&mut self.log, log) {
            report(name, limit, &old);
        }
    }

    /// Notes at which address the writes to the used ring of ring `index` are logged, if they are.
    pub(super) fn set_used(&mut self, index: u16, used: Option<u64>) {
        let index = usize::from(index);
        if self.used.len() <= index {
            self.used.resize(index + 1, None);
        }
        if let Some(place) = self.used.get_mut(index) {
            *place = used;
        }
    }

    /// Where ring `index` logs, if it does.
    pub(super) fn ring(&self, index: u16) -> Option<RingLog> {
        let used = self.used.get(usize::from(index)).copied().flatten();
        self.log.as_ref().map(|log| RingLog::new(Arc::clone(log), used))
    }
}

/// The guest on the other side lacks what was not marked, so the operator must hear of it.
fn report(name: &str, limit: &SharedLimit, log: &DirtyLog) {
    let missed = log.missed();
    if !log.poisoned() && missed == 0 {
        return;
    }
    let Some(suppressed) = limit.admit_line() else { return };
    if log.poisoned() {
        tracing::warn!(
            port = name,
            suppressed,
            "the front-end truncated the log of written pages: a guest migrated with it is not whole"
        );
    } else {
        tracing::warn!(
            port = name,
            missed,
            suppressed,
            "writes beyond the end of the log of written pages: a guest migrated with it is not \
             whole"
        );
    }
}
