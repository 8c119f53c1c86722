//! Groups and meters.

use std::fmt::{self, Display, Formatter};

use crate::action::Actions;
use crate::error::ErrorCode;
use crate::message::flow_mod::ANY_GROUP;
use crate::message::flow_text::Seconds;
use crate::message::group::{
    ALL_BUCKETS, ALL_GROUPS, Bucket, FIRST_BUCKET, GroupCommand, GroupDesc, GroupMod, GroupStats,
    GroupType, LAST_BUCKET, Selection, asked,
};
use crate::message::meter::{Band, Meter, MeterCommand, MeterMod, MeterStats};
use crate::message::{Kind, Raw};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::Reader;

/// Writes what a message about groups or meters says.
pub(super) fn show(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    match raw.kind {
        Kind::GroupMod => *text += &group_mod(&GroupMod::decode(raw)?, raw.version),
        Kind::GroupDescReply => {
            for desc in GroupDesc::decode_all(raw)? {
                let group = About {
                    group: desc.group,
                    kind: Some(desc.kind),
                    selection: desc.selection.as_ref(),
                    buckets: &desc.buckets,
                    version: raw.version,
                };
                *text += &format!("\n {group}");
            }
        }
        Kind::GroupStatsRequest | Kind::GroupDescRequest => *text += &group_asked(raw)?,
        Kind::GroupStatsReply => {
            for stats in GroupStats::decode_all(raw)? {
                *text += &group_stats(&stats, raw.version);
            }
        }
        Kind::MeterStatsReply => {
            for stats in MeterStats::decode_all(raw)? {
                *text += &format!("\n{}", meter_stats(&stats));
            }
        }
        Kind::MeterMod => *text += &meter_mod(&MeterMod::decode(raw)?),
        Kind::MeterConfigReply => {
            for meter in Meter::decode_all(raw)? {
                *text += &format!("\n{}", shown(&meter));
            }
        }
        _ => *text += &format!(" {}", meter_id(Reader::new(raw.body).u32()?)),
    }
    Ok(())
}

/// Which groups are asked for; a version that says nothing of that asks for all.
fn group_asked(raw: &Raw<'_>) -> Result<String, ErrorCode> {
    Ok(match asked(raw)? {
        ALL_GROUPS => " group_id=ALL".to_owned(),
        group => format!(" group_id={group}"),
    })
}

fn group_mod(change: &GroupMod, version: Version) -> String {
    let command = match change.command {
        GroupCommand::Add => "ADD",
        GroupCommand::Modify => "MOD",
        GroupCommand::AddOrModify => "ADD_OR_MOD",
        GroupCommand::Delete => "DEL",
        GroupCommand::InsertBucket => "INSERT_BUCKET",
        GroupCommand::RemoveBucket => "REMOVE_BUCKET",
    };
    let is_about_bucket =
        matches!(change.command, GroupCommand::InsertBucket | GroupCommand::RemoveBucket);
    let bucket = if is_about_bucket && has_ids(version) {
        format!("command_bucket_id:{},", bucket_id(change.bucket))
    } else {
        String::new()
    };
    let group = About {
        group: change.group,
        kind: (!is_about_bucket).then_some(change.kind),
        selection: change.selection.as_ref(),
        buckets: &change.buckets,
        version,
    };
    format!("\n {command} {bucket}{group}")
}

/// Whether buckets have numbers.
fn has_ids(version: Version) -> bool {
    matches!(version, Version::V10 | Version::V15)
}

fn bucket_id(id: u32) -> String {
    match id {
        FIRST_BUCKET => "first".to_owned(),
        LAST_BUCKET => "last".to_owned(),
        ALL_BUCKETS => "all".to_owned(),
        id => id.to_string(),
    }
}

/// A group as ovs-ofctl shows it.
struct About<'a> {
    group: u32,
    /// Where it is said.
    kind: Option<GroupType>,
    selection: Option<&'a Selection>,
    buckets: &'a [Bucket],
    version: Version,
}

impl Display for About<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "group_id={}", self.group)?;
        if let Some(kind) = self.kind {
            f.write_str(match kind {
                GroupType::All => ",type=all",
                GroupType::Select => ",type=select",
                GroupType::Indirect => ",type=indirect",
                GroupType::FastFailover => ",type=ff",
            })?;
        }
        if let Some(selection) = self.selection {
            selected(f, selection)?;
        }
        self.buckets.iter().try_for_each(|bucket| self.bucket(f, bucket))
    }
}

