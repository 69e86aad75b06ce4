//! How the values that a slot tells as texts are read, so that images are what a read answers.

use std::{collections::HashMap, fmt::Write, sync::Arc};

use tokio_postgres::types::{ToSql, Type as Native};

use super::{SlotObstacle, SlotRefusal};
use crate::store::{
    identifier,
    log::ImageWriter,
    postgres::{
        Postgres,
        cell::{Decoder, ListForm, TextForm},
        connection::Connection,
        error::PostgresError,
    },
};

/// Columns of a table: what is between the items of their lists, whether they are vectors, whether a cast to text is a
/// function that somebody made (those of the server write what the types themselves do), and whether they are generated.
const COLUMNS: &str = "\
WITH RECURSIVE base (name, is_generated, type) AS (
    SELECT a.attname::text, a.attgenerated OPERATOR(pg_catalog.<>) '', a.atttypid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
        AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
    WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relname OPERATOR(pg_catalog.=) $2
    UNION ALL
    SELECT base.name, base.is_generated, t.typbasetype
    FROM base JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) base.type AND t.typtype OPERATOR(pg_catalog.=) 'd'
)
SELECT base.name, COALESCE(e.typdelim, ',')::text, t.typname OPERATOR(pg_catalog.=) ANY ('{int2vector,oidvector}'::pg_catalog.name[]),
    EXISTS (SELECT FROM pg_catalog.pg_cast c
        WHERE c.castsource OPERATOR(pg_catalog.=) ANY (ARRAY[t.oid, e.oid])
            AND c.casttarget OPERATOR(pg_catalog.=) 'pg_catalog.text'::pg_catalog.regtype
            AND c.castmethod OPERATOR(pg_catalog.=) 'f' AND c.oid OPERATOR(pg_catalog.>=) 16384::oid),
    base.is_generated
FROM base JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) base.type AND t.typtype OPERATOR(pg_catalog.<>) 'd'
LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem";

/// A column as the catalog has it.
struct Column {
    list: ListForm,
    has_cast: bool,
    is_generated: bool,
}

impl Postgres {
    /// The forms of a writer's columns. Refuses a table of which a slot does not tell all values as reads answer them.
    pub(super) async fn forms(&self, table: &str, writer: &Arc<ImageWriter>) -> Result<Vec<TextForm>, SlotRefusal> {
        let schema = self.inner.schema.as_str();
        let read =
            self.with_retry(|connection| Box::pin(async move { read(&connection, schema, table, writer).await }));
        let (decoders, columns) = Box::pin(read).await.map_err(|failure| self.error(failure))?;
        let mut decoders = decoders.iter();
        let mut forms = Vec::with_capacity(writer.columns().len());
        for column in writer.columns() {
            let Some(found) = columns.get(&column.name) else {
                // One that is dropped already: rows do not have it.
                forms.push(TextForm { decoder: Decoder::Text, list: ListForm::Array(b',') });
                continue;
            };
            let decoder = decoders.next().copied().unwrap_or(Decoder::Text);
            let refused = |why: &str| SlotObstacle::Table {
                table: table.to_owned(),
                why: format!("column {} {why}", column.name),
            };
            if found.is_generated {
                return Err(refused("is generated, which a slot does not tell").into());
            }
            if found.has_cast && !column.cast.is_empty() {
                return Err(refused("is read by a cast of its own type, which a slot does not make").into());
            }
            forms.push(TextForm { decoder, list: found.list });
        }
        Ok(forms)
    }
}

/// The select list of reads, of the columns that there are. It is not run: only their types are wanted.
fn select(schema: &str, table: &str, writer: &ImageWriter, columns: &HashMap<String, Column>) -> String {
    let mut sql = String::from("SELECT ");
    let there = writer.columns().iter().filter(|column| columns.contains_key(&column.name));
    for (index, column) in there.enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let _ = write!(sql, "{separator}t.{}{}", identifier(&column.name), column.cast);
    }
    let _ = write!(sql, " FROM {}.{} t", identifier(schema), identifier(table));
    sql
}

async fn read(
    connection: &Connection,
    schema: &str,
    table: &str,
    writer: &ImageWriter,
) -> Result<(Arc<[Decoder]>, HashMap<String, Column>), PostgresError> {
    let args: [(&(dyn ToSql + Sync), Native); 2] = [(&schema, Native::TEXT), (&table, Native::TEXT)];
    let mut columns = HashMap::new();
    for row in connection.query(COLUMNS, &args).await? {
        let (name, delimiter): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let list = match row.try_get(2)? {
            true => ListForm::Vector,
            false => ListForm::Array(delimiter.bytes().next().unwrap_or(b',')),
        };
        columns.insert(name, Column { list, has_cast: row.try_get(3)?, is_generated: row.try_get(4)? });
    }
    let select = select(schema, table, writer, &columns);
    Ok((connection.result_decoders(&select).await?, columns))
}
