//! The virtual switch: forwarding database and data path.
