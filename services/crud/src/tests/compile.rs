//! The SQL of every dialect, and that nothing of a request gets into it.
//!
//! `cases/*.txt` hold operations with their statements. After a change that is meant, `UPDATE_CASES=1` writes them
//! anew; they are read before they are committed.

use std::{fmt::Write, path::Path};

use proptest::prelude::*;
use query::{Comparison, Filter, GrantTerms, Operation, Quantifier, Schema, Sort, Typed};
use serde_json::Value as Json;

use super::support::{Db, grants, read, sqlite};
use crate::{
    Error,
    bind::Bind,
    prepared::{CompiledReads, PreparedOperations, RequestShape, SingleInsert},
    resolve::{Mutation, MutationKind, Node, Resolver},
    sql::{self, Dialect, Source},
    store::Statement,
    write::CompiledInsert,
};

fn dialects() -> [Dialect; 3] {
    let indexed = [("artist", "artist_id"), ("album", "album_id"), ("album", "artist_id")];
    let indexed = indexed.map(|(table, column)| (table.to_owned(), column.to_owned())).into();
    [
        Dialect::Sqlite,
        Dialect::Postgres { schema: "public".to_owned(), neighbours: Vec::new(), indexed },
        Dialect::Mysql,
    ]
}

#[tokio::test]
async fn operations_become_the_sql_of_each_dialect() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    for file in ["reads.txt", "writes.txt"] {
        let path = folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut found = String::new();
        for case in text.split("\n\n") {
            let given: Vec<&str> =
                case.lines().filter(|line| OUTCOMES.iter().all(|outcome| !line.starts_with(outcome))).collect();
            found.push_str(given.join("\n").trim_end());
            found.push('\n');
            found.push_str(&outcome(&given).await);
            found.push('\n');
        }
        let found = format!("{}\n", found.trim_end());
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        for (found, expected) in found.lines().zip(text.lines()) {
            assert_eq!(found, expected, "{file}");
        }
        assert_eq!(found.lines().count(), text.lines().count(), "{file}");
    }
}

/// What begins the lines that a test writes: of statements, and of those on values as they are stored.
const OUTCOMES: [&str; 4] = ["sqlite: ", "postgres: ", "mysql: ", "plain: "];

/// Lines of `dialect: statement`.
async fn outcome(given: &[&str]) -> String {
    let mut db = sqlite().await;
    let mut operation = None;
    for line in given.iter().filter(|line| !line.starts_with('#')) {
        match line.split_once(' ').unwrap() {
            ("rule", rule) => add_rule(&mut db, rule),
            (kind, rest) => operation = Some((kind.to_owned(), rest.to_owned())),
        }
    }
    let Some((kind, rest)) = operation else { return String::new() };
    let (table, options) = rest.split_once(' ').unwrap_or((&rest, "{}"));
    let options: Json = serde_json::from_str(options).unwrap();
    let mut out = String::new();
    for dialect in dialects() {
        for statement in statements(&db, &dialect, &kind, table, &options).unwrap() {
            write!(out, "{}: {}", dialect.engine().name(), statement.text).unwrap();
            let args: Vec<String> = statement.args.iter().map(shown).collect();
            writeln!(out, "{}{}", if args.is_empty() { "" } else { " <- " }, args.join(", ")).unwrap();
            if let Some(plain) = &statement.plain {
                writeln!(out, "plain: {}", plain.text).unwrap();
            }
        }
    }
    out
}

/// `track read filter {…}`, `track update check {…}`.
fn add_rule(db: &mut Db, rule: &str) {
    let parts: Vec<&str> = rule.splitn(4, ' ').collect();
    let operation = match parts[1] {
        "create" => Operation::Create,
        "read" => Operation::Read,
        "update" => Operation::Update,
        _ => Operation::Delete,
    };
    let filter = db.filter(parts[0], serde_json::from_str(parts[3]).unwrap());
    let rule = db.rule(parts[0], operation);
    match parts[2] {
        "filter" => rule.filter = filter,
        _ => rule.check = filter,
    }
}

