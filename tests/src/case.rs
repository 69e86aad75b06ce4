//! Cases as data: an operation, who sends it, and what must come back, whatever the protocol.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    client::{Outcome, PROTOCOLS, Protocol, Written},
    mesh::TestMesh,
    operation::Operation,
    token,
};

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Which database, `music` or `lab`.
    pub database: String,
    /// In any order: no case depends on another.
    pub cases: Vec<Case>,
}

/// One operation and its outcome.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// States a fact.
    pub name: String,
    /// Claims of the caller's token; absent: no token.
    #[serde(rename = "as", default)]
    pub claims: Option<Value>,
    /// Rules of a table of its own, which is made like `people`; the operation calls it `people`.
    #[serde(default)]
    pub rules: Option<Value>,
    /// What is sent.
    #[serde(rename = "do")]
    pub operation: Operation,
    /// Rows, a row, a number or null for a read; `{affected, rows}` for a write, a list of these for a batch.
    #[serde(default, deserialize_with = "present")]
    pub gives: Option<Value>,
    /// The code of the error that must come back.
    #[serde(default)]
    pub fails: Option<String>,
    /// A read after it, which must give `leaving`.
    #[serde(default)]
    pub then: Option<Operation>,
    /// What `then` gives.
    #[serde(default)]
    pub leaving: Option<Value>,
    /// SQL that puts things back before each protocol's turn.
    #[serde(default)]
    pub reset: Option<String>,
    /// Only by these protocols: `graphql`, `rest`, `grpc`, `grpc-web`. Absent: all.
    #[serde(default)]
    pub over: Option<Vec<String>>,
}

/// A member that is there, even as null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Reads all suites of a folder.
pub fn load(folder: &Path) -> anyhow::Result<Vec<Suite>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.iter().map(|file| suite(file).with_context(|| file.display().to_string())).collect()
}

fn suite(file: &Path) -> anyhow::Result<Suite> {
    let text = std::fs::read_to_string(file)?;
    let documents = Yaml::load_from_str(&text)?;
    let value = plain(documents.first().context("a document")?)?;
    let database = value["database"].as_str().context("database")?.to_owned();
    ensure!(matches!(database.as_str(), "music" | "lab"), "database {database} is neither music nor lab");
    let mut cases = Vec::new();
    for case in value["cases"].as_array().context("cases")? {
        let name = case["name"].as_str().unwrap_or("without a name");
        let case: Case = serde_json::from_value(case.clone()).with_context(|| name.to_owned())?;
        case.check().with_context(|| name.to_owned())?;
        cases.push(case);
    }
    Ok(Suite { database, cases })
}

impl Case {
    /// Refuses a case that would pass whatever came back.
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.gives.is_some() != self.fails.is_some(), "a case either gives or fails");
        ensure!(self.then.is_some() == self.leaving.is_some(), "then and leaving come together");
        if let Some(over) = &self.over {
            let is_known = |name: &String| PROTOCOLS.into_iter().any(|protocol| spelled(protocol) == name);
            ensure!(!over.is_empty() && over.iter().all(is_known), "over names protocols, not {over:?}");
        }
        Ok(())
    }
}

fn plain(yaml: &Yaml<'_>) -> anyhow::Result<Value> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(flag)) => json!(flag),
        Yaml::Value(Scalar::Integer(number)) => json!(number),
        Yaml::Value(Scalar::FloatingPoint(number)) => json!(number.into_inner()),
        Yaml::Value(Scalar::String(text)) => json!(text),
        Yaml::Sequence(items) => items.iter().map(plain).collect::<anyhow::Result<Vec<_>>>()?.into(),
        Yaml::Mapping(members) => {
            let member = |(name, value): (&Yaml<'_>, &Yaml<'_>)| {
                Ok((name.as_str().context("names are text")?.to_owned(), plain(value)?))
            };
            members.iter().map(member).collect::<anyhow::Result<Map<_, _>>>()?.into()
        }
        other => bail!("a case has no {other:?}"),
    })
}

/// What a mesh needs for the cases with rules of their own: SQL and resources.
pub fn own_tables(suites: &[Suite]) -> (String, String) {
    let (mut sql, mut resources) = (String::new(), String::new());
    for (position, case) in suites.iter().flat_map(|suite| &suite.cases).enumerate() {
        if let Some(rules) = &case.rules {
            let table = own_table(position);
            sql.push_str(&format!("CREATE TABLE {table} {PEOPLE};\n"));
            let document = json!({
                "kind": "table",
                "meta": { "project": "shop", "database": "lab", "id": table },
                "spec": { "rules": rules },
            });
            // JSON is YAML.
            resources.push_str(&format!("---\n{document}\n"));
        }
    }
    (sql, resources)
}

