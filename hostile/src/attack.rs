//! What the attacker works with: connections in every state, and the scene of an attack on rings,
//! where frames pass in both directions before the first lie and go on while it is told.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::frontend::{BUFFER, Frontend, NET_HEADER, RX, RX_BUFFERS, Setup, TX, TX_BUFFERS};
use crate::message::{feature, protocol};
use crate::port::{Port, frame};
use crate::race::Racer;
use crate::ring::{Desc, Format, Ring, desc};
use crate::wire::Wire;

/// The attacker's address.
pub const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x58];
/// The address of the front-end on the port beside it.
pub const WITNESS_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x59];
/// Everyone.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// Descriptors of each of the attacker's rings.
pub const SIZE: u16 = 256;
/// Receive buffers that the scene offers before the first lie.
const BEFORE: u16 = 4;

/// Where to attack, and for how long.
#[derive(Clone, Debug)]
pub struct Attack {
    pub socket: PathBuf,
    /// The port whose front-end exchanges frames with the attacker.
    pub witness: Option<PathBuf>,
    /// How long a lie lasts.
    pub dwell: Duration,
}

impl Attack {
    /// A connection on which nothing has been said.
    pub fn fresh(&self) -> Result<Wire> {
        Wire::connect(&self.socket)
    }

    /// A connection on which features have been negotiated.
    pub fn negotiated(&self) -> Result<Wire> {
        let mut wire = self.fresh()?;
        let features = feature::VERSION_1 | feature::PROTOCOL_FEATURES | feature::LOG_ALL;
        wire.negotiate(features, feature::VERSION_1, protocol::WANTED)?;
        Ok(wire)
    }

    /// A front-end whose split rings run.
    pub fn running(&self) -> Result<Frontend> {
        self.with(&Setup::new(Format::Split, SIZE))
    }

    /// A front-end that has introduced itself so.
    pub fn with(&self, setup: &Setup) -> Result<Frontend> {
        Frontend::start(&self.socket, setup)
    }

    /// A front-end that exchanges frames with one on the port beside it.
    ///
    /// # Errors
    /// When no frame passes: whatever came after would prove nothing.
    pub fn scene(&self, setup: &Setup) -> Result<Scene> {
        let witness = match &self.witness {
            Some(path) => Some(Port::start(path, Format::Split, SIZE)?),
            None => None,
        };
        let frontend = self.with(setup)?;
        if let Some(refusal) = &frontend.wire.refusal {
            bail!("before the first lie: {refusal}");
        }
        let mut scene = Scene { frontend, witness, format: setup.format, next_tx: 0 };
        scene.prove()?;
        Ok(scene)
    }
}

/// An attacker whose rings run, and the witness.
#[derive(Debug)]
pub struct Scene {
    pub frontend: Frontend,
    witness: Option<Port>,
    pub format: Format,
    next_tx: u16,
}

impl Scene {
    /// The ring that the device takes frames from.
    pub fn tx(&mut self) -> &mut Ring {
        &mut self.frontend.rings[TX]
    }

    /// The ring that the device receives into.
    pub fn rx(&mut self) -> &mut Ring {
        &mut self.frontend.rings[RX]
    }

    /// Writes bytes, net header and all, into the next transmit buffer; gives its descriptor.
    pub fn buffer(&mut self, bytes: &[u8]) -> Desc {
        let at = TX_BUFFERS + BUFFER * usize::from(self.next_tx % SIZE);
        self.next_tx += 1;
        self.frontend.memory.write(at, &bytes[..bytes.len().min(BUFFER)]);
        Desc::new(at as u64, u32::try_from(bytes.len()).unwrap_or(0), 0)
    }

    /// A frame to the witness in the next transmit buffer.
    pub fn frame(&mut self) -> Desc {
        self.frame_after(&[0; NET_HEADER])
    }

    /// The same with this net header.
    pub fn frame_after(&mut self, header: &[u8; NET_HEADER]) -> Desc {
        let frame = frame(WITNESS_MAC, OWN_MAC, &[0x5a; 100]);
        self.buffer(&[&header[..], &frame].concat())
    }

    /// An honest receive buffer.
    pub fn receive_buffer(&self, id: u16) -> Desc {
        let at = RX_BUFFERS + BUFFER * usize::from(id % SIZE);
        Desc::new(at as u64, BUFFER as u32, desc::WRITE)
    }

    /// Has a frame pass in each direction.
    fn prove(&mut self) -> Result<()> {
        for id in 0..BEFORE {
            let buffer = self.receive_buffer(id);
            self.rx().offer_chain(&[buffer]);
        }
        self.rx().kick();
        // Several: what goes to a ring that is not enabled yet is lost.
        let deadline = Instant::now() + Duration::from_secs(3);
        let (mut taken, mut seen, mut received) = (false, self.witness.is_none(), false);
        let mut sent: Option<Instant> = None;
        while !(taken && seen && (received || self.witness.is_none())) {
            if Instant::now() > deadline {
                bail!("frames do not pass (taken {taken}, seen {seen}, received {received})");
            }
            if sent.is_none_or(|at| at.elapsed() > Duration::from_millis(50)) {
                sent = Some(Instant::now());
                let frame = self.frame();
                self.tx().offer_chain(&[frame]);
                self.tx().kick();
                if !received {
                    self.witness_sends(1);
                }
            }
            taken |= self.tx().used().is_some();
            received |= self.rx().used().is_some();
            while let Some(frame) = self.witness.as_mut().and_then(Port::receive) {
                seen |= frame.get(6..12) == Some(&OWN_MAC[..]);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// The witness sends frames to the attacker.
    pub fn witness_sends(&mut self, count: usize) {
        let Some(witness) = &mut self.witness else { return };
        let frame = frame(OWN_MAC, WITNESS_MAC, &[0xa5; 600]);
        for _ in 0..count {
            witness.send(&frame);
        }
        witness.flush();
        while witness.receive().is_some() {}
    }

    /// Has frames come and the rings kicked for a while.
    pub fn dwell(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.witness_sends(4);
            self.frontend.rings.iter().for_each(Ring::kick);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The same while another thread turns what the lie has changed since `before` to and fro.
    pub fn race(&mut self, before: &[Vec<u8>], time: Duration, seed: u64) -> Result<()> {
        let racer = Racer::new(&self.frontend, before, seed)?;
        std::thread::scope(|scope| {
            let racing = scope.spawn(|| racer.run());
            self.dwell(time);
            racer.stop();
            drop(racing.join());
        });
        Ok(())
    }
}
