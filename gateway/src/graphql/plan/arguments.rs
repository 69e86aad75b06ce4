//! Arguments of fields.

use async_graphql_parser::types::Field as Selected;
use async_graphql_value::Value as AstValue;
use query::{Error, Filter, Node, Object, Parser, Shape, Sort, Spelling, Value};

use super::{Planner, parameter::KeyParameter};
use crate::graphql::{
    names::{self, Names},
    refusal::{Located, Refusal, Result},
    value::{EnumValues, has_variables, memory, stored_condition, value},
    variables::Variables,
};

/// Approximate memory of a parameter in bytes, besides the name of its variable or its documents.
pub const PARAMETER_BYTES: usize = 400;

/// The `op` of the dialect: how many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Every row.
    All,
    /// The first row.
    One,
    /// The number of rows.
    Count,
}

impl<'a> Planner<'a> {
    /// Refuses arguments that are not in `known`, or given twice.
    pub fn arguments(&self, field: &Selected, known: &[&str]) -> Result<()> {
        for (index, (name, _)) in field.arguments.iter().enumerate() {
            let argument = name.node.as_str();
            if !known.contains(&argument) {
                let nearest = query::nearest(argument, known.iter().copied());
                let argument = format!("{argument} of {}", field.name.node);
                return Err(Refusal::new(Error::UnknownArgument { argument, nearest }).at(name.pos));
            }
            if field.arguments[..index].iter().any(|(earlier, _)| earlier.node == name.node) {
                return Err(Refusal::malformed(format!("argument {argument} is given twice")).at(name.pos));
            }
        }
        Ok(())
    }

    /// The value of an argument; `None` where it is absent or null.
    pub fn argument(&self, field: &Selected, name: &str, enums: EnumValues) -> Result<Option<Value>> {
        let Some(written) = field.get_argument(name) else { return Ok(None) };
        let variables = if has_variables(&written.node) { self.met_variables() } else { self.variables };
        let value = value(self.document, variables, enums, &written.node).at(written.pos)?;
        self.takes(memory(self.document, &written.node));
        Ok(value.filter(|value| *value != Value::Null))
    }

    /// The variables, of which one is met.
    pub fn met_variables(&self) -> &'a Variables<'a> {
        self.has_variables.set(true);
        self.variables
    }

    /// Errors of `result` stand at the argument called `name`.
    pub fn of_argument<T>(&self, field: &Selected, name: &str, result: std::result::Result<T, Error>) -> Result<T> {
        let at = field.get_argument(name).map_or(field.name.pos, |written| written.pos);
        result.at(at)
    }

