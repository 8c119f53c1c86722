//! Which of several controllers decides.

use super::{Form, Kind, Message};
use crate::error::ErrorCode;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// What a controller is to a switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// One of those that may do everything.
    #[default]
    Equal,
    /// The one of all that may do everything.
    Primary,
    /// One that may only read.
    Secondary,
}

/// That a controller wants a role, or to know which one it has; and the answer to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleRequest {
    /// The role; `None`: the one that it has.
    pub role: Option<Role>,
    /// By which a switch knows that an election is older than another one; Nicira's messages have
    /// none.
    pub generation: Option<u64>,
}

/// No generation, in messages that have the field.
const NO_GENERATION: u64 = u64::MAX;

impl RoleRequest {
    /// Reads a request or an answer, standard or Nicira's.
    ///
    /// # Errors
    /// `OFPRRFC_BAD_ROLE`, `OFPBRC_BAD_LEN`.
    pub fn decode(form: Form, body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let role = reader.u32()?;
        if form == Form::Nx {
            let roles = [Role::Equal, Role::Primary, Role::Secondary];
            let role = usize::try_from(role).ok().and_then(|role| roles.get(role).copied());
            return role
                .map(|role| Self { role: Some(role), generation: None })
                .ok_or(ErrorCode::RrfcBadRole);
        }
        let role = role_of(role)?;
        reader.skip(4)?;
        let generation = reader.u64()?;
        // It counts where there is an election.
        let elects = matches!(role, Some(Role::Primary | Role::Secondary));
        Ok(Self { role, generation: elects.then_some(generation) })
    }

    /// The whole message, of kind `RoleRequest` or `RoleReply`.
    #[must_use]
    pub fn encode(self, version: Version, kind: Kind, form: Form, xid: u32) -> Vec<u8> {
        let mut message = Message::of_form(version, kind, form, xid);
        let out = message.body();
        if form == Form::Nx {
            out.u32(match self.role {
                None | Some(Role::Equal) => 0,
                Some(Role::Primary) => 1,
                Some(Role::Secondary) => 2,
            });
            return message.finish();
        }
        out.u32(role_number(self.role));
        out.zeroes(4);
        out.u64(self.generation.unwrap_or(NO_GENERATION));
        message.finish()
    }
}

const fn role_number(role: Option<Role>) -> u32 {
    match role {
        None => 0,
        Some(Role::Equal) => 1,
        Some(Role::Primary) => 2,
        Some(Role::Secondary) => 3,
    }
}

const fn role_of(number: u32) -> Result<Option<Role>, ErrorCode> {
    Ok(match number {
        0 => None,
        1 => Some(Role::Equal),
        2 => Some(Role::Primary),
        3 => Some(Role::Secondary),
        _ => return Err(ErrorCode::RrfcBadRole),
    })
}

/// Why a controller is told of its role unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleReason {
    /// Another one has asked to be the primary.
    PrimaryRequest = 0,
    /// The switch is set so.
    Config = 1,
    /// An experimenter's.
    Experimenter = 2,
}

/// That a controller's role has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleStatus {
    /// The role that it has now.
    pub role: Role,
    /// Why.
    pub reason: RoleReason,
    /// The generation of the election, if there was one.
    pub generation: Option<u64>,
}

impl RoleStatus {
    /// Reads it, without the header.
    ///
    /// # Errors
    /// `OFPRRFC_BAD_ROLE`, `OFPBRC_BAD_LEN`; `OFPBRC_BAD_TYPE` of a reason that there is not.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let role = role_of(reader.u32()?)?.ok_or(ErrorCode::RrfcBadRole)?;
        let reason = match reader.u8()? {
            0 => RoleReason::PrimaryRequest,
            1 => RoleReason::Config,
            2 => RoleReason::Experimenter,
            _ => return Err(ErrorCode::BrcBadType),
        };
        reader.skip(3)?;
        let generation = Some(reader.u64()?).filter(|generation| *generation != NO_GENERATION);
        Ok(Self { role, reason, generation })
    }

    /// The whole message; `None` in versions that have none.
    #[must_use]
    pub fn encode(self, version: Version, xid: u32) -> Option<Vec<u8>> {
        if !Kind::RoleStatus.is_in(version) {
            return None;
        }
        let mut message = Message::new(version, Kind::RoleStatus, xid);
        let out = message.body();
        out.u32(role_number(Some(self.role)));
        out.u8(self.reason as u8);
        out.zeroes(3);
        out.u64(self.generation.unwrap_or(NO_GENERATION));
        Some(message.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written() {
        let roles = [Role::Equal, Role::Primary, Role::Secondary];
        for role in roles {
            let nicira = RoleRequest { role: Some(role), generation: None };
            let bytes = nicira.encode(Version::V10, Kind::RoleRequest, Form::Nx, 1);
            assert_eq!(RoleRequest::decode(Form::Nx, &bytes[16..]), Ok(nicira));
        }
        for role in roles.map(Some).into_iter().chain([None]) {
            let elects = matches!(role, Some(Role::Primary | Role::Secondary));
            let request = RoleRequest { role, generation: elects.then_some(7) };
            let bytes = request.encode(Version::V13, Kind::RoleReply, Form::Of, 1);
            assert_eq!(RoleRequest::decode(Form::Of, &bytes[8..]), Ok(request));
        }
    }

    #[test]
    fn a_role_that_is_none_is_an_error() {
        let bad = Err(ErrorCode::RrfcBadRole);
        assert_eq!(RoleRequest::decode(Form::Nx, &[0, 0, 0, 3]), bad);
        assert_eq!(RoleRequest::decode(Form::Of, &[0, 0, 0, 4, 0, 0, 0, 0]), bad);
        assert_eq!(RoleRequest::decode(Form::Of, &[0, 0, 0, 2]), Err(ErrorCode::BrcBadLen));
    }

    #[test]
    fn changes_are_told_in_versions_that_can() {
        let (role, reason) = (Role::Secondary, RoleReason::PrimaryRequest);
        let status = RoleStatus { role, reason, generation: Some(1) };
        assert_eq!(status.encode(Version::V10, 0), None);
        assert_eq!(status.encode(Version::V13, 0).unwrap().len(), 32);
        assert_eq!(status.encode(Version::V14, 0).unwrap().len(), 24);
        let reasons = [RoleReason::PrimaryRequest, RoleReason::Config, RoleReason::Experimenter];
        for (reason, generation) in reasons.into_iter().zip([None, Some(7), Some(0)]) {
            let status = RoleStatus { role, reason, generation };
            let bytes = status.encode(Version::V14, 0).unwrap();
            assert_eq!(RoleStatus::decode(&bytes[8..]), Ok(status));
            assert_eq!(RoleStatus::decode(&bytes[8..23]), Err(ErrorCode::BrcBadLen));
        }
        let none = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(RoleStatus::decode(&none), Err(ErrorCode::RrfcBadRole));
        let odd = [0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(RoleStatus::decode(&odd), Err(ErrorCode::BrcBadType));
    }
}