/// Columns of the tables that cases with rules of their own get.
pub const PEOPLE: &str = "(id INTEGER PRIMARY KEY, uid TEXT, age INTEGER, org TEXT, state TEXT, a INTEGER, b INTEGER, \
     ok BOOLEAN)";

fn own_table(position: usize) -> String {
    format!("own_{position}")
}

fn refill(table: &str) -> String {
    format!(
        "DELETE FROM {table}; INSERT INTO {table} (id, uid, age, org, state, a, b, ok) VALUES
         (1, 'u1', 15, 'g1', 'a', 1, 1, TRUE), (2, 'u2', 25, 'g2', 'b', 2, 1, FALSE), (3, 'u3', 5, 'g3', 'c', 3, 2, TRUE),
         (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL);"
    )
}

/// Runs every case by every protocol; lists what went wrong.
pub async fn run(mesh: &TestMesh, suites: &[Suite], restore: &str) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut position = 0;
    for suite in suites {
        for case in &suite.cases {
            let mut case = case.clone();
            if case.rules.is_some() {
                let table = own_table(position);
                case.operation = renamed(&case.operation, &table);
                case.then = case.then.map(|then| renamed(&then, &table));
                case.reset = Some(refill(&table));
            }
            position += 1;
            for protocol in PROTOCOLS {
                if case.over.as_ref().is_none_or(|over| over.iter().any(|name| name == spelled(protocol)))
                    && let Err(error) = one(mesh, suite, &case, protocol, restore).await
                {
                    wrong.push(format!("{} by {protocol:?}: {error:#}", case.name));
                }
            }
        }
    }
    Ok(wrong)
}

fn spelled(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Graphql => "graphql",
        Protocol::Rest => "rest",
        Protocol::Grpc => "grpc",
        Protocol::GrpcWeb => "grpc-web",
    }
}

fn renamed(operation: &Operation, table: &str) -> Operation {
    let mut operation = operation.clone();
    match &mut operation {
        Operation::Read(read) => read.table = table.to_owned(),
        Operation::Create(create) => create.table = table.to_owned(),
        Operation::Update(update) => update.table = table.to_owned(),
        Operation::Delete(delete) => delete.table = table.to_owned(),
        Operation::Batch(items) => *items = items.iter().map(|item| renamed(item, table)).collect(),
    }
    operation
}

async fn one(mesh: &TestMesh, suite: &Suite, case: &Case, protocol: Protocol, restore: &str) -> anyhow::Result<()> {
    let database = if suite.database == "lab" { mesh.lab.as_ref().context("a lab")? } else { &mesh.music };
    match &case.reset {
        Some(sql) => database.run(sql).await?,
        None if case.operation.is_write() && suite.database == "lab" => database.run(restore).await?,
        None => {}
    }
    let client = match &case.claims {
        Some(claims) => mesh.client.with_token(&token::sign(claims.clone())),
        None => mesh.client.clone(),
    };
    let outcome = client.run(protocol, &suite.database, &case.operation).await?;
    match (&case.gives, &case.fails) {
        (Some(wanted), None) => gave(&outcome, wanted)?,
        (None, Some(code)) => ensure!(outcome == Outcome::Failed(code.clone()), "wanted {code}, got {outcome:?}"),
        _ => bail!("a case either gives or fails"),
    }
    if let (Some(then), Some(leaving)) = (&case.then, &case.leaving) {
        gave(&client.run(protocol, &suite.database, then).await?, leaving).context("afterwards")?;
    }
    Ok(())
}

fn gave(outcome: &Outcome, wanted: &Value) -> anyhow::Result<()> {
    match outcome {
        Outcome::Read(rows) => ensure!(rows == wanted, "wanted {wanted}, got {rows}"),
        Outcome::Written(written) => {
            let single = std::slice::from_ref(wanted);
            let wanted = wanted.as_array().map_or(single, Vec::as_slice);
            ensure!(written.len() == wanted.len(), "wanted {} results, got {written:?}", wanted.len());
            for (written, wanted) in written.iter().zip(wanted) {
                wrote(written, wanted)?;
            }
        }
        Outcome::Failed(code) => bail!("wanted {wanted}, failed with {code}"),
    }
    Ok(())
}

/// A protocol that does not tell something is not asked for it.
fn wrote(written: &Written, wanted: &Value) -> anyhow::Result<()> {
    if let (Some(affected), Some(wanted)) = (written.affected, wanted["affected"].as_u64()) {
        ensure!(affected == wanted, "wanted {wanted} rows to be affected, were {affected}");
    }
    if let (Some(rows), Some(wanted)) = (&written.rows, wanted.get("rows")) {
        ensure!(rows == wanted, "wanted {wanted}, got {rows}");
    }
    Ok(())
}
