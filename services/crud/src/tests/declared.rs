//! What is decided by a schema alone, for tables that the database of the other tests does not have.

use std::sync::Arc;

use query::{
    Abilities, Column, Comparison, Comparisons, Error as Unfit, Field, FieldKind, Filter, ForeignKey, Mutation,
    MutationKind, Node, Read, Schema, Shape, Sort, Table, TableKind, Type, Typed,
};

use super::support::{Rule, grant, grants};
use crate::{
    Error,
    resolve::{self, Resolver},
    sql::{self, Dialect, Source},
    store::Statement,
};

fn postgres() -> Dialect {
    Dialect::postgres("public", Vec::new())
}

fn column(name: &str, r#type: Type) -> Column {
    Column::new(name, r#type, "any")
}

/// A column whose values can be equal and have no order.
fn unordered(name: &str) -> Column {
    Column {
        abilities: Abilities { comparisons: Comparisons::Equality, ..Abilities::default() },
        ..column(name, Type::Other)
    }
}

fn unreadable(name: &str) -> Column {
    Column { readable: false, ..column(name, Type::Int32) }
}

/// A table whose first column is its key.
fn keyed(name: &str, columns: Vec<Column>) -> Table {
    Table { primary_key: vec![columns[0].name.clone()], ..Table::new(name, columns) }
}

fn compare(column: &str, comparison: Comparison, value: Typed) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison, value }
}

fn list(texts: &[&str]) -> Typed {
    Typed::List(texts.iter().map(|text| Typed::Text((*text).to_owned())).collect())
}

/// The statements of a read of `table`, by a rule with `filter`.
fn selected(tables: &[Table], dialect: &Dialect, table: &str, node: Node, rule: Rule) -> Result<Vec<Statement>, Error> {
    let schema = Schema::new(tables.to_vec());
    let read = Read { database: "music".into(), table: table.into(), node };
    let accesses = query::read_accesses(&schema, &read)?;
    let terms: Vec<_> = accesses.iter().map(|access| Arc::new(grant(access, rule.clone()))).collect();
    let mut resolver = Resolver::new(&schema, grants(&terms));
    let node = resolver.read(&read)?;
    let mut statements = Vec::new();
    sql::select(dialect, &node, &Source::Query { limit: 1000 }, &mut statements);
    Ok(statements)
}

/// What stands behind ` WHERE ` in the only statement of a read of `key`.
fn condition(tables: &[Table], dialect: &Dialect, table: &str, key: &str, filter: Filter) -> String {
    let node = Node { filter, ..Node::new(Shape::Many, vec![Field::column(key)]) };
    let statement = selected(tables, dialect, table, node, Rule::default()).unwrap().remove(0);
    let (_, condition) = statement.text.split_once(" WHERE ").unwrap();
    condition.split(" ORDER BY ").next().unwrap().to_owned()
}

#[test]
fn a_column_that_the_role_may_not_read_is_used_for_nothing() {
    let vault = [keyed("vault", vec![column("id", Type::Int32), unreadable("code")])];
    let read = |node| selected(&vault, &postgres(), "vault", node, Rule::default());
    let id = || Node::new(Shape::Many, vec![Field::column("id")]);
    let refused = Err(Error::Denied("column code of table vault may not be read".to_owned()));
    assert_eq!(read(Node::new(Shape::Many, vec![Field::column("code")])), refused);
    assert_eq!(read(Node { filter: Filter::IsNull { column: "code".to_owned() }, ..id() }), refused);
    assert_eq!(read(Node { sort: vec![Sort { column: "code".to_owned(), descending: false }], ..id() }), refused);
    let all = Field { key: String::new(), kind: FieldKind::Columns };
    assert_eq!(read(Node::new(Shape::Many, vec![all])), read(id()));
}

