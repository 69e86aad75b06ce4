//! Root fields: fields of `Query`, and resolution of root field names to tables.

use std::sync::Arc;

use async_graphql_parser::types::Field as Selected;
use async_graphql_value::Value as AstValue;
use mesh::{Code, Fault};
use query::{Error, Field, Node, Operation, Read, Shape};

use super::{
    FieldSource, Planner, RowChanges,
    arguments::Op,
    at_table,
    select::{FIELD_BYTES, Group, is_condition, no_arguments, only_conditional_directives},
};
use crate::{
    catalogue,
    graphql::{
        introspection::NOTHING,
        names::{RootField, RootKind, RootLookup},
        refusal::{Refusal, Result, RootAccess},
    },
};

/// A root field resolved to a table.
pub struct ResolvedRoot {
    /// A table and how it is read.
    pub root: RootField,
    /// The database was named by a directive: the dialect, in which a selection may be absent.
    pub dialect: bool,
}

/// A directive that names a database, and the table if it has one.
struct DatabaseDirective<'a> {
    database: usize,
    table: Option<&'a str>,
}

impl<'a> Planner<'a> {
    /// A field of `Query`.
    pub fn query_root(&mut self, group: &Group<'a>, reads: &mut Vec<Read>) -> Result<FieldSource> {
        if group.name() == "__typename" {
            self.budget.field().map_err(Refusal::new)?;
            no_arguments(group)?;
            only_conditional_directives(group)?;
            group.leaf()?;
            return Ok(FieldSource::Typename);
        }
        if group.name() == NOTHING && self.names.root(NOTHING) == RootLookup::Unknown {
            no_arguments(group)?;
            group.leaf()?;
            return Ok(FieldSource::Null);
        }
        let resolved = self.resolve_root(group, group.name(), Operation::Read)?;
        let table = resolved.root.table;
        let counted = self.budget.operation().map_err(Refusal::new);
        let node = counted.and_then(|()| match resolved.root.kind {
            RootKind::Rows => self.root_rows(&resolved, group),
            RootKind::ByKey => self.root_by_key(table, group, reads.len()),
            RootKind::Aggregate => self.aggregate(table, group),
            RootKind::Changes => {
                Err(Refusal::malformed(format!("field {} is in Subscription, not in Query", group.name())))
            }
        });
        let node = node.map_err(|refusal| at_table(refusal, self.names, table, Operation::Read))?;
        reads.push(Read {
            database: self.names.database_id(table).into(),
            table: (*self.names.stored(table).name).into(),
            node,
        });
        Ok(FieldSource::Read(reads.len() - 1))
    }

    /// A field of `Subscription`: a field of `Query` that reads a table, or one that tells the changes of its rows, of the
    /// schema or in the dialect.
    pub fn subscription_root(
        &mut self,
        group: &Group<'a>,
        reads: &mut Vec<Read>,
        changes: &mut Option<Arc<RowChanges>>,
    ) -> Result<FieldSource> {
        if group.name() != "__typename"
            && let Ok(resolved) = self.resolve_root(group, group.name(), Operation::Read)
        {
            let table = resolved.root.table;
            let planned = match resolved.root.kind {
                RootKind::Changes => {
                    Some(self.changes_root(table, group).map(|(read, plan)| (read, RowChanges::Typed(plan))))
                }
                RootKind::Rows if self.is_feed(&resolved, group) => {
                    Some(self.feed_root(table, group).map(|(read, plan)| (read, RowChanges::Dialect(plan))))
                }
                RootKind::Rows | RootKind::ByKey | RootKind::Aggregate => None,
            };
            if let Some(planned) = planned {
                let (read, plan) = planned.map_err(|refusal| at_table(refusal, self.names, table, Operation::Read))?;
                reads.push(read);
                *changes = Some(Arc::new(plan));
                return Ok(FieldSource::Read(reads.len() - 1));
            }
        }
        match self.query_root(group, reads)? {
            source @ FieldSource::Read(_) => Ok(source),
            _ => Err(Refusal::malformed(format!("field {} is not in Subscription", group.name()))),
        }
    }

    fn root_rows(&mut self, resolved: &ResolvedRoot, group: &Group<'a>) -> Result<Node> {
        let table = resolved.root.table;
        self.arguments(group.field, &["where", "op", "sort", "skip", "limit"])?;
        let mut node = self.rows(table, group.field)?;
        let op = self.op(group.field)?;
        let sets = group.selections();
        if sets.is_empty() && !resolved.dialect && op != Op::Count {
            return Err(group.object().err().unwrap_or_else(|| Refusal::malformed("a selection is missing")));
        }
        node.fields = match sets.is_empty() {
            false => self.fields(table, &sets)?,
            true if op == Op::Count => Arc::default(),
            true => self.all_columns(table)?.into(),
        };
        node.shape = match op {
            Op::All => Shape::Many,
            Op::One => Shape::One,
            Op::Count => {
                if node.skip > 0 || node.limit.is_some() {
                    return Err(Refusal::malformed("invalid op count: skip and limit are not allowed"));
                }
                self.budget.field().map_err(Refusal::new)?;
                return Ok(Node { filter: node.filter, ..Node::new(Shape::Count, Vec::new()) });
            }
        };
        Ok(node)
    }

    fn all_columns(&mut self, table: usize) -> Result<Vec<Field>> {
        let (stored, names) = (self.names.stored(table), self.names.table(table));
        self.takes(stored.columns.len() * FIELD_BYTES);
        let columns = stored.columns.iter().zip(&names.columns).filter(|(column, _)| column.readable);
        let field = |(column, key): (&query::Column, &String)| {
            self.budget.field().map_err(Refusal::new)?;
            Ok(Field { key: key.clone(), ..Field::column(&column.name) })
        };
        columns.map(field).collect()
    }

