//! The service as its callers see it, and how it follows its resources.

use std::{path::Path, sync::Arc};

use mesh::{
    Code, Component, ComponentState, Fault, Mesh, Tasks,
    bus::{Event, Message},
    config::Node,
    resources::{Kind, Snapshot, parse_typed, schema_typed},
};
use proto::{
    crud::{DescribeRequest, ReadRequest, WriteRequest},
    grant::{self, Grant, Signer},
    services::crud::crud_server::Crud,
};
use query::{
    Filter, GrantTerms, Operation,
    trigger::{Trigger, TriggerMeta},
};
use tokio::sync::watch;
use tonic::Request;

use crate::{Config, Service};

struct Stage {
    service: Service,
    mesh: Mesh,
    resources: watch::Sender<Arc<Snapshot>>,
    signer: Signer,
    tasks: Tasks,
    folder: tempfile::TempDir,
}

const PROJECT: &str = "kind: project\nmeta: {id: shop}\n---\n";

fn database(folder: &Path, id: &str, rest: &str) -> String {
    let init = folder.join("init.sql");
    std::fs::write(&init, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t (a) VALUES ('x'), ('y')")
        .unwrap();
    let init = init.display();
    format!(
        "kind: database\nmeta: {{project: shop, id: {id}}}\nspec: {{url: \"sqlite:{id}.db\", init: [{init}]{rest}}}\n---\n"
    )
}

fn snapshot(yaml: &str) -> Arc<Snapshot> {
    Arc::new(Snapshot::parse(yaml, &super::KINDS).unwrap())
}

/// A service with one database, `one`.
fn stage() -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let (resources, current) = watch::channel(snapshot(&(PROJECT.to_owned() + &database(folder.path(), "one", ""))));
    let mesh = Mesh::new(&Node::default()).unwrap();
    let (signer, verifier) = grant::pair(b"test");
    let tasks = Tasks::default();
    let config = Config { data: folder.path().join("data") };
    let service = Service::start(mesh.clone(), config, current, verifier, tasks.clone());
    Stage { service, mesh, resources, signer, tasks, folder }
}

impl Stage {
    fn grant(&self, database: &str, operation: Operation) -> Grant {
        self.signer.grant(GrantTerms {
            project: "shop".to_owned(),
            database: database.to_owned(),
            table: "t".to_owned(),
            operation,
            filter: Filter::TRUE,
            check: Filter::TRUE,
            columns: Default::default(),
            allow_all: false,
            expires_ms: i64::MAX,
        })
    }

    /// The rows of table `t`.
    async fn rows(&self, database: &str) -> Result<String, Fault> {
        let node = query::Node::new(query::Shape::Many, vec![query::Field::column("a")]);
        let read = query::Read { database: database.into(), table: "t".into(), node };
        let request = ReadRequest {
            project: "shop".into(),
            database: database.into(),
            reads: vec![read],
            grants: vec![self.grant(database, Operation::Read)],
            ..Default::default()
        };
        let answer = self.service.read(Request::new(request)).await?.into_inner().answers.remove(0);
        Ok(String::from_utf8(answer.json.to_vec()).unwrap())
    }

    /// Follows `yaml` until database `id` of the project is ready, failing, or gone.
    async fn follow(&self, yaml: &str, id: &str, ready: Option<bool>) {
        self.resources.send_replace(snapshot(yaml));
        while self.mesh.health().get(&component(id)).map(|state| state == ComponentState::Ready) != ready {
            tokio::task::yield_now().await;
        }
    }
}

fn component(database: &str) -> Component {
    Component::Database { project: "shop".to_owned(), database: database.to_owned() }
}

