//! Fields of `Mutation`.

use std::sync::Arc;

use async_graphql_parser::types::Field as Selected;
use async_graphql_value::Value as AstValue;
use mesh::{Code, Fault};
use query::{Budget, Change, Error, Mutation, MutationKind, Node, Object, Operation, Shape, Value};

use super::{
    FieldSource, PayloadField, PayloadValue, PlanContext, Planner,
    arguments::{Op, PARAMETER_BYTES, parser, wrong_type},
    at_field, at_table,
    parameter::DocumentsParameter,
    root::ResolvedRoot,
    select::{Group, no_arguments, only_conditional_directives, unknown_member},
};
use crate::graphql::{
    names::{Names, RootKind},
    refusal::{Located, Refusal, Result},
    value::{EnumValues, has_variables, memory, stored_members, value},
};

const VERBS: [(&str, Operation); 3] =
    [("insert_", Operation::Create), ("update_", Operation::Update), ("delete_", Operation::Delete)];

impl<'a> Planner<'a> {
    /// A field of `Mutation`.
    pub fn mutation_root(&mut self, group: &Group<'a>, writes: &mut Vec<(Arc<str>, Mutation)>) -> Result<FieldSource> {
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
            .mutation(&resolved, group, operation, writes.len())
            .map_err(|refusal| at_table(refusal, self.names, table, operation))?;
        writes.push((self.names.database_id(table).into(), mutation));
        Ok(FieldSource::Write(writes.len() - 1, members))
    }

    /// The mutation whose index is `write`.
    fn mutation(
        &mut self,
        resolved: &ResolvedRoot,
        group: &Group<'a>,
        operation: Operation,
        write: usize,
    ) -> Result<(Mutation, Vec<PayloadField>)> {
        let table = resolved.root.table;
        let stored = self.names.stored(table);
        if resolved.root.kind != RootKind::Rows {
            return Err(unknown_mutation(group.name()));
        }
        stored.check_operation(operation).map_err(Refusal::new)?;
        self.budget.operation().map_err(Refusal::new)?;
        let kind = match operation {
            Operation::Create => self.insert(table, group.field, write),
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

    fn insert(&mut self, table: usize, field: &Selected, write: usize) -> Result<MutationKind> {
        self.arguments(field, &["docs"])?;
        let Some(argument) = field.get_argument("docs") else {
            return Ok(MutationKind::Insert { docs: Arc::default() });
        };
        let (written, before) = (&argument.node, self.budget.values());
        let context = PlanContext { document: self.document, names: self.names, variables: self.variables };
        let docs = context.docs(table, written, &mut self.budget).at(argument.pos)?;
        self.takes(memory(self.document, written));
        if has_variables(written) {
            self.takes(PARAMETER_BYTES);
            let (written, values) = (written.clone(), self.budget.values() - before);
            self.parameters.documents.push(DocumentsParameter { write, table, written, values });
        }
        Ok(MutationKind::Insert { docs })
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
        stored(self.names, table, document)
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

impl PlanContext<'_> {
    /// Documents to insert into the table at an index; none where the argument is absent or null.
    pub fn docs(&self, table: usize, written: &AstValue, budget: &mut Budget) -> Result<Arc<[query::Document]>> {
        let parse = |docs: &Value, budget: &mut Budget| match docs {
            Value::Null => Ok(Arc::default()),
            docs => parser(self.names, table).docs(self.names.stored(table), docs, budget).map(Arc::from),
        };
        // What a client sends as one variable is not copied before it is typed.
        if let AstValue::Variable(name) = written
            && !self.names.is_renamed(table)
        {
            let docs = self.variables.value(name).map_err(Refusal::new)?;
            return docs.map_or(Ok(Arc::default()), |docs| parse(docs, budget)).map_err(Refusal::new);
        }
        let docs = match value(self.document, self.variables, EnumValues::Text, written)? {
            None => return Ok(Arc::default()),
            Some(Value::List(docs)) => {
                Value::List(docs.into_iter().map(|doc| stored(self.names, table, doc)).collect())
            }
            Some(single) => stored(self.names, table, single),
        };
        parse(&docs, budget).map_err(Refusal::new)
    }
}

/// A document with the database's names for those of GraphQL.
fn stored(names: &Names, table: usize, document: Value) -> Value {
    match names.is_renamed(table) {
        true => stored_members(names, table, document),
        false => document,
    }
}

fn unknown_mutation(name: &str) -> Box<Refusal> {
    let text = format!("field {name} is not in Mutation: insert_, update_ or delete_ and a table's name are");
    Refusal::new(Fault::new(Code::UnknownTable, text))
}
