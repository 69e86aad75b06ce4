//! Columns of values that a database does not take, and what they expect.
//!
//! The database is asked first, since it alone knows its types; here its refusal is told by the names of the request.

use query::{
    Change, Column, Error as Unfit, FieldKind, Filter, Mutation, MutationKind, Node, Read, Schema, Table, Type, Typed,
    nearest,
};

use crate::{
    Error,
    bind::Bind,
    invalid_value::{InvalidKind, InvalidValue},
    operand::{Operand, stored},
    store::Store,
};

/// Labels of an enumerated type that a message lists.
const LABELS_LISTED: usize = 20;

/// The values of a request by the columns that they are for.
#[derive(Debug, Default)]
struct Uses<'s> {
    /// Columns and values of conditions.
    compared: Vec<(&'s Column, Bind)>,
    /// Columns and values of documents and changes.
    stored: Vec<(&'s Column, Bind)>,
    /// Columns that are added to.
    added: Vec<&'s Column>,
    /// Columns of orders.
    sorted: Vec<&'s Column>,
}

impl InvalidValue {
    /// The error of reads for which the database does not take a value.
    pub fn of_reads(self, store: &Store, schema: &Schema, reads: &[Read]) -> Error {
        let mut uses = Uses::default();
        for read in reads {
            if let Ok(table) = schema.table(&read.table) {
                uses.node(schema, table, &read.node);
            }
        }
        match (self.kind, &self.value) {
            // What is stored, or what a view makes of it, is nobody's who reads.
            (
                InvalidKind::Malformed | InvalidKind::TooLong | InvalidKind::OutOfRange | InvalidKind::Characters,
                None,
            )
            | (InvalidKind::Computation, _) => Error::Database(self.cause),
            _ => self.named(store, &uses),
        }
    }

    /// The error of mutations for which the database does not take a value.
    pub fn of_mutations(self, store: &Store, schema: &Schema, mutations: &[Mutation]) -> Error {
        let mut uses = Uses::default();
        for mutation in mutations {
            if let Ok(table) = schema.table(&mutation.table) {
                uses.mutation(schema, table, mutation);
            }
        }
        self.named(store, &uses)
    }

    fn named(&self, store: &Store, uses: &Uses<'_>) -> Error {
        let columns = self.columns(uses);
        let Some(first) = columns.first() else { return self.unnamed() };
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let name = names.join(" or ");
        let wrong_type = |expected: String, found: &str| {
            Error::Query(Unfit::WrongType { name: name.clone(), expected, found: found.to_owned() })
        };
        match self.kind {
            InvalidKind::Malformed if columns.len() == 1 => self.malformed(store, first),
            InvalidKind::Malformed => wrong_type(expected(first), "string in another form"),
            InvalidKind::TooLong => Error::Query(Unfit::OutOfRange { name, expected: length_text(first) }),
            InvalidKind::OutOfRange => Error::Query(Unfit::OutOfRange { name, expected: expected(first) }),
            InvalidKind::Characters => {
                wrong_type("string of the characters that the database stores".to_owned(), "string with others")
            }
            InvalidKind::Incomparable => Error::WrongType(format!(
                "invalid comparison or sort of {name}: the database has no such operator for {}",
                first.native
            )),
            InvalidKind::Computation => self.unnamed(),
        }
    }

    /// The error where no column can be meant, or too many.
    fn unnamed(&self) -> Error {
        match self.kind {
            InvalidKind::Malformed => Error::WrongType("a value is malformed for the type of its column".to_owned()),
            InvalidKind::TooLong => Error::OutOfRange("a string is too long for its column".to_owned()),
            InvalidKind::OutOfRange => Error::OutOfRange("a number is out of range of its column".to_owned()),
            InvalidKind::Characters => {
                Error::WrongType("a string has characters that the database cannot store".to_owned())
            }
            InvalidKind::Incomparable => Error::WrongType("a column cannot be compared or sorted that way".to_owned()),
            InvalidKind::Computation => {
                Error::WrongType("the database cannot compute with a value, as in a division by zero".to_owned())
            }
        }
    }

    fn malformed(&self, store: &Store, column: &Column) -> Error {
        let name = column.name.clone();
        let Some(labels) = store.labels(&column.native) else {
            let found = "string in another form".to_owned();
            return Error::Query(Unfit::WrongType { name, expected: expected(column), found });
        };
        let listed = labels.iter().take(LABELS_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if labels.len() > LABELS_LISTED { ", …" } else { "" };
        let near = match &self.value {
            Some(Bind::Value(Typed::Other(text))) => nearest(text, labels.iter().map(String::as_str)),
            Some(_) | None => None,
        };
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let found = format!("another string{hint}");
        Error::Query(Unfit::WrongType { name, expected: format!("one of {listed}{more}"), found })
    }

    /// The columns that may be meant, each once; none where they are more than a message can name.
    fn columns<'s>(&self, uses: &Uses<'s>) -> Vec<&'s Column> {
        let meant = |(_, bind): &&(&Column, Bind)| self.value.as_ref().is_none_or(|value| value.is_made_of(bind));
        let compared = || uses.compared.iter().filter(meant).map(|(column, _)| *column);
        let mut columns: Vec<&Column> = match self.kind {
            InvalidKind::TooLong => {
                uses.stored.iter().filter(|(column, bind)| is_too_long(column, bind)).map(first).collect()
            }
            InvalidKind::OutOfRange if self.value.is_none() => {
                let numbers = uses.stored.iter().map(first).filter(|column| column.r#type.is_number());
                if uses.added.is_empty() { numbers.collect() } else { uses.added.clone() }
            }
            InvalidKind::Incomparable => uses.sorted.iter().copied().chain(compared()).collect(),
            InvalidKind::Malformed | InvalidKind::OutOfRange | InvalidKind::Characters => {
                compared().chain(uses.stored.iter().filter(meant).map(first)).collect()
            }
            InvalidKind::Computation => Vec::new(),
        };
        if let Some(named) = &self.column {
            let stored = uses.stored.iter().map(first).chain(uses.added.iter().copied());
            columns = stored.filter(|column| *column.name == **named).collect();
        }
        let mut seen = std::collections::HashSet::new();
        columns.retain(|column| seen.insert(&column.name));
        if columns.len() > 1 || self.kind == InvalidKind::Incomparable {
            let of_type: Vec<&Column> =
                columns.iter().copied().filter(|column| self.said.contains(type_name(column))).collect();
            if !of_type.is_empty() || self.kind == InvalidKind::Incomparable {
                columns = of_type;
            }
        }
        if columns.len() > 3 { Vec::new() } else { columns }
    }
}

impl<'s> Uses<'s> {
    fn node(&mut self, schema: &'s Schema, table: &'s Table, node: &Node) {
        self.filter(schema, table, &node.filter);
        self.sorted.extend(node.sort.iter().filter_map(|key| table.column(&key.column).ok()));
        for field in node.fields.iter() {
            if let FieldKind::Relation { name, node } = &field.kind
                && let Ok(far) = table.relation(name).and_then(|relation| schema.target(relation))
            {
                self.node(schema, far, node);
            }
        }
    }

    fn filter(&mut self, schema: &'s Schema, table: &'s Table, filter: &Filter) {
        match filter {
            Filter::And(filters) | Filter::Or(filters) => {
                filters.iter().for_each(|filter| self.filter(schema, table, filter));
            }
            Filter::Not(filter) => self.filter(schema, table, filter),
            Filter::Compare { column, value, .. } => self.compared(table, column, std::slice::from_ref(value)),
            Filter::In { column, values } => self.compared(table, column, values),
            Filter::IsNull { .. } => {}
            Filter::Related { relation, filter, .. } => {
                if let Ok(far) = table.relation(relation).and_then(|relation| schema.target(relation)) {
                    self.filter(schema, far, filter);
                }
            }
        }
    }

    fn mutation(&mut self, schema: &'s Schema, table: &'s Table, mutation: &Mutation) {
        match &mutation.kind {
            MutationKind::Insert { docs } => {
                for (name, value) in docs.iter().flat_map(|doc| &doc.0) {
                    self.stored(table, name, value);
                }
            }
            MutationKind::Update { filter, changes, .. } => {
                self.filter(schema, table, filter);
                for change in changes {
                    match change {
                        Change::Set { column, value } => self.stored(table, column, value),
                        Change::Inc { column, .. } => self.added.extend(table.column(column)),
                    }
                }
            }
            MutationKind::Delete { filter, .. } => self.filter(schema, table, filter),
        }
        if let Some(node) = &mutation.returning {
            self.node(schema, table, node);
        }
    }

    fn compared(&mut self, table: &'s Table, name: &str, values: &[Typed]) {
        let Ok(column) = table.column(name) else { return };
        for value in values {
            if let Ok(value) = value.compared_with(column) {
                self.compared.push((column, Bind::Value(value.into_owned())));
            }
        }
        if let Ok(list) = Typed::all_compared_with(values, column) {
            self.compared.push((column, Bind::List(list.into_owned())));
        }
    }

    fn stored(&mut self, table: &'s Table, name: &str, value: &Typed) {
        let Ok(column) = table.column(name) else { return };
        if let Ok(value) = stored(column, value) {
            self.stored.push((column, Bind::Value(value.into_owned())));
        }
    }
}

fn first<'s>((column, _): &(&'s Column, Bind)) -> &'s Column {
    column
}

