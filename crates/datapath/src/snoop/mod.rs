//! IGMP and MLD snooping, as far as frames pass it: what goes to a group goes to its members and to routers
//! alone (RFC 4541).
//!
//! - `kind`: what a bridge has to know of a frame
//! - [`message`]: the messages of IGMP and MLD
//! - [`stage`]: the bridge's decisions about what goes to groups
//! - [`view`]: what workers know of groups

pub mod kind;
pub mod message;
pub mod stage;
pub mod view;
