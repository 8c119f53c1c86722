//! A device in software that records what it is asked, and checks that it is asked in order.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use eal::{EventFd, PeerEvent};
use virtio::{DirtyLog, Features};

use crate::device::{DeviceError, NotifyArea, Setup, Statistic, VdpaDevice};

/// What the device offers.
pub(crate) const FEATURES: Features = Features::VERSION_1
    .union(Features::MAC)
    .union(Features::MQ)
    .union(Features::STATUS)
    .union(Features::EVENT_IDX)
    .union(Features::RING_PACKED);

/// How far every ring gets before it is stopped.
pub(crate) const PROGRESS: u32 = 5;

/// Something that the device was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Start(Started),
    Refused,
    Stop,
    Enabled(u16, bool),
    Kick(u16),
    Interrupt(u16),
    Log(bool),
    MigrationDone,
    Dropped,
}

/// A [`Setup`] that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) features: u64,
    /// Guest address and size of every region.
    pub(crate) memory: Vec<(u64, u64)>,
    /// Index, guest address of the descriptors, base, and whether it is enabled.
    pub(crate) rings: Vec<(u16, u64, u32, bool)>,
}

/// What was recorded, and what the device is to do.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) calls: Vec<Call>,
    /// So many starts are refused.
    pub(crate) refuse_starts: u32,
    /// Enabling and disabling of running rings is refused.
    pub(crate) refuse_enable: bool,
    /// It has failed: it does not run, though it was not stopped.
    pub(crate) broken: bool,
    /// It can log what it writes.
    pub(crate) logs: bool,
    /// It fails when it is to log.
    pub(crate) fail_log: bool,
    /// It has doorbells.
    pub(crate) doorbells: bool,
    /// The pages that it gave for them, with the ring's index.
    pub(crate) bells: Vec<(u16, OwnedFd)>,
    /// Its link is down.
    pub(crate) link_down: bool,
}

/// The test's end of a [`Model`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<(Mutex<Script>, Condvar)>);

impl Recorder {
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.0.0.lock().unwrap()
    }

    fn push(&self, call: Call) {
        self.script().calls.push(call);
        self.0.1.notify_all();
    }

    /// Takes what was recorded.
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.script().calls)
    }

    /// Waits until `call` was recorded; takes everything up to it.
    #[track_caller]
    pub(crate) fn wait_for(&self, call: &Call) -> Vec<Call> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut script = self.script();
        loop {
            if let Some(at) = script.calls.iter().position(|seen| seen == call) {
                let rest = script.calls.split_off(at + 1);
                return std::mem::replace(&mut script.calls, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {call:?} in {:?}", script.calls);
            script = self.0.1.wait_timeout(script, left).unwrap().0;
        }
    }
}

/// The device.
#[derive(Debug)]
pub(crate) struct Model {
    name: String,
    pairs: u16,
    recorder: Recorder,
    running: Option<Setup>,
    changed: Arc<EventFd>,
}

impl Model {
    /// What is signalled when its configuration has changed.
    pub(crate) fn changed(&self) -> Arc<EventFd> {
        Arc::clone(&self.changed)
    }

    pub(crate) fn new(name: &str, pairs: u16, recorder: Recorder) -> Self {
        Self {
            name: name.to_owned(),
            pairs,
            recorder,
            running: None,
            changed: Arc::new(EventFd::new().unwrap()),
        }
    }

    /// That ring `index` of the running device may be changed.
    fn check(&self, index: u16) {
        let setup = self.running.as_ref().expect("only a running device's rings are changed");
        assert!(setup.rings.iter().any(|ring| ring.index == index), "it has no ring {index}");
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.recorder.push(Call::Dropped);
    }
}

impl VdpaDevice for Model {
    fn name(&self) -> &str {
        &self.name
    }

    fn queue_pairs(&self) -> u16 {
        self.pairs
    }

    fn features(&self) -> u64 {
        (FEATURES | Features::CTRL_VQ | Features::ACCESS_PLATFORM).bits()
    }

