//! `perigee version`.

/// Version, commit and build of this binary.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " commit ", env!("PERIGEE_COMMIT"), " build ", env!("PERIGEE_BUILD"));
