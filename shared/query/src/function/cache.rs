//! Answers of functions that are kept for a while.

use std::time::Duration;

use serde::Deserialize;

use super::{Timeout, template::Variable};
use crate::{Object, Value};

/// How answers are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// For how long, at most 300 seconds: `500ms`, `5s`, or a number of seconds.
    ttl: Timeout,
    /// Values that an answer depends on: `args.x` or `auth.x`; absent: all parameters and all claims.
    #[serde(default)]
    pub key: Option<Vec<ValuePath>>,
}

impl CacheSettings {
    /// For how long.
    pub fn ttl(&self) -> Duration {
        self.ttl.0
    }
}

/// A value of a request: `args.user.id`, `auth.id`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String")]
pub struct ValuePath(Variable);

impl TryFrom<String> for ValuePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Variable::parse(&text).map(Self)
    }
}

impl ValuePath {
    /// The value, if the request has one that is not null.
    pub fn value<'a>(&self, args: &'a Value, auth: &'a Object) -> Option<&'a Value> {
        self.0.value(args, auth)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_key_is_made_of_values() {
        let settings: CacheSettings = from_value(json!({ "ttl": "2s", "key": ["args.a", "auth.id"] })).unwrap();
        assert_eq!((settings.ttl(), settings.key.as_ref().map(Vec::len)), (Duration::from_secs(2), Some(2)));
        let args = Value::Object(Object(vec![("a".to_owned(), Value::Int(1))]));
        let key = settings.key.unwrap();
        assert_eq!(key[0].value(&args, &Object::default()), Some(&Value::Int(1)));
        assert_eq!(key[1].value(&args, &Object::default()), None);
        for wrong in [json!({}), json!({ "ttl": 0 }), json!({ "ttl": "1h" }), json!({ "ttl": 1, "key": ["x"] })] {
            assert!(from_value::<CacheSettings>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
