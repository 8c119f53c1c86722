//! What a device string of this driver can say.

use eal::pci::PciAddress;
use eal::pci::info::BadAddress;
use ethdev::{DeviceSpec, Error, mtu};
use packet::MacAddr;

use super::INFO;
use super::filters::{Groups, Vlans};
use super::rss::{DEFAULT_KEY, KEY_LEN};

/// Most queues of any device.
const MAX_QUEUES: u16 = 16;

/// Bounds of the ring size (82576 datasheet, 8.10.7: lengths of rings are multiples of 128 bytes).
/// The smallest has room for any packet.
pub(super) const SIZES: std::ops::RangeInclusive<u16> = 128..=4096;

/// Largest MTU: with headers, tag and frame check sequence it is below the 9.5 KiB that all
/// devices can do, and it is what other drivers have.
pub(super) const MAX_MTU: u16 = 9216;

/// Until the address is known.
const UNKNOWN: PciAddress = PciAddress { domain: 0, bus: 0, device: 0, function: 0 };

/// A device string, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(super) address: PciAddress,
    /// Receive queues, and transmit queues.
    pub(super) queues: u16,
    pub(super) queue_size: u16,
    pub(super) mtu: u16,
    /// The device's own where there is none.
    pub(super) mac: Option<MacAddr>,
    pub(super) promiscuous: bool,
    pub(super) groups: Groups,
    pub(super) vlans: Vlans,
    pub(super) rss_key: [u8; KEY_LEN],
    /// Queues that the RSS table has in turn.
    pub(super) rss_table: Vec<u8>,
    /// Take begun checksums and large segments.
    pub(super) offloads: bool,
}

impl Options {
    pub(crate) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let target = spec.require_target("a PCI address such as 0000:01:00.0")?;
        // The first thing to complain about is an option that there is not.
        let address = target.parse().map_err(|bad: BadAddress| spec.error(bad.to_string()));
        let queues = spec.take_number("queues", 1, &(1..=MAX_QUEUES))?;
        let mut options = Self {
            address: UNKNOWN,
            queues,
            queue_size: take_queue_size(&mut spec)?,
            mtu: spec.take_number("mtu", 1500, &(mtu::MIN..=MAX_MTU))?,
            mac: spec.take_station("mac")?,
            promiscuous: spec.take_switch("promiscuous", true)?,
            groups: take_groups(&mut spec)?,
            vlans: take_vlans(&mut spec)?,
            rss_key: take_key(&mut spec)?,
            rss_table: take_table(&mut spec, queues)?,
            offloads: spec.take_switch("offloads", true)?,
        };
        spec.finish(&INFO.option_names())?;
        options.address = address?;
        Ok(options)
    }
}

fn take_queue_size(spec: &mut DeviceSpec) -> Result<u16, Error> {
    let size = spec.take_number("queue_size", 512, &SIZES)?;
    if !size.is_multiple_of(8) {
        return Err(spec.error(format!("queue_size={size}: expected a multiple of 8")));
    }
    Ok(size)
}

