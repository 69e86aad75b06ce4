//! Tokens in payloads of messages.

use std::sync::Arc;

use query::{Object, Value};

use crate::http::{TOKEN_BYTES_MAX, bearer};

/// Members of a payload that may have the token as well.
const NESTED: [&str; 2] = ["headers", "connectionParams"];

/// The token of a payload: its `authorization`, `token` or `authToken`, or one of these of its `headers` or
/// `connectionParams`. `authorization`, a name of a header, is of any case. An error says what is wrong.
pub fn of_payload(payload: &Value) -> Result<Option<Arc<str>>, String> {
    let members = match payload {
        Value::Null => return Ok(None),
        Value::Object(members) => members,
        other => return Err(format!("invalid payload: expected object, found {}", other.kind())),
    };
    if let Some(token) = of_members(members, "")? {
        return Ok(Some(token));
    }
    for (name, value) in &members.0 {
        if let Value::Object(members) = value
            && NESTED.contains(&name.as_str())
            && let Some(token) = of_members(members, &format!("{name}."))?
        {
            return Ok(Some(token));
        }
    }
    Ok(None)
}

/// The token that the member `name` of a payload has.
pub fn of_member(payload: &Object, name: &str) -> Result<Option<Arc<str>>, String> {
    match payload.0.iter().find(|(member, _)| member == name) {
        Some((_, value)) => of_value(name, value),
        None => Ok(None),
    }
}

fn of_members(members: &Object, path: &str) -> Result<Option<Arc<str>>, String> {
    for (name, value) in &members.0 {
        if name.eq_ignore_ascii_case("authorization") || name == "token" || name == "authToken" {
            let token = of_value(&format!("{path}{name}"), value)?;
            if token.is_some() {
                return Ok(token);
            }
        }
    }
    Ok(None)
}

/// The token is looked at before it is verified.
fn of_value(path: &str, value: &Value) -> Result<Option<Arc<str>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) => match bearer(text) {
            token if token.len() > TOKEN_BYTES_MAX => {
                Err(format!("payload.{path} must be at most {TOKEN_BYTES_MAX} bytes long"))
            }
            token => Ok(Some(token.into())),
        },
        other => Err(format!("invalid payload.{path}: expected string, found {}", other.kind())),
    }
}
