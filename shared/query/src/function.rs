//! Services of user code and their functions, as operators declare them.
//!
//! What a request puts into an address or a header is said by templates, which are parsed when a document is loaded.

mod cache;
mod grpc;
mod template;

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use crate::{
    datetime,
    resources::{ByteSize, Resource},
};

pub use cache::{CacheSettings, ValuePath};
pub use grpc::{GrpcServer, GrpcServiceName, GrpcUrl};
pub use template::{HeaderSource, PathTemplate};

/// The longest that a function may take.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// How long a function may take that does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Calls of a function at once where it does not say.
const CONCURRENCY: u32 = 64;
/// The most calls of a function at once, and the most that may wait.
const CONCURRENCY_MAX: u32 = 100_000;
/// Further attempts of a call of an idempotent function where it does not say, and the most.
const RETRIES: u32 = 2;
const RETRIES_MAX: u32 = 10;
/// Bytes of JSON that a function takes and answers where it does not say, and the most that it may.
pub const MESSAGE_BYTES: u64 = 8 << 20;

/// A `service` document.
pub type ServiceResource = Resource<ServiceMeta, Service>;

/// `meta` of a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceMeta {
    /// The project's id.
    pub project: String,
    /// The service's id in it: letters, digits, `_` and `-`, beginning with a letter.
    pub id: String,
}

/// `spec` of a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The HTTP server that its functions are paths of. One of this, `grpc` and `worker`.
    #[serde(default)]
    pub http: Option<HttpServer>,
    /// The gRPC server that its functions are methods of.
    #[serde(default)]
    pub grpc: Option<GrpcServer>,
    /// Workers that dial in.
    #[serde(default)]
    pub worker: Option<WorkerPool>,
    /// Its functions, by name.
    #[serde(default)]
    pub functions: BTreeMap<String, Function>,
    /// What holds for functions that are not listed; absent: they are denied.
    #[serde(default)]
    pub default: Option<Function>,
}

impl Service {
    /// The function called `name`: one that is listed, or what holds for others.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name).or(self.default.as_ref())
    }
}

/// An HTTP server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HttpServer {
    /// What the addresses of functions begin with.
    pub url: BaseUrl,
}

/// Workers: processes that dial in and take calls.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct WorkerPool {
    /// Who may register as a worker; absent: in development everybody, else nobody.
    pub register: Option<serde_json::Value>,
}

/// A function of a service.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Function {
    /// Who may call it; absent: nobody.
    pub rule: Option<serde_json::Value>,
    /// Time until its answer, at most 300 seconds: `500ms`, `5s`, or a number of seconds; absent: 5 seconds.
    pub timeout: Option<Timeout>,
    /// Whether a second call does no more than the first: it may be called in a GraphQL query, and again where it fails.
    pub idempotent: bool,
    /// Further attempts, 0 to 10, where the service cannot be reached, breaks off or answers 502, 503 or 504; only with
    /// `idempotent`; absent: 2.
    pub retries: Option<u32>,
    /// Calls at once on a node; absent: 64.
    pub concurrency: Option<u32>,
    /// Calls that wait for one of them to end; absent: four times as many.
    pub queue: Option<u32>,
    /// Most bytes of its parameters, as JSON; absent: 8 MiB.
    pub max_request: Option<ByteSize>,
    /// Most bytes of its answer; absent: 8 MiB.
    pub max_answer: Option<ByteSize>,
    /// Whether it gets the caller's own token, in the place of one that is made for its service.
    pub forward: bool,
    /// JSON Schema of its parameters, of draft 2020-12 and without references to other documents.
    pub input: Option<serde_json::Value>,
    /// JSON Schema of its answer.
    pub output: Option<serde_json::Value>,
    /// Whether it takes a list of parameters, and answers with a list of as many answers in the same order.
    pub batch: bool,
    /// Whether answers are kept, and for how long; only with `idempotent`, and over HTTP.
    pub cache: Option<CacheSettings>,
    /// Its path below the URL of the service, in which `{args.x}` and `{auth.x}` stand for values; absent: its name.
    pub path: Option<PathTemplate>,
    /// The method of its requests.
    pub method: HttpMethod,
    /// Changes of the headers of its requests, in order.
    pub headers: Vec<HeaderEdit>,
}

impl Function {
    /// Time until its answer.
    pub fn timeout(&self) -> Duration {
        self.timeout.map_or(TIMEOUT, |timeout| timeout.0)
    }

    /// Further attempts of a call: none where it is not idempotent.
    pub fn retries(&self) -> u32 {
        if self.idempotent { self.retries.unwrap_or(RETRIES) } else { 0 }
    }

