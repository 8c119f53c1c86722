//! What messages are called.

use crate::message::{Form, Kind, Raw};

/// Its name: `OFPT_FLOW_MOD`, `NXST_FLOW reply`.
pub(super) fn of(raw: &Raw<'_>) -> String {
    let prefix = match raw.form {
        Form::Of => "OFPT_",
        Form::Nx => "NXT_",
        Form::Onf => "ONFT_",
        Form::Request | Form::Reply => "OFPST_",
        Form::NxRequest | Form::NxReply => "NXST_",
        Form::OnfRequest | Form::OnfReply => "ONFST_",
    };
    let suffix = match raw.form {
        Form::Of | Form::Nx | Form::Onf => "",
        Form::Request | Form::NxRequest | Form::OnfRequest => " request",
        Form::Reply | Form::NxReply | Form::OnfReply => " reply",
    };
    format!("{prefix}{}{suffix}", special(raw).map_or_else(|| plain(raw), str::to_owned))
}

/// Those that are called otherwise than what they are.
const fn special(raw: &Raw<'_>) -> Option<&'static str> {
    Some(match (raw.kind, raw.form, raw.number) {
        (Kind::SetAsyncConfig, Form::Of, _) => "SET_ASYNC",
        (Kind::SetAsyncConfig, _, 27) => "SET_ASYNC_CONFIG2",
        (Kind::PacketIn, Form::Nx, 30) => "PACKET_IN2",
        (Kind::BundleAdd, ..) => "BUNDLE_ADD_MESSAGE",
        (Kind::RequestForward, ..) => "REQUESTFORWARD",
        (Kind::QueueGetConfigRequest, Form::Request, _)
        | (Kind::QueueGetConfigReply, Form::Reply, _) => "QUEUE_DESC",
        (Kind::IpfixBridgeStatsRequest | Kind::IpfixBridgeStatsReply, ..) => "IPFIX_BRIDGE",
        (Kind::IpfixFlowStatsRequest | Kind::IpfixFlowStatsReply, ..) => "IPFIX_FLOW",
        _ => return None,
    })
}

/// The name of a kind with a line between its words; of statistics without the last words.
fn plain(raw: &Raw<'_>) -> String {
    let kind = format!("{:?}", raw.kind);
    let words = if raw.form.is_stats() {
        let words = kind.strip_suffix("Request").or_else(|| kind.strip_suffix("Reply"));
        let words = words.unwrap_or(&kind);
        words.strip_suffix("Stats").unwrap_or(words)
    } else {
        &kind
    };
    let mut name = String::new();
    for letter in words.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
