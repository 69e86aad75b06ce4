//! GraphQL names of a project's tables, columns and relations.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use foldhash::{HashMap, HashMapExt};
use query::{Relation, Schema, Table, TableKind};

use super::turns::Turns;
use crate::catalogue::Project;

/// Types that no table gives its name to.
const RESERVED_TYPES: [&str; 8] = ["Query", "Mutation", "Subscription", "Int", "Float", "String", "Boolean", "ID"];

/// Names of one version of a project.
#[derive(Debug)]
pub struct Names {
    /// Tells them from all other names of this process.
    pub id: u64,
    /// The project that they are of.
    pub project: Arc<Project>,
    tables: Vec<TableNames>,
    roots: HashMap<String, RootField>,
    /// Names that several databases have, with those databases.
    shared: HashMap<String, Vec<usize>>,
    databases: Vec<DatabaseNames>,
    /// Makes answers of introspection one after the other.
    pub introspection: Turns,
}

/// The target of a field of `Query`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RootField {
    /// Index of the table in [`Names`].
    pub table: usize,
    /// Kind of the read.
    pub kind: RootKind,
}

/// Kind of the read behind a field of `Query`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootKind {
    /// `album`
    Rows,
    /// `album_by_pk`
    ByKey,
    /// `album_aggregate`
    Aggregate,
    /// `album_changes`, a field of `Subscription` alone.
    Changes,
}

#[derive(Debug, Default)]
struct DatabaseNames {
    roots: HashMap<String, RootField>,
    by_table: HashMap<String, usize>,
    /// Some column or relation has another name in GraphQL than in the database.
    renamed: bool,
}

/// Names of one table.
#[derive(Debug)]
pub struct TableNames {
    /// Index of its database in the project.
    pub database: usize,
    index: usize,
    /// `Album`
    pub type_name: String,
    /// `AlbumAggregate`
    pub aggregate_type: String,
    /// `AlbumMutation`
    pub mutation_type: String,
    /// `AlbumChange`
    pub change_type: String,
    /// `AlbumRow`
    pub row_type: String,
    /// Fields of a row, by their name.
    pub fields: HashMap<String, Field>,
    /// Relations and counts of them by their long names, which are not published.
    long_named: HashMap<String, Field>,
    /// The field of each column, in the order of the columns.
    pub columns: Vec<String>,
}

/// Kind of a field of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field {
    /// The column at an index of the table.
    Column(usize),
    /// The relation at an index of the table, to a table of [`Names`].
    Relation(usize, usize),
    /// `track_aggregate`: rows of a relation to many, counted.
    Aggregate(usize, usize),
}

/// Result of looking up a root field without a database.
#[derive(Debug, PartialEq)]
pub enum RootLookup<'a> {
    /// One table.
    Field(RootField),
    /// Tables of several databases.
    Ambiguous(&'a [usize]),
    /// Nothing.
    Unknown,
}

impl TableNames {
    /// The field called `name`, also by a name that is not published.
    pub fn field(&self, name: &str) -> Option<Field> {
        self.fields.get(name).or_else(|| self.long_named.get(name)).copied()
    }
}

impl Names {
    /// The names of `project`.
    pub fn new(project: Arc<Project>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut names = Names {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            tables: Vec::new(),
            roots: HashMap::new(),
            shared: HashMap::new(),
            databases: Vec::new(),
            introspection: Turns::default(),
            project,
        };
        let project = names.project.clone();
        names.add_tables(&project);
        names.name_types(&project);
        for (database, schema) in schemas(&project) {
            names.name_fields(database, schema);
        }
        names.spread_renamed(&project);
        names.name_roots(&project);
        names
    }

    /// The table at an index.
    pub fn table(&self, table: usize) -> &TableNames {
        &self.tables[table]
    }

    /// The schema of the database that the table at an index is in.
    pub fn schema(&self, table: usize) -> &Schema {
        let database = &self.project.databases[self.tables[table].database];
        database.schema.as_ref().expect("only tables of databases with a schema have names")
    }

    /// The schema of the table at an index.
    pub fn stored(&self, table: usize) -> &Table {
        &self.schema(table).tables()[self.tables[table].index]
    }

    /// The id of the database that the table at an index is in.
    pub fn database_id(&self, table: usize) -> &str {
        &self.project.databases[self.tables[table].database].id
    }

    /// Whether the changes of the table at an index can be followed, as far as that shows in the schema.
    pub fn is_live(&self, table: usize) -> bool {
        self.stored(table).kind == TableKind::Table
    }

    /// Whether the rows of the table at an index can be told apart as well, so that each change of one is told.
    pub fn is_watchable(&self, table: usize) -> bool {
        let stored = self.stored(table);
        let is_certain = |columns: &Vec<String>| {
            columns.iter().all(|name| stored.column(name).is_ok_and(|column| column.readable && !column.nullable))
        };
        let has_key = !stored.primary_key.is_empty() && stored.row_id.is_empty();
        self.is_live(table) && !stored.has_children && (has_key || stored.unique_keys.iter().any(is_certain))
    }