    fn root_by_key(&mut self, table: usize, group: &Group<'a>, read: usize) -> Result<Node> {
        let filter = self.by_key(table, group.field, read)?;
        let fields = self.fields(table, &group.object()?)?;
        Ok(Node { filter, ..Node::new(Shape::One, fields) })
    }

    /// Resolves the root field `name` (of a mutation: without its verb).
    pub fn resolve_root(&self, group: &Group<'a>, name: &str, operation: Operation) -> Result<ResolvedRoot> {
        let Some(named) = self.database_directive(group.field)? else {
            return self.resolve_without_directive(name, operation);
        };
        let database = &self.project().databases[named.database];
        if database.schema.is_none() {
            return Err(Refusal::new(catalogue::unreachable(database)));
        }
        // Writes are of the table that the field names.
        let real = named.table.filter(|_| operation == Operation::Read);
        let root = match real {
            Some(real) => {
                self.names.table_of(named.database, real).map(|table| RootField { table, kind: RootKind::Rows })
            }
            None => self.names.root_of(named.database, name),
        };
        match root {
            Some(root) => Ok(ResolvedRoot { root, dialect: true }),
            None => Err(self.unknown_table(real.unwrap_or(name), Some(named.database), operation)),
        }
    }

    fn resolve_without_directive(&self, name: &str, operation: Operation) -> Result<ResolvedRoot> {
        match self.names.root(name) {
            RootLookup::Field(root) => Ok(ResolvedRoot { root, dialect: false }),
            RootLookup::Ambiguous(databases) => {
                let id = |database: &usize| &self.project().databases[*database].id;
                let first = databases.first().map(id).map_or("", |id| &**id);
                let text = format!("several databases have a table {name}: say {name} @{first} or {first}_{name}");
                let mut refusal = Refusal::new(Fault::new(Code::UnknownTable, text));
                let access = |database| RootAccess {
                    database: id(database).as_ref().to_owned(),
                    table: name.to_owned(),
                    operation,
                };
                refusal.accesses = databases.iter().map(access).collect();
                Err(refusal)
            }
            RootLookup::Unknown => Err(self.unknown_table(name, None, operation)),
        }
    }

    /// The refusal of an unknown table; `UNAVAILABLE` where it may be in a database that is not reached.
    fn unknown_table(&self, name: &str, database: Option<usize>, operation: Operation) -> Box<Refusal> {
        let unreached = self.project().databases.iter().find(|database| database.schema.is_none());
        let mut refusal = match unreached.filter(|_| database.is_none()) {
            Some(unreached) => {
                let text = format!("table {name} is not known, and {}", unreached.why_unreachable());
                Refusal::new(Fault::new(Code::Unavailable, text))
            }
            None => {
                let nearest = query::nearest(name, self.names.table_names(database));
                Refusal::new(Error::UnknownTable { table: name.to_owned(), nearest })
            }
        };
        let databases = self.project().databases.iter().enumerate();
        let databases = databases.filter(|(index, _)| database.is_none_or(|database| database == *index));
        refusal.accesses = databases
            .map(|(_, database)| RootAccess {
                database: database.id.as_ref().to_owned(),
                table: name.to_owned(),
                operation,
            })
            .collect();
        refusal
    }

    /// The database that a root field's directive names.
    fn database_directive(&self, field: &'a Selected) -> Result<Option<DatabaseDirective<'a>>> {
        let mut directives = field.directives.iter().filter(|directive| !is_condition(directive));
        let Some(directive) = directives.next() else { return Ok(None) };
        if let Some(second) = directives.next() {
            let text = format!("directive @{} is one too many: a field has one database", second.node.name.node);
            return Err(Refusal::malformed(text).at(second.pos));
        }
        let alias = directive.node.name.node.as_str();
        let mut table = None;
        for (name, value) in &directive.node.arguments {
            match (name.node.as_str(), &value.node) {
                ("col", AstValue::String(real)) => table = Some(real.as_str()),
                ("col", _) => {
                    let wrong = Error::WrongType {
                        name: format!("col of @{alias}"),
                        expected: "string".to_owned(),
                        found: "another type".to_owned(),
                    };
                    return Err(Refusal::new(wrong).at(value.pos));
                }
                (other, _) => {
                    let argument = format!("{other} of @{alias}");
                    let nearest = query::nearest(other, ["col"]);
                    return Err(Refusal::new(Error::UnknownArgument { argument, nearest }).at(name.pos));
                }
            }
        }
        match self.database(alias) {
            Some(database) => Ok(Some(DatabaseDirective { database, table })),
            None => Err(self.unknown_database(alias).at(directive.pos)),
        }
    }

    fn database(&self, alias: &str) -> Option<usize> {
        let database = self.project().database(alias)?;
        self.project().databases.iter().position(|other| other.id == database.id)
    }

    fn unknown_database(&self, alias: &str) -> Box<Refusal> {
        let ids = self.project().databases.iter().map(|database| &*database.id);
        let hint = query::nearest(alias, ids).map(|id| format!("; did you mean @{id}?")).unwrap_or_default();
        let text = format!("database {alias} is not in the project{hint}");
        Refusal::new(Fault::new(Code::UnknownDatabase, text))
    }

    fn project(&self) -> &'a crate::catalogue::Project {
        &self.names.project
    }
}