    /// The parser of conditions and changes of the table at an index.
    pub fn parser(&self, table: usize) -> Parser<'a> {
        parser(self.names, table)
    }

    /// `where`
    pub fn filter(&mut self, table: usize, field: &Selected) -> Result<Filter> {
        let Some(mut condition) = self.argument(field, "where", EnumValues::Path)? else { return Ok(Filter::TRUE) };
        if !matches!(condition, Value::Object(_)) {
            let wrong = wrong_type("where", "object of conditions", &condition);
            return self.of_argument(field, "where", Err(wrong));
        }
        if self.names.is_renamed(table) {
            condition = stored_condition(self.names, table, condition);
        }
        let filter = self.parser(table).filter(self.names.stored(table), &condition, &mut self.budget);
        self.of_argument(field, "where", filter)
    }

    /// Rows as `where`, `sort`, `skip` and `limit` say, without fields.
    pub fn rows(&mut self, table: usize, field: &Selected) -> Result<Node> {
        Ok(Node {
            filter: self.filter(table, field)?,
            sort: self.sort(table, field)?,
            skip: self.non_negative_integer(field, "skip")?.unwrap_or(0),
            limit: self.non_negative_integer(field, "limit")?,
            ..Node::new(Shape::Many, Vec::new())
        })
    }

    /// The argument `name` as a non-negative integer.
    pub fn non_negative_integer(&self, field: &Selected, name: &str) -> Result<Option<u64>> {
        let Some(value) = self.argument(field, name, EnumValues::Text)? else { return Ok(None) };
        let number = match &value {
            Value::Int(number) => {
                u64::try_from(*number).map_err(|_| Error::Malformed(format!("invalid {name}: must not be negative")))
            }
            Value::Number(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err(Error::OutOfRange { name: name.to_owned(), expected: "integer of 63 bits".to_owned() })
            }
            Value::Number(_) => Err(Error::WrongType {
                name: name.to_owned(),
                expected: "integer".to_owned(),
                found: "number with a fraction".to_owned(),
            }),
            other => Err(wrong_type(name, "integer", other)),
        };
        self.of_argument(field, name, number).map(Some)
    }

    /// `op`
    pub fn op(&self, field: &Selected) -> Result<Op> {
        let op = match self.argument(field, "op", EnumValues::Text)? {
            None => return Ok(Op::All),
            Some(Value::Text(word)) => match word.as_str() {
                "all" => Ok(Op::All),
                "one" => Ok(Op::One),
                "count" => Ok(Op::Count),
                _ => Err(Error::Malformed(format!("invalid op {word:?}: expected one of all, one, count"))),
            },
            Some(other) => Err(wrong_type("op", "all, one or count", &other)),
        };
        self.of_argument(field, "op", op)
    }

    /// `sort`: `"-title"`, `title_desc`, `{title: -1}`, or a list of such.
    fn sort(&self, table: usize, field: &Selected) -> Result<Vec<Sort>> {
        let Some(sort) = self.argument(field, "sort", EnumValues::Text)? else { return Ok(Vec::new()) };
        let mut keys = Vec::new();
        let items = match sort {
            Value::List(items) => items,
            single => vec![single],
        };
        let sorted = items
            .into_iter()
            .try_for_each(|item| self.sort_item(table, item, &mut keys))
            .and_then(|()| self.parser(table).sort(self.names.stored(table), &Value::Object(Object(keys))));
        self.of_argument(field, "sort", sorted)
    }

    /// Adds what `item` says to `keys`, as members of a column's name and 1 or -1.
    fn sort_item(&self, table: usize, item: Value, keys: &mut Vec<(String, Value)>) -> std::result::Result<(), Error> {
        match item {
            Value::Text(text) => keys.push(self.sort_text(table, &text)?),
            Value::Object(Object(members)) => {
                for (name, direction) in members {
                    let direction = match direction {
                        Value::Text(word) if word.eq_ignore_ascii_case("asc") => Value::Int(1),
                        Value::Text(word) if word.eq_ignore_ascii_case("desc") => Value::Int(-1),
                        direction => direction,
                    };
                    keys.push((self.column(table, &name)?, direction));
                }
            }
            other => return Err(wrong_type("sort", "column names", &other)),
        }
        Ok(())
    }

    fn sort_text(&self, table: usize, text: &str) -> std::result::Result<(String, Value), Error> {
        if let Some(name) = text.strip_prefix('-') {
            return Ok((self.column(table, name)?, Value::Int(-1)));
        }
        if let Some(column) = self.find_column(table, text) {
            return Ok((column.to_owned(), Value::Int(1)));
        }
        for (suffix, direction) in [("_asc", 1), ("_desc", -1)] {
            if let Some(name) = text.strip_suffix(suffix) {
                return Ok((self.column(table, name)?, Value::Int(direction)));
            }
        }
        Ok((self.column(table, text)?, Value::Int(1)))
    }

    /// The database's name of the column that GraphQL, or the database, calls `name`.
    fn column(&self, table: usize, name: &str) -> std::result::Result<String, Error> {
        match self.find_column(table, name) {
            Some(column) => Ok(column.to_owned()),
            None => self.names.stored(table).column(name).map(|column| column.name.clone()),
        }
    }

    /// As [`Self::column`], without the costly search for similar names.
    fn find_column(&self, table: usize, name: &str) -> Option<&str> {
        let columns = &self.names.stored(table).columns;
        match self.names.table(table).fields.get(name) {
            Some(names::Field::Column(index)) => Some(&columns[*index].name),
            Some(names::Field::Relation(..) | names::Field::Aggregate(..)) | None => {
                columns.iter().find(|column| column.name == name).map(|column| column.name.as_str())
            }
        }
    }

    /// The condition that a row has the primary key that the arguments give; the read that it is for has the index
    /// `read`.
    pub fn by_key(&mut self, table: usize, field: &Selected, read: usize) -> Result<Filter> {
        let stored = self.names.stored(table);
        let columns = &self.names.table(table).columns;
        let key: Vec<(&str, usize)> = stored
            .primary_key
            .iter()
            .filter_map(|name| stored.columns.iter().position(|column| column.name == *name))
            .map(|index| (columns[index].as_str(), index))
            .collect();
        let known: Vec<&str> = key.iter().map(|(argument, _)| *argument).collect();
        self.arguments(field, &known)?;
        let (mut conditions, columns) = (Vec::with_capacity(key.len()), key.len());
        for (argument, column) in key {
            let parameter = field.get_argument(argument).and_then(|written| match &written.node {
                AstValue::Variable(variable) => Some(KeyParameter {
                    read,
                    condition: (columns > 1).then_some(conditions.len()),
                    variable: variable.as_str().to_owned(),
                    column: stored.columns[column].clone(),
                }),
                _ => None,
            });
            if let Some(parameter) = parameter
                && let Some(filter) = parameter.filter(self.variables)
            {
                self.budget.condition().at(field.name.pos)?;
                self.takes(PARAMETER_BYTES + parameter.variable.len());
                self.parameters.keys.push(parameter);
                conditions.push(filter);
                continue;
            }
            let given = match self.argument(field, argument, EnumValues::Text)? {
                None => Err(Error::Required(format!("argument {argument} of {}", field.name.node))),
                Some(list @ (Value::List(_) | Value::Object(_))) => Err(wrong_type(argument, "single value", &list)),
                Some(single) => Ok(single),
            };
            let given = self.of_argument(field, argument, given)?;
            let equal = Parser::equals(&stored.columns[column], &given, &mut self.budget);
            conditions.push(equal.at(field.name.pos)?);
        }
        Ok(if conditions.len() == 1 { conditions.remove(0) } else { Filter::And(conditions) })
    }
}

/// The parser of conditions, documents and changes of the table at an index.
pub fn parser(names: &Names, table: usize) -> Parser<'_> {
    Parser { schema: names.schema(table), spelling: Spelling::Underscore }
}

/// An argument that holds something else than it should.
pub fn wrong_type(name: &str, expected: &str, found: &Value) -> Error {
    Error::WrongType { name: name.to_owned(), expected: expected.to_owned(), found: found.kind().to_owned() }
}