    /// The target of a root field without a directive.
    pub fn root(&self, name: &str) -> RootLookup<'_> {
        match (self.roots.get(name), self.shared.get(name)) {
            (Some(root), _) => RootLookup::Field(*root),
            (None, Some(databases)) => RootLookup::Ambiguous(databases),
            (None, None) => RootLookup::Unknown,
        }
    }

    /// The target of a root field in the database at an index.
    pub fn root_of(&self, database: usize, name: &str) -> Option<RootField> {
        self.databases[database].roots.get(name).copied()
    }

    /// The table that the database at an index calls `name`.
    pub fn table_of(&self, database: usize, name: &str) -> Option<usize> {
        self.databases[database].by_table.get(name).copied()
    }

    /// The table that a relation of a table of the database at an index leads to.
    pub fn target(&self, database: usize, relation: &Relation) -> Option<usize> {
        let database = match &relation.database {
            None => database,
            Some(id) => self.project.databases.iter().position(|database| *database.id == **id)?,
        };
        self.table_of(database, &relation.table)
    }

    /// The number of tables, whose indexes are below it.
    pub fn tables_count(&self) -> usize {
        self.tables.len()
    }

    /// All root fields without a directive, in the order of their tables.
    pub fn roots(&self) -> Vec<(&str, RootField)> {
        let mut roots: Vec<_> = self.roots.iter().map(|(name, root)| (name.as_str(), *root)).collect();
        roots.sort_unstable_by_key(|(name, root)| (root.table, root.kind, *name));
        roots
    }

    /// Names of tables, without a directive or in the database at an index.
    pub fn table_names(&self, database: Option<usize>) -> impl Iterator<Item = &str> {
        let roots = database.map_or(&self.roots, |database| &self.databases[database].roots);
        roots.iter().filter(|(_, root)| root.kind == RootKind::Rows).map(|(name, _)| name.as_str())
    }

    /// Whether names in GraphQL differ from those in the database that the table at an index is in.
    pub fn is_renamed(&self, table: usize) -> bool {
        self.databases[self.tables[table].database].renamed
    }

    fn add_tables(&mut self, project: &Project) {
        for database in 0..project.databases.len() {
            self.databases.push(DatabaseNames::default());
            let Some(schema) = &project.databases[database].schema else { continue };
            for (index, table) in schema.tables().iter().enumerate() {
                self.databases[database].by_table.insert(table.name.clone(), self.tables.len());
                self.tables.push(TableNames {
                    database,
                    index,
                    type_name: String::new(),
                    aggregate_type: String::new(),
                    mutation_type: String::new(),
                    change_type: String::new(),
                    row_type: String::new(),
                    fields: HashMap::new(),
                    long_named: HashMap::new(),
                    columns: Vec::new(),
                });
            }
        }
    }

    /// Types are called as their table in Pascal case, after their database where several have such a table.
    fn name_types(&mut self, project: &Project) {
        let wanted: Vec<String> = (0..self.tables.len()).map(|table| pascal(&self.stored(table).name)).collect();
        let mut owners: HashMap<&str, Vec<usize>> = HashMap::new();
        for (table, name) in wanted.iter().enumerate() {
            owners.entry(name).or_default().push(self.tables[table].database);
        }
        let mut taken: HashMap<String, ()> = RESERVED_TYPES.map(|name| (name.to_owned(), ())).into_iter().collect();
        for (table, name) in wanted.iter().enumerate() {
            let names = &mut self.tables[table];
            let is_shared = owners[name.as_str()].iter().any(|owner| *owner != names.database);
            let name = match is_shared {
                true => format!("{}{name}", pascal(&project.databases[names.database].id)),
                false => name.clone(),
            };
            names.type_name = claim(&mut taken, name, names.index + 1, ());
        }
        // Tables first: what is derived from one makes way for them.
        for names in &mut self.tables {
            let position = names.index + 1;
            names.aggregate_type = claim(&mut taken, format!("{}Aggregate", names.type_name), position, ());
            names.mutation_type = claim(&mut taken, format!("{}Mutation", names.type_name), position, ());
            names.change_type = claim(&mut taken, format!("{}Change", names.type_name), position, ());
            names.row_type = claim(&mut taken, format!("{}Row", names.type_name), position, ());
        }
    }

    fn name_fields(&mut self, database: usize, schema: &Schema) {
        for (index, stored) in schema.tables().iter().enumerate() {
            let mut fields = HashMap::new();
            let wanted: Vec<(&str, Field)> = self.wanted_fields(database, stored);
            let mut columns = vec![String::new(); stored.columns.len()];
            let mut renamed = false;
            // Exact names first: what has to be renamed makes way for them.
            for exact in [true, false] {
                for (position, (name, field)) in wanted.iter().enumerate() {
                    let graphql = graphql_name(name);
                    if (graphql == *name) != exact {
                        continue;
                    }
                    let given = claim(&mut fields, graphql, position + 1, *field);
                    renamed |= given != *name;
                    if let Field::Column(column) = field {
                        columns[*column] = given;
                    }
                }
            }
            add_aggregates(stored, &mut fields, &wanted);
            let long_named = long_named(stored, &fields, &wanted);
            renamed |= stored.relations.iter().flat_map(|to| &to.long_name).any(|name| graphql_name(name) != *name);
            let table = self.databases[database].by_table[&schema.tables()[index].name];
            self.databases[database].renamed |= renamed;
            self.tables[table].fields = fields;
            self.tables[table].long_named = long_named;
            self.tables[table].columns = columns;
        }
    }

    /// Conditions lead from a database into its neighbours: what is renamed there is renamed for it.
    fn spread_renamed(&mut self, project: &Project) {
        let renamed: Vec<bool> = self.databases.iter().map(|database| database.renamed).collect();
        for (database, schema) in schemas(project) {
            let is_renamed = |table: &Table| {
                let index = project.databases.iter().position(|known| Some(&*known.id) == table.database.as_deref());
                index.is_some_and(|index| renamed[index])
            };
            self.databases[database].renamed |= schema.all_tables().iter().any(is_renamed);
        }
    }

    /// Columns, then relations, in their order.
    fn wanted_fields<'t>(&self, database: usize, table: &'t Table) -> Vec<(&'t str, Field)> {
        let columns = table.columns.iter().enumerate();
        let columns = columns.map(|(index, column)| (column.name.as_str(), Field::Column(index)));
        let relations = table.relations.iter().enumerate().filter_map(|(index, relation)| {
            Some((relation.name.as_str(), Field::Relation(index, self.target(database, relation)?)))
        });
        columns.chain(relations).collect()
    }

    fn name_roots(&mut self, project: &Project) {
        let mut owners: HashMap<String, Vec<usize>> = HashMap::new();
        for table in 0..self.tables.len() {
            owners.entry(graphql_name(&self.stored(table).name)).or_default().push(self.tables[table].database);
        }
        let mut alone: Vec<(String, usize)> = Vec::new();
        let mut of_database: Vec<Vec<(String, usize)>> = vec![Vec::new(); project.databases.len()];
        for table in 0..self.tables.len() {
            let database = self.tables[table].database;
            let name = graphql_name(&self.stored(table).name);
            of_database[database].push((name.clone(), table));
            let shared = owners[&name].iter().any(|owner| *owner != database);
            alone.push(match shared {
                true => (graphql_name(&format!("{}_{name}", project.databases[database].id)), table),
                false => (name, table),
            });
        }
        self.roots = self.root_fields(alone);
        for (database, named) in of_database.into_iter().enumerate() {
            self.databases[database].roots = self.root_fields(named);
        }
        for (name, mut databases) in owners {
            databases.dedup();
            if databases.len() > 1 {
                self.shared.insert(name, databases);
            }
        }
    }

    /// Fields of the tables called as given: tables first, so that none has to make way for a suffix.
    fn root_fields(&self, mut named: Vec<(String, usize)>) -> HashMap<String, RootField> {
        let mut roots = HashMap::new();
        named.sort_by_key(|(name, table)| *name != self.stored(*table).name);
        for (name, table) in &mut named {
            let position = self.tables[*table].index + 1;
            *name = claim(&mut roots, name.clone(), position, RootField { table: *table, kind: RootKind::Rows });
        }
        let suffixes =
            [("_by_pk", RootKind::ByKey), ("_aggregate", RootKind::Aggregate), ("_changes", RootKind::Changes)];
        for (suffix, kind) in suffixes {
            for (name, table) in &named {
                let is_there = match kind {
                    RootKind::ByKey => !self.stored(*table).primary_key.is_empty(),
                    RootKind::Changes => self.is_watchable(*table),
                    RootKind::Rows | RootKind::Aggregate => true,
                };
                if !is_there {
                    continue;
                }
                let position = self.tables[*table].index + 1;
                claim(&mut roots, format!("{name}{suffix}"), position, RootField { table: *table, kind });
            }
        }
        roots
    }
}

