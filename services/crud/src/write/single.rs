//! Mutations of one statement that is its own transaction.

use query::Typed;

use super::{
    WriteContext, Written, check_values, has_relations, kept,
    row_size::{self, RowSize},
};
use crate::{
    Error,
    bind::Bind,
    budget::Budget,
    meters::timed,
    resolve::{Mutation, MutationKind, Node},
    sql::{self, Dialect, Returned, Source},
    store::Statement,
    tree::Plan,
};

/// An insert of one row, which nothing has to be checked of before the commit.
#[derive(Debug)]
pub struct CompiledInsert {
    /// Its statement, whose first arguments are the values of the row.
    pub statement: Statement,
    /// Positions of what is computed in its result.
    pub returned: Returned,
    /// What is answered of the row.
    pub answer: Option<RowAnswer>,
}

/// The answer of an inserted row.
#[derive(Debug, Clone)]
pub struct RowAnswer {
    /// Its plan.
    pub plan: Plan,
    /// Its size.
    pub size: RowSize,
    /// [`row_size::row_bytes`].
    pub row_bytes: usize,
}

/// A statement that is its own transaction.
pub struct SingleStatement<'a> {
    /// The statement.
    pub statement: &'a Statement,
    /// Positions of what is computed in its result.
    pub returned: Returned,
    /// What is answered of its rows.
    pub answer: Option<SingleAnswer>,
}

/// The answer of the rows of one statement.
pub struct SingleAnswer {
    /// Its plan.
    pub plan: Plan,
    /// Whether it is within its limit whatever the database makes of the rows.
    pub is_small: bool,
    /// [`row_size::row_bytes`].
    pub row_bytes: usize,
}

/// The plan of the rows of a mutation, none of whose relations are answered.
pub fn plan(dialect: &Dialect, node: &Node<'_>, limit: u64) -> Plan {
    sql::select(dialect, node, &Source::Written { limit }, &mut Vec::new())
}

impl CompiledInsert {
    /// The insert that `mutation` is, in a database that answers `limit` rows where none are asked for; `None` where it
    /// is anything else.
    ///
    /// Errors: a value is none that the engine stores without loss.
    pub fn of(dialect: &Dialect, mutation: &Mutation<'_>, limit: u64) -> Result<Option<Self>, Error> {
        let returning = mutation.returning.as_ref();
        let MutationKind::Insert(rows) = &mutation.kind else { return Ok(None) };
        let [row] = rows.as_slice() else { return Ok(None) };
        if !mutation.check.is_true() || returning.is_some_and(has_relations) {
            return Ok(None);
        }
        check_values(dialect, mutation)?;
        let (mut statements, returned) = sql::insert(dialect, mutation, rows);
        let answer = returning.map(|node| RowAnswer {
            plan: plan(dialect, node, limit),
            size: RowSize::of(node, row),
            row_bytes: row_size::row_bytes(node),
        });
        Ok(statements.pop().map(|statement| Self { statement, returned, answer }))
    }

    /// Runs it, as [`SingleStatement::perform`].
    pub async fn perform(&self, context: &WriteContext<'_>) -> Result<Option<Written>, Error> {
        let answer = self.answer.as_ref().map(|answer| SingleAnswer {
            plan: answer.plan.clone(),
            is_small: self.is_small(answer, context),
            row_bytes: answer.row_bytes,
        });
        SingleStatement { statement: &self.statement, returned: self.returned, answer }.perform(context).await
    }

    /// Whether the answer is within its limit for the values of the statement.
    fn is_small(&self, answer: &RowAnswer, context: &WriteContext<'_>) -> bool {
        let value = |at: usize| -> Option<&Typed> {
            match self.statement.args.get(at)? {
                Bind::Value(value) => Some(value),
                Bind::List(_) | Bind::LeastArray(_) | Bind::GreatestArray(_) | Bind::Stored(_) => None,
            }
        };
        answer.size.bytes(value).is_some_and(|bytes| row_size::is_within(bytes, context.options.answer))
    }
}

impl SingleStatement<'_> {
    /// Runs it without a transaction around it. Its answer is made after the commit, and must not fail then: `None`, and
    /// nothing is done, where it might be too large and takes a transaction.
    pub async fn perform(self, context: &WriteContext<'_>) -> Result<Option<Written>, Error> {
        let (meter, limit) = (&context.meters.writes, context.options.answer);
        let rows = match &self.answer {
            Some(answer) if !answer.is_small => {
                if self.statement.columns.is_empty() {
                    return Ok(None);
                }
                let room = row_size::small_room(answer.row_bytes, limit);
                match timed(meter, 1, context.store.write_within(self.statement, room)).await {
                    Ok(Some(rows)) => rows,
                    Ok(None) | Err(Error::TooLarge(_)) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
            Some(_) | None => timed(meter, 1, context.store.write(self.statement)).await?,
        };
        let mut written = Written { affected: rows.len() as u64, rows: Vec::new() };
        if let Some(answer) = self.answer {
            let kept = kept(&rows, self.returned);
            let tree = answer.plan.with_rows(Some(rows), &mut std::iter::empty(), context.options.numbers)?;
            written.rows = tree.answer(Some(kept), &mut Budget::unlimited()).await?.json.into();
        }
        Ok(Some(written))
    }
}