    fn start(&mut self, setup: Setup) -> Result<(), DeviceError> {
        assert!(self.running.is_none(), "it is stopped first");
        assert!(setup.rings.is_sorted_by_key(|ring| ring.index));
        for ring in &setup.rings {
            for addr in [ring.descriptors, ring.driver, ring.device] {
                assert!(setup.memory.translate(addr, 4).is_some(), "{addr:#x} is in memory");
            }
        }
        let refuse = self.recorder.script().refuse_starts;
        if refuse > 0 {
            self.recorder.script().refuse_starts = refuse - 1;
            self.recorder.push(Call::Refused);
            return Err(DeviceError("it does not start, as the test wants it".into()));
        }
        let memory = setup.memory.regions().iter();
        let rings = setup.rings.iter();
        self.recorder.push(Call::Start(Started {
            features: setup.features,
            memory: memory.map(|r| (r.guest_addr, r.mapping.len() as u64)).collect(),
            rings: rings.map(|r| (r.index, r.descriptors, r.base, r.enabled)).collect(),
        }));
        self.running = Some(setup);
        Ok(())
    }

    fn stop(&mut self) -> Vec<(u16, u32)> {
        let setup = self.running.take().expect("it runs");
        self.recorder.push(Call::Stop);
        setup.rings.iter().map(|ring| (ring.index, ring.base + PROGRESS)).collect()
    }

    fn is_running(&self) -> bool {
        self.running.is_some() && !self.recorder.script().broken
    }

    fn set_ring_enabled(&mut self, index: u16, enabled: bool) -> Result<(), DeviceError> {
        self.check(index);
        if self.recorder.script().refuse_enable {
            return Err(DeviceError("as the test wants it".into()));
        }
        self.recorder.push(Call::Enabled(index, enabled));
        Ok(())
    }

    fn can_log(&self) -> bool {
        self.recorder.script().logs
    }

    fn set_dirty_log(&mut self, log: Option<Arc<DirtyLog>>) -> Result<(), DeviceError> {
        assert!(self.can_log(), "it is asked only what it can do");
        self.recorder.push(Call::Log(log.is_some()));
        if std::mem::take(&mut self.recorder.script().fail_log) {
            self.recorder.script().broken = true;
            return Err(DeviceError("as the test wants it".into()));
        }
        Ok(())
    }

    fn set_ring_kick(&mut self, index: u16, _kick: Option<PeerEvent>) -> Result<(), DeviceError> {
        self.check(index);
        self.recorder.push(Call::Kick(index));
        Ok(())
    }

    fn set_ring_call(&mut self, index: u16, _call: Option<PeerEvent>) -> Result<(), DeviceError> {
        self.check(index);
        self.recorder.push(Call::Interrupt(index));
        Ok(())
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let end = u32::try_from(bytes.len()).ok().and_then(|len| offset.checked_add(len));
        if end.is_none_or(|end| end > 12) {
            return Err(DeviceError(format!("its configuration has 12 bytes, not {end:?}")));
        }
        let link = u8::from(!self.recorder.script().link_down);
        let space = [0, 1, 2, 3, 4, 5, link, 0, 8, 9, 10, 11];
        bytes.copy_from_slice(&space[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn write_config(&mut self, _offset: u32, _bytes: &[u8]) -> Result<(), DeviceError> {
        Err(DeviceError("its configuration is read only".into()))
    }

    fn notify_area(&self, index: u16) -> Option<NotifyArea> {
        self.check(index);
        let file = rustix::fs::memfd_create("bell", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 1 << 20).unwrap();
        let mut script = self.recorder.script();
        script.doorbells.then(|| {
            script.bells.push((index, file.try_clone().unwrap()));
            NotifyArea { file, offset: 4096 * u64::from(index), len: 4096 }
        })
    }

    fn config_changed(&self) -> Option<&EventFd> {
        Some(&self.changed)
    }

    fn migration_done(&mut self) {
        self.recorder.push(Call::MigrationDone);
    }

    fn statistics(&self) -> Vec<Statistic> {
        vec![Statistic { name: "rx0_kicks".into(), value: 7 }]
    }
}
