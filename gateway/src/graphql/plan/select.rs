//! Selections: fragments expanded, conditions applied, response keys merged, fields looked up.

use std::{collections::HashSet, sync::Arc};

use async_graphql_parser::{
    Pos, Positioned,
    types::{Directive, Field as Selected, Selection, SelectionSet},
};
use async_graphql_value::Value as AstValue;
use indexmap::{IndexMap, map::Entry};
use mesh::{Code, Fault};
use query::{Error, Field, FieldKind, Node, SelectionCost, Shape};

use super::{
    Planner, at_field,
    cache::{KeptSelection, SelectionKey, SetId},
};
use crate::graphql::{
    names,
    refusal::{Located, Refusal, Result},
};

/// Arguments that a field may have: no field knows as many, and they are compared with each other.
const MAX_ARGUMENTS: usize = 100;

/// Approximate memory of a planned field in bytes, besides its response key.
pub const FIELD_BYTES: usize = 240;

/// Fields by their response keys, in order.
pub type Groups<'a> = IndexMap<&'a str, Group<'a>, foldhash::fast::RandomState>;

/// Names of fragments that are spread in a selection set already.
type Fragments<'a> = HashSet<&'a str, foldhash::fast::RandomState>;

/// Fields with one response key; their selections are merged.
pub struct Group<'a> {
    /// The first of them; the others have the same name and arguments.
    pub field: &'a Selected,
    /// Position in the document.
    pub at: Pos,
    others: Vec<&'a Selected>,
}

impl<'a> Group<'a> {
    /// The field's name.
    pub fn name(&self) -> &'a str {
        self.field.name.node.as_str()
    }

    /// Selection sets of the field.
    pub fn selections(&self) -> Vec<&'a Positioned<SelectionSet>> {
        let fields = std::iter::once(self.field).chain(self.others.iter().copied());
        fields.map(|field| &field.selection_set).filter(|set| !set.node.items.is_empty()).collect()
    }

    /// Refuses a selection on a value that has no fields.
    pub fn leaf(&self) -> Result<()> {
        match self.selections().is_empty() {
            true => Ok(()),
            false => Err(Refusal::malformed(format!("field {} has no fields to select", self.name())).at(self.at)),
        }
    }

    /// Selection sets of a field with an object value, which needs at least one.
    pub fn object(&self) -> Result<Vec<&'a Positioned<SelectionSet>>> {
        let selections = self.selections();
        match selections.is_empty() {
            false => Ok(selections),
            true => {
                Err(Refusal::malformed(format!("field {} needs a selection of its fields", self.name())).at(self.at))
            }
        }
    }
}

