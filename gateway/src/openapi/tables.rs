//! Components of a table: its rows, conditions, orders, selections, documents and changes.

use query::{Column, Comparisons, Operation, Relation, Table};
use serde_json::{Map, Value, json};

use super::{
    names::ComponentNames,
    values::{SharedSchema, SharedSchemas, ValueKind, null_type, nullable, reference},
};
use crate::graphql::{
    names::Names,
    reach::{AllowedColumns, Reach, TableReach},
};

/// Describes the tables of a project for a caller.
pub struct Describer<'a> {
    /// The tables.
    pub names: &'a Names,
    /// What the caller can ever do with them.
    pub reach: &'a Reach,
    /// How their components are called.
    pub components: ComponentNames,
    /// Components of values that were used so far.
    pub shared: SharedSchemas,
}

/// Components of a table, each with its name.
pub type Components = Vec<(String, Value)>;

impl<'a> Describer<'a> {
    /// What the caller can do with the table at an index.
    pub fn table_reach(&self, table: usize) -> &'a TableReach {
        self.reach.table(table)
    }

    /// The table at an index.
    pub fn stored(&self, table: usize) -> &'a Table {
        self.names.stored(table)
    }

    /// The name of a component of the table at an index: `music.album.Row`.
    pub fn component(&self, table: usize, part: &str) -> String {
        format!("{}.{part}", self.components.table(table))
    }

    /// A reference to a component of the table at an index.
    pub fn part(&self, table: usize, part: &str) -> Value {
        reference(&self.component(table, part))
    }

    /// The components of the table at an index.
    pub fn table(&mut self, table: usize) -> Components {
        let reach = self.table_reach(table);
        let mut all = Components::new();
        if let Some(allowed) = &reach.read {
            all.push((self.component(table, "Filter"), self.filter(table, "Filter", allowed)));
            all.push((self.component(table, "ManyFilter"), self.many_filter(table)));
        }
        if reach.has_rows() {
            all.push((self.component(table, "Row"), self.row(table)));
            all.push((self.component(table, "Select"), self.select(table)));
            all.push((self.component(table, "One"), self.related(table, false)));
            all.push((self.component(table, "Many"), self.related(table, true)));
            if let Some(sort) = self.sort(table) {
                all.push((self.component(table, "Sort"), sort));
            }
        }
        for (allowed, part) in [(&reach.update, "UpdateFilter"), (&reach.delete, "DeleteFilter")] {
            let Some(allowed) = allowed else { continue };
            if self.filter_part(table, allowed, part) == part {
                all.push((self.component(table, part), self.filter(table, part, allowed)));
            }
        }
        if let Some(columns) = reach.insert_columns(self.stored(table)) {
            all.push((self.component(table, "Insert"), self.insert(table, &columns)));
        }
        if let Some(columns) = reach.update_columns(self.stored(table)) {
            all.push((self.component(table, "Changes"), self.changes(table, &columns)));
        }
        all
    }

    /// The conditions of an operation: those of reads where they are on the same columns, else `own`.
    pub fn filter_part(&self, table: usize, allowed: &AllowedColumns, own: &'static str) -> &'static str {
        if self.table_reach(table).filters_as_read(allowed) { "Filter" } else { own }
    }

    /// Whether rows of the table at an index can be sorted by something.
    pub fn has_sort(&self, table: usize) -> bool {
        self.sort_columns(table).next().is_some()
    }

    fn row(&mut self, table: usize) -> Value {
        let stored = self.stored(table);
        let mut members = Map::new();
        for column in self.readable(table) {
            let mut schema = self.shared.reference(SharedSchema::Output(ValueKind::of(column)));
            if column.nullable {
                schema = nullable(schema);
            }
            if !column.native.is_empty() {
                schema["description"] = column.native.as_str().into();
            }
            members.insert(column.name.clone(), schema);
        }
        for (relation, to) in self.relations(table).filter(|(_, to)| self.table_reach(*to).has_rows()) {
            let row = self.part(to, "Row");
            // The row may be hidden even where the foreign key is not null.
            let schema = if relation.many { json!({ "type": "array", "items": row }) } else { nullable(row) };
            members.insert(relation.name.clone(), schema);
        }
        let description =
            format!("A row of {} in {}: what was selected of it", stored.name, self.names.database_id(table));
        json!({ "type": "object", "description": description, "properties": members, "additionalProperties": false })
    }

    fn filter(&mut self, table: usize, part: &str, allowed: &AllowedColumns) -> Value {
        let itself = self.part(table, part);
        let mut members = Map::new();
        let columns = self.stored(table).columns.iter().enumerate();
        for (_, column) in columns.filter(|(index, column)| allowed.filter[*index] && !is_connective(&column.name)) {
            let condition = SharedSchema::Condition(ValueKind::of(column), column.comparisons());
            members.insert(column.name.clone(), self.shared.reference(condition));
        }
        for (relation, to) in self.relations(table) {
            if self.table_reach(to).read.is_none() || is_connective(&relation.name) {
                continue;
            }
            let condition = if relation.many { self.part(to, "ManyFilter") } else { self.one_filter(to) };
            members.insert(relation.name.clone(), condition);
        }
        let all = json!({ "type": "array", "items": itself });
        json!({
            "type": "object",
            "properties": members,
            "patternProperties": { r"^\$and(:|$)": all, r"^\$or(:|$)": all, r"^\$not(:|$)": itself },
            "additionalProperties": false,
        })
    }

    /// Conditions on the row that a relation leads to.
    fn one_filter(&self, to: usize) -> Value {
        let presence = json!({
            "type": "object",
            "required": ["$isNull"],
            "properties": { "$isNull": { "type": "boolean" } },
            "additionalProperties": false,
        });
        json!({ "anyOf": [self.part(to, "Filter"), presence, null_type()] })
    }

    fn many_filter(&self, table: usize) -> Value {
        let filter = self.part(table, "Filter");
        json!({
            "type": "object",
            "properties": { "$some": filter, "$none": filter, "$every": filter },
            "additionalProperties": false,
            "minProperties": 1,
        })
    }

    fn select(&self, table: usize) -> Value {
        let chosen = json!({ "enum": [1, true] });
        let (mut names, mut tree) = (Vec::new(), Map::new());
        for column in self.readable(table) {
            names.push(column.name.as_str());
            tree.insert(column.name.clone(), chosen.clone());
        }
        for (relation, to) in self.relations(table).filter(|(_, to)| self.table_reach(*to).has_rows()) {
            let options = self.part(to, if relation.many { "Many" } else { "One" });
            names.push(&relation.name);
            tree.insert(relation.name.clone(), json!({ "anyOf": [chosen, options] }));
        }
        json!({
            "description": "Names of columns and relations, or a tree; nothing: all columns.",
            "anyOf": [
                null_type(),
                { "type": "array", "items": { "enum": names } },
                { "type": "object", "properties": tree, "additionalProperties": false },
            ],
        })
    }

    /// Options of a relation that leads to this table.
    fn related(&self, table: usize, many: bool) -> Value {
        let filter = nullable(self.part(table, "Filter"));
        let mut members = Map::new();
        members.insert("select".to_owned(), self.part(table, "Select"));
        members.insert("find".to_owned(), filter.clone());
        members.insert("where".to_owned(), filter);
        if many {
            members.extend(self.page(table));
        }
        json!({
            "type": "object",
            "properties": members,
            "additionalProperties": false,
            "not": { "required": ["find", "where"] },
        })
    }

    /// `sort`, `skip`, `limit`
    pub fn page(&self, table: usize) -> impl Iterator<Item = (String, Value)> {
        let sort = self.has_sort(table).then(|| ("sort".to_owned(), self.part(table, "Sort")));
        let count = json!({ "type": ["integer", "null"], "format": "int64", "minimum": 0, "maximum": i64::MAX });
        let counts = ["skip", "limit"].map(|name| (name.to_owned(), count.clone()));
        sort.into_iter().chain(counts)
    }

    fn sort(&self, table: usize) -> Option<Value> {
        let mut keys = indexmap::IndexSet::new();
        let mut directed = Map::new();
        for column in self.sort_columns(table) {
            keys.insert(column.name.clone());
            keys.insert(format!("-{}", column.name));
            directed.insert(column.name.clone(), json!({ "enum": [1, -1] }));
        }
        if keys.is_empty() {
            return None;
        }
        let keys: Vec<String> = keys.into_iter().collect();
        Some(json!({
            "description": "Columns, those of descending order with a minus before them.",
            "anyOf": [
                null_type(),
                { "enum": keys },
                { "type": "array", "items": { "enum": keys } },
                { "type": "object", "properties": directed, "additionalProperties": false },
            ],
        }))
    }

    fn insert(&mut self, table: usize, columns: &[usize]) -> Value {
        let stored = self.stored(table);
        let (mut members, mut required) = (Map::new(), Vec::new());
        for &index in columns {
            let column = &stored.columns[index];
            members.insert(column.name.clone(), self.written(stored, column, Operation::Create));
            if stored.requires(column) {
                required.push(column.name.as_str());
            }
        }
        json!({ "type": "object", "properties": members, "required": required, "additionalProperties": false })
    }

    fn changes(&mut self, table: usize, columns: &[usize]) -> Value {
        let stored = self.stored(table);
        let (mut set, mut inc) = (Map::new(), Map::new());
        for &index in columns {
            let column = &stored.columns[index];
            set.insert(column.name.clone(), self.written(stored, column, Operation::Update));
            if column.r#type.is_number() {
                inc.insert(column.name.clone(), self.shared.reference(SharedSchema::Input(ValueKind::written(column))));
            }
        }
        let mut operators = Map::new();
        for (name, members) in [("$set", set), ("$inc", inc)] {
            if !members.is_empty() {
                let operator = json!({ "type": "object", "properties": members, "additionalProperties": false });
                operators.insert(name.to_owned(), operator);
            }
        }
        let one = |name: &String| json!({ "required": [name], "properties": { name: { "minProperties": 1 } } });
        let some: Vec<Value> = operators.keys().map(one).collect();
        json!({
            "description": "What to change; each column by one operator.",
            "type": "object",
            "properties": operators,
            "additionalProperties": false,
            "anyOf": some,
        })
    }

    /// What `operation` may make of a column.
    fn written(&mut self, stored: &Table, column: &Column, operation: Operation) -> Value {
        let schema = self.shared.reference(SharedSchema::Input(ValueKind::written(column)));
        if stored.may_set_null(column, operation) { nullable(schema) } else { schema }
    }

    fn readable(&self, table: usize) -> impl Iterator<Item = &'a Column> + use<'a> {
        let allowed = self.table_reach(table).read.as_ref();
        let columns = self.stored(table).columns.iter().enumerate();
        let read = columns.filter(move |(index, _)| allowed.is_some_and(|allowed| allowed.read[*index]));
        read.map(|(_, column)| column)
    }

    fn sort_columns(&self, table: usize) -> impl Iterator<Item = &'a Column> + use<'a> {
        let allowed = self.table_reach(table).read.as_ref();
        let columns = self.stored(table).columns.iter().enumerate();
        let searched = columns.filter(move |(index, _)| allowed.is_some_and(|allowed| allowed.filter[*index]));
        searched.map(|(_, column)| column).filter(|column| column.comparisons() == Comparisons::All)
    }

    /// Relations of the table at an index, each with the index of the table that it leads to.
    fn relations(&self, table: usize) -> impl Iterator<Item = (&'a Relation, usize)> + use<'a> {
        let (names, database) = (self.names, self.names.table(table).database);
        let relations = self.stored(table).relations.iter();
        relations.filter_map(move |relation| Some((relation, names.target(database, relation)?)))
    }
}

/// Whether a member of a condition called so is a connective, whatever columns there are.
fn is_connective(name: &str) -> bool {
    let operator = name.split_once(':').map_or(name, |(operator, _)| operator);
    matches!(operator, "$and" | "$or" | "$not")
}
