//! Name resolution: operations with every name found in the schema, every value converted to its column's type and
//! every grant applied.
//!
//! Nothing else makes these types, and the SQL compiler takes nothing else: so no name of a request becomes SQL text,
//! and no table is touched without its grant.

use std::borrow::Cow;

use query::{
    Column, Comparison, Error as Unfit, FieldKind, Filter, Operation, Quantifier, Relation, RuleFilter, Schema, Shape,
    Table, Type, Typed,
};

use crate::{
    Error,
    grant::{Granted, Grants},
    operand::{Compared, Operand, stored},
};

/// A condition on the rows of one table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cond<'s> {
    /// Conjunction; empty is true.
    And(Vec<Cond<'s>>),
    /// Disjunction; empty is false.
    Or(Vec<Cond<'s>>),
    /// Negation.
    Not(Box<Cond<'s>>),
    /// Comparison of a column with a value.
    Compare(&'s Column, Comparison, Compared<Cow<'s, Typed>>),
    /// A column equals one of some values; empty is false.
    In(&'s Column, Compared<Cow<'s, [Typed]>>),
    /// A column is NULL.
    IsNull(&'s Column),
    /// Condition on the rows that a relation leads to.
    Related(Related<'s>),
}

/// A condition on the rows that a relation leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Related<'s> {
    /// The table it leads from.
    pub own: &'s Table,
    /// The table it leads to.
    pub table: &'s Table,
    /// Join columns: pairs of a column of this table and the equal one of the other.
    pub on: Vec<JoinPair<'s>>,
    /// Quantifier: how many of them must pass.
    pub quantifier: Quantifier,
    /// Row filter of the grant: which of them exist for the caller.
    pub granted: Box<Cond<'s>>,
    /// Condition on them.
    pub cond: Box<Cond<'s>>,
}

/// Pair of columns that a relation joins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JoinPair<'s> {
    /// The column of this table.
    pub own: &'s Column,
    /// The column of the table that the relation leads to.
    pub far: &'s Column,
    /// Whether `own` refers to `far`; else `far` refers to `own`.
    pub refers: bool,
}

/// Node of a read tree: what is read of one table.
#[derive(Debug)]
pub struct Node<'s> {
    /// The table.
    pub table: &'s Table,
    /// Shape of its JSON.
    pub shape: Shape,
    /// Members of each row.
    pub members: Vec<NodeMember<'s>>,
    /// Rows that count and exist for the caller.
    pub cond: Cond<'s>,
    /// The caller's order; `true` is descending.
    pub order: Vec<(&'s Column, bool)>,
    /// Offset of the first row.
    pub skip: u64,
    /// Most rows.
    pub limit: Option<u64>,
}

/// A member of a row's JSON object.
#[derive(Debug)]
pub struct NodeMember<'s> {
    /// Its name in the answer.
    pub key: &'s str,
    /// Its value.
    pub kind: MemberKind<'s>,
}

/// Kind of a member's value.
#[derive(Debug)]
pub enum MemberKind<'s> {
    /// A column.
    Column(&'s Column),
    /// A constant text.
    Constant(&'s str),
    /// The number of rows.
    Count,
    /// Rows that a relation leads to.
    Relation {
        /// Its name.
        name: &'s str,
        /// Whether it leads to any number of rows.
        many: bool,
        /// Join columns: pairs of a column of this table and the equal one of the other.
        on: Vec<JoinPair<'s>>,
        /// The read of the related rows.
        node: Node<'s>,
    },
}

/// A change to one table.
#[derive(Debug)]
pub struct Mutation<'s> {
    /// The table.
    pub table: &'s Table,
    /// Insert, update or delete.
    pub kind: MutationKind<'s>,
    /// Row check of the grant: every row written must pass it.
    pub check: Cond<'s>,
    /// Answer of the rows written: those of them that exist for the caller.
    pub returning: Option<Node<'s>>,
}

/// Kind of a mutation: insert, update or delete.
#[derive(Debug)]
pub enum MutationKind<'s> {
    /// New rows, by their columns.
    Insert(Vec<NewRow<'s>>),
    /// Changed rows.
    Update {
        /// Rows that pass this.
        cond: Cond<'s>,
        /// Columns, values and how they change.
        changes: Vec<ColumnChange<'s>>,
        /// Whether at most one row is written.
        one: bool,
    },
    /// Deleted rows.
    Delete {
        /// Rows that pass this.
        cond: Cond<'s>,
        /// Whether at most one row is written.
        one: bool,
    },
}

/// A row to insert: columns and what they get.
pub type NewRow<'s> = Vec<(&'s Column, Cow<'s, Typed>)>;

/// A column that an update writes, what it gets and how.
pub type ColumnChange<'s> = (&'s Column, Cow<'s, Typed>, ChangeKind);

/// Kind of a column's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The column is set to the value.
    Set,
    /// The value is added to the column.
    Inc,
}

