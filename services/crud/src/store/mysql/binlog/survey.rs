//! What a server has for following its binary log, and what it lacks.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use mysql_async::{Conn, prelude::Queryable};

use super::{
    charset::Charset,
    layout::{ColumnForm, ColumnNature},
    place::{BinlogPlace, parse_file},
};
use crate::store::mysql::{MysqlError, introspect::labels};

const SETTINGS: &str = "\
SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'binlog_row_image', 'binlog_row_metadata', \
'log_bin_compress', 'wsrep_on', 'server_id', 'server_uid', 'hostname', 'port')";
const DATABASE: &str = "SELECT DATABASE(), CURRENT_USER()";
/// Which databases have no log.
const STATUS: &str = "SHOW MASTER STATUS";
/// How far transactions are visible, or a snapshot sees them.
pub const VISIBLE: &str = "SHOW SESSION STATUS LIKE 'binlog_snapshot_%'";
const TABLE: &str = "\
SELECT TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND BINARY TABLE_NAME = ?";
const COLUMNS: &str = "\
SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, CHARACTER_OCTET_LENGTH, EXTRA
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND BINARY TABLE_NAME = ? ORDER BY ORDINAL_POSITION";

/// The settings that the log needs, and what they must be.
const NEEDED: [(&str, &str); 5] = [
    ("log_bin", "ON"),
    ("binlog_format", "ROW"),
    ("binlog_row_image", "FULL"),
    ("binlog_row_metadata", "FULL"),
    ("log_bin_compress", "OFF"),
];

/// Why changes of a database cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BinlogObstacle {
    /// A setting of the server is another.
    Setting { name: &'static str, expected: &'static str, found: String },
    /// The server writes no log of the database.
    Filtered { database: String },
    /// Several servers take writes, each with a log of its own.
    Cluster,
    /// A right is missing.
    Right { user: String, right: &'static str },
}

/// Why changes of a table cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableObstacle {
    NoTable,
    Kind(String),
    Engine { engine: String, table: String },
    Column { column: String, what: String },
}

/// What is found of a server.
#[derive(Debug)]
pub struct ServerSurvey {
    /// Hash of what tells it from others.
    pub source: u64,
    pub database: String,
    pub obstacles: Vec<BinlogObstacle>,
}

/// Asks a server.
pub async fn server(conn: &mut Conn) -> Result<ServerSurvey, MysqlError> {
    let settings: HashMap<String, String> = conn.query::<(String, String), _>(SETTINGS).await?.into_iter().collect();
    let setting = |name: &str| settings.get(name).cloned().unwrap_or_default();
    let (database, user) = conn.query_first::<(String, String), _>(DATABASE).await?.unwrap_or_default();
    let mut obstacles = Vec::new();
    for (name, expected) in NEEDED {
        let found = setting(name);
        // Versions before a setting have no other way.
        let is_known = settings.contains_key(name) || name == "log_bin";
        if is_known && found != expected {
            obstacles.push(BinlogObstacle::Setting { name, expected, found });
        }
    }
    if setting("wsrep_on") == "ON" {
        obstacles.push(BinlogObstacle::Cluster);
    }
    match conn.query_first::<(String, u64, String, String), _>(STATUS).await {
        Ok(Some((_, _, only, without))) => {
            let has = |list: &str| list.split(',').any(|name| name == database);
            if !only.is_empty() && !has(&only) || has(&without) {
                obstacles.push(BinlogObstacle::Filtered { database: database.clone() });
            }
        }
        Ok(None) => {}
        Err(mysql_async::Error::Server(error)) if is_denied(error.code) => {
            obstacles.push(BinlogObstacle::Right { user: user.clone(), right: "BINLOG MONITOR" });
        }
        Err(error) => return Err(error.into()),
    }
    let mut hash = DefaultHasher::new();
    for name in ["server_id", "server_uid", "hostname", "port"] {
        setting(name).hash(&mut hash);
    }
    Ok(ServerSurvey { source: hash.finish(), database, obstacles })
}

/// Whether a server's error says that a right is missing.
pub fn is_denied(code: u16) -> bool {
    matches!(code, 1044 | 1045 | 1142 | 1227)
}

/// The right without which no log is streamed.
pub fn no_right(user: &str) -> BinlogObstacle {
    BinlogObstacle::Right { user: user.to_owned(), right: "REPLICATION SLAVE" }
}

/// The user of a connection.
pub async fn user(conn: &mut Conn) -> Result<String, MysqlError> {
    Ok(conn.query_first::<(String, String), _>(DATABASE).await?.unwrap_or_default().1)
}

/// The base name of the log's files, and the place up to which transactions are visible.
pub async fn visible(conn: &mut Conn) -> Result<Option<(String, BinlogPlace)>, MysqlError> {
    let found = conn.query::<(String, String), _>(VISIBLE).await?;
    let value = |name: &str| found.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    Ok(place(value("binlog_snapshot_file").map(String::as_str), value("binlog_snapshot_position").map(String::as_str)))
}

/// A place by the names and values of the status.
pub fn place(file: Option<&str>, offset: Option<&str>) -> Option<(String, BinlogPlace)> {
    let (base, number) = parse_file(file?)?;
    Some((base.to_owned(), BinlogPlace::new(number, offset?.parse().ok()?)))
}

