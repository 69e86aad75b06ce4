//! Fields of `Subscription` in the dialect: a table of a database that a directive names, whose rows are told one message
//! each, in the form that clients of the predecessor know.

use async_graphql_parser::types::{Field as Selected, Selection};
use query::{Error, Field, FieldKind, Node, Object, Read, Shape, Value};

use super::{
    Planner, at_field,
    changes::wrong_type,
    root::ResolvedRoot,
    select::{FIELD_BYTES, Group, is_condition, no_arguments, only_conditional_directives, unknown_member},
};
use crate::graphql::{
    refusal::{Refusal, Result},
    value::EnumValues,
};

/// What is told of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedPlan {
    /// Members of a message, in their order, each with its response key.
    pub members: Vec<(String, FeedMember)>,
    /// The table.
    pub group: String,
    /// The database, as the document spells it.
    pub db_type: String,
    /// Columns by which rows are told apart.
    pub key_columns: usize,
    /// The rows that there are at the beginning are not told.
    pub skip_initial: bool,
}

/// A member of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedMember {
    /// The client's id of the subscription.
    Id,
    /// `insert`
    Type,
    /// The row; of one that is gone, its key.
    Payload,
    /// The key: columns and values.
    Find,
    /// The key as a text.
    DocId,
    /// When it was committed, in milliseconds since the Unix epoch.
    Time,
    /// The table.
    Group,
    /// The database.
    DbType,
    /// `subscribe_album`
    Typename,
}

const MEMBERS: [&str; 8] = ["id", "type", "payload", "find", "docId", "time", "group", "dbType"];
/// The member of a payload that has the table's name, whether it is selected or not.
pub const PAYLOAD_TYPENAME: &str = "__typename";

impl FeedPlan {
    /// Approximate bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        let keys: usize = self.members.iter().map(|(key, _)| key.len() + FIELD_BYTES).sum();
        keys + self.group.len() + self.db_type.len()
    }
}

impl<'a> Planner<'a> {
    /// Whether a field of rows is in the dialect: a directive names its database, or it selects `payload`, which no field
    /// of a row is called.
    pub fn is_feed(&self, resolved: &ResolvedRoot, group: &Group<'a>) -> bool {
        let selects_payload = || {
            let mut items = group.selections().into_iter().flat_map(|set| &set.node.items);
            items.any(|item| matches!(&item.node, Selection::Field(field) if field.node.name.node == "payload"))
        };
        let has_payload = || self.names.table(resolved.root.table).field("payload").is_some();
        resolved.dialect || (selects_payload() && !has_payload())
    }

    /// The rows of the table at an index that a field of the dialect watches, and what it tells of them.
    pub fn feed_root(&mut self, table: usize, group: &Group<'a>) -> Result<(Read, FeedPlan)> {
        self.budget.operation().map_err(Refusal::new)?;
        self.arguments(group.field, &["where", "skipInitial", "options"])?;
        let filter = self.filter(table, group.field)?;
        let skip_initial = self.skips_initial(group.field)?;
        let (mut members, mut payload) = (Vec::new(), None);
        for (key, group) in self.collect(&group.object()?)? {
            let member = self.feed_member(table, &group, &mut payload);
            members.push((key.to_owned(), member.map_err(|refusal| at_field(refusal, key, &group))?));
        }
        let (database, stored) = (self.names.database_id(table), self.names.stored(table));
        // Without a payload too: a row that is another is told.
        let fields = payload.unwrap_or_else(|| vec![Field::columns()]);
        let node = Node { filter, ..Node::new(Shape::Many, fields) };
        let read = Read { database: database.into(), table: (*stored.name).into(), node };
        let directive = group.field.directives.iter().find(|directive| !is_condition(directive));
        let db_type = directive.map_or(database, |directive| directive.node.name.node.as_str()).to_owned();
        let key_columns = stored.identity().map_or(0, <[String]>::len);
        Ok((read, FeedPlan { members, group: stored.name.clone(), db_type, key_columns, skip_initial }))
    }

    fn skips_initial(&self, field: &Selected) -> Result<bool> {
        let of_options = match self.argument(field, "options", EnumValues::Text)? {
            None => Ok(None),
            Some(Value::Object(options)) => skip_option(options),
            Some(other) => Err(wrong_type("options", "object", &other)),
        };
        let of_options = self.of_argument(field, "options", of_options)?;
        let skip = match self.argument(field, "skipInitial", EnumValues::Text)?.or(of_options) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(skip)) => Ok(skip),
            Some(other) => Err(wrong_type("skipInitial", "boolean", &other)),
        };
        self.of_argument(field, "skipInitial", skip)
    }

    fn feed_member(&mut self, table: usize, group: &Group<'a>, payload: &mut Option<Vec<Field>>) -> Result<FeedMember> {
        only_conditional_directives(group)?;
        no_arguments(group)?;
        self.budget.field().map_err(Refusal::new)?;
        let member = match group.name() {
            "id" => FeedMember::Id,
            "type" => FeedMember::Type,
            "find" => FeedMember::Find,
            "docId" => FeedMember::DocId,
            "time" => FeedMember::Time,
            "group" => FeedMember::Group,
            "dbType" => FeedMember::DbType,
            "__typename" => FeedMember::Typename,
            "payload" => {
                let fields = self.payload(table, group)?;
                if payload.replace(fields).is_some() {
                    return Err(Refusal::malformed("payload is selected twice".to_owned()));
                }
                return Ok(FeedMember::Payload);
            }
            name => {
                let of = format!("subscribe_{}", self.names.stored(table).name);
                return Err(unknown_member(name, &of, &MEMBERS));
            }
        };
        group.leaf()?;
        Ok(member)
    }

    /// The columns of a payload, all where none is selected, and the table's name.
    fn payload(&mut self, table: usize, group: &Group<'a>) -> Result<Vec<Field>> {
        let name = self.names.stored(table).name.clone();
        let sets = group.selections();
        let mut fields = match sets.is_empty() {
            true => vec![Field::columns()],
            false => self.row_columns(table, &sets, &name)?,
        };
        if !fields.iter().any(|field| field.key == PAYLOAD_TYPENAME) {
            self.takes(FIELD_BYTES);
            fields.push(Field { key: PAYLOAD_TYPENAME.to_owned(), kind: FieldKind::Constant(name) });
        }
        Ok(fields)
    }
}

/// The only option that there is.
fn skip_option(Object(options): Object) -> std::result::Result<Option<Value>, Error> {
    let mut skip = None;
    for (name, value) in options {
        if name != "skipInitial" {
            let nearest = query::nearest(&name, ["skipInitial"]);
            return Err(Error::UnknownArgument { argument: format!("options.{name}"), nearest });
        }
        skip = Some(value);
    }
    Ok(skip)
}