impl Cond<'_> {
    /// The condition that all rows pass.
    pub const TRUE: Cond<'static> = Cond::And(Vec::new());

    /// Whether it is the empty conjunction.
    pub fn is_true(&self) -> bool {
        matches!(self, Cond::And(all) if all.is_empty())
    }

    /// Whether all rows that pass are known to have the same value in `column`.
    pub fn fixes(&self, column: &str) -> bool {
        match self {
            Cond::And(all) => all.iter().any(|cond| cond.fixes(column)),
            // Arrays of the same values differ in their subscripts.
            Cond::Compare(fixed, Comparison::Eq, _) => fixed.name == column && !matches!(fixed.r#type, Type::List(_)),
            Cond::Compare(..) | Cond::Or(_) | Cond::Not(_) | Cond::In(..) | Cond::IsNull(_) | Cond::Related(_) => false,
        }
    }

    /// Constant folding: its value for every row, where that is known without reading one.
    fn constant(&self) -> Option<bool> {
        let all = |conds: &[Cond<'_>], wanted: bool| {
            let parts: Vec<Option<bool>> = conds.iter().map(Cond::constant).collect();
            match parts.contains(&Some(!wanted)) {
                true => Some(!wanted),
                false => parts.iter().all(|part| *part == Some(wanted)).then_some(wanted),
            }
        };
        match self {
            Cond::And(conds) => all(conds, true),
            Cond::Or(conds) => all(conds, false),
            Cond::Not(cond) => cond.constant().map(|constant| !constant),
            Cond::In(_, values) => values.value.is_empty().then_some(false),
            Cond::Compare(..) | Cond::IsNull(_) | Cond::Related(_) => None,
        }
    }
}

impl<'s> Cond<'s> {
    /// Conjunction of `self` and `other`.
    pub fn and(self, other: Cond<'s>) -> Cond<'s> {
        match (self.is_true(), other.is_true()) {
            (true, _) => other,
            (_, true) => self,
            (false, false) => Cond::And(vec![self, other]),
        }
    }
}

/// Resolves the operations of one request, which take its grants one by one.
pub struct Resolver<'s, 'g> {
    schema: &'s Schema,
    grants: Grants<'g>,
}

/// Author of a condition.
enum Author<'a> {
    /// The caller: what it names needs grants.
    Caller(Granted<'a>),
    /// A rule: it needs none.
    Rule,
}

impl<'s, 'g: 's> Resolver<'s, 'g> {
    /// A resolver of operations on a database with this schema.
    pub fn new(schema: &'s Schema, grants: Grants<'g>) -> Self {
        Self { schema, grants }
    }

    /// Checks that all grants were needed.
    pub fn finish(self) -> Result<(), Error> {
        self.grants.finish()
    }

