//! Answers, written around the bytes that the databases' service wrote.

use async_graphql_parser::Pos;
use bytes::Bytes;
use mesh::{Call, Fault};
use serde::Serialize;

use super::{
    introspection::CompressedJson,
    plan::{FieldSource, Kind, PayloadField, PayloadValue, Plan, ServiceMember, ServiceValue},
};
use crate::edge::{ReadResult, WriteResult};

/// A fault and its location in the document.
#[derive(Debug, Clone, Copy)]
pub struct LocatedFault<'a> {
    /// Message and code of the error.
    pub fault: &'a Fault,
    /// Position in the document.
    pub at: Option<Pos>,
    /// Response keys that lead there.
    pub path: &'a [String],
}

/// The answer of a query, without what is introspected.
pub struct QueryAnswer {
    /// Its JSON.
    pub json: Vec<u8>,
    /// Where in it the answer to a field of introspection belongs, and its index, in order.
    pub introspected: Vec<(usize, usize)>,
}

impl QueryAnswer {
    /// Its bytes in order, with the answers to the fields of introspection in their places.
    pub fn pieces(self, introspected: Vec<CompressedJson>) -> impl Iterator<Item = std::io::Result<Bytes>> + Send {
        let json = Bytes::from(self.json);
        let ends = self.introspected.iter().map(|(place, _)| *place).chain([json.len()]).collect::<Vec<_>>();
        let begins = std::iter::once(0).chain(ends.clone());
        let written = begins.zip(ends).map(move |(begin, end)| json.slice(begin..end));
        let mut shown = self.introspected.into_iter();
        written.flat_map(move |written| {
            let shown = shown.next().map(|(_, index)| introspected[index].pieces());
            std::iter::once(Ok(written)).chain(shown.into_iter().flatten())
        })
    }
}

/// The answer of a query that calls no functions.
pub fn read(plan: &Plan, answers: &[ReadResult]) -> QueryAnswer {
    read_and_called(plan, answers, &Called::default())
}

/// Answers of the calls of a plan.
#[derive(Default)]
pub struct Called<'a> {
    /// One per call, in their order.
    pub answers: &'a [Result<Bytes, Fault>],
    /// The request, for errors.
    pub call: Option<&'a Call>,
}

/// The answer of a query, or of a mutation that only calls functions. A call that failed is null beside an error.
pub fn read_and_called(plan: &Plan, answers: &[ReadResult], called: &Called<'_>) -> QueryAnswer {
    let size: usize = answers.iter().map(|answer| answer.json.len() + 64).sum();
    let mut out = Vec::with_capacity(size + 64);
    let mut truncated = Vec::new();
    let mut introspected = Vec::new();
    write_data(&mut out, plan, |out, key, source| match source {
        FieldSource::Read(index) => {
            let answer = &answers[*index];
            out.extend_from_slice(&answer.json);
            if answer.truncated {
                truncated.push(key);
            }
        }
        FieldSource::Introspected(index) => introspected.push((out.len(), *index)),
        FieldSource::Call(index) => write_called(out, called, *index),
        FieldSource::Service(members) => write_service(out, called, members),
        FieldSource::Write(..) | FieldSource::Typename | FieldSource::Null => {}
    });
    if !truncated.is_empty() {
        out.extend_from_slice(b",\"extensions\":{\"truncated\":");
        json(&mut out, &truncated);
        out.push(b'}');
    }
    write_call_errors(&mut out, plan, called);
    out.push(b'}');
    QueryAnswer { json: out, introspected }
}

/// Writes the answer of the call at an index.
fn write_called(out: &mut Vec<u8>, called: &Called<'_>, index: usize) {
    match &called.answers[index] {
        Ok(answer) => out.extend_from_slice(answer),
        Err(_) => out.extend_from_slice(b"null"),
    }
}

fn write_service(out: &mut Vec<u8>, called: &Called<'_>, members: &[ServiceMember]) {
    out.push(b'{');
    for (index, member) in members.iter().enumerate() {
        key(out, index, &member.key);
        match &member.value {
            ServiceValue::Typename(name) => json(out, name),
            ServiceValue::Call(index) => write_called(out, called, *index),
        }
    }
    out.push(b'}');
}

/// Writes the errors of calls that failed.
fn write_call_errors(out: &mut Vec<u8>, plan: &Plan, called: &Called<'_>) {
    let failed = plan.calls.iter().zip(called.answers).filter_map(|(planned, answer)| {
        let fault = answer.as_ref().err()?;
        Some(LocatedFault { fault, at: Some(planned.at), path: &planned.path })
    });
    let failed: Vec<LocatedFault<'_>> = failed.collect();
    if let Some(call) = called.call.filter(|_| !failed.is_empty()) {
        out.extend_from_slice(b",\"errors\":");
        json(out, &error_entries(&failed, call));
    }
}

