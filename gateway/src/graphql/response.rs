//! Answers, written around the bytes that the databases' service wrote.

use async_graphql_parser::Pos;
use mesh::{Call, Fault};
use serde::Serialize;

use super::plan::{Kind, Member, Part, Plan, What};
use crate::edge::{Answer, Written};

/// One error as clients are told.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// What is wrong.
    pub fault: &'a Fault,
    /// Where in the document.
    pub at: Option<Pos>,
    /// Response keys that lead there.
    pub path: &'a [String],
}

/// The answer of a query.
pub fn read(plan: &Plan, answers: &[Answer]) -> Vec<u8> {
    let size: usize = answers.iter().map(|answer| answer.json.len() + 64).sum();
    let mut out = Vec::with_capacity(size + 64);
    let mut truncated = Vec::new();
    open(&mut out, plan, |out, key, what| {
        if let What::Read(index) = what {
            let answer = &answers[*index];
            out.extend_from_slice(&answer.json);
            if answer.truncated {
                truncated.push(key);
            }
        }
    });
    if !truncated.is_empty() {
        out.extend_from_slice(b",\"extensions\":{\"truncated\":");
        json(&mut out, &truncated);
        out.push(b'}');
    }
    out.push(b'}');
    out
}

/// The answer of a mutation. A field that failed says so in its own data if it selects `error`, and is null beside an
/// error otherwise.
pub fn written(plan: &Plan, results: &[Result<Written, Fault>], call: &Call) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    open(&mut out, plan, |out, _, what| {
        let What::Write(index, members) = what else { return };
        match &results[*index] {
            Ok(written) => members_of(out, members, &Outcome::done(written)),
            Err(fault) if says_error(members) => members_of(out, members, &Outcome::failed(fault)),
            Err(_) => out.extend_from_slice(b"null"),
        }
    });
    let paths: Vec<[String; 1]> = plan.roots.iter().map(|root| [root.key.clone()]).collect();
    let failed = plan.roots.iter().zip(&paths).filter_map(|(root, path)| match &root.what {
        What::Write(index, members) if !says_error(members) => {
            let fault = results[*index].as_ref().err()?;
            Some(Told { fault, at: Some(root.at), path })
        }
        What::Write(..) | What::Read(_) | What::Typename | What::Null => None,
    });
    let failed: Vec<Told<'_>> = failed.collect();
    if !failed.is_empty() {
        out.extend_from_slice(b",\"errors\":");
        json(&mut out, &shaped(&failed, call));
    }
    out.push(b'}');
    out
}

/// The answer of a request that was not carried out.
pub fn errors(told: &[Told<'_>], call: &Call) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"errors\":");
    json(&mut out, &shaped(told, call));
    out.push(b'}');
    out
}

/// `{"data":{…}` with what `write` writes for reads and writes; the brace of the answer stays open.
fn open<'a>(out: &mut Vec<u8>, plan: &'a Plan, mut write: impl FnMut(&mut Vec<u8>, &'a str, &'a What)) {
    out.extend_from_slice(b"{\"data\":{");
    for (index, root) in plan.roots.iter().enumerate() {
        key(out, index, &root.key);
        match (&root.what, plan.kind) {
            (What::Typename, Kind::Query) => out.extend_from_slice(b"\"Query\""),
            (What::Typename, Kind::Mutation) => out.extend_from_slice(b"\"Mutation\""),
            (What::Null, _) => out.extend_from_slice(b"null"),
            (what @ (What::Read(_) | What::Write(..)), _) => write(out, &root.key, what),
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
    fn done(written: &'a Written) -> Self {
        Self { status: 200, error: None, affected: written.affected, rows: &written.rows }
    }

    fn failed(fault: &'a Fault) -> Self {
        Self { status: fault.code.http(), error: Some(&fault.message), affected: 0, rows: b"" }
    }
}

fn members_of(out: &mut Vec<u8>, members: &[Member], outcome: &Outcome<'_>) {
    out.push(b'{');
    for (index, member) in members.iter().enumerate() {
        key(out, index, &member.key);
        match &member.what {
            Part::Status => json(out, &outcome.status),
            Part::Error => json(out, &outcome.error),
            Part::Affected => json(out, &outcome.affected),
            Part::Typename(name) => json(out, name),
            Part::Returning if outcome.rows.is_empty() => out.extend_from_slice(b"[]"),
            Part::Returning => out.extend_from_slice(outcome.rows),
        }
    }
    out.push(b'}');
}

fn says_error(members: &[Member]) -> bool {
    members.iter().any(|member| member.what == Part::Error)
}

fn json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("texts and numbers can always be written to memory");
}

#[derive(Serialize)]
struct Shaped<'a> {
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

fn shaped<'a>(told: &[Told<'a>], call: &'a Call) -> Vec<Shaped<'a>> {
    let one = |told: &Told<'a>| Shaped {
        message: &told.fault.message,
        locations: told.at.iter().map(|at| Location { line: at.line, column: at.column }).collect(),
        path: told.path,
        extensions: Extensions { code: told.fault.code.as_str(), request_id: &call.request_id },
    };
    told.iter().map(one).collect()
}