/// The natures of a table's columns, by name, of which those that `is_wanted` must be understood.
pub async fn table(
    conn: &mut Conn,
    table: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Result<BTreeMap<String, ColumnNature>, TableObstacle>, MysqlError> {
    let Some((kind, engine)) = conn.exec_first::<(String, Option<String>), _, _>(TABLE, (table,)).await? else {
        return Ok(Err(TableObstacle::NoTable));
    };
    let engine = engine.unwrap_or_default();
    if kind != "BASE TABLE" {
        return Ok(Err(TableObstacle::Kind(kind.to_lowercase())));
    }
    if engine != "InnoDB" {
        return Ok(Err(TableObstacle::Engine { engine, table: table.to_owned() }));
    }
    type ColumnRow = (String, String, String, Option<String>, Option<u64>, String);
    let mut natures = BTreeMap::new();
    for (name, data_type, native, charset, length, extra) in conn.exec::<ColumnRow, _, _>(COLUMNS, (table,)).await? {
        match nature(&data_type, &native, charset.as_deref(), length, &extra) {
            Ok(nature) => {
                natures.insert(name, nature);
            }
            // Of what follows such a column in a row nothing can be read.
            Err(what) if is_wanted(&name) || is_opaque(&native) => {
                return Ok(Err(TableObstacle::Column { column: name, what }));
            }
            Err(_) => {}
        }
    }
    Ok(Ok(natures))
}

/// Whether the log has a column in a form that is not understood.
fn is_opaque(native: &str) -> bool {
    native.contains("mariadb-5.3") || native.contains("COMPRESSED")
}

/// The nature of a column. Errors: what it is that is not understood.
fn nature(
    data_type: &str,
    native: &str,
    charset: Option<&str>,
    length: Option<u64>,
    extra: &str,
) -> Result<ColumnNature, String> {
    let data_type = data_type.to_ascii_lowercase();
    if native.contains("mariadb-5.3") {
        return Err("a time in the format of MariaDB 5.3".to_owned());
    }
    if native.contains("COMPRESSED") {
        return Err("a compressed column".to_owned());
    }
    if extra.contains("VIRTUAL") {
        return Err("a virtual column, of which the log has no values".to_owned());
    }
    let charset = charset.unwrap_or("binary");
    let charset = Charset::parse(charset).ok_or_else(|| format!("a text of the character set {charset}"))?;
    let form = match data_type.as_str() {
        "uuid" => ColumnForm::Uuid,
        "inet4" => ColumnForm::Inet4,
        "inet6" => ColumnForm::Inet6,
        "binary" => ColumnForm::Binary(length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default()),
        _ => ColumnForm::Plain,
    };
    let labels = labels(native).unwrap_or_default();
    Ok(ColumnNature { charset, is_unsigned: native.contains("unsigned"), labels, form })
}

impl BinlogObstacle {
    /// What an operator may do: SQL, or a line of the server's configuration.
    pub fn remedy(&self) -> Option<String> {
        match self {
            BinlogObstacle::Setting { name: "log_bin", .. } => Some(
                "-- [mysqld] log_bin, binlog_format=ROW, binlog_row_metadata=FULL; then restart the server".to_owned(),
            ),
            BinlogObstacle::Setting { name, expected, .. } => Some(format!(
                "SET GLOBAL {name} = '{expected}'; -- and in its configuration; then reconnect what writes"
            )),
            BinlogObstacle::Filtered { .. } | BinlogObstacle::Cluster => None,
            BinlogObstacle::Right { user, right } => {
                let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
                let quoted = |part: &str| format!("'{}'", part.replace('\\', "\\\\").replace('\'', "''"));
                Some(format!("GRANT {right} ON *.* TO {}@{};", quoted(name), quoted(host)))
            }
        }
    }
}

impl fmt::Display for BinlogObstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BinlogObstacle::Setting { name, expected, found } => {
                let found = if found.is_empty() { "none" } else { found };
                write!(formatter, "expected {name} = {expected} of the server, found {found}")
            }
            BinlogObstacle::Filtered { database } => {
                write!(formatter, "expected a binary log of database {database}, which the server's filters leave out")
            }
            BinlogObstacle::Cluster => formatter.write_str("expected one server, found a Galera cluster"),
            BinlogObstacle::Right { user, right } => write!(formatter, "user {user} needs the right {right}"),
        }
    }
}

impl TableObstacle {
    /// What an operator may do.
    pub fn remedy(&self) -> Option<String> {
        match self {
            TableObstacle::Engine { table, .. } => {
                Some(format!("ALTER TABLE `{}` ENGINE = InnoDB;", table.replace('`', "``")))
            }
            TableObstacle::NoTable | TableObstacle::Kind(_) | TableObstacle::Column { .. } => None,
        }
    }
}

impl fmt::Display for TableObstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableObstacle::NoTable => formatter.write_str("expected a table, found nothing of that name"),
            TableObstacle::Kind(kind) => write!(formatter, "expected a table, found a {kind}"),
            TableObstacle::Engine { engine, .. } => {
                write!(formatter, "expected a table of InnoDB, found one of {engine}")
            }
            TableObstacle::Column { column, what } => write!(formatter, "column {column} is {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_name_users_as_sql_has_them() {
        assert_eq!(no_right("it's@%").remedy().unwrap(), "GRANT REPLICATION SLAVE ON *.* TO 'it''s'@'%';");
    }

    #[test]
    fn columns_that_are_not_understood_are_named() {
        let of = |native: &str, charset| nature(native, native, charset, None, "").map(|nature| nature.charset);
        assert_eq!(of("varchar(3)", Some("latin1")), Ok(Charset::Latin1));
        assert_eq!(of("varchar(3)", Some("sjis")), Err("a text of the character set sjis".to_owned()));
        assert!(of("datetime(3) /* mariadb-5.3 */", None).is_err());
        assert!(nature("int", "int(11)", None, None, "VIRTUAL GENERATED").is_err());
    }
}
