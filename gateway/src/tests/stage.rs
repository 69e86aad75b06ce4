//! A gateway whose neighbours are fakes: they answer as they are told and keep what they were asked.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use futures::{Stream, StreamExt, stream};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use mesh::{
    Code, Fault, Mesh, Tasks,
    config::{Node, ServiceName},
    resources::{self, Kind, Snapshot},
};
use proto::{
    auth::{
        Access, AuthorizeCallRequest, AuthorizeCallResponse, AuthorizeEventsRequest, AuthorizeEventsResponse,
        AuthorizeFilesRequest, AuthorizeFilesResponse, AuthorizeRequest, AuthorizeResponse, AuthorizeWorkerRequest,
        AuthorizeWorkerResponse, ReachableRequest, ReachableResponse, ReachableTable, RelationPath, RevisionsRequest,
        RevisionsResponse, RuleRelations, SignFileRequest, SignFileResponse, TableAccess,
    },
    crud::{
        Answer, Change, ChangesRequest, ChangesResponse, Database, DescribeRequest, DescribeResponse, Event,
        LogRequest, LogResponse, ReadRequest, ReadResponse, Seen, Snapshot as SeenSnapshot, Started, Transaction,
        WriteRequest, WriteResponse, Written,
    },
    grant,
    link::Messages,
    services::{self, auth::auth_rules_server::AuthRules, crud::crud_server::Crud},
};
use query::{
    Abilities, Column, Columns, ForeignKey, GrantTerms, Matching, Mutation, Operation, Read, RuleFilter, Schema, Shape,
    Table, Type, resources::DatabaseMeta,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};
use tower::ServiceExt;

use crate::{Config, Service};

/// The projects at first.
pub const PROJECTS: &str = r#"
kind: project
meta: { id: shop }
spec: { cors: { origins: ["http://a.test"] }, limits: { bodyBytes: 1000 } }
---
kind: project
meta: { id: open }
spec: { cors: { origins: ["*"] } }
---
kind: project
meta: { id: bare }
spec: {}
---
kind: database
meta: { project: shop, id: music }
spec: { type: sqlite, url: "sqlite:music.db" }
---
kind: database
meta: { project: shop, id: down }
spec: { type: postgres, url: "postgres://localhost/down" }
---
kind: database
meta: { project: bare, id: music }
spec: { type: sqlite, url: "sqlite:bare.db" }
"#;

/// What is in force with these documents.
pub fn snapshot(yaml: &str) -> Arc<Snapshot> {
    let parse = resources::parse_typed::<DatabaseMeta, query::resources::Database>;
    let kinds = [
        crate::PROJECT,
        Kind {
            name: "database",
            parse,
            check: |_| Vec::new(),
            schema: resources::schema_typed::<DatabaseMeta, query::resources::Database>,
        },
    ];
    Arc::new(Snapshot::parse(yaml, &kinds).expect("the test's resources are valid"))
}

/// The gateway and what stands around it.
pub struct Stage {
    pub service: Service,
    pub resources: watch::Sender<Arc<Snapshot>>,
    pub world: Arc<World>,
}