fn statements(db: &Db, dialect: &Dialect, kind: &str, table: &str, options: &Json) -> Result<Vec<Statement>, Error> {
    let known = db.schema();
    if kind == "read" {
        return selected(db, dialect, &read(&known.schema, table, options)?);
    }
    let returning = options.get("returning").cloned();
    let find = options.get("find").cloned().unwrap_or_default();
    let mut mutation = match kind {
        "insert" => db.insert(table, options["docs"].clone(), returning),
        "update" => db.update(table, find, options["update"].clone(), returning),
        _ => db.delete(table, find, returning),
    };
    if let query::MutationKind::Update { one, .. } | query::MutationKind::Delete { one, .. } = &mut mutation.kind {
        *one = options.get("one").is_some();
    }
    let terms = db.terms(&query::mutation_accesses(&known.schema, &mutation)?);
    let schema = schema(db, dialect);
    let mut resolver = Resolver::new(&schema, grants(&terms));
    let resolved = resolver.mutation(&mutation)?;
    let statements = written(dialect, &resolved);
    if let Some(insert) = CompiledInsert::of(dialect, &resolved, 1000)? {
        assert_eq!(prepared_again(dialect, &mutation, &terms, &insert), unsourced(&statements));
    }
    Ok(statements)
}

/// The statement that an insert is bound to once it is prepared.
fn prepared_again(
    dialect: &Dialect,
    mutation: &query::Mutation,
    terms: &[std::sync::Arc<GrantTerms>],
    insert: &CompiledInsert,
) -> Vec<Statement> {
    let one = SingleInsert::of(std::slice::from_ref(mutation)).expect("it is compiled as one");
    let prepared = PreparedOperations::default();
    prepared.keep_insert(one.shape(0, terms, 1000), insert);
    let bound = prepared.bind_insert(&one.shape(0, terms, 1000), dialect).unwrap();
    bound.map_or_else(|| unsourced(std::slice::from_ref(&insert.statement)), |bound| vec![bound.statement])
}

/// The schema as the engine of `dialect` would have it.
fn schema(db: &Db, dialect: &Dialect) -> Schema {
    let mut tables = db.schema().schema.tables().to_vec();
    if let Dialect::Postgres { .. } = dialect {
        tables.iter_mut().flat_map(|table| &mut table.row_id).for_each(|name| *name = "ctid".to_owned());
    }
    if *dialect == Dialect::Mysql {
        tables.iter_mut().for_each(|table| table.row_id.clear());
        let columns = tables.iter_mut().flat_map(|table| &mut table.columns);
        for column in columns.filter(|column| column.r#type == query::Type::Text) {
            let collation = Some("utf8mb4_general_ci".into());
            column.equality = query::Equality { class: query::EqualityClass::Database, collation };
        }
    }
    Schema::new(tables)
}

fn written(dialect: &Dialect, mutation: &Mutation<'_>) -> Vec<Statement> {
    match &mutation.kind {
        MutationKind::Insert(rows) => sql::insert(dialect, mutation, rows).0,
        MutationKind::Update { cond, changes, one }
            if *dialect == Dialect::Mysql && (mutation.returning.is_some() || !mutation.check.is_true()) =>
        {
            sql::update_by_key(dialect, mutation, cond, changes, *one).into_iter().map(|update| update.lock).collect()
        }
        MutationKind::Update { cond, changes, one } => vec![sql::update(dialect, mutation, cond, changes, *one).0],
        MutationKind::Delete { cond, one } => {
            vec![
                sql::select_before_delete(dialect, mutation, cond, *one).0,
                sql::delete(dialect, mutation, cond, *one).0,
            ]
        }
    }
}

pub fn selected(db: &Db, dialect: &Dialect, read: &query::Read) -> Result<Vec<Statement>, Error> {
    let schema = schema(db, dialect);
    let terms = db.terms(&query::read_accesses(&schema, read)?);
    let mut resolver = Resolver::new(&schema, grants(&terms));
    let node: Node<'_> = resolver.read(read)?;
    resolver.finish()?;
    let mut statements = Vec::new();
    let plan = sql::select(dialect, &node, &Source::Query { limit: 1000 }, &mut statements);
    let prepared = PreparedOperations::default();
    prepared.keep(
        RequestShape::of(0, std::slice::from_ref(read), &terms, 1000),
        &CompiledReads { plans: vec![plan], statements: statements.clone() },
    );
    assert_eq!(bound(&prepared, read, &terms).unwrap_or_else(|| unsourced(&statements)), unsourced(&statements));
    Ok(statements)
}

