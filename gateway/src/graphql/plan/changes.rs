//! Fields of `Subscription` that tell the changes of rows, one message each.

use async_graphql_parser::{Positioned, types::SelectionSet};
use query::{Error, Field, FieldKind, Node, Read, Shape, Value};

use super::{
    Planner, at_field,
    select::{FIELD_BYTES, Group, no_arguments, only_conditional_directives, unknown_member},
};
use crate::graphql::{
    names,
    refusal::{Refusal, Result},
    value::EnumValues,
};

/// What is told of changes of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangesPlan {
    /// Members of a message, in their order, each with its response key.
    pub members: Vec<(String, ChangeMember)>,
    /// What is told of a row as it was; none given means the same as of the row.
    pub before: Vec<Field>,
    /// The rows that there are at the beginning are not told.
    pub skip_initial: bool,
    /// The position to go on after; empty: from now on.
    pub after: String,
}

/// A member of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum ChangeMember {
    /// `INSERT`
    Type,
    /// The row.
    Row,
    /// The row as it was.
    Before,
    /// Why changes may be missing.
    Reason,
    /// Where a later subscription goes on.
    Position,
    /// `AlbumChange`
    Typename(String),
}

const MEMBERS: [&str; 5] = ["type", "row", "before", "reason", "position"];

impl ChangesPlan {
    /// Approximate bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        let keys: usize = self.members.iter().map(|(key, _)| key.len() + FIELD_BYTES).sum();
        let before: usize = self.before.iter().map(|field| field.key.len() + FIELD_BYTES).sum();
        keys + before + self.after.len()
    }
}

impl<'a> Planner<'a> {
    /// The rows of the table at an index that a field of `Subscription` watches, and what it tells of them.
    pub fn changes_root(&mut self, table: usize, group: &Group<'a>) -> Result<(Read, ChangesPlan)> {
        self.budget.operation().map_err(Refusal::new)?;
        self.arguments(group.field, &["where", "initial", "after"])?;
        let filter = self.filter(table, group.field)?;
        let initial = match self.argument(group.field, "initial", EnumValues::Text)? {
            None => Ok(true),
            Some(Value::Bool(initial)) => Ok(initial),
            Some(other) => Err(wrong_type("initial", "boolean", &other)),
        };
        let skip_initial = !self.of_argument(group.field, "initial", initial)?;
        let after = match self.argument(group.field, "after", EnumValues::Text)? {
            None => Ok(String::new()),
            Some(Value::Text(after)) => Ok(after),
            Some(other) => Err(wrong_type("after", "string", &other)),
        };
        let after = self.of_argument(group.field, "after", after)?;
        let (mut members, mut row, mut before) = (Vec::new(), None, None);
        for (key, group) in self.collect(&group.object()?)? {
            let member = self.change_member(table, &group, (&mut row, &mut before));
            members.push((key.to_owned(), member.map_err(|refusal| at_field(refusal, key, &group))?));
        }
        let node = Node { filter, ..Node::new(Shape::Many, row.unwrap_or_default()) };
        let read = Read {
            database: self.names.database_id(table).into(),
            table: (*self.names.stored(table).name).into(),
            node,
        };
        Ok((read, ChangesPlan { members, before: before.unwrap_or_default(), skip_initial, after }))
    }

    fn change_member(
        &mut self,
        table: usize,
        group: &Group<'a>,
        (row, before): (&mut Option<Vec<Field>>, &mut Option<Vec<Field>>),
    ) -> Result<ChangeMember> {
        only_conditional_directives(group)?;
        no_arguments(group)?;
        self.budget.field().map_err(Refusal::new)?;
        let type_name = &self.names.table(table).change_type;
        let (member, columns) = match group.name() {
            "type" => (ChangeMember::Type, None),
            "reason" => (ChangeMember::Reason, None),
            "position" => (ChangeMember::Position, None),
            "__typename" => (ChangeMember::Typename(type_name.clone()), None),
            "row" => (ChangeMember::Row, Some(row)),
            "before" => (ChangeMember::Before, Some(before)),
            name => return Err(unknown_member(name, type_name, &MEMBERS)),
        };
        match columns {
            None => group.leaf()?,
            Some(columns) => {
                let row_type = &self.names.table(table).row_type;
                let fields = self.row_columns(table, &group.object()?, row_type)?;
                if columns.replace(fields).is_some() {
                    return Err(Refusal::malformed(format!("{} is selected twice", group.name())));
                }
            }
        }
        Ok(member)
    }

    /// Columns of the table at an index, as members of a row of the type `row_type`.
    pub fn row_columns(
        &mut self,
        table: usize,
        sets: &[&'a Positioned<SelectionSet>],
        row_type: &str,
    ) -> Result<Vec<Field>> {
        let (names, mut fields) = (self.names.table(table), Vec::new());
        for (key, group) in self.collect(sets)? {
            only_conditional_directives(&group)?;
            no_arguments(&group)?;
            self.budget.field().map_err(Refusal::new)?;
            self.takes(FIELD_BYTES);
            let kind = match (group.name(), names.field(group.name())) {
                ("__typename", _) => FieldKind::Constant(row_type.to_owned()),
                (_, Some(names::Field::Column(column))) => {
                    FieldKind::Column(self.names.stored(table).columns[column].name.clone())
                }
                (_, Some(names::Field::Relation(..) | names::Field::Aggregate(..))) => {
                    let text = format!("field {} is not in {row_type}: changes are told by columns", group.name());
                    return Err(at_field(Refusal::malformed(text), key, &group));
                }
                (name, None) => {
                    let known: Vec<&str> = names.columns.iter().map(String::as_str).collect();
                    return Err(at_field(unknown_member(name, row_type, &known), key, &group));
                }
            };
            group.leaf().map_err(|refusal| at_field(refusal, key, &group))?;
            fields.push(Field { key: key.to_owned(), kind });
        }
        Ok(fields)
    }
}

pub fn wrong_type(name: &str, expected: &str, found: &Value) -> Error {
    Error::WrongType { name: name.to_owned(), expected: expected.to_owned(), found: found.kind().to_owned() }
}
