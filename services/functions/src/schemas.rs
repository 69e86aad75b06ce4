//! JSON Schemas of a function: its parameters are checked before it is called, its answer before anybody gets it.

use std::sync::Arc;

use bytes::Bytes;
use mesh::json_schema::JsonSchema;
use query::function::Function;
use serde_json::Value;

use crate::{Error, batch, conversions::Conversions};

/// The schemas of a function.
#[derive(Debug, Default)]
pub struct Schemas {
    input: Option<JsonSchema>,
    output: Option<JsonSchema>,
    /// Whether they are of each item of lists.
    is_batch: bool,
}

impl Schemas {
    /// Those that the function says. What is none was refused with its document.
    pub fn of(function: &Function) -> Self {
        let compiled = |schema: &Option<Value>| schema.as_ref().and_then(|schema| JsonSchema::new(schema).ok());
        Self { input: compiled(&function.input), output: compiled(&function.output), is_batch: function.batch }
    }

    /// Errors: the parameters are not what `input` says.
    pub async fn check_input(self: &Arc<Self>, params: &Bytes, conversions: &Conversions) -> Result<(), Error> {
        if self.input.is_none() {
            return Ok(());
        }
        let (own, params, bytes) = (self.clone(), params.clone(), params.len());
        let check = move || check(own.input.as_ref(), own.is_batch, &params).map_err(Error::Malformed);
        conversions.run(bytes, check).await
    }

    /// Errors: an answer of success is not what `output` says.
    pub async fn check_output(
        self: &Arc<Self>,
        (status, body): (u32, &Bytes),
        conversions: &Conversions,
    ) -> Result<(), Error> {
        if self.output.is_none() || !(200..300).contains(&status) {
            return Ok(());
        }
        let (own, body, bytes) = (self.clone(), body.clone(), body.len());
        let check = move || check(own.output.as_ref(), own.is_batch, &body).map_err(Error::WrongOutput);
        conversions.run(bytes, check).await
    }
}

fn check(schema: Option<&JsonSchema>, is_batch: bool, json: &[u8]) -> Result<(), String> {
    let Some(schema) = schema else { return Ok(()) };
    let json = if json.is_empty() { &b"null"[..] } else { json };
    let value: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let Value::Array(items) = &value else { return schema.check(&value) };
    if !is_batch {
        return schema.check(&value);
    }
    for (index, item) in items.iter().enumerate() {
        if !batch::is_error(item) {
            schema.check(item).map_err(|told| format!("item {index}: {told}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_goes_in_and_out_is_checked() {
        let function = Function {
            input: Some(json!({ "type": "object", "required": ["to"] })),
            output: Some(json!({ "type": "integer" })),
            ..Function::default()
        };
        let conversions = Conversions::new();
        let input = async |schemas: &Arc<Schemas>, params: &'static str| {
            schemas
                .check_input(&Bytes::from_static(params.as_bytes()), &conversions)
                .await
                .map_err(|error| error.to_string())
        };
        let output = async |schemas: &Arc<Schemas>, status, body: &'static str| {
            let answer = (status, &Bytes::from_static(body.as_bytes()));
            schemas.check_output(answer, &conversions).await.map_err(|error| error.to_string())
        };
        let schemas = Arc::new(Schemas::of(&function));
        assert_eq!(input(&schemas, r#"{"to":1}"#).await, Ok(()));
        assert!(input(&schemas, "").await.unwrap_err().starts_with("invalid params: "));
        assert!(output(&schemas, 200, "1").await.is_ok() && output(&schemas, 500, "{}").await.is_ok());
        let told = output(&schemas, 200, "{}").await.unwrap_err();
        assert!(told.starts_with("the function answered what its output does not allow: "), "{told}");
        assert!(output(&schemas, 204, "").await.is_err());
        let each = Arc::new(Schemas::of(&Function { batch: true, ..function }));
        assert_eq!(output(&each, 200, r#"[1,{"error":"no"}]"#).await, Ok(()));
        assert!(output(&each, 200, r#"[1,"x"]"#).await.unwrap_err().contains("item 1: "));
        assert_eq!(input(&Arc::new(Schemas::default()), "{").await, Ok(()));
        let large = Bytes::from(format!(r#"{{"from":"{}"}}"#, "x".repeat(1 << 20)));
        assert!(
            schemas.check_input(&large, &conversions).await.unwrap_err().to_string().contains("\"to\" is a required")
        );
    }
}