/// The statements that a read of a prepared shape is bound to.
fn bound(
    prepared: &PreparedOperations,
    read: &query::Read,
    terms: &[std::sync::Arc<GrantTerms>],
) -> Option<Vec<Statement>> {
    let shape = RequestShape::of(0, std::slice::from_ref(read), terms, 1000);
    prepared.bind(&shape).unwrap().map(|reads| reads.statements)
}

fn unsourced(statements: &[Statement]) -> Vec<Statement> {
    statements.iter().map(|statement| Statement { sources: Vec::new(), ..statement.clone() }).collect()
}

fn shown(bind: &Bind) -> String {
    let value = |value: &Typed| match value {
        Typed::Null => "NULL".to_owned(),
        Typed::Int(value) => value.to_string(),
        Typed::Text(text) | Typed::Decimal(text) => format!("'{text}'"),
        other => format!("{other:?}"),
    };
    match bind {
        Bind::Value(one) => value(one),
        Bind::List(items) => format!("[{}]", items.iter().map(value).collect::<Vec<_>>().join(", ")),
        Bind::LeastArray(items) => format!("least {items:?}"),
        Bind::GreatestArray(items) => format!("greatest {items:?}"),
        Bind::Stored(stored) => format!("{stored:?}"),
    }
}

/// A text that no name of the schema and no SQL of ours contains.
const MARKER: &str = "x\"'; DROP TABLE zq --";

/// Operations out of a tape of decisions: mostly sound ones, some not.
struct Tape<'s> {
    schema: &'s Schema,
    tape: std::vec::IntoIter<u8>,
}

impl Tape<'_> {
    fn next(&mut self, choices: usize) -> usize {
        usize::from(self.tape.next().unwrap_or(0)) % choices
    }

    fn one<T: Clone>(&mut self, choices: &[T]) -> T {
        let index = self.next(choices.len());
        choices[index].clone()
    }

    fn table(&mut self) -> String {
        self.one(&["album", "artist", "track", "kinds", "part", "stock", "odd \"name", MARKER].map(str::to_owned))
    }

    fn column(&mut self, table: &str) -> (String, Typed) {
        let Ok(table) = self.schema.table(table) else { return (MARKER.to_owned(), Typed::Null) };
        let index = self.next(table.columns.len());
        let column = &table.columns[index];
        let value = match column.r#type {
            _ if self.next(40) == 1 => Typed::Bytes(MARKER.as_bytes().to_vec()),
            query::Type::Bool => Typed::Bool(true),
            query::Type::Int64 => Typed::Int(7),
            query::Type::Float => Typed::Float(7.5),
            query::Type::Decimal => Typed::Decimal("7.5".to_owned()),
            query::Type::Date => Typed::Date(14_275),
            _ => Typed::Text(MARKER.to_owned()),
        };
        (if self.next(40) == 1 { MARKER.to_owned() } else { column.name.clone() }, value)
    }

    fn relation(&mut self, table: &str) -> (String, String) {
        let relations = self.schema.table(table).map_or(&[][..], |table| &table.relations);
        match relations.len() {
            0 => (MARKER.to_owned(), MARKER.to_owned()),
            count => {
                let relation = &relations[self.next(count)];
                (relation.name.clone(), relation.table.clone())
            }
        }
    }

    fn filter(&mut self, table: &str, depth: usize) -> Filter {
        use Comparison::{Eq, Gt, Gte, Lt, Lte, Ne};

        let (column, value) = self.column(table);
        match self.next(if depth == 0 { 3 } else { 8 }) {
            0 => Filter::Compare { column, comparison: self.one(&[Eq, Ne, Gt, Gte, Lt, Lte]), value },
            1 => Filter::In { column, values: vec![value; self.next(3)] },
            2 => Filter::IsNull { column },
            3 => Filter::Not(Box::new(self.filter(table, depth - 1))),
            kind @ 4..=5 => {
                let count = self.next(4);
                let filters = (0..count).map(|_| self.filter(table, depth - 1)).collect();
                if kind == 4 { Filter::And(filters) } else { Filter::Or(filters) }
            }
            _ => {
                let (relation, far) = self.relation(table);
                let quantifier = self.one(&[Quantifier::Some, Quantifier::None, Quantifier::Every]);
                Filter::Related {
                    relation,
                    long_name: None,
                    quantifier,
                    filter: Box::new(self.filter(&far, depth - 1)),
                }
            }
        }
    }

    fn node(&mut self, table: &str, depth: usize) -> query::Node {
        let mut fields = Vec::new();
        for _ in 0..self.next(3) {
            let kind = query::FieldKind::Column(self.column(table).0);
            fields.push(query::Field { key: MARKER.to_owned(), kind });
        }
        for _ in 0..if depth == 0 { 0 } else { self.next(3) } {
            let (name, far) = self.relation(table);
            let kind = query::FieldKind::Relation { name, node: self.node(&far, depth - 1) };
            fields.push(query::Field { key: MARKER.to_owned(), kind });
        }
        let mut node = query::Node::new(query::Shape::Many, fields);
        node.filter = self.filter(table, 2);
        node.sort = vec![Sort { column: self.column(table).0, descending: self.next(2) == 0 }; self.next(2)];
        node.skip = self.one(&[0, 1, u64::MAX]);
        node.limit = self.one(&[None, Some(0), Some(3), Some(u64::MAX)]);
        node
    }

    fn mutation(&mut self, table: &str) -> query::Mutation {
        let filter = self.filter(table, 2);
        let (column, value) = self.column(table);
        let one = self.next(2) == 0;
        let kind = match self.next(4) {
            0 => query::MutationKind::Delete { filter, one },
            1 => query::MutationKind::Insert {
                docs: vec![query::Document(vec![(column, value)]), query::Document::default()].into(),
            },
            2 => query::MutationKind::Update { filter, changes: vec![query::Change::Inc { column, by: value }], one },
            _ => query::MutationKind::Update { filter, changes: vec![query::Change::Set { column, value }], one },
        };
        let returning = (self.next(2) == 0).then(|| {
            let node = self.node(table, 1);
            query::Node { sort: Vec::new(), skip: 0, limit: None, ..node }
        });
        query::Mutation { table: table.to_owned(), kind, returning }
    }
}

