//! Where events are delivered.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::function::BaseUrl;

/// Bytes that a signing secret may have. Source: Standard Webhooks, "Signature scheme".
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Secrets that are in use at the same time.
const SECRETS_MAX: usize = 10;

/// Where events of a trigger are delivered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "TargetKeys")]
#[cfg_attr(feature = "json-schema", schemars(with = "TargetKeys"))]
pub enum Target {
    /// To an address.
    Webhook(Webhook),
    /// To a function of a service.
    Function(FunctionTarget),
}

/// An address that events are sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Its URL.
    pub url: WebhookUrl,
    /// What its messages are signed with.
    pub secret: SigningSecrets,
}

/// A function that is called with events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionTarget {
    /// The service's id.
    pub service: String,
    /// The function's name.
    pub function: String,
}

/// `to` of a trigger as it is written.
#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct TargetKeys {
    /// A URL of `http:` or `https:`.
    #[serde(default)]
    url: Option<WebhookUrl>,
    /// What messages to the URL are signed with, `whsec_` and base64 of 24 to 64 bytes; several while they are changed; absent:
    /// messages are not signed.
    #[serde(default)]
    secret: SigningSecrets,
    /// The id of a service, one function of which is called.
    #[serde(default)]
    service: Option<String>,
    /// The name of the function.
    #[serde(default)]
    function: Option<String>,
}

impl TryFrom<TargetKeys> for Target {
    type Error = String;

    fn try_from(keys: TargetKeys) -> Result<Self, String> {
        let TargetKeys { url, secret, service, function } = keys;
        match (url, service, function) {
            (Some(url), None, None) => Ok(Self::Webhook(Webhook { url, secret })),
            (None, Some(_), Some(_)) if !secret.0.is_empty() => {
                Err("secret does not apply to functions: what calls them is the node".to_owned())
            }
            (None, Some(service), Some(function)) if !service.is_empty() && !function.is_empty() => {
                Ok(Self::Function(FunctionTarget { service, function }))
            }
            _ => Err("expected either url, or service and function".to_owned()),
        }
    }
}

/// The URL of a webhook.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String")]
pub struct WebhookUrl(pub String);

impl TryFrom<String> for WebhookUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (base, query) = text.split_once('?').unwrap_or((&text, ""));
        // Its path may have a secret in it, which is not shown.
        let wrong = "invalid URL: expected http://host or https://host, maybe with port, path and query, and no user";
        BaseUrl::try_from(base.to_owned()).map_err(|_| wrong)?;
        match query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            true => Ok(Self(text)),
            false => Err("invalid URL: expected a query of printable ASCII, without #".to_owned()),
        }
    }
}

impl fmt::Debug for WebhookUrl {
    /// Without its path and query, which may have a secret in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.split('/').nth(2).unwrap_or_default())
    }
}

/// Secrets that messages are signed with, the first one first.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "SecretTexts")]
#[cfg_attr(feature = "json-schema", schemars(with = "SecretTexts"))]
pub struct SigningSecrets(pub Vec<Vec<u8>>);

impl fmt::Debug for SigningSecrets {
    /// Without the secrets, so that no log ever has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum SecretTexts {
    One(String),
    Several(Vec<String>),
}

impl TryFrom<SecretTexts> for SigningSecrets {
    type Error = String;

    fn try_from(texts: SecretTexts) -> Result<Self, String> {
        let texts = match texts {
            SecretTexts::One(text) => vec![text],
            SecretTexts::Several(texts) => texts,
        };
        if texts.is_empty() || texts.len() > SECRETS_MAX {
            return Err(format!("expected 1 to {SECRETS_MAX} secrets, found {}", texts.len()));
        }
        let secret = |text: &String| {
            let bytes = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
            let bytes = bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
            bytes.ok_or_else(|| "invalid secret: expected whsec_ and base64 of 24 to 64 bytes".to_owned())
        };
        texts.iter().map(secret).collect::<Result<_, _>>().map(Self)
    }
}
