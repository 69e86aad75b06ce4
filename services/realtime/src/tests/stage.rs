//! A service whose neighbours are fakes that work: one table in memory, its log, and rules that say what they are told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use mesh::{Call, Code, Fault, Mesh, Tasks, config::Node};
use proto::{
    Links,
    auth::{
        Access, AuthorizeCallRequest, AuthorizeCallResponse, AuthorizeEventsRequest, AuthorizeEventsResponse,
        AuthorizeFilesRequest, AuthorizeFilesResponse, AuthorizeRequest, AuthorizeResponse, AuthorizeWorkerRequest,
        AuthorizeWorkerResponse, ReachableRequest, ReachableResponse, RevisionsRequest, RevisionsResponse,
        SignFileRequest, SignFileResponse,
    },
    crud::{
        Answer, Change, ChangesRequest, ChangesResponse, Database, DescribeRequest, DescribeResponse, Event,
        LogRequest, LogResponse, Operation as ChangeKind, ReadRequest, ReadResponse, Resync, ResyncReason, Seen,
        Snapshot, Started, Transaction, WriteRequest, WriteResponse,
    },
    grant::{self, Signer, Verifier},
    link::Messages,
    realtime::{Event as Told, WatchRequest, WatchResponse},
    services::{self, auth::auth_rules_server::AuthRules, crud::crud_server::Crud},
};
use query::{
    Abilities, Column, Columns, Comparison, Field, Filter, GrantTerms, Matching, Node as ReadNode, Object, Operation,
    Read, Row, RuleFilter, Schema, Shape, Table, Type, Value,
};
use serde_json::Value as Json;
use tokio::sync::watch;
use tonic::{Response, Status};

use crate::{Config, Service, image::ImageReader};

/// Bytes of rows that may wait to be told.
pub const WAITING_BYTES: usize = 30 << 20;

/// What the rules say of a caller.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    pub filter: Option<RuleFilter>,
    pub columns: Columns,
    /// Denied by this code.
    pub denied: Option<Code>,
    /// Its grants are void at once.
    pub is_void: bool,
    /// When the token expires.
    pub expires: Option<SystemTime>,
}

/// The neighbours.
pub struct World {
    state: Mutex<State>,
    log: watch::Sender<Vec<LogResponse>>,
    revisions: watch::Sender<()>,
    signer: Signer,
    verifier: Verifier,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<i64, Json>,
    rules: HashMap<String, Rule>,
    /// Transactions that reads see.
    visible: usize,
    /// They see the one after the next besides.
    is_overtaken: bool,
    /// Positions before this are not in the log any more.
    pruned: usize,
    columns: Vec<&'static str>,
}

/// The service and its neighbours.
pub struct Stage {
    pub world: Arc<World>,
    mesh: Mesh,
    _tasks: Tasks,
}

/// A watch that was begun.
pub struct Watching(Messages<WatchResponse>);

