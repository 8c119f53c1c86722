//! A tunnel's settings as a device string: `vxlan:remote=10.0.0.2,key=5`.

use std::net::IpAddr;

use ethdev::{DeviceSpec, Error};
use tunnel::{Address, Erspan, ErspanSettings, Inherited, Kind, Mode, Said, Settings, TunnelKey};

/// All options, for messages.
const OPTIONS: &str = "remote, local, key, in-key, out-key, port, tos, ttl, csum, df, mark, packets, gpe, gbp, seq, version, index, \
     direction, hwid";

/// The settings that a device string has, if it is one of a tunnel: `KIND:remote=ADDRESS`, and options.
///
/// # Errors
/// It is one of a tunnel, and makes no sense.
pub fn tunnel_settings(device: &str) -> Option<Result<Settings, Error>> {
    let kind = device.split_once(':').and_then(|(driver, _)| Kind::named(driver))?;
    Some(device.parse().and_then(|spec| settings(kind, spec)))
}

fn settings(kind: Kind, mut spec: DeviceSpec) -> Result<Settings, Error> {
    spec.allow_option_as_target(&["remote"])?;
    let remote = address(&mut spec, "remote")?.ok_or_else(|| {
        spec.error(format!("expected remote=ADDRESS, as in {}:remote=10.0.0.2", kind.name()))
    })?;
    let local = address(&mut spec, "local")?.unwrap_or_default();
    if let (Address::Is(remote), Address::Is(local)) = (remote, local)
        && remote.is_ipv4() != local.is_ipv4()
    {
        return Err(spec.error("expected remote and local to be both of IPv4, or both of IPv6"));
    }
    let both = key(&mut spec, "key", kind)?;
    let in_key = key(&mut spec, "in-key", kind)?.or(both).unwrap_or_default();
    let out_key = key(&mut spec, "out-key", kind)?.or(both).unwrap_or_default();
    let usual = Settings::new(kind, remote);
    let port = match kind {
        Kind::Gre | Kind::Erspan => usual.port,
        _ => spec.take_number("port", usual.port, &(1..=u16::MAX))?,
    };
    let settings = Settings {
        local,
        in_key,
        out_key,
        port,
        tos: inherited(&mut spec, "tos")?.unwrap_or(usual.tos),
        ttl: inherited(&mut spec, "ttl")?.unwrap_or(usual.ttl),
        checksum: kind != Kind::Erspan && spec.take_switch("csum", usual.checksum)?,
        dont_fragment: spec.take_switch("df", usual.dont_fragment)?,
        mark: spec.take_number("mark", usual.mark, &(0..=u32::MAX))?,
        mode: mode(&mut spec, usual.mode)?,
        says_inner: kind == Kind::Vxlan && spec.take_switch("gpe", false)?,
        has_policy: kind == Kind::Vxlan && spec.take_switch("gbp", false)?,
        is_numbered: matches!(kind, Kind::Gre | Kind::Gtpu) && spec.take_switch("seq", false)?,
        erspan: if kind == Kind::Erspan { erspan(&mut spec)? } else { usual.erspan },
        ..usual
    };
    if kind == Kind::Gtpu && settings.mode == Mode::Frames {
        return Err(
            spec.error("packets=l2: expected l3 or any, as it carries packets without Ethernet")
        );
    }
    if settings.mode == Mode::Packets && !settings.carries_packets() {
        let more = if kind == Kind::Vxlan { "gpe=on beside it, or " } else { "" };
        return Err(spec.error(format!(
            "packets=l3: expected {more}a tunnel that carries packets without Ethernet, as gre:"
        )));
    }
    if settings.ttl == Inherited::Is(0) {
        return Err(spec.error("ttl=0: expected a number from 1 to 255, or inherit"));
    }
    if settings.says_inner && settings.has_policy {
        return Err(spec
            .error("gpe=on and gbp=on: expected one of them, as both are said in the same bits"));
    }
    if !spec.target().is_empty() {
        return Err(spec.error(format!("expected an option after '{}:'", kind.name())));
    }
    spec.finish(OPTIONS)?;
    Ok(settings)
}

