//! Schema of a database: tables, columns, keys and relations.

use crate::{Equality, Error, Operation, link, neighbours::Places, relation};

/// Tables of one database, and how they relate.
///
/// Relations may lead into other databases of the project, where those are schemas of the same database of a server. The
/// tables of these neighbours are held too, and found by relations only.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// The database's id; empty where it has no neighbours.
    database: String,
    /// Its own, then those of its neighbours.
    tables: Vec<Table>,
    places: Places,
}

/// A table or view.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name in the database, case kept.
    pub name: String,
    /// The id of its database where that is a neighbour; `None`: the schema's own.
    pub database: Option<String>,
    /// Whether it holds rows or shows those of others.
    pub kind: TableKind,
    /// In the order of the database.
    pub columns: Vec<Column>,
    /// Columns of the primary key in its order; empty where there is none.
    pub primary_key: Vec<String>,
    /// Columns of each unique constraint or unconditional unique index, the primary key aside.
    pub unique_keys: Vec<Vec<String>>,
    /// In the order of the database.
    pub foreign_keys: Vec<ForeignKey>,
    /// Filled by [`Schema::new`] from the foreign keys of all tables, and from `links`.
    pub relations: Vec<Relation>,
    /// Relations that resources declare.
    pub links: Vec<Relation>,
    /// What the database can write to it.
    pub writes: Writes,
    /// Writes before which a trigger of the database changes rows: then it alone knows which columns must be given.
    pub row_triggers: Writes,
    /// Hidden columns of the engine that tell a row from all others, where the primary key does not; empty where it
    /// does, and where nothing does.
    pub row_id: Vec<String>,
    /// Other tables inherit from it: it shows their rows too, for which its keys do not hold.
    pub has_children: bool,
    /// No relation leads to it: of a neighbour, what cannot be served here. It has its part in the names of relations,
    /// which are the same whichever database looks.
    pub is_left_out: bool,
}

/// Kind of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Holds rows.
    Table,
    /// Shows rows of others.
    View,
    /// Holds rows that the database does not keep itself, by a module of it: nothing tells of their changes.
    Virtual,
}

/// A set of the operations that write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writes {
    /// Inserts.
    pub insert: bool,
    /// Updates.
    pub update: bool,
    /// Deletes.
    pub delete: bool,
}

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name in the database, case kept.
    pub name: String,
    /// Type of its values.
    pub r#type: Type,
    /// It may be null.
    pub nullable: bool,
    /// The database has a value of its own where an insert gives none.
    pub has_default: bool,
    /// The database computes it; it cannot be written.
    pub generated: bool,
    /// The type's name in the database, such as `numeric(10,2)`.
    pub native: String,
    /// The server's role may read it; else it can be written at most.
    pub readable: bool,
    /// How the database compares its values; not told between services.
    pub equality: Equality,
    /// What the database can do with its values.
    pub abilities: Abilities,
}

/// What a database can do with the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// How they compare.
    pub comparisons: Comparisons,
    /// Dates and times may be infinite, of years beyond four digits, and `24:00:00`.
    pub wide_times: bool,
    /// Which comparisons of its values in memory have the result that the database gives.
    pub matching: Matching,
}

/// Comparisons in memory, of values as they are read, that have the result which the database gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Matching {
    /// None: only the database knows.
    #[default]
    None,
    /// Equality.
    Equality,
    /// Equality and order.
    All,
}

/// The digits that a column declares: `numeric(10,2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digits {
    /// In all.
    pub precision: usize,
    /// After the point.
    pub scale: usize,
}

/// Comparisons that a database has for the values of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Comparisons {
    /// Equality, and an order in which rows can be sorted.
    #[default]
    All,
    /// Equality only.
    Equality,
    /// None: only whether the value is null can be asked.
    None,
}

