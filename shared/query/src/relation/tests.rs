use crate::fixtures::{chinook, column, table};
use crate::{ForeignKey, Relation, Schema};

/// Relations of a table as `name -> table` for one row and `name => table` for many.
fn relations(schema: &Schema, table: &str) -> Vec<String> {
    let arrow = |many| if many { "=>" } else { "->" };
    let table = schema.table(table).unwrap();
    table.relations.iter().map(|to| format!("{} {} {}", to.name, arrow(to.many), to.table)).collect()
}

#[test]
fn relations_of_chinook_are_named_after_columns_and_tables() {
    let schema = chinook();

    assert_eq!(relations(&schema, "album"), ["artist -> artist", "track => track"]);
    assert_eq!(relations(&schema, "artist"), ["album => album"]);
    assert_eq!(relations(&schema, "customer"), ["support_rep -> employee", "invoice => invoice"]);
    assert_eq!(relations(&schema, "genre"), ["track => track"]);
    assert_eq!(relations(&schema, "invoice"), ["customer -> customer", "invoice_line => invoice_line"]);
    assert_eq!(relations(&schema, "invoice_line"), ["invoice -> invoice", "track -> track"]);
    assert_eq!(relations(&schema, "media_type"), ["track => track"]);
    assert_eq!(relations(&schema, "playlist"), ["playlist_track => playlist_track"]);
    assert_eq!(relations(&schema, "playlist_track"), ["playlist -> playlist", "track -> track"]);
    assert_eq!(
        relations(&schema, "track"),
        [
            "album -> album",
            "genre -> genre",
            "media_type -> media_type",
            "invoice_line => invoice_line",
            "playlist_track => playlist_track"
        ]
    );
}

#[test]
fn a_table_that_refers_to_itself_gets_both_directions() {
    let schema = chinook();

    assert_eq!(
        relations(&schema, "employee"),
        ["employee_by_reports_to -> employee", "customer => customer", "employee_by_reports_to_2 => employee"]
    );
    let employee = schema.table("employee").unwrap();
    let pair = |one: &str, other: &str| vec![(one.to_owned(), other.to_owned())];
    assert_eq!(employee.relations[0].on, pair("reports_to", "employee_id"));
    assert_eq!(employee.relations[2].on, pair("employee_id", "reports_to"));
}

#[test]
fn no_relation_has_the_name_of_a_column_or_of_another_relation() {
    for table in chinook().tables() {
        let mut names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        names.extend(table.relations.iter().map(|relation| relation.name.as_str()));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{}", table.name);
    }
}

#[test]
fn two_keys_to_one_table_are_told_apart_on_its_side() {
    let schema = Schema::new(vec![
        table("user", "id:int", &["id"], &[]),
        table("message", "id:int from_id:int toId:int", &["id"], &[("from_id", "user", "id"), ("toId", "user", "id")]),
    ]);

    assert_eq!(relations(&schema, "message"), ["from -> user", "to -> user"]);
    assert_eq!(relations(&schema, "user"), ["message_by_from_id => message", "message_by_toId => message"]);
}

#[test]
fn a_name_that_is_a_column_goes_to_the_table_and_then_to_its_columns() {
    let schema = Schema::new(vec![
        table("user", "id:int post:text", &["id"], &[]),
        table("post", "id:int owner:int", &["id"], &[("owner", "user", "id")]),
        table("note", "id:int user:text user_id:int", &["id"], &[("user_id", "user", "id")]),
    ]);

    assert_eq!(relations(&schema, "post"), ["user -> user"]);
    assert_eq!(relations(&schema, "user"), ["post_by_owner => post", "note => note"]);
    assert_eq!(relations(&schema, "note"), ["user_by_user_id -> user"]);
}

#[test]
fn what_is_left_of_a_column_without_its_suffix_is_not_empty() {
    let schema = Schema::new(vec![
        table("user", "id:int", &["id"], &[]),
        table("a", "_id:int", &[], &[("_id", "user", "id")]),
        table("b", "ID:int", &[], &[("ID", "user", "id")]),
        table("c", "USER_ID:int", &[], &[("USER_ID", "user", "id")]),
    ]);

    assert_eq!(relations(&schema, "a"), ["user -> user"]);
    assert_eq!(relations(&schema, "b"), ["user -> user"]);
    assert_eq!(relations(&schema, "c"), ["USER -> user"]);
}