#[tokio::test]
async fn a_database_is_made_opened_and_described() {
    let stage = stage();
    let mut events = stage.mesh.bus().subscribe("schema");
    assert_eq!(stage.rows("one").await.unwrap(), r#"[{"a":"x"},{"a":"y"}]"#);
    let changed = Message { subject: "schema.changed".to_owned(), payload: "shop/one".into() };
    assert_eq!(events.next().await, Some(Event::Message(changed)));
    assert_eq!(stage.mesh.health().get(&component("one")), Some(ComponentState::Ready));

    let request = DescribeRequest { project: "shop".to_owned(), refresh: true, ..Default::default() };
    let described = stage.service.describe(Request::new(request)).await.unwrap().into_inner();
    let [database] = described.databases.as_slice() else { panic!("{described:?}") };
    assert_eq!((database.id.as_str(), database.engine.as_str(), database.error.as_str()), ("one", "sqlite", ""));
    assert_ne!(database.version, 0);
    assert_eq!(database.schema.as_ref().unwrap().tables()[0].name, "t");
    stage.tasks.finish().await;
}

#[tokio::test]
async fn a_schema_that_a_statement_finds_moved_is_told_to_the_mesh() {
    let stage = stage();
    let mut events = stage.mesh.bus().subscribe("schema");
    let changed = Event::Message(Message { subject: "schema.changed".to_owned(), payload: "shop/one".into() });
    assert_eq!(events.next().await, Some(changed.clone()));
    let other = rusqlite::Connection::open(stage.folder.path().join("data/one.db")).unwrap();
    other.execute_batch("ALTER TABLE t RENAME COLUMN a TO b").unwrap();

    let fault = stage.rows("one").await.unwrap_err();

    assert_eq!(fault.code, Code::UnknownColumn);
    assert_eq!(events.next().await, Some(changed));
    stage.tasks.finish().await;
}

#[tokio::test]
async fn writes_answer_what_they_did() {
    let stage = stage();
    let docs = vec![query::Document(vec![("a".to_owned(), query::Typed::Text("z".to_owned()))])].into();
    let mutation =
        query::Mutation { table: "t".to_owned(), kind: query::MutationKind::Insert { docs }, returning: None };
    let request = WriteRequest {
        project: "shop".into(),
        database: "one".into(),
        mutations: vec![mutation],
        grants: vec![stage.grant("one", Operation::Create)],
        ..Default::default()
    };
    let written = stage.service.write(Request::new(request)).await.unwrap().into_inner().written;
    assert_eq!((written[0].affected, written[0].rows.len()), (1, 0));
    assert_eq!(stage.rows("one").await.unwrap(), r#"[{"a":"x"},{"a":"y"},{"a":"z"}]"#);
}

#[tokio::test]
async fn databases_come_and_go_with_the_resources() {
    let stage = stage();
    let one = database(stage.folder.path(), "one", "");
    let two = database(stage.folder.path(), "two", "");
    stage.follow(&(PROJECT.to_owned() + &one + &two), "two", Some(true)).await;
    assert_eq!(stage.rows("two").await.unwrap(), r#"[{"a":"x"},{"a":"y"}]"#);
    let limited = database(stage.folder.path(), "two", ", limit: 1");
    stage.resources.send_replace(snapshot(&(PROJECT.to_owned() + &one + &limited)));
    while stage.rows("two").await.unwrap() != r#"[{"a":"x"}]"# {
        tokio::task::yield_now().await;
    }
    stage.follow(&(PROJECT.to_owned() + &one), "two", None).await;
    assert_eq!(stage.rows("two").await.unwrap_err().code, Code::UnknownDatabase);
    assert_eq!(stage.rows("one").await.unwrap(), r#"[{"a":"x"},{"a":"y"}]"#);
    stage.resources.send_replace(snapshot(""));
    while stage.rows("one").await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.rows("one").await.unwrap_err().code, Code::UnknownProject);
    stage.tasks.finish().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_says_so_and_the_others_work() {
    let stage = stage();
    let missing = stage.folder.path().join("missing.sql");
    let bad = format!("spec: {{url: \"sqlite:bad.db\", init: [{}]}}\n", missing.display());
    let bad = format!("kind: database\nmeta: {{project: shop, id: bad}}\n{bad}");
    let both = PROJECT.to_owned() + &database(stage.folder.path(), "one", "") + &bad;
    stage.follow(&both, "bad", Some(false)).await;
    let fault = stage.rows("bad").await.unwrap_err();
    assert_eq!((fault.code, fault.message.contains("missing.sql")), (Code::Unavailable, false));
    assert!(stage.rows("one").await.is_ok());
    // It is tried again.
    std::fs::write(&missing, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)").unwrap();
    stage.follow(&both, "bad", Some(true)).await;
    assert_eq!(stage.rows("bad").await.unwrap(), "[]");
}

#[tokio::test]
async fn errors_travel_with_their_code() {
    let stage = stage();
    let read = |grants: Vec<Grant>, column: &str| {
        let node = query::Node::new(query::Shape::Many, vec![query::Field::column(column)]);
        let read = query::Read { database: "one".into(), table: "t".into(), node };
        let (project, database) = ("shop".into(), "one".into());
        Request::new(ReadRequest { project, database, reads: vec![read], grants, ..Default::default() })
    };
    let code = |status: tonic::Status| Fault::from(status).code;
    let granted = vec![stage.grant("one", Operation::Read)];
    assert_eq!(code(stage.service.read(read(granted.clone(), "b")).await.unwrap_err()), Code::UnknownColumn);
    assert_eq!(code(stage.service.read(read(Vec::new(), "a")).await.unwrap_err()), Code::Denied);
    let signed = |grant: &Grant| Grant::from(proto::wire::auth::v1::SignedGrant::from(grant.clone()));
    let sound: Vec<Grant> = granted.iter().map(signed).collect();
    assert!(stage.service.read(read(sound, "a")).await.is_ok());
    let terms = grant::pair(b"test").1.terms(granted[0].clone()).unwrap();
    let other = grant::pair(b"other").0.grant((*terms).clone());
    let foreign = vec![signed(&other)];
    assert_eq!(code(stage.service.read(read(foreign, "a")).await.unwrap_err()), Code::Internal);
}

#[tokio::test]
async fn tables_of_triggers_are_captured_though_nobody_follows_them() {
    let stage = stage();
    let trigger = Kind {
        name: "trigger",
        parse: parse_typed::<TriggerMeta, Trigger>,
        check: |_| Vec::new(),
        schema: schema_typed::<TriggerMeta, Trigger>,
    };
    let kinds = [&super::KINDS[..], &[trigger]].concat();
    let on = |table: &str| {
        format!(
            "kind: trigger\nmeta: {{project: shop, id: on-{table}}}\n\
             spec: {{on: {{database: one, table: {table}}}, to: {{url: \"http://mail\"}}}}\n---\n"
        )
    };
    let yaml = PROJECT.to_owned() + &database(stage.folder.path(), "one", "") + &on("t") + &on("nothing");
    stage.resources.send_replace(Arc::new(Snapshot::parse(&yaml, &kinds).unwrap()));
    stage.rows("one").await.unwrap();

    let other = rusqlite::Connection::open(stage.folder.path().join("data/one.db")).unwrap();
    let captured = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%perigee_log%'";
    while other.query_row(captured, [], |row| row.get::<_, i64>(0)).unwrap() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stage.tasks.finish().await;
}