/// Quoted texts of the compiler.
const OWN_TEXTS: [&str; 4] = [" < ''", " < x''", " >= ''", " >= x''"];

#[test]
fn nothing_of_a_request_becomes_sql_and_nothing_panics() {
    let db = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(sqlite());
    let known = db.schema();
    let compiled = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(tape in prop::collection::vec(any::<u8>(), 200))| {
        let mut tape = Tape { schema: &known.schema, tape: tape.into_iter() };
        let table = tape.table();
        let read = query::Read { database: MARKER.into(), table: (*table).into(), node: tape.node(&table, 2) };
        let mutation = tape.mutation(&table);
        for dialect in dialects() {
            let mut statements = Vec::new();
            if let Ok(selected) = selected(&db, &dialect, &read) {
                statements.extend(selected);
            }
            if let Ok(accesses) = query::mutation_accesses(&known.schema, &mutation) {
                let terms = db.terms(&accesses);
                let mut resolver = Resolver::new(&known.schema, grants(&terms));
                if let Ok(mutation) = resolver.mutation(&mutation) {
                    statements.extend(written(&dialect, &mutation));
                }
            }
            for statement in statements {
                compiled.set(compiled.get() + 1);
                let text = OWN_TEXTS.iter().fold(statement.text.to_string(), |text, own| text.replace(own, ""));
                prop_assert!(!text.contains("zq") && !text.contains('\''), "{}", statement.text);
            }
        }
    });
    assert!(compiled.get() > 2000, "too few of the operations were sound: {}", compiled.get());
}

