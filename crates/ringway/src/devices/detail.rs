//! `ringway devices show`.

use eal::pci::capability::{
    CAPABILITY_EXPRESS, CAPABILITY_MSI, CAPABILITY_MSIX, CAPABILITY_POWER, CAPABILITY_VENDOR,
};
use eal::pci::spaces::{UIO_PCI_GENERIC, VFIO_PCI};
use eal::pci::{
    Capability, DeviceInfo, PciAddress, PciDevice, PciError, Resource, Spaces, Sysfs, capabilities,
};
use serde_json::{Value, json};

use super::list;
use crate::exit::Failure;
use crate::output;
use crate::table::count;

/// What an open device tells.
struct Opened {
    capabilities: Vec<Capability>,
    msix_vectors: u16,
    has_line_interrupt: bool,
    /// Bytes of each register that was mapped, by number.
    mapped: Vec<(u8, usize)>,
    registers: Vec<(&'static str, String)>,
}

impl Opened {
    fn open(info: &DeviceInfo, resources: &[Resource]) -> Result<Self, PciError> {
        let device = eal::pci::open(info.address, &Spaces::new())?;
        let device: &dyn PciDevice = device.as_ref();
        let memory = resources.iter().filter(|resource| resource.is_memory);
        let mapped = memory.filter_map(|resource| {
            Some((resource.index, device.map_bar(resource.index).ok()?.len()))
        });
        Ok(Self {
            mapped: mapped.collect(),
            capabilities: capabilities(device)?,
            msix_vectors: device.msix_vectors(),
            has_line_interrupt: device.line_interrupt().is_some(),
            registers: drivers::pci::registers(device)?,
        })
    }
}

/// `ringway devices show`.
pub fn run(sysfs: &Sysfs, address: PciAddress, json: bool) -> Result<(), Failure> {
    let info = sysfs.device(address).map_err(Failure::runtime)?;
    let resources = sysfs.resources(address).map_err(Failure::runtime)?;
    let opened = match info.driver.as_deref() {
        Some(VFIO_PCI | UIO_PCI_GENERIC) => Opened::open(&info, &resources).map(Some),
        _ => Ok(None),
    };
    // What is known is shown whether or not it can be opened.
    let shown = opened.as_ref().ok().and_then(Option::as_ref);
    if json {
        output::json_pretty(&value(&info, &resources, shown));
    } else {
        output::text(&text(&info, &resources, shown));
    }
    opened.map(drop).map_err(Failure::runtime)
}

fn value(info: &DeviceInfo, resources: &[Resource], opened: Option<&Opened>) -> Value {
    let bars: Vec<Value> = resources
        .iter()
        .map(|bar| {
            json!({
                "index": bar.index,
                "kind": if bar.is_memory { "memory" } else { "ports" },
                "bytes": bar.len,
                "is_64bit": bar.is_64bit,
                "is_prefetchable": bar.is_prefetchable,
            })
        })
        .collect();
    let mut value = list::value(info);
    if let Some(object) = value.as_object_mut() {
        object.insert("bars".into(), bars.into());
        object.insert("open".into(), opened.map_or(Value::Null, opened_value));
    }
    value
}

fn opened_value(opened: &Opened) -> Value {
    let capabilities: Vec<Value> = opened
        .capabilities
        .iter()
        .map(|one| json!({ "id": one.id, "offset": one.offset, "name": name(one.id) }))
        .collect();
    let mapped: Vec<Value> =
        opened.mapped.iter().map(|(bar, bytes)| json!({ "index": bar, "bytes": bytes })).collect();
    let registers: serde_json::Map<String, Value> = opened
        .registers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
        .collect();
    json!({
        "capabilities": capabilities,
        "msix_vectors": opened.msix_vectors,
        "line_interrupt": opened.has_line_interrupt,
        "mapped_bars": mapped,
        "registers": registers,
    })
}

fn text(info: &DeviceInfo, resources: &[Resource], opened: Option<&Opened>) -> String {
    let number = |number: Option<u32>| number.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let mut facts: Vec<(&str, String)> = vec![
        ("address", info.address.to_string()),
        (
            "id",
            format!(
                "{:04x}:{:04x}, subsystem {:04x}:{:04x}, class {:06x}, revision {:02x}",
                info.vendor,
                info.device,
                info.subsystem_vendor,
                info.subsystem_device,
                info.class,
                info.revision
            ),
        ),
        ("driver", info.driver.clone().unwrap_or_else(|| "none".to_owned())),
        ("iommu group", number(info.iommu_group)),
        ("numa node", number(info.numa_node.map(u32::from))),
        (
            "ringway",
            drivers::pci::model(info).map_or_else(
                || "unsupported".to_owned(),
                |model| format!("{} ({})", model.driver, model.name),
            ),
        ),
    ];
    if !info.interfaces.is_empty() {
        facts.insert(3, ("interface", info.interfaces.join(", ")));
    }
    facts.extend(resources.iter().map(|bar| ("bar", bar_text(bar, opened))));
    match opened {
        Some(opened) => facts.extend(opened_facts(opened)),
        None => facts.push(("registers", not_read(info))),
    }
    facts.iter().map(|(name, value)| format!("{name:12} {value}\n")).collect()
}

/// Why there is nothing of the registers.
fn not_read(info: &DeviceInfo) -> String {
    match info.driver.as_deref() {
        Some(VFIO_PCI | UIO_PCI_GENERIC) => "not read: it cannot be opened".to_owned(),
        Some(_) => format!("not read: the host has it; ringway devices bind {}", info.address),
        None => format!("not read: it has no driver; ringway devices bind {}", info.address),
    }
}

fn bar_text(bar: &Resource, opened: Option<&Opened>) -> String {
    let mapped = opened.is_some_and(|opened| opened.mapped.iter().any(|one| one.0 == bar.index));
    let kind = match (bar.is_memory, bar.is_64bit) {
        (false, _) => "I/O ports",
        (true, false) => "32-bit memory",
        (true, true) => "64-bit memory",
    };
    let prefetchable = if bar.is_prefetchable { ", prefetchable" } else { "" };
    let mapped = if mapped { ", mapped" } else { "" };
    format!("{}: {kind}, {} bytes{prefetchable}{mapped}", bar.index, count(bar.len))
}

fn opened_facts(opened: &Opened) -> Vec<(&'static str, String)> {
    let capabilities: Vec<String> = opened
        .capabilities
        .iter()
        .map(|one| format!("{} at {:#04x}", name(one.id), one.offset))
        .collect();
    let line = if opened.has_line_interrupt { "a line" } else { "no line" };
    let interrupts = format!("{} MSI-X vectors, {line}", opened.msix_vectors);
    let mut facts = vec![("capabilities", capabilities.join(", ")), ("interrupts", interrupts)];
    facts.extend(opened.registers.iter().cloned());
    facts
}

/// What a capability is called.
fn name(id: u8) -> String {
    match id {
        CAPABILITY_POWER => "power management".to_owned(),
        CAPABILITY_MSI => "MSI".to_owned(),
        CAPABILITY_VENDOR => "vendor".to_owned(),
        CAPABILITY_EXPRESS => "PCI Express".to_owned(),
        CAPABILITY_MSIX => "MSI-X".to_owned(),
        other => format!("{other:#04x}"),
    }
}
