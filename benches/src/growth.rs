//! How the cost of a packet grows with the number of stations, flows, idle ports, and pieces of guest memory.
fn main() {}