    /// Calls at once.
    pub fn concurrency(&self) -> u32 {
        self.concurrency.unwrap_or(CONCURRENCY)
    }

    /// Calls that wait.
    pub fn queue(&self) -> u32 {
        self.queue.unwrap_or_else(|| self.concurrency().saturating_mul(4))
    }

    /// Most bytes of its parameters.
    pub fn request_bytes(&self) -> u64 {
        self.max_request.map_or(MESSAGE_BYTES, |size| size.0)
    }

    /// Most bytes of its answer.
    pub fn answer_bytes(&self) -> u64 {
        self.max_answer.map_or(MESSAGE_BYTES, |size| size.0)
    }

    /// What is wrong with its numbers: the key, and the text.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let (concurrency, queue) = (self.concurrency(), self.queue());
        let range = |found: u32, first: u32| format!("must be from {first} to {CONCURRENCY_MAX}, found {found}");
        let too_many = (!(1..=CONCURRENCY_MAX).contains(&concurrency)).then(|| ("concurrency", range(concurrency, 1)));
        let too_long = (queue > CONCURRENCY_MAX && self.queue.is_some()).then(|| ("queue", range(queue, 0)));
        let size = |key, size: Option<ByteSize>| {
            let found = size.map(|size| size.0).filter(|bytes| !(1..=MESSAGE_BYTES).contains(bytes))?;
            Some((key, format!("must be from 1 to {MESSAGE_BYTES} bytes, found {found}")))
        };
        let retries = match self.retries {
            Some(found) if found > RETRIES_MAX => Some(format!("must be at most {RETRIES_MAX}, found {found}")),
            Some(1..) if !self.idempotent => Some("needs idempotent: true".to_owned()),
            _ => None,
        };
        let retries = retries.map(|message| ("retries", message));
        let cache = (self.cache.is_some() && !self.idempotent).then(|| ("cache", "needs idempotent: true".to_owned()));
        let sizes = [size("maxRequest", self.max_request), size("maxAnswer", self.max_answer)];
        too_many.into_iter().chain(too_long).chain(retries).chain(cache).chain(sizes.into_iter().flatten()).collect()
    }
}

/// A method of HTTP requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// `GET`
    Get,
    /// `POST`
    #[default]
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl HttpMethod {
    /// `GET` and so on.
    pub fn name(self) -> &'static str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Patch => "PATCH",
            HttpMethod::Delete => "DELETE",
        }
    }
}

/// A change of one header of requests.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeaderEdit {
    /// The header's name.
    pub key: HeaderKey,
    /// A text, or `args.x` or `auth.x` for a value; where there is no such value, nothing is changed.
    #[serde(default)]
    pub value: HeaderSource,
    /// What is done.
    #[serde(default)]
    pub op: HeaderOperation,
}

/// What is done with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum HeaderOperation {
    /// It gets the value, in the place of others.
    #[default]
    Set,
    /// It gets the value too.
    Add,
    /// It is left out.
    Del,
}

/// The name of a header that a function may change, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String")]
pub struct HeaderKey(pub String);

/// Headers that say how a message is sent.
const OF_CONNECTIONS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl TryFrom<String> for HeaderKey {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("invalid header name {name:?}"));
        }
        let name = name.to_ascii_lowercase();
        // Servers of CGI and WSGI take an underscore for a hyphen.
        let seen = name.replace('_', "-");
        match OF_CONNECTIONS.contains(&seen.as_str()) || seen.starts_with("x-perigee-") {
            true => Err(format!("header {name} is not allowed: it is set by the server")),
            false => Ok(Self(name)),
        }
    }
}

/// The beginning of addresses: scheme, host and maybe a path, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String")]
pub struct BaseUrl(pub String);

impl TryFrom<String> for BaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let invalid =
            || format!("invalid URL {text:?}: expected http://host or https://host, maybe with port and path");
        // A password in it is not shown.
        if text.contains('@') {
            return Err("invalid URL: user, password and @ are not allowed".to_owned());
        }
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or_else(invalid)?;
        let host = rest.split('/').next().unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#@\\\"<>^`{|}".contains(&byte);
        let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        let has_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        if host.is_empty() || host.starts_with(':') || !has_port || !rest.bytes().all(is_plain) {
            return Err(invalid());
        }
        Ok(Self(text.strip_suffix('/').unwrap_or(&text).to_owned()))
    }
}

/// A time limit of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "TimeoutText")]
#[cfg_attr(feature = "json-schema", schemars(with = "TimeoutText"))]
pub struct Timeout(pub Duration);

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum TimeoutText {
    Seconds(f64),
    Text(String),
}

impl TryFrom<TimeoutText> for Timeout {
    type Error = String;