#[test]
fn what_has_no_order_is_compared_for_equality_alone() {
    let shapes = [keyed("shape", vec![column("id", Type::Int32), unordered("box")])];
    for (comparison, is_fit) in [
        (Comparison::Eq, true),
        (Comparison::Ne, true),
        (Comparison::Gt, false),
        (Comparison::Gte, false),
        (Comparison::Lt, false),
        (Comparison::Lte, false),
    ] {
        let id = || Node::new(Shape::Many, vec![Field::column("id")]);
        let of_caller = Node { filter: compare("box", comparison, Typed::Other("x".to_owned())), ..id() };
        let (column, value) = ("box".to_owned(), query::Value::Text("x".to_owned()));
        let of_rule = Rule { filter: Filter::Compare { column, comparison, value }, ..Rule::default() };
        for (node, rule) in [(of_caller, Rule::default()), (id(), of_rule)] {
            let read = selected(&shapes, &postgres(), "shape", node, rule);
            let is_refused = matches!(&read, Err(Error::Query(Unfit::WrongType { name, .. })) if name == "box");
            assert_eq!((read.is_ok(), is_refused), (is_fit, !is_fit), "{comparison:?}: {read:?}");
        }
    }
}

/// PostgreSQL compares subscripts where values are equal: one side of the least or the greatest of them.
#[test]
fn arrays_are_compared_without_their_subscripts() {
    let mut tags = column("tags", Type::List(&Type::Text));
    let table = |tags: &Column| [keyed("book", vec![column("id", Type::Int32), tags.clone()])];
    let books = table(&tags);
    let sql = |books: &[Table], filter| condition(books, &postgres(), "book", "id", filter);
    let compared = |comparison| sql(&books, compare("tags", comparison, list(&["a"])));
    for (comparison, expected) in [
        (Comparison::Eq, r#"("t0"."tags" >= $1 AND "t0"."tags" <= $2)"#),
        (Comparison::Ne, r#"("t0"."tags" < $1 OR "t0"."tags" > $2)"#),
        (Comparison::Gt, r#"("t0"."tags" > $1)"#),
        (Comparison::Lt, r#"("t0"."tags" < $1)"#),
    ] {
        assert_eq!(compared(comparison), expected);
    }
    let any = Filter::In { column: "tags".to_owned(), values: vec![list(&["a"]), list(&["b"])] };
    let expected = r#"(("t0"."tags" >= $1 AND "t0"."tags" <= $2) OR ("t0"."tags" >= $3 AND "t0"."tags" <= $4))"#;
    assert_eq!(sql(&books, any), expected);
    tags.abilities.comparisons = Comparisons::Equality;
    let equal = compare("tags", Comparison::Eq, list(&["a"]));
    assert_eq!(sql(&table(&tags), equal), r#""t0"."tags"[:] = $1"#);
}

/// Bytes and their base64 text are the same value, which an index has as either.
#[test]
fn values_of_any_type_are_looked_up_in_both_forms_also_within_a_negation() {
    let tables = [keyed("note", vec![column("id", Type::Int32), column("v", Type::Any)])];
    let text = || Typed::Text("x".to_owned());
    let equal = compare("v", Comparison::Eq, text());
    let any = Filter::In { column: "v".to_owned(), values: vec![text(), text()] };
    let not = |filter: &Filter| Filter::Not(Box::new(filter.clone()));
    for (filter, expected) in [
        (equal.clone(), r#""t0"."v" IN (?1, perigee_blob(?1))"#),
        (not(&equal), r#""t0"."v" IN (?1, perigee_blob(?1))"#),
        (compare("v", Comparison::Ne, text()), r#""t0"."v" NOT IN (?1, perigee_blob(?1))"#),
        (any.clone(), ") UNION ALL SELECT perigee_blob(value) FROM json_each(?1"),
        (not(&any), ") UNION ALL SELECT perigee_blob(value) FROM json_each(?1"),
    ] {
        let sql = condition(&tables, &Dialect::Sqlite, "note", "id", filter);
        assert!(sql.contains(expected), "{sql}");
    }
}

/// A table without a key and without hidden columns, which only what can be sorted tells apart.
fn keyless(kind: TableKind) -> Table {
    let columns = vec![
        Column { nullable: true, ..column("seen", Type::Timestamp) },
        column("n", Type::Int32),
        unreadable("code"),
        unordered("box"),
        column("raw", Type::Bytes),
    ];
    Table { kind, ..Table::new("event", columns) }
}

#[test]
fn rows_without_a_key_are_ordered_by_all_that_can_be_sorted() {
    let node = || Node::new(Shape::Many, vec![Field::column("n")]);
    for (dialect, expected) in [
        (Dialect::Sqlite, r#""t0"."seen" NULLS LAST, "t0"."n" LIMIT 1001"#),
        (postgres(), r#""t0"."seen", "t0"."n" LIMIT 1001"#),
    ] {
        let tables = [keyless(TableKind::Table)];
        let statement = selected(&tables, &dialect, "event", node(), Rule::default()).unwrap().remove(0);
        assert_eq!(statement.text.split_once(" ORDER BY ").unwrap().1, expected);
    }
}

/// In a view nobody knows in which forms values are stored.
#[test]
fn values_of_a_table_alone_may_be_compared_as_they_are_stored() {
    for (kind, is_plain) in [(TableKind::Table, true), (TableKind::View, false)] {
        let filter = compare("seen", Comparison::Gt, Typed::Timestamp(0));
        let node = Node { filter, ..Node::new(Shape::Many, vec![Field::column("n")]) };
        let read = selected(&[keyless(kind)], &Dialect::Sqlite, "event", node, Rule::default());
        assert_eq!(read.unwrap()[0].plain.is_some(), is_plain, "{kind:?}");
    }
}

/// Keys do not hold for the rows of tables that inherit.
#[test]
fn rows_that_a_table_shows_of_others_have_no_relations() {
    let people = Table { has_children: true, ..keyed("per'son", vec![column("id", Type::Int32)]) };
    let mut pets = keyed("pet", vec![column("id", Type::Int32), column("owner", Type::Int32)]);
    pets.foreign_keys.push(ForeignKey {
        columns: vec!["owner".to_owned()],
        foreign_database: None,
        foreign_table: "per'son".to_owned(),
        foreign_columns: vec!["id".to_owned()],
    });
    let relation = "pet".to_owned();
    let filter = Filter::Related {
        relation,
        long_name: None,
        quantifier: query::Quantifier::Some,
        filter: Box::new(Filter::TRUE),
    };
    let sql = condition(&[people, pets], &postgres(), "per'son", "id", filter);
    let expected = r#"EXISTS (SELECT 1 FROM "public"."pet" AS "t1" WHERE "t0"."tableoid" = '"public"."per''son"'::regclass AND "t1"."owner" = "t0"."id")"#;
    assert_eq!(sql, expected);
}

/// The condition of a delete of one row.
fn one_row(table: Table) -> String {
    let schema = Schema::new(vec![table]);
    let filter = compare("n", Comparison::Eq, Typed::Int(1));
    let mutation =
        Mutation { table: "event".to_owned(), kind: MutationKind::Delete { filter, one: true }, returning: None };
    let accesses = query::mutation_accesses(&schema, &mutation).unwrap();
    let terms: Vec<_> = accesses.iter().map(|access| Arc::new(grant(access, Rule::default()))).collect();
    let resolved = Resolver::new(&schema, grants(&terms)).mutation(&mutation).unwrap();
    let resolve::MutationKind::Delete { cond, one } = &resolved.kind else { unreachable!() };
    let (statement, _) = sql::delete(&postgres(), &resolved, cond, *one);
    statement.text.split_once(" WHERE ").unwrap().1.to_owned()
}

#[test]
fn one_row_is_written_by_what_tells_it_from_all_others() {
    let table = Table::new("event", vec![column("n", Type::Int32), unreadable("code"), column("doc", Type::Json)]);
    let by = |row_id: &[&str]| {
        one_row(Table { row_id: row_id.iter().map(|name| (*name).to_owned()).collect(), ..table.clone() })
    };
    assert_eq!(
        by(&["ctid"]),
        r#""event"."ctid" IN (SELECT "t0"."ctid" FROM "public"."event" AS "t0" WHERE "t0"."n" = $1 ORDER BY "t0"."ctid" LIMIT 1) AND "event"."n" = $2"#
    );
    assert_eq!(
        by(&["tableoid", "ctid"]),
        r#"("event"."tableoid", "event"."ctid") IN (SELECT "t0"."tableoid", "t0"."ctid" FROM "public"."event" AS "t0" WHERE "t0"."n" = $1 ORDER BY "t0"."tableoid", "t0"."ctid" LIMIT 1) AND "event"."n" = $2"#
    );
    assert_eq!(
        by(&[]),
        r#"EXISTS (SELECT 1 FROM (SELECT "t0"."n", "t0"."doc" FROM "public"."event" AS "t0" WHERE "t0"."n" = $1 LIMIT 1) AS "t1" WHERE "t1"."n" IS NOT DISTINCT FROM "event"."n" AND "t1"."doc"::text IS NOT DISTINCT FROM "event"."doc"::text)"#
    );
}
