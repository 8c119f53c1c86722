//! `ringway port` and `ringway fdb`: changes to a running switch.

use serde_json::Value;

use crate::cli::{FdbAction, FdbArgs, PortAction, PortArgs};
use crate::control::client::Client;
use crate::control::path::resolve;
use crate::control::protocol::{Flushed, Request};
use crate::exit::Failure;
use crate::output;

/// `ringway port`.
pub fn port(args: &PortArgs) -> Result<(), Failure> {
    let mut client = Client::connect(&resolve(args.control.control.clone()))?;
    match &args.action {
        PortAction::Add { port } => {
            let (name, device) = (port.name.clone(), port.device.clone());
            let _: Value = client.ask(&Request::PortAdd { name, device })?;
            output::line(&format!("port {} added on {}", port.name, port.device));
        }
        PortAction::Del { name } => {
            let _: Value = client.ask(&Request::PortDel { name: name.clone() })?;
            output::line(&format!("port {name} removed"));
        }
    }
    Ok(())
}

/// `ringway fdb`.
pub fn fdb(args: &FdbArgs) -> Result<(), Failure> {
    let mut client = Client::connect(&resolve(args.control.control.clone()))?;
    match &args.action {
        FdbAction::Add { mac, port } => {
            let request = Request::FdbAdd { mac: mac.to_string(), port: port.clone(), vlan: 0 };
            let _: Value = client.ask(&request)?;
            output::line(&format!("{mac} is now always behind {port}"));
        }
        FdbAction::Del { mac } => {
            let _: Value = client.ask(&Request::FdbDel { mac: mac.to_string(), vlan: 0 })?;
            output::line(&format!("{mac} removed"));
        }
        FdbAction::Flush { port } => {
            let flushed: Flushed = client.ask(&Request::FdbFlush { port: port.clone() })?;
            output::line(&format!("{} learned addresses removed", flushed.removed));
        }
    }
    Ok(())
}
