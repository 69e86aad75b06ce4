//! Paths and headers in which values of a request stand.

use std::borrow::Cow;

use serde::Deserialize;

use crate::{Error, Object, Value};

/// Most bytes of a path or a header that is made of values: about as many as servers take.
const TEXT_BYTES: usize = 8 << 10;

/// Where the value of a variable is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VariableRoot {
    /// The parameters of the call.
    Args,
    /// The claims of the caller.
    Auth,
}

/// A value of a request: `args.user.id`, `auth.id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    root: VariableRoot,
    keys: Vec<String>,
}

impl Variable {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (root, keys) = match text.split_once('.') {
            Some(("args", keys)) => (VariableRoot::Args, keys),
            Some(("auth", keys)) => (VariableRoot::Auth, keys),
            Some(_) | None => return Err(format!("invalid variable {text:?}: expected args.NAME or auth.NAME")),
        };
        let keys: Vec<String> = keys.split('.').map(str::to_owned).collect();
        match keys.iter().any(String::is_empty) {
            true => Err(format!("invalid variable {text:?}: expected a name after each dot")),
            false => Ok(Self { root, keys }),
        }
    }

    fn name(&self) -> String {
        let root = match self.root {
            VariableRoot::Args => "args",
            VariableRoot::Auth => "auth",
        };
        format!("{root}.{}", self.keys.join("."))
    }

    /// The value, if the request has one that is not null.
    pub(super) fn value<'a>(&self, args: &'a Value, auth: &'a Object) -> Option<&'a Value> {
        let (first, rest) = self.keys.split_first()?;
        let first = match self.root {
            VariableRoot::Args => member(args, first)?,
            VariableRoot::Auth => auth.get(first)?,
        };
        let value = rest.iter().try_fold(first, |value, key| member(value, key))?;
        (*value != Value::Null).then_some(value)
    }
}

/// The member or item of `value` called `key`.
fn member<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object.get(key),
        Value::List(items) => items.get(key.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) => None,
    }
}

/// A path, maybe with a query, in which values of the request stand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String")]
pub struct PathTemplate(Vec<PathPart>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum PathPart {
    Literal(String),
    Variable(Variable),
}

impl TryFrom<String> for PathTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((literal, after)) = rest.split_once('{') {
            let (variable, after) =
                after.split_once('}').ok_or_else(|| format!("invalid path {text:?}: expected }}"))?;
            parts.push(PathPart::Literal(literal.to_owned()));
            parts.push(PathPart::Variable(Variable::parse(variable)?));
            rest = after;
        }
        parts.push(PathPart::Literal(rest.to_owned()));
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"#\\\"<>^`{|}".contains(&byte);
        let is_sound = |part: &PathPart| match part {
            PathPart::Literal(literal) => literal.bytes().all(is_plain) && has_whole_escapes(literal),
            PathPart::Variable(_) => true,
        };
        if !parts.iter().all(is_sound) || text.starts_with("//") {
            return Err(format!(
                "invalid path {text:?}: expected a path below the URL of the service, percent-encoded"
            ));
        }
        let template = Self(parts);
        match has_dot_segment(&template.literal()) {
            true => Err(format!("invalid path {text:?}: segments . and .. are not allowed")),
            false => Ok(template),
        }
    }
}

impl PathTemplate {
    /// The path that is `name`, in one segment.
    ///
    /// Errors: `BAD_REQUEST` for a name that is none.
    pub fn of_name(name: &str) -> Result<String, Error> {
        let mut path = "/".to_owned();
        encode(name, "the name of the function", &mut path)?;
        bounded(path)
    }

    /// The path for these parameters and claims, with a slash at its beginning. Each value is percent-encoded once, and
    /// never read as a template.
    ///
    /// Errors: `BAD_REQUEST` where a value is missing, is no text and no number, or would change the path around it.
    pub fn path(&self, args: &Value, auth: &Object) -> Result<String, Error> {
        let mut path = String::new();
        for part in &self.0 {
            match part {
                PathPart::Literal(literal) => path.push_str(literal),
                PathPart::Variable(variable) => {
                    let name = variable.name();
                    let value = variable.value(args, auth).ok_or_else(|| Error::Required(name.clone()))?;
                    let text = match value {
                        Value::Text(text) => Cow::Borrowed(text.as_str()),
                        Value::Int(number) => Cow::Owned(number.to_string()),
                        Value::Number(number) => Cow::Borrowed(number.as_str()),
                        Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => {
                            let kind = value.kind();
                            let text = format!("invalid parameter type: {name} must be string or number, found {kind}");
                            return Err(Error::Malformed(text));
                        }
                    };
                    encode(&text, &name, &mut path)?;
                }
            }
        }
        if has_dot_segment(&path) {
            return Err(Error::Malformed("invalid parameters: they make a segment . or .. of the path".to_owned()));
        }
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        bounded(path)
    }

