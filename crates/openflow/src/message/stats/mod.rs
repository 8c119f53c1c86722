//! What a switch tells on request: statistics, called multipart from OpenFlow 1.3.
//!
//! - [`desc`]: what kind of switch it is
//! - `field_list`: lists of fields
//! - [`field_set`]: sets of fields
//! - [`ipfix`]: counts of what collectors of IPFIX are told
//! - [`limits`]: how many groups and meters there may be
//! - [`port`]: statistics of ports
//! - [`queue`]: statistics of queues
//! - [`queue_config`]: which queues there are
//! - [`table`]: statistics and settings of tables
//! - `table_able`: what tables can do, as their statistics say it
//! - [`table_features`]: what tables can do

pub mod desc;
mod field_list;
pub mod field_set;
pub mod ipfix;
pub mod limits;
pub mod port;
pub mod queue;
pub mod queue_config;
pub mod table;
mod table_able;
pub mod table_features;
