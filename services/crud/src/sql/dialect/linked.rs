//! Equality of columns that no foreign key relates, as each database has it.

use query::{Column, Comparisons, EqualityClass, Type, resources::Engine};

use super::Dialect;

impl Dialect {
    /// Whether the database compares the values of two columns for equality.
    pub fn has_equality(&self, column: &Column, other: &Column) -> bool {
        let is_comparable = [column, other].iter().all(|column| column.comparisons() != Comparisons::None);
        is_comparable
            && match self.engine() {
                Engine::Sqlite => true,
                Engine::Postgres => has_operator(column, other),
                Engine::Mysql => has_comparison(column, other),
            }
    }

    /// Whether values of `key` that differ are never both equal to one value of `other`, which it has an equality with:
    /// no comparison converts them to a type in which they are the same.
    pub fn keeps_apart(&self, key: &Column, other: &Column) -> bool {
        use EqualityClass::{Bytes, Database, Double, Integer, Number, Single, Text, Timestamp, ZonedTimestamp};
        match (self.engine(), key.equality.class, other.equality.class) {
            // A number makes numbers of texts, and a text makes texts of what has no type.
            (Engine::Sqlite, Text | Bytes, Number) | (Engine::Sqlite, Bytes, Text | Database) => false,
            (Engine::Sqlite, Text, Database) => other.r#type == Type::Text,
            // Compared as padded texts, in which spaces at the end do not count.
            (Engine::Postgres, ..) if is_padded(other) && !is_padded(key) && key.r#type == Type::Text => {
                key.native == "text"
            }
            (Engine::Postgres, Integer, Single | Double) => key.r#type != Type::Int64,
            (Engine::Postgres, Number, Single | Double) | (Engine::Postgres, Timestamp, ZonedTimestamp) => false,
            // Texts and others are compared as doubles, or as moments.
            (Engine::Mysql, Integer | Number, Single | Double) => false,
            (Engine::Mysql, Database, _) | (Engine::Mysql, _, Database) => key.equality == other.equality,
            (Engine::Sqlite | Engine::Postgres | Engine::Mysql, ..) => true,
        }
    }
}

/// Whether PostgreSQL has an `=` of two columns that it finds without a cast.
fn has_operator(column: &Column, other: &Column) -> bool {
    use EqualityClass::{Database, Date, Double, Integer, Number, Single, Timestamp, ZonedTimestamp};
    let [one, two] = [column, other].map(|column| match column.equality.class {
        Integer | Number | Single | Double => Number,
        Date | Timestamp | ZonedTimestamp => Timestamp,
        class => class,
    });
    let is_text = |column: &Column| column.r#type == Type::Text;
    match (one, two) {
        _ if is_text(column) && is_text(other) => true,
        _ if column.r#type == Type::Address && other.r#type == Type::Address => true,
        (Database, _) | (_, Database) => base(column) == base(other),
        // PostgreSQL makes an identifier of the integer, and fails where it is too large for one.
        _ if base(column) == "oid" || base(other) == "oid" => base(column) == base(other),
        (one, two) => one == two,
    }
}

/// Whether MariaDB compares two columns without making numbers of texts, in which many are the same, or failing.
fn has_comparison(column: &Column, other: &Column) -> bool {
    use EqualityClass::{Database, Date, Double, Integer, Number, Single, Text, Timestamp};
    let [one, two] = [column, other].map(|column| match (column.equality.class, column.r#type) {
        (Integer | Number | Single | Double, _) => Number,
        (Date | Timestamp, _) => Timestamp,
        (Database, Type::Text) => Text,
        (class, _) => class,
    });
    let charset = |column: &Column| {
        let collation = column.equality.collation.as_deref().unwrap_or_default();
        collation.split('_').next().unwrap_or_default().to_owned()
    };
    match (one, two) {
        (Database, _) | (_, Database) => column.native == other.native,
        (Text, Text) => charset(column) == charset(other),
        (one, two) => one == two,
    }
}

fn is_padded(column: &Column) -> bool {
    base(column) == "character" || column.native == "bpchar"
}

/// The name of a column's type without its length.
fn base(column: &Column) -> String {
    match column.native.split_once('(') {
        Some((before, after)) => format!("{before}{}", after.split_once(')').map_or("", |(_, after)| after)),
        None => column.native.clone(),
    }
}