/// A message, for comparisons: its kind, row and row before.
pub type Message = (&'static str, Json, Json);

/// A change of a row: as it was, and as it is.
pub type Changed = (Option<Json>, Option<Json>);

struct Neighbour(Arc<World>);

/// A condition that the owner is `name`.
pub fn owned(name: &str) -> RuleFilter {
    RuleFilter::Compare { column: "owner".to_owned(), comparison: Comparison::Eq, value: Value::Text(name.to_owned()) }
}

pub fn table(columns: &[&str]) -> Table {
    let column = |name: &&str| {
        let (r#type, matching) = match *name {
            "id" => (Type::Int64, Matching::All),
            "owner" => (Type::Text, Matching::Equality),
            _ => (Type::Text, Matching::None),
        };
        let abilities = Abilities { matching, ..Abilities::default() };
        Column { nullable: *name != "id", abilities, ..Column::new(*name, r#type, "text") }
    };
    Table { primary_key: vec!["id".to_owned()], ..Table::new("note", columns.iter().map(column).collect()) }
}

/// A watch of all columns of the notes.
pub fn request(token: &str) -> WatchRequest {
    let read =
        Read { database: "lab".into(), table: "note".into(), node: ReadNode::new(Shape::Many, [Field::columns()]) };
    WatchRequest {
        project: "shop".into(),
        token: token.into(),
        read,
        before: Vec::new(),
        skip_initial: false,
        after: String::new(),
    }
}

/// As [`request`], of the rows that pass a filter.
pub fn filtered(token: &str, filter: Filter) -> WatchRequest {
    let mut request = request(token);
    request.read.node.filter = filter;
    request
}

impl Stage {
    /// A caller without a token may see everything.
    pub fn new() -> Self {
        let (signer, verifier) = grant::pair(b"test");
        let rules = HashMap::from([(String::new(), Rule::default())]);
        let state = State { rules, columns: vec!["id", "owner", "text"], ..State::default() };
        let world = Arc::new(World {
            state: Mutex::new(state),
            log: watch::Sender::default(),
            revisions: watch::Sender::default(),
            signer,
            verifier: verifier.clone(),
        });
        let mesh = Mesh::new(&Node::default()).unwrap();
        let tasks = Tasks::default();
        mesh.host(services::crud::host(Neighbour(world.clone())));
        mesh.host(services::auth::host(Neighbour(world.clone())));
        let config =
            Config { position_secret: b"secret".to_vec(), answer_bytes: 64 << 20, waiting_bytes: WAITING_BYTES };
        mesh.host(services::realtime::host(Service::start(mesh.clone(), config, verifier, &tasks)));
        Self { world, mesh, _tasks: tasks }
    }

    pub async fn watch(&self, request: WatchRequest) -> Result<Watching, Fault> {
        let call = Call::begin(None, None, None);
        Ok(Watching(self.mesh.realtime().watch(&call, request).await.map_err(Fault::from)?))
    }
}

impl World {
    /// Commits a transaction.
    pub fn commit(&self, changes: &[Changed]) {
        self.tell(changes);
        self.show();
    }

    /// Inserts a row.
    pub fn insert(&self, row: Json) {
        self.commit(&[(None, Some(row))]);
    }

    /// The log tells a transaction that reads do not see yet.
    pub fn tell(&self, changes: &[Changed]) {
        let json = |row: &Option<Json>| row.as_ref().map(|row| row.to_string().into()).unwrap_or_default();
        let change = |change: &Changed| {
            let operation = match change {
                (None, _) => ChangeKind::Insert,
                (Some(_), Some(_)) => ChangeKind::Update,
                (Some(_), None) => ChangeKind::Delete,
            };
            let (before, after) = (json(&change.0), json(&change.1));
            Change { table: "note".to_owned(), operation: operation.into(), before, after }
        };
        let changes = changes.iter().map(change).collect();
        self.log.send_modify(|log| {
            let id = log.len() as u64 + 1;
            let transaction = Transaction { id, committed_us: 5000, changes };
            log.push(response(log.len() + 1, Event::Transaction(transaction)));
        });
    }

    /// Commits a transaction that the log tells in parts.
    pub fn commit_parts(&self, parts: &[&[Changed]]) {
        let first = self.log.borrow().len();
        for part in parts {
            self.tell(part);
        }
        self.log.send_modify(|log| {
            let id = first as u64 + 1;
            for response in &mut log[first..] {
                if let Some(Event::Transaction(transaction)) = &mut response.event {
                    transaction.id = id;
                }
            }
        });
        self.show();
    }

    /// How many follow the log.
    pub fn followers(&self) -> usize {
        self.log.receiver_count()
    }

    /// Reads see all transactions that the log has told.
    pub fn show(&self) {
        let mut state = self.state.lock().unwrap();
        let log = self.log.borrow();
        for response in &log[state.visible..] {
            let Some(Event::Transaction(transaction)) = &response.event else { continue };
            for change in &transaction.changes {
                let row = |json: &Bytes| serde_json::from_slice::<Json>(json).ok();
                if let Some(before) = row(&change.before) {
                    state.rows.remove(&before["id"].as_i64().unwrap());
                }
                if let Some(after) = row(&change.after) {
                    state.rows.insert(after["id"].as_i64().unwrap(), after);
                }
            }
        }
        (state.visible, state.is_overtaken) = (log.len(), false);
    }

    /// Reads see the insert of a row, by the transaction after the next, before the next: the log tells that first.
    pub fn overtake(&self, row: Json) {
        let mut state = self.state.lock().unwrap();
        state.rows.insert(row["id"].as_i64().unwrap(), row);
        state.is_overtaken = true;
    }

    /// The log tells that it may have missed something.
    pub fn resync(&self, reason: ResyncReason) {
        let resync = Resync { reason: reason.into(), tables: Vec::new() };
        self.log.send_modify(|log| log.push(response(log.len() + 1, Event::Resync(resync))));
        self.show();
    }

    /// Forgets what the log told until now.
    pub fn prune(&self) {
        self.state.lock().unwrap().pruned = self.log.borrow().len();
    }

    /// Puts a rule for a token in force.
    pub fn rule(&self, token: &str, rule: Rule) {
        self.state.lock().unwrap().rules.insert(token.to_owned(), rule);
        self.revisions.send_replace(());
    }

    /// Other rules are in force, by which nothing is changed.
    pub fn revise(&self) {
        self.revisions.send_replace(());
    }

    /// The table has other columns.
    pub fn alter(&self, columns: &[&'static str]) {
        self.state.lock().unwrap().columns = columns.to_vec();
    }

    fn log_after(&self, after: &Bytes) -> Result<(usize, bool), Status> {
        let now = self.log.borrow().len();
        if after.is_empty() {
            return Ok((now, false));
        }
        let text = std::str::from_utf8(after).map_err(|_| Status::invalid_argument("no position"))?;
        let position: usize = text.parse().map_err(|_| Status::invalid_argument("no position"))?;
        let is_lost = position < self.state.lock().unwrap().pruned;
        Ok((if is_lost { now } else { position }, is_lost))
    }
}

fn response(position: usize, event: Event) -> LogResponse {
    LogResponse { position: position.to_string().into(), event: Some(event) }
}

impl Watching {
    /// The next message, or the code of the fault that ends the watch.
    pub async fn next(&mut self) -> Result<Message, Code> {
        self.positioned().await.map(|(message, _)| message)
    }

    /// The next message, and its position.
    pub async fn positioned(&mut self) -> Result<(Message, String), Code> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.0.next()).await.expect("a message in time");
        let WatchResponse { position, event } = match next.expect("a watch ends with a fault") {
            Ok(message) => message,
            Err(status) => return Err(Fault::from(status).code),
        };
        assert!(!position.is_empty() && position.len() <= 512 && position.is_ascii());
        let (kind, row) = match event.expect("a message has an event") {
            Told::Initial(row) => ("initial", row),
            Told::Insert(row) => ("insert", row),
            Told::Update(row) => ("update", row),
            Told::Delete(row) => ("delete", row),
            Told::Ready(_) => return Ok((("ready", Json::Null, Json::Null), position)),
            Told::Resync(resync) => return Ok((("resync", resync.reason.into(), Json::Null), position)),
        };
        let json = |bytes: &Bytes| match bytes.is_empty() {
            true => Json::Null,
            false => serde_json::from_slice(bytes).expect("a row is JSON"),
        };
        assert!(json(&row.key).is_object());
        Ok(((kind, json(&row.row), json(&row.before)), position))
    }

    /// The next messages.
    pub async fn take(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push(self.next().await.expect("a message"));
        }
        messages
    }

    /// The kinds of the next messages.
    pub async fn kinds(&mut self, count: usize) -> Vec<&'static str> {
        self.take(count).await.into_iter().map(|(kind, ..)| kind).collect()
    }
}