fn schemas(project: &Project) -> impl Iterator<Item = (usize, &Schema)> {
    project.databases.iter().enumerate().filter_map(|(index, database)| Some((index, database.schema.as_deref()?)))
}

fn add_aggregates(table: &Table, fields: &mut HashMap<String, Field>, wanted: &[(&str, Field)]) {
    for (position, (name, field)) in wanted.iter().enumerate() {
        let Field::Relation(index, to) = *field else { continue };
        if table.relations[index].many {
            claim(fields, format!("{}_aggregate", graphql_name(name)), position + 1, Field::Aggregate(index, to));
        }
    }
}

/// Relations by their long names, where no field is called so.
fn long_named(table: &Table, fields: &HashMap<String, Field>, wanted: &[(&str, Field)]) -> HashMap<String, Field> {
    let mut named = HashMap::new();
    let mut add = |name: String, field: Field| {
        if !fields.contains_key(&name) {
            named.entry(name).or_insert(field);
        }
    };
    for (_, field) in wanted {
        let Field::Relation(index, to) = *field else { continue };
        let relation = &table.relations[index];
        let Some(name) = relation.long_name.as_deref().map(graphql_name) else { continue };
        if relation.many {
            add(format!("{name}_aggregate"), Field::Aggregate(index, to));
        }
        add(name, *field);
    }
    named
}