impl About<'_> {
    fn bucket(&self, f: &mut Formatter<'_>, bucket: &Bucket) -> fmt::Result {
        f.write_str(",bucket=")?;
        if has_ids(self.version) {
            write!(f, "bucket_id:{},", bucket_id(bucket.id))?;
        }
        // Where it is not said which kind the group is of, it is one of all.
        let usual = u16::from(self.kind == Some(GroupType::Select));
        if bucket.weight != usual {
            write!(f, "weight:{},", bucket.weight)?;
        }
        if bucket.watch_port != PortNo::ANY {
            write!(f, "watch_port:{},", bucket.watch_port)?;
        }
        if bucket.watch_group != ANY_GROUP {
            write!(f, "watch_group:{},", bucket.watch_group)?;
        }
        write!(f, "actions={}", Actions(&bucket.actions))
    }
}

fn selected(f: &mut Formatter<'_>, selection: &Selection) -> fmt::Result {
    write!(f, ",selection_method={}", selection.method)?;
    if selection.parameter != 0 {
        write!(f, ",selection_method_param={}", selection.parameter)?;
    }
    let part = |(field, mask): &(crate::Field, u128)| match mask & field.byte_mask() {
        all if all == field.byte_mask() => field.to_string(),
        mask => format!("{field}={mask:#x}"),
    };
    let fields: Vec<String> = selection.fields.iter().map(part).collect();
    match &fields[..] {
        [] => Ok(()),
        [field] => write!(f, ",fields={field}"),
        fields => write!(f, ",fields({})", fields.join(",")),
    }
}

fn group_stats(stats: &GroupStats, version: Version) -> String {
    let duration = if version >= Version::V13 || version == Version::V10 {
        format!("duration={},", Seconds(stats.duration))
    } else {
        String::new()
    };
    let (packets, bytes) = stats.counts;
    let buckets = stats.buckets.iter().enumerate().filter(|(_, (packets, _))| *packets != u64::MAX);
    let buckets: String = buckets
        .map(|(at, (packets, bytes))| {
            format!(",bucket{at}:packet_count={packets},byte_count={bytes}")
        })
        .collect();
    let GroupStats { group, references, .. } = stats;
    format!(
        "\n group_id={group},{duration}ref_count={references},packet_count={packets},\
         byte_count={bytes}{buckets}"
    )
}

fn meter_stats(stats: &MeterStats) -> String {
    let (packets, bytes) = stats.counts;
    let bands = stats.bands.iter().enumerate();
    let bands: String = bands
        .map(|(at, (packets, bytes))| format!("\n{at}: packet_count:{packets} byte_count:{bytes}"))
        .collect();
    format!(
        "{} flow_count:{} packet_in_count:{packets} byte_in_count:{bytes} duration:{} bands:{bands}",
        meter_id(stats.id).replacen('=', ":", 1),
        stats.flows,
        Seconds(stats.duration)
    )
}

fn meter_mod(change: &MeterMod) -> String {
    let command = match change.command {
        MeterCommand::Add => "ADD",
        MeterCommand::Modify => "MOD",
        MeterCommand::Delete => "DEL",
    };
    format!(" {command} {}", shown(&change.meter))
}

/// A meter and its bands, a line each.
fn shown(meter: &Meter) -> String {
    let names = [(1, "kbps "), (2, "pktps "), (4, "burst "), (8, "stats ")];
    let flags: String =
        names.iter().filter(|(bit, _)| meter.flags & bit != 0).map(|(_, name)| *name).collect();
    let bands: String = meter.bands.iter().map(|one| band(one, meter.flags & 4 != 0)).collect();
    format!("{} {flags}bands={bands}", meter_id(meter.id))
}

fn band(band: &Band, has_burst: bool) -> String {
    let kind = if band.remark.is_some() { "dscp_remark" } else { "drop" };
    let burst = if has_burst { format!(" burst_size={}", band.burst) } else { String::new() };
    let level = band.remark.map(|level| format!(" prec_level={level}")).unwrap_or_default();
    format!("\ntype={kind} rate={}{burst}{level}", band.rate)
}

fn meter_id(id: u32) -> String {
    match id {
        0..=0xFFFF_0000 => format!("meter={id}"),
        0xFFFF_FFFD => "meter=slowpath".to_owned(),
        0xFFFF_FFFE => "meter=controller".to_owned(),
        0xFFFF_FFFF => "meter=all".to_owned(),
        _ => "meter=unknown".to_owned(),
    }
}