/// Type of a column, the same for all engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// true or false.
    Bool,
    /// 16-bit integer.
    Int16,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Double precision.
    Float,
    /// Exact decimal.
    Decimal,
    /// Text.
    Text,
    /// Bytes; base64 in JSON.
    Bytes,
    /// `2009-01-31`.
    Date,
    /// `13:14:15.5`, without a zone.
    Time,
    /// A point in time, RFC 3339 UTC in JSON; without a zone in the database it is UTC.
    Timestamp,
    /// `0190c2c4-…`, lower case.
    Uuid,
    /// Any JSON.
    Json,
    /// Anything else; read and written as the database's text.
    Other,
    /// Numbers, texts and bytes, each as it is: a column of SQLite without a type. Numbers are less than texts.
    Any,
    /// An address of the internet or a network, as its text: `10.0.0.1`, `10.0.0.0/8`.
    Address,
    /// A list of values of one type, in any number of dimensions: `[1, null]`, `[[1, 2], [3, 4]]`.
    List(&'static Type),
}

/// Types of which there are lists.
static ITEMS: [Type; 16] = [
    Type::Bool,
    Type::Int16,
    Type::Int32,
    Type::Int64,
    Type::Float,
    Type::Decimal,
    Type::Text,
    Type::Bytes,
    Type::Date,
    Type::Time,
    Type::Timestamp,
    Type::Uuid,
    Type::Json,
    Type::Other,
    Type::Any,
    Type::Address,
];

impl Type {
    /// The type of lists of its values; `None` for lists, whose dimensions are not part of their type.
    pub fn listed(self) -> Option<Type> {
        ITEMS.iter().find(|known| **known == self).map(Type::List)
    }

    /// The type of the values within a list, or itself.
    pub fn item(self) -> Type {
        match self {
            Type::List(item) => *item,
            one => one,
        }
    }
}

/// `columns` of this table refer to `foreign_columns` of `foreign_table`, pair by pair.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignKey {
    /// Of this table.
    pub columns: Vec<String>,
    /// The id of the other table's database where that is a neighbour; `None`: the schema's own.
    pub foreign_database: Option<String>,
    /// The other table.
    pub foreign_table: String,
    /// Of the other table.
    pub foreign_columns: Vec<String>,
}

/// A relation from a row to rows of another table.
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    /// Its name, unique among the table's columns and relations.
    pub name: String,
    /// `<table>_by_<columns>`, by which requests and rules may call it too, where it could not be called as others are. It
    /// is not published.
    pub long_name: Option<String>,
    /// The id of that table's database where that is a neighbour; `None`: the schema's own.
    pub database: Option<String>,
    /// The table it leads to.
    pub table: String,
    /// It leads to any number of rows; else to one or none.
    pub many: bool,
    /// A foreign key of this table makes it; else one of the other. Of a link: the columns of the other table are the key.
    pub refers: bool,
    /// Pairs of a column of this table and the column of the other that equals it.
    pub on: Vec<(String, String)>,
}

impl Schema {
    /// A schema of `tables`, whose relations it derives from all foreign keys and links; relations given are replaced.
    ///
    /// A table's relations stand in this order: to one row, as its foreign keys do; then back from the tables that
    /// refer to it, as those stand in `tables`; then links, where they do not take the place of one of their name.
    /// Foreign keys and links to tables or columns that are not in `tables` give none.
    pub fn new(tables: Vec<Table>) -> Self {
        Self::with_neighbours(String::new(), tables)
    }

    /// As [`Schema::new`], of the database with the id `database`: tables that name another are its neighbours'.
    pub fn with_neighbours(database: String, mut tables: Vec<Table>) -> Self {
        tables.sort_by_key(|table| table.database.is_some());
        let places = Places::of(&tables);
        let relations = relation::all(&database, &tables, &places);
        let target = |link: &Relation| places.find(link.database.as_deref(), &link.table).map(|index| &tables[index]);
        let relations = tables.iter().zip(relations);
        let relations: Vec<_> = relations.map(|(table, relations)| link::placed(table, relations, target)).collect();
        let is_served = |relation: &Relation| target(relation).is_some_and(|table| !table.is_left_out);
        let served = |relations: Vec<Relation>| relations.into_iter().filter(is_served).collect();
        let relations: Vec<Vec<Relation>> = relations.into_iter().map(served).collect();
        for (table, relations) in tables.iter_mut().zip(relations) {
            table.relations = relations;
        }
        Self { database, tables, places }
    }

    /// The id of its database; empty where it has no neighbours.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Its tables and those of its neighbours, to make another schema of.
    pub fn into_tables(self) -> Vec<Table> {
        self.tables
    }

    /// Its own tables, in the order given.
    pub fn tables(&self) -> &[Table] {
        &self.tables[..self.places.own()]
    }

