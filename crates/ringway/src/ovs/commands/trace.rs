//! What becomes of a frame.

use std::fmt::Write as _;

use ovs::numbers::LOCAL;
use ovs::unixctl::Answer;
use ovs::{flow, trace as words};
use switch::Traced;

use super::Appctl;

/// Where a frame comes in, and what it is.
struct Question {
    bridge: String,
    port: String,
    frame: Vec<u8>,
    learns: bool,
}

/// Tells what becomes of a frame: of a data path's words with the number of the port there, of a
/// bridge's with that of OpenFlow.
pub fn trace(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let question = read(appctl, arguments)?;
    let Question { bridge, port, frame, learns } = &question;
    if appctl.agent.number(bridge, port).is_none() {
        // From nowhere it goes nowhere.
        let flow = words::describe(port, frame);
        return Ok(format!("Flow: {flow}\n\nFinal flow: unchanged\nDatapath actions: drop\n"));
    }
    let traced = appctl.daemon.switch().trace(port, frame, *learns);
    let traced = traced.map_err(|error| error.to_string())?;
    let number = appctl.number(bridge, port);
    let mut text = format!("Flow: {}\n", words::describe(&number, frame));
    for entered in &traced.entered {
        text += &step(appctl, entered, &traced);
    }
    let numbers = appctl.agent.path_numbers();
    let outputs = traced.outputs.iter().map(|(port, frame)| {
        let number = numbers.of(port).map(|number| number.to_string());
        (number.unwrap_or_else(|| port.clone()), frame.clone())
    });
    let outputs: Vec<_> = outputs.collect();
    let _ = write!(text, "\nFinal flow: unchanged\nDatapath actions: ");
    let _ = writeln!(text, "{}", words::actions(frame, &outputs, traced.is_ordered));
    Ok(text)
}

/// What a bridge does with it. There is one rule, which is the one that bridges have by themselves.
fn step(appctl: &Appctl<'_>, entered: &str, traced: &Traced) -> String {
    let bridge = bridge_of(appctl, entered).unwrap_or_default();
    let title = format!("bridge(\"{bridge}\")");
    let line = "-".repeat(title.len());
    let mut text = format!("\n{title}\n{line}\n 0. priority 0\n    NORMAL\n");
    if let Some(reason) = traced.dropped {
        let _ = writeln!(text, "     -> dropped: {}", reason.name());
    }
    text
}

/// The bridge of a port.
fn bridge_of(appctl: &Appctl<'_>, port: &str) -> Option<String> {
    let mut interfaces = appctl.agent.content()?.interfaces();
    let found = interfaces.find(|(.., port_row_name, _)| *port_row_name == port);
    found.map(|(bridge, ..)| bridge.to_owned())
}

fn read(appctl: &Appctl<'_>, arguments: &[String]) -> Result<Question, String> {
    let learns = arguments.iter().any(|word| matches!(word.as_str(), "-generate" | "--generate"));
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let (place, text) = match words.as_slice() {
        [text] => (None, *text),
        [place, text] => (Some(place.as_str()), *text),
        _ => return Err("expected a flow, or a bridge and a flow".to_owned()),
    };
    let is_bridge = place.is_some_and(|place| appctl.check_bridge(place).is_ok());
    let (bridge, port, flow) = match place.filter(|_| is_bridge) {
        Some(bridge) => of_bridge(appctl, bridge, text)?,
        None => of_path(appctl, text)?,
    };
    Ok(Question { bridge, port, frame: flow::compose(&flow, None), learns })
}

/// In words of OpenFlow.
fn of_bridge(
    appctl: &Appctl<'_>,
    bridge: &str,
    text: &str,
) -> Result<(String, String, flow::Flow), String> {
    let flow = flow::parse_openflow(text)?;
    let asked = flow.in_port.as_deref().unwrap_or_default();
    let number = match asked {
        "LOCAL" => Some(LOCAL),
        text => text.parse().ok(),
    };
    let by_number = number.and_then(|number| appctl.agent.port(bridge, number));
    // A number that no port has is asked about as it is.
    let port = by_number.unwrap_or(asked).to_owned();
    Ok((bridge.to_owned(), port, flow))
}

/// In words of the data path.
fn of_path(appctl: &Appctl<'_>, text: &str) -> Result<(String, String, flow::Flow), String> {
    let flow = flow::parse_datapath(text)?;
    let asked = flow.in_port.as_deref().unwrap_or("0");
    let unknown = || format!("no OpenFlow port for datapath port {asked}");
    let number = asked.parse().map_err(|_| unknown())?;
    let port = appctl.agent.path_numbers().name(number).ok_or_else(unknown)?.to_owned();
    let bridge = bridge_of(appctl, &port).ok_or_else(unknown)?;
    Ok((bridge, port, flow))
}
