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
        ["reports_to_row -> employee", "customer => customer", "employee => employee"]
    );
    let employee = schema.table("employee").unwrap();
    let pair = |one: &str, other: &str| vec![(one.to_owned(), other.to_owned())];
    assert_eq!(employee.relations[0].on, pair("reports_to", "employee_id"));
    assert_eq!(employee.relations[2].on, pair("employee_id", "reports_to"));
    assert_eq!(employee.relation("employee_by_reports_to").unwrap().name, "reports_to_row");
    assert_eq!(employee.relation("employee_by_reports_to_2").unwrap().name, "employee");
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
    assert_eq!(relations(&schema, "user"), ["message_of_from => message", "message_of_to => message"]);
}

#[test]
fn a_name_that_is_a_column_makes_way() {
    let schema = Schema::new(vec![
        table("user", "id:int post:text", &["id"], &[]),
        table("post", "id:int owner:int", &["id"], &[("owner", "user", "id")]),
        table("note", "id:int user:text user_id:int", &["id"], &[("user_id", "user", "id")]),
    ]);

    assert_eq!(relations(&schema, "post"), ["user -> user"]);
    assert_eq!(relations(&schema, "user"), ["post_of_owner => post", "note => note"]);
    assert_eq!(relations(&schema, "note"), ["user_row -> user"]);
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
        foreign_database: None,
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
    assert!(schema.table("ticket").unwrap().relations.iter().all(|relation| relation.long_name.is_none()));
}

