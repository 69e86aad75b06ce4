//! Cases as data: an operation, who sends it, and what must come back, whatever the protocol.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, bail, ensure};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    client::{Client, Outcome, PROTOCOLS, Protocol, Written},
    engine::Engine,
    graphql::{SPELLINGS, Spelling},
    mesh::TestMesh,
    operation::Operation,
    token,
};

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Which database: `music`, `lab` or another schema of it.
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
    /// The operation.
    #[serde(rename = "do")]
    pub operation: Operation,
    /// Rows, a row, a number or null for a read; `{affected, rows}` for a write, a list of these for a batch.
    #[serde(default, deserialize_with = "present")]
    pub gives: Option<Value>,
    /// The code of the error that must come back.
    #[serde(default)]
    pub fails: Option<String>,
    /// The text of that error; absent: any.
    #[serde(default)]
    pub says: Option<String>,
    /// `spec` of a project of its own, with the same database, whose tables everybody may use; absent: project `shop`.
    #[serde(default)]
    pub project: Option<Value>,
    /// A read after it, which must give `leaving`.
    #[serde(default)]
    pub then: Option<Operation>,
    /// Expected result of `then`.
    #[serde(default)]
    pub leaving: Option<Value>,
    /// SQL that puts things back before each protocol's turn.
    #[serde(default)]
    pub reset: Option<String>,
    /// Expected result, or code, on engines that differ: why, and what takes the place of `gives`, `fails` and `leaving`.
    #[serde(default)]
    pub except: BTreeMap<String, Exception>,
    /// Only by these protocols: `graphql`, `rest`, `grpc`, `grpc-web`. Absent: all.
    #[serde(default)]
    pub over: Option<Vec<String>>,
}

/// What differs on one engine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The reason.
    pub why: String,
    /// In the place of `gives`.
    #[serde(default)]
    pub gives: Option<Value>,
    /// In the place of `fails`.
    #[serde(default)]
    pub fails: Option<String>,
    /// In the place of `leaving`.
    #[serde(default)]
    pub leaving: Option<Value>,
}

/// The cases with what is expected on `engine`.
pub fn on_engine(mut suites: Vec<Suite>, engine: Engine) -> Vec<Suite> {
    let name = match engine {
        Engine::Sqlite => "sqlite",
        Engine::Postgres => "postgres",
        Engine::Mysql => "mysql",
    };
    for case in suites.iter_mut().flat_map(|suite| &mut suite.cases) {
        let Some(Exception { gives, fails, leaving, .. }) = case.except.remove(name) else { continue };
        if gives.is_some() || fails.is_some() {
            (case.gives, case.fails, case.says) = (gives, fails, None);
        }
        case.leaving = leaving.or(case.leaving.take());
    }
    suites
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
    let mut cases = Vec::new();
    for case in value["cases"].as_array().context("cases")? {
        let name = case["name"].as_str().unwrap_or("without a name");
        let case: Case = serde_json::from_value(expanded(case)).with_context(|| name.to_owned())?;
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
        for (engine, exception) in &self.except {
            ensure!(["sqlite", "postgres", "mysql"].contains(&engine.as_str()), "{engine} is no engine");
            ensure!(!exception.why.is_empty(), "an exception says why");
            ensure!(exception.gives.is_none() || exception.fails.is_none(), "a case either gives or fails");
        }
        ensure!(self.says.is_none() || self.fails.is_some(), "what is said, an error says");
        if let Some(over) = &self.over {
            let is_known = |name: &String| PROTOCOLS.into_iter().any(|protocol| spelled(protocol) == name);
            ensure!(!over.is_empty() && over.iter().all(is_known), "over names protocols, not {over:?}");
        }
        Ok(())
    }
}

/// The JSON that a YAML value stands for.
pub fn plain(yaml: &Yaml<'_>) -> anyhow::Result<Value> {
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
        other => bail!("expected a value of JSON, found {other:?}"),
    })
}

