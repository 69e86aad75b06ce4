//! Compiles read trees to `SELECT`: one statement per level.
//!
//! A level below the root names its parents by a subselect of their keys with the same predicate, so that no level
//! waits for another. After a write the root's rows are known, and the levels below name them by their keys.

use std::collections::HashSet;

use query::{Column, Comparisons, Shape, Table, Type, Typed};

use super::{Alias, Sql, Variant, dialect::Dialect};
use crate::{
    cell::KeyForm,
    json,
    resolve::{Cond, JoinPair, MemberKind, Node, NodeMember},
    store::{Output, Rows, Statement},
    tree::{JsonMember, Level, Plan},
};

mod parents;

/// Rows that a level below the root may have, as a multiple of the database's limit.
const LEVEL_FACTOR: u64 = 100;

/// Source of the root's rows.
pub enum Source<'a> {
    /// A query; where the caller gave no limit, for at most this many.
    Query {
        /// The database's limit.
        limit: u64,
    },
    /// Rows that were written and returned, with the columns that [`columns`] says.
    Rows {
        /// The rows.
        rows: &'a Rows,
        /// Which of them count.
        kept: &'a [usize],
        /// The database's limit.
        limit: u64,
    },
    /// Rows that are written and returned, of which no relation is answered.
    Written {
        /// The database's limit.
        limit: u64,
    },
}

/// Compiler of one tree.
struct Levels<'d, 'a> {
    dialect: &'d Dialect,
    source: &'a Source<'a>,
    levels: Vec<Level>,
    statements: &'a mut Vec<Statement>,
}

/// A node with its result columns and its parent.
struct NodeContext<'p, 's> {
    node: &'p Node<'s>,
    /// The result columns of its level.
    columns: Vec<&'s Column>,
    above: Option<ParentLink<'p, 's>>,
}

/// Relation from a parent node to a node.
struct ParentLink<'p, 's> {
    context: &'p NodeContext<'p, 's>,
    name: &'p str,
    many: bool,
    /// Pairs of a column above and the one here that equals it.
    on: &'p [JoinPair<'s>],
    /// Whether keys are compared here; else the database compares them, and answers those of the parents.
    is_exact: bool,
}

/// Use of the parents' keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyUse {
    /// They are compared with those of a level.
    Compared,
    /// They are columns called `"k0"`, `"k1"`…
    Named,
}

/// Compiles the plan of a tree. The statements that read the rows of its levels are added to `statements`, in the order
/// of the levels.
pub fn compile(dialect: &Dialect, node: &Node<'_>, source: &Source<'_>, statements: &mut Vec<Statement>) -> Plan {
    let mut levels = Levels { dialect, source, levels: Vec::new(), statements };
    levels.level(NodeContext { node, columns: columns(node), above: None });
    Plan { levels: levels.levels.into() }
}

impl Levels<'_, '_> {
    /// Adds the level of `context` and those below it.
    fn level(&mut self, context: NodeContext<'_, '_>) -> usize {
        let at = self.levels.len();
        let (link, key_form) = match &context.above {
            Some(above) if above.is_exact => (context.positions(above.on.iter().map(|pair| pair.far)), KeyForm::Equal),
            Some(above) => (Vec::from_iter((context.columns.len()..).take(above.on.len())), KeyForm::Identical),
            None => (Vec::new(), KeyForm::Equal),
        };
        let statement = self.statement(&context);
        self.levels.push(Level {
            name: context.above.as_ref().map(|above| above.name.to_owned()).unwrap_or_default(),
            shape: context.node.shape,
            is_asked: statement.is_some(),
            link,
            key_form,
            members: Vec::new(),
            most: usize::try_from(self.most()).unwrap_or(usize::MAX),
            cut: context.is_cut().then(|| usize::try_from(self.root_rows(context.node)).unwrap_or(usize::MAX)),
            is_void: context.is_empty(),
        });
        self.statements.extend(statement);
        let members = context.node.members.iter().map(|member| self.member(&context, member)).collect();
        self.levels[at].members = members;
        at
    }

