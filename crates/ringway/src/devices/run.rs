//! The commands of `ringway devices`.

use eal::pci::bind::{Binder, Change};
use eal::pci::spaces::{UIO_PCI_GENERIC, VFIO_PCI};
use eal::pci::{PciAddress, PciError, Sysfs};

use super::{detail, list};
use crate::cli::{DevicesAction, DevicesArgs};
use crate::exit::Failure;
use crate::output;

/// `ringway devices`.
pub fn run(args: &DevicesArgs) -> Result<(), Failure> {
    let sysfs = Sysfs::default();
    match &args.action {
        DevicesAction::List { all, json } => list::run(&sysfs, *all, *json),
        DevicesAction::Show { address, json } => detail::run(&sysfs, *address, *json),
        DevicesAction::Bind { addresses, driver, force } => {
            let binder = Binder::default();
            each(addresses, |address| binder.bind(address, driver, *force))
        }
        DevicesAction::Unbind { addresses, force } => {
            let binder = Binder::default();
            each(addresses, |address| binder.unbind(address, *force))
        }
        DevicesAction::Restore { addresses, all } => restore(addresses, *all),
    }
}

fn restore(addresses: &[PciAddress], all: bool) -> Result<(), Failure> {
    let binder = Binder::default();
    if !all {
        return each(addresses, |address| binder.restore(address));
    }
    let changed = binder.changed().map_err(|cause| {
        Failure::runtime(format!("cannot read {}: {cause}", eal::pci::bind::STATE))
    })?;
    if changed.is_empty() {
        output::line("no device was taken from its driver");
    }
    each(&changed, |address| binder.restore(address))
}

/// Changes one device after the other, and goes on after a failure.
fn each(
    addresses: &[PciAddress],
    change: impl Fn(PciAddress) -> Result<Change, PciError>,
) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for address in addresses {
        match change(*address) {
            Ok(done) => output::line(&describe(*address, &done)),
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::runtime(failures.join("\nringway: "))) }
}

fn describe(address: PciAddress, Change { from, to }: &Change) -> String {
    let name = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".to_owned());
    if from == to {
        return format!("{address}: {}, as before", name(to));
    }
    let back = match to.as_deref() {
        Some(VFIO_PCI | UIO_PCI_GENERIC) | None => {
            format!("; to give it back: ringway devices restore {address}")
        }
        Some(_) => String::new(),
    };
    format!("{address}: {}, before: {}{back}", name(to), name(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_with_the_way_back() {
        let address: PciAddress = "01:00.0".parse().unwrap();
        let change = |from: Option<&str>, to: Option<&str>| {
            let change = Change { from: from.map(Into::into), to: to.map(Into::into) };
            describe(address, &change)
        };
        let text = change(Some("igb"), Some("vfio-pci"));
        assert!(text.starts_with("0000:01:00.0: vfio-pci, before: igb;"), "{text}");
        assert!(text.ends_with("ringway devices restore 0000:01:00.0"));
        assert_eq!(change(Some("vfio-pci"), Some("igb")), "0000:01:00.0: igb, before: vfio-pci");
        assert_eq!(change(Some("igb"), Some("igb")), "0000:01:00.0: igb, as before");
        assert!(change(Some("igb"), None).contains("no driver, before: igb"));
    }
}
