//! Root fields that call functions: `mail { send(to: "x") }`, and in the dialect `send(to: "x") @mail`.

use std::{sync::Arc, time::Duration};

use async_graphql_parser::{
    Pos, Positioned,
    types::{Directive, Field as Selected},
};
use async_graphql_value::Value as AstValue;
use mesh::{Code, Fault};
use query::{Error, Object, Value};

use super::{
    FieldSource, Planner, at_field,
    select::{Group, is_condition, no_arguments, only_conditional_directives},
};
use crate::{
    catalogue::ServiceSettings,
    edge::FunctionCall,
    graphql::{
        names::{RootLookup, graphql_name, pascal},
        refusal::{Refusal, Result},
        value::{EnumValues, value},
    },
};

/// Appended to the name of a service whose own name a table has.
const SUFFIX: &str = "_service";

/// Most bytes of the parameters of all calls of a document: fragments bring the same ones many times.
const PARAMETER_BYTES: usize = 64 << 20;

/// A call that a plan has.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCall {
    /// The call.
    pub call: FunctionCall,
    /// Whether a second call does no more than the first.
    pub is_idempotent: bool,
    /// Position of its field in the document.
    pub at: Pos,
    /// Response keys that lead to its answer.
    pub path: Vec<String>,
}

/// A member of the value of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceMember {
    /// The response key.
    pub key: String,
    /// Its value.
    pub value: ServiceValue,
}

/// Value of a member of a service.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceValue {
    /// `MailService`
    Typename(String),
    /// The answer of the call at an index.
    Call(usize),
}

/// How a field names its service: decides which functions a query may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallForm {
    /// In `Query`: functions that are idempotent.
    Query,
    /// In `Mutation`, and by a directive: any.
    Any,
}

