//! Prepared operations: what is compiled of reads, or of an insert, serves all of the same shape, whatever their values.
//!
//! The shape of a request is all that its resolution and its SQL depend on: its operations and their grants but for the
//! values in conditions and documents. It is the key under which the compiled statements are kept, with the number of the
//! schema's snapshot; a request of a known shape binds its own values to them.

mod insert;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use foldhash::{HashMap, HashMapExt};
use mesh::cache::{self, WeightedCache, Weighter};
use query::{Column, Columns, FieldKind, Filter, GrantTerms, Node, Read};

use self::insert::PreparedInsert;
pub use self::insert::SingleInsert;
use crate::{
    Error,
    bind::Bind,
    operand::{ArgSource, Operand, RequestValue},
    store::{Output, PlainStatement, Statement},
    tree::Plan,
};

/// Approximate memory limit of the prepared operations of a node.
const CACHE_BYTES: u64 = 32 << 20;
/// Operations of the size that is usual that it holds.
const OPERATIONS_EXPECTED: usize = 8000;
/// Shapes over this size are not kept.
const SHAPE_BYTES_MAX: usize = 16 << 10;

/// The prepared operations of a node: one bound for all its databases. Clones are the same.
#[derive(Debug, Clone)]
pub struct PreparedOperations {
    state: Arc<PreparedState>,
}

#[derive(Debug)]
struct PreparedState {
    cache: WeightedCache<Box<[u8]>, PreparedOperation, OperationWeighter>,
    next_snapshot: AtomicU64,
}

/// Reads that are ready to run.
#[derive(Debug)]
pub struct CompiledReads {
    /// The plan of each read.
    pub plans: Vec<Plan>,
    /// Their statements, in the same order.
    pub statements: Vec<Statement>,
}

/// What is compiled of operations of one shape.
#[derive(Debug, Clone)]
enum PreparedOperation {
    /// Of reads.
    Reads(Arc<PreparedRead>),
    /// Of an insert.
    Insert(Arc<PreparedInsert>),
}

/// Compiled reads of one shape.
#[derive(Debug)]
struct PreparedRead {
    plans: Vec<Plan>,
    statements: Vec<StatementTemplate>,
}

/// A statement whose values are to be bound.
#[derive(Debug)]
pub struct StatementTemplate {
    text: Arc<str>,
    plain: Option<PlainStatement>,
    columns: Arc<[Output]>,
    args: Vec<PreparedArg>,
}

/// An argument of a prepared statement.
#[derive(Debug)]
enum PreparedArg {
    /// The same for each request of the shape.
    Constant(Bind),
    /// The value of the request at an index, as the column stores it or can be compared with it.
    Request(usize, Column),
}

impl Default for PreparedOperations {
    fn default() -> Self {
        let cache = cache::weighted(CACHE_BYTES, OPERATIONS_EXPECTED, OperationWeighter);
        Self { state: Arc::new(PreparedState { cache, next_snapshot: AtomicU64::new(0) }) }
    }
}