/// What the fakes answer, and what they were asked.
#[derive(Default)]
pub struct World {
    /// Reads that were sent.
    pub reads: Mutex<Vec<ReadRequest>>,
    /// Writes that were sent.
    pub writes: Mutex<Vec<WriteRequest>>,
    /// Authorisations that were sent.
    pub authorisations: Mutex<Vec<AuthorizeRequest>>,
    /// Every answer of a read, in place of the usual one.
    pub json: Mutex<Option<&'static str>>,
    /// Answers were cut off.
    pub truncated: Mutex<bool>,
    /// Faults of the next calls to crud, the first one last.
    pub faults: Mutex<Vec<Fault>>,
    /// Columns that a look at the database finds besides the usual ones.
    pub added: Mutex<Vec<&'static str>>,
    /// Columns that crud knows of besides the usual ones.
    pub grown: Mutex<Vec<&'static str>>,
    /// How often the database was looked at again.
    pub looks: AtomicUsize,
    /// How often somebody asked what a caller can reach.
    pub reaches: AtomicUsize,
    /// Reads wait here, where there is a gate.
    pub gate: Mutex<Option<Arc<Notify>>>,
    /// The database that nobody reaches is still being opened.
    pub is_opening: AtomicBool,
    /// Nobody answers for the databases.
    pub is_gone: AtomicBool,
    /// Nobody answers what a caller can reach.
    pub unreachable: AtomicBool,
    /// Told when a read has arrived.
    pub arrived: Notify,
    /// Tables whose changes were asked for.
    pub listened: Mutex<Vec<String>>,
    /// Told when rows of any table change.
    pub changed: watch::Sender<()>,
    /// Ends what tells of changes.
    pub cut: Notify,
    /// Told when rules change.
    pub revised: watch::Sender<()>,
    /// Faults of the next streams of changes of a table.
    pub refused: Mutex<Vec<(&'static str, Fault)>>,
    /// Relations by which the rule of `album` looks at other tables.
    pub relations: Mutex<Vec<RelationPath>>,
    /// When tokens expire, in milliseconds since the Unix epoch.
    pub token_expires_ms: Mutex<Option<i64>>,
    /// Tokens that are no longer valid.
    pub expired: Mutex<Vec<&'static str>>,
    /// What the rules ask of rows and columns for a token.
    pub rules: Mutex<HashMap<&'static str, (RuleFilter, Columns)>>,
    /// A rule that comes into force while the next caller is authorised.
    pub revises: Mutex<Option<(&'static str, (RuleFilter, Columns))>>,
    /// Answers are the grants that the reads have.
    pub shows_grants: AtomicBool,
    /// Requests of more than one read fail.
    pub fails_together: AtomicBool,
    /// What the log tells, where there is one.
    pub log: watch::Sender<Option<Vec<LogResponse>>>,
    /// How often the log was opened.
    pub logs: AtomicUsize,
    /// Transactions of the log that reads do not see yet.
    pub invisible: AtomicUsize,
}

impl Stage {
    /// A gateway with small limits whose catalogue is filled.
    pub async fn new() -> Self {
        Self::with(Config::default()).await
    }

    /// As [`Stage::new`], with limits of its own.
    pub async fn with(config: Config) -> Self {
        Self::around(Arc::new(World::default()), config).await
    }

    /// As [`Stage::with`], in a world that is there already.
    pub async fn around(world: Arc<World>, config: Config) -> Self {
        let mesh = Mesh::new(&Node::default()).expect("the default configuration is valid");
        mesh.host(services::auth::host(Neighbour(world.clone())));
        Self::over(mesh, world, config)
    }

    /// As [`Stage::new`], with a node of auth-rules for each of these worlds.
    pub async fn with_rules_of(worlds: &[Arc<World>]) -> Self {
        let (mut node, tasks) = (Node::default(), Tasks::default());
        for world in worlds {
            let peer = Mesh::new(&Node::default()).expect("the default configuration is valid");
            peer.host(services::auth::host(Neighbour(world.clone())));
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
            let url = format!("http://{}", listener.local_addr().expect("it is bound"));
            node.peers.entry(ServiceName::of(&services::auth::AUTH_RULES)).or_default().push(url);
            tasks.spawn("peer", async move {
                peer.serve(listener, peer.routes(), CancellationToken::new(), Duration::ZERO).await;
            });
        }
        let mesh = Mesh::new(&node).expect("the addresses are sound");
        Self::over(mesh, Arc::new(World::default()), Config::default())
    }

    fn over(mesh: Mesh, world: Arc<World>, config: Config) -> Self {
        mesh.host(services::crud::host(Neighbour(world.clone())));
        let (current, watched) = watch::channel(snapshot(PROJECTS));
        let tasks = Tasks::default();
        let service = Service::start(mesh, config, watched, grant::pair(b"test").1, tasks.clone());
        Self { service, resources: current, world }
    }

    /// The answer to `request`.
    pub async fn send(&self, request: Request<Body>) -> Told {
        let Ok(response) = self.service.front().oneshot(request).await;
        Told::of(response).await
    }

    /// The answer to `request`, from a client at `peer`.
    pub async fn send_from(&self, peer: &str, request: Request<Body>) -> Told {
        let peer: std::net::IpAddr = peer.parse().expect("the test's address is legal");
        let connection = Arc::new(mesh::listener::Connection::new((peer, 4000).into()));
        let Ok(response) = self.service.front().on(connection).oneshot(request).await;
        Told::of(response).await
    }

    /// The answer to a POST of `body` to `path` with `token`.
    pub async fn post(&self, path: &str, token: &str, body: &str) -> Told {
        let mut request = Request::post(path).body(Body::from(body.to_owned())).expect("the test's request is legal");
        if !token.is_empty() {
            let token = format!("Bearer {token}").parse().expect("the test's token is legal");
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        self.send(request).await
    }

    /// The last read that was sent to crud and not taken yet.
    pub fn sent_read(&self) -> ReadRequest {
        self.world.reads.lock().unwrap().pop().expect("a read was sent")
    }
}

/// An answer.
#[derive(Debug)]
pub struct Told {
    pub parts: http::response::Parts,
    pub body: bytes::Bytes,
}

impl Told {
    async fn of(response: http::Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("an answer is whole").to_bytes();
        Told { parts, body }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// A header, empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.parts.headers.get(name).map(|value| value.to_str().expect("the edge writes ASCII")).unwrap_or_default()
    }

    /// Its body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the edge writes UTF-8")
    }

    /// Its body.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Its status and code.
    pub fn refusal(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(json["requestId"], self.header("x-request-id"));
        assert_eq!(json["rawError"], "");
        (self.status().as_u16(), json["code"].as_str().expect("a refusal has a code").to_owned())
    }
}

struct Neighbour(Arc<World>);

#[tonic::async_trait]
impl Crud for Neighbour {
    async fn read(&self, request: tonic::Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let request = request.into_inner();
        self.0.reads.lock().unwrap().push(request.clone());
        self.0.arrived.notify_one();
        let gate = self.0.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        self.0.fault()?;
        if self.0.fails_together.load(Ordering::SeqCst) && request.reads.len() > 1 {
            return Err(Status::internal("one of them"));
        }
        let told = self.0.json.lock().unwrap().map(str::as_bytes);
        let truncated = *self.0.truncated.lock().unwrap();
        let answer = |read: &Read| {
            let usual: &[u8] = match read.node.shape {
                Shape::One => br#"{"album_id":1}"#,
                Shape::Count => b"2",
                Shape::Aggregate => br#"[{"count":2}]"#,
                Shape::Many => br#"[{"album_id":1},{"album_id":2}]"#,
            };
            Answer { json: told.unwrap_or(usual).to_vec().into(), truncated, statements: 1 }
        };
        let mut answers: Vec<Answer> = request.reads.iter().map(answer).collect();
        if self.0.shows_grants.load(Ordering::SeqCst) {
            let terms = |grant| grant::pair(b"test").1.terms(grant).expect("a grant of this process");
            let shown: Vec<_> =
                request.grants.into_iter().map(terms).map(|one| (one.filter.clone(), one.columns.clone())).collect();
            let each = (shown.len() / answers.len()).max(1);
            for (answer, granted) in answers.iter_mut().zip(shown.chunks(each)) {
                answer.json = format!("{granted:?}").into();
            }
        }
        let told = self.0.log.borrow().as_ref().map_or(0, Vec::len);
        let end = (told - self.0.invisible.load(Ordering::SeqCst)) as u64 + 1;
        let snapshot = SeenSnapshot { start: end, end, running: Vec::new() };
        let seen = request.snapshot.then(|| Seen { snapshot: Some(snapshot), position: Vec::new().into() }.into());
        Ok(Response::new(ReadResponse { answers, seen }))
    }

    async fn write(&self, request: tonic::Request<WriteRequest>) -> Result<Response<WriteResponse>, Status> {
        let request = request.into_inner();
        self.0.writes.lock().unwrap().push(request.clone());
        self.0.fault()?;
        let written = |mutation: &Mutation| {
            let rows: &[u8] = if mutation.returning.is_some() { br#"[{"album_id":1}]"# } else { b"" };
            Written { affected: 1, rows: rows.to_vec().into() }
        };
        Ok(Response::new(WriteResponse { written: request.mutations.iter().map(written).collect() }))
    }

    type ChangesStream = Messages<ChangesResponse>;

    async fn changes(
        &self,
        request: tonic::Request<ChangesRequest>,
    ) -> Result<Response<Messages<ChangesResponse>>, Status> {
        self.0.fault()?;
        let table = request.into_inner().table;
        self.0.refusal(&table)?;
        let world = self.0.clone();
        let cut = async move { world.cut.notified().await };
        let changes = messages(&self.0.changed).take_until(Box::pin(cut));
        self.0.listened.lock().unwrap().push(table);
        Ok(Response::new(changes.map(|()| Ok(ChangesResponse {})).boxed()))
    }

    type LogStream = Messages<LogResponse>;

    async fn log(&self, _: tonic::Request<LogRequest>) -> Result<Response<Messages<LogResponse>>, Status> {
        let told = self.0.log.borrow().as_ref().map(Vec::len);
        let Some(next) = told else { return Err(Fault::new(Code::BadRequest, "it has too many columns").into()) };
        self.0.logs.fetch_add(1, Ordering::SeqCst);
        let started = LogResponse { position: Vec::new().into(), event: Some(Event::Started(Started {})) };
        let log = stream::unfold((self.0.log.subscribe(), next), |(mut log, next)| async move {
            let is_told = |log: &Option<Vec<LogResponse>>| log.as_ref().is_some_and(|log| log.len() > next);
            let told = log.wait_for(is_told).await.ok()?.as_ref()?[next].clone();
            Some((Ok(told), (log, next + 1)))
        });
        Ok(Response::new(stream::iter([Ok(started)]).chain(log).boxed()))
    }

    async fn describe(&self, request: tonic::Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        let request = request.into_inner();
        self.0.presence()?;
        let mut columns = vec!["album_id", "title"];
        columns.extend(self.0.grown.lock().unwrap().iter());
        if request.refresh {
            self.0.looks.fetch_add(1, Ordering::SeqCst);
            columns.extend(self.0.added.lock().unwrap().iter());
        }
        let is_new = request.known.get("music") != Some(&(columns.len() as u64));
        let music = Database {
            id: "music".to_owned(),
            engine: "sqlite".to_owned(),
            version: columns.len() as u64,
            schema: is_new.then(|| Arc::new(schema(&columns))),
            error: String::new(),
        };
        let down = Database {
            id: "down".to_owned(),
            engine: "postgres".to_owned(),
            error: if self.0.is_opening.load(Ordering::SeqCst) { String::new() } else { "nobody there".to_owned() },
            ..Default::default()
        };
        Ok(Response::new(DescribeResponse { databases: vec![music, down] }))
    }
}

/// Rules: anyone may do anything with `album` and `track`; `staff` also with `invoice` and tables without rules;
/// `audit` may read `invoice`; nobody may do anything with `secret`.
#[tonic::async_trait]
impl AuthRules for Neighbour {
    async fn authorize_files(
        &self,
        _: tonic::Request<AuthorizeFilesRequest>,
    ) -> Result<Response<AuthorizeFilesResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn authorize_events(
        &self,
        _: tonic::Request<AuthorizeEventsRequest>,
    ) -> Result<Response<AuthorizeEventsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn authorize_worker(
        &self,
        _: tonic::Request<AuthorizeWorkerRequest>,
    ) -> Result<Response<AuthorizeWorkerResponse>, Status> {
        Err(Status::unimplemented("no functions"))
    }

    async fn authorize_call(
        &self,
        _: tonic::Request<AuthorizeCallRequest>,
    ) -> Result<Response<AuthorizeCallResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn sign_file(&self, _: tonic::Request<SignFileRequest>) -> Result<Response<SignFileResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn authorize(
        &self,
        request: tonic::Request<AuthorizeRequest>,
    ) -> Result<Response<AuthorizeResponse>, Status> {
        let request = request.into_inner();
        self.0.authorisations.lock().unwrap().push(request.clone());
        self.0.check_token(&request.token)?;
        let mut grants = Vec::new();
        let mut relations = Vec::new();
        let paths: Arc<[RelationPath]> = self.0.relations.lock().unwrap().as_slice().into();
        let (signer, _) = grant::pair(b"test");
        for (index, Access::Table(access)) in request.accesses.iter().enumerate() {
            let is_allowed = match (access.table.as_str(), &*request.token) {
                _ if !matches!(&*access.database, "music" | "down") => false,
                ("secret", _) => false,
                ("album" | "track", _) => true,
                ("invoice", "audit") => access.operation == Operation::Read,
                (_, "staff") => true,
                _ => false,
            };
            if !is_allowed {
                let code = if request.token.is_empty() { Code::Unauthenticated } else { Code::Denied };
                let message = format!("no rule allows to {:?} {}", access.operation, access.table);
                return Err(Fault::new(code, message).with("access", index.to_string()).into());
            }
            let mut terms = terms(access);
            if let Some((filter, columns)) = self.0.rules.lock().unwrap().get(&*request.token) {
                (terms.filter, terms.columns) = (filter.clone(), columns.clone().into());
            }
            // One that is asked for later ends later.
            terms.expires_ms -= i64::try_from(self.0.authorisations.lock().unwrap().len()).expect("there are few");
            grants.push(signer.grant(terms));
            if access.table == "album" && !paths.is_empty() {
                relations.push(RuleRelations { access: index, paths: paths.clone() });
            }
        }
        let revision = self.0.revises.lock().unwrap().take();
        if let Some((token, rule)) = revision {
            // What is granted is of the rules before.
            self.0.rules.lock().unwrap().insert(token, rule);
            self.0.revised.send_replace(());
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        let token_expires_ms = *self.0.token_expires_ms.lock().unwrap();
        Ok(Response::new(AuthorizeResponse { grants, token_expires_ms, relations }))
    }

    type RevisionsStream = Messages<RevisionsResponse>;

    async fn revisions(
        &self,
        _: tonic::Request<RevisionsRequest>,
    ) -> Result<Response<Messages<RevisionsResponse>>, Status> {
        Ok(Response::new(messages(&self.0.revised).map(|()| Ok(RevisionsResponse {})).boxed()))
    }

    async fn reachable(
        &self,
        request: tonic::Request<ReachableRequest>,
    ) -> Result<Response<ReachableResponse>, Status> {
        if self.0.unreachable.load(Ordering::SeqCst) {
            return Err(Fault::new(Code::Unavailable, "nobody there").into());
        }
        self.0.reaches.fetch_add(1, Ordering::SeqCst);
        let token = request.into_inner().token;
        self.0.check_token(&token)?;
        let all = [Operation::Read, Operation::Create, Operation::Update, Operation::Delete];
        let table = |(table, operations): (&str, &[Operation])| ReachableTable {
            database: "music".to_owned(),
            table: table.to_owned(),
            operations: operations.iter().map(|operation| (*operation, Arc::default())).collect(),
        };
        let invoice: &[Operation] = match token.as_str() {
            "audit" => &all[..1],
            "staff" => &all,
            _ => &[],
        };
        let tables = [("album", &all[..]), ("track", &all[..]), ("secret", &[]), ("invoice", invoice)];
        Ok(Response::new(ReachableResponse { tables: tables.map(table).into() }))
    }
}

/// An item at once, and one for each change of `state`.
fn messages(state: &watch::Sender<()>) -> impl Stream<Item = ()> + Send + use<> {
    let mut state = state.subscribe();
    state.mark_changed();
    stream::unfold(state, |mut state| async {
        state.changed().await.ok()?;
        Some(((), state))
    })
}

fn terms(access: &TableAccess) -> GrantTerms {
    GrantTerms {
        project: "shop".to_owned(),
        database: access.database.as_ref().to_owned(),
        table: access.table.clone(),
        operation: access.operation,
        filter: query::Filter::TRUE,
        check: query::Filter::TRUE,
        columns: Arc::default(),
        allow_all: false,
        expires_ms: i64::MAX,
    }
}

impl World {
    /// The log tells that a row of albums changed: as it was, and as it is.
    pub fn commit(&self, before: &'static str, after: &'static str) {
        self.log.send_modify(|log| {
            let log = log.get_or_insert_default();
            let id = log.len() as u64 + 1;
            let change =
                Change { table: "album".to_owned(), before: before.into(), after: after.into(), ..Change::default() };
            let event = Event::Transaction(Transaction { id, committed_us: 0, changes: vec![change] });
            log.push(LogResponse { position: id.to_string().into(), event: Some(event) });
        });
    }

    /// From now on the token is not valid.
    pub fn expire(&self, token: &'static str) {
        self.expired.lock().unwrap().push(token);
    }

    fn check_token(&self, token: &str) -> Result<(), Status> {
        match self.expired.lock().unwrap().contains(&token) {
            true => Err(Fault::new(Code::Unauthenticated, "the token is not valid").into()),
            false => Ok(()),
        }
    }

    fn presence(&self) -> Result<(), Status> {
        match self.is_gone.load(Ordering::SeqCst) {
            true => Err(Fault::new(Code::Unavailable, "nobody there").into()),
            false => Ok(()),
        }
    }

    fn refusal(&self, table: &str) -> Result<(), Status> {
        let mut refused = self.refused.lock().unwrap();
        match refused.iter().position(|(refused, _)| *refused == table) {
            Some(index) => Err(refused.remove(index).1.into()),
            None => Ok(()),
        }
    }

    fn fault(&self) -> Result<(), Status> {
        self.presence()?;
        match self.faults.lock().unwrap().pop() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }
}

fn schema(album: &[&str]) -> Schema {
    let mut track = table("track", &["track_id", "name", "album_id"]);
    track.foreign_keys.push(ForeignKey {
        columns: vec!["album_id".to_owned()],
        foreign_database: None,
        foreign_table: "album".to_owned(),
        foreign_columns: vec!["album_id".to_owned()],
    });
    let mut secret = table("secret", &["secret_id", "title", "track_id"]);
    secret.foreign_keys.push(ForeignKey {
        columns: vec!["track_id".to_owned()],
        foreign_database: None,
        foreign_table: "track".to_owned(),
        foreign_columns: vec!["track_id".to_owned()],
    });
    Schema::new(vec![table("album", album), track, table("invoice", &["invoice_id", "total"]), secret])
}

fn table(name: &str, columns: &[&str]) -> Table {
    let column = |name: &&str| match name.ends_with("_id") {
        true => {
            let abilities = Abilities { matching: Matching::All, ..Abilities::default() };
            Column { abilities, ..Column::new(*name, Type::Int64, "") }
        }
        false => Column::new(*name, Type::Text, ""),
    };
    Table { primary_key: vec![columns[0].to_owned()], ..Table::new(name, columns.iter().map(column).collect()) }
}