/// What a value of the column looks like, for messages.
fn expected(column: &Column) -> String {
    match column.r#type {
        Type::Other | Type::Any | Type::Decimal | Type::Address | Type::List(_) => column.native.clone(),
        other => other.expected().to_owned(),
    }
}

/// The name of the column's type, without its arguments.
fn type_name(column: &Column) -> &str {
    column.native.split(['(', '[']).next().unwrap_or_default()
}

/// The characters that a column declares: `character varying(3)`, `varchar(3)`.
fn length(column: &Column) -> Option<usize> {
    let (name, rest) = column.native.split_once('(')?;
    (name.starts_with("char") || name == "varchar").then(|| rest.split_once(')')?.0.parse().ok())?
}

fn length_text(column: &Column) -> String {
    match length(column) {
        Some(length) => format!("string of at most {length} characters"),
        None => column.native.clone(),
    }
}

fn is_too_long(column: &Column, bind: &Bind) -> bool {
    let Bind::Value(Typed::Text(text) | Typed::Other(text)) = bind else { return false };
    match length(column) {
        // Blanks at the end are cut off.
        Some(length) => text.trim_end_matches(' ').chars().count() > length,
        // Such as `varchar(3)[]` and `bit(3)`.
        None => matches!(column.r#type, Type::Other | Type::List(_)) && column.native.contains('('),
    }
}

#[cfg(test)]
mod tests;