#[test]
fn a_unique_key_leads_back_to_one_row() {
    let mut profile = table("profile", "id:int user_id:int", &["id"], &[("user_id", "user", "id")]);
    profile.unique_keys = vec![vec!["user_id".to_owned()]];
    let schema = Schema::new(vec![
        table("user", "id:int", &["id"], &[]),
        profile,
        table("login", "user_id:int", &["user_id"], &[("user_id", "user", "id")]),
        table("role", "user_id:int name:text", &["user_id", "name"], &[("user_id", "user", "id")]),
    ]);

    assert_eq!(relations(&schema, "user"), ["profile -> profile", "login -> login", "role => role"]);
}

#[test]
fn a_key_of_several_columns_is_named_after_the_table() {
    let key = |columns: [&str; 2]| ForeignKey {
        columns: columns.map(str::to_owned).to_vec(),
        foreign_table: "seat".to_owned(),
        foreign_columns: vec!["row".to_owned(), "number".to_owned()],
    };
    let mut ticket = table("ticket", "id:int r:int n:int r2:int n2:int", &["id"], &[]);
    ticket.foreign_keys = vec![key(["r", "n"])];
    let seat = table("seat", "row:int number:int", &["row", "number"], &[]);
    let schema = Schema::new(vec![seat.clone(), ticket.clone()]);
    assert_eq!(relations(&schema, "ticket"), ["seat -> seat"]);
    assert_eq!(schema.table("ticket").unwrap().relations[0].on.len(), 2);

    ticket.foreign_keys.push(key(["r2", "n2"]));
    let schema = Schema::new(vec![seat, ticket]);
    assert_eq!(relations(&schema, "ticket"), ["seat_by_r_n -> seat", "seat_by_r2_n2 -> seat"]);
}

#[test]
fn a_key_to_what_is_not_in_the_schema_gives_no_relation() {
    let mut lost = table("lost", "id:int a:int", &["id"], &[("a", "gone", "id"), ("a", "user", "gone")]);
    lost.foreign_keys.push(ForeignKey {
        columns: vec!["gone".to_owned()],
        foreign_table: "user".to_owned(),
        foreign_columns: vec!["id".to_owned()],
    });
    lost.foreign_keys.push(ForeignKey {
        columns: vec!["a".to_owned()],
        foreign_table: "user".to_owned(),
        foreign_columns: Vec::new(),
    });
    let schema = Schema::new(vec![table("user", "id:int", &["id"], &[]), lost]);

    assert!(relations(&schema, "lost").is_empty());
    assert!(relations(&schema, "user").is_empty());
}

#[test]
fn relations_that_were_given_are_replaced() {
    let schema = chinook();
    let again = Schema::new(schema.tables().to_vec());
    assert_eq!(again, schema);
}

#[test]
fn a_fallback_that_is_a_column_gets_a_position() {
    let mut user = table("user", "id:int", &["id"], &[]);
    user.columns.push(column("note_by_a_id:int"));
    let schema = Schema::new(vec![
        user,
        table("note", "a_id:int b_id:int", &[], &[("a_id", "user", "id"), ("b_id", "user", "id")]),
    ]);
    assert_eq!(relations(&schema, "user"), ["note_by_a_id_2 => note", "note_by_b_id => note"]);
}

#[test]
fn a_link_takes_the_place_of_a_relation_or_the_last() {
    let link = |name: &str, table: &str, many: bool, on: (&str, &str)| Relation {
        name: name.to_owned(),
        table: table.to_owned(),
        many,
        refers: true,
        on: vec![(on.0.to_owned(), on.1.to_owned())],
    };
    let mut tables = chinook().into_tables();
    let album = tables.iter_mut().find(|table| table.name == "album").unwrap();
    album.links = vec![
        link("homonym", "track", true, ("title", "name")),
        link("artist", "customer", false, ("artist_id", "customer_id")),
        link("title", "track", true, ("title", "name")),
        link("lost", "nowhere", true, ("title", "name")),
        link("lost_here", "track", true, ("titel", "name")),
        link("lost_there", "track", true, ("title", "nmae")),
    ];

    let schema = Schema::new(tables);

    assert_eq!(relations(&schema, "album"), ["artist -> customer", "track => track", "homonym => track"]);
    assert_eq!(relations(&schema, "artist"), ["album => album"]);
    assert_eq!(relations(&Schema::new(schema.clone().into_tables()), "album"), relations(&schema, "album"));
}