    fn try_from(text: TimeoutText) -> Result<Self, String> {
        let time = match &text {
            TimeoutText::Seconds(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
            TimeoutText::Text(text) => datetime::duration(text).and_then(|time| Duration::try_from(time).ok()),
        };
        let time = time.filter(|time| !time.is_zero() && *time <= TIMEOUT_MAX);
        time.map(Self).ok_or_else(|| "expected a time up to 300s, such as 500ms, 5s or a number of seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn times_and_urls_are_checked() {
        let timeout = |json| from_value::<Timeout>(json).map(|timeout| timeout.0).ok();
        assert_eq!(timeout(json!("500ms")), Some(Duration::from_millis(500)));
        assert_eq!(timeout(json!(2.5)), Some(Duration::from_millis(2500)));
        assert_eq!(timeout(json!(300)), Some(TIMEOUT_MAX));
        for wrong in [json!(0), json!(-1), json!("301s"), json!("soon"), json!("-5s"), json!(1e300)] {
            assert_eq!(timeout(wrong.clone()), None, "{wrong}");
        }
        let url = |text: &str| BaseUrl::try_from(text.to_owned()).map(|url| url.0).ok();
        assert_eq!(url("http://mail:8080/v1/").as_deref(), Some("http://mail:8080/v1"));
        assert_eq!(url("https://[::1]").as_deref(), Some("https://[::1]"));
        for wrong in [
            "",
            "mail",
            "ftp://a",
            "http://",
            "http:///x",
            "http://a:0",
            "http://a:99999",
            "http://u:p@a",
            "http://a?b",
            "http://a b",
        ] {
            assert_eq!(url(wrong), None, "{wrong}");
        }
        let told = BaseUrl::try_from("http://u:hidden@a".to_owned()).unwrap_err();
        assert!(!told.contains("hidden"), "{told}");
    }

    #[test]
    fn headers_of_the_connection_are_not_changed() {
        let key = |name: &str| HeaderKey::try_from(name.to_owned()).map(|key| key.0).ok();
        assert_eq!(key("X-User").as_deref(), Some("x-user"));
        for wrong in [
            "",
            "a b",
            "a:b",
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "X-Perigee-Claims",
            "X_Perigee_Claims",
            "Content_Length",
            "é",
        ] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_not_said_has_defaults() {
        let silent = Function::default();
        assert_eq!((silent.timeout(), silent.concurrency(), silent.queue()), (Duration::from_secs(5), 64, 256));
        assert_eq!((silent.request_bytes(), silent.answer_bytes()), (8_388_608, 8_388_608));
        let said: Function = from_value(json!({
            "timeout": "7s", "concurrency": 3, "queue": 0, "maxRequest": 5, "maxAnswer": "2KiB", "method": "PATCH"
        }))
        .unwrap();
        assert_eq!((said.timeout(), said.concurrency(), said.queue()), (Duration::from_secs(7), 3, 0));
        assert_eq!((said.request_bytes(), said.answer_bytes()), (5, 2048));
        for name in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            assert_eq!(from_value::<HttpMethod>(json!(name)).unwrap().name(), name);
        }
    }

    #[test]
    fn what_is_not_listed_is_denied_or_as_the_default_says() {
        let service = |json| from_value::<Service>(json).unwrap();
        let http = json!({ "url": "http://a" });
        let listed = service(json!({ "http": http, "functions": { "send": { "idempotent": true } } }));
        assert_eq!(listed.function("send").map(|function| function.idempotent), Some(true));
        assert_eq!(listed.function("other"), None);
        let open = service(json!({ "http": http, "functions": { "send": {} }, "default": { "forward": true } }));
        assert_eq!(open.function("send").map(|function| function.forward), Some(false));
        assert_eq!(open.function("other").map(|function| function.forward), Some(true));
    }

    #[test]
    fn limits_have_bounds() {
        let of = |json| from_value::<Function>(json).unwrap().faults();
        assert_eq!(of(json!({})), vec![]);
        assert_eq!(of(json!({"concurrency": 100_000, "queue": 100_000, "maxRequest": 1, "maxAnswer": "8MiB"})), vec![]);
        // A queue of which nothing is said is no fault of its own.
        assert_eq!(of(json!({"concurrency": 30_000})), vec![]);
        assert_eq!(of(json!({"cache": {"ttl": "1s"}}))[0].0, "cache");
        assert_eq!(of(json!({"concurrency": 0}))[0].0, "concurrency");
        assert_eq!(of(json!({"queue": 100_001}))[0].0, "queue");
        assert_eq!(of(json!({"maxAnswer": "9MiB", "maxRequest": 0})).len(), 2);
    }
}
