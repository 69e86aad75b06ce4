//! Calls of functions that take lists: the rule is asked of each item, and what it allows goes in one call.

use std::collections::HashMap;

use bytes::Bytes;
use mesh::{Code, Fault};
use proto::{
    Links,
    auth::{AuthorizeCallResponse, RefusedItem},
    functions::{CallRequest, ITEMS_MAX},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Caller, Edge, FunctionAnswer, FunctionCall};
use crate::{catalogue::Project, error};

/// The answer to an item that the rule denies.
#[derive(Serialize)]
struct Refused<'f> {
    error: &'f str,
    code: &'f str,
}

/// Whether a call is of a list of items for a function that takes lists.
pub fn is_batch(project: &Project, call: &FunctionCall) -> bool {
    call.params.trim_ascii_start().starts_with(b"[")
        && project.function(&call.service, &call.function).is_some_and(|function| function.batch)
}

impl Edge {
    /// The answers to the items of a call, in their order; an item may be `{"error"}`. Errors: none is allowed.
    pub(super) async fn called_with_list(
        &self,
        caller: &Caller,
        project: &Project,
        call: FunctionCall,
    ) -> Result<FunctionAnswer, Fault> {
        let items: Vec<&RawValue> = serde_json::from_slice(&call.params)
            .map_err(|cause| error::bad_request(format!("invalid params: {cause}")))?;
        if items.len() > ITEMS_MAX {
            let text = format!("the list of {} parameters is over the limit of {ITEMS_MAX}", items.len());
            return Err(Fault::new(Code::TooLarge, text));
        }
        // A long list asks much of the rules.
        let _running = self.calls.enter()?;
        let mut asked = Self::asked_of(caller, project, &call);
        asked.is_list = true;
        let granted = self.mesh.auth_rules().authorize_call(&caller.call, asked).await?;
        let AuthorizeCallResponse { grant, refused, .. } = granted;
        let params = match refused.is_empty() {
            true => call.params.clone(),
            false => self.allowed_items(caller, &items, &refused)?,
        };
        let (timeout_ms, answer_bytes) = (call.timeout_ms(), self.answer_bytes(project));
        let request = CallRequest { grant, params, timeout_ms, answer_bytes };
        let answer = FunctionAnswer::of(self.mesh.functions().call(&caller.call, request).await?)?;
        match refused.is_empty() || !(200..300).contains(&answer.status) {
            true => Ok(answer),
            false => merged(&answer, items.len(), &refused),
        }
    }

    /// JSON of the items that are not refused.
    fn allowed_items(&self, caller: &Caller, items: &[&RawValue], refused: &[RefusedItem]) -> Result<Bytes, Fault> {
        let text = format!("{} of {} items: {}", refused.len(), items.len(), refused[0].message);
        self.log_refusal(caller, &Fault::new(Code::Denied, text));
        let refused = by_index(refused);
        let allowed = items.iter().enumerate().filter(|(index, _)| !refused.contains_key(index));
        json(&allowed.map(|(_, item)| *item).collect::<Vec<_>>())
    }
}

/// The answers of a function with the refusals of items that it did not get, in the order of all `count` items.
fn merged(answer: &FunctionAnswer, count: usize, refused: &[RefusedItem]) -> Result<FunctionAnswer, Fault> {
    let wrong = |cause: serde_json::Error| Fault::internal("the function could not be called", cause);
    let mut answers = serde_json::from_slice::<Vec<Box<RawValue>>>(&answer.body).map_err(wrong)?.into_iter();
    let refused = by_index(refused);
    let merged = (0..count).map(|index| match refused.get(&index) {
        None => answers.next().ok_or_else(|| Fault::internal("the function could not be called", "too few items")),
        Some(RefusedItem { code, message, .. }) => {
            serde_json::value::to_raw_value(&Refused { error: message, code }).map_err(wrong)
        }
    });
    let merged = merged.collect::<Result<Vec<_>, Fault>>()?;
    Ok(FunctionAnswer { status: answer.status, body: json(&merged)? })
}

fn by_index(refused: &[RefusedItem]) -> HashMap<usize, &RefusedItem> {
    refused.iter().map(|item| (item.index as usize, item)).collect()
}

fn json<T: Serialize>(items: &[T]) -> Result<Bytes, Fault> {
    let json = serde_json::to_vec(items).map_err(|cause| Fault::internal("the function could not be called", cause))?;
    Ok(json.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_stand_where_their_items_were() {
        let refused = [0, 3].map(|index| RefusedItem { index, code: "DENIED".to_owned(), message: "no".to_owned() });
        let answered = |body: &'static [u8]| {
            merged(&FunctionAnswer { status: 200, body: Bytes::from_static(body) }, 4, &refused)
                .map(|answer| answer.body)
        };
        let no = r#"{"error":"no","code":"DENIED"}"#;
        assert_eq!(answered(br#"[1, {"a":2}]"#).unwrap(), format!(r#"[{no},1,{{"a":2}},{no}]"#));
        assert_eq!(answered(b"[1]").unwrap_err().code, Code::Internal);
    }
}
