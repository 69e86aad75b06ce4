//! Schemas.

use query::{Column, Equality, Error, ForeignKey, Relation, Schema, Table, Writes};

use super::{all, member, members};
use crate::wire::query::v1 as wire;

members!(query::TableKind, wire::TableKind, "table.kind", { Table, View, Virtual });
members!(query::Type, wire::Type, "column.type", {
    Bool, Int16, Int32, Int64, Float, Decimal, Text, Bytes, Date, Time, Timestamp, Uuid, Json, Other, Any, Address,
}, query::Type::List(item) => wire::Type::from(*item));
members!(query::Comparisons, wire::Comparisons, "column.comparisons", { All, Equality, None });
members!(query::Matching, wire::Matching, "column.matching", { None, Equality, All });

impl From<&Schema> for wire::Schema {
    /// Relations of foreign keys do not travel: the other side derives the same ones.
    fn from(schema: &Schema) -> Self {
        let tables = schema.all_tables().iter().map(wire::Table::from).collect();
        Self { tables, database: schema.database().to_owned() }
    }
}

impl TryFrom<wire::Schema> for Schema {
    type Error = Error;

    fn try_from(schema: wire::Schema) -> Result<Self, Error> {
        Ok(Schema::with_neighbours(schema.database, all(schema.tables)?))
    }
}

impl From<&Table> for wire::Table {
    fn from(table: &Table) -> Self {
        Self {
            name: table.name.clone(),
            database: table.database.clone().unwrap_or_default(),
            kind: wire::TableKind::from(table.kind).into(),
            columns: table.columns.iter().map(wire::Column::from).collect(),
            primary_key: table.primary_key.clone(),
            unique_keys: table.unique_keys.iter().map(|columns| wire::UniqueKey { columns: columns.clone() }).collect(),
            foreign_keys: table.foreign_keys.iter().map(wire::ForeignKey::from).collect(),
            writes: Some(table.writes.into()),
            row_triggers: Some(table.row_triggers.into()),
            row_id: table.row_id.clone(),
            has_children: table.has_children,
            is_left_out: table.is_left_out,
            links: table.links.iter().map(wire::TableLink::from).collect(),
        }
    }
}

impl TryFrom<wire::Table> for Table {
    type Error = Error;

    /// The table without relations, which [`Schema::new`] derives.
    fn try_from(table: wire::Table) -> Result<Self, Error> {
        Ok(Self {
            name: table.name,
            database: neighbour(table.database),
            kind: member::<wire::TableKind, _>(table.kind, "table.kind")?,
            columns: all(table.columns)?,
            primary_key: table.primary_key,
            unique_keys: table.unique_keys.into_iter().map(|key| key.columns).collect(),
            foreign_keys: table.foreign_keys.into_iter().map(ForeignKey::from).collect(),
            relations: Vec::new(),
            links: table.links.into_iter().map(Relation::from).collect(),
            writes: table.writes.unwrap_or_default().into(),
            row_triggers: table.row_triggers.unwrap_or_default().into(),
            row_id: table.row_id,
            has_children: table.has_children,
            is_left_out: table.is_left_out,
        })
    }
}

impl From<Writes> for wire::Writes {
    fn from(Writes { insert, update, delete }: Writes) -> Self {
        Self { insert, update, delete }
    }
}

impl From<wire::Writes> for Writes {
    fn from(wire::Writes { insert, update, delete }: wire::Writes) -> Self {
        Self { insert, update, delete }
    }
}

impl From<&Column> for wire::Column {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            r#type: wire::Type::from(column.r#type).into(),
            nullable: column.nullable,
            has_default: column.has_default,
            generated: column.generated,
            native_type: column.native.clone(),
            readable: column.readable,
            list: matches!(column.r#type, query::Type::List(_)),
            comparisons: wire::Comparisons::from(column.abilities.comparisons).into(),
            wide_times: column.abilities.wide_times,
            matching: wire::Matching::from(column.abilities.matching).into(),
        }
    }
}

impl TryFrom<wire::Column> for Column {
    type Error = Error;

    fn try_from(column: wire::Column) -> Result<Self, Error> {
        let item: query::Type = member::<wire::Type, _>(column.r#type, "column.type")?;
        let list = || item.listed().ok_or_else(|| Error::Malformed("column.type has no lists".to_owned()));
        let comparisons = match column.comparisons() {
            wire::Comparisons::Unspecified => query::Comparisons::All,
            told => told.try_into()?,
        };
        let matching = match column.matching() {
            wire::Matching::Unspecified => query::Matching::None,
            told => told.try_into()?,
        };
        Ok(Self {
            name: column.name,
            r#type: if column.list { list()? } else { item },
            nullable: column.nullable,
            has_default: column.has_default,
            generated: column.generated,
            native: column.native_type,
            readable: column.readable,
            equality: Equality::default(),
            abilities: query::Abilities { comparisons, wide_times: column.wide_times, matching },
        })
    }
}

impl From<&ForeignKey> for wire::ForeignKey {
    fn from(key: &ForeignKey) -> Self {
        Self {
            columns: key.columns.clone(),
            foreign_database: key.foreign_database.clone().unwrap_or_default(),
            foreign_table: key.foreign_table.clone(),
            foreign_columns: key.foreign_columns.clone(),
        }
    }
}

impl From<wire::ForeignKey> for ForeignKey {
    fn from(key: wire::ForeignKey) -> Self {
        Self {
            columns: key.columns,
            foreign_database: neighbour(key.foreign_database),
            foreign_table: key.foreign_table,
            foreign_columns: key.foreign_columns,
        }
    }
}

impl From<&Relation> for wire::TableLink {
    fn from(relation: &Relation) -> Self {
        let (columns, foreign_columns) = relation.on.iter().cloned().unzip();
        let Relation { name, long_name: _, database, table, many, refers, on: _ } = relation.clone();
        Self { name, database: database.unwrap_or_default(), table, many, refers, columns, foreign_columns }
    }
}

impl From<wire::TableLink> for Relation {
    fn from(link: wire::TableLink) -> Self {
        Self {
            name: link.name,
            long_name: None,
            database: neighbour(link.database),
            table: link.table,
            many: link.many,
            refers: link.refers,
            on: link.columns.into_iter().zip(link.foreign_columns).collect(),
        }
    }
}

/// The id of a neighbour; `None` for the schema's own database.
fn neighbour(database: String) -> Option<String> {
    (!database.is_empty()).then_some(database)
}
