//! The SQL compiler: resolved operations in, statements out. Pure: it runs without a database.

use query::{Column, Quantifier, Table, TableKind, Type, Typed, resources::Engine};

use crate::{
    bind::Bind,
    operand::ArgSource,
    resolve::{Cond, Related},
    store::{FormedColumn, Output, PlainStatement, Statement},
};

mod compare;
mod dialect;
mod exact;
mod join;
mod keys;
mod select;
mod write;

use compare::RangeTerm;
pub use dialect::Dialect;
pub use keys::{UpdateByKey, update_by_key};
pub use select::{Source, columns, compile as select};
pub use write::{Returned, delete, has_identity, insert, select_before_delete, update};

/// Terms of one conjunction or disjunction that are written without nesting; more are halved by brackets, because
/// SQLite limits the depth of an expression, in which every further term is a level.
const FLAT_TERMS: usize = 100;
/// Numbers of one digit.
const DIGITS: &str = "0123456789";

/// Builder of a statement. It holds texts of this crate, names of the schema and placeholders only.
pub struct Sql<'d> {
    dialect: &'d Dialect,
    text: String,
    /// What it is on values as they are stored; `None` where that is never right.
    plain: Option<String>,
    /// The columns whose forms `text` compares.
    formed: Vec<FormedColumn>,
    /// Which of the two is appended to.
    variant: Variant,
    args: Vec<Bind>,
    /// How many of them have a placeholder, where placeholders have no numbers.
    placed: usize,
    /// The source of each argument, where they are recorded.
    sources: Option<Vec<ArgSource>>,
    aliases: u32,
    /// Aliases of tables, and their tables' names; none of a view.
    tables: Vec<(Alias, String)>,
    /// The table that the statement writes.
    target: Option<&'d Table>,
    /// Whether a negation is around what is appended.
    is_negated: bool,
    /// Comparisons of the conjunction that is appended, by which its rows are found in an index.
    ranges: Option<Vec<RangeTerm>>,
}

/// Variant of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Both,
    /// It compares the forms in which values are read.
    Formed,
    /// It compares values as they are stored.
    Plain,
}

/// Alias of a table in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alias {
    /// The table that is written, under its own name: SQLite knows no other in `RETURNING`.
    Target,
    /// A table that is read, written `"t3"`.
    Read(u32),
}

impl<'d> Sql<'d> {
    /// An empty statement.
    pub fn new(dialect: &'d Dialect) -> Self {
        Self {
            dialect,
            text: String::with_capacity(256),
            plain: (dialect.engine() == Engine::Sqlite).then(|| String::with_capacity(256)),
            formed: Vec::new(),
            variant: Variant::Both,
            tables: Vec::new(),
            args: Vec::new(),
            placed: 0,
            sources: None,
            aliases: 0,
            target: None,
            is_negated: false,
            ranges: None,
        }
    }

    /// An empty statement that writes `table`.
    pub fn writing(dialect: &'d Dialect, table: &'d Table) -> Self {
        Self { target: Some(table), ..Self::new(dialect) }
    }

    /// An empty statement that records where its arguments come from.
    pub fn recording(dialect: &'d Dialect) -> Self {
        Self::new(dialect).recorded()
    }

    /// The statement, to which nothing was appended yet: it records where its arguments come from.
    fn recorded(self) -> Self {
        Self { sources: Some(Vec::new()), ..self }
    }

    /// The statement, whose result columns are `columns`.
    pub fn finish(self, columns: Vec<Output>) -> Statement {
        let sources = self.sources.unwrap_or_default();
        let plain = self.plain.filter(|_| !self.formed.is_empty());
        let plain = plain.map(|text| PlainStatement { text: text.into(), columns: self.formed.into() });
        Statement { text: self.text.into(), args: self.args, columns: columns.into(), sources, plain }
    }

    /// Appends SQL.
    pub fn push(&mut self, sql: &'static str) {
        self.append(sql);
    }

    fn append(&mut self, sql: &str) {
        if self.variant != Variant::Plain {
            self.text.push_str(sql);
        }
        if self.variant != Variant::Formed
            && let Some(plain) = &mut self.plain
        {
            plain.push_str(sql);
        }
    }

