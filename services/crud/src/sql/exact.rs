//! Comparisons and orders of MariaDB, whose `=` takes values for equal that are read otherwise: texts by a collation that
//! ignores case, accents and spaces at the end, and decimals that it compares with a text as doubles.
//!
//! Texts are ordered by their collation, and those that it takes for equal by their bytes. So the collation's order
//! finds them in an index, and their bytes decide.

use query::{Column, Comparison, Digits, EqualityClass, Type, Typed};

use super::{Alias, Sql, compare::operator};
use crate::store::Rows;

mod listed;

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExactForm {
    /// As it is, with an argument that is cast, where a type is named.
    Plain(Option<Cast>),
    /// What is computed of it: SQL after the column.
    Computed(&'static str),
    /// A text that its collation takes for equal to others.
    Collated,
}

/// A type to which a value is cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cast {
    /// By its name.
    To(&'static str),
    /// A decimal of all digits that there are, so many of them after the point.
    Decimal(usize),
}

/// Digits of a decimal in all, and after the point.
const DECIMAL_DIGITS: (usize, usize) = (65, 30);

/// The form in which the values of a column are compared.
fn form(column: &Column) -> ExactForm {
    match (column.r#type, column.equality.class) {
        // A number, which is read as a boolean.
        (Type::Bool, _) => ExactForm::Computed(" <> 0"),
        // As it is, 99 would be 1999.
        _ if column.native.starts_with("year") => ExactForm::Computed(" + 0"),
        (Type::Text | Type::Other, EqualityClass::Database) if column.equality.collation.is_some() => {
            ExactForm::Collated
        }
        (Type::Decimal, _) => ExactForm::Plain(Some(decimal(column))),
        (_, EqualityClass::Single) => ExactForm::Plain(Some(Cast::To("FLOAT"))),
        (Type::Bytes, _) => ExactForm::Plain(Some(Cast::To("BINARY"))),
        _ => ExactForm::Plain(None),
    }
}

/// A decimal with as many digits after the point as those before it leave.
fn decimal(column: &Column) -> Cast {
    let (all, after) = DECIMAL_DIGITS;
    let left = |digits: Digits| all.saturating_sub(digits.precision - digits.scale);
    Cast::Decimal(column.digits().map_or(after, |digits| left(digits).min(after)))
}

/// SQL around a text for its bytes in UTF-8.
fn bytes_of(column: &Column) -> (&'static str, &'static str) {
    let collation = column.equality.collation.as_deref().unwrap_or_default();
    match collation.starts_with("utf8") {
        true => ("CAST(", " AS BINARY)"),
        false => ("CAST(CONVERT(", " USING utf8mb4) AS BINARY)"),
    }
}

impl Sql<'_> {
    /// Appends the comparison of a column with the last argument, which has no placeholder yet.
    pub fn compare_exactly(&mut self, alias: Alias, column: &Column, comparison: Comparison) {
        match form(column) {
            ExactForm::Plain(..) => {
                self.column(alias, column);
                self.push(operator(comparison));
                self.exact_last(column);
            }
            ExactForm::Computed(how) => {
                self.computed(alias, column, how);
                self.push(operator(comparison));
                self.last_arg();
            }
            ExactForm::Collated => self.compare_collated(alias, column, comparison),
        }
    }

    /// Appends that comparison of a text. The collation's comes first: an index has it.
    fn compare_collated(&mut self, alias: Alias, column: &Column, comparison: Comparison) {
        let arg = self.args.len();
        let near = match comparison {
            Comparison::Eq => Some((Comparison::Eq, None)),
            Comparison::Ne => None,
            Comparison::Lt | Comparison::Lte => Some((Comparison::Lte, Some(Comparison::Lt))),
            Comparison::Gt | Comparison::Gte => Some((Comparison::Gte, Some(Comparison::Gt))),
        };
        let Some((near, beyond)) = near else { return self.compare_bytes(alias, column, comparison, arg) };
        self.push("(");
        self.compare_by(alias, column, near, arg);
        self.push(" AND ");
        if let Some(beyond) = beyond {
            self.push("(");
            self.compare_by(alias, column, beyond, arg);
            self.push(" OR ");
        }
        self.compare_bytes(alias, column, comparison, arg);
        self.push(if beyond.is_some() { "))" } else { ")" });
    }

    fn compare_by(&mut self, alias: Alias, column: &Column, comparison: Comparison, arg: usize) {
        self.column(alias, column);
        self.push(operator(comparison));
        self.collated(column, |sql| sql.placeholder(arg));
    }

    /// Appends what `write` appends as a text that the collation of `column` compares. A character set of old may lack some
    /// of its characters, which are no reason to fail.
    fn collated(&mut self, column: &Column, write: impl FnOnce(&mut Self)) {
        let collation = column.equality.collation.as_deref().unwrap_or_default();
        if collation.starts_with("utf8mb4") {
            return write(self);
        }
        self.push("CONVERT(");
        write(self);
        self.push(" USING ");
        self.append(collation.split('_').next().unwrap_or_default());
        self.push(") COLLATE ");
        self.append(collation);
    }

    fn compare_bytes(&mut self, alias: Alias, column: &Column, comparison: Comparison, arg: usize) {
        self.bytes(alias, column);
        self.push(operator(comparison));
        self.push("CAST(");
        self.placeholder(arg);
        self.push(" AS BINARY)");
    }

    /// Appends the placeholder of the last argument as a value of the type of `column`.
    pub fn exact_last(&mut self, column: &Column) {
        match form(column) {
            ExactForm::Plain(Some(cast)) => {
                self.push("CAST(");
                self.last_arg();
                self.push(" AS ");
                self.cast(cast);
                self.push(")");
            }
            ExactForm::Plain(None) | ExactForm::Computed(_) => self.last_arg(),
            ExactForm::Collated => self.collated(column, Self::last_arg),
        }
    }

    /// Appends a key of an order: nulls are greater than everything.
    pub fn exact_order(&mut self, alias: Alias, column: &Column, (may_be_null, descending): (bool, bool)) {
        let direction = if descending { " DESC" } else { "" };
        if may_be_null {
            self.column(alias, column);
            self.push(" IS NULL");
            self.push(direction);
            self.push(", ");
        }
        match form(column) {
            ExactForm::Plain(..) | ExactForm::Collated => self.column(alias, column),
            ExactForm::Computed(how) => self.computed(alias, column, how),
        }
        self.push(direction);
        if form(column) == ExactForm::Collated {
            self.push(", ");
            self.bytes(alias, column);
            self.push(direction);
        }
    }

    /// Appends the select of the keys of `rows`, as values of the types of `columns`.
    pub fn exact_keys(&mut self, columns: &[&Column], at: &[usize], (rows, once): (&Rows, &[usize])) {
        let is_empty = once.is_empty();
        let selects: Vec<Option<usize>> = if is_empty { vec![None] } else { once.iter().copied().map(Some).collect() };
        self.list(" UNION ALL ", selects, |sql, row| {
            sql.push("SELECT ");
            sql.list(", ", columns.iter().zip(at).enumerate(), |sql, (index, (column, at))| {
                let value = row.and_then(|row| rows.cell(row, *at).typed(column.r#type)).unwrap_or(Typed::Null);
                sql.key_value(column, value);
                sql.push(" AS ");
                sql.numbered("\"k", index);
            });
        });
        self.push(if is_empty { " LIMIT 0" } else { "" });
    }

    /// Appends a value of a key with the type, and the collation, of its column.
    fn key_value(&mut self, column: &Column, value: Typed) {
        let collation =
            column.equality.collation.as_deref().filter(|_| matches!(column.r#type, Type::Text | Type::Other));
        if let Some(collation) = collation {
            self.push("CONVERT(");
            self.arg(value);
            self.push(" USING ");
            self.append(collation.split('_').next().unwrap_or_default());
            self.push(") COLLATE ");
            return self.append(collation);
        }
        self.push("CAST(");
        self.arg(value);
        self.push(" AS ");
        self.cast(match (column.r#type, column.equality.class) {
            (Type::Decimal, EqualityClass::Integer) => Cast::To("UNSIGNED"),
            (Type::Decimal, _) => decimal(column),
            (Type::Bool | Type::Int16 | Type::Int32 | Type::Int64, _) => Cast::To("SIGNED"),
            (Type::Float, _) => Cast::To("DOUBLE"),
            (Type::Bytes, _) => Cast::To("BINARY"),
            (Type::Date, _) => Cast::To("DATE"),
            (Type::Time, _) => Cast::To("TIME(6)"),
            (Type::Timestamp, _) => Cast::To("DATETIME(6)"),
            _ => Cast::To("CHAR"),
        });
        self.push(")");
    }

    /// Appends the type of a cast.
    fn cast(&mut self, cast: Cast) {
        match cast {
            Cast::To(name) => self.push(name),
            Cast::Decimal(scale) => {
                self.push("DECIMAL(");
                self.number(DECIMAL_DIGITS.0);
                self.push(",");
                self.number(scale);
                self.push(")");
            }
        }
    }

    /// Appends the bytes of a text.
    fn bytes(&mut self, alias: Alias, column: &Column) {
        let (before, after) = bytes_of(column);
        self.push(before);
        self.column(alias, column);
        self.push(after);
    }

    /// Appends what is computed of a column.
    fn computed(&mut self, alias: Alias, column: &Column, how: &'static str) {
        self.push("(");
        self.column(alias, column);
        self.push(how);
        self.push(")");
    }
}

#[cfg(test)]
mod tests;
