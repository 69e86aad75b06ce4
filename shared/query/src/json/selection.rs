//! Selections: the fields of each row, with sort, skip and limit.

use std::sync::Arc;

use super::name::{Name, wrong_type};
use crate::error::truncated;
use crate::{
    Budget, Error, Field, FieldKind, Filter, Node, Object, Options, Parser, Relation, SelectionCost, Shape, Sort,
    Table, Value, nearest, number,
};

impl Parser<'_> {
    pub(super) fn selection(&self, table: &Table, options: &Options, budget: &mut Budget) -> Result<Node, Error> {
        let fields = match &options.select {
            None | Some(Value::Null) => self.columns(table, budget)?,
            Some(Value::List(names)) if names.is_empty() => self.columns(table, budget)?,
            Some(Value::Object(tree)) if tree.0.is_empty() => self.columns(table, budget)?,
            Some(Value::List(names)) => self.names(table, names, budget)?.into(),
            Some(Value::Object(tree)) => self.tree(table, tree, budget)?.into(),
            Some(select) => return Err(wrong_type("select", "array of names or object", select)),
        };
        Ok(Node {
            sort: options.sort.as_ref().map_or(Ok(Vec::new()), |sort| self.order(table, sort))?,
            skip: count("skip", options.skip.as_ref())?.unwrap_or(0),
            limit: count("limit", options.limit.as_ref())?,
            ..Node::new(Shape::Many, fields)
        })
    }

    /// All columns, each of which counts.
    fn columns(&self, table: &Table, budget: &mut Budget) -> Result<Arc<[Field]>, Error> {
        let fields = table.columns.iter().filter(|column| column.readable).count();
        budget.selection(SelectionCost { fields, ..SelectionCost::default() })?;
        Ok(Field::all_columns())
    }

    /// `["title", "artist"]`
    fn names(&self, table: &Table, names: &[Value], budget: &mut Budget) -> Result<Vec<Field>, Error> {
        let mut fields: Vec<Field> = Vec::with_capacity(names.len());
        for name in names {
            let Value::Text(name) = name else {
                return Err(wrong_type("select", "array of names", name));
            };
            self.select(table, name, &Value::Int(1), &mut fields, budget)?;
        }
        Ok(fields)
    }

    /// `{"title": 1, "artist": {"select": {"name": 1}}}`
    fn tree(&self, table: &Table, tree: &Object, budget: &mut Budget) -> Result<Vec<Field>, Error> {
        let mut fields = Vec::with_capacity(tree.0.len());
        for (key, value) in &tree.0 {
            self.select(table, key, value, &mut fields, budget)?;
        }
        Ok(fields)
    }

    /// Adds what `key` names to `fields`, unless it is there.
    fn select(
        &self,
        table: &Table,
        key: &str,
        value: &Value,
        fields: &mut Vec<Field>,
        budget: &mut Budget,
    ) -> Result<(), Error> {
        let name = self.name(table, key).map_err(|error| match (error, value) {
            // Only a relation has options.
            (Error::UnknownColumn { table, column, nearest }, Value::Object(_)) => {
                Error::UnknownRelation { table, relation: column, nearest }
            }
            (error, _) => error,
        })?;
        let field = match (name, value) {
            (Name::Column(column), Value::Int(1) | Value::Bool(true)) => Field::column(&column.name),
            (Name::Relation(relation), Value::Int(1) | Value::Bool(true)) => {
                self.relation(relation, key, &Object::default(), budget)?
            }
            (Name::Relation(relation), Value::Object(options)) => self.relation(relation, key, options, budget)?,
            (_, Value::Int(0) | Value::Bool(false)) => {
                return Err(Error::Malformed(format!(
                    "select cannot leave out {}: name what to select",
                    truncated(key)
                )));
            }
            (Name::Column(column), _) => return Err(wrong_type(format!("select of {}", column.name), "1", value)),
            (Name::Relation(relation), _) => {
                return Err(wrong_type(format!("select of {}", relation.name), "1 or object of options", value));
            }
        };
        if fields.iter().any(|known| known.key == field.key) {
            return Ok(());
        }
        budget.field()?;
        fields.push(field);
        Ok(())
    }

    /// The rows that `relation`, which `key` calls, leads to, as the options say.
    fn relation(&self, relation: &Relation, key: &str, given: &Object, budget: &mut Budget) -> Result<Field, Error> {
        let far = self.schema.target(relation)?;
        let mut options = Options::default();
        let mut find = None;
        for (key, value) in &given.0 {
            let place = match key.as_str() {
                "select" => &mut options.select,
                "find" | "where" => &mut find,
                "sort" if relation.many => &mut options.sort,
                "skip" if relation.many => &mut options.skip,
                "limit" if relation.many => &mut options.limit,
                _ => return Err(unknown_option(relation, key)),
            };
            if place.replace(value.clone()).is_some() {
                return Err(Error::Malformed(format!("relation {} has both find and where", relation.name)));
            }
        }
        budget.enter_relation()?;
        let filter = find.map_or(Ok(Filter::TRUE), |find| self.condition(far, &find, budget));
        let node = filter.and_then(|filter| Ok(Node { filter, ..self.selection(far, &options, budget)? }));
        let mut node = node.map_err(|error| error.in_related(far))?;
        budget.leave_relation();
        if !relation.many {
            node.shape = Shape::One;
        }
        let key = relation.called(key).to_owned();
        Ok(Field { key, kind: FieldKind::Relation { name: relation.name.clone(), node } })
    }

    pub(super) fn order(&self, table: &Table, sort: &Value) -> Result<Vec<Sort>, Error> {
        let mut keys: Vec<Sort> = Vec::new();
        match sort {
            Value::Null => {}
            Value::Text(key) => keys.push(self.sort_key(table, key)?),
            Value::List(items) => {
                for item in items {
                    let Value::Text(key) = item else {
                        return Err(wrong_type("sort", "array of names such as name and -name", item));
                    };
                    keys.push(self.sort_key(table, key)?);
                }
            }
            Value::Object(Object(members)) => {
                for (key, direction) in members {
                    keys.push(self.directed(table, key, direction)?);
                }
            }
            Value::Bool(_) | Value::Int(_) | Value::Number(_) => {
                return Err(wrong_type("sort", "string, array of strings or object", sort));
            }
        }
        let mut seen = std::collections::HashSet::new();
        // A second key of the same column never decides.
        keys.retain(|key| seen.insert(key.column.clone()));
        Ok(keys)
    }

    /// `name` or `-name`.
    fn sort_key(&self, table: &Table, key: &str) -> Result<Sort, Error> {
        match key.strip_prefix('-') {
            Some(rest) if self.known(table, key).is_none() => self.sorted(table, rest, true),
            _ => self.sorted(table, key, false),
        }
    }

    /// `name: 1` or `name: -1`.
    fn directed(&self, table: &Table, key: &str, direction: &Value) -> Result<Sort, Error> {
        match direction {
            Value::Int(1) => self.sorted(table, key, false),
            Value::Int(-1) => self.sorted(table, key, true),
            _ => Err(wrong_type(format!("sort of {}", truncated(key)), "1 or -1", direction)),
        }
    }

    fn sorted(&self, table: &Table, key: &str, descending: bool) -> Result<Sort, Error> {
        let column = self.column(table, key)?;
        column.check_sort()?;
        Ok(Sort { column: column.name.clone(), descending })
    }
}

/// The number of rows that an argument gives; `None` where it is absent or null.
pub fn count(name: &str, value: Option<&Value>) -> Result<Option<u64>, Error> {
    let value = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let number = match value {
        Value::Int(number) => *number,
        Value::Number(text) => match number::integral(text) {
            number::Integral::Whole(number) => number,
            number::Integral::Fraction => {
                return Err(Error::WrongType {
                    name: name.to_owned(),
                    expected: "integer".to_owned(),
                    found: "number with a fraction".to_owned(),
                });
            }
            number::Integral::Outside => {
                return Err(Error::OutOfRange { name: name.to_owned(), expected: "integer of 64 bits".to_owned() });
            }
        },
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => {
            return Err(wrong_type(name, "integer", value));
        }
    };
    match u64::try_from(number) {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Error::Malformed(format!("invalid {name}: must not be negative"))),
    }
}

fn unknown_option(relation: &Relation, key: &str) -> Error {
    let known: &[&str] = if relation.many {
        &["select", "find", "where", "sort", "skip", "limit"]
    } else {
        &["select", "find", "where"]
    };
    let key = truncated(key);
    let nearest = nearest(&key, known.iter().copied());
    Error::UnknownArgument { argument: format!("{}.{key}", relation.name), nearest }
}
