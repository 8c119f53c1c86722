//! `ringway port` and `ringway fdb`: changes to a running switch.

use serde_json::Value;

use crate::cli::{FdbAction, FdbArgs, PortAction, PortArgs};
use crate::control::client::Client;
use crate::control::path::resolve;
use crate::control::protocol::{Added, Flushed, Request};
use crate::exit::Failure;
use crate::output;
use crate::relative::absolute;

/// `ringway port`.
pub fn port(args: &PortArgs) -> Result<(), Failure> {
    let mut client = Client::connect(&resolve(args.control.control.clone()))?;
    match &args.action {
        PortAction::Add { port, mtu, workers } => {
            let folder = std::env::current_dir().map_err(Failure::runtime)?;
            let (name, device) = (port.name.clone(), absolute(&port.device, &folder));
            let (mtu, workers) = (*mtu, workers.clone());
            let done = format!("port {name} added on {device}");
            let _: Value = client.ask(&Request::PortAdd { name, device, mtu, workers })?;
            output::line(&done);
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
        FdbAction::Add { mac, port, vlan } => {
            let (text, vlan) = (mac.to_string(), *vlan);
            let request = Request::FdbAdd { mac: text, port: port.clone(), vlan };
            let added: Added = client.ask(&request)?;
            let before = added.moved_from.map(|before| format!(", and no more behind {before}"));
            let before = before.unwrap_or_default();
            output::line(&format!("{mac} is now always behind {port}{before}"));
        }
        FdbAction::Del { mac, vlan } => {
            let request = Request::FdbDel { mac: mac.to_string(), vlan: *vlan };
            let _: Value = client.ask(&request)?;
            output::line(&format!("{mac} removed"));
        }
        FdbAction::Flush { port } => {
            let flushed: Flushed = client.ask(&Request::FdbFlush { port: port.clone() })?;
            output::line(&format!("{} learned addresses removed", flushed.removed));
        }
    }
    Ok(())
}
