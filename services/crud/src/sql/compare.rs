//! Comparisons of columns with values, and orders: by the form in which stored values are read.

use std::borrow::Cow;

use query::{Column, Comparison, Comparisons, Typed, resources::Engine};

use super::{Alias, Sql, Variant};
use crate::{bind::Bind, operand::Compared, store::FormedColumn};

/// Comparison of a moment or a day, by which its rows are found in an index.
#[derive(Debug)]
pub struct RangeTerm {
    column: String,
    comparison: Comparison,
    /// Number of the argument.
    arg: usize,
}

/// Where an index has the values of one kind that are read as near an argument.
struct KeyRange {
    /// SQL around the argument for what is no greater than any of them.
    least: (&'static str, &'static str),
    /// SQL around the argument for what is greater than all of them.
    end: (&'static str, &'static str),
    /// The least value of the kind.
    first: &'static str,
    /// What is greater than all values of the kind.
    last: &'static str,
}

/// Texts, seconds since 1970 and Julian day numbers.
const KEY_RANGES: [KeyRange; 3] = [
    KeyRange { least: ("perigee_day_before(", ")"), end: ("perigee_day_after(", ")"), first: "''", last: "x''" },
    KeyRange { least: ("unixepoch(", ") - 1"), end: ("unixepoch(", ") + 86401"), first: "-9e999", last: "''" },
    KeyRange { least: ("julianday(", ") - 2"), end: ("julianday(", ") + 2"), first: "-1e8", last: "1e8" },
];

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

    /// Appends the comparison of a column with a value; what is not of the column's type compares with nothing.
    pub fn compare(&mut self, alias: Alias, column: &Column, comparison: Comparison, value: &Compared<Cow<'_, Typed>>) {
        if let Typed::List(items) = &*value.value {
            return self.compare_array(alias, column, comparison, items);
        }
        self.bind(Typed::clone(&value.value));
        self.came_from(value.address, column);
        if self.dialect.engine() == Engine::Mysql {
            return self.compare_exactly(alias, column, comparison);
        }
        let kind = self.dialect.kind(column.r#type);
        let (has_least, has_end) = match comparison {
            _ if self.is_negated => (false, false),
            // An affinity makes a number of a text, and would find what is read otherwise.
            Comparison::Eq => (true, false),
            Comparison::Ne => (true, true),
            Comparison::Gt | Comparison::Gte => (false, true),
            Comparison::Lt | Comparison::Lte => (true, false),
        };
        let has_least = has_least && !kind.least.is_empty();
        let has_end = has_end && !kind.end.is_empty();
        self.push(if has_least || has_end { "(" } else { "" });
        self.of_kind(alias, column, |sql| sql.compare_last(alias, column, comparison));
        if has_least {
            self.push(" AND ");
            self.at_least(alias, column, kind.least);
        }
        if has_end {
            self.push(" AND ");
            self.before(alias, column, kind.end);
        }
        self.push(if has_least || has_end { ")" } else { "" });
    }

    /// Appends the comparison of an array with the values of a list.
    ///
    /// Subscripts are not read. PostgreSQL compares them where the values are equal, so that arrays of the same values are
    /// neighbours in an index, from the least of them to the greatest.
    pub fn compare_array(&mut self, alias: Alias, column: &Column, comparison: Comparison, items: &[Typed]) {
        if column.comparisons() == Comparisons::Equality {
            self.column(alias, column);
            // A slice has subscripts from 1.
            self.push("[:]");
            self.push(operator(comparison));
            return self.arg(Typed::List(items.to_vec()));
        }
        let (least, greatest) = (|| Bind::LeastArray(items.to_vec()), || Bind::GreatestArray(items.to_vec()));
        let (glue, bounds) = match comparison {
            Comparison::Eq => (" AND ", vec![(Comparison::Gte, least()), (Comparison::Lte, greatest())]),
            Comparison::Ne => (" OR ", vec![(Comparison::Lt, least()), (Comparison::Gt, greatest())]),
            Comparison::Gt | Comparison::Lte => ("", vec![(comparison, greatest())]),
            Comparison::Gte | Comparison::Lt => ("", vec![(comparison, least())]),
        };
        self.push("(");
        self.list(glue, bounds, |sql, (comparison, bound)| {
            sql.column(alias, column);
            sql.push(operator(comparison));
            sql.arg(bound);
        });
        self.push(")");
    }

    /// Appends that an array has the values of one of `lists`.
    pub fn any_array(&mut self, alias: Alias, column: &Column, lists: &[Typed]) {
        self.push("(");
        self.list(" OR ", lists, |sql, list| match list {
            Typed::List(items) => sql.compare_array(alias, column, Comparison::Eq, items),
            _ => sql.push("NULL"),
        });
        self.push(")");
    }

    /// Appends the comparison of a column with the last argument.
    fn compare_last(&mut self, alias: Alias, column: &Column, comparison: Comparison) {
        match comparison {
            Comparison::Eq if self.looks_up(column) => self.spelled(alias, column, comparison),
            Comparison::Ne if self.is_spelled_only(column) => self.spelled(alias, column, comparison),
            _ => {
                self.form(alias, column);
                self.push(operator(comparison));
                self.last_arg();
                self.in_range(alias, column, comparison);
            }
        }
    }

    /// Within a negation appends that what `write` writes is unknown where the column's value is of another kind than the
    /// last argument; else only that.
    fn of_kind(&mut self, alias: Alias, column: &Column, write: impl FnOnce(&mut Self)) {
        let kind = self.dialect.kind(column.r#type);
        if !self.is_negated || kind.end.is_empty() {
            return write(self);
        }
        self.push("CASE WHEN ");
        if !kind.least.is_empty() {
            self.at_least(alias, column, kind.least);
            self.push(" AND ");
        }
        self.before(alias, column, kind.end);
        self.push(" THEN ");
        write(self);
        self.push(" END");
    }

    /// Notes the comparison of a column with the last argument for [`Sql::push_ranges`], or appends what that does.
    fn in_range(&mut self, alias: Alias, column: &Column, comparison: Comparison) {
        if self.is_negated || comparison == Comparison::Ne || !self.dialect.has_ranges(column.r#type) {
            return;
        }
        let range = RangeTerm { column: column.name.clone(), comparison, arg: self.args.len() };
        match &mut self.ranges {
            Some(ranges) => ranges.push(range),
            None => self.push_ranges(alias, &[range]),
        }
    }

    /// Appends in which ranges of an index those values are that pass comparisons of their forms.
    ///
    /// A text names a day that is a day from that of UTC at most. Numbers are seconds, or days of the Julian calendar.
    pub fn push_ranges(&mut self, alias: Alias, ranges: &[RangeTerm]) {
        self.only(Variant::Formed, |sql| {
            for (index, range) in ranges.iter().enumerate() {
                if ranges[..index].iter().any(|before| before.column == range.column) {
                    continue;
                }
                let terms: Vec<&RangeTerm> = ranges.iter().filter(|term| term.column == range.column).collect();
                sql.push(" AND (");
                sql.list(" OR ", KEY_RANGES, |sql, range| sql.range(alias, &terms, &range));
                sql.push(")");
            }
        });
    }

    /// Appends that a column is in a range of those that the comparisons leave.
    fn range(&mut self, alias: Alias, terms: &[&RangeTerm], range: &KeyRange) {
        let is_lower = |term: &&&RangeTerm| !matches!(term.comparison, Comparison::Lt | Comparison::Lte);
        let is_upper = |term: &&&RangeTerm| !matches!(term.comparison, Comparison::Gt | Comparison::Gte);
        let lower = terms.iter().find(is_lower).map(|term| term.arg);
        let upper = terms.iter().find(is_upper).map(|term| term.arg);
        let bounds = [(" >= ", lower, range.least, range.first), (" < ", upper, range.end, range.last)];
        self.list(" AND ", bounds, |sql, (operator, arg, (before, after), otherwise)| {
            sql.named(alias);
            sql.push(".");
            sql.ident(&terms[0].column);
            sql.push(operator);
            let Some(arg) = arg else { return sql.push(otherwise) };
            sql.push(before);
            sql.placeholder(arg);
            sql.push(after);
        });
    }

    /// Not by an index, which has the bounds of the comparison to go by: of two upper bounds SQLite takes one.
    fn at_least(&mut self, alias: Alias, column: &Column, least: &[&'static str]) {
        self.push("+");
        self.column(alias, column);
        self.push(" >= ");
        self.around_last(least);
    }

    fn before(&mut self, alias: Alias, column: &Column, end: &[&'static str]) {
        self.push("+");
        self.column(alias, column);
        self.push(" < ");
        self.around_last(end);
    }

    /// Appends SQL with the placeholder of the last argument between its parts.
    fn around_last(&mut self, parts: &[&'static str]) {
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.last_arg();
            }
            self.push(part);
        }
    }

    /// Appends the condition that a column equals one of `values`, which fit it.
    ///
    /// Returns whether they are one argument.
    pub fn any(&mut self, alias: Alias, column: &Column, values: Vec<Typed>) -> bool {
        if self.dialect.engine() == Engine::Mysql {
            self.any_exactly(alias, column, values);
            return false;
        }
        let Some((before, after)) = self.dialect.list(column.r#type) else {
            self.any_of_each(alias, column, values);
            return false;
        };
        self.bind(Bind::List(values));
        let of_kind = if self.is_negated { self.dialect.kind(column.r#type).all } else { &[] };
        if !of_kind.is_empty() {
            self.push("CASE WHEN ");
            for (index, part) in of_kind.iter().enumerate() {
                match index {
                    0 => {}
                    1 => self.column(alias, column),
                    _ => self.last_arg(),
                }
                self.push(part);
            }
            self.push(" THEN ");
        }
        let spellings = self.listed(alias, column);
        self.push(before);
        self.last_arg();
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
        self.push(if of_kind.is_empty() { "" } else { " END" });
        if !self.is_negated && !self.dialect.kind(column.r#type).least.is_empty() {
            // An affinity makes numbers of texts, and would find what is read otherwise.
            self.push(" AND (");
            self.column(alias, column);
            self.push(" >= x'' OR +");
            self.column(alias, column);
            self.push(before);
            self.last_arg();
            self.push(after);
            self.push(")");
        }
        true
    }

    /// Appends that a column equals one of `values`, each of which is an argument.
    fn any_of_each(&mut self, alias: Alias, column: &Column, values: Vec<Typed>) {
        let spellings = self.listed(alias, column);
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
    }

    /// Appends a column that is looked up in a list; the spellings by which it is.
    fn listed(&mut self, alias: Alias, column: &Column) -> &'static [(&'static str, &'static str)] {
        let spellings = if self.looks_up(column) { self.dialect.spellings(column.r#type) } else { &[] };
        match (spellings, self.dialect.form(column.r#type)) {
            ([], _) => self.form(alias, column),
            (_, Some(function)) => {
                self.is_formed(alias, column, function);
                self.column(alias, column);
                // A collation that takes letters of both cases for equal would find what is no value of the type.
                self.only(Variant::Formed, |sql| sql.push(" COLLATE BINARY"));
            }
            (_, None) => self.column(alias, column),
        }
        spellings
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

    /// Appends that a column is, or is not, one of the spellings of the last argument, and has its form.
    fn spelled(&mut self, alias: Alias, column: &Column, comparison: Comparison) {
        let variant = self.spelled_in(column);
        let has_form = !self.is_spelled_only(column);
        self.only(Variant::Formed, |sql| sql.push(if has_form { "(" } else { "" }));
        self.column(alias, column);
        if has_form {
            self.only(Variant::Plain, |sql| sql.push(operator(comparison)));
        }
        self.only(variant, |sql| sql.push(if comparison == Comparison::Eq { " IN (" } else { " NOT IN (" }));
        self.last_arg();
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

pub(super) fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => " = ",
        Comparison::Ne => " <> ",
        Comparison::Gt => " > ",
        Comparison::Gte => " >= ",
        Comparison::Lt => " < ",
        Comparison::Lte => " <= ",
    }
}
