//! Selections of gRPC requests.

use std::collections::{BTreeMap, HashSet};

use proto::api::v1 as api;
use query::{Budget, Error, Field, FieldKind, Guard, Node, Parser, Shape, Sort, Table, Value};

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
    pub fn of(select: Option<api::Select>, guard: &mut Guard) -> Result<Self, Error> {
        let Some(select) = select else { return Ok(Self::default()) };
        let mut seen = HashSet::new();
        if let Some(twice) = select.columns.iter().find(|column| !seen.insert(column.as_str())) {
            return Err(Error::Malformed(format!("column {twice} is selected twice")));
        }
        let mut relations = BTreeMap::new();
        for (name, related) in select.relations {
            relations.insert(name, Related::of(related, guard)?);
        }
        Ok(Self { columns: select.columns, relations })
    }

    /// The members of each row of `table`: columns, then relations in the order of their names. Where it names none of
    /// either: all columns.
    pub fn fields(&self, parser: Parser<'_>, table: &Table, budget: &mut Budget) -> Result<Vec<Field>, Error> {
        let mut fields = Vec::new();
        if self.columns.is_empty() && self.relations.is_empty() {
            let mut readable = table.columns.iter().filter(|column| column.readable);
            readable.try_for_each(|_| budget.field())?;
            fields.push(Field::columns());
        }
        for column in &self.columns {
            budget.field()?;
            fields.push(Field::column(&table.column(column)?.name));
        }
        for (name, related) in &self.relations {
            let relation = table.relation(name)?;
            let far = parser.schema.target(relation)?;
            budget.field()?;
            budget.enter_relation()?;
            let shape = if relation.many { Shape::Many } else { Shape::One };
            let node = related.node(parser, far, shape, budget).map_err(|error| error.in_related(far))?;
            budget.leave_relation();
            fields.push(Field { key: name.clone(), kind: FieldKind::Relation { name: name.clone(), node } });
        }
        Ok(fields)
    }
}

impl Related {
    fn of(related: api::Related, guard: &mut Guard) -> Result<Self, Error> {
        Ok(Self {
            selection: Selection::of(related.select, guard)?,
            find: value::object(related.r#where, guard)?,
            order: related.sort,
            skip: related.skip.into(),
            limit: related.limit.map(u64::from),
        })
    }

    /// The read of `table`, to which the relation leads.
    fn node(&self, parser: Parser<'_>, table: &Table, shape: Shape, budget: &mut Budget) -> Result<Node, Error> {
        Ok(Node {
            filter: parser.filter(table, &self.find, budget)?,
            sort: sort(parser, table, &self.order)?,
            skip: self.skip,
            limit: self.limit,
            ..Node::new(shape, self.selection.fields(parser, table, budget)?)
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