    fn member(&mut self, context: &NodeContext<'_, '_>, member: &NodeMember<'_>) -> JsonMember {
        let mut key = Vec::with_capacity(member.key.len() + 3);
        json::string(&mut key, member.key);
        key.push(b':');
        match &member.kind {
            MemberKind::Column(column) => JsonMember::Column { key, column: context.position(column) },
            MemberKind::Constant(text) => {
                json::string(&mut key, text);
                JsonMember::Constant { text: key }
            }
            MemberKind::Count => JsonMember::Count { key },
            MemberKind::Relation { name, many, on, node } => {
                let columns = context.positions(on.iter().map(|pair| pair.own));
                let is_exact = self.is_exact(on, &columns, context.above.is_none());
                let above = ParentLink { context, name, many: *many, on, is_exact };
                let below = NodeContext { node, columns: below_columns(node, &above), above: Some(above) };
                JsonMember::Relation { key, columns, level: self.level(below) }
            }
        }
    }

    /// Most rows of a level; one more is fetched, to tell whether there are more.
    fn most(&self) -> u64 {
        match self.source {
            Source::Query { limit } | Source::Rows { limit, .. } | Source::Written { limit } => {
                limit.saturating_mul(LEVEL_FACTOR)
            }
        }
    }

    /// Most rows of the root.
    fn root_rows(&self, node: &Node<'_>) -> u64 {
        let (Source::Query { limit } | Source::Rows { limit, .. } | Source::Written { limit }) = self.source;
        match node.shape {
            Shape::One => node.limit.unwrap_or(1).min(1),
            Shape::Many => node.limit.unwrap_or(*limit).min(self.most().saturating_add(1)),
            Shape::Count | Shape::Aggregate => 1,
        }
    }

    fn root_most(&self, node: &Node<'_>) -> RowLimit {
        let rows = self.root_rows(node);
        match (node.shape, node.limit) {
            (Shape::Many, Some(_)) => RowLimit::Requested(rows),
            (Shape::Many | Shape::One | Shape::Count | Shape::Aggregate, _) => RowLimit::Configured(rows),
        }
    }

    fn statement(&self, context: &NodeContext<'_, '_>) -> Option<Statement> {
        let is_known = context.above.is_none() && !matches!(self.source, Source::Query { .. });
        if is_known || context.is_without_rows() {
            return None;
        }
        let mut sql = match self.source {
            Source::Query { .. } => Sql::recording(self.dialect),
            Source::Rows { .. } | Source::Written { .. } => Sql::new(self.dialect),
        };
        let outputs = match context.node.shape {
            Shape::Count | Shape::Aggregate => self.counts(&mut sql, context),
            Shape::Many | Shape::One if context.has_window() => self.windowed(&mut sql, context),
            Shape::Many | Shape::One => self.unwindowed(&mut sql, context),
        };
        Some(sql.finish(outputs))
    }

    fn unwindowed(&self, sql: &mut Sql<'_>, context: &NodeContext<'_, '_>) -> Vec<Output> {
        let alias = sql.alias_of(context.node.table);
        let parents = context.joined().map(|_| sql.alias());
        let outputs = results(sql, alias, context, parents);
        self.source_and_filter(sql, context, alias, parents);
        order_by(sql, alias, context.node.table, &context.node.cond, &context.node.order);
        match context.above {
            Some(_) => limit(sql, RowLimit::Configured(self.most().saturating_add(1)), 0),
            // One more than the database's limit tells whether it cut any.
            None if context.is_cut() => {
                limit(sql, RowLimit::Configured(self.root_rows(context.node) + 1), context.node.skip)
            }
            None => limit(sql, self.root_most(context.node), context.node.skip),
        }
        outputs
    }

    /// Rows with a limit per parent, by a window function that numbers those of each parent.
    fn windowed(&self, sql: &mut Sql<'_>, context: &NodeContext<'_, '_>) -> Vec<Output> {
        let outer = sql.alias();
        sql.push("SELECT ");
        let keys = context.joined().map_or(&[][..], |above| above.on).iter().map(|pair| pair.own);
        let columns: Vec<&Column> = context.columns.iter().copied().chain(keys).collect();
        let mut outputs = Vec::with_capacity(columns.len());
        sql.list(", ", columns.iter().enumerate(), |sql, (index, column)| {
            numbered(sql, outer, index);
            outputs.push(sql.result_of(column));
        });
        self.window(sql, context, outer, &context.columns);
        sql.push(" ORDER BY ");
        number(sql, outer);
        limit(sql, RowLimit::Configured(self.most().saturating_add(1)), 0);
        outputs
    }

