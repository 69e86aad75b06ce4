//! Lists of values to which a column is compared: arguments each, or one of JSON where they are many.

use query::{Column, EqualityClass, Type, Typed, datetime, uuid};

use super::{Alias, Cast, ExactForm, Sql, decimal, form};
use crate::json;

/// Lists are filled up to a power of two by their last value, so that few statements are prepared; longer ones are one
/// argument.
const LISTED_MAX: usize = 1024;

impl Sql<'_> {
    /// Appends the condition that a column equals one of `values`.
    pub fn any_exactly(&mut self, alias: Alias, column: &Column, mut values: Vec<Typed>) {
        if values.len() > LISTED_MAX {
            return self.any_of_json(alias, column, &values);
        }
        if let Some(last) = values.last().cloned() {
            values.resize(values.len().next_power_of_two(), last);
        }
        match form(column) {
            ExactForm::Plain(..) => {
                self.column(alias, column);
                self.listed_exactly(column, values);
            }
            ExactForm::Computed(how) => {
                self.computed(alias, column, how);
                self.listed_exactly(column, values);
            }
            ExactForm::Collated => {
                self.push("(");
                self.column(alias, column);
                self.listed_exactly(column, values.clone());
                self.push(" AND ");
                self.bytes(alias, column);
                self.push(" IN (");
                self.list(", ", values, |sql, value| {
                    sql.push("CAST(");
                    sql.arg(value);
                    sql.push(" AS BINARY)");
                });
                self.push("))");
            }
        }
    }

    fn listed_exactly(&mut self, column: &Column, values: Vec<Typed>) {
        self.push(" IN (");
        self.list(", ", values, |sql, value| {
            sql.bind(value);
            sql.exact_last(column);
        });
        self.push(")");
    }

    /// Appends the same for values that are an array of JSON, whose items are texts.
    fn any_of_json(&mut self, alias: Alias, column: &Column, values: &[Typed]) {
        let value = match (form(column), typed(column)) {
            (ExactForm::Computed(how), _) => {
                self.computed(alias, column, how);
                ("\"v\"", Cast::To("BIGINT"))
            }
            (ExactForm::Plain(..), Some(declared)) => {
                self.column(alias, column);
                ("\"v\"", declared)
            }
            (ExactForm::Plain(..), None) if column.r#type == Type::Bytes => {
                self.column(alias, column);
                ("unhex(\"v\")", TEXT)
            }
            (ExactForm::Collated, _) => {
                self.bytes(alias, column);
                ("CAST(\"v\" AS BINARY)", TEXT)
            }
            (ExactForm::Plain(..), None) => {
                self.push("CAST(CAST(");
                self.column(alias, column);
                self.push(" AS CHAR) AS BINARY)");
                ("CAST(\"v\" AS BINARY)", TEXT)
            }
        };
        let (value, declared) = value;
        self.push(" IN (SELECT ");
        self.push(value);
        self.push(" FROM JSON_TABLE(");
        self.arg(Typed::Json(array(values)));
        self.push(", '$[*]' COLUMNS (\"v\" ");
        self.cast(declared);
        self.push(" PATH '$')) AS \"j\")");
    }
}

/// A text of any length.
const TEXT: Cast = Cast::To("LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");

/// The type of the items for a column that is compared with values of it.
fn typed(column: &Column) -> Option<Cast> {
    match (column.r#type, column.equality.class) {
        (Type::Int16 | Type::Int32 | Type::Int64, _) => Some(Cast::To("BIGINT")),
        (Type::Decimal, _) => Some(decimal(column)),
        (Type::Float, EqualityClass::Single) => Some(Cast::To("FLOAT")),
        (Type::Float, _) => Some(Cast::To("DOUBLE")),
        (Type::Date, _) => Some(Cast::To("DATE")),
        (Type::Time, _) => Some(Cast::To("TIME(6)")),
        (Type::Timestamp, _) => Some(Cast::To("DATETIME(6)")),
        _ => None,
    }
}

/// Values as an array of texts.
fn array(values: &[Typed]) -> String {
    let mut out = b"[".to_vec();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::string(&mut out, &text(value));
    }
    out.push(b']');
    String::from_utf8_lossy(&out).into_owned()
}

fn text(value: &Typed) -> String {
    match value {
        Typed::Null | Typed::List(_) => String::new(),
        Typed::Bool(value) => u8::from(*value).to_string(),
        Typed::Int(value) => value.to_string(),
        Typed::Float(value) => format!("{value:e}"),
        Typed::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Typed::Timestamp(micros) => {
            datetime::written(|out| datetime::timestamp(out, *micros, b' ')).trim_end_matches('Z').to_owned()
        }
        Typed::Date(days) => datetime::written(|out| datetime::date(out, *days)),
        Typed::Time(micros) => datetime::written(|out| datetime::clock(out, *micros)),
        Typed::Uuid(bytes) => datetime::written(|out| uuid::write(out, bytes)),
        Typed::Decimal(text) | Typed::Text(text) | Typed::Json(text) | Typed::Other(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_texts_that_the_server_reads() {
        let values = [
            Typed::Int(-5),
            Typed::Float(0.5),
            Typed::Text("a\"b".to_owned()),
            Typed::Bytes(vec![0, 255]),
            Typed::Timestamp(1_500_000),
            Typed::Date(0),
        ];
        assert_eq!(array(&values), r#"["-5","5e-1","a\"b","00ff","1970-01-01 00:00:01.5","1970-01-01"]"#);
    }
}