/// The answer of a mutation. A field that failed says so in its own data if it selects `error`, and is null beside an
/// error otherwise.
pub fn written(plan: &Plan, results: &[Result<WriteResult, Fault>], call: &Call) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_data(&mut out, plan, |out, _, source| {
        let FieldSource::Write(index, members) = source else { return };
        match &results[*index] {
            Ok(written) => write_payload(out, members, &Outcome::done(written)),
            Err(fault) if selects_error(members) => write_payload(out, members, &Outcome::failed(fault)),
            Err(_) => out.extend_from_slice(b"null"),
        }
    });
    let paths: Vec<[String; 1]> = plan.fields.iter().map(|root| [root.key.clone()]).collect();
    let failed = plan.fields.iter().zip(&paths).filter_map(|(root, path)| match &root.source {
        FieldSource::Write(index, members) if !selects_error(members) => {
            let fault = results[*index].as_ref().err()?;
            Some(LocatedFault { fault, at: Some(root.at), path })
        }
        FieldSource::Write(..)
        | FieldSource::Read(_)
        | FieldSource::Introspected(_)
        | FieldSource::Call(_)
        | FieldSource::Service(_)
        | FieldSource::Typename
        | FieldSource::Null => None,
    });
    let failed: Vec<LocatedFault<'_>> = failed.collect();
    if !failed.is_empty() {
        out.extend_from_slice(b",\"errors\":");
        json(&mut out, &error_entries(&failed, call));
    }
    out.push(b'}');
    out
}

/// The answer of a request that was not carried out.
pub fn errors(faults: &[LocatedFault<'_>], call: &Call) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"errors\":");
    json(&mut out, &error_entries(faults, call));
    out.push(b'}');
    out
}

/// The list of errors of an answer that [`errors`] made; `None` for any other.
pub fn error_list(answer: &[u8]) -> Option<&[u8]> {
    answer.strip_prefix(b"{\"errors\":")?.strip_suffix(b"}")
}

/// The answer of a query whose execution failed.
pub fn null_data(fault: &LocatedFault<'_>, call: &Call) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"data\":null,\"errors\":");
    json(&mut out, &error_entries(&[*fault], call));
    out.push(b'}');
    out
}

/// `{"data":{…}` with what `write` writes for reads and writes; the brace of the answer stays open.
fn write_data<'a>(out: &mut Vec<u8>, plan: &'a Plan, mut write: impl FnMut(&mut Vec<u8>, &'a str, &'a FieldSource)) {
    out.extend_from_slice(b"{\"data\":{");
    for (index, root) in plan.fields.iter().enumerate() {
        key(out, index, &root.key);
        match (&root.source, plan.kind) {
            (FieldSource::Typename, Kind::Query) => out.extend_from_slice(b"\"Query\""),
            (FieldSource::Typename, Kind::Mutation) => out.extend_from_slice(b"\"Mutation\""),
            (FieldSource::Typename, Kind::Subscription) => out.extend_from_slice(b"\"Subscription\""),
            (FieldSource::Null, _) => out.extend_from_slice(b"null"),
            (
                source @ (FieldSource::Read(_)
                | FieldSource::Write(..)
                | FieldSource::Introspected(_)
                | FieldSource::Call(_)
                | FieldSource::Service(_)),
                _,
            ) => write(out, &root.key, source),
        }
    }
    out.push(b'}');
}

/// The name of a member. It is a GraphQL name and needs no escapes.
fn key(out: &mut Vec<u8>, index: usize, name: &str) {
    if index > 0 {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

struct Outcome<'a> {
    status: u16,
    error: Option<&'a str>,
    affected: u64,
    rows: &'a [u8],
}

impl<'a> Outcome<'a> {
    fn done(written: &'a WriteResult) -> Self {
        Self { status: 200, error: None, affected: written.affected, rows: &written.rows }
    }

    fn failed(fault: &'a Fault) -> Self {
        Self { status: fault.code.http(), error: Some(&fault.message), affected: 0, rows: b"" }
    }
}

fn write_payload(out: &mut Vec<u8>, members: &[PayloadField], outcome: &Outcome<'_>) {
    out.push(b'{');
    for (index, member) in members.iter().enumerate() {
        key(out, index, &member.key);
        match &member.value {
            PayloadValue::Status => json(out, &outcome.status),
            PayloadValue::Error => json(out, &outcome.error),
            PayloadValue::Affected => json(out, &outcome.affected),
            PayloadValue::Typename(name) => json(out, name),
            PayloadValue::Returning if outcome.rows.is_empty() => out.extend_from_slice(b"[]"),
            PayloadValue::Returning => out.extend_from_slice(outcome.rows),
        }
    }
    out.push(b'}');
}

fn selects_error(members: &[PayloadField]) -> bool {
    members.iter().any(|member| member.value == PayloadValue::Error)
}

/// Writes a value as JSON.
pub fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("texts and numbers can always be written to memory");
}

#[derive(Serialize)]
struct ErrorEntry<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    locations: Vec<Location>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    path: &'a [String],
    extensions: Extensions<'a>,
}

#[derive(Serialize)]
struct Location {
    line: usize,
    column: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Extensions<'a> {
    code: &'static str,
    request_id: &'a str,
}

fn error_entries<'a>(faults: &[LocatedFault<'a>], call: &'a Call) -> Vec<ErrorEntry<'a>> {
    let one = |located: &LocatedFault<'a>| ErrorEntry {
        message: &located.fault.message,
        locations: located.at.iter().map(|at| Location { line: at.line, column: at.column }).collect(),
        path: located.path,
        extensions: Extensions { code: located.fault.code.as_str(), request_id: &call.request_id },
    };
    faults.iter().map(one).collect()
}