/// A condition of the same shape with other values, and lists of other lengths.
fn with_other_values(filter: Filter) -> Filter {
    let each = |filters: Vec<Filter>| filters.into_iter().map(with_other_values).collect();
    let other = |value: Typed| match value {
        Typed::Bool(value) => Typed::Bool(!value),
        Typed::Int(value) => Typed::Int(value + 1),
        Typed::Float(value) => Typed::Float(value + 1.0),
        Typed::Decimal(_) => Typed::Decimal("12.25".to_owned()),
        Typed::Date(days) => Typed::Date(days + 1),
        Typed::Text(text) => Typed::Text(format!("{text}?")),
        other => other,
    };
    match filter {
        Filter::And(all) => Filter::And(each(all)),
        Filter::Or(any) => Filter::Or(each(any)),
        Filter::Not(filter) => Filter::Not(Box::new(with_other_values(*filter))),
        Filter::Compare { column, comparison, value } => Filter::Compare { column, comparison, value: other(value) },
        Filter::In { column, mut values } => {
            values.extend(values.first().cloned());
            Filter::In { column, values: values.into_iter().map(other).collect() }
        }
        Filter::IsNull { column } => Filter::IsNull { column },
        Filter::Related { relation, long_name, quantifier, filter } => {
            Filter::Related { relation, long_name, quantifier, filter: Box::new(with_other_values(*filter)) }
        }
    }
}

fn node_with_other_values(mut node: query::Node) -> query::Node {
    let fields = node.fields.iter().cloned().map(|mut field| {
        if let query::FieldKind::Relation { name, node } = field.kind {
            field.kind = query::FieldKind::Relation { name, node: node_with_other_values(node) };
        }
        field
    });
    node.fields = fields.collect();
    node.filter = with_other_values(node.filter);
    node
}

/// Whatever a read is prepared from, the values that reach the database are those of the request.
#[test]
fn a_prepared_read_is_bound_to_the_values_of_each_request() {
    let mut db = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(sqlite());
    let known = db.schema();
    for (table, find) in [
        ("album", serde_json::json!({"title": "rule", "artist": {"name": "rule"}})),
        ("artist", serde_json::json!({"artist_id": {"$in": [1, 2]}, "name": "rule"})),
        ("track", serde_json::json!({"$or": [{"milliseconds": 3}, {"name": {"$ne": "rule"}}]})),
    ] {
        db.rule(table, Operation::Read).filter = db.filter(table, find);
    }
    let bound_again = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(tape in prop::collection::vec(any::<u8>(), 200))| {
        let mut tape = Tape { schema: &known.schema, tape: tape.into_iter() };
        let table = tape.table();
        let read = query::Read { database: MARKER.into(), table: (*table).into(), node: tape.node(&table, 2) };
        let again = query::Read { node: node_with_other_values(read.node.clone()), ..read.clone() };
        let Ok(accesses) = query::read_accesses(&known.schema, &read) else { return Ok(()) };
        let terms = db.terms(&accesses);
        for dialect in dialects() {
            let schema = schema(&db, &dialect);
            let mut resolver = Resolver::new(&schema, grants(&terms));
            let (Ok(node), Ok(expected)) = (resolver.read(&read), selected(&db, &dialect, &again)) else { continue };
            let mut statements = Vec::new();
            let plan = sql::select(&dialect, &node, &Source::Query { limit: 1000 }, &mut statements);
            let prepared = PreparedOperations::default();
            prepared.keep(RequestShape::of(0, std::slice::from_ref(&read), &terms, 1000), &CompiledReads { plans: vec![plan], statements: statements.clone() });
            if let Some(bound) = bound(&prepared, &again, &terms) {
                prop_assert_eq!(bound, unsourced(&expected));
                bound_again.set(bound_again.get() + 1);
            }
        }
    });
    assert!(bound_again.get() > 1000, "too few of the reads were prepared: {}", bound_again.get());
}

/// Clones of a read share its selection, and the values in it.
#[tokio::test]
async fn reads_that_share_values_are_not_prepared_for_others() {
    let db = sqlite().await;
    let known = db.schema();
    let titled = |title: &str| {
        let albums = serde_json::json!({"select": ["title"], "find": {"title": title}});
        read(&known.schema, "artist", &serde_json::json!({"select": {"album": albums}})).unwrap()
    };
    let apart = [titled("b"), titled("c")];
    let shared = [apart[0].clone(), apart[0].clone()];
    let accesses = query::read_accesses(&known.schema, &shared[0]).unwrap();
    let terms = [db.terms(&accesses), db.terms(&accesses)].concat();

    for (kept, is_known) in [(&apart, true), (&shared, false)] {
        let mut resolver = Resolver::new(&known.schema, grants(&terms));
        let mut statements = Vec::new();
        let mut plan = |read| {
            let node = resolver.read(read).unwrap();
            sql::select(&Dialect::Sqlite, &node, &Source::Query { limit: 1000 }, &mut statements)
        };
        let plans = kept.iter().map(&mut plan).collect();
        let prepared = PreparedOperations::default();
        prepared.keep(RequestShape::of(0, kept, &terms, 1000), &CompiledReads { plans, statements });

        let shape = RequestShape::of(0, &apart, &terms, 1000);
        assert_eq!(prepared.bind(&shape).unwrap().is_some(), is_known);
    }
}