    /// Resolves a read.
    pub fn read(&mut self, read: &'s query::Read) -> Result<Node<'s>, Error> {
        self.node(self.schema.table(&read.table)?, &read.node)
    }

    /// Resolves a mutation.
    pub fn mutation(&mut self, mutation: &'s query::Mutation) -> Result<Mutation<'s>, Error> {
        let table = self.schema.table(&mutation.table)?;
        let granted = self.grants.take(table, mutation.kind.operation())?;
        table.check_operation(mutation.kind.operation())?;
        let kind = match &mutation.kind {
            query::MutationKind::Insert { docs } => {
                let rows = docs.iter().map(|doc| row(table, granted, doc));
                MutationKind::Insert(rows.collect::<Result<_, _>>()?)
            }
            query::MutationKind::Update { filter, changes, one } => {
                let changes = resolve_changes(table, granted, changes)?;
                MutationKind::Update {
                    cond: self.targets(table, granted, filter, Operation::Update)?,
                    changes,
                    one: *one,
                }
            }
            query::MutationKind::Delete { filter, one } => {
                MutationKind::Delete { cond: self.targets(table, granted, filter, Operation::Delete)?, one: *one }
            }
        };
        let check = match &kind {
            // Rows that the filter let through still pass it where nothing it looks at changes.
            MutationKind::Update { changes, .. }
                if granted.check() == granted.filter() && !depends_on(granted.check(), changes) =>
            {
                Cond::TRUE
            }
            MutationKind::Insert(_) | MutationKind::Update { .. } => {
                self.cond(table, granted.check(), &Author::Rule)?
            }
            MutationKind::Delete { .. } => Cond::TRUE,
        };
        let returning = mutation.returning.as_ref().map(|node| self.node(table, node)).transpose()?;
        if let Some(node) = &returning {
            check_returning(node)?;
        }
        Ok(Mutation { table, kind, check, returning })
    }

    /// Condition on the rows to change or delete: those that pass and that the grant covers.
    fn targets(
        &mut self,
        table: &'s Table,
        granted: Granted<'g>,
        filter: &'s Filter,
        operation: Operation,
    ) -> Result<Cond<'s>, Error> {
        let client = self.cond(table, filter, &Author::Caller(granted))?;
        if client.constant() == Some(true) && !granted.allows_all() {
            return Err(Unfit::WhereRequired(operation.name()).into());
        }
        Ok(self.cond(table, granted.filter(), &Author::Rule)?.and(client))
    }

    fn node(&mut self, table: &'s Table, node: &'s query::Node) -> Result<Node<'s>, Error> {
        let granted = self.grants.take(table, Operation::Read)?;
        let client = self.cond(table, &node.filter, &Author::Caller(granted))?;
        let cond = self.cond(table, granted.filter(), &Author::Rule)?.and(client);
        let mut members = Vec::with_capacity(node.fields.len());
        for field in node.fields.iter() {
            match &field.kind {
                FieldKind::Columns => members.extend(all_columns(table, node.shape, granted)?),
                kind => {
                    let kind = self.member_kind(table, node.shape, granted, kind)?;
                    members.push(NodeMember { key: &field.key, kind });
                }
            }
        }
        let order = order(table, granted, &node.sort)?;
        if node.shape == Shape::Count && (node.skip > 0 || node.limit.is_some() || !order.is_empty()) {
            return Err(Unfit::Malformed("invalid count: sort, skip and limit are not allowed".to_owned()).into());
        }
        Ok(Node { table, shape: node.shape, members, cond, order, skip: node.skip, limit: node.limit })
    }