    /// ` FROM (rows with their number) WHERE the number fits`: the rows have `columns`, then the keys of their parents
    /// where the database compares those, under names of numbers.
    fn window(&self, sql: &mut Sql<'_>, context: &NodeContext<'_, '_>, outer: Alias, columns: &[&Column]) {
        sql.push(" FROM (SELECT ");
        let alias = sql.alias_of(context.node.table);
        let parents = context.joined().map(|_| sql.alias());
        sql.list(", ", columns.iter().enumerate(), |sql, (index, column)| {
            sql.column(alias, column);
            sql.push(" AS ");
            sql.numbered("\"c", index);
        });
        if let (Some(above), Some(parents)) = (context.joined(), parents) {
            for index in 0..above.on.len() {
                sql.push(if columns.is_empty() && index == 0 { "" } else { ", " });
                parents::parent_key(sql, parents, index);
                sql.push(" AS ");
                sql.numbered("\"c", columns.len() + index);
            }
        }
        sql.push(", row_number() OVER (PARTITION BY ");
        match (&context.above, parents) {
            (_, Some(parents)) => number(sql, parents),
            (above, None) => {
                let on = above.as_ref().map_or(&[][..], |above| above.on);
                sql.list(", ", on, |sql, pair| sql.column(alias, pair.far));
            }
        }
        order_by(sql, alias, context.node.table, &context.node.cond, &context.node.order);
        sql.push(") AS \"n\"");
        self.source_and_filter(sql, context, alias, parents);
        sql.push(") AS ");
        sql.named(outer);
        sql.push(" WHERE ");
        number(sql, outer);
        sql.push(" > ");
        sql.constant(context.node.skip);
        if let Some(rows) = context.per_parent() {
            sql.push(" AND ");
            number(sql, outer);
            sql.push(" <= ");
            sql.constant(context.node.skip.saturating_add(rows));
        }
    }

    fn counts(&self, sql: &mut Sql<'_>, context: &NodeContext<'_, '_>) -> Vec<Output> {
        let alias = sql.alias_of(context.node.table);
        let parents = context.joined().map(|_| sql.alias());
        sql.push("SELECT ");
        let mut outputs = Vec::new();
        for column in &context.columns {
            outputs.push(sql.result(alias, column));
            sql.push(", ");
        }
        if let (Some(above), Some(parents)) = (context.joined(), parents) {
            outputs.extend(parents::results(sql, above, parents));
            sql.push(", ");
        }
        sql.push("count(*)");
        outputs.push(Type::Int64.into());
        self.source_and_filter(sql, context, alias, parents);
        if outputs.len() == 1 {
            return outputs;
        }
        sql.push(" GROUP BY ");
        sql.list(", ", &context.columns, |sql, column| sql.column(alias, column));
        if let (Some(above), Some(parents)) = (context.joined(), parents) {
            number(sql, parents);
            for index in 0..above.on.len() {
                sql.push(", ");
                parents::parent_key(sql, parents, index);
            }
        }
        limit(sql, RowLimit::Configured(self.most().saturating_add(1)), 0);
        outputs
    }

    /// Appends ` FROM table WHERE`, with the condition on the parents: a join with their keys, called `parents`, where
    /// there is such a table.
    fn source_and_filter(
        &self,
        sql: &mut Sql<'_>,
        context: &NodeContext<'_, '_>,
        alias: Alias,
        parents: Option<Alias>,
    ) {
        sql.push(" FROM ");
        if let (Some(above), Some(parents)) = (&context.above, parents) {
            self.parents(sql, above, parents);
            sql.push(" JOIN ");
        }
        match &context.above {
            Some(_) => sql.referenced(context.node.table),
            None => sql.table(context.node.table),
        }
        sql.push(" AS ");
        sql.named(alias);
        let Some(above) = &context.above else {
            return sql.filter(alias, &context.node.cond);
        };
        match parents {
            Some(parents) => {
                sql.push(" ON ");
                self.on_parents(sql, above, parents, alias);
                return sql.filter(alias, &context.node.cond);
            }
            None => {
                sql.push(" WHERE ");
                self.parent_filter(sql, alias, context.node.table, above);
            }
        }
        if !context.node.cond.is_true() {
            sql.push(" AND ");
            sql.cond(alias, &context.node.cond);
        }
    }

