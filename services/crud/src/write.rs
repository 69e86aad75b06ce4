//! Execution of mutations.

pub mod row_size;
mod single;

use std::collections::HashSet;

use mesh::telemetry::Meter;
use query::{Schema, Typed};

pub use self::single::{CompiledInsert, RowAnswer};
use self::single::{SingleAnswer, SingleStatement};
use crate::{
    Error,
    budget::Budget,
    meters::{Meters, timed},
    options::AnswerOptions,
    resolve::{MemberKind, Mutation, MutationKind, Node},
    sql::{self, Dialect, Returned, Source, UpdateByKey},
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
    /// In the place of `statements`: an update whose rows the database does not return.
    by_key: Option<UpdateByKey<'m, 's>>,
    statements: Vec<Statement>,
    returned: Returned,
    /// It must write one row at most, and its statement may find more that are equal to it.
    is_one_of_equals: bool,
}

/// Runs mutations in their order, all of them or none.
pub async fn perform_all(context: &WriteContext<'_>, mutations: &[Mutation<'_>]) -> Result<Vec<Written>, Error> {
    for mutation in mutations {
        check_values(context.dialect, mutation)?;
    }
    let compiled: Vec<CompiledMutation<'_, '_>> =
        mutations.iter().map(|mutation| compile(context.dialect, mutation)).collect::<Result<_, _>>()?;
    if compiled.iter().all(|work| work.statements.is_empty() && work.by_key.is_none()) {
        return Ok(compiled.iter().map(nothing).collect());
    }
    if let [work] = compiled.as_slice()
        && let [statement] = work.statements.as_slice()
        && work.is_single_statement()
        && let Some(written) = work.single(context, statement).perform(context).await?
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

impl CompiledMutation<'_, '_> {
    /// Whether its one statement may be its own transaction: nothing has to be checked before the commit.
    fn is_single_statement(&self) -> bool {
        let has_relations = self.mutation.returning.as_ref().is_some_and(has_relations);
        self.returned.check.is_none() && !has_relations && !self.is_one_of_equals && self.by_key.is_none()
    }

    /// Its one statement.
    fn single<'a>(&self, context: &WriteContext<'_>, statement: &'a Statement) -> SingleStatement<'a> {
        let answer = self.mutation.returning.as_ref().map(|node| SingleAnswer {
            plan: single::plan(context.dialect, node, context.options.limit),
            is_small: row_size::is_small(self.mutation, node, context.options.answer),
            row_bytes: row_size::row_bytes(node),
        });
        SingleStatement { statement, returned: self.returned, answer }
    }
}

/// Whether the mutation gives `column` no value, or null.
pub fn leaves_null(schema: &Schema, mutation: &query::Mutation, column: &str) -> bool {
    let is_null = |value: &Typed| *value == Typed::Null;
    match &mutation.kind {
        query::MutationKind::Insert { docs } => {
            let has_column = schema.table(&mutation.table).is_ok_and(|table| table.column(column).is_ok());
            has_column && docs.iter().any(|doc| doc.get(column).is_none_or(is_null))
        }
        query::MutationKind::Update { changes, .. } => changes.iter().any(|change| match change {
            query::Change::Set { column: given, value } => given == column && is_null(value),
            query::Change::Inc { .. } => false,
        }),
        query::MutationKind::Delete { .. } => false,
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

fn compile<'m, 's>(dialect: &'m Dialect, mutation: &'m Mutation<'s>) -> Result<CompiledMutation<'m, 's>, Error> {
    let (mut select_before_delete, mut by_key) = (None, None);
    let is_one_of_equals = match &mutation.kind {
        MutationKind::Update { one, .. } | MutationKind::Delete { one, .. } => {
            *one && !sql::has_identity(mutation.table) && !dialect.limits_writes()
        }
        MutationKind::Insert(_) => false,
    };
    let (statements, returned) = match &mutation.kind {
        MutationKind::Insert(rows) => sql::insert(dialect, mutation, rows),
        MutationKind::Update { changes, .. } if changes.is_empty() => (Vec::new(), Returned::default()),
        MutationKind::Update { cond, changes, one }
            if !dialect.returns_updated_rows() && (mutation.returning.is_some() || !mutation.check.is_true()) =>
        {
            by_key =
                Some(sql::update_by_key(dialect, mutation, cond, changes, *one).ok_or_else(|| without_key(mutation))?);
            (Vec::new(), Returned::default())
        }
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
    Ok(CompiledMutation { mutation, select_before_delete, by_key, statements, returned, is_one_of_equals })
}

/// The error of an update whose rows cannot be read back.
fn without_key(mutation: &Mutation<'_>) -> Error {
    let text = format!(
        "rows that are updated in {} cannot be returned or checked: expected a primary key, because the database does not \
         return updated rows",
        mutation.table.name
    );
    query::Error::Malformed(text).into()
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
    if let Some(update) = &work.by_key {
        return update_and_read_back(tx, context, (work, update), budget).await;
    }
    if work.statements.is_empty() {
        return Ok(nothing(work));
    }
    let mut written = nothing(work);
    for rows in run(tx, &context.meters.writes, &work.statements, budget).await? {
        check_rows(work.mutation, work.returned, &rows)?;
        check_one(work, &rows)?;
        written.affected += rows.len() as u64;
        if let Some(node) = &work.mutation.returning {
            let kept = kept(&rows, work.returned);
            append(&mut written.rows, &answer(tx, context, node, rows, kept, budget).await?);
        }
    }
    Ok(written)
}

/// Runs an update whose rows are locked, written and read back by their keys.
async fn update_and_read_back(
    tx: &mut Tx,
    context: &WriteContext<'_>,
    (work, update): (&CompiledMutation<'_, '_>, &UpdateByKey<'_, '_>),
    budget: &mut Budget<'_>,
) -> Result<Written, Error> {
    let meters = context.meters;
    let mut written = nothing(work);
    let locked = single(run(tx, &meters.reads, std::slice::from_ref(&update.lock), budget).await?)?;
    let statements = update.of(&locked);
    for rows in run(tx, &meters.writes, &statements.writes, budget).await? {
        written.affected += rows.len() as u64;
    }
    if written.affected != locked.len() as u64 {
        return Err(Error::Raced);
    }
    let mut read_back = 0;
    for rows in run(tx, &meters.reads, &statements.reads, budget).await? {
        read_back += rows.len();
        check_rows(work.mutation, statements.returned, &rows)?;
        if let Some(node) = &work.mutation.returning {
            let kept = kept(&rows, statements.returned);
            append(&mut written.rows, &answer(tx, context, node, rows, kept, budget).await?);
        }
    }
    // A trigger gave a row another key, which nobody but it knows.
    match read_back == locked.len() {
        true => Ok(written),
        false => Err(Error::Database("a row that was updated is not found by its key".to_owned())),
    }
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
fn check_rows(mutation: &Mutation<'_>, returned: Returned, rows: &Rows) -> Result<(), Error> {
    let Some(column) = returned.check else {
        return Ok(());
    };
    match (0..rows.len()).all(|row| rows.cell(row, column) == crate::cell::Cell::Bool(true)) {
        true => Ok(()),
        false => {
            let table = &mutation.table.name;
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
    tx: &mut Tx,
    context: &WriteContext<'_>,
    node: &Node<'_>,
    rows: Rows,
    kept: Vec<usize>,
    budget: &mut Budget<'_>,
) -> Result<Vec<u8>, Error> {
    let (plan, statements) = below(context, node, &rows, &kept);
    let related = run(tx, &context.meters.reads, &statements, budget).await?;
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