#[tonic::async_trait]
impl Crud for Neighbour {
    async fn read(&self, request: tonic::Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let request = request.into_inner();
        let state = self.0.state.lock().unwrap();
        let table = table(&state.columns);
        let terms = self.0.verifier.terms(request.grants[0].clone()).unwrap();
        let node = &request.reads[0].node;
        let filter = terms.filter.typed(&table).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let filter = filter.and(node.filter.clone());
        let is_denied = |field: &&Field| !terms.columns.allow(&terms.columns.read, &field.key);
        if node.fields.iter().any(|field| is_denied(&field)) {
            return Err(Fault::new(Code::Denied, "a column may not be read").into());
        }
        let mut rows = Vec::new();
        for row in state.rows.values() {
            let image = ImageReader::default().read(row.to_string().into())?;
            let values: Object = image.values();
            let row = Row { table: &table, columns: &values, related: &[] };
            if filter.matches(&row) == Some(true) {
                rows.push(String::from_utf8(image.object(&node.fields, |_| true).to_vec()).unwrap());
            }
        }
        rows.truncate(usize::try_from(node.limit.unwrap_or(u64::MAX)).unwrap());
        let json = format!("[{}]", rows.join(","));
        let next = state.visible as u64 + 1;
        let snapshot = match state.is_overtaken {
            true => Snapshot { start: next, end: next + 2, running: vec![next] },
            false => Snapshot { start: next, end: next, running: Vec::new() },
        };
        Ok(Response::new(ReadResponse {
            answers: vec![Answer { json: json.into(), truncated: false, statements: 1 }],
            seen: Some(Box::new(Seen { snapshot: Some(snapshot), position: state.visible.to_string().into() })),
        }))
    }