    /// Appends the condition that the row's key is that of a parent.
    fn parent_filter(&self, sql: &mut Sql<'_>, alias: Alias, table: &Table, above: &ParentLink<'_, '_>) {
        match (self.source, &above.context.above) {
            (Source::Rows { rows, kept, .. }, None) if above.is_exact => parent_values(sql, alias, above, rows, kept),
            (Source::Rows { .. }, None) => self.exists_in_parents(sql, above, alias),
            (Source::Rows { .. } | Source::Written { .. } | Source::Query { .. }, _) => {
                tuple(sql, above.on, |sql, pair| sql.far_key(alias, pair));
                let (before, after) = match above.on {
                    [JoinPair { own, far, .. }] if above.is_exact => self.dialect.subselect(table, far, own),
                    _ => self.dialect.any_of(),
                };
                sql.push(before);
                self.parent_keys(sql, above, KeyUse::Compared);
                sql.push(after);
            }
        }
    }

    /// Appends the subselect of the parents' keys, by the predicate that reads them.
    fn parent_keys(&self, sql: &mut Sql<'_>, above: &ParentLink<'_, '_>, r#use: KeyUse) {
        let context = above.context;
        let after = |sql: &mut Sql<'_>, index: usize| match r#use {
            KeyUse::Compared => sql.own_key(&above.on[index]),
            KeyUse::Named => {
                sql.push(" AS ");
                sql.numbered("\"k", index);
            }
        };
        let key: Vec<&Column> = above.on.iter().map(|pair| pair.own).collect();
        if context.has_window() {
            let outer = sql.alias();
            sql.push("SELECT ");
            sql.list(", ", 0..key.len(), |sql, index| {
                numbered(sql, outer, index);
                after(sql, index);
            });
            self.window(sql, context, outer, &key);
            return;
        }
        let alias = sql.alias_of(context.node.table);
        sql.push("SELECT ");
        sql.list(", ", key.iter().enumerate(), |sql, (index, column)| {
            sql.column(alias, column);
            after(sql, index);
        });
        self.source_and_filter(sql, context, alias, None);
        if context.above.is_none() {
            order_by(sql, alias, context.node.table, &context.node.cond, &context.node.order);
            limit(sql, self.root_most(context.node), context.node.skip);
        }
    }
}

impl<'p, 's> NodeContext<'p, 's> {
    /// The relation that leads here, where the database compares its keys.
    fn joined(&self) -> Option<&ParentLink<'p, 's>> {
        self.above.as_ref().filter(|above| !above.is_exact)
    }

    fn position(&self, column: &Column) -> usize {
        let at = self.columns.iter().position(|known| known.name == column.name);
        at.expect("the columns of a level hold those of its members and keys")
    }

    fn positions<'c>(&self, columns: impl Iterator<Item = &'c Column>) -> Vec<usize> {
        columns.map(|column| self.position(column)).collect()
    }

    /// Whether the database's limit applies to the rows.
    fn is_cut(&self) -> bool {
        self.above.is_none() && self.node.limit.is_none() && self.node.shape == Shape::Many
    }

    /// Rows that each parent has at most; `None` where there is no such limit.
    fn per_parent(&self) -> Option<u64> {
        match self.node.shape {
            Shape::One => Some(self.node.limit.unwrap_or(1).min(1)),
            Shape::Many | Shape::Count | Shape::Aggregate => self.node.limit,
        }
    }

    /// Whether rows have to be counted for each parent; one row at most needs no counting.
    fn has_window(&self) -> bool {
        let is_rows = matches!(self.node.shape, Shape::Many | Shape::One);
        let leads_to_many = self.above.as_ref().is_some_and(|above| above.many);
        is_rows && leads_to_many && (self.node.skip > 0 || self.per_parent().is_some())
    }

    /// Whether skip and limit leave nothing of one row: all that an aggregate or a relation to one has.
    fn is_empty(&self) -> bool {
        let is_single = match (self.node.shape, &self.above) {
            (Shape::Count | Shape::Aggregate, _) => true,
            (Shape::Many | Shape::One, Some(above)) => !above.many,
            (Shape::Many | Shape::One, None) => false,
        };
        self.node.limit == Some(0) || (is_single && self.node.skip > 0)
    }

    /// Whether nothing has to be asked: not for this level, nor for one above it.
    fn is_without_rows(&self) -> bool {
        self.is_empty() || self.above.as_ref().is_some_and(|above| above.context.is_without_rows())
    }
}

