//! Names of the types that the types of tables bring with them.

use std::collections::{HashMap, HashSet};

use query::{Column, Comparisons, Type};

use crate::graphql::names::Names;

/// Names of the published types. They depend on all tables, so that they are the same for every caller.
pub struct TypeNames {
    /// Scalars and their filters.
    scalars: Vec<(Scalar, ScalarNames)>,
    /// Conditions on columns that are lists of a scalar, or have no order.
    conditions: HashMap<Condition, String>,
    /// Of each table, by its index.
    tables: Vec<TableTypes>,
    /// How many rows a mutation writes.
    pub rows: String,
    /// What a change of a row is.
    pub change: String,
}

/// A scalar and the conditions on columns of it.
#[derive(Debug, Clone)]
pub struct ScalarNames {
    /// `Int`
    pub name: String,
    /// `IntFilter`
    pub filter: String,
}

/// Types of a table besides those of its rows.
pub struct TableTypes {
    /// `AlbumFilter`
    pub filter: String,
    /// `AlbumUpdateFilter`, where updates allow conditions on other columns than reads do.
    pub update_filter: String,
    /// `AlbumDeleteFilter`
    pub delete_filter: String,
    /// `AlbumManyFilter`
    pub many_filter: String,
    /// `AlbumSort`
    pub sort: String,
    /// `AlbumInsert`
    pub insert: String,
    /// `AlbumSet`
    pub set: String,
    /// `AlbumInc`
    pub inc: String,
}

/// Conditions that a column of a type can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The scalar of its values.
    pub scalar: Scalar,
    /// Its values are lists of them.
    pub is_list: bool,
    /// How its values compare.
    pub comparisons: Comparisons,
}

impl Condition {
    /// The conditions on a column.
    pub fn of(column: &Column) -> Self {
        let is_list = matches!(column.r#type, Type::List(_));
        Self { scalar: Scalar::of(column.r#type), is_list, comparisons: column.comparisons() }
    }

    /// The conditions on a column of a scalar whose values have an order; JSON has none.
    pub fn on(scalar: Scalar) -> Self {
        let comparisons = if scalar == Scalar::Json { Comparisons::None } else { Comparisons::All };
        Self { scalar, is_list: false, comparisons }
    }

    fn preferred(self) -> String {
        let scalar = self.scalar.preferred();
        let list = if self.is_list { "List" } else { "" };
        let comparisons = match self.comparisons {
            Comparisons::Equality => "Equality",
            // JSON has no others.
            Comparisons::None if self.scalar != Scalar::Json => "Null",
            Comparisons::All | Comparisons::None => "",
        };
        format!("{scalar}{list}{comparisons}Filter")
    }
}

/// The scalars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    Boolean,
    Int,
    BigInt,
    Float,
    Decimal,
    String,
    Bytes,
    Date,
    Time,
    Timestamp,
    Uuid,
    Json,
    Native,
    Any,
}

impl Scalar {
    /// All of them.
    pub const ALL: [Scalar; 14] = [
        Scalar::Boolean,
        Scalar::Int,
        Scalar::BigInt,
        Scalar::Float,
        Scalar::Decimal,
        Scalar::String,
        Scalar::Bytes,
        Scalar::Date,
        Scalar::Time,
        Scalar::Timestamp,
        Scalar::Uuid,
        Scalar::Json,
        Scalar::Native,
        Scalar::Any,
    ];

    /// The scalar of a column's values; of what is in it, for a list.
    pub fn of(r#type: Type) -> Self {
        match r#type {
            Type::Bool => Scalar::Boolean,
            Type::Int16 | Type::Int32 => Scalar::Int,
            Type::Int64 => Scalar::BigInt,
            Type::Float => Scalar::Float,
            Type::Decimal => Scalar::Decimal,
            Type::Text => Scalar::String,
            Type::Bytes => Scalar::Bytes,
            Type::Date => Scalar::Date,
            Type::Time => Scalar::Time,
            Type::Timestamp => Scalar::Timestamp,
            Type::Uuid => Scalar::Uuid,
            Type::Json => Scalar::Json,
            Type::Other | Type::Address => Scalar::Native,
            Type::List(item) => Scalar::of(*item),
            Type::Any => Scalar::Any,
        }
    }

    fn preferred(self) -> &'static str {
        match self {
            Scalar::Boolean => "Boolean",
            Scalar::Int => "Int",
            Scalar::BigInt => "BigInt",
            Scalar::Float => "Float",
            Scalar::Decimal => "Decimal",
            Scalar::String => "String",
            Scalar::Bytes => "Bytes",
            Scalar::Date => "Date",
            Scalar::Time => "Time",
            Scalar::Timestamp => "Timestamp",
            Scalar::Uuid => "UUID",
            Scalar::Json => "JSON",
            Scalar::Native => "Native",
            Scalar::Any => "Any",
        }
    }

