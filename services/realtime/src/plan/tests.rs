use query::{Column, Columns, Filter, Operation, Sort, Type};

use super::*;

fn table() -> Table {
    let nullable = |name: &str| Column { nullable: true, ..Column::new(name, Type::Text, "text") };
    let columns = vec![Column::new("id", Type::Int64, "bigint"), nullable("a"), nullable("b")];
    Table { primary_key: vec!["id".to_owned()], ..Table::new("t", columns) }
}

fn request(fields: &[Field]) -> WatchRequest {
    let node = Node::new(Shape::Many, fields);
    let read = Read { database: "lab".into(), table: "t".into(), node };
    let (project, token) = ("shop".into(), "".into());
    WatchRequest { project, token, read, before: Vec::new(), skip_initial: false, after: String::new() }
}

fn plan(table: Table, request: WatchRequest) -> Result<Plan, Error> {
    Plan::of(request, Schema::new(vec![table]).into())
}

fn terms(columns: Columns) -> GrantTerms {
    GrantTerms {
        project: "shop".to_owned(),
        database: "lab".to_owned(),
        table: "t".to_owned(),
        operation: Operation::Read,
        filter: Filter::TRUE,
        check: Filter::TRUE,
        columns: columns.into(),
        allow_all: false,
        expires_ms: 0,
    }
}

fn names(fields: &[Field]) -> Vec<&str> {
    fields.iter().map(|field| field.key.as_str()).collect()
}

#[test]
fn all_columns_are_those_that_the_caller_may_read() {
    let plan = plan(table(), request(&[Field::columns()])).unwrap();
    let told = plan.told(&terms(Columns { deny: vec!["a".to_owned()], ..Columns::default() })).unwrap();
    assert_eq!(names(&told.fields), ["id", "b"]);
    assert_eq!(told.before, told.fields);
    assert_eq!(names(&told.key), ["id"]);
    let told = plan.told(&terms(Columns { read: Some(vec!["a".to_owned()]), ..Columns::default() })).unwrap();
    assert_eq!((names(&told.fields), told.key), (vec!["a"], Vec::new()));
}

#[test]
fn what_is_told_is_read_once_under_its_own_name() {
    let alias = Field { key: "x".to_owned(), kind: FieldKind::Column("a".to_owned()) };
    let constant = Field { key: "__typename".to_owned(), kind: FieldKind::Constant("Row".to_owned()) };
    let asked = WatchRequest { before: vec![Field::column("b")], ..request(&[alias, Field::column("a"), constant]) };
    let plan = plan(table(), asked).unwrap();
    let told = plan.told(&terms(Columns::default())).unwrap();
    assert_eq!(names(&plan.snapshot(&told).node.fields), ["a", "b", "id"]);
}

#[test]
fn a_key_is_the_primary_one_or_a_unique_one_without_nulls() {
    let key = |table: Table| plan(table, request(&[])).map(|plan| plan.key).map_err(|error| error.to_string());
    let unique = |keys: &[&[&str]]| {
        let keys = keys.iter().map(|key| key.iter().map(|name| (*name).to_owned()).collect()).collect();
        Table { unique_keys: keys, ..table() }
    };
    assert_eq!(key(table()), Ok(vec!["id".to_owned()]));
    let without = |table: Table| Table { primary_key: Vec::new(), ..table };
    assert_eq!(key(without(unique(&[&["a"], &["id"]]))), Ok(vec!["id".to_owned()]));
    let why = "changes of t cannot be watched: it has no primary key, and no unique key whose columns are not null";
    assert_eq!(key(without(unique(&[&["a"], &["id", "b"]]))), Err(why.to_owned()));
    // The primary key does not tell rows apart.
    assert_eq!(key(Table { row_id: vec!["rowid".to_owned()], ..table() }), Err(why.to_owned()));
}

#[test]
fn what_cannot_be_watched_is_refused_with_the_reason() {
    let node = |change: fn(&mut Node)| {
        let mut asked = request(&[]);
        change(&mut asked.read.node);
        plan(table(), asked).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let sort = |node: &mut Node| node.sort = vec![Sort { column: "a".to_owned(), descending: false }];
    assert_eq!(node(sort), "invalid watch: sort is not allowed");
    assert_eq!(node(|node| node.skip = 1), "invalid watch: skip is not allowed");
    assert_eq!(node(|node| node.limit = Some(1)), "invalid watch: limit is not allowed");
    assert_eq!(node(|node| node.shape = Shape::One), "invalid watch: a shape other than rows is not allowed");
    let kind = |kind: TableKind| {
        let refused = plan(Table { kind, ..table() }, request(&[]));
        refused.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(kind(TableKind::View), "changes of t cannot be watched: it is a view");
    assert_eq!(kind(TableKind::Virtual), "changes of t cannot be watched: it is a virtual table");
    let parent = plan(Table { has_children: true, ..table() }, request(&[])).err().map(|error| error.to_string());
    assert!(parent.is_some_and(|why| why.contains("inherit")));
    let count = Field { key: "n".to_owned(), kind: FieldKind::Count };
    let refused = plan(table(), request(&[count])).err().map(|error| error.to_string());
    assert_eq!(refused.as_deref(), Some("invalid watch: n is not a column"));
}
