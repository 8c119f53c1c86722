//! Which of several controllers decides.

use super::{Form, Kind, Message, Raw};
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
    /// By which a switch knows that an election is older than another one; it counts where there is one, for
    /// [`Role::Primary`] and [`Role::Secondary`]. Nicira's messages have none.
    pub generation: Option<u64>,
}

/// No generation, in messages that have the field.
const NO_GENERATION: u64 = u64::MAX;

impl RoleRequest {
    /// Reads a request or an answer, standard or Nicira's.
    ///
    /// # Errors
    /// `OFPRRFC_BAD_ROLE`, `OFPBRC_BAD_LEN`.
    pub fn decode(raw: &Raw<'_>) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let role = reader.u32()?;
        if raw.form == Form::Nx {
            let roles = [Role::Equal, Role::Primary, Role::Secondary];
            let role = usize::try_from(role).ok().and_then(|role| roles.get(role).copied());
            return role
                .map(|role| Self { role: Some(role), generation: None })
                .ok_or(ErrorCode::RrfcBadRole);
        }
        let role = role_of(role)?;
        reader.skip(4)?;
        let generation = reader.u64()?;
        let is_said = match raw.kind {
            Kind::RoleReply => generation != NO_GENERATION,
            _ => role.is_some(),
        };
        Ok(Self { role, generation: is_said.then_some(generation) })
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
    PrimaryRequest,
    /// The switch is set so.
    Config,
    /// An experimenter's.
    Experimenter,
    /// One that there is not, as it was read.
    Unknown(u8),
}

impl RoleReason {
    const fn number(self) -> u8 {
        match self {
            Self::PrimaryRequest => 0,
            Self::Config => 1,
            Self::Experimenter => 2,
            Self::Unknown(number) => number,
        }
    }
}

/// That a controller's role has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleStatus {
    /// The role that it has now; `None`: as before.
    pub role: Option<Role>,
    /// Why.
    pub reason: RoleReason,
    /// The generation of the election, if there was one.
    pub generation: Option<u64>,
}

impl RoleStatus {
    /// Reads it, without the header.
    ///
    /// # Errors
    /// `OFPRRFC_BAD_ROLE`, `OFPBRC_BAD_LEN`.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let role = role_of(reader.u32()?)?;
        let reason = match reader.u8()? {
            0 => RoleReason::PrimaryRequest,
            1 => RoleReason::Config,
            2 => RoleReason::Experimenter,
            number => RoleReason::Unknown(number),
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
        out.u32(role_number(self.role));
        out.u8(self.reason.number());
        out.zeroes(3);
        out.u64(self.generation.unwrap_or(NO_GENERATION));
        Some(message.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<RoleRequest, ErrorCode> {
        RoleRequest::decode(&Raw::read(bytes)?)
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        let roles = [Role::Equal, Role::Primary, Role::Secondary];
        for role in roles {
            let nicira = RoleRequest { role: Some(role), generation: None };
            let bytes = nicira.encode(Version::V10, Kind::RoleRequest, Form::Nx, 1);
            assert_eq!(read(&bytes), Ok(nicira));
        }
        for role in roles.map(Some).into_iter().chain([None]) {
            let request = RoleRequest { role, generation: role.map(|_| 7) };
            let bytes = request.encode(Version::V13, Kind::RoleRequest, Form::Of, 1);
            assert_eq!(read(&bytes), Ok(request));
            for generation in [None, Some(7)] {
                let answer = RoleRequest { role, generation };
                let bytes = answer.encode(Version::V13, Kind::RoleReply, Form::Of, 1);
                assert_eq!(read(&bytes), Ok(answer));
            }
        }
    }

    #[test]
    fn a_role_that_is_none_is_an_error() {
        let mut nicira = Message::of_form(Version::V10, Kind::RoleRequest, Form::Nx, 1);
        nicira.body().u32(3);
        assert_eq!(read(&nicira.finish()), Err(ErrorCode::RrfcBadRole));
        let mut standard = Message::new(Version::V13, Kind::RoleRequest, 1);
        standard.body().extend([0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&standard.finish()), Err(ErrorCode::RrfcBadRole));
    }

    #[test]
    fn changes_are_told_in_versions_that_can() {
        let (role, reason) = (Some(Role::Secondary), RoleReason::PrimaryRequest);
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
        let none = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(RoleStatus::decode(&none), Err(ErrorCode::RrfcBadRole));
        let odd = [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let read = RoleStatus::decode(&odd).unwrap();
        assert_eq!((read.role, read.reason), (None, RoleReason::Unknown(3)));
    }
}