#[test]
fn a_key_to_what_is_not_in_the_schema_gives_no_relation() {
    let mut lost = table("lost", "id:int a:int", &["id"], &[("a", "gone", "id"), ("a", "user", "gone")]);
    lost.foreign_keys.push(ForeignKey {
        columns: vec!["gone".to_owned()],
        foreign_database: None,
        foreign_table: "user".to_owned(),
        foreign_columns: vec!["id".to_owned()],
    });
    lost.foreign_keys.push(ForeignKey {
        columns: vec!["a".to_owned()],
        foreign_database: None,
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
fn a_long_name_that_is_a_column_gets_a_position() {
    let mut user = table("user", "id:int", &["id"], &[]);
    user.columns.push(column("note_by_a_id:int"));
    user.columns.push(column("note_of_a:int"));
    let schema = Schema::new(vec![
        user,
        table("note", "a_id:int b_id:int", &[], &[("a_id", "user", "id"), ("b_id", "user", "id")]),
    ]);
    assert_eq!(relations(&schema, "user"), ["note_by_a_id_2 => note", "note_of_b => note"]);
}

#[test]
fn a_link_leaves_the_long_name_of_what_it_replaces() {
    let link = Relation {
        name: "reports_to_row".to_owned(),
        long_name: None,
        database: None,
        table: "customer".to_owned(),
        many: true,
        refers: false,
        on: vec![("employee_id".to_owned(), "support_rep_id".to_owned())],
    };
    let mut tables = chinook().into_tables();
    let employee = tables.iter_mut().find(|table| table.name == "employee").unwrap();
    employee.links = vec![link.clone()];
    let replaced = relations(&Schema::new(tables.clone()), "employee");
    let told = ["reports_to_row => customer", "customer => customer", "employee => employee"];
    assert_eq!(replaced, [&told[..], &["employee_by_reports_to -> employee"]].concat());

    // A link of that name has it.
    let employee = tables.iter_mut().find(|table| table.name == "employee").unwrap();
    employee.links.insert(0, Relation { name: "employee_by_reports_to".to_owned(), ..link });
    let replaced = relations(&Schema::new(tables), "employee");
    assert_eq!(replaced, [&told[..], &["employee_by_reports_to => customer"]].concat());
}

#[test]
fn a_link_has_a_long_name_alone() {
    let mut tables = chinook().into_tables();
    let employee = tables.iter_mut().find(|table| table.name == "employee").unwrap();
    employee.links = vec![Relation {
        name: "employee_by_reports_to".to_owned(),
        long_name: None,
        database: None,
        table: "customer".to_owned(),
        many: true,
        refers: false,
        on: vec![("employee_id".to_owned(), "support_rep_id".to_owned())],
    }];

    let schema = Schema::new(tables);

    let employee = schema.table("employee").unwrap();
    assert_eq!(employee.relation("reports_to_row").unwrap().long_name, None);
    assert_eq!(employee.relation("employee_by_reports_to").unwrap().table, "customer");
}

#[test]
fn a_tree_has_children() {
    let schema = Schema::new(vec![
        table("area", "id:int parent:int?", &["id"], &[("parent", "area", "id")]),
        table("Page", "ID:int Parent:int?", &["ID"], &[("Parent", "Page", "ID")]),
        table("post", "id:int reply_to:int?", &["id"], &[("reply_to", "post", "id")]),
        table("part", "id:int parent:int? root:int?", &["id"], &[("parent", "part", "id"), ("root", "part", "id")]),
        table("step", "id:int parent_id:int?", &["id"], &[("parent_id", "step", "id")]),
        table(
            "reply",
            "id:int parent_id:int? root_id:int?",
            &["id"],
            &[("parent_id", "reply", "id"), ("root_id", "reply", "id")],
        ),
        table("staff", "id:int staff_id:int?", &["id"], &[("staff_id", "staff", "id")]),
    ]);

    assert_eq!(relations(&schema, "area"), ["parent_row -> area", "children => area"]);
    assert_eq!(relations(&schema, "Page"), ["Parent_row -> Page", "Children => Page"]);
    assert_eq!(relations(&schema, "post"), ["reply_to_row -> post", "post => post"]);
    let part = ["parent_row -> part", "root_row -> part", "children => part", "part_of_root => part"];
    assert_eq!(relations(&schema, "part"), part);
    // Each name was free before there were alternatives, and stays.
    assert_eq!(relations(&schema, "step"), ["parent -> step", "step => step"]);
    let reply = ["parent -> reply", "root -> reply", "children => reply", "reply_of_root => reply"];
    assert_eq!(relations(&schema, "reply"), reply);
    assert_eq!(relations(&schema, "staff"), ["staff -> staff", "staff_of_staff => staff"]);
}

#[test]
fn a_column_that_is_called_as_its_table_leads_to_a_row() {
    let schema = Schema::new(vec![
        table(
            "artist",
            "id:int area:int? begin_area:int?",
            &["id"],
            &[("area", "area", "id"), ("begin_area", "area", "id")],
        ),
        table("area", "id:int type:int?", &["id"], &[("type", "area_type", "id")]),
        table("area_type", "id:int", &["id"], &[]),
    ]);

    assert_eq!(relations(&schema, "artist"), ["area_row -> area", "begin_area_row -> area"]);
    assert_eq!(
        relations(&schema, "area"),
        ["area_type -> area_type", "artist_of_area => artist", "artist_of_begin_area => artist"]
    );
}

#[test]
fn keys_of_other_kinds_than_id_are_told_apart_by_their_roles() {
    let flight = "no:text origin_code:text target_code:text id_pilot:int id_copilot:int";
    let mut visit = table("visit", "tenant_id:int author_id:int editor_id:int", &[], &[]);
    visit.foreign_keys = ["author_id", "editor_id"]
        .map(|column| ForeignKey {
            columns: vec!["tenant_id".to_owned(), column.to_owned()],
            foreign_database: None,
            foreign_table: "pilot".to_owned(),
            foreign_columns: vec!["tenant_id".to_owned(), "id".to_owned()],
        })
        .to_vec();
    let schema = Schema::new(vec![
        table("airport", "code:text", &["code"], &[]),
        table("pilot", "tenant_id:int id:int", &["tenant_id", "id"], &[]),
        table(
            "flight",
            flight,
            &["no"],
            &[
                ("origin_code", "airport", "code"),
                ("target_code", "airport", "code"),
                ("id_pilot", "pilot", "id"),
                ("id_copilot", "pilot", "id"),
            ],
        ),
        visit,
    ]);

    assert_eq!(
        relations(&schema, "flight"),
        ["origin -> airport", "target -> airport", "pilot_row -> pilot", "copilot -> pilot"]
    );
    assert_eq!(relations(&schema, "airport"), ["flight_of_origin => flight", "flight_of_target => flight"]);
    assert_eq!(relations(&schema, "visit"), ["author -> pilot", "editor -> pilot"]);
    assert_eq!(
        relations(&schema, "pilot"),
        [
            "flight_of_pilot => flight",
            "flight_of_copilot => flight",
            "visit_of_author => visit",
            "visit_of_editor => visit"
        ]
    );
}

#[test]
fn tables_that_refer_to_each_other_tell_the_directions_apart() {
    let schema = Schema::new(vec![
        table("topic", "id:int post_id:int?", &["id"], &[("post_id", "post", "id")]),
        table("post", "id:int topic_id:int", &["id"], &[("topic_id", "topic", "id")]),
    ]);

    assert_eq!(relations(&schema, "topic"), ["post_row -> post", "post_of_topic => post"]);
    assert_eq!(relations(&schema, "post"), ["topic_row -> topic", "topic_of_post => topic"]);
}

#[test]
fn an_alternative_that_something_has_is_given_to_none() {
    let keys = [("parent", "node", "id")];
    let node = |more: &str| table("node", &format!("id:int parent:int? {more}"), &["id"], &keys);
    let children = table("children", "id:int node_id:int", &["id"], &[("node_id", "node", "id")]);

    let schema = Schema::new(vec![node("children:int"), children.clone()]);
    let told = ["parent_row -> node", "node_of_parent => node", "children_of_node => children"];
    assert_eq!(relations(&schema, "node"), told);

    let schema = Schema::new(vec![node("parent_row:int"), children]);
    let told = ["node_by_parent -> node", "node_of_parent => node", "children => children"];
    assert_eq!(relations(&schema, "node"), told);
}

#[test]
fn a_key_that_is_declared_twice_keeps_its_long_names() {
    let keys = [("owner_id", "user", "id"), ("owner_id", "user", "id")];
    let schema = Schema::new(vec![table("user", "id:int", &["id"], &[]), table("pet", "owner_id:int", &[], &keys)]);

    assert_eq!(relations(&schema, "pet"), ["user_by_owner_id -> user", "user_by_owner_id_2 -> user"]);
    assert_eq!(relations(&schema, "user"), ["pet_by_owner_id => pet", "pet_by_owner_id_2 => pet"]);
}

mod property;

#[test]
fn a_path_of_relations_leads_from_table_to_table() {
    let schema = chinook();
    let along = |path: &[&str]| {
        let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
        schema.tables_along((None, "track"), &path).into_iter().map(|(_, table)| table.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(along(&["album", "artist"]), ["album", "artist"]);
    assert_eq!(along(&["album", "track", "album"]), ["album", "track", "album"]);
    // What is unknown ends it.
    assert_eq!(along(&["album", "genre", "track"]), ["album"]);
    assert_eq!(along(&[]), Vec::<String>::new());
    assert!(schema.tables_along((None, "none"), &["album".to_owned()]).is_empty());
}