/// Columns that a tree needs of its root's rows, in this order: those of members and of relations' keys, each once.
pub fn columns<'s>(node: &Node<'s>) -> Vec<&'s Column> {
    let mut columns = Vec::new();
    for member in &node.members {
        match &member.kind {
            MemberKind::Column(column) => add(&mut columns, column),
            MemberKind::Relation { on, .. } => on.iter().for_each(|pair| add(&mut columns, pair.own)),
            MemberKind::Constant(_) | MemberKind::Count => {}
        }
    }
    columns
}

fn below_columns<'s>(node: &Node<'s>, above: &ParentLink<'_, 's>) -> Vec<&'s Column> {
    let mut columns = columns(node);
    if above.is_exact {
        above.on.iter().for_each(|pair| add(&mut columns, pair.far));
    }
    columns
}

fn add<'s>(columns: &mut Vec<&'s Column>, column: &'s Column) {
    if columns.iter().all(|known| known.name != column.name) {
        columns.push(column);
    }
}

/// Appends `SELECT columns`, and the keys of `parents`; a row of which nothing is asked is still a row.
fn results(sql: &mut Sql<'_>, alias: Alias, context: &NodeContext<'_, '_>, parents: Option<Alias>) -> Vec<Output> {
    sql.push("SELECT ");
    let mut outputs = Vec::with_capacity(context.columns.len());
    sql.list(", ", &context.columns, |sql, column| outputs.push(sql.result(alias, column)));
    if let (Some(above), Some(parents)) = (context.joined(), parents) {
        sql.push(if outputs.is_empty() { "" } else { ", " });
        outputs.extend(parents::results(sql, above, parents));
    }
    if outputs.is_empty() {
        sql.push("1");
        outputs.push(Type::Int32.into());
    }
    outputs
}

