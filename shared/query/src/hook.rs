//! Hooks: functions that are asked before rows are written, as operators declare them.

use std::time::Duration;

use serde::Deserialize;

use crate::{Operation, function::Timeout};

/// Time until an answer where a hook does not say.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `before` of a table: what is asked before rows of it are written.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BeforeWrites {
    /// Before rows are inserted.
    pub create: Option<Hook>,
    /// Before rows are changed.
    pub update: Option<Hook>,
    /// Before rows are deleted.
    pub delete: Option<Hook>,
}

/// A function that is asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The id of its service.
    pub service: String,
    /// Its name.
    pub function: String,
    /// Time until its answer, at most 300 seconds; absent: 5 seconds.
    #[serde(default)]
    pub timeout: Option<Timeout>,
}

impl Hook {
    /// Time until its answer.
    pub fn timeout(&self) -> Duration {
        self.timeout.map_or(TIMEOUT, |timeout| timeout.0)
    }
}

impl BeforeWrites {
    /// What is asked before an operation.
    pub fn of(&self, operation: Operation) -> Option<&Hook> {
        match operation {
            Operation::Create => self.create.as_ref(),
            Operation::Update => self.update.as_ref(),
            Operation::Delete => self.delete.as_ref(),
            Operation::Read => None,
        }
    }

    /// These, and those of `default` for operations without one: as with rules.
    pub fn or(self, default: &Self) -> Self {
        Self {
            create: self.create.or_else(|| default.create.clone()),
            update: self.update.or_else(|| default.update.clone()),
            delete: self.delete.or_else(|| default.delete.clone()),
        }
    }

    /// What cannot be meant: the path below `before`, and the text.
    pub fn faults(&self) -> Vec<(String, String)> {
        let hooks = [("create", &self.create), ("update", &self.update), ("delete", &self.delete)];
        let named = hooks.into_iter().filter_map(|(operation, hook)| Some((operation, hook.as_ref()?)));
        let mut faults = Vec::new();
        for (operation, Hook { service, function, .. }) in named {
            for (key, name) in [("service", service), ("function", function)] {
                if name.is_empty() {
                    faults.push((format!("{operation}.{key}"), "must not be empty".to_owned()));
                }
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_table_has_its_own_hooks_and_those_of_default() {
        let hook = |function: &str| json!({"service": "checks", "function": function});
        let own: BeforeWrites = from_value(json!({"create": hook("own")})).unwrap();
        let default: BeforeWrites = from_value(json!({"create": hook("all"), "delete": hook("all")})).unwrap();
        let both = own.or(&default);
        let of = |operation| both.of(operation).map(|hook| hook.function.as_str());
        assert_eq!((of(Operation::Create), of(Operation::Delete)), (Some("own"), Some("all")));
        assert_eq!((of(Operation::Update), of(Operation::Read)), (None, None));
        assert_eq!(both.of(Operation::Create).unwrap().timeout(), TIMEOUT);
        for wrong in [
            json!({"read": hook("a")}),
            json!({"create": {"service": "a"}}),
            json!({"create": {"service": "a", "function": "b", "timeout": "301s"}}),
        ] {
            assert!(from_value::<BeforeWrites>(wrong.clone()).is_err(), "{wrong}");
        }
        let empty: BeforeWrites = from_value(json!({"update": {"service": "", "function": "f"}})).unwrap();
        assert_eq!(empty.faults(), [("update.service".to_owned(), "must not be empty".to_owned())]);
    }
}
