//! Execution of mutations.

use std::collections::HashSet;

use mesh::telemetry::Meter;
use query::{Type, Typed};

use crate::{
    Error,
    budget::{AnswerLimit, Budget, Room},
    meters::{Meters, timed},
    options::AnswerOptions,
    resolve::{MemberKind, Mutation, MutationKind, Node, NodeMember},
    sql::{self, Dialect, Returned, Source},
    store::{Rows, Statement, Store, Tx},
    tree::Plan,
};

/// Result of a mutation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// Rows inserted, changed or deleted.
    pub affected: u64,
    /// The JSON that `returning` asks for; empty where it asks for nothing.
    pub rows: Vec<u8>,
}

/// Database and options that mutations run with.
pub struct WriteContext<'a> {
    /// The database.
    pub store: &'a Store,
    /// SQL dialect of its engine.
    pub dialect: &'a Dialect,
    /// Options of the answers.
    pub options: AnswerOptions,
    /// Counts statements.
    pub meters: &'a Meters,
}

/// A mutation with its statements.
struct CompiledMutation<'m, 's> {
    mutation: &'m Mutation<'s>,
    /// Reads the rows of a delete before it, where their relations are asked for.
    select_before_delete: Option<Statement>,
    statements: Vec<Statement>,
    returned: Returned,
    /// It must write one row at most, and its statement may find more that are equal to it.
    is_one_of_equals: bool,
}

/// Runs mutations in their order, all of them or none.
pub async fn perform_all(context: &WriteContext<'_>, mutations: &[Mutation<'_>]) -> Result<Vec<Written>, Error> {
    perform_compiled(context, mutations).await.map_err(|error| match error {
        Error::NotNull(column) if mutations.iter().any(|mutation| leaves_null(mutation, &column)) => {
            query::Error::Required(column).into()
        }
        error => error,
    })
}

async fn perform_compiled(context: &WriteContext<'_>, mutations: &[Mutation<'_>]) -> Result<Vec<Written>, Error> {
    for mutation in mutations {
        check_values(context.dialect, mutation)?;
    }
    let compiled: Vec<CompiledMutation<'_, '_>> =
        mutations.iter().map(|mutation| compile(context.dialect, mutation)).collect();
    if compiled.iter().all(|work| work.statements.is_empty()) {
        return Ok(compiled.iter().map(nothing).collect());
    }
    if let [work] = compiled.as_slice()
        && let [statement] = work.statements.as_slice()
        && work.is_single_statement()
        && let Some(written) = write_without_transaction(context, work, statement).await?
    {
        return Ok(vec![written]);
    }
    Box::pin(in_transaction(context, &compiled)).await
}

/// All mutations in one transaction, whose answers are made before it is committed.
async fn in_transaction(
    context: &WriteContext<'_>,
    compiled: &[CompiledMutation<'_, '_>],
) -> Result<Vec<Written>, Error> {
    let mut tx = context.store.begin().await?;
    let mut budget = Budget::write(context.options.answer);
    let mut written = Vec::with_capacity(compiled.len());
    for work in compiled {
        written.push(perform(&mut tx, context, work, &mut budget).await?);
    }
    tx.commit().await?;
    Ok(written)
}