impl<'a> Planner<'a> {
    /// Fields of `sets` by response key, in order, as the specification's `CollectFields` has it.
    pub fn collect(&mut self, sets: &[&'a Positioned<SelectionSet>]) -> Result<Groups<'a>> {
        let mut groups = Groups::default();
        let mut spread = Fragments::default();
        for set in sets {
            self.collect_set(&set.node, &mut groups, &mut spread)?;
        }
        let keys: usize = groups.keys().map(|key| key.len()).sum();
        self.takes(groups.len() * FIELD_BYTES + keys);
        Ok(groups)
    }

    /// Adds the fields of `set` and of its fragments to `groups`. A stack of its own holds the sets that are not through:
    /// fragments may be inside each other as far as a document goes.
    fn collect_set(
        &mut self,
        set: &'a SelectionSet,
        groups: &mut Groups<'a>,
        spread: &mut Fragments<'a>,
    ) -> Result<()> {
        let mut open = vec![set.items.iter()];
        while let Some(items) = open.last_mut() {
            let Some(item) = items.next() else {
                open.pop();
                continue;
            };
            self.guard.token().at(item.pos)?;
            let fragment = match &item.node {
                Selection::Field(field) => {
                    if self.is_included(&field.node.directives)? {
                        add(groups, &field.node, field.pos)?;
                    }
                    None
                }
                Selection::InlineFragment(fragment) => {
                    only_conditional(&fragment.node.directives)?;
                    let is_included = self.is_included(&fragment.node.directives)?;
                    is_included.then_some(&fragment.node.selection_set.node)
                }
                Selection::FragmentSpread(fragment) => {
                    only_conditional(&fragment.node.directives)?;
                    let name = fragment.node.fragment_name.node.as_str();
                    let is_first = self.is_included(&fragment.node.directives)? && spread.insert(name);
                    // Checked when the document was parsed: every fragment exists and none spreads itself.
                    let definition = self.document.tree.fragments.get(name).filter(|_| is_first);
                    definition.map(|definition| &definition.node.selection_set.node)
                }
            };
            open.extend(fragment.map(|set| set.items.iter()));
        }
        Ok(())
    }

    /// Combined condition of `@include` and `@skip`.
    fn is_included(&self, directives: &[Positioned<Directive>]) -> Result<bool> {
        let mut included = true;
        let mut seen: [bool; 2] = [false; 2];
        for directive in directives {
            let name = directive.node.name.node.as_str();
            let wanted = match name {
                "include" => true,
                "skip" => false,
                _ => continue,
            };
            if std::mem::replace(&mut seen[usize::from(wanted)], true) {
                return Err(Refusal::malformed(format!("directive @{name} is given twice")).at(directive.pos));
            }
            included &= self.condition(&directive.node).at(directive.pos)? == wanted;
        }
        Ok(included)
    }

    fn condition(&self, directive: &Directive) -> Result<bool> {
        let name = directive.name.node.as_str();
        let written = match directive.arguments.as_slice() {
            [(argument, written)] if argument.node.as_str() == "if" => written,
            [] => return Err(Refusal::new(Error::Required(format!("argument if of @{name}")))),
            arguments => {
                let argument = arguments.iter().map(|(name, _)| name.node.as_str()).find(|name| *name != "if");
                let argument = format!("{} of @{name}", argument.unwrap_or("if"));
                return Err(Refusal::new(Error::UnknownArgument { argument, nearest: None }));
            }
        };
        match &written.node {
            AstValue::Boolean(condition) => Ok(*condition),
            AstValue::Variable(variable) => match self.met_variables().value(variable).map_err(Refusal::new)? {
                Some(query::Value::Bool(condition)) => Ok(*condition),
                other => Err(wrong_condition(name, other.map_or("nothing", query::Value::kind))),
            },
            _ => Err(wrong_condition(name, "another type")),
        }
    }

    /// Members of each row of the table at an index.
    pub fn fields(&mut self, table: usize, sets: &[&'a Positioned<SelectionSet>]) -> Result<Arc<[Field]>> {
        // Several sets are one that is merged out of them, which is rare.
        let [set] = sets else { return self.merged_fields(table, sets).map(Arc::from) };
        let key = SelectionKey { names: self.names.id, table, set: SetId::of(&set.node) };
        if let Some(selection) = self.document.plans.selection(key) {
            self.budget.selection(selection.cost).map_err(Refusal::new)?;
            self.takes(selection.bytes);
            return Ok(selection.fields);
        }
        let before = (self.has_variables.replace(false), std::mem::replace(&mut self.has_arguments, false));
        let (kept, bytes) = (self.selections.len(), self.bytes.get());
        let fields: Arc<[Field]> = self.merged_fields(table, sets)?.into();
        if !self.has_variables.get() && !self.has_arguments {
            self.selections.truncate(kept);
            let (cost, bytes) = (SelectionCost::of(&fields), self.bytes.get() - bytes);
            self.selections.push((key, KeptSelection { fields: fields.clone(), cost, bytes }));
        }
        self.has_variables.set(self.has_variables.get() || before.0);
        self.has_arguments |= before.1;
        Ok(fields)
    }

    /// Counts memory of what is planned.
    pub fn takes(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn merged_fields(&mut self, table: usize, sets: &[&'a Positioned<SelectionSet>]) -> Result<Vec<Field>> {
        let groups = self.collect(sets)?;
        let mut fields = Vec::with_capacity(groups.len());
        for (key, group) in groups {
            only_conditional_directives(&group)?;
            let kind = self.field(table, &group).map_err(|refusal| at_field(refusal, key, &group))?;
            fields.push(Field { key: key.to_owned(), kind });
        }
        Ok(fields)
    }

    fn field(&mut self, table: usize, group: &Group<'a>) -> Result<FieldKind> {
        self.budget.field().map_err(Refusal::new)?;
        let names = self.names;
        if group.name() == "__typename" {
            no_arguments(group)?;
            group.leaf()?;
            return Ok(FieldKind::Constant(names.table(table).type_name.clone()));
        }
        let stored = names.stored(table);
        match names.table(table).field(group.name()) {
            Some(names::Field::Column(column)) => {
                no_arguments(group)?;
                group.leaf()?;
                Ok(FieldKind::Column(stored.columns[column].name.clone()))
            }
            Some(names::Field::Relation(index, to)) => {
                let relation = &stored.relations[index];
                self.budget.enter_relation().map_err(Refusal::new)?;
                let node = self.related(to, relation.many, group).map_err(|refusal| self.in_related(to, refusal))?;
                self.budget.leave_relation();
                Ok(FieldKind::Relation { name: relation.name.clone(), node })
            }
            Some(names::Field::Aggregate(index, to)) => {
                self.budget.enter_relation().map_err(Refusal::new)?;
                let node = self.aggregate(to, group).map_err(|refusal| self.in_related(to, refusal))?;
                self.budget.leave_relation();
                Ok(FieldKind::Relation { name: stored.relations[index].name.clone(), node })
            }
            None => Err(self.unknown_field(table, group)),
        }
    }

    /// `refusal` as one of rows of the table at an index, to which a relation leads.
    fn in_related(&self, table: usize, refusal: Box<Refusal>) -> Box<Refusal> {
        refusal.in_related(self.names.database_id(table), self.names.stored(table))
    }

    fn related(&mut self, to: usize, many: bool, group: &Group<'a>) -> Result<Node> {
        self.has_arguments |= !group.field.arguments.is_empty();
        if !many {
            no_arguments(group)?;
            let fields = self.fields(to, &group.object()?)?;
            return Ok(Node::new(Shape::One, fields));
        }
        self.arguments(group.field, &["where", "sort", "skip", "limit"])?;
        let mut node = self.rows(to, group.field)?;
        node.fields = self.fields(to, &group.object()?)?;
        Ok(node)
    }

    /// Rows of the table at an index, counted.
    pub fn aggregate(&mut self, table: usize, group: &Group<'a>) -> Result<Node> {
        self.has_arguments |= !group.field.arguments.is_empty();
        self.arguments(group.field, &["where"])?;
        let filter = self.filter(table, group.field)?;
        let type_name = &self.names.table(table).aggregate_type;
        let mut fields = Vec::new();
        for (key, group) in self.collect(&group.object()?)? {
            only_conditional_directives(&group)?;
            no_arguments(&group)?;
            group.leaf()?;
            self.budget.field().map_err(Refusal::new)?;
            let kind = match group.name() {
                "count" => FieldKind::Count,
                "__typename" => FieldKind::Constant(type_name.clone()),
                name => return Err(at_field(unknown_member(name, type_name, &["count"]), key, &group)),
            };
            fields.push(Field { key: key.to_owned(), kind });
        }
        Ok(Node { filter, ..Node::new(Shape::Aggregate, fields) })
    }

    fn unknown_field(&self, table: usize, group: &Group<'_>) -> Box<Refusal> {
        let stored = self.names.stored(table);
        let (table, name) = (stored.name.clone(), group.name().to_owned());
        let error = match group.selections().is_empty() && group.field.arguments.is_empty() {
            true => {
                let nearest = query::nearest(&name, stored.columns.iter().map(|column| column.name.as_str()));
                Error::UnknownColumn { table, column: name, nearest }
            }
            false => {
                let nearest = query::nearest(&name, stored.relations.iter().map(|relation| relation.name.as_str()));
                Error::UnknownRelation { table, relation: name, nearest }
            }
        };
        Refusal::new(error).at(group.at)
    }
}

/// A field that no table has a part in.
pub fn unknown_member(name: &str, type_name: &str, known: &[&str]) -> Box<Refusal> {
    let hint = query::nearest(name, known.iter().copied());
    let hint = hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    Refusal::new(Fault::new(Code::UnknownColumn, format!("field {name} is not in {type_name}{hint}")))
}

fn add<'a>(groups: &mut Groups<'a>, field: &'a Selected, at: Pos) -> Result<()> {
    let seen = field.arguments.len();
    if seen > MAX_ARGUMENTS {
        return Err(Refusal::new(Error::TooComplex { what: "arguments", seen, limit: MAX_ARGUMENTS }).at(at));
    }
    let key = field.response_key().node.as_str();
    match groups.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(Group { field, at, others: Vec::new() });
            Ok(())
        }
        Entry::Occupied(mut entry) if is_same(entry.get().field, field) => {
            entry.get_mut().others.push(field);
            Ok(())
        }
        Entry::Occupied(entry) => {
            let (one, other) = (entry.get().name(), field.name.node.as_str());
            let differ = if one == other { "has other arguments" } else { "is another field" };
            let text = format!("{key} stands for {one} already and {other} {differ}; give one of them an alias");
            Err(Refusal::malformed(text).at(at))
        }
    }
}

/// Whether two fields ask for the same, their selections aside.
fn is_same(one: &Selected, other: &Selected) -> bool {
    one.name.node == other.name.node
        && one.arguments.len() == other.arguments.len()
        && one.arguments.iter().all(|(name, value)| other.get_argument(&name.node) == Some(value))
        && databases(one).eq(databases(other))
}

fn databases(field: &Selected) -> impl Iterator<Item = (&str, Vec<(&str, &AstValue)>)> {
    field.directives.iter().filter(|directive| !is_condition(directive)).map(|directive| {
        let arguments = directive.node.arguments.iter().map(|(name, value)| (name.node.as_str(), &value.node));
        (directive.node.name.node.as_str(), arguments.collect())
    })
}

/// Whether it is `@include` or `@skip`.
pub fn is_condition(directive: &Positioned<Directive>) -> bool {
    matches!(directive.node.name.node.as_str(), "include" | "skip")
}

fn only_conditional(directives: &[Positioned<Directive>]) -> Result<()> {
    match directives.iter().find(|directive| !is_condition(directive)) {
        None => Ok(()),
        Some(directive) => {
            let text = format!("directive @{} is not known on a fragment", directive.node.name.node);
            Err(Refusal::malformed(text).at(directive.pos))
        }
    }
}

/// Databases are named at the root only: below it relations lead on.
pub fn only_conditional_directives(group: &Group<'_>) -> Result<()> {
    let fields = std::iter::once(group.field).chain(group.others.iter().copied());
    match fields.flat_map(|field| &field.directives).find(|directive| !is_condition(directive)) {
        None => Ok(()),
        Some(directive) => {
            let (name, field) = (&directive.node.name.node, group.name());
            let text = format!("directive @{name} is not known on field {field}: a database is named at the root only");
            Err(Refusal::malformed(text).at(directive.pos))
        }
    }
}

/// Refuses every argument.
pub fn no_arguments(group: &Group<'_>) -> Result<()> {
    match group.field.arguments.first() {
        None => Ok(()),
        Some((name, _)) => {
            let argument = format!("{} of {}", name.node, group.name());
            Err(Refusal::new(Error::UnknownArgument { argument, nearest: None }).at(name.pos))
        }
    }
}

fn wrong_condition(directive: &str, found: &str) -> Box<Refusal> {
    let name = format!("argument if of @{directive}");
    Refusal::new(Error::WrongType { name, expected: "boolean".to_owned(), found: found.to_owned() })
}