    /// Appends what `write` appends to one variant of the statement only.
    fn only(&mut self, variant: Variant, write: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.variant, variant);
        write(self);
        self.variant = before;
    }

    /// Appends a placeholder for `value`.
    pub fn arg(&mut self, value: impl Into<Bind>) {
        self.bind(value);
        self.last_arg();
    }

    /// Adds an argument, whose placeholder is yet to be appended.
    fn bind(&mut self, value: impl Into<Bind>) {
        self.args.push(value.into());
        self.record(ArgSource::Unknown);
    }

    /// Appends the placeholder of the last argument.
    fn last_arg(&mut self) {
        self.placeholder(self.args.len());
    }

    /// Appends the placeholder of an argument.
    fn placeholder(&mut self, arg: usize) {
        match self.dialect.placeholder() {
            Some(prefix) => {
                self.append(prefix);
                self.number(arg);
            }
            None => self.unnumbered(arg),
        }
    }

    /// Appends the placeholder of an argument to SQL that does not number them: a second one takes it once more.
    fn unnumbered(&mut self, arg: usize) {
        if arg <= self.placed {
            self.args.push(self.args[arg - 1].clone());
            if let Some(source) = self.sources.as_ref().and_then(|sources| sources.get(arg - 1).cloned()) {
                self.record(source);
            }
        }
        self.placed += 1;
        debug_assert!(self.placed == self.args.len() || arg == self.placed, "arguments stand in their order");
        self.append("?");
    }

    /// Appends a placeholder for a number that no value of a condition changes.
    pub fn constant(&mut self, number: u64) {
        self.arg(Typed::Int(i64::try_from(number).unwrap_or(i64::MAX)));
        self.record(ArgSource::Constant);
    }

    /// The last argument is the request's value at `address`, compared with `column` or stored there.
    fn came_from(&mut self, address: usize, column: &Column) {
        if self.sources.is_some() {
            self.record(ArgSource::Request { address, column: column.clone() });
        }
    }

    /// The last argument comes from `source`.
    fn record(&mut self, source: ArgSource) {
        if let Some(sources) = &mut self.sources {
            sources.truncate(self.args.len() - 1);
            sources.push(source);
        }
    }

    /// Appends a table's name.
    pub fn table(&mut self, table: &Table) {
        if let Some(schema) = self.dialect.schema_of(table) {
            self.ident(schema);
            self.push(".");
        }
        self.ident(&table.name);
    }

    /// Appends a table's name where a key leads to its rows: those of tables that inherit from it have none.
    pub fn referenced(&mut self, table: &Table) {
        if table.has_children {
            self.push("ONLY ");
        }
        self.table(table);
    }

    /// Appends the condition that the row of `alias` is one of `table` itself, not of a table that inherits from it.
    fn own_row(&mut self, alias: Alias, table: &Table) {
        self.named(alias);
        self.push(".\"tableoid\" = '");
        let mut name = Sql::new(self.dialect);
        name.table(table);
        self.append(&name.text.replace('\'', "''"));
        self.push("'::regclass");
    }

    /// A new alias of a table.
    pub fn alias_of(&mut self, table: &Table) -> Alias {
        let alias = self.alias();
        if table.kind != TableKind::View && self.plain.is_some() {
            self.tables.push((alias, table.name.clone()));
        }
        alias
    }

    /// A new alias.
    pub fn alias(&mut self) -> Alias {
        self.aliases += 1;
        Alias::Read(self.aliases - 1)
    }

    /// Appends an alias.
    pub fn named(&mut self, alias: Alias) {
        match (alias, self.target) {
            (Alias::Target, Some(table)) => self.ident(&table.name),
            (Alias::Target, None) => unreachable!("only statements that write name their target"),
            // A table may be called as an alias would be.
            (Alias::Read(number), Some(table)) if table.name.starts_with('t') => self.numbered("\"u", number as usize),
            (Alias::Read(number), _) => self.numbered("\"t", number as usize),
        }
    }

    /// Appends an identifier of this crate: a letter and a number.
    pub fn numbered(&mut self, quoted_letter: &'static str, number: usize) {
        self.push(quoted_letter);
        self.number(number);
        self.push("\"");
    }

    /// Appends a column's name.
    pub fn name(&mut self, column: &Column) {
        self.ident(&column.name);
    }

    /// Appends a column of the table called `alias`.
    pub fn column(&mut self, alias: Alias, column: &Column) {
        self.named(alias);
        self.push(".");
        self.name(column);
    }

    /// Appends a hidden column of the engine.
    fn hidden(&mut self, alias: Alias, name: &str) {
        self.named(alias);
        self.push(".");
        self.ident(name);
    }

    /// Appends a column as a result: of a type that the drivers do not know, its text.
    pub fn result(&mut self, alias: Alias, column: &Column) -> Output {
        self.column(alias, column);
        self.result_of(column)
    }

    /// Appends what makes a result of a value of `column`.
    pub fn result_of(&mut self, column: &Column) -> Output {
        self.push(self.dialect.result_cast(column));
        Output::of(column)
    }

    /// Appends the type of a column, as the database names it.
    pub fn native_type(&mut self, column: &Column) {
        self.append(&column.native);
    }

    /// Appends a number of this crate.
    fn number(&mut self, number: usize) {
        // Nearly all of them; formatting one costs more than the rest of its statement's text.
        match DIGITS.get(number..=number) {
            Some(digit) => self.append(digit),
            None => self.append(&number.to_string()),
        }
    }

    /// Appends what `write` writes for each item, with `between` between them.
    pub fn list<T>(
        &mut self,
        between: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.push(between);
            }
            write(self, item);
        }
    }

    /// Appends ` WHERE cond`, or nothing where it is true.
    pub fn filter(&mut self, alias: Alias, cond: &Cond<'_>) {
        if !cond.is_true() {
            self.push(" WHERE ");
            self.cond(alias, cond);
        }
    }

    /// Appends a condition on the rows of `alias`.
    pub fn cond(&mut self, alias: Alias, cond: &Cond<'_>) {
        match cond {
            Cond::And(all) if all.is_empty() => self.push("TRUE"),
            Cond::Or(any) if any.is_empty() => self.push("FALSE"),
            Cond::And(all) => {
                let outer = self.ranges.replace(Vec::new());
                self.joined(alias, all, " AND ");
                let ranges = std::mem::replace(&mut self.ranges, outer).unwrap_or_default();
                self.push_ranges(alias, &ranges);
            }
            Cond::Or(any) => {
                let outer = self.ranges.take();
                self.joined(alias, any, " OR ");
                self.ranges = outer;
            }
            Cond::Not(cond) => {
                self.push("NOT (");
                let was_negated = std::mem::replace(&mut self.is_negated, true);
                self.cond(alias, cond);
                self.is_negated = was_negated;
                self.push(")");
            }
            Cond::Compare(column, comparison, value) => self.compare(alias, column, *comparison, value),
            Cond::In(_, values) if values.value.is_empty() => self.push("FALSE"),
            Cond::In(column, values) if matches!(column.r#type, Type::List(_)) => {
                self.any_array(alias, column, &values.value);
            }
            Cond::In(column, values) => {
                if self.any(alias, column, values.value.to_vec()) {
                    self.came_from(values.address, column);
                }
            }
            Cond::IsNull(column) => {
                self.column(alias, column);
                self.push(self.dialect.is_null(column));
            }
            Cond::Related(related) => {
                let outer = self.ranges.take();
                self.related(alias, related);
                self.ranges = outer;
            }
        }
    }

    fn joined(&mut self, alias: Alias, conds: &[Cond<'_>], between: &'static str) {
        if let [only] = conds {
            return self.cond(alias, only);
        }
        self.push("(");
        if conds.len() > FLAT_TERMS {
            let (one, other) = conds.split_at(conds.len() / 2);
            self.joined(alias, one, between);
            self.push(between);
            self.joined(alias, other, between);
        } else {
            self.list(between, conds, |sql, cond| sql.cond(alias, cond));
        }
        self.push(")");
    }

    fn related(&mut self, alias: Alias, related: &Related<'_>) {
        self.push(match related.quantifier {
            Quantifier::Some => "EXISTS (SELECT 1 FROM ",
            Quantifier::None | Quantifier::Every => "NOT EXISTS (SELECT 1 FROM ",
        });
        let far = self.alias_of(related.table);
        self.referenced(related.table);
        self.push(" AS ");
        self.named(far);
        self.push(" WHERE ");
        if related.own.has_children {
            self.own_row(alias, related.own);
            self.push(" AND ");
        }
        self.list(" AND ", &related.on, |sql, pair| {
            sql.far_key(far, pair);
            sql.push(" = ");
            sql.column(alias, pair.own);
            sql.own_key(pair);
        });
        if !related.granted.is_true() {
            self.push(" AND ");
            self.cond(far, &related.granted);
        }
        match related.quantifier {
            Quantifier::Every => {
                self.push(" AND (");
                self.cond(far, &related.cond);
                self.push(") IS NOT TRUE");
            }
            Quantifier::Some | Quantifier::None if related.cond.is_true() => {}
            Quantifier::Some | Quantifier::None => {
                self.push(" AND ");
                self.cond(far, &related.cond);
            }
        }
        self.push(")");
    }

    /// Appends `name` as an identifier; a quote inside it is doubled.
    fn ident(&mut self, name: &str) {
        let quote = self.dialect.quote();
        self.push(quote);
        if name.contains(quote) {
            self.append(&name.replace(quote, &quote.repeat(2)));
        } else {
            self.append(name);
        }
        self.push(quote);
    }
}

impl Output {
    /// The type of a result of `column`.
    pub fn of(column: &Column) -> Self {
        Self { r#type: column.r#type, scale: column.digits().and_then(|digits| digits.scale.try_into().ok()) }
    }
}