#[tokio::test]
async fn rows_of_a_table_without_a_key_are_ordered_by_their_place() {
    let db = sqlite().await;
    let known = db.schema();
    for (sort, columns) in [(serde_json::json!([]), ""), (serde_json::json!(["-select"]), "\"t0\".\"select\" DESC")] {
        let options = serde_json::json!({"select": ["select"], "sort": sort});
        let read = read(&known.schema, "odd \"name", &options).unwrap();
        for (dialect, row_id, nulls) in
            [(Dialect::Sqlite, "rowid", " NULLS FIRST"), (Dialect::postgres("public", Vec::new()), "ctid", "")]
        {
            let text = selected(&db, &dialect, &read).unwrap().remove(0).text;
            let (_, order) = text.split_once(" ORDER BY ").unwrap();
            let columns = if columns.is_empty() { String::new() } else { format!("{columns}{nulls}, ") };
            assert_eq!(order, format!("{columns}\"t0\".\"{row_id}\" LIMIT 1001"));
        }
    }
}

/// SQLite bears a thousand terms inside one another.
#[tokio::test]
async fn many_terms_are_halved_by_brackets() {
    let db = sqlite().await;
    let known = db.schema();
    for (count, brackets) in [(1, 0), (100, 1), (101, 3), (200, 3), (201, 5)] {
        let mut read = read(&known.schema, "album", &serde_json::json!({"select": ["title"]})).unwrap();
        read.node.filter = Filter::And(vec![Filter::IsNull { column: "title".to_owned() }; count]);
        for dialect in dialects() {
            let text = selected(&db, &dialect, &read).unwrap().remove(0).text;
            assert_eq!(text.matches('(').count(), brackets, "{count}");
            assert_eq!(text.matches(" IS NULL").count(), count);
        }
    }
}

/// Parsers simplify them; rules may still hold them.
#[tokio::test]
async fn conditions_without_terms_are_constants() {
    let db = sqlite().await;
    let known = db.schema();
    let none = || Filter::In { column: "title".to_owned(), values: Vec::new() };
    let not = |filter| Filter::Not(Box::new(filter));
    for (filter, sql) in [
        (Filter::FALSE, "FALSE"),
        (not(Filter::TRUE), "NOT (TRUE)"),
        (none(), "FALSE"),
        (Filter::Or(vec![none(), not(none())]), "(FALSE OR NOT (FALSE))"),
        (Filter::And(vec![Filter::Or(vec![Filter::TRUE])]), "TRUE"),
    ] {
        let mut read = read(&known.schema, "album", &serde_json::json!({"select": ["title"]})).unwrap();
        read.node.filter = filter;
        for dialect in dialects() {
            let statement = selected(&db, &dialect, &read).unwrap().remove(0);
            let (_, condition) = statement.text.split_once(" WHERE ").unwrap();
            let quote = dialect.quote();
            assert_eq!(condition, format!("{sql} ORDER BY \"t0\".{quote}album_id{quote} LIMIT 1001"));
        }
    }
}

#[tokio::test]
async fn unknown_names_are_refused_with_the_nearest() {
    let db = sqlite().await;
    let known = db.schema();
    let schema: &Schema = &known.schema;
    let refused = |filter: Filter| {
        let mut read = read(schema, "album", &serde_json::json!({"select": ["title"]})).unwrap();
        read.node.filter = filter;
        selected(&db, &Dialect::Sqlite, &read).unwrap_err()
    };
    let error = refused(Filter::IsNull { column: "titel".to_owned() });
    assert_eq!(error.to_string(), "column titel is not in table album; did you mean title?");
    let filter = Box::new(Filter::TRUE);
    let error = refused(Filter::Related {
        relation: "tracks".to_owned(),
        long_name: None,
        quantifier: Quantifier::Some,
        filter,
    });
    assert_eq!(error.to_string(), "relation tracks is not in table album; did you mean track?");
}
