//! What is answered of each row, as `Select` says it.

use std::collections::{BTreeMap, HashSet};

use proto::api::v1 as api;
use query::{Error, Field, Node, Parser, Shape, Sort, Table, Value, What};

use super::value;

/// A selection whose values are parsed but whose names are not yet held against a schema.
#[derive(Debug, Default)]
pub struct Selection {
    columns: Vec<String>,
    relations: BTreeMap<String, Related>,
}

#[derive(Debug)]
struct Related {
    selection: Selection,
    find: Value,
    order: Vec<String>,
    skip: u64,
    limit: Option<u64>,
}

impl Selection {
    /// The selection of a message; absent: all columns, no relations.
    pub fn of(select: Option<api::Select>) -> Result<Self, Error> {
        let Some(select) = select else { return Ok(Self::default()) };
        let mut seen = HashSet::new();
        if let Some(twice) = select.columns.iter().find(|column| !seen.insert(column.as_str())) {
            return Err(Error::Malformed(format!("column {twice} is selected twice")));
        }
        let mut relations = BTreeMap::new();
        for (name, related) in select.relations {
            relations.insert(name, Related::of(related)?);
        }
        Ok(Self { columns: select.columns, relations })
    }

    /// The members of each row of `table`: columns, then relations in the order of their names. Where it names none of
    /// either: all columns.
    pub fn fields(&self, parser: Parser<'_>, table: &Table) -> Result<Vec<Field>, Error> {
        self.fields_at(parser, table, 1)
    }

    fn fields_at(&self, parser: Parser<'_>, table: &Table, depth: usize) -> Result<Vec<Field>, Error> {
        let limit = parser.limits.depth;
        if depth > limit {
            return Err(Error::TooComplex { what: "depth", seen: depth, limit });
        }
        let mut fields = Vec::new();
        if self.columns.is_empty() && self.relations.is_empty() {
            fields.extend(table.columns.iter().map(|column| Field::column(&column.name)));
        }
        for column in &self.columns {
            fields.push(Field::column(&table.column(column)?.name));
        }
        for (name, related) in &self.relations {
            let relation = table.relation(name)?;
            let far = parser.schema.table(&relation.table)?;
            let node = Node {
                filter: parser.filter(far, &related.find)?,
                sort: sort(parser, far, &related.order)?,
                skip: related.skip,
                limit: related.limit,
                ..Node::new(
                    if relation.many { Shape::Many } else { Shape::One },
                    related.selection.fields_at(parser, far, depth + 1)?,
                )
            };
            fields.push(Field { key: name.clone(), what: What::Relation { name: name.clone(), node } });
        }
        Ok(fields)
    }
}

impl Related {
    fn of(related: api::Related) -> Result<Self, Error> {
        Ok(Self {
            selection: Selection::of(related.select)?,
            find: value::object(related.r#where)?,
            order: related.sort,
            skip: related.skip.into(),
            limit: related.limit.map(u64::from),
        })
    }
}

/// Sort keys out of `name` and `-name`.
pub fn sort(parser: Parser<'_>, table: &Table, keys: &[String]) -> Result<Vec<Sort>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    parser.sort(table, &Value::List(keys.iter().cloned().map(Value::Text).collect()))
}
