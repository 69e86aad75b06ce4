//! `perigee version`.

/// Version, commit and build of this binary.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " commit ", env!("BUILD_COMMIT"), " build ", env!("BUILD_KIND"));
