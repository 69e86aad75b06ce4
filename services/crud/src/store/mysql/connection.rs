//! Statements on one connection.

use mysql_async::{Conn, Params, prelude::Queryable};

use super::{bind, error::MysqlError, rows::MysqlRows};
use crate::{budget::SharedRoom, store::Statement};

/// Memory that a row takes beside its values.
const ROW_BYTES: usize = 64;

/// Runs a statement, which is prepared on the connection once.
pub async fn run(conn: &mut Conn, statement: &Statement, room: &SharedRoom<'_, '_>) -> Result<MysqlRows, MysqlError> {
    let prepared = conn.prep(statement.text.clone()).await?;
    let args = statement.args.iter().map(bind::value).collect::<Result<Vec<_>, _>>().map_err(MysqlError::Refused)?;
    let args = if args.is_empty() { Params::Empty } else { Params::Positional(args) };
    let mut answer = conn.exec_iter(prepared, args).await?;
    let (mut rows, mut size) = (Vec::new(), 0);
    while let Some(row) = answer.next().await? {
        let bytes = ROW_BYTES + bind::row_bytes(&row);
        if !room.has_taken(bytes) {
            room.wait_and_take(bytes).await.map_err(MysqlError::TooLarge)?;
        }
        size += bytes;
        rows.push(row);
    }
    let affected = answer.affected_rows();
    Ok(MysqlRows::new(rows, statement.columns.clone(), affected, size))
}

/// Runs fixed statements without rows and arguments.
pub async fn command(conn: &mut Conn, text: &'static str) -> Result<(), MysqlError> {
    Ok(conn.query_drop(text).await?)
}
