//! Fields of `Mutation`.

use async_graphql_parser::types::Field as Selected;
use mesh::{Code, Fault};
use query::{Change, Error, Mutation, MutationKind, Node, Object, Operation, Shape, Value};

use super::{
    FieldSource, PayloadField, PayloadValue, Planner,
    arguments::{Op, wrong_type},
    at_field, at_table,
    root::ResolvedRoot,
    select::{Group, no_arguments, only_conditional_directives, unknown_member},
};
use crate::graphql::{
    names::RootKind,
    refusal::{Refusal, Result},
    value::{EnumValues, stored_members},
};

const VERBS: [(&str, Operation); 3] =
    [("insert_", Operation::Create), ("update_", Operation::Update), ("delete_", Operation::Delete)];

impl<'a> Planner<'a> {
    /// A field of `Mutation`.
    pub fn mutation_root(&mut self, group: &Group<'a>, writes: &mut Vec<(String, Mutation)>) -> Result<FieldSource> {
        if group.name() == "__typename" {
            no_arguments(group)?;
            only_conditional_directives(group)?;
            group.leaf()?;
            self.budget.field().map_err(Refusal::new)?;
            return Ok(FieldSource::Typename);
        }
        let verb = VERBS.iter().find_map(|(verb, operation)| Some((*operation, group.name().strip_prefix(verb)?)));
        let Some((operation, name)) = verb else { return Err(unknown_mutation(group.name())) };
        let resolved = self.resolve_root(group, name, operation)?;
        let table = resolved.root.table;
        let (mutation, members) = self
            .mutation(&resolved, group, operation)
            .map_err(|refusal| at_table(refusal, self.names, table, operation))?;
        writes.push((self.names.database_id(table).to_owned(), mutation));
        Ok(FieldSource::Write(writes.len() - 1, members))
    }

    fn mutation(
        &mut self,
        resolved: &ResolvedRoot,
        group: &Group<'a>,
        operation: Operation,
    ) -> Result<(Mutation, Vec<PayloadField>)> {
        let table = resolved.root.table;
        let stored = self.names.stored(table);
        if resolved.root.kind != RootKind::Rows {
            return Err(unknown_mutation(group.name()));
        }
        stored.check_operation(operation).map_err(Refusal::new)?;
        self.budget.operation().map_err(Refusal::new)?;
        let kind = match operation {
            Operation::Create => self.insert(table, group.field),
            Operation::Update => self.update(table, group.field),
            Operation::Delete => self.delete(table, group.field),
            Operation::Read => return Err(unknown_mutation(group.name())),
        }?;
        let sets = if resolved.dialect { group.selections() } else { group.object()? };
        let mut returning = None;
        let mut members = Vec::new();
        for (key, group) in self.collect(&sets)? {
            let value = self.member(table, &group, &mut returning).map_err(|refusal| at_field(refusal, key, &group))?;
            members.push(PayloadField { key: key.to_owned(), value });
        }
        Ok((Mutation { table: stored.name.clone(), kind, returning }, members))
    }

    fn member(&mut self, table: usize, group: &Group<'a>, returning: &mut Option<Node>) -> Result<PayloadValue> {
        only_conditional_directives(group)?;
        no_arguments(group)?;
        if group.name() == "returning" {
            if returning.is_some() {
                return Err(Refusal::malformed("returning can be selected under one key only"));
            }
            let fields = self.fields(table, &group.object()?)?;
            *returning = Some(Node::new(Shape::Many, fields));
            return Ok(PayloadValue::Returning);
        }
        group.leaf()?;
        let type_name = &self.names.table(table).mutation_type;
        // Every protocol tells how many rows and which; the rest is GraphQL's alone.
        if group.name() != "affected" {
            self.budget.field().map_err(Refusal::new)?;
        }
        match group.name() {
            "status" => Ok(PayloadValue::Status),
            "error" => Ok(PayloadValue::Error),
            "affected" => Ok(PayloadValue::Affected),
            "__typename" => Ok(PayloadValue::Typename(type_name.clone())),
            name => Err(unknown_member(name, type_name, &["status", "error", "affected", "returning"])),
        }
    }

    fn insert(&mut self, table: usize, field: &Selected) -> Result<MutationKind> {
        self.arguments(field, &["docs"])?;
        let docs = match self.argument(field, "docs", EnumValues::Text)? {
            None => Vec::new(),
            Some(docs) => {
                let docs = match docs {
                    Value::List(docs) => Value::List(docs.into_iter().map(|doc| self.stored(table, doc)).collect()),
                    single => self.stored(table, single),
                };
                let docs = self.parser(table).docs(self.names.stored(table), &docs, &mut self.budget);
                self.of_argument(field, "docs", docs)?
            }
        };
        Ok(MutationKind::Insert { docs: docs.into() })
    }

    fn update(&mut self, table: usize, field: &Selected) -> Result<MutationKind> {
        self.arguments(field, &["where", "op", "set", "inc"])?;
        let filter = self.filter(table, field)?;
        let one = self.is_one(field)?;
        Ok(MutationKind::Update { filter, changes: self.changes(table, field)?, one })
    }

    fn delete(&mut self, table: usize, field: &Selected) -> Result<MutationKind> {
        self.arguments(field, &["where", "op"])?;
        Ok(MutationKind::Delete { filter: self.filter(table, field)?, one: self.is_one(field)? })
    }

    fn changes(&mut self, table: usize, field: &Selected) -> Result<Vec<Change>> {
        let mut operators = Vec::new();
        for (argument, operator) in [("set", "$set"), ("inc", "$inc")] {
            let Some(members) = self.argument(field, argument, EnumValues::Text)? else { continue };
            if !matches!(members, Value::Object(_)) {
                let wrong = wrong_type(argument, "object of columns", &members);
                return self.of_argument(field, argument, Err(wrong));
            }
            operators.push((operator.to_owned(), self.stored(table, members)));
        }
        if operators.is_empty() {
            return Ok(Vec::new());
        }
        let last = if operators.len() == 1 && operators[0].0 == "$inc" { "inc" } else { "set" };
        let operators = Value::Object(Object(operators));
        let changes = self.parser(table).changes(self.names.stored(table), &operators, &mut self.budget);
        self.of_argument(field, last, changes)
    }

    fn stored(&self, table: usize, document: Value) -> Value {
        match self.names.is_renamed(table) {
            true => stored_members(self.names, table, document),
            false => document,
        }
    }

    fn is_one(&self, field: &Selected) -> Result<bool> {
        match self.op(field)? {
            Op::All => Ok(false),
            Op::One => Ok(true),
            Op::Count => {
                let wrong = Error::Malformed("invalid op count: expected all or one for a mutation".to_owned());
                self.of_argument(field, "op", Err(wrong))
            }
        }
    }
}

fn unknown_mutation(name: &str) -> Box<Refusal> {
    let text = format!("field {name} is not in Mutation: insert_, update_ or delete_ and a table's name are");
    Refusal::new(Fault::new(Code::UnknownTable, text))
}