    /// It, with a letter for each variable.
    fn literal(&self) -> String {
        let text = |part: &PathPart| match part {
            PathPart::Literal(literal) => literal.clone(),
            PathPart::Variable(_) => "x".to_owned(),
        };
        self.0.iter().map(text).collect()
    }
}

/// Whether a segment of the path is one that clients of HTTP resolve: `.` or `..`, also percent-encoded.
fn has_dot_segment(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    path.split('/').any(|segment| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
}

/// Whether each percent sign begins an escape, which no value behind it completes.
fn has_whole_escapes(text: &str) -> bool {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_escape)
}

fn bounded(path: String) -> Result<String, Error> {
    match path.len() > TEXT_BYTES {
        true => Err(Error::Malformed(format!("invalid parameters: they make a path of over {TEXT_BYTES} bytes"))),
        false => Ok(path),
    }
}

/// Appends `text` percent-encoded, all but the unreserved characters of RFC 3986.
fn encode(text: &str, name: &str, out: &mut String) -> Result<(), Error> {
    if matches!(text, "" | "." | "..") {
        return Err(Error::Malformed(format!("invalid {name} {text:?}: not allowed in a path")));
    }
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Ok(())
}

/// The value of a header: a text, or a value of the request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String")]
pub struct HeaderSource(HeaderValue);

#[derive(Debug, Clone, PartialEq, Eq)]
enum HeaderValue {
    Literal(String),
    Variable(Variable),
}

impl Default for HeaderValue {
    fn default() -> Self {
        HeaderValue::Literal(String::new())
    }
}

impl TryFrom<String> for HeaderSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("args.") || text.starts_with("auth.") {
            return Variable::parse(&text).map(|variable| Self(HeaderValue::Variable(variable)));
        }
        if text == "token" {
            return Err("the caller's token is not available in headers: set forward: true".to_owned());
        }
        match is_header_value(&text) {
            true => Ok(Self(HeaderValue::Literal(text))),
            // It may be a secret.
            false => Err("invalid header value: expected printable ASCII".to_owned()),
        }
    }
}

impl HeaderSource {
    /// The value for these parameters and claims; `None` where the request has none. Other values than texts are JSON.
    ///
    /// Errors: `BAD_REQUEST` for a value that no header can have.
    pub fn text<'a>(&'a self, args: &'a Value, auth: &'a Object) -> Result<Option<Cow<'a, str>>, Error> {
        let variable = match &self.0 {
            HeaderValue::Literal(text) => return Ok(Some(Cow::Borrowed(text))),
            HeaderValue::Variable(variable) => variable,
        };
        let text = match variable.value(args, auth) {
            None => return Ok(None),
            Some(Value::Text(text)) => Cow::Borrowed(text.as_str()),
            Some(other) => {
                let mut json = Vec::new();
                other.write_json(&mut json);
                Cow::Owned(String::from_utf8_lossy(&json).into_owned())
            }
        };
        match is_header_value(&text) && text.len() <= TEXT_BYTES {
            true => Ok(Some(text)),
            false => Err(Error::Malformed(format!(
                "invalid {}: expected up to {TEXT_BYTES} bytes of printable ASCII in a header",
                variable.name()
            ))),
        }
    }
}

fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> Result<PathTemplate, String> {
        PathTemplate::try_from(text.to_owned())
    }

    fn args(members: &[(&str, Value)]) -> Value {
        Value::Object(Object(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()))
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn path(template: &str, id: Value) -> Result<String, Error> {
        let auth = Object(vec![("role".to_owned(), text("admin"))]);
        self::template(template).unwrap().path(&args(&[("id", id)]), &auth)
    }

    #[test]
    fn values_are_encoded_once_and_never_read_as_templates() {
        assert_eq!(path("add", Value::Null).unwrap(), "/add");
        assert_eq!(path("/u/{args.id}", Value::Int(5)).unwrap(), "/u/5");
        assert_eq!(path("/u/{args.id}", text("a/b?x={auth.role}")).unwrap(), "/u/a%2Fb%3Fx%3D%7Bauth.role%7D");
        assert_eq!(path("/u/{args.id}", text("%2e%2e")).unwrap(), "/u/%252e%252e");
        assert_eq!(path("/{auth.role}/{args.id}?q={args.id}", text("ä")).unwrap(), "/admin/%C3%A4?q=%C3%A4");
    }

    #[test]
    fn paths_have_a_limit() {
        assert_eq!(path("/{args.id}", text(&"a".repeat(TEXT_BYTES - 1))).unwrap().len(), TEXT_BYTES);
        let refused = path("/{args.id}", text(&"a".repeat(TEXT_BYTES))).unwrap_err().to_string();
        assert!(refused.contains("a path of over 8192 bytes"), "{refused}");
    }

    #[test]
    fn what_lacks_is_named() {
        for name in ["args.other", "args.id.of", "auth.sub"] {
            let refused = path(&format!("/{{{name}}}"), text("a")).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn values_that_would_change_the_path_are_refused() {
        for value in [
            text(""),
            text("."),
            text(".."),
            Value::Null,
            Value::Bool(true),
            Value::List(vec![]),
            Value::Object(Object::default()),
        ] {
            assert!(path("/u/{args.id}", value.clone()).is_err(), "{value:?}");
        }
        assert!(path("/u/{args.other}", text("x")).is_err());
        assert!(path("/u/.{args.id}x{args.id}", text("x")).is_ok());
        let dots = args(&[("a", text("..a"))]);
        assert!(path("/u/{args.id}", text(&"x".repeat(9000))).is_err());
        assert!(PathTemplate::of_name(&"x".repeat(9000)).is_err());
        assert!(template("/{args.a}").unwrap().path(&dots, &Object::default()).is_ok());
        let (dot, template) = (args(&[("a", text(".b"))]), template("/{args.a}").unwrap());
        assert!(template.path(&dot, &Object::default()).is_ok());
        assert!(PathTemplate::of_name("..").is_err());
        assert_eq!(PathTemplate::of_name("a/../b").unwrap(), "/a%2F..%2Fb");
    }

    #[test]
    fn templates_that_are_none_are_refused() {
        for wrong in [
            "/{args.id",
            "/{id}",
            "/{args.}",
            "/{token.x}",
            "/a/../b",
            "/a/%2E%2e/b",
            "/a#b",
            "//host/x",
            "/a b",
            "/ä",
            "/}",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%2{args.x}",
        ] {
            assert!(template(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_are_texts_or_values() {
        let source = |text: &str| HeaderSource::try_from(text.to_owned());
        let (args, auth) =
            (args(&[("n", Value::Int(3)), ("bad", text("a\r\nb"))]), Object(vec![("id".to_owned(), text("u1"))]));
        let value = |of: &str| source(of).unwrap().text(&args, &auth).map(|text| text.map(Cow::into_owned));
        assert_eq!(value("auth.id").unwrap().as_deref(), Some("u1"));
        assert_eq!(value("args.n").unwrap().as_deref(), Some("3"));
        assert_eq!(value("application/xml").unwrap().as_deref(), Some("application/xml"));
        assert_eq!(value("auth.other").unwrap(), None);
        assert!(value("args.bad").is_err());
        assert!(source("token").is_err());
        let told = source("hidden\n").unwrap_err();
        assert!(!told.contains("hidden"), "{told}");
        assert!(source("args.long").unwrap().text(&self::args(&[("long", text(&"x".repeat(9000)))]), &auth).is_err());
    }

    proptest! {
        #[test]
        fn no_value_leaves_its_segment(value in ".{0,20}") {
            if let Ok(path) = path("/u/{args.id}/x", Value::Text(value)) {
                prop_assert_eq!(path.split('/').count(), 4);
                prop_assert!(path.starts_with("/u/") && path.ends_with("/x") && !path.contains(['?', '#', '\\']));
            }
        }
    }
}