impl PreparedOperations {
    /// A number that no other snapshot of a schema has.
    pub fn next_snapshot(&self) -> u64 {
        self.state.next_snapshot.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads of a known shape with the values of the request; `None` where it is not known.
    ///
    /// Errors: `WRONG_TYPE`, `OUT_OF_RANGE` for values of rules.
    pub fn bind(&self, shape: &RequestShape<'_>) -> Result<Option<CompiledReads>, Error> {
        let Some(PreparedOperation::Reads(prepared)) = self.state.cache.get(&*shape.key) else { return Ok(None) };
        // What is collected of results has room for four at least: for one statement, that is half a kilobyte.
        let mut statements = Vec::with_capacity(prepared.statements.len());
        for statement in &prepared.statements {
            statements.push(statement.bind(&shape.values)?);
        }
        Ok(Some(CompiledReads { plans: prepared.plans.clone(), statements }))
    }

    /// Keeps what reads of `shape` were compiled to, unless that depends on their values.
    pub fn keep(&self, shape: RequestShape<'_>, reads: &CompiledReads) {
        let Some(indexes) = shape.indexes() else { return };
        let prepared = reads.statements.iter().map(|statement| StatementTemplate::new(statement, &indexes));
        if let Some(statements) = prepared.collect() {
            let read = PreparedRead { plans: reads.plans.clone(), statements };
            self.state.cache.insert(shape.key.into(), PreparedOperation::Reads(Arc::new(read)));
        }
    }
}

impl StatementTemplate {
    /// `None` where an argument comes from no value of the request as a whole.
    fn new(statement: &Statement, indexes: &HashMap<usize, usize>) -> Option<Self> {
        let arg = |(bind, source): (&Bind, &ArgSource)| match source {
            ArgSource::Constant => Some(PreparedArg::Constant(bind.clone())),
            ArgSource::Request { address, column } => {
                Some(PreparedArg::Request(*indexes.get(address)?, column.clone()))
            }
            ArgSource::Unknown => None,
        };
        let args = statement.args.iter().zip(&statement.sources).map(arg).collect::<Option<Vec<_>>>()?;
        let is_whole = args.len() == statement.args.len();
        let (text, plain, columns) = (statement.text.clone(), statement.plain.clone(), statement.columns.clone());
        is_whole.then_some(Self { text, plain, columns, args })
    }

    fn bind(&self, values: &[RequestValue<'_>]) -> Result<Statement, Error> {
        let mut args = Vec::with_capacity(self.args.len());
        for arg in &self.args {
            args.push(match arg {
                PreparedArg::Constant(bind) => bind.clone(),
                PreparedArg::Request(index, column) => values[*index].bind(column)?,
            });
        }
        let (text, plain, columns) = (self.text.clone(), self.plain.clone(), self.columns.clone());
        Ok(Statement { text, args, columns, sources: Vec::new(), plain })
    }

    /// Approximate memory in bytes.
    fn bytes(&self) -> usize {
        let plain = self.plain.as_ref().map_or(0, |plain| plain.text.len() + plain.columns.len() * 100);
        self.text.len() + plain + self.args.len() * 150 + size_of_val(&*self.columns) + 100
    }
}

/// Approximate memory of a prepared operation in bytes.
#[derive(Debug, Clone)]
struct OperationWeighter;

impl Weighter<Box<[u8]>, PreparedOperation> for OperationWeighter {
    fn weight(&self, shape: &Box<[u8]>, prepared: &PreparedOperation) -> u64 {
        let own = match prepared {
            PreparedOperation::Reads(read) => {
                let plans = read.plans.iter().map(plan_bytes).sum::<usize>();
                read.statements.iter().map(StatementTemplate::bytes).sum::<usize>() + plans
            }
            PreparedOperation::Insert(insert) => insert.bytes(),
        };
        // The names of members stand in the shape too.
        (shape.len() * 2 + own + 200) as u64
    }
}

/// Approximate memory of a plan in bytes, besides the names of its members.
fn plan_bytes(plan: &Plan) -> usize {
    plan.levels.iter().map(|level| level.members.len() * 100 + 200).sum()
}

/// The shape of a request's operations, and the values that it leaves out.
#[derive(Debug)]
pub struct RequestShape<'r> {
    /// Encoding of the shape: different shapes have different ones.
    key: Vec<u8>,
    /// In the order of the encoding; empty lists are left out.
    values: Vec<RequestValue<'r>>,
}

impl<'r> RequestShape<'r> {
    /// The shape of `reads` with `grants` in a `snapshot` of a schema, in a database that answers `limit` rows where a
    /// read sets no limit.
    pub fn of(snapshot: u64, reads: &'r [Read], grants: &'r [Arc<GrantTerms>], limit: u64) -> Self {
        let mut shape = Self::begin(b'r', snapshot, limit);
        shape.count(reads.len());
        for read in reads {
            shape.text(&read.table);
            shape.node(&read.node);
        }
        shape.count(grants.len());
        grants.iter().for_each(|grant| shape.grant(grant));
        shape
    }

    /// The shape of nothing yet; `operations` is the letter of what follows.
    fn begin(operations: u8, snapshot: u64, limit: u64) -> Self {
        let mut shape = Self { key: Vec::with_capacity(256), values: Vec::with_capacity(4) };
        shape.tag(operations);
        shape.number(snapshot);
        shape.number(limit);
        shape
    }

