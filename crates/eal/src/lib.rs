//! Environment: workers on cores, clock, shared memory.
