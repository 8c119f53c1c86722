//! What becomes of a packet, step by step.
//!
//! - `heard`: packets to the switch itself
//! - `numbers`: of packets that come again
//! - `question`: what is asked
//! - `round`: packets that come again for a bond
//! - `tunnels`: into tunnels, and out of them
//! - `world`: what a trace has to know of the switch

mod heard;
mod numbers;
mod question;
pub mod round;
pub mod tunnels;
mod world;

use std::sync::Arc;

use flow::{Frozen, Key};
use odp::Question;
use odp::action::Onward;
use openflow::text::Names;
use openflow::{Instructions, PortNo};
use ovs::unixctl::Answer;

use self::question::Asked;
use self::world::Sight;
use super::Appctl;

/// The most ports that a bridge has, as Open vSwitch has it.
const MAX_PORTS: u32 = 255;

/// Tells what becomes of a packet by the rules of a bridge.
pub fn trace(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let asked = Asked::read(appctl, arguments, false)?;
    Ok(told(appctl, &asked, None))
}

/// Tells what becomes of a packet with which these actions are done.
pub fn trace_packet_out(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [arguments @ .., text] = arguments else { return Err("Syntax error".to_owned()) };
    let parsed = openflow::text::instructions(text, Names::NONE).map_err(|error| error.to_string());
    let instructions = parsed?;
    let asked = Asked::read(appctl, arguments, true)?;
    let port = PortNo(asked.key.get_u32(flow::slot::IN_PORT));
    if port.0 >= MAX_PORTS && port < PortNo::MAX {
        return Err("invalid in_port".to_owned());
    }
    check(&instructions).map_err(|error| format!("Bad actions: {error}"))?;
    Ok(told(appctl, &asked, Some(&instructions)))
}

/// Whether a controller could send a packet with these.
fn check(instructions: &Instructions) -> Result<(), String> {
    let Instructions { clear, write, metadata, goto_table, .. } = instructions;
    if *clear || write.is_some() || metadata.is_some() || goto_table.is_some() {
        return Err("OFPBIC_UNSUP_INST".to_owned());
    }
    Ok(())
}

/// What a datapath of Open vSwitch would do with packets that come in like this one, and which of their bits
/// count. Nothing is learnt, and nobody told.
pub fn way(appctl: &mut Appctl<'_>, bridge: &str, key: Key) -> odp::Told {
    let question = Question {
        bridge,
        key,
        actions: None,
        onward: None,
        is_real: false,
        is_flow: true,
        names: false,
        states: &[],
    };
    odp::trace(&mut Sight::new(appctl, None), &question)
}

/// The number by which packets of a bridge come again that go on with this.
pub fn number(bridge: &str, frozen: &Arc<Frozen>) -> u32 {
    numbers::number_of((bridge, frozen))
}

/// Has all that packets go on with get other numbers.
pub fn renumber() {
    numbers::renumber();
}

/// The same for packets that have come again.
pub fn again(appctl: &mut Appctl<'_>, key: &Key, onward: &Onward) -> odp::Told {
    odp::resume(&mut Sight::new(appctl, None).resumed(onward), key, onward)
}

fn told(appctl: &mut Appctl<'_>, asked: &Asked, instructions: Option<&Instructions>) -> String {
    let question = Question {
        bridge: &asked.bridge,
        key: asked.key,
        actions: instructions.map(|instructions| instructions.apply.as_slice()),
        onward: asked.onward.as_deref().filter(|_| instructions.is_none()),
        is_real: asked.frame.is_some(),
        is_flow: false,
        names: asked.names,
        states: &asked.states,
    };
    appctl.daemon.switch().hear_tunnel_neighbours();
    let mut sight = Sight::new(appctl, asked.frame.as_deref().map(|frame| (frame, &asked.key)));
    if let Some(onward) = question.onward {
        sight = sight.resumed(onward);
    }
    let text = odp::trace(&mut sight, &question).text;
    if appctl.flows.are_none() {
        // Nobody holds its numbers then, and Open vSwitch gives none twice.
        renumber();
    }
    text
}