    /// Its own tables, and then those of its neighbours.
    pub fn all_tables(&self) -> &[Table] {
        &self.tables
    }

    /// The table that `relation` leads to.
    pub fn target(&self, relation: &Relation) -> Result<&Table, Error> {
        self.table_of(relation.database.as_deref(), &relation.table)
    }

    /// The tables along a path of relations from the table called `name`, as far as there are any. Each with its database,
    /// where that is a neighbour.
    pub fn tables_along(&self, (database, name): (Option<&str>, &str), path: &[String]) -> Vec<(Option<&str>, &str)> {
        let mut found = Vec::new();
        let mut table = self.table_of(database, name).ok();
        for name in path {
            let Some(relation) = table.and_then(|table| table.find_relation(name)) else { break };
            found.push((relation.database.as_deref(), relation.table.as_str()));
            table = self.target(relation).ok();
        }
        found
    }

    /// The table called `name` of a neighbour, or its own.
    pub fn table_of(&self, database: Option<&str>, name: &str) -> Result<&Table, Error> {
        match self.places.find(database, name) {
            Some(index) => Ok(&self.tables[index]),
            None => Err(self.unknown_table(database, name)),
        }
    }

    /// The table called `name`, exactly.
    pub fn table(&self, name: &str) -> Result<&Table, Error> {
        self.table_of(None, name)
    }

    fn unknown_table(&self, database: Option<&str>, name: &str) -> Error {
        let known = self.tables.iter().filter(|table| table.database.as_deref() == database);
        Error::UnknownTable {
            table: crate::error::truncated(name),
            nearest: crate::nearest(name, known.map(|table| table.name.as_str())),
        }
    }
}

impl Writes {
    /// Every write.
    pub const ALL: Writes = Writes { insert: true, update: true, delete: true };
    /// No write.
    pub const NONE: Writes = Writes { insert: false, update: false, delete: false };

    /// Whether `operation` is one of them; a read is none.
    pub fn has(self, operation: Operation) -> bool {
        match operation {
            Operation::Create => self.insert,
            Operation::Update => self.update,
            Operation::Delete => self.delete,
            Operation::Read => false,
        }
    }
}

impl Column {
    /// Checks that its values can be less or greater than another, which was given as `found`.
    ///
    /// Errors: `WRONG_TYPE`.
    pub fn check_order(&self, found: &str) -> Result<(), Error> {
        match self.comparisons() {
            Comparisons::All => Ok(()),
            Comparisons::Equality => Err(self.incomparable("eq, ne, in, nin and isNull alone", found)),
            Comparisons::None => self.check_equality(found),
        }
    }

    /// Checks that its values can be equal to another, which was given as `found`.
    ///
    /// Errors: `WRONG_TYPE`.
    pub fn check_equality(&self, found: &str) -> Result<(), Error> {
        match self.comparisons() {
            Comparisons::All | Comparisons::Equality => Ok(()),
            Comparisons::None => Err(self.incomparable("isNull and no other operator", found)),
        }
    }

    /// Checks that rows can be sorted by it.
    ///
    /// Errors: `WRONG_TYPE`.
    pub fn check_sort(&self) -> Result<(), Error> {
        match self.comparisons() {
            Comparisons::All => Ok(()),
            Comparisons::Equality | Comparisons::None => Err(Error::WrongType {
                name: "sort".to_owned(),
                expected: "column that has an order".to_owned(),
                found: format!("{}, which holds {}", self.name, self.held()),
            }),
        }
    }

    /// The digits of a decimal column that declares both of its numbers.
    pub fn digits(&self) -> Option<Digits> {
        if self.r#type != Type::Decimal {
            return None;
        }
        let (precision, scale) = self.native.split_once('(')?.1.split_once(')')?.0.split_once(',')?;
        let digits = Digits { precision: precision.trim().parse().ok()?, scale: scale.trim().parse().ok()? };
        (digits.scale <= digits.precision).then_some(digits)
    }

    /// How its values compare. JSON has no comparisons here, whatever a database does.
    pub fn comparisons(&self) -> Comparisons {
        if self.r#type.item() == Type::Json { Comparisons::None } else { self.abilities.comparisons }
    }

    fn held(&self) -> &str {
        if self.r#type == Type::Json { "JSON" } else { &self.native }
    }

    fn incomparable(&self, operators: &str, found: &str) -> Error {
        let expected = format!("{operators}, because it holds {}", self.held());
        Error::WrongType { name: self.name.clone(), expected, found: found.to_owned() }
    }
}