    /// The index of each value by its address; `None` where the shape is too long to be kept, or where two have the same,
    /// as in nodes that share their fields: which of them an argument comes from is not known then.
    fn indexes(&self) -> Option<HashMap<usize, usize>> {
        if self.key.len() > SHAPE_BYTES_MAX {
            return None;
        }
        let mut indexes = HashMap::with_capacity(self.values.len());
        let mut addresses = self.values.iter().map(RequestValue::address).enumerate();
        addresses.all(|(index, address)| indexes.insert(address, index).is_none()).then_some(indexes)
    }

    fn node(&mut self, node: &'r Node) {
        self.tag(node.shape as u8);
        self.filter(&node.filter);
        self.count(node.fields.len());
        for field in node.fields.iter() {
            self.text(&field.key);
            match &field.kind {
                FieldKind::Column(name) => self.named(b'c', name),
                FieldKind::Columns => self.tag(b'*'),
                FieldKind::Constant(text) => self.named(b't', text),
                FieldKind::Count => self.tag(b'n'),
                FieldKind::Relation { name, node } => {
                    self.named(b'r', name);
                    self.node(node);
                }
            }
        }
        self.count(node.sort.len());
        for key in &node.sort {
            self.named(u8::from(key.descending), &key.column);
        }
        self.number(node.skip);
        self.tag(u8::from(node.limit.is_some()));
        self.number(node.limit.unwrap_or_default());
    }

    fn filter<V: Operand>(&mut self, filter: &'r Filter<V>) {
        match filter {
            Filter::And(all) => self.filters(b'&', all),
            Filter::Or(any) => self.filters(b'|', any),
            Filter::Not(filter) => {
                self.tag(b'!');
                self.filter(filter);
            }
            Filter::Compare { column, comparison, value } => {
                self.named(b'=', column);
                self.tag(*comparison as u8);
                self.values.push(V::one(value));
            }
            Filter::In { column, values } => {
                self.named(b'i', column);
                self.tag(u8::from(values.is_empty()));
                // An empty list is no argument, and has no address of its own.
                if !values.is_empty() {
                    self.values.push(V::many(values));
                }
            }
            Filter::IsNull { column } => self.named(b'0', column),
            Filter::Related { relation, quantifier, filter, .. } => {
                self.named(b'>', relation);
                self.tag(*quantifier as u8);
                self.filter(filter);
            }
        }
    }

    fn filters<V: Operand>(&mut self, tag: u8, filters: &'r [Filter<V>]) {
        self.tag(tag);
        self.count(filters.len());
        filters.iter().for_each(|filter| self.filter(filter));
    }

    /// What of a grant counts for reads; whether it holds for the request is checked for each.
    fn grant(&mut self, grant: &'r GrantTerms) {
        self.text(&grant.database);
        self.named(grant.operation as u8, &grant.table);
        self.filter(&grant.filter);
        let Columns { deny, read, filter, write: _ } = &*grant.columns;
        self.names(Some(deny));
        self.names(read.as_ref());
        self.names(filter.as_ref());
    }

    fn names(&mut self, names: Option<&Vec<String>>) {
        self.tag(u8::from(names.is_some()));
        let names = names.map_or(&[][..], Vec::as_slice);
        self.count(names.len());
        names.iter().for_each(|name| self.text(name));
    }

    fn named(&mut self, tag: u8, name: &str) {
        self.tag(tag);
        self.text(name);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.key.extend_from_slice(text.as_bytes());
    }

    fn count(&mut self, count: usize) {
        // Nearly all are small: a byte, as in protobuf's varints.
        match u8::try_from(count) {
            Ok(small) if small < u8::MAX => self.key.push(small),
            _ => {
                self.key.push(u8::MAX);
                self.number(count as u64);
            }
        }
    }

    fn number(&mut self, number: u64) {
        self.key.extend_from_slice(&number.to_le_bytes());
    }

    fn tag(&mut self, tag: u8) {
        self.key.push(tag);
    }
}

#[cfg(test)]
mod tests;