impl<'a> Planner<'a> {
    /// The field at `key` as one that calls functions; `None` where it is no such field.
    pub fn call_root(
        &mut self,
        (key, group): (&str, &Group<'a>),
        form: CallForm,
        calls: &mut Vec<PlannedCall>,
    ) -> Result<Option<FieldSource>> {
        if self.names.project.services.is_empty() {
            return Ok(None);
        }
        if let Some((service, directive)) = self.service_directive(group.field) {
            let call = self.directive_call(&service, (key, group), directive)?;
            calls.push(call);
            return Ok(Some(FieldSource::Call(calls.len() - 1)));
        }
        let Some(service) = self.service_called(group.name()) else { return Ok(None) };
        no_arguments(group)?;
        only_conditional_directives(group)?;
        let mut members = Vec::new();
        for (inner, group) in self.collect(&group.object()?)? {
            let value = match group.name() {
                "__typename" => {
                    group.leaf()?;
                    self.budget.field().map_err(Refusal::new)?;
                    ServiceValue::Typename(format!("{}Service", pascal(&service.id)))
                }
                _ => {
                    let call = self.member_call(&service, (key, inner), &group, form);
                    calls.push(call.map_err(|refusal| at_field(refusal, inner, &group))?);
                    ServiceValue::Call(calls.len() - 1)
                }
            };
            members.push(ServiceMember { key: inner.to_owned(), value });
        }
        Ok(Some(FieldSource::Service(members)))
    }

    fn member_call(
        &mut self,
        service: &ServiceSettings,
        (key, inner): (&str, &str),
        group: &Group<'a>,
        form: CallForm,
    ) -> Result<PlannedCall> {
        only_conditional_directives(group)?;
        let function = function_called(service, group.name());
        if form == CallForm::Query && !is_idempotent(service, &function) {
            let text = format!("function {function} of service {} is in Mutation, not in Query", service.id);
            return Err(Refusal::malformed(text));
        }
        self.planned_call(service, (function, None), group, vec![key.to_owned(), inner.to_owned()])
    }

    fn directive_call(
        &mut self,
        service: &ServiceSettings,
        (key, group): (&str, &Group<'a>),
        directive: &'a Positioned<Directive>,
    ) -> Result<PlannedCall> {
        let (mut function, mut timeout) = (None, None);
        for (name, written) in &directive.node.arguments {
            match name.node.as_str() {
                "func" => function = Some(self.func(&written.node).map_err(|refusal| refusal.at(written.pos))?),
                "timeout" => timeout = self.timeout(&written.node).map_err(|refusal| refusal.at(written.pos))?,
                other => {
                    let argument = format!("{other} of @{}", directive.node.name.node);
                    let nearest = query::nearest(other, ["func", "timeout"]);
                    return Err(Refusal::new(Error::UnknownArgument { argument, nearest }).at(name.pos));
                }
            }
        }
        let function = function.unwrap_or_else(|| function_called(service, group.name()));
        self.planned_call(service, (function, timeout), group, vec![key.to_owned()])
    }

    /// The call that a field makes. Errors: it is over the limits of the document.
    fn planned_call(
        &mut self,
        service: &ServiceSettings,
        (function, timeout): (String, Option<Duration>),
        group: &Group<'a>,
        path: Vec<String>,
    ) -> Result<PlannedCall> {
        self.budget.operation().map_err(Refusal::new)?;
        let params = self.params(group.field)?;
        self.parameter_bytes += params.len();
        if self.parameter_bytes > PARAMETER_BYTES {
            let text = format!("the parameters of all calls are over the limit of {PARAMETER_BYTES} bytes");
            return Err(Refusal::new(Fault::new(Code::TooLarge, text)));
        }
        let is_idempotent = is_idempotent(service, &function);
        let call = FunctionCall { service: service.id.clone(), function, params, timeout };
        Ok(PlannedCall { call, is_idempotent, at: group.at, path })
    }

    /// The arguments of a field as parameters: a JSON object.
    fn params(&self, field: &Selected) -> Result<bytes::Bytes> {
        let names: Vec<&str> = field.arguments.iter().map(|(name, _)| name.node.as_str()).collect();
        self.arguments(field, &names)?;
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            if let Some(value) = self.argument(field, name, EnumValues::Text)? {
                members.push((name.to_owned(), value));
            }
        }
        let mut json = Vec::new();
        Object(members).write_json(&mut json);
        Ok(json.into())
    }

    fn directive_value(&self, written: &AstValue) -> Result<Option<Value>> {
        value(self.document, self.met_variables(), EnumValues::Text, written)
    }

    fn func(&self, written: &AstValue) -> Result<String> {
        match self.directive_value(written)? {
            Some(Value::Text(name)) if !name.is_empty() => Ok(name),
            Some(_) | None => Err(Refusal::malformed("invalid func: expected the name of a function")),
        }
    }

    /// Seconds, or nothing.
    fn timeout(&self, written: &AstValue) -> Result<Option<Duration>> {
        let seconds = match self.directive_value(written)? {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Int(seconds)) => Some(seconds as f64),
            Some(Value::Number(text)) => text.parse().ok(),
            Some(Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_)) => None,
        };
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let time = time.ok_or_else(|| Refusal::malformed("invalid timeout: expected a number of seconds"))?;
        Ok(Some(time).filter(|time| !time.is_zero()))
    }

    /// The service that a directive of a field names, and the directive: databases come first.
    fn service_directive(&self, field: &'a Selected) -> Option<(Arc<ServiceSettings>, &'a Positioned<Directive>)> {
        let mut directives = field.directives.iter().filter(|directive| !is_condition(directive));
        let (directive, None) = (directives.next()?, directives.next()) else { return None };
        let name = directive.node.name.node.as_str();
        let project = &self.names.project;
        let service = project.services.iter().find(|service| graphql_name(&service.id) == name)?;
        project.database(name).is_none().then(|| (service.clone(), directive))
    }

    /// The service that a field of the published schema names: tables come first.
    fn service_called(&self, name: &str) -> Option<Arc<ServiceSettings>> {
        let is_table = |name: &str| self.names.root(name) != RootLookup::Unknown;
        if is_table(name) {
            return None;
        }
        let called = |name: &str| self.names.project.services.iter().find(|service| graphql_name(&service.id) == name);
        let behind_table = || name.strip_suffix(SUFFIX).filter(|short| is_table(short)).and_then(called);
        called(name).or_else(behind_table).cloned()
    }
}

fn is_idempotent(service: &ServiceSettings, function: &str) -> bool {
    service.spec.function(function).is_some_and(|function| function.idempotent)
}

/// The function that GraphQL calls `name`: one of that name, or one whose name is written so there.
fn function_called(service: &ServiceSettings, name: &str) -> String {
    let functions = &service.spec.functions;
    let mut listed = functions.keys().filter(|_| !functions.contains_key(name));
    let renamed = listed.find(|listed| graphql_name(listed) == name);
    renamed.map_or_else(|| name.to_owned(), Clone::clone)
}