    async fn write(&self, _: tonic::Request<WriteRequest>) -> Result<Response<WriteResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type ChangesStream = Messages<ChangesResponse>;

    async fn changes(&self, _: tonic::Request<ChangesRequest>) -> Result<Response<Messages<ChangesResponse>>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type LogStream = Messages<LogResponse>;

    async fn log(&self, request: tonic::Request<LogRequest>) -> Result<Response<Messages<LogResponse>>, Status> {
        let (next, is_lost) = self.0.log_after(&request.into_inner().after)?;
        let lost = Resync { reason: ResyncReason::LogLost.into(), tables: Vec::new() };
        let mut first: Vec<_> = is_lost.then(|| Ok(response(next, Event::Resync(lost)))).into_iter().collect();
        first.push(Ok(response(next, Event::Started(Started {}))));
        let log = stream::unfold((self.0.log.subscribe(), next), |(mut log, next)| async move {
            let told = log.wait_for(|log| log.len() > next).await.ok()?[next].clone();
            Some((Ok(told), (log, next + 1)))
        });
        Ok(Response::new(stream::iter(first).chain(log).boxed()))
    }

    async fn describe(&self, _: tonic::Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        let columns = self.0.state.lock().unwrap().columns.clone();
        let schema = Some(Arc::new(Schema::new(vec![table(&columns)])));
        let version = columns.len() as u64;
        let database = Database { id: "lab".to_owned(), version, schema, ..Database::default() };
        Ok(Response::new(DescribeResponse { databases: vec![database] }))
    }
}

#[tonic::async_trait]
impl AuthRules for Neighbour {
    async fn authorize_files(
        &self,
        _: tonic::Request<AuthorizeFilesRequest>,
    ) -> Result<Response<AuthorizeFilesResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn authorize_call(
        &self,
        _: tonic::Request<AuthorizeCallRequest>,
    ) -> Result<Response<AuthorizeCallResponse>, Status> {
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
        Err(Status::unimplemented("not here"))
    }

    async fn sign_file(&self, _: tonic::Request<SignFileRequest>) -> Result<Response<SignFileResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn authorize(
        &self,
        request: tonic::Request<AuthorizeRequest>,
    ) -> Result<Response<AuthorizeResponse>, Status> {
        let AuthorizeRequest { token, accesses, .. } = request.into_inner();
        let rule = self.0.state.lock().unwrap().rules.get(&*token).cloned();
        let Some(rule) = rule else { return Err(Fault::new(Code::Denied, "denied").into()) };
        if let Some(code) = rule.denied {
            return Err(Fault::new(code, "denied").into());
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now_ms = i64::try_from(since.as_millis()).unwrap();
        let expires_ms =
            |expires: SystemTime| i64::try_from(expires.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let grant = |Access::Table(access): &Access| {
            self.0.signer.grant(GrantTerms {
                project: "shop".to_owned(),
                database: access.database.to_string(),
                table: access.table.clone(),
                operation: Operation::Read,
                filter: rule.filter.clone().unwrap_or(RuleFilter::TRUE),
                check: RuleFilter::TRUE,
                columns: rule.columns.clone().into(),
                allow_all: false,
                expires_ms: if rule.is_void { now_ms } else { now_ms + 60_000 },
            })
        };
        let grants = accesses.iter().map(grant).collect();
        let token_expires_ms = rule.expires.map(expires_ms);
        Ok(Response::new(AuthorizeResponse { grants, token_expires_ms, relations: Vec::new() }))
    }

    async fn reachable(&self, _: tonic::Request<ReachableRequest>) -> Result<Response<ReachableResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type RevisionsStream = Messages<RevisionsResponse>;

    async fn revisions(
        &self,
        _: tonic::Request<RevisionsRequest>,
    ) -> Result<Response<Messages<RevisionsResponse>>, Status> {
        let revisions = self.0.revisions.subscribe();
        let told = stream::unfold(revisions, |mut revisions| async {
            revisions.changed().await.ok()?;
            Some((Ok(RevisionsResponse {}), revisions))
        });
        Ok(Response::new(told.boxed()))
    }
}