impl Relation {
    /// The one of its names that `name` is: its long name, or else its own.
    pub fn called(&self, name: &str) -> &str {
        self.long_name.as_deref().filter(|long| *long == name).unwrap_or(&self.name)
    }
}

impl Column {
    /// A column that may not be null, is neither computed nor filled by the database, and may be read.
    pub fn new(name: impl Into<String>, r#type: Type, native: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            r#type,
            nullable: false,
            has_default: false,
            generated: false,
            native: native.into(),
            readable: true,
            equality: Equality::default(),
            abilities: Abilities::default(),
        }
    }
}

impl Table {
    /// A table of its own database that takes all writes, without keys.
    pub fn new(name: impl Into<String>, columns: Vec<Column>) -> Self {
        Self {
            name: name.into(),
            database: None,
            kind: TableKind::Table,
            columns,
            primary_key: Vec::new(),
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            relations: Vec::new(),
            links: Vec::new(),
            writes: Writes::ALL,
            row_triggers: Writes::NONE,
            row_id: Vec::new(),
            has_children: false,
            is_left_out: false,
        }
    }

    /// The columns that tell a row from all others: the primary key, else the shortest unique key without nulls; `None`
    /// where there is neither.
    pub fn identity(&self) -> Option<&[String]> {
        if !self.primary_key.is_empty() && self.row_id.is_empty() {
            return Some(&self.primary_key);
        }
        let is_certain = |columns: &&Vec<String>| {
            columns.iter().all(|name| self.column(name).is_ok_and(|column| column.readable && !column.nullable))
        };
        self.unique_keys.iter().filter(is_certain).min_by_key(|columns| columns.len()).map(Vec::as_slice)
    }

    /// Whether an insert without a value for `column` fails for certain.
    pub fn requires(&self, column: &Column) -> bool {
        !column.has_default && !column.generated && !self.may_set_null(column, Operation::Create)
    }

    /// Whether `operation` may set `column` to null, as far as that is known before the database is asked. A key that an
    /// engine would let be null is given all the same.
    pub fn may_set_null(&self, column: &Column, operation: Operation) -> bool {
        let is_key = || !self.row_id.is_empty() && self.primary_key.contains(&column.name);
        self.row_triggers.has(operation) || (column.nullable && !is_key())
    }

    /// Checks that the database can do `operation` with the table.
    pub fn check_operation(&self, operation: Operation) -> Result<(), Error> {
        let what = match operation {
            Operation::Read => return Ok(()),
            _ if self.writes.has(operation) => return Ok(()),
            _ if self.writes == Writes::NONE => {
                return Err(Error::Malformed(format!("{} is a view and cannot be written", self.name)));
            }
            Operation::Create => "inserted into",
            Operation::Update => "updated in",
            Operation::Delete => "deleted from",
        };
        Err(Error::Malformed(format!("rows cannot be {what} {}: the database has no way to", self.name)))
    }

    /// The column called `name`, exactly.
    pub fn column(&self, name: &str) -> Result<&Column, Error> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| Error::UnknownColumn {
            table: self.name.clone(),
            column: crate::error::truncated(name),
            nearest: crate::nearest(name, self.columns.iter().map(|column| column.name.as_str())),
        })
    }

    /// The relation called `name`, exactly, or by its long name.
    pub fn relation(&self, name: &str) -> Result<&Relation, Error> {
        self.find_relation(name).ok_or_else(|| Error::UnknownRelation {
            table: self.name.clone(),
            relation: crate::error::truncated(name),
            nearest: crate::nearest(name, self.relations.iter().map(|relation| relation.name.as_str())),
        })
    }

    /// As [`Table::relation`], without the costly search for similar names.
    pub fn find_relation(&self, name: &str) -> Option<&Relation> {
        let named = self.relations.iter().find(|relation| relation.name == name);
        named.or_else(|| self.relations.iter().find(|relation| relation.long_name.as_deref() == Some(name)))
    }
}
