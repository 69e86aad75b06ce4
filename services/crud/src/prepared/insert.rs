//! Prepared inserts of one document.

use std::sync::Arc;

use query::{Document, FieldKind, GrantTerms, MutationKind, Node};

use super::{PreparedArg, PreparedOperation, PreparedOperations, RequestShape, StatementTemplate, plan_bytes};
use crate::{
    Error,
    bind::Bind,
    operand::RequestValue,
    sql::{Dialect, Returned},
    write::{CompiledInsert, RowAnswer},
};

/// An insert of one document that answers nothing of other tables, alone in its request.
#[derive(Debug, Clone, Copy)]
pub struct SingleInsert<'r> {
    table: &'r str,
    document: &'r Document,
    returning: Option<&'r Node>,
}

/// A compiled insert whose values are to be bound.
#[derive(Debug)]
pub struct PreparedInsert {
    /// Its statement.
    pub statement: StatementTemplate,
    /// Positions of what is computed in its result.
    pub returned: Returned,
    /// What is answered of the row.
    pub answer: Option<RowAnswer>,
}

impl<'r> SingleInsert<'r> {
    /// `mutations` as such an insert; `None` where they are anything else.
    pub fn of(mutations: &'r [query::Mutation]) -> Option<Self> {
        let [query::Mutation { table, kind: MutationKind::Insert { docs }, returning }] = mutations else {
            return None;
        };
        let [document] = &**docs else { return None };
        let returning = returning.as_ref();
        let has_relations = returning
            .is_some_and(|node| node.fields.iter().any(|field| matches!(field.kind, FieldKind::Relation { .. })));
        (!has_relations).then_some(Self { table, document, returning })
    }

    /// Its shape, as that of reads.
    pub fn shape(self, snapshot: u64, grants: &'r [Arc<GrantTerms>], limit: u64) -> RequestShape<'r> {
        let mut shape = RequestShape::begin(b'i', snapshot, limit);
        shape.text(self.table);
        shape.count(self.document.0.len());
        for (column, value) in &self.document.0 {
            shape.text(column);
            shape.values.push(RequestValue::Stored(value));
        }
        shape.tag(u8::from(self.returning.is_some()));
        if let Some(node) = self.returning {
            shape.node(node);
        }
        shape.count(grants.len());
        for grant in grants {
            shape.grant(grant);
            shape.filter(&grant.check);
            shape.names(grant.columns.write.as_ref());
        }
        shape
    }
}

impl PreparedOperations {
    /// An insert of a known shape with the values of the request; `None` where it is not known.
    ///
    /// Errors: `WRONG_TYPE`, `OUT_OF_RANGE` for values of rules, and for those of a document that was typed for an
    /// older schema.
    pub fn bind_insert(&self, shape: &RequestShape<'_>, dialect: &Dialect) -> Result<Option<CompiledInsert>, Error> {
        let Some(PreparedOperation::Insert(prepared)) = self.state.cache.get(&*shape.key) else { return Ok(None) };
        let statement = prepared.statement.bind(&shape.values)?;
        prepared.statement.check_stored(&shape.values, &statement.args, dialect)?;
        Ok(Some(CompiledInsert { statement, returned: prepared.returned, answer: prepared.answer.clone() }))
    }

    /// Keeps what an insert of `shape` was compiled to, unless that depends on its values.
    pub fn keep_insert(&self, shape: RequestShape<'_>, insert: &CompiledInsert) {
        let Some(indexes) = shape.indexes() else { return };
        if let Some(statement) = StatementTemplate::new(&insert.statement, &indexes) {
            let insert = PreparedInsert { statement, returned: insert.returned, answer: insert.answer.clone() };
            self.state.cache.insert(shape.key.into(), PreparedOperation::Insert(Arc::new(insert)));
        }
    }
}

impl StatementTemplate {
    /// Checks that the engine stores the values of a document without loss, as they are in the bound arguments.
    ///
    /// All are bound before: of several that are refused, the same is named as when the insert is compiled.
    pub fn check_stored(
        &self,
        values: &[RequestValue<'_>],
        bound: &[Bind],
        dialect: &Dialect,
    ) -> Result<(), query::Error> {
        for (arg, bind) in self.args.iter().zip(bound) {
            if let (PreparedArg::Request(index, column), Bind::Value(value)) = (arg, bind)
                && let RequestValue::Stored(_) = values[*index]
            {
                dialect.check_stored(column, value)?;
            }
        }
        Ok(())
    }
}

impl PreparedInsert {
    /// Approximate memory in bytes.
    pub fn bytes(&self) -> usize {
        let answer = self.answer.as_ref();
        self.statement.bytes() + answer.map_or(0, |answer| plan_bytes(&answer.plan) + answer.size.memory_bytes())
    }
}
