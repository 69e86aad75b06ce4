//! Perigee.
fn main() {}
