//! Comparisons of columns with values, and orders: by the form in which stored values are read.

use std::borrow::Cow;

use query::{Column, Comparison, Typed};

use super::{Alias, Sql};
use crate::{bind::Bind, operand::Compared};

impl Sql<'_> {
    /// Appends a column in the form in which it is read, by which it is compared and sorted.
    pub fn form(&mut self, alias: Alias, column: &Column) {
        match self.dialect.form(column.r#type) {
            Some(function) => {
                self.push(function);
                self.push("(");
                self.column(alias, column);
                self.push(")");
            }
            None => self.column(alias, column),
        }
    }

    /// Appends the comparison of a column with a value.
    pub fn compare(&mut self, alias: Alias, column: &Column, comparison: Comparison, value: &Compared<Cow<'_, Typed>>) {
        let arg = Typed::clone(&value.value);
        match comparison {
            Comparison::Eq if self.looks_up(column) => self.spelled(alias, column, " IN (", arg),
            Comparison::Ne if self.is_spelled_only(column) => self.spelled(alias, column, " NOT IN (", arg),
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
        if comparison == Comparison::Eq && self.looks_up(column) && !self.is_spelled_only(column) {
            self.push(" AND ");
            self.form(alias, column);
            self.push(" = ");
            self.last_arg();
            self.push(")");
        }
    }

    /// Appends the condition that a column equals one of `values`, which fit it.
    ///
    /// Returns whether they are one argument.
    pub fn any(&mut self, alias: Alias, column: &Column, values: Vec<Typed>) -> bool {
        let spellings = if self.looks_up(column) { self.dialect.spellings(column.r#type) } else { &[] };
        match spellings {
            [] => self.form(alias, column),
            _ => self.column(alias, column),
        }
        let Some((before, after)) = self.dialect.list(column.r#type) else {
            self.push(" IN (");
            self.list(", ", values, |sql, value| {
                sql.arg(value);
                for (before, after) in spellings.iter().skip(1) {
                    sql.push(", ");
                    sql.push(before);
                    sql.last_arg();
                    sql.push(after);
                }
            });
            self.push(")");
            return false;
        };
        self.push(before);
        self.arg(Bind::List(values));
        for (around, rest) in spellings.iter().skip(1) {
            self.push(") UNION ALL SELECT ");
            self.push(around);
            self.push("value");
            self.push(rest);
            self.push(" FROM json_each(");
            self.last_arg();
        }
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

    /// Appends that a column is one of the spellings of `value`; with a bracket before it where its form is asked too.
    fn spelled(&mut self, alias: Alias, column: &Column, operator: &'static str, value: Typed) {
        self.push(if self.is_spelled_only(column) { "" } else { "(" });
        self.column(alias, column);
        self.push(operator);
        self.list(", ", self.dialect.spellings(column.r#type).iter().enumerate(), |sql, (index, (before, after))| {
            sql.push(before);
            match index {
                0 => sql.arg(value.clone()),
                _ => sql.last_arg(),
            }
            sql.push(after);
        });
        self.push(")");
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