    /// The scalar that the specification calls `name`.
    pub fn of_specification(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scalar| scalar.is_of_specification() && scalar.preferred() == name)
    }

    fn is_of_specification(self) -> bool {
        matches!(self, Scalar::Boolean | Scalar::Int | Scalar::Float | Scalar::String)
    }

    /// What its values are.
    pub fn description(self) -> &'static str {
        match self {
            Scalar::Boolean => "True or false.",
            Scalar::Int => "An integer of 32 bits.",
            Scalar::Float => "A number of double precision (IEEE 754).",
            Scalar::String => "A text.",
            Scalar::BigInt => "An integer of 64 bits, as a number with all its digits; as input a string too.",
            Scalar::Decimal => "An exact decimal, as a number with all its digits; as input a string too.",
            Scalar::Bytes => "Bytes, as a base64 string.",
            Scalar::Date => "A date such as \"2009-01-31\".",
            Scalar::Time => "A time of day such as \"13:14:15.5\".",
            Scalar::Timestamp => "A point in time by RFC 3339, such as \"2009-01-31T13:14:15Z\".",
            Scalar::Uuid => "A UUID such as \"0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d\".",
            Scalar::Json => "Any JSON.",
            Scalar::Native => "A value of another type of the database, as the database writes it.",
            Scalar::Any => "A number or a string: the column has no type.",
        }
    }
}

impl TypeNames {
    /// The names of all types of a project.
    pub fn new(names: &Names) -> Self {
        let of_tables = (0..names.tables_count()).flat_map(|index| {
            let table = names.table(index);
            [&table.type_name, &table.aggregate_type, &table.mutation_type, &table.change_type, &table.row_type]
                .map(String::clone)
        });
        let mut taken: HashSet<String> = of_tables.collect();
        let scalars = Scalar::ALL.map(|scalar| {
            let name = match scalar.is_of_specification() {
                // No table takes their names.
                true => scalar.preferred().to_owned(),
                false => claim(&mut taken, scalar.preferred(), 1),
            };
            let filter = claim(&mut taken, &format!("{}Filter", scalar.preferred()), 1);
            (scalar, ScalarNames { name, filter })
        });
        let rows = claim(&mut taken, "MutatedRows", 1);
        let change = claim(&mut taken, "ChangeType", 1);
        let tables = (0..names.tables_count()).map(|index| {
            let base = &names.table(index).type_name;
            let mut of = |suffix: &str| claim(&mut taken, &format!("{base}{suffix}"), index + 1);
            TableTypes {
                filter: of("Filter"),
                update_filter: of("UpdateFilter"),
                delete_filter: of("DeleteFilter"),
                many_filter: of("ManyFilter"),
                sort: of("Sort"),
                insert: of("Insert"),
                set: of("Set"),
                inc: of("Inc"),
            }
        });
        let tables = tables.collect();
        let conditions = conditions().map(|condition| (condition, claim(&mut taken, &condition.preferred(), 1)));
        Self { scalars: scalars.into(), conditions: conditions.collect(), tables, rows, change }
    }

    /// The name of the conditions on a column.
    pub fn condition(&self, condition: Condition) -> &str {
        match self.conditions.get(&condition) {
            Some(name) => name,
            None => &self.scalar(condition.scalar).filter,
        }
    }

    /// Types of the table at an index.
    pub fn table(&self, table: usize) -> &TableTypes {
        &self.tables[table]
    }

    /// The names of a scalar and its filter.
    pub fn scalar(&self, scalar: Scalar) -> &ScalarNames {
        let found = self.scalars.iter().find(|(known, _)| *known == scalar);
        &found.expect("all scalars have names").1
    }
}

/// Conditions other than those of every column of a scalar.
fn conditions() -> impl Iterator<Item = Condition> {
    let all = Scalar::ALL.into_iter().flat_map(|scalar| {
        [Comparisons::All, Comparisons::Equality, Comparisons::None]
            .into_iter()
            .flat_map(move |comparisons| [false, true].map(|is_list| Condition { scalar, is_list, comparisons }))
    });
    all.filter(|condition| {
        let is_known = condition.scalar != Scalar::Json || condition.comparisons == Comparisons::None;
        is_known && *condition != Condition::on(condition.scalar)
    })
}

/// Takes `wanted`, with the position appended as often as it takes to be the only one.
fn claim(taken: &mut HashSet<String>, wanted: &str, position: usize) -> String {
    let mut name = wanted.to_owned();
    while !taken.insert(name.clone()) {
        name = format!("{name}_{position}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::fixture;

    #[test]
    fn types_of_tables_come_before_those_that_are_derived() {
        let names = Names::new(fixture::with_tables(&["album", "album_filter", "date", "subscription"]));
        let types = TypeNames::new(&names);

        assert_eq!(names.table(1).type_name, "AlbumFilter");
        assert_eq!(types.table(0).filter, "AlbumFilter_1");
        assert_eq!(names.table(2).type_name, "Date");
        assert_eq!(types.scalar(Scalar::Date).name, "Date_1");
        assert_eq!(types.scalar(Scalar::Date).filter, "DateFilter");
        assert_eq!(types.table(2).filter, "DateFilter_3");
        assert_eq!(names.table(3).type_name, "Subscription_4", "the root of subscriptions");
    }
}