/// What the port gives and gets.
fn mode(spec: &mut DeviceSpec, usual: Mode) -> Result<Mode, Error> {
    match spec.take("packets").as_deref() {
        None => Ok(usual),
        Some("l2") => Ok(Mode::Frames),
        Some("l3") => Ok(Mode::Packets),
        Some("any") => Ok(Mode::Any),
        Some(other) => Err(spec.error(format!("packets={other}: expected l2, l3 or any"))),
    }
}

/// What ERSPAN says of frames.
fn erspan(spec: &mut DeviceSpec) -> Result<ErspanSettings, Error> {
    let usual = ErspanSettings::USUAL;
    let version = said(spec, "version", (1, 2))?.unwrap_or(usual.version);
    // Whoever leaves the version to rules leaves all to them.
    let rest = if version == Said::Flow { Said::Flow } else { Said::Is(0) };
    let mut own = |option: &str, most: u32| Ok(said(spec, option, (0, most))?.unwrap_or(rest));
    Ok(ErspanSettings {
        version,
        index: own("index", Erspan::MAX_INDEX)?,
        direction: own("direction", 1)?,
        hardware: own("hwid", Erspan::MAX_HARDWARE.into())?,
    })
}

/// A number in this range, or `flow`.
fn said(
    spec: &mut DeviceSpec,
    option: &str,
    (least, most): (u32, u32),
) -> Result<Option<Said>, Error> {
    let Some(value) = spec.take(option) else { return Ok(None) };
    if value == "flow" {
        return Ok(Some(Said::Flow));
    }
    let hex = value.strip_prefix("0x").map(|hex| u32::from_str_radix(hex, 16));
    let number = hex.unwrap_or_else(|| value.parse()).ok();
    let number = number.filter(|number| (least..=most).contains(number));
    let wrong = || spec.error(format!("{option}={value}: expected {least} to {most}, or flow"));
    number.map(|number| Some(Said::Is(number))).ok_or_else(wrong)
}

fn address(spec: &mut DeviceSpec, key: &str) -> Result<Option<Address>, Error> {
    let Some(value) = spec.take(key) else { return Ok(None) };
    let wrong =
        || spec.error(format!("{key}={value}: expected an address of IPv4 or IPv6, or flow"));
    if value == "flow" {
        return Ok(Some(Address::Flow));
    }
    let address: IpAddr = value.parse().map_err(|_| wrong())?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(wrong());
    }
    Ok(Some(Address::Is(address)))
}

fn key(spec: &mut DeviceSpec, option: &str, kind: Kind) -> Result<Option<TunnelKey>, Error> {
    let Some(value) = spec.take(option) else { return Ok(None) };
    if value == "flow" {
        return Ok(Some(TunnelKey::Flow));
    }
    let hex = value.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16));
    let number = hex.unwrap_or_else(|| value.parse()).ok().filter(|key| *key <= kind.max_key());
    let wrong = || {
        let most = kind.max_key();
        spec.error(format!("{option}={value}: expected a number from 0 to {most}, or flow"))
    };
    number.map(|key| Some(TunnelKey::Is(key))).ok_or_else(wrong)
}

