//! The gRPC server that functions of a service are methods of.

use serde::Deserialize;

use super::BaseUrl;

/// Most bytes of the full name of a service.
const NAME_BYTES: usize = 512;

/// A gRPC server, and the service of it whose methods are functions.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GrpcServer {
    /// Scheme, host and port; with `https` it is TLS.
    pub url: GrpcUrl,
    /// Full name of the service: `shop.mail.v1.Mail`.
    pub service: GrpcServiceName,
    /// Whether the server is asked for its contracts. Either this or `descriptor`.
    #[serde(default)]
    pub reflection: bool,
    /// A file of the contracts, relative to the document: a `FileDescriptorSet` with all that the service imports, as
    /// `protoc --include_imports --descriptor_set_out` writes it.
    #[serde(default)]
    pub descriptor: Option<String>,
}

/// The address of a gRPC server, without a path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String")]
pub struct GrpcUrl(pub String);

/// The full name of a gRPC service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String")]
pub struct GrpcServiceName(pub String);

impl GrpcUrl {
    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// The host, an address in brackets without them, and the port.
    pub fn target(&self) -> (&str, u16) {
        let authority = self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest);
        let default = if self.is_tls() { 443 } else { 80 };
        let port = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let (host, port) = port.map_or((authority, default), |(host, port)| (host, port.parse().unwrap_or(default)));
        (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
    }
}

impl TryFrom<String> for GrpcUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let BaseUrl(url) = BaseUrl::try_from(text)?;
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        match has_path {
            true => Err(format!("invalid URL {url:?}: a gRPC server has no path, expected http://host:port")),
            false => Ok(Self(url)),
        }
    }
}

impl TryFrom<String> for GrpcServiceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let is_part = |part: &str| {
            part.bytes().next().is_some_and(is_first)
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        match name.len() <= NAME_BYTES && name.split('.').all(is_part) {
            true => Ok(Self(name)),
            false => Err(format!("invalid service name {name:?}: expected its full name, such as shop.mail.v1.Mail")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<GrpcUrl, String> {
        GrpcUrl::try_from(text.to_owned())
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (text, target) in [
            ("http://mail:9000", ("mail", 9000)),
            ("http://mail/", ("mail", 80)),
            ("https://mail", ("mail", 443)),
            ("https://[::1]:9000", ("::1", 9000)),
            ("http://[fd00::2]", ("fd00::2", 80)),
        ] {
            assert_eq!(url(text).unwrap().target(), target, "{text}");
        }
        for wrong in ["mail:9000", "grpc://mail", "http://mail/v1", "http://u:p@mail", "http://mail:0"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_service_has_a_full_name() {
        let name = |text: &str| GrpcServiceName::try_from(text.to_owned()).is_ok();
        for sound in ["Mail", "shop.mail.v1.Mail", "_a.B2"] {
            assert!(name(sound), "{sound}");
        }
        for wrong in ["", ".Mail", "mail.", "a..b", "a b", "1a", "a/b", "mäil", &*"a".repeat(513)] {
            assert!(!name(wrong), "{wrong}");
        }
    }
}
