//! The bus of several nodes.

use std::{fs, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{Secret, deserialize_duration};

/// Least of [`NatsBus::changes_bytes`]: the smallest message that NATS takes by default, with what follows it.
const CHANGES_BYTES_MIN: u64 = 1 << 20;
/// Least of [`NatsBus::changes_age`]: what a node keeps in memory.
const CHANGES_AGE_MIN: Duration = Duration::from_secs(60);

/// A NATS server, or a cluster of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsBus {
    /// URLs, separated by commas.
    #[serde(default)]
    pub url: String,
    /// Name of a user.
    #[serde(default)]
    pub user: Option<String>,
    /// The password of that user.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A token.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A file with a JWT and the seed of its key.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// Certificates that the server's is checked with.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Certificate of this node.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Key of that certificate.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Bytes of changes of one database that are kept.
    #[serde(default = "changes_bytes")]
    pub changes_bytes: u64,
    /// How long they are kept.
    #[serde(default = "changes_age", deserialize_with = "deserialize_duration")]
    pub changes_age: Duration,
}

fn changes_bytes() -> u64 {
    64 << 20
}

fn changes_age() -> Duration {
    Duration::from_secs(600)
}

impl NatsBus {
    /// The URLs, each by itself.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.split(',').map(str::trim).filter(|url| !url.is_empty())
    }

    /// Checks what types alone do not say. An error is a field, and the reason.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, message: String| Err((field.to_owned(), message));
        if self.urls().next().is_none() {
            return wrong("url", "must be set, such as nats://nats:4222".to_owned());
        }
        for url in self.urls() {
            check_url(url).map_err(|message| ("url".to_owned(), message))?;
        }
        for (field, is_set, other, has_other) in [
            ("password", self.password.is_some(), "user", self.user.is_some()),
            ("user", self.user.is_some(), "password", self.password.is_some()),
            ("key", self.key.is_some(), "certificate", self.certificate.is_some()),
            ("certificate", self.certificate.is_some(), "key", self.key.is_some()),
        ] {
            if has_other && !is_set {
                return wrong(field, format!("must be set where bus.{other} is"));
            }
        }
        if self.token.is_some() && self.user.is_some() {
            return wrong("token", "not allowed beside bus.user".to_owned());
        }
        if self.credentials.is_some() && (self.token.is_some() || self.user.is_some()) {
            return wrong("credentials", "not allowed beside bus.user or bus.token".to_owned());
        }
        for (field, secret) in [("token", &self.token), ("password", &self.password)] {
            if secret.as_ref().is_some_and(|secret| secret.0.is_empty()) {
                return wrong(field, "must not be empty".to_owned());
            }
        }
        for (field, file) in [
            ("credentials", &self.credentials),
            ("ca", &self.ca),
            ("certificate", &self.certificate),
            ("key", &self.key),
        ] {
            if let Some(file) = file
                && let Err(error) = fs::metadata(file).and_then(|_| fs::File::open(file))
            {
                return wrong(field, format!("the file {} cannot be read: {error}", file.display()));
            }
        }
        if self.changes_bytes < CHANGES_BYTES_MIN {
            return wrong("changes_bytes", format!("must be at least {CHANGES_BYTES_MIN}"));
        }
        if i64::try_from(self.changes_bytes).is_err() {
            return wrong("changes_bytes", format!("must be at most {}", i64::MAX));
        }
        if self.changes_age < CHANGES_AGE_MIN {
            return wrong("changes_age", format!("must be at least {}s", CHANGES_AGE_MIN.as_secs()));
        }
        Ok(())
    }
}

/// Refuses what is no address of a server. The URL itself is not told: a password may stand in it.
fn check_url(url: &str) -> Result<(), String> {
    const EXPECTED: &str = "expected nats:// or tls:// and a host";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("{EXPECTED}, such as nats://nats:4222"));
    };
    if !["nats", "tls"].contains(&scheme) {
        return Err(format!("{EXPECTED}, found scheme {scheme}"));
    }
    if rest.contains('@') {
        return Err("no user and password are allowed in it; set bus.user and bus.password".to_owned());
    }
    if rest.contains(['/', '?', '#']) {
        return Err("no path is allowed after the host".to_owned());
    }
    match url.parse::<async_nats::ServerAddr>() {
        Ok(address) if !address.host().is_empty() => Ok(()),
        Ok(_) => Err(EXPECTED.to_owned()),
        Err(error) => Err(format!("{EXPECTED}: {}", reason(&error.to_string()))),
    }
}

/// What is wrong, without the text that is.
fn reason(error: &str) -> &str {
    error.rsplit_once(": ").map_or(error, |(_, reason)| reason)
}
