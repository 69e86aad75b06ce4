//! TLS of connections, and the certificates they trust.

use std::path::{Path, PathBuf};

use mysql_async::SslOpts;

use crate::store::SYSTEM_ROOTS;

/// TLS parameters of a URL.
#[derive(Debug, Default)]
pub struct MysqlTls {
    mode: Mode,
    roots: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    Disabled,
    #[default]
    Preferred,
    Required,
    Verified,
}

/// What is done where the server has no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: it is an error.
    None,
    /// The connection is not encrypted.
    Plain,
}

impl MysqlTls {
    /// Takes a parameter; whether it is one of TLS.
    ///
    /// Errors: what is wrong with its value.
    pub fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "ssl-mode" | "sslmode" => {
                self.mode = match value.to_ascii_lowercase().replace('-', "_").as_str() {
                    "disabled" | "disable" => Mode::Disabled,
                    "preferred" | "prefer" => Mode::Preferred,
                    "required" | "require" => Mode::Required,
                    "verify_ca" | "verify_identity" | "verify_full" => Mode::Verified,
                    _ => return Err(format!("ssl-mode {value} is not known; did you mean verify_identity?")),
                };
            }
            "ssl-ca" | "sslrootcert" => self.roots = Some(PathBuf::from(value)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The driver's options; `None` for no TLS.
    ///
    /// Errors: what is wrong with the certificates to trust.
    pub fn options(&self) -> Result<(Option<SslOpts>, Fallback), String> {
        let system = || SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()).map(Path::to_owned);
        let trusted =
            |path: PathBuf| SslOpts::default().with_disable_built_in_roots(true).with_root_certs(vec![path.into()]);
        match self.mode {
            Mode::Disabled => Ok((None, Fallback::None)),
            // The driver makes a verifier, which needs certificates although all are accepted: its own.
            Mode::Preferred => Ok((Some(SslOpts::default().with_danger_accept_invalid_certs(true)), Fallback::Plain)),
            Mode::Required => Ok((Some(SslOpts::default().with_danger_accept_invalid_certs(true)), Fallback::None)),
            Mode::Verified => {
                let path = self.roots.clone().or_else(system);
                let path = path.ok_or("ssl-mode verify_identity needs ssl-ca, a PEM file")?;
                std::fs::File::open(&path).map_err(|error| format!("ssl-ca {}: {error}", path.display()))?;
                Ok((Some(trusted(path)), Fallback::None))
            }
        }
    }
}
