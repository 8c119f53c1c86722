//! `ringway devices list`.

use eal::pci::spaces::{UIO_PCI_GENERIC, VFIO_PCI};
use eal::pci::{DeviceInfo, Sysfs};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output;
use crate::table::{Align, Cell, Table, Tone, colour_stdout};

/// `ringway devices list`.
pub fn run(sysfs: &Sysfs, all: bool, json: bool) -> Result<(), Failure> {
    let devices = sysfs.devices().map_err(|cause| {
        Failure::runtime(format!("cannot list PCI devices in /sys/bus/pci/devices: {cause}"))
    })?;
    let devices: Vec<DeviceInfo> =
        devices.into_iter().filter(|device| all || device.is_network()).collect();
    if json {
        let devices: Vec<Value> = devices.iter().map(value).collect();
        output::json_pretty(&json!({ "devices": devices }));
    } else if devices.is_empty() {
        output::line("no PCI network devices; --all lists all PCI devices");
    } else {
        output::text(&table(&devices).render(colour_stdout()));
    }
    Ok(())
}

/// A device in JSON.
pub fn value(info: &DeviceInfo) -> Value {
    json!({
        "address": info.address.to_string(),
        "vendor": format!("{:04x}", info.vendor),
        "device": format!("{:04x}", info.device),
        "subsystem_vendor": format!("{:04x}", info.subsystem_vendor),
        "subsystem_device": format!("{:04x}", info.subsystem_device),
        "class": format!("{:06x}", info.class),
        "revision": info.revision,
        "driver": info.driver,
        "interfaces": info.interfaces,
        "iommu_group": info.iommu_group,
        "numa_node": info.numa_node,
        "ringway": drivers::pci::model(info).map(|model| model.driver),
    })
}

fn table(devices: &[DeviceInfo]) -> Table {
    let mut table = Table::new(&[
        ("address", Align::Left),
        ("id", Align::Left),
        ("driver", Align::Left),
        ("interface", Align::Left),
        ("group", Align::Right),
        ("numa", Align::Right),
        ("ringway", Align::Left),
    ]);
    for info in devices {
        table.row(row(info));
    }
    table
}

fn row(info: &DeviceInfo) -> Vec<Cell> {
    let dash = || Cell::toned("-", Tone::Faint);
    let driver = match info.driver.as_deref() {
        Some(driver @ (VFIO_PCI | UIO_PCI_GENERIC)) => Cell::toned(driver, Tone::Good),
        Some(driver) => driver.into(),
        None => dash(),
    };
    let interfaces = info.interfaces.join(",");
    vec![
        info.address.to_string().into(),
        format!("{:04x}:{:04x}", info.vendor, info.device).into(),
        driver,
        if interfaces.is_empty() { dash() } else { interfaces.into() },
        info.iommu_group.map_or_else(dash, |group| group.to_string().into()),
        info.numa_node.map_or_else(dash, |node| node.to_string().into()),
        match drivers::pci::model(info) {
            Some(model) => model.driver.into(),
            None => Cell::toned("unsupported", Tone::Faint),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> DeviceInfo {
        DeviceInfo {
            address: "01:00.0".parse().unwrap(),
            vendor: 0x8086,
            device: 0x10c9,
            subsystem_vendor: 0,
            subsystem_device: 0,
            class: 0x02_00_00,
            revision: 1,
            driver: Some("igb".into()),
            numa_node: None,
            iommu_group: Some(12),
            interfaces: vec!["eth1".into()],
        }
    }

    #[test]
    fn a_device_is_a_row_and_a_value() {
        let text = table(&[info(), DeviceInfo { device: 1, driver: None, ..info() }]).render(false);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["0000:01:00.0", "8086:10c9", "igb", "eth1", "12", "-", "igb"]);
        assert_eq!(rows[2], ["0000:01:00.0", "8086:0001", "-", "eth1", "12", "-", "unsupported"]);
        let value = value(&info());
        assert_eq!((&value["ringway"], &value["numa_node"]), (&json!("igb"), &Value::Null));
    }
}