    fn member_kind(
        &mut self,
        table: &'s Table,
        shape: Shape,
        granted: Granted<'_>,
        kind: &'s FieldKind,
    ) -> Result<MemberKind<'s>, Error> {
        let aggregates = match shape {
            Shape::Many | Shape::One => false,
            Shape::Count | Shape::Aggregate => true,
        };
        match kind {
            FieldKind::Constant(text) => Ok(MemberKind::Constant(text)),
            FieldKind::Count if aggregates => Ok(MemberKind::Count),
            FieldKind::Column(name) if !aggregates => {
                let column = table.column(name)?;
                granted.may_read(&column.name)?;
                check_readable(table, column)?;
                Ok(MemberKind::Column(column))
            }
            FieldKind::Relation { name, node } if !aggregates => {
                let relation = table.relation(name)?;
                let far = self.schema.target(relation)?;
                let on = pairs(table, far, relation)?;
                Ok(MemberKind::Relation { name: &relation.name, many: relation.many, on, node: self.node(far, node)? })
            }
            FieldKind::Columns => Err(Unfit::Malformed("columns are not allowed here".to_owned()).into()),
            FieldKind::Count => Err(Unfit::Malformed("count is allowed in an aggregate only".to_owned()).into()),
            FieldKind::Column(name) | FieldKind::Relation { name, .. } => {
                Err(Unfit::Malformed(format!("{name} is not allowed in an aggregate")).into())
            }
        }
    }

    fn cond<V: Operand>(
        &mut self,
        table: &'s Table,
        filter: &'s Filter<V>,
        author: &Author<'g>,
    ) -> Result<Cond<'s>, Error> {
        let column = |name: &str| -> Result<&'s Column, Error> {
            let column = table.column(name)?;
            if let Author::Caller(granted) = author {
                granted.may_filter(&column.name)?;
                check_readable(table, column)?;
            }
            Ok(column)
        };
        Ok(match filter {
            Filter::And(all) => Cond::And(self.conds(table, all, author)?),
            Filter::Or(any) => Cond::Or(self.conds(table, any, author)?),
            Filter::Not(filter) => Cond::Not(Box::new(self.cond(table, filter, author)?)),
            Filter::Compare { column: name, comparison, value } => {
                let column = column(name)?;
                if !matches!(comparison, Comparison::Eq | Comparison::Ne) {
                    column.check_order("comparison by order")?;
                }
                let compared = Compared { value: value.compared_with(column)?, address: V::one(value).address() };
                Cond::Compare(column, *comparison, compared)
            }
            Filter::In { column: name, values } => {
                let column = column(name)?;
                let address = V::many(values).address();
                Cond::In(column, Compared { value: V::all_compared_with(values, column)?, address })
            }
            Filter::IsNull { column: name } => Cond::IsNull(column(name)?),
            Filter::Related { relation, quantifier, filter, .. } => {
                let relation = table.relation(relation)?;
                let far = self.schema.target(relation)?;
                let on = pairs(table, far, relation)?;
                let (granted, cond) = match author {
                    Author::Rule => (Cond::TRUE, self.cond(far, filter, author)?),
                    Author::Caller(_) => {
                        let granted = self.grants.take(far, Operation::Read)?;
                        let cond = self.cond(far, filter, &Author::Caller(granted))?;
                        (self.cond(far, granted.filter(), &Author::Rule)?, cond)
                    }
                };
                let (granted, cond) = (Box::new(granted), Box::new(cond));
                Cond::Related(Related { own: table, table: far, on, quantifier: *quantifier, granted, cond })
            }
        })
    }

    fn conds<V: Operand>(
        &mut self,
        table: &'s Table,
        filters: &'s [Filter<V>],
        author: &Author<'g>,
    ) -> Result<Vec<Cond<'s>>, Error> {
        filters.iter().map(|filter| self.cond(table, filter, author)).collect()
    }
}

/// All columns as members, each under its own name.
fn all_columns<'s>(table: &'s Table, shape: Shape, granted: Granted<'_>) -> Result<Vec<NodeMember<'s>>, Error> {
    match shape {
        Shape::Many | Shape::One => {}
        Shape::Count | Shape::Aggregate => {
            return Err(Unfit::Malformed("columns are not allowed in an aggregate".to_owned()).into());
        }
    }
    let member = |column: &'s Column| {
        granted.may_read(&column.name)?;
        Ok(NodeMember { key: &column.name, kind: MemberKind::Column(column) })
    };
    table.columns.iter().filter(|column| column.readable).map(member).collect()
}

fn pairs<'s>(table: &'s Table, far: &'s Table, relation: &'s Relation) -> Result<Vec<JoinPair<'s>>, Error> {
    let pair = |(own, other): &'s (String, String)| {
        Ok(JoinPair { own: table.column(own)?, far: far.column(other)?, refers: relation.refers })
    };
    relation.on.iter().map(pair).collect()
}

impl<'s> JoinPair<'s> {
    /// The column that the other refers to: its type and its collation decide what is equal.
    pub fn referenced(&self) -> &'s Column {
        if self.refers { self.far } else { self.own }
    }
}

