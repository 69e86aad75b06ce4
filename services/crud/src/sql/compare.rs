//! Comparisons of columns with values, and orders: by the form in which stored values are read.

use std::borrow::Cow;

use query::{Column, Comparison, Typed};

use super::{Alias, Sql, Variant};
use crate::{bind::Bind, operand::Compared, store::FormedColumn};

impl Sql<'_> {
    /// Appends a column in the form in which it is read, by which it is compared and sorted.
    pub fn form(&mut self, alias: Alias, column: &Column) {
        let Some(function) = self.dialect.form(column.r#type) else { return self.column(alias, column) };
        self.is_formed(alias, column, function);
        self.only(Variant::Formed, |sql| {
            sql.push(function);
            sql.push("(");
        });
        self.column(alias, column);
        self.only(Variant::Formed, |sql| sql.push(")"));
    }

    /// Notes that the statement compares the form of a column. In a view nobody knows the forms of values.
    fn is_formed(&mut self, alias: Alias, column: &Column, function: &'static str) {
        let table = match (alias, self.target) {
            (Alias::Target, target) => target.map(|table| &table.name),
            (Alias::Read(_), _) => self.tables.iter().find(|(known, _)| *known == alias).map(|(_, name)| name),
        };
        let Some(table) = table else {
            self.plain = None;
            return;
        };
        let formed = FormedColumn { table: table.clone(), column: column.name.clone(), function };
        if !self.formed.contains(&formed) {
            self.formed.push(formed);
        }
    }

    /// Appends the comparison of a column with a value.
    pub fn compare(&mut self, alias: Alias, column: &Column, comparison: Comparison, value: &Compared<Cow<'_, Typed>>) {
        let arg = Typed::clone(&value.value);
        match comparison {
            Comparison::Eq if self.looks_up(column) => self.spelled(alias, column, comparison, arg),
            Comparison::Ne if self.is_spelled_only(column) => self.spelled(alias, column, comparison, arg),
            Comparison::Gt | Comparison::Gte => {
                let (before, after) = self.dialect.greater(column.r#type);
                self.push(before);
                self.form(alias, column);
                self.push(operator(comparison));
                self.arg(arg);
                if !after.is_empty() {
                    self.push(" AND ");
                    self.column(alias, column);
                    self.push(after);
                }
            }
            Comparison::Eq | Comparison::Ne | Comparison::Lt | Comparison::Lte => {
                self.form(alias, column);
                self.push(operator(comparison));
                self.arg(arg);
            }
        }
        self.came_from(value.address, column);
    }

    /// Appends the condition that a column equals one of `values`, which fit it.
    ///
    /// Returns whether they are one argument.
    pub fn any(&mut self, alias: Alias, column: &Column, values: Vec<Typed>) -> bool {
        let spellings = if self.looks_up(column) { self.dialect.spellings(column.r#type) } else { &[] };
        match (spellings, self.dialect.form(column.r#type)) {
            ([], _) => self.form(alias, column),
            (_, Some(function)) => {
                self.is_formed(alias, column, function);
                self.column(alias, column);
            }
            (_, None) => self.column(alias, column),
        }
        let Some((before, after)) = self.dialect.list(column.r#type) else {
            self.push(" IN (");
            self.list(", ", values, |sql, value| {
                sql.arg(value);
                let variant = sql.spelled_in(column);
                sql.only(variant, |sql| {
                    for (before, after) in spellings.iter().skip(1) {
                        sql.push(", ");
                        sql.push(before);
                        sql.last_arg();
                        sql.push(after);
                    }
                });
            });
            self.push(")");
            return false;
        };
        self.push(before);
        self.arg(Bind::List(values));
        let variant = self.spelled_in(column);
        self.only(variant, |sql| {
            for (around, rest) in spellings.iter().skip(1) {
                sql.push(") UNION ALL SELECT ");
                sql.push(around);
                sql.push("value");
                sql.push(rest);
                sql.push(" FROM json_each(");
                sql.last_arg();
            }
        });
        self.push(after);
        true
    }

    /// Whether equal values are looked up by their spellings, as an index has them. Not within a negation, which asks
    /// for other rows, and in which what is not of the column's type has to stay unknown.
    fn looks_up(&self, column: &Column) -> bool {
        !self.dialect.spellings(column.r#type).is_empty() && (!self.is_negated || self.is_spelled_only(column))
    }

    /// Whether spellings tell all that is to be known of equality: any value is of the column's type.
    fn is_spelled_only(&self, column: &Column) -> bool {
        self.dialect.form(column.r#type).is_none() && !self.dialect.spellings(column.r#type).is_empty()
    }

    /// The variants of the statement that ask for spellings.
    fn spelled_in(&self, column: &Column) -> Variant {
        if self.is_spelled_only(column) { self.variant } else { Variant::Formed }
    }

    /// Appends that a column is, or is not, one of the spellings of `value`, and has its form.
    fn spelled(&mut self, alias: Alias, column: &Column, comparison: Comparison, value: Typed) {
        let variant = self.spelled_in(column);
        let has_form = !self.is_spelled_only(column);
        self.only(Variant::Formed, |sql| sql.push(if has_form { "(" } else { "" }));
        self.column(alias, column);
        if has_form {
            self.only(Variant::Plain, |sql| sql.push(operator(comparison)));
        }
        self.only(variant, |sql| sql.push(if comparison == Comparison::Eq { " IN (" } else { " NOT IN (" }));
        self.arg(value);
        self.only(variant, |sql| {
            for (before, after) in sql.dialect.spellings(column.r#type).iter().skip(1) {
                sql.push(", ");
                sql.push(before);
                sql.last_arg();
                sql.push(after);
            }
            sql.push(")");
        });
        if let Some(function) = self.dialect.form(column.r#type) {
            self.is_formed(alias, column, function);
            self.only(Variant::Formed, |sql| {
                sql.push(" AND ");
                sql.push(function);
                sql.push("(");
                sql.column(alias, column);
                sql.push(") = ");
                sql.last_arg();
                sql.push(")");
            });
        }
    }
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => " = ",
        Comparison::Ne => " <> ",
        Comparison::Gt => " > ",
        Comparison::Gte => " >= ",
        Comparison::Lt => " < ",
        Comparison::Lte => " <= ",
    }
}
