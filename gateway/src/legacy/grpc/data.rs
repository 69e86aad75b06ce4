//! Rows: what the messages ask for is what the fields of a REST request ask for.

use bytes::Bytes;
use mesh::Fault;
use proto::predecessor::{self as api};
use query::{Object, Operation, Value};
use tonic::Request;

use super::{AskedCall, CallAnswer, RefusedCall, SpaceCloud};
use crate::{
    catalogue::ProjectRef,
    grpc::accept::required,
    plan::{RequestPlanner, TableRef},
    rest::{self, Fields},
};

/// A number of a message, where zero asks for nothing.
fn count(name: &str, count: i64) -> Option<(String, Value)> {
    (count != 0).then(|| (name.to_owned(), Value::Int(count)))
}

fn flags(name: &str, flags: &std::collections::HashMap<String, i32>) -> Option<(String, Value)> {
    let mut members: Vec<_> = flags.iter().map(|(name, flag)| (name.clone(), Value::Int((*flag).into()))).collect();
    // A map of a message has no order.
    members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    (!members.is_empty()).then(|| (name.to_owned(), Value::Object(Object(members))))
}

/// The options of a read; what is zero or empty asks for nothing.
fn options(options: &api::ReadOptions) -> Value {
    let distinct = Some(&options.distinct).filter(|distinct| !distinct.is_empty());
    let members = [
        flags("select", &options.select),
        flags("sort", &options.sort),
        count("skip", options.skip),
        count("limit", options.limit),
        distinct.map(|distinct| ("distinct".to_owned(), Value::Text(distinct.clone()))),
    ];
    Value::Object(Object(members.into_iter().flatten().collect()))
}

fn fields(members: impl IntoIterator<Item = (&'static str, Value)>) -> Object {
    Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn table_ref(meta: &api::Meta) -> Result<TableRef<'_>, Fault> {
    Ok(TableRef {
        project: &meta.project,
        database: required("meta.dbType", &meta.db_type)?,
        table: required("meta.col", &meta.col)?,
    })
}

impl SpaceCloud {
    pub(super) async fn create_rows(&self, request: Request<api::CreateRequest>) -> Result<Bytes, RefusedCall> {
        let accepted = self.accept(request, |message| message.meta.take())?;
        let wanted = |api::CreateRequest { document, operation, .. }: api::CreateRequest| {
            Ok(fields([("op", Value::Text(operation)), ("doc", self.json("document", &document)?)]))
        };
        self.write_rows(accepted, Operation::Create, wanted).await
    }

    pub(super) async fn read_rows(&self, request: Request<api::ReadRequest>) -> Result<CallAnswer, RefusedCall> {
        let accepted = self.accept(request, |message| message.meta.take())?;
        let refusal = RefusedCall::of(&accepted);
        let AskedCall { caller, project, meta, message, .. } = accepted;
        let answered = async {
            let api::ReadRequest { find, operation, options: asked, .. } = message;
            let fields = fields([
                ("op", Value::Text(operation)),
                ("find", self.json("find", &find)?),
                ("options", options(&asked.unwrap_or_default())),
            ]);
            let table = (table_ref(&meta)?, project);
            let read = Box::pin(rest::read_by_fields(&self.service, &caller, table, Fields::new(fields))).await?;
            Ok(CallAnswer { result: read.json, is_truncated: read.truncated })
        };
        Box::pin(answered).await.map_err(refusal)
    }

    pub(super) async fn update_rows(&self, request: Request<api::UpdateRequest>) -> Result<Bytes, RefusedCall> {
        let accepted = self.accept(request, |message| message.meta.take())?;
        let wanted = |api::UpdateRequest { find, operation, update, .. }: api::UpdateRequest| {
            let (find, update) = (self.json("find", &find)?, self.json("update", &update)?);
            Ok(fields([("op", Value::Text(operation)), ("find", find), ("update", update)]))
        };
        self.write_rows(accepted, Operation::Update, wanted).await
    }

    pub(super) async fn delete_rows(&self, request: Request<api::DeleteRequest>) -> Result<Bytes, RefusedCall> {
        let accepted = self.accept(request, |message| message.meta.take())?;
        let wanted = |api::DeleteRequest { find, operation, .. }: api::DeleteRequest| {
            Ok(fields([("op", Value::Text(operation)), ("find", self.json("find", &find)?)]))
        };
        self.write_rows(accepted, Operation::Delete, wanted).await
    }

    /// Writes what a message wants; nothing is told of what was written.
    async fn write_rows<M>(
        &self,
        accepted: AskedCall<M>,
        operation: Operation,
        wanted: impl FnOnce(M) -> Result<Object, Fault>,
    ) -> Result<Bytes, RefusedCall> {
        let refusal = RefusedCall::of(&accepted);
        let AskedCall { caller, project, meta, message, .. } = accepted;
        let written = async {
            let fields = Fields::new(wanted(message)?);
            let table_ref = table_ref(&meta)?;
            let project = ProjectRef { id: table_ref.project, found: project };
            let planner = RequestPlanner::begin(&self.service, &caller, project).await?;
            rest::write_by_fields(planner, &caller, table_ref, operation, fields).await?;
            Ok(Bytes::new())
        };
        Box::pin(written).await.map_err(refusal)
    }

    pub(super) async fn write_batch(&self, request: Request<api::BatchRequest>) -> Result<Bytes, RefusedCall> {
        let accepted = self.accept(request, |message| message.meta.take())?;
        let refusal = RefusedCall::of(&accepted);
        let AskedCall { caller, project, meta, message, .. } = accepted;
        let written = async {
            let database = required("meta.dbType", &meta.db_type)?;
            let items = message.batchrequest.into_iter().enumerate().map(|(index, item)| self.batch_item(index, item));
            let fields = fields([("reqs", Value::List(items.collect::<Result<_, _>>()?))]);
            let project_ref = ProjectRef { id: &meta.project, found: project };
            let planner = RequestPlanner::begin(&self.service, &caller, project_ref).await?;
            let of = (&*meta.project, database);
            rest::write_batch_by_fields(planner, &caller, of, Fields::new(fields)).await?;
            Ok(Bytes::new())
        };
        written.await.map_err(refusal)
    }

    fn batch_item(&self, index: usize, item: api::AllRequest) -> Result<Value, Fault> {
        let api::AllRequest { col, document, operation, find, update, r#type } = item;
        let json = |name: &str, json: &[u8]| self.json(&format!("{name} of batchrequest[{index}]"), json);
        Ok(Value::Object(fields([
            ("type", Value::Text(r#type)),
            ("col", Value::Text(col)),
            ("op", Value::Text(operation)),
            ("doc", json("document", &document)?),
            ("find", json("find", &find)?),
            ("update", json("update", &update)?),
        ])))
    }
}