/// Appends ` ORDER BY`: what the caller asked for, then what makes the order total, as far as `cond` leaves it open.
pub fn order_by(sql: &mut Sql<'_>, alias: Alias, table: &Table, cond: &Cond<'_>, asked: &[(&Column, bool)]) {
    let ties = tie_breaks(table);
    // A key that may be null is shared by rows, those with nulls.
    let by_row_id = !table.row_id.is_empty() && !is_one(sql.dialect, table, cond);
    // Values that are read as equal may differ in the key.
    let dialect = sql.dialect;
    let is_exact = |column: &Column| dialect.is_exact(column.r#type);
    let is_open = |tie: &&Column| {
        let is_fixed = cond.fixes(&tie.name) || asked.iter().any(|(column, _)| column.name == tie.name);
        !is_fixed || !is_exact(tie)
    };
    let ties: Vec<&Column> = ties.into_iter().filter(is_open).collect();
    if asked.is_empty() && ties.is_empty() && !by_row_id {
        return;
    }
    sql.push(" ORDER BY ");
    sql.list(", ", asked, |sql, (column, descending)| {
        if dialect.sorts_nulls_by_key() {
            return sql.exact_order(alias, column, (column.nullable, *descending));
        }
        sql.form(alias, column);
        sql.push(if *descending { " DESC" } else { "" });
        // What is not of the column's type has no form.
        let may_be_null = column.nullable || dialect.form(column.r#type).is_some();
        sql.only(Variant::Formed, |sql| sql.push(sql.dialect.nulls(may_be_null, *descending)));
        sql.only(Variant::Plain, |sql| sql.push(sql.dialect.nulls(column.nullable, *descending)));
    });
    sql.push(if asked.is_empty() || (ties.is_empty() && !by_row_id) { "" } else { ", " });
    let has_ties = !ties.is_empty();
    sql.list(", ", ties, |sql, column| {
        let is_key = !table.primary_key.is_empty();
        if dialect.sorts_nulls_by_key() && !is_key {
            return sql.exact_order(alias, column, (column.nullable, false));
        }
        sql.column(alias, column);
        sql.push(sql.dialect.nulls(column.nullable && !is_key, false));
    });
    if by_row_id {
        sql.push(if has_ties { ", " } else { "" });
        sql.list(", ", &table.row_id, |sql, name| sql.hidden(alias, name));
    }
}

/// Whether at most one row passes, because `cond` fixes the whole primary key.
pub fn is_one(dialect: &Dialect, table: &Table, cond: &Cond<'_>) -> bool {
    let is_exact = |name: &String| table.column(name).is_ok_and(|column| dialect.is_exact(column.r#type));
    !table.primary_key.is_empty() && table.primary_key.iter().all(|name| cond.fixes(name) && is_exact(name))
}

/// Tie breakers of an order beside hidden columns: the primary key, or all that can be sorted where nothing tells rows
/// apart.
fn tie_breaks(table: &Table) -> Vec<&Column> {
    let sortable = |column: &&Column| {
        let is_long = matches!(column.r#type, Type::Other | Type::Bytes | Type::Address | Type::List(_));
        column.readable && !is_long && column.comparisons() == Comparisons::All
    };
    match (table.primary_key.as_slice(), table.row_id.as_slice()) {
        ([], []) => table.columns.iter().filter(sortable).collect(),
        (key, _) => key.iter().filter_map(|name| table.column(name).ok()).collect(),
    }
}

/// Limit of rows.
enum RowLimit {
    /// Limit of the database's configuration. It is part of the text: for a parameter PostgreSQL's generic plans expect a
    /// tenth of the rows, and walk a whole index in order to find so few (0.7 instead of 0.2 ms for the tracks of 20
    /// artists).
    Configured(u64),
    /// Limit of the request, which is bound.
    Requested(u64),
}

fn limit(sql: &mut Sql<'_>, most: RowLimit, skip: u64) {
    match most {
        RowLimit::Configured(rows) => {
            sql.push(" LIMIT ");
            sql.number(usize::try_from(rows).unwrap_or(usize::MAX));
        }
        RowLimit::Requested(rows) => {
            let (before, after) = sql.dialect.limit();
            sql.push(before);
            sql.constant(rows);
            sql.push(after);
        }
    }
    if skip > 0 {
        sql.push(" OFFSET ");
        sql.constant(skip);
    }
}

fn numbered(sql: &mut Sql<'_>, alias: Alias, index: usize) {
    sql.named(alias);
    sql.push(".");
    sql.numbered("\"c", index);
}

/// Appends the number of a row.
fn number(sql: &mut Sql<'_>, alias: Alias) {
    sql.named(alias);
    sql.push(".\"n\"");
}

/// Appends a row value: items in brackets where they are several.
pub fn tuple<T>(sql: &mut Sql<'_>, items: &[T], write: impl FnMut(&mut Sql<'_>, &T)) {
    let is_single = items.len() < 2;
    sql.push(if is_single { "" } else { "(" });
    sql.list(", ", items, write);
    sql.push(if is_single { "" } else { ")" });
}

/// Appends the condition that the row's key is one of those of `rows`.
///
/// Each column by itself, so that a key of several columns finds some rows more, which have no parent and are left out
/// when the levels are joined.
fn parent_values(sql: &mut Sql<'_>, alias: Alias, above: &ParentLink<'_, '_>, rows: &Rows, kept: &[usize]) {
    let at = above.context.positions(above.on.iter().map(|pair| pair.own));
    sql.list(" AND ", above.on.iter().zip(at), |sql, (pair, at)| {
        let mut seen = HashSet::new();
        let is_new = |row: &&usize| rows.key(**row, at, KeyForm::Equal).is_some_and(|key| seen.insert(key));
        let once = kept.iter().filter(is_new);
        let values: Vec<Typed> = once.filter_map(|row| rows.cell(*row, at).typed(pair.own.r#type)).collect();
        if values.is_empty() {
            return sql.push("FALSE");
        }
        sql.any(alias, pair.far, values);
    });
}