/// Takes `wanted`, with the position appended as often as it takes to be the only one.
fn claim<T>(taken: &mut HashMap<String, T>, wanted: String, position: usize, what: T) -> String {
    let mut name = wanted;
    while taken.contains_key(&name) {
        name = format!("{name}_{position}");
    }
    taken.insert(name.clone(), what);
    name
}

/// `name` as a GraphQL name: `_` for each character that none may have, and before a leading digit. Names that begin with
/// `__` are reserved for introspection: one `_` is left.
pub(crate) fn graphql_name(name: &str) -> String {
    let mut written = String::with_capacity(name.len());
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        written.push('_');
    }
    written.extend(name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }));
    match written.starts_with("__") {
        true => format!("_{}", written.trim_start_matches('_')),
        false => written,
    }
}

/// `invoice_line` as `InvoiceLine`.
pub(crate) fn pascal(name: &str) -> String {
    let mut written = String::with_capacity(name.len());
    for part in name.split(|char: char| !char.is_ascii_alphanumeric()) {
        let mut chars = part.chars();
        if let Some(first) = chars.next() {
            written.push(first.to_ascii_uppercase());
            written.push_str(chars.as_str());
        }
    }
    graphql_name(&written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::fixture;

    #[test]
    fn types_are_called_in_pascal_case() {
        assert_eq!(pascal("invoice_line"), "InvoiceLine");
        assert_eq!(pascal("Album"), "Album");
        assert_eq!(pascal("2nd-hand"), "_2ndHand");
        assert_eq!(pascal("_"), "_");
    }

    #[test]
    fn a_name_that_is_no_graphql_name_gets_underscores() {
        assert_eq!(graphql_name("order items"), "order_items");
        assert_eq!(graphql_name("2nd"), "_2nd");
        assert_eq!(graphql_name("größe"), "gr__e");
        assert_eq!(graphql_name(""), "_");
        assert_eq!(graphql_name("__secret"), "_secret");
        assert_eq!(graphql_name("éé"), "_");
        assert_eq!(graphql_name("_id"), "_id");
    }

    #[test]
    fn tables_relations_and_their_aggregates_have_fields() {
        let names = Names::new(fixture::shop());
        let RootLookup::Field(album) = names.root("album") else { panic!("album is a root") };
        let fields = &names.table(album.table).fields;

        assert_eq!(names.table(album.table).type_name, "Album");
        assert!(matches!(fields["album_id"], Field::Column(0)));
        assert!(matches!(fields["artist"], Field::Relation(..)));
        assert!(matches!(fields["track_aggregate"], Field::Aggregate(..)));
        assert!(!fields.contains_key("artist_aggregate"), "to one");
        assert!(matches!(names.root("album_by_pk"), RootLookup::Field(RootField { kind: RootKind::ByKey, .. })));
        assert_eq!(names.root("audit_by_pk"), RootLookup::Unknown, "no primary key");
    }

    #[test]
    fn names_that_several_databases_have_need_the_database() {
        let names = Names::new(fixture::two_databases());

        assert_eq!(names.root("genre"), RootLookup::Ambiguous(&[0, 1]));
        let RootLookup::Field(genre) = names.root("archive_genre") else { panic!("named with its database") };
        assert_eq!(names.database_id(genre.table), "archive");
        assert_eq!(names.table(genre.table).type_name, "ArchiveGenre");
        assert!(names.root_of(1, "genre").is_some());
        assert!(matches!(names.root("album"), RootLookup::Field(_)), "only one database has it");
    }

    #[test]
    fn names_that_collide_get_their_position() {
        let names = Names::new(fixture::odd_names());
        let RootLookup::Field(root) = names.root("order_items") else { panic!("renamed") };
        let table = names.table(root.table);

        assert_eq!(table.columns, ["unit_price_1", "unit_price", "_2nd"]);
        assert!(names.is_renamed(root.table));
    }
}