/// `value` with what it abbreviates: `{times: 3, of: x}` is a list of three `x`; `{nested: 2, in: [a, b], of: x}` is
/// `{a: {b: {a: {b: x}}}}`.
fn expanded(value: &Value) -> Value {
    match value {
        Value::Object(members) => match (&members.get("times"), &members.get("nested"), members.get("of")) {
            (Some(Value::Number(times)), None, Some(item)) => {
                let times = times.as_u64().unwrap_or_default() as usize;
                std::iter::repeat_n(expanded(item), times).collect()
            }
            (None, Some(Value::Number(times)), Some(inner)) => {
                let keys = members["in"].as_array().map_or(&[][..], Vec::as_slice);
                let around = |inner, key: &Value| json!({ key.as_str().unwrap_or_default(): inner });
                let wrapped = |inner, _| keys.iter().rev().fold(inner, around);
                (0..times.as_u64().unwrap_or_default()).fold(expanded(inner), wrapped)
            }
            _ => members.iter().map(|(key, value)| (key.clone(), expanded(value))).collect::<Map<_, _>>().into(),
        },
        Value::Array(items) => items.iter().map(expanded).collect(),
        other => other.clone(),
    }
}

/// Projects of cases that have their own: id and `spec`. Cases with equal ones share it.
pub fn own_projects(suites: &[Suite]) -> Vec<(String, Value)> {
    let mut projects: Vec<(String, Value)> = Vec::new();
    for spec in suites.iter().flat_map(|suite| &suite.cases).filter_map(|case| case.project.as_ref()) {
        if projects.iter().all(|(_, known)| known != spec) {
            projects.push((format!("own-{}", projects.len()), spec.clone()));
        }
    }
    projects
}

/// Form in which a case is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As a GraphQL document.
    Graphql(Spelling),
    /// By REST, which tells of a write what it returns or nothing.
    Rest,
    /// By REST, asking a write for its rows, so that it tells how many.
    RestReturning,
    /// By gRPC or grpc-web.
    Grpc(Protocol),
}

impl Way {
    /// All ways of `case` by `protocol`.
    fn of(protocol: Protocol, case: &Case) -> Vec<Self> {
        let is_write = matches!(case.operation, Operation::Create(_) | Operation::Update(_) | Operation::Delete(_));
        // Asking for rows asks for the right to read them.
        let may_ask = case.rules.as_ref().is_none_or(|rules| rules["read"]["rule"] == "allow");
        match protocol {
            Protocol::Graphql => SPELLINGS.map(Way::Graphql).to_vec(),
            Protocol::Rest if is_write && may_ask && case.gives.is_some() && !case.operation.is_returning() => {
                vec![Way::Rest, Way::RestReturning]
            }
            Protocol::Rest => vec![Way::Rest],
            Protocol::Grpc | Protocol::GrpcWeb => vec![Way::Grpc(protocol)],
        }
    }

    /// Whether a write answers what it did. REST's batch never does, for clients of old.
    fn tells(self, operation: &Operation) -> bool {
        self != Way::Rest || operation.is_returning()
    }

    async fn run(self, client: &Client, database: &str, operation: &Operation) -> anyhow::Result<Outcome> {
        match self {
            Way::Graphql(spelling) => client.by_graphql(spelling, database, operation).await,
            Way::Rest => client.run(Protocol::Rest, database, operation).await,
            Way::RestReturning => client.run(Protocol::Rest, database, &operation.returning()).await,
            Way::Grpc(protocol) => client.run(protocol, database, operation).await,
        }
    }
}