/// Runs a mutation of one statement without a transaction around it. Its answer is made after the commit, and must not
/// fail then: `None`, and nothing is done, where it might be too large and takes a transaction.
async fn write_without_transaction(
    context: &WriteContext<'_>,
    work: &CompiledMutation<'_, '_>,
    statement: &Statement,
) -> Result<Option<Written>, Error> {
    let meter = &context.meters.writes;
    let rows = match &work.mutation.returning {
        Some(node) if !is_small(work.mutation, node, context.options.answer) => {
            if statement.columns.is_empty() {
                return Ok(None);
            }
            let room = small_room(node, context.options.answer);
            match timed(meter, 1, context.store.write_within(statement, room)).await {
                Ok(Some(rows)) => rows,
                Ok(None) | Err(Error::TooLarge(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Some(_) | None => timed(meter, 1, context.store.write(statement)).await?,
    };
    let mut written = Written { affected: rows.len() as u64, rows: Vec::new() };
    if let Some(node) = &work.mutation.returning {
        let kept = kept(&rows, work.returned);
        written.rows = answer(None, context, node, rows, kept, &mut Budget::unlimited()).await?;
    }
    Ok(Some(written))
}

/// Whether what is answered of an insert is within the limit whatever the database makes of it: the columns have values
/// that were sent, or of a type whose values are short.
fn is_small(mutation: &Mutation<'_>, node: &Node<'_>, limit: AnswerLimit) -> bool {
    let MutationKind::Insert(rows) = &mutation.kind else { return false };
    let mut bytes = 2 + rows.len() * row_bytes(node);
    for row in rows {
        for member in &node.members {
            let MemberKind::Column(column) = &member.kind else { continue };
            bytes += match row.iter().find(|(sent, _)| std::ptr::eq(*sent, *column)) {
                Some((_, value)) => written_bytes(value),
                None if is_short(column.r#type) => SHORT_BYTES,
                None => return false,
            };
        }
    }
    bytes as u64 <= limit.bytes.saturating_sub(limit.used)
}

/// Memory of rows whose JSON is within the limit whatever they hold: text grows by up to six times where it is escaped,
/// and a number from its 16 bytes to [`SHORT_BYTES`].
fn small_room(node: &Node<'_>, limit: AnswerLimit) -> Room {
    let growth = (row_bytes(node) + SHORT_BYTES) as u64 / 16 + 6;
    let bytes = limit.bytes.saturating_sub(limit.used) / growth;
    Room { bytes: usize::try_from(bytes).unwrap_or(usize::MAX), limit: limit.bytes }
}

/// Bytes of a row's JSON without its values: braces, names, quotes, colons, commas, and texts that are fixed.
fn row_bytes(node: &Node<'_>) -> usize {
    let member = |member: &NodeMember<'_>| {
        let fixed = if let MemberKind::Constant(text) = &member.kind { text.len() } else { 0 };
        (member.key.len() + fixed) * 6 + 6
    };
    3 + node.members.iter().map(member).sum::<usize>()
}

/// The most bytes of JSON that a value of a short type has: a decimal that is padded to the scale of its column.
const SHORT_BYTES: usize = 320;

/// Whether values of the type have at most [`SHORT_BYTES`] as JSON, in any engine.
fn is_short(r#type: Type) -> bool {
    match r#type {
        Type::Bool
        | Type::Int16
        | Type::Int32
        | Type::Int64
        | Type::Float
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::Uuid => true,
        Type::Decimal
        | Type::Text
        | Type::Bytes
        | Type::Json
        | Type::Other
        | Type::Any
        | Type::Address
        | Type::List(_) => false,
    }
}

/// The most bytes of JSON that a value has once it is stored and read.
fn written_bytes(value: &Typed) -> usize {
    match value {
        Typed::Null
        | Typed::Bool(_)
        | Typed::Int(_)
        | Typed::Float(_)
        | Typed::Date(_)
        | Typed::Time(_)
        | Typed::Timestamp(_)
        | Typed::Uuid(_) => SHORT_BYTES,
        Typed::Decimal(text) | Typed::Text(text) | Typed::Json(text) | Typed::Other(text) => {
            text.len() * 6 + SHORT_BYTES
        }
        Typed::Bytes(bytes) => bytes.len() * 2 + SHORT_BYTES,
        Typed::List(items) => 2 + items.iter().map(|item| written_bytes(item) + 1).sum::<usize>(),
    }
}

impl CompiledMutation<'_, '_> {
    /// Whether its one statement may be its own transaction: nothing has to be checked before the commit.
    fn is_single_statement(&self) -> bool {
        let has_relations = self.mutation.returning.as_ref().is_some_and(has_relations);
        self.returned.check.is_none() && !has_relations && !self.is_one_of_equals
    }
}

/// Whether the mutation gives `column` no value, or null.
fn leaves_null(mutation: &Mutation<'_>, column: &str) -> bool {
    let is_null = |value: &Typed| *value == Typed::Null;
    match &mutation.kind {
        MutationKind::Insert(rows) => {
            mutation.table.column(column).is_ok()
                && rows.iter().any(|row| {
                    row.iter().find(|(given, _)| given.name == column).is_none_or(|(_, value)| is_null(value))
                })
        }
        MutationKind::Update { changes, .. } => {
            changes.iter().any(|(given, value, _)| given.name == column && is_null(value))
        }
        MutationKind::Delete { .. } => false,
    }
}

/// Checks that the engine stores the values to be written without loss.
fn check_values(dialect: &Dialect, mutation: &Mutation<'_>) -> Result<(), Error> {
    match &mutation.kind {
        MutationKind::Insert(rows) => {
            rows.iter().flatten().try_for_each(|(column, value)| dialect.check_stored(column, value))?;
        }
        MutationKind::Update { changes, .. } => {
            changes.iter().try_for_each(|(column, value, _)| dialect.check_stored(column, value))?;
        }
        MutationKind::Delete { .. } => {}
    }
    Ok(())
}

fn compile<'m, 's>(dialect: &Dialect, mutation: &'m Mutation<'s>) -> CompiledMutation<'m, 's> {
    let mut select_before_delete = None;
    let is_one_of_equals = match &mutation.kind {
        MutationKind::Update { one, .. } | MutationKind::Delete { one, .. } => {
            *one && !sql::has_identity(mutation.table)
        }
        MutationKind::Insert(_) => false,
    };
    let (statements, returned) = match &mutation.kind {
        MutationKind::Insert(rows) => sql::insert(dialect, mutation, rows),
        MutationKind::Update { changes, .. } if changes.is_empty() => (Vec::new(), Returned::default()),
        MutationKind::Update { cond, changes, one } => {
            let (statement, returned) = sql::update(dialect, mutation, cond, changes, *one);
            (vec![statement], returned)
        }
        MutationKind::Delete { cond, one } => {
            let (statement, returned) = sql::delete(dialect, mutation, cond, *one);
            if mutation.returning.as_ref().is_some_and(has_relations) {
                select_before_delete = Some(sql::select_before_delete(dialect, mutation, cond, *one).0);
            }
            (vec![statement], returned)
        }
    };
    CompiledMutation { mutation, select_before_delete, statements, returned, is_one_of_equals }
}

fn has_relations(node: &Node<'_>) -> bool {
    node.members.iter().any(|member| matches!(member.kind, MemberKind::Relation { .. }))
}

fn nothing(work: &CompiledMutation<'_, '_>) -> Written {
    let rows = work.mutation.returning.as_ref().map(|_| b"[]".to_vec()).unwrap_or_default();
    Written { affected: 0, rows }
}

async fn perform(
    tx: &mut Tx,
    context: &WriteContext<'_>,
    work: &CompiledMutation<'_, '_>,
    budget: &mut Budget<'_>,
) -> Result<Written, Error> {
    if let Some(select_before_delete) = &work.select_before_delete {
        return delete_after_reading(tx, context, work, select_before_delete, budget).await;
    }
    if work.statements.is_empty() {
        return Ok(nothing(work));
    }
    let mut written = nothing(work);
    for rows in run(tx, &context.meters.writes, &work.statements, budget).await? {
        check_rows(work, &rows)?;
        check_one(work, &rows)?;
        written.affected += rows.len() as u64;
        if let Some(node) = &work.mutation.returning {
            let kept = kept(&rows, work.returned);
            append(&mut written.rows, &answer(Some(tx), context, node, rows, kept, budget).await?);
        }
    }
    Ok(written)
}

/// Runs a delete whose relations are returned: what they lead to may be deleted with the rows, and is read before.
///
/// The rows are read without a lock, for which the server's role would need the right to update them. So they may be
/// others than those that are deleted then; where the database tells those, they are the answer.
async fn delete_after_reading(
    tx: &mut Tx,
    context: &WriteContext<'_>,
    work: &CompiledMutation<'_, '_>,
    select_before_delete: &Statement,
    budget: &mut Budget<'_>,
) -> Result<Written, Error> {
    let Some(node) = &work.mutation.returning else {
        return Err(Error::Database("nothing is returned of a delete that reads first".to_owned()));
    };
    let meters = context.meters;
    let mut rows = single(run(tx, &meters.reads, std::slice::from_ref(select_before_delete), budget).await?)?;
    let mut kept = kept(&rows, work.returned);
    let (plan, statements) = below(context, node, &rows, &kept);
    let related = run(tx, &meters.reads, &statements, budget).await?;
    let deleted = single(run(tx, &meters.writes, &work.statements, budget).await?)?;
    check_one(work, &deleted)?;
    let affected = deleted.len() as u64;
    if context.dialect.returns_rows_as_deleted() {
        check_related(node, &rows, &deleted)?;
        kept = self::kept(&deleted, work.returned);
        rows = deleted;
    }
    let tree = plan.with_rows(Some(rows), &mut related.into_iter(), context.options.numbers)?;
    Ok(Written { affected, rows: tree.answer(Some(kept), budget).await?.json.into() })
}

/// Checks that what the relations of `deleted` rows lead to was read: their keys are among those of the rows `read`.
fn check_related(node: &Node<'_>, read: &Rows, deleted: &Rows) -> Result<(), Error> {
    let columns = sql::columns(node);
    for member in &node.members {
        let MemberKind::Relation { on, .. } = &member.kind else { continue };
        let positions: Vec<usize> =
            on.iter().filter_map(|pair| columns.iter().position(|column| column.name == pair.own.name)).collect();
        let key = |rows: &Rows, row: usize| -> Vec<_> {
            positions.iter().map(|at| rows.key(row, *at, crate::cell::KeyForm::Identical)).collect()
        };
        let known: HashSet<_> = (0..read.len()).map(|row| key(read, row)).collect();
        if (0..deleted.len()).any(|row| !known.contains(&key(deleted, row))) {
            return Err(Error::Raced);
        }
    }
    Ok(())
}

async fn run(
    tx: &mut Tx,
    meter: &Meter,
    statements: &[Statement],
    budget: &mut Budget<'_>,
) -> Result<Vec<Rows>, Error> {
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    let rows = timed(meter, statements.len(), tx.run(statements, budget)).await?;
    budget.collected(rows.iter().map(Rows::size).sum());
    Ok(rows)
}

fn single(rows: Vec<Rows>) -> Result<Rows, Error> {
    rows.into_iter().next().ok_or_else(|| Error::Database("a statement has no result".to_owned()))
}

/// Checks that every row written passes the grant's check.
fn check_rows(work: &CompiledMutation<'_, '_>, rows: &Rows) -> Result<(), Error> {
    let Some(column) = work.returned.check else {
        return Ok(());
    };
    match (0..rows.len()).all(|row| rows.cell(row, column) == crate::cell::Cell::Bool(true)) {
        true => Ok(()),
        false => {
            let table = &work.mutation.table.name;
            Err(Error::Denied(format!("not allowed: a written row of table {table} fails the check of its rule")))
        }
    }
}

/// Checks that a mutation of one row wrote no more that are equal to it.
fn check_one(work: &CompiledMutation<'_, '_>, rows: &Rows) -> Result<(), Error> {
    match work.is_one_of_equals && rows.len() > 1 {
        true => Err(Error::Constraint(format!(
            "one row of {} cannot be written: {} are equal in every column",
            work.mutation.table.name,
            rows.len()
        ))),
        false => Ok(()),
    }
}

/// The rows that the caller may read.
fn kept(rows: &Rows, returned: Returned) -> Vec<usize> {
    let is_visible = |row: &usize| match returned.visible {
        Some(column) => rows.cell(*row, column) == crate::cell::Cell::Bool(true),
        None => true,
    };
    (0..rows.len()).filter(is_visible).collect()
}

/// The JSON of rows that were written, with what their relations lead to now.
async fn answer(
    tx: Option<&mut Tx>,
    context: &WriteContext<'_>,
    node: &Node<'_>,
    rows: Rows,
    kept: Vec<usize>,
    budget: &mut Budget<'_>,
) -> Result<Vec<u8>, Error> {
    let (plan, statements) = below(context, node, &rows, &kept);
    let related = match tx {
        Some(tx) => run(tx, &context.meters.reads, &statements, budget).await?,
        None => Vec::new(),
    };
    let tree = plan.with_rows(Some(rows), &mut related.into_iter(), context.options.numbers)?;
    Ok(tree.answer(Some(kept), budget).await?.json.into())
}

/// The plan of the rows `kept` of `rows`, and the statements that read what their relations lead to.
fn below(context: &WriteContext<'_>, node: &Node<'_>, rows: &Rows, kept: &[usize]) -> (Plan, Vec<Statement>) {
    let source = Source::Rows { rows, kept, limit: context.options.limit };
    let mut statements = Vec::new();
    let plan = sql::select(context.dialect, node, &source, &mut statements);
    (plan, statements)
}

/// Appends the items of one JSON array to another.
fn append(array: &mut Vec<u8>, more: &[u8]) {
    let items = &more[1..more.len() - 1];
    if items.is_empty() {
        return;
    }
    array.pop();
    if array.len() > 1 {
        array.push(b',');
    }
    array.extend_from_slice(items);
    array.push(b']');
}

#[cfg(test)]
mod tests;