fn inherited(spec: &mut DeviceSpec, option: &str) -> Result<Option<Inherited>, Error> {
    let Some(value) = spec.take(option) else { return Ok(None) };
    if value == "inherit" {
        return Ok(Some(Inherited::Inner));
    }
    let hex = value.strip_prefix("0x").map(|hex| u8::from_str_radix(hex, 16));
    let number = hex.unwrap_or_else(|| value.parse());
    let wrong =
        |_| spec.error(format!("{option}={value}: expected a number up to 255, or inherit"));
    number.map(|byte| Some(Inherited::Is(byte))).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(device: &str) -> Settings {
        tunnel_settings(device).unwrap().unwrap()
    }

    #[test]
    fn settings_are_options() {
        assert!(tunnel_settings("tap:vxlan").is_none() && tunnel_settings("vxlan").is_none());
        let remote = Address::Is([10, 0, 0, 2].into());
        assert_eq!(of("vxlan:remote=10.0.0.2"), Settings::new(Kind::Vxlan, remote));
        let all = of("geneve:remote=flow,local=fd00::1,key=flow,out-key=0x10,port=7,tos=inherit,\
                      ttl=3,csum=on,df=off,mark=9");
        let wanted = Settings {
            local: Address::Is("fd00::1".parse().unwrap()),
            in_key: TunnelKey::Flow,
            out_key: TunnelKey::Is(16),
            port: 7,
            tos: Inherited::Inner,
            ttl: Inherited::Is(3),
            checksum: true,
            dont_fragment: false,
            mark: 9,
            ..Settings::new(Kind::Geneve, Address::Flow)
        };
        assert_eq!(all, wanted);
        let gre = Settings { mode: Mode::Packets, ..Settings::new(Kind::Gre, remote) };
        assert_eq!(of("gre:remote=10.0.0.2,packets=l3"), gre);
        assert!(of("gre:remote=10.0.0.2,seq=on").is_numbered);
        assert!(of("vxlan:remote=10.0.0.2,gbp=on").has_policy);
        assert_eq!(of("gtpu:remote=10.0.0.2").mode, Mode::Packets);
        let erspan = of("erspan:remote=10.0.0.2,version=2,direction=1,hwid=0x17").erspan;
        let two = ErspanSettings {
            version: Said::Is(2),
            index: Said::Is(0),
            direction: Said::Is(1),
            hardware: Said::Is(0x17),
        };
        assert_eq!(erspan, two);
        let flow = of("erspan:remote=10.0.0.2,version=flow").erspan;
        assert_eq!((flow.version, flow.hardware), (Said::Flow, Said::Flow));
        let gpe = of("vxlan:remote=10.0.0.2,packets=any,gpe=on");
        assert_eq!((gpe.mode, gpe.says_inner), (Mode::Any, true));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (device, named) in [
            ("vxlan:", "expected remote=ADDRESS"),
            ("vxlan:x", "expected remote=ADDRESS"),
            ("vxlan:x,remote=10.0.0.2", "expected an option"),
            ("vxlan:remote=10.0.0.300", "remote=10.0.0.300"),
            ("vxlan:remote=224.0.0.1", "remote=224.0.0.1"),
            ("vxlan:remote=10.0.0.2,local=fd00::1", "both of IPv4"),
            ("vxlan:remote=10.0.0.2,key=16777216", "from 0 to 16777215"),
            ("gre:remote=10.0.0.2,port=1", "unknown option 'port'"),
            ("geneve:remote=10.0.0.2,ttl=0", "from 1 to 255"),
            ("geneve:remote=10.0.0.2,tos=256", "tos=256"),
            ("gre:remote=10.0.0.2,packets=l4", "packets=l4: expected l2, l3 or any"),
            ("gre:remote=10.0.0.2,gpe=on", "unknown option 'gpe'"),
            ("vxlan:remote=10.0.0.2,seq=on", "unknown option 'seq'"),
            ("vxlan:remote=10.0.0.2,gpe=on,gbp=on", "expected one of them"),
            ("vxlan:remote=10.0.0.2,packets=l3", "gpe=on beside it"),
            ("geneve:remote=10.0.0.2,packets=l3", "as gre:"),
            ("gtpu:remote=10.0.0.2,packets=l2", "expected l3 or any"),
            ("erspan:remote=10.0.0.2,version=3", "version=3: expected 1 to 2, or flow"),
            ("erspan:remote=10.0.0.2,index=0x100000", "expected 0 to 1048575"),
            ("erspan:remote=10.0.0.2,key=1024", "from 0 to 1023"),
            ("erspan:remote=10.0.0.2,csum=on", "unknown option 'csum'"),
            ("gre:remote=10.0.0.2,hwid=1", "unknown option 'hwid'"),
        ] {
            let error = tunnel_settings(device).unwrap().unwrap_err().to_string();
            assert!(error.contains(named), "{device}: {error}");
        }
    }
}