/// SQL and resources of a mesh for cases with rules of their own.
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
    let projects = own_projects(suites);
    let mut wrong = Vec::new();
    let mut position = 0;
    for suite in suites {
        ensure!(mesh.has(&suite.database), "there is no database {}", suite.database);
        if let Some(lab) = mesh.lab.as_ref().filter(|_| suite.database != "music") {
            lab.run(restore).await?;
        }
        for case in &suite.cases {
            let mut case = case.clone();
            if case.rules.is_some() {
                let table = own_table(position);
                case.operation = renamed(&case.operation, &table);
                case.then = case.then.map(|then| renamed(&then, &table));
                case.reset = Some(refill(&table));
            }
            position += 1;
            let project = projects.iter().find(|(_, spec)| case.project.as_ref() == Some(spec));
            let client = project.map_or(mesh.client.clone(), |(id, _)| mesh.client.with_project(id));
            let sent = |protocol: &Protocol| {
                case.over.as_ref().is_none_or(|over| over.iter().any(|name| name == spelled(*protocol)))
            };
            for way in PROTOCOLS.into_iter().filter(sent).flat_map(|protocol| Way::of(protocol, &case)) {
                if let Err(error) = one(mesh, &client, suite, &case, way, restore).await {
                    wrong.push(format!("{} by {way:?}: {error:#}", case.name));
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

async fn one(
    mesh: &TestMesh,
    client: &Client,
    suite: &Suite,
    case: &Case,
    way: Way,
    restore: &str,
) -> anyhow::Result<()> {
    let is_lab = suite.database != "music";
    let database = if is_lab { mesh.lab.as_ref().context("a lab")? } else { &mesh.music };
    match &case.reset {
        Some(sql) => database.run(sql).await?,
        None if case.operation.is_write() && is_lab => database.run(restore).await?,
        None => {}
    }
    let client = match &case.claims {
        Some(claims) => client.with_token(&token::sign(claims.clone())),
        None => client.clone(),
    };
    let mut outcome = way.run(&client, &suite.database, &case.operation).await?;
    let mut gives = case.gives.clone();
    if matches!(case.operation, Operation::Update(_) | Operation::Delete(_)) {
        in_one_order(&mut outcome, &mut gives);
    }
    match (&gives, &case.fails) {
        (Some(_), None) if case.operation.is_write() && !way.tells(&case.operation) => {
            let Outcome::Written(written) = &outcome else { bail!("wanted a write, got {outcome:?}") };
            let nothing = Written { affected: None, rows: None };
            ensure!(written.iter().all(|written| *written == nothing), "wanted nothing, got {written:?}");
        }
        (Some(wanted), None) => gave(&outcome, wanted)?,
        (None, Some(code)) => failed(&outcome, code, case.says.as_deref())?,
        _ => bail!("a case either gives or fails"),
    }
    if let (Some(then), Some(leaving)) = (&case.then, &case.leaving) {
        gave(&way.run(&client, &suite.database, then).await?, leaving).context("afterwards")?;
    }
    Ok(())
}

/// Puts the rows of an update or a deletion in one order: no database promises one.
fn in_one_order(outcome: &mut Outcome, wanted: &mut Option<Value>) {
    let told = match outcome {
        Outcome::Written(written) => written.iter_mut().filter_map(|written| written.rows.as_mut()).collect(),
        Outcome::Read(_) | Outcome::Failed(_) => Vec::new(),
    };
    let wanted = wanted.as_mut().and_then(|wanted| wanted.get_mut("rows"));
    for rows in told.into_iter().chain(wanted).filter_map(Value::as_array_mut) {
        rows.sort_by_cached_key(Value::to_string);
    }
}

fn failed(outcome: &Outcome, code: &str, text: Option<&str>) -> anyhow::Result<()> {
    let Outcome::Failed(refusal) = outcome else { bail!("wanted {code}, got {outcome:?}") };
    ensure!(refusal.code == code, "wanted {code}, got {refusal:?}");
    ensure!(text.is_none_or(|text| refusal.text == text), "wanted {text:?}, got {:?}", refusal.text);
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
        Outcome::Failed(refusal) => bail!("wanted {wanted}, failed with {refusal:?}"),
    }
    Ok(())
}

/// Checks one write. A protocol must tell all that the case asks for.
fn wrote(written: &Written, wanted: &Value) -> anyhow::Result<()> {
    if let Some(wanted) = wanted["affected"].as_u64() {
        ensure!(written.affected == Some(wanted), "wanted {wanted} rows to be affected, got {:?}", written.affected);
    }
    if let Some(wanted) = wanted.get("rows") {
        ensure!(written.rows.as_ref() == Some(wanted), "wanted {wanted}, got {:?}", written.rows);
    }
    Ok(())
}
