//! What a switch tells on request: statistics, called multipart from OpenFlow 1.3.
//!
//! - [`desc`]: what kind of switch it is
//! - [`limits`]: how many groups and meters there may be
//! - [`port`]: statistics of ports
//! - [`queue`]: statistics of queues
//! - [`table`]: statistics and settings of tables
//! - [`table_features`]: what tables can do

pub mod desc;
pub mod limits;
pub mod port;
pub mod queue;
pub mod table;
pub mod table_features;
