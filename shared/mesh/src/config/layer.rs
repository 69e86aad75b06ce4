//! Layers of configuration, merged; every value remembers the layer it came from.

use std::path::Path;

use serde_json::{Map, Value};

use super::{DEFAULT, Error, Node};
use crate::{
    deserialize, resources,
    yaml::{self, Positions},
};

const PREFIX: &str = "PERIGEE_";
/// The settings that may be references: secrets have files of their own.
const SECRETS: [&str; 4] = ["mesh_key", "bus.password", "bus.token", "queue.url"];

/// Configuration so far.
pub(super) struct Layers {
    value: Value,
    defaults: Value,
    file: Option<(String, Positions)>,
    /// Path and name of each variable in force.
    variables: Vec<(String, String)>,
    /// The fault of each variable that names no setting.
    unknown: Vec<String>,
}

impl Default for Layers {
    fn default() -> Self {
        let documents = yaml::parse(DEFAULT).expect("a test reads the compiled-in default");
        let defaults = documents.into_iter().next().map(|document| document.value).unwrap_or_default();
        Self { value: defaults.clone(), defaults, file: None, variables: Vec::new(), unknown: Vec::new() }
    }
}

impl Layers {
    /// With the operator's file on top.
    pub(super) fn file(mut self, name: &str, text: &str) -> Result<Self, Error> {
        let mut documents = yaml::parse(text).map_err(|fault| {
            let position = fault.position;
            Error(format!("{name}:{}:{}: {}", position.line, position.column, fault.message))
        })?;
        if documents.len() > 1 {
            return Err(Error(format!("{name}: expected one document, found {}", documents.len())));
        }
        let Some(document) = documents.pop() else { return Ok(self) };
        match document.value {
            Value::Null => return Ok(self),
            Value::Object(_) => merge(&mut self.value, document.value),
            Value::Array(_) => return Err(Error(format!("{name}: expected mapping, found list"))),
            Value::String(_) | Value::Number(_) | Value::Bool(_) => {
                return Err(Error(format!("{name}: expected mapping, found scalar")));
            }
        }
        self.file = Some((name.to_owned(), document.positions));
        Ok(self)
    }

    /// With the variables called `PERIGEE_…` on top, kinds first, then in the order of their names. Those that name no setting are left
    /// out: orchestrators make some that begin like ours.
    pub(super) fn variables(mut self, all: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let mut ours: Vec<(String, String)> = all.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        // The kind of a thing says which settings it has.
        ours.sort_by_key(|(name, _)| (!name.ends_with("__KIND"), name.clone()));
        for (name, text) in ours {
            let keys = keys(&name[PREFIX.len()..]);
            let value = self.typed(&keys, &text).map_err(|message| Error(format!("{name}: {message}")))?;
            let nested =
                keys.iter().rev().fold(value, |value, key| Value::Object(Map::from_iter([(key.clone(), value)])));
            let mut value = self.value.clone();
            merge(&mut value, nested);
            let path = keys.join(".");
            match unknown(&value, &path) {
                Some(message) => self.unknown.push(format!("{name}: {message}")),
                None => {
                    self.value = value;
                    self.variables.push((path, name));
                }
            }
        }
        Ok(self)
    }

    /// The node that all layers describe.
    pub(super) fn node(mut self) -> Result<Node, Error> {
        for secret in SECRETS {
            self.resolve_secret(secret).map_err(|message| self.error(secret, &message))?;
        }
        let node: Node = deserialize::read(&self.value).map_err(|error| self.error(&error.path, &error.message))?;
        node.check().map_err(|(path, message)| self.error(&path, &message))?;
        Ok(Node { unknown_variables: self.unknown, ..node })
    }

    /// Reads a secret where it is a reference: beside the operator's file, or from the current folder in a variable.
    fn resolve_secret(&mut self, secret: &str) -> Result<(), String> {
        let is_variable = self.variables.iter().any(|(path, _)| path == secret);
        let file = self.file.as_ref().filter(|_| !is_variable).map(|(name, _)| Path::new(name));
        let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
        let pointer = format!("/{}", secret.replace('.', "/"));
        if let Some(Value::String(text)) = self.value.pointer_mut(&pointer) {
            *text = resources::resolved(text, folder)?;
        }
        Ok(())
    }

    /// The value of a variable, by the type of the default at its path: variables themselves have no types.
    fn typed(&self, keys: &[String], text: &str) -> Result<Value, String> {
        let text = text.trim();
        let is_list = matches!(keys, [key] if key == "services") || matches!(keys, [key, _] if key == "peers");
        if text.starts_with('{') || (is_list && text.starts_with('[')) {
            let documents = yaml::parse(text).map_err(|fault| fault.message)?;
            return Ok(documents.into_iter().next().map(|document| document.value).unwrap_or_default());
        }
        if is_list {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            return Ok(items.map(|item| Value::String(item.to_owned())).collect());
        }
        let default = keys.iter().try_fold(&self.defaults, |value, key| value.get(key));
        let is_number = keys.last().is_some_and(|key| key.ends_with("_bytes") || key == "connections");
        let typed = match default {
            None if is_number => text.parse::<u64>().ok().map(Value::from),
            Some(Value::Number(_)) => text.parse::<u64>().ok().map(Value::from),
            Some(Value::Bool(_)) => text.parse::<bool>().ok().map(Value::from),
            _ => None,
        };
        Ok(typed.unwrap_or_else(|| Value::String(text.to_owned())))
    }

    /// An error at `path`, with the layer whose value stands there.
    fn error(&self, path: &str, message: &str) -> Error {
        let is_near = |at: &str| path == at || path.starts_with(&format!("{at}."));
        if let Some((_, name)) = self.variables.iter().rev().find(|(at, _)| is_near(at)) {
            return Error(format!("{name}: {path}: {message}"));
        }
        match &self.file {
            Some((name, positions)) => {
                let position = positions.nearest(path);
                Error(format!("{name}:{}:{}: {path}: {message}", position.line, position.column))
            }
            None => Error(format!("{path}: {message}")),
        }
    }
}

/// The keys that the rest of a variable's name stands for: `LISTEN__HTTP` is `listen.http`. Services are spelt with
/// hyphens, which names of variables cannot have.
fn keys(rest: &str) -> Vec<String> {
    let mut keys: Vec<String> = rest.to_lowercase().split("__").map(str::to_owned).collect();
    if let [first, service, ..] = &mut keys[..]
        && first == "peers"
    {
        *service = service.replace('_', "-");
    }
    keys
}

/// Why nothing of a node stands at `path` of `value`, if nothing does.
fn unknown(value: &Value, path: &str) -> Option<String> {
    let error = deserialize::read::<Node>(value).err()?;
    let is_above = path.strip_prefix(&error.path).is_some_and(|rest| rest.starts_with('.'));
    let is_unknown = is_above || (error.path == path && error.is_unknown_key());
    is_unknown.then(|| format!("{}: {}", error.path, error.message))
}

/// Puts `over` on top of `base`. Mappings merge key by key, except where `kind` says that they are two different
/// things.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            if over.get("kind").is_some_and(|kind| base.get("kind") != Some(kind)) {
                base.clear();
            }
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_path() {
        assert_eq!(keys("LISTEN__HTTP"), ["listen", "http"]);
        assert_eq!(keys("LIMITS__BODY_BYTES"), ["limits", "body_bytes"]);
        assert_eq!(keys("PEERS__AUTH_RULES"), ["peers", "auth-rules"]);
    }
}