/// Takes a list with plus signs between its parts.
fn take_list<T>(
    spec: &mut DeviceSpec,
    key: &str,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<Vec<T>>, Error> {
    let Some(text) = spec.take(key) else { return Ok(None) };
    match text.split('+').map(parse).collect() {
        Some(list) => Ok(Some(list)),
        None => Err(spec.error(format!("{key}={text}: expected {expected}"))),
    }
}

fn take_groups(spec: &mut DeviceSpec) -> Result<Groups, Error> {
    match spec.take("multicast").as_deref() {
        None | Some("all") => Ok(Groups::All),
        Some("none") => Ok(Groups::Only(Vec::new())),
        Some(text) => {
            let parse =
                |address: &str| address.parse().ok().filter(|mac: &MacAddr| mac.is_multicast());
            if let Some(list) = text.split('+').map(parse).collect() {
                return Ok(Groups::Only(list));
            }
            let expected =
                "all, none or group addresses, as in 01:00:5e:00:00:01+33:33:00:00:00:01";
            Err(spec.error(format!("multicast={text}: expected {expected}")))
        }
    }
}

fn take_vlans(spec: &mut DeviceSpec) -> Result<Vlans, Error> {
    let access = spec.take_optional_number("vlan", &(1..=4094))?;
    let parse = |id: &str| id.parse().ok().filter(|id| (0..=4094).contains(id));
    let several = take_list(spec, "vlans", "numbers to 4094, as in 1+20", parse)?;
    match (access, several) {
        (None, None) => Ok(Vlans::Any),
        (Some(id), None) => Ok(Vlans::Access(id)),
        (None, Some(ids)) => Ok(Vlans::Only(ids)),
        (Some(_), Some(_)) => Err(spec.error("vlan and vlans: expected one of them, not both")),
    }
}

fn take_key(spec: &mut DeviceSpec) -> Result<[u8; KEY_LEN], Error> {
    let Some(text) = spec.take("rss_key") else { return Ok(DEFAULT_KEY) };
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let bytes = digits.map(|digits| {
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
    });
    let key = bytes.filter(|_| text.len() == 2 * KEY_LEN).map(Vec::<u8>::try_into);
    match key {
        Some(Ok(key)) => Ok(key),
        _ => {
            Err(spec.error(format!("rss_key={text}: expected {} hexadecimal digits", 2 * KEY_LEN)))
        }
    }
}

/// By default all queues alike.
fn take_table(spec: &mut DeviceSpec, queues: u16) -> Result<Vec<u8>, Error> {
    let expected = format!("queues below {queues} that follow each other, as in 0+0+1");
    let parse = |queue: &str| queue.parse::<u8>().ok().filter(|queue| u16::from(*queue) < queues);
    let given = take_list(spec, "rss_table", &expected, parse)?;
    Ok(given.unwrap_or_else(|| (0..queues).filter_map(|queue| u8::try_from(queue).ok()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, Error> {
        Options::parse(text.parse().unwrap())
    }

    #[test]
    fn options_have_sensible_defaults() {
        let options = parse("igb:0000:01:00.0").unwrap();
        assert_eq!(options.address.to_string(), "0000:01:00.0");
        assert_eq!((options.queues, options.queue_size, options.mtu), (1, 512, 1500));
        assert!(options.promiscuous && options.offloads && options.mac.is_none());
        assert_eq!((options.groups, options.vlans), (Groups::All, Vlans::Any));
        assert_eq!((options.rss_key, options.rss_table), (DEFAULT_KEY, vec![0]));
    }

    #[test]
    fn options_are_taken_apart() {
        let key = "00112233445566778899".repeat(4);
        let options = parse(&format!(
            "igb:01:00.1,queues=4,queue_size=1024,mtu=9216,mac=02:00:00:00:00:01,promiscuous=off,\
             multicast=01:00:5e:00:00:01+33:33:00:00:00:01,vlans=0+20,rss_key={key},\
             rss_table=0+0+3,offloads=off"
        ))
        .unwrap();
        assert_eq!((options.queues, options.queue_size, options.mtu), (4, 1024, 9216));
        assert!(!options.promiscuous && !options.offloads);
        assert!(matches!(options.groups, Groups::Only(list) if list.len() == 2));
        assert_eq!(options.vlans, Vlans::Only(vec![0, 20]));
        assert_eq!((options.rss_key[1], options.rss_key[39]), (0x11, 0x99));
        assert_eq!(options.rss_table, [0, 0, 3]);
        let options = parse("igb:01:00.1,vlan=7,multicast=none,queues=3").unwrap();
        assert_eq!(options.vlans.access(), Some(7));
        assert_eq!(options.groups, Groups::Only(Vec::new()));
        assert_eq!(options.rss_table, [0, 1, 2]);
    }

    #[test]
    fn bad_options_are_named() {
        for (option, expected) in [
            ("queues=17", "1 to 16"),
            ("queue_size=64", "128 to 4096"),
            ("queue_size=132", "a multiple of 8"),
            ("mtu=9217", "68 to 9216"),
            ("mac=01:00:00:00:00:00", "one station"),
            ("multicast=02:00:00:00:00:00", "group addresses"),
            ("vlan=4095", "1 to 4094"),
            ("vlans=1+4095", "4094"),
            ("vlan=1,vlans=2", "not both"),
            ("rss_key=12", "80 hexadecimal digits"),
            ("rss_table=1", "below 1"),
            ("colour=red", "unknown option 'colour'"),
        ] {
            let error = parse(&format!("igb:01:00.0,{option}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{option}: {error}");
        }
        for bad in ["igb:", "igb:eth0"] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("0000:01:00.0"), "{error}");
        }
    }
}