/// Checks that the server's role may read `column`.
fn check_readable(table: &Table, column: &Column) -> Result<(), Error> {
    match column.readable {
        true => Ok(()),
        false => Err(Error::Denied(format!("column {} of table {} may not be read", column.name, table.name))),
    }
}

/// Resolves sort keys. Later keys on the same column change nothing.
fn order<'s>(table: &'s Table, granted: Granted<'_>, sort: &[query::Sort]) -> Result<Vec<(&'s Column, bool)>, Error> {
    let mut order: Vec<(&Column, bool)> = Vec::with_capacity(sort.len());
    for key in sort {
        let column = table.column(&key.column)?;
        granted.may_filter(&column.name)?;
        check_readable(table, column)?;
        column.check_sort()?;
        if order.iter().all(|(known, _)| known.name != column.name) {
            order.push((column, key.descending));
        }
    }
    Ok(order)
}

/// Checks that `returning` asks for all rows written, in their order.
fn check_returning(node: &Node<'_>) -> Result<(), Error> {
    let returns_all = node.shape == Shape::Many && node.order.is_empty() && node.skip == 0 && node.limit.is_none();
    match returns_all {
        true => Ok(()),
        false => {
            Err(Unfit::Malformed("invalid returning: sort, skip, limit and aggregates are not allowed".to_owned())
                .into())
        }
    }
}

fn row<'s>(table: &'s Table, granted: Granted<'_>, doc: &'s query::Document) -> Result<NewRow<'s>, Error> {
    let mut row: NewRow<'_> = Vec::with_capacity(doc.0.len());
    for (name, value) in &doc.0 {
        let column = writable(table, granted, name)?;
        if row.iter().any(|(known, _)| known.name == column.name) {
            return Err(Unfit::Malformed(format!("column {name} is given twice")).into());
        }
        row.push((column, stored(column, value)?));
    }
    Ok(row)
}

fn resolve_changes<'s>(
    table: &'s Table,
    granted: Granted<'_>,
    changes: &'s [query::Change],
) -> Result<Vec<ColumnChange<'s>>, Error> {
    let mut resolved: Vec<ColumnChange<'_>> = Vec::with_capacity(changes.len());
    for change in changes {
        let column = writable(table, granted, change.column())?;
        if resolved.iter().any(|(known, ..)| known.name == column.name) {
            return Err(Unfit::Malformed(format!("column {} is changed twice", column.name)).into());
        }
        let (value, change) = match change {
            query::Change::Set { value, .. } => (stored(column, value)?, ChangeKind::Set),
            query::Change::Inc { by, .. } => (amount(column, by)?, ChangeKind::Inc),
        };
        resolved.push((column, value, change));
    }
    Ok(resolved)
}

/// Whether `filter` depends on columns that change.
fn depends_on(filter: &RuleFilter, changes: &[ColumnChange<'_>]) -> bool {
    match filter {
        Filter::And(filters) | Filter::Or(filters) => filters.iter().any(|filter| depends_on(filter, changes)),
        Filter::Not(filter) => depends_on(filter, changes),
        Filter::Compare { column, .. } | Filter::In { column, .. } | Filter::IsNull { column } => {
            changes.iter().any(|(changed, ..)| changed.name == *column)
        }
        // The relation may lead elsewhere, or back to this table.
        Filter::Related { .. } => true,
    }
}

fn amount<'v>(column: &Column, by: &'v Typed) -> Result<Cow<'v, Typed>, Error> {
    if column.r#type.is_number() {
        return Ok(by.compared_with(column)?);
    }
    let (name, found) = (column.name.clone(), format!("column of type {}", column.native));
    Err(Unfit::WrongType { name, expected: "numeric column to increment".to_owned(), found }.into())
}

fn writable<'s>(table: &'s Table, granted: Granted<'_>, name: &str) -> Result<&'s Column, Error> {
    let column = table.column(name)?;
    granted.may_write(&column.name)?;
    match column.generated {
        true => {
            Err(Unfit::Malformed(format!("column {name} is computed by the database and cannot be written")).into())
        }
        false => Ok(column),
    }
}
