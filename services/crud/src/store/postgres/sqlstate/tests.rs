//! What a server says becomes the error that callers see.

use tokio::io::AsyncWriteExt;
use tokio_postgres::{Config, NoTls};

use super::*;

/// What a server says of an error: letters of PostgreSQL's protocol ("Error and Notice Message Fields"), and texts.
type Fields<'f> = &'f [(char, &'f str)];

const RAISED: (char, &str) = ('R', "exec_stmt_raise");
/// The context of an error inside a function of the database.
const CONTEXT: &str = "JSON data, line 1: secret\nPL/pgSQL function \"g h\"() line 1 at RETURN\n\
    PL/pgSQL function f() line 3 at SQL statement\nSQL statement \"UPDATE t SET a = 'secret'\"";
const WITHIN: (char, &str) = ('W', CONTEXT);

/// The error of a server that says `fields`: only the driver can make one.
async fn error(fields: Fields<'_>) -> DbError {
    let mut all = vec![('S', "ERROR"), ('V', "ERROR"), ('C', "XX000"), ('M', "said")];
    for (letter, text) in fields {
        all.retain(|(known, _)| known != letter);
        all.push((*letter, text));
    }
    let mut body: Vec<u8> = all.iter().flat_map(|(letter, text)| format!("{letter}{text}\0").into_bytes()).collect();
    body.push(0);
    let length = u32::try_from(4 + body.len()).unwrap();
    let message = [b"E".as_slice(), &length.to_be_bytes(), &body].concat();
    let (near, mut far) = tokio::io::duplex(4096);
    far.write_all(&message).await.unwrap();
    let Err(error) = Config::new().user("test").connect_raw(near, NoTls).await else { panic!("it refuses") };
    error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).clone()
}

async fn of_code(code: &str) -> DbError {
    error(&[('C', code)]).await
}

/// The error of `fields` as callers see it, with what goes to the log after a bar.
async fn told(fields: Fields<'_>) -> (Option<Code>, String) {
    let key = ("users".to_owned(), "users_name".to_owned());
    let keys = Keys::from([(key, vec!["first".to_owned(), "last".to_owned()])]);
    let refused = refused(&error(fields).await, None, "main", &keys);
    let code = match &refused {
        Error::Refused { code, .. } => Some(*code),
        _ => None,
    };
    let cause = refused.cause().map(|cause| format!(" | {cause}")).unwrap_or_default();
    (code, format!("{refused}{cause}"))
}

async fn invalid_kind(fields: Fields<'_>) -> Option<InvalidKind> {
    match refused(&error(fields).await, None, "main", &Keys::new()) {
        Error::InvalidValue(invalid) => Some(invalid.kind),
        _ => None,
    }
}

#[tokio::test]
async fn connections_end_with_errors_that_say_so() {
    // Severity, code; whether the connection ends, the session does, and a server behind cannot be reached.
    for (severity, code, ends, is_session_over, is_unreachable) in [
        ("FATAL", "57P01", true, true, false),
        ("FATAL", "57P02", true, true, false),
        ("FATAL", "08006", true, true, false),
        ("PANIC", "57P01", true, true, false),
        ("FATAL", "28P01", false, true, false),
        ("PANIC", "XX000", false, true, false),
        ("ERROR", "57P01", false, false, false),
        ("ERROR", "08P01", true, false, false),
        ("ERROR", "08006", false, false, true),
        ("ERROR", "08001", false, false, true),
        ("ERROR", "HV00N", false, false, true),
        ("ERROR", "HV000", false, false, false),
        ("ERROR", "57014", false, false, false),
        ("ERROR", "23505", false, false, false),
        ("WARNING", "01000", false, false, false),
    ] {
        let error = error(&[('V', severity), ('C', code)]).await;
        let found = (ends_connection(&error), is_fatal(&error), is_behind(&error));
        assert_eq!(found, (ends, is_session_over, is_unreachable), "{severity} {code}");
    }
}

#[tokio::test]
async fn statements_older_than_their_schema_are_told_from_the_code_of_the_database() {
    for code in ["26000", "42703", "42P01", "42704", "42804", "3F000"] {
        assert!(is_stale(&of_code(code).await), "{code}");
        assert!(!is_stale(&error(&[('C', code), RAISED]).await), "{code} of a RAISE");
        assert!(!is_stale(&error(&[('C', code), WITHIN]).await), "{code} in a function");
    }
    for code in ["42883", "42601", "23505", "57014", "0A000"] {
        assert!(!is_stale(&of_code(code).await), "{code}");
    }
    let plan = ('R', "RevalidateCachedQuery");
    for (fields, expected) in [
        ([('C', "0A000"), plan], true),
        ([('C', "0A000"), ('M', "cached plan must not change result type")], true),
        ([('C', "0A000"), ('R', "transformFromClause")], false),
        ([('C', "XX000"), plan], false),
    ] {
        assert_eq!(is_stale(&error(&fields).await), expected, "{fields:?}");
    }
}

#[tokio::test]
async fn a_placeholder_is_named_by_the_context() {
    for (context, expected) in [
        ("unnamed portal parameter $1", Some(0)),
        ("unnamed portal parameter $12 = '...'", Some(11)),
        ("JSON data, line 1: x\nParameter $3 des unbenannten Portals", Some(2)),
        ("portal \"p\" parameter $1", None),
        ("SQL function f($1)", None),
        ("unnamed portal parameter $0", None),
        ("unnamed portal parameter $", None),
        ("PL/pgSQL function f() line 3 at RAISE", None),
        ("", None),
    ] {
        assert_eq!(placeholder(&error(&[('W', context)]).await), expected, "{context}");
    }
    assert_eq!(placeholder(&of_code("22P02").await), None);
}

#[tokio::test]
async fn a_raise_has_its_text_and_the_code_of_its_sqlstate() {
    for (sqlstate, code) in [
        ("P0001", Code::Constraint),
        ("42501", Code::Denied),
        ("23505", Code::Conflict),
        ("40001", Code::Unavailable),
        ("40P01", Code::Unavailable),
        ("55P03", Code::Unavailable),
        ("26000", Code::Constraint),
        ("22012", Code::Constraint),
        ("PT402", Code::Constraint),
    ] {
        let found = told(&[('C', sqlstate), ('M', "too late"), RAISED, WITHIN]).await;
        assert_eq!(found, (Some(code), "too late".to_owned()), "{sqlstate}");
    }
}

#[tokio::test]
async fn an_error_inside_the_database_is_not_that_of_the_request() {
    const PLACE: &str = "in PL/pgSQL function f() line 3 at SQL statement";
    const FAILED: &str = "a trigger or function of the database failed on these values";
    let place = |said: &str| format!("{said}, {PLACE}");
    for (sqlstate, code, text) in [
        ("P0002", Some(Code::Constraint), "said".to_owned()),
        ("P0003", Some(Code::Constraint), "said".to_owned()),
        ("22012", Some(Code::Constraint), place(&format!("{FAILED} | 22012 in the server"))),
        ("22P02", Some(Code::Constraint), place(&format!("{FAILED} | 22P02 in the server"))),
        ("42601", None, place("the database failed | said (42601)")),
        ("42P01", None, place("the database failed | said (42P01)")),
        (
            "42501",
            Some(Code::Denied),
            "not allowed: the database refuses the operation to its user | said (42501)".to_owned(),
        ),
        ("26000", None, place("the database failed | said (26000)")),
        ("XX000", None, place("the database failed | said (XX000)")),
        ("23514", None, "a check does not hold".to_owned()),
        ("PT402", Some(Code::Constraint), "said".to_owned()),
    ] {
        assert_eq!(told(&[('C', sqlstate), WITHIN]).await, (code, text), "{sqlstate}");
    }
    // An error that has no context but a position in a statement of the database's own.
    let found = told(&[('C', "42601"), ('p', "7"), ('q', "SELEC 1")]).await;
    let text = "the database failed | said (42601), in a trigger or function of the database";
    assert_eq!(found, (None, text.to_owned()));
    // The context of a value of the request is none of a function.
    let found = invalid_kind(&[('C', "22P02"), ('W', "unnamed portal parameter $1 = '...'")]).await;
    assert_eq!(found, Some(InvalidKind::Malformed));
    assert_eq!(invalid_kind(&[('C', "22P02"), ('W', "")]).await, Some(InvalidKind::Malformed));
}

#[tokio::test]
async fn values_that_a_statement_does_not_take_are_told_by_kind() {
    for (code, kind) in [
        ("42883", InvalidKind::Incomparable),
        ("22001", InvalidKind::TooLong),
        ("22003", InvalidKind::OutOfRange),
        ("22008", InvalidKind::OutOfRange),
        ("22012", InvalidKind::Computation),
        ("22021", InvalidKind::Characters),
        ("22P05", InvalidKind::Characters),
        ("22P02", InvalidKind::Malformed),
        ("22007", InvalidKind::Malformed),
    ] {
        assert_eq!(invalid_kind(&[('C', code)]).await, Some(kind), "{code}");
    }
    for code in ["23505", "42501", "54000", "57014", "XX000"] {
        assert_eq!(invalid_kind(&[('C', code)]).await, None, "{code}");
    }
    let fields = [('C', "22P02"), ('M', "invalid input syntax for type integer: \"secret\""), ('R', "pg_strtoint32")];
    let value = Some(Bind::from(query::Typed::Text("secret".to_owned())));
    let refused = refused(&error(&fields).await, value.clone(), "main", &Keys::new());
    let (said, cause) = (fields[1].1.into(), "22P02 in pg_strtoint32".to_owned());
    assert_eq!(
        refused,
        Error::InvalidValue(InvalidValue { kind: InvalidKind::Malformed, value, column: None, said, cause })
    );
}

#[tokio::test]
async fn constraints_that_do_not_hold_are_named() {
    let of_user: [(char, &str); 2] = [('t', "users"), ('n', "users_name")];
    let with = |code: &'static str, more: &[(char, &'static str)]| [&[('C', code)], more].concat();
    let detail = ('D', "Key (email, \"a b\")=(x, y) already exists.");
    for (fields, text) in [
        (with("23505", &of_user), "a row with the same first, last exists"),
        (with("23505", &[('t', "other"), ('n', "other_key"), detail]), "a row with the same email, a b exists"),
        (with("23505", &[('t', "other"), ('n', "other_key")]), "a row with the same other_key exists"),
        (with("23502", &[('c', "name")]), "column name must not be null"),
        (with("23502", &[]), "a column must not be null"),
        (with("23503", &of_user), "foreign key users_name of table users does not hold"),
        (with("23503", &[('n', "users_name")]), "foreign key users_name does not hold"),
        (with("23503", &[('t', "users")]), "a foreign key does not hold"),
        (with("23514", &of_user), "check users_name of table users does not hold"),
        (with("23P01", &of_user), "exclusion constraint users_name of table users does not hold"),
        (with("23001", &of_user), "constraint users_name of table users does not hold"),
        (with("44000", &of_user), "the row would not be in the view it is written through"),
        (with("54000", &[]), "a value is too large for its column or an index of it"),
    ] {
        assert_eq!(told(&fields).await, (None, text.to_owned()), "{fields:?}");
    }
}

#[tokio::test]
async fn refusals_have_the_code_of_what_callers_can_do() {
    const WITHOUT_ROWS: &str = "returning is not possible here, because a rule of the database writes elsewhere";
    const UNSUPPORTED: &str = "the database does not support the operation on this table";
    const TRANSACTION: &str = "the database is busy: another transaction was in the way; try again";
    const LOCK: &str = "the database is busy: a lock was not free in time; try again";
    const LONG: &str = "the database ended the statement, which took longer than it allows";
    const RESOURCES: &str = "the database is out of resources; try again";
    let returning = ('M', "cannot perform INSERT RETURNING on relation \"a\"");
    let rewritten = ('R', "RewriteQuery");
    for (fields, code, text) in [
        (vec![('C', "0A000"), returning, rewritten], Code::BadRequest, WITHOUT_ROWS),
        (vec![('C', "0A000"), returning], Code::BadRequest, UNSUPPORTED),
        (vec![('C', "0A000"), rewritten], Code::BadRequest, UNSUPPORTED),
        (vec![('C', "42501")], Code::Denied, "not allowed: the database refuses the operation to its user"),
        (vec![('C', "25006")], Code::Denied, "not allowed: the database takes no writes, it is read-only"),
        (vec![('C', "57014")], Code::Deadline, LONG),
        (vec![('C', "25P03")], Code::Deadline, LONG),
        (vec![('C', "25P04")], Code::Deadline, LONG),
        (vec![('C', "40001")], Code::Unavailable, TRANSACTION),
        (vec![('C', "40P01")], Code::Unavailable, TRANSACTION),
        (vec![('C', "55P03")], Code::Unavailable, LOCK),
        (vec![('C', "55006")], Code::Unavailable, LOCK),
        (vec![('C', "53100")], Code::Unavailable, "the disk of the database is full"),
        (vec![('C', "53200")], Code::Unavailable, RESOURCES),
        (vec![('C', "57P01")], Code::Unavailable, RESOURCES),
        (vec![('C', "08006")], Code::Unavailable, "a server behind the database cannot be reached"),
    ] {
        let [(_, sqlstate), ..] = fields[..] else { panic!("each has a code") };
        let said = fields.iter().find(|(letter, _)| *letter == 'M').map_or("said", |(_, said)| said);
        let expected = (Some(code), format!("{text} | {said} ({sqlstate})"));
        assert_eq!(told(&fields).await, expected, "{fields:?}");
    }
    let found = told(&[('C', "42501"), ('R', "ExecWithCheckOptions")]).await;
    let text = "not allowed: the row-level security of the database refuses the row";
    assert_eq!(found, (Some(Code::Denied), text.to_owned()));
}

#[tokio::test]
async fn what_has_no_code_of_its_own_is_the_failure_of_the_database() {
    for (fields, expected) in [
        (vec![('C', "26000")], Error::StaleStatement("said (26000)".to_owned())),
        (vec![('C', "0A000"), ('R', "RevalidateCachedQuery")], Error::StaleStatement("said (0A000)".to_owned())),
        (vec![('C', "42P01")], Error::SchemaMoved("said (42P01)".to_owned())),
        (vec![('C', "54001")], Error::TooComplex),
        (
            vec![('C', "55000"), ('R', "ExecOpenScanRelation"), ('M', "»alt« ist leer")],
            Error::Unpopulated("alt".to_owned()),
        ),
        (
            vec![('C', "55000"), ('M', "materialized view \"a\" has not been populated")],
            Error::Unpopulated("a".to_owned()),
        ),
        (vec![('C', "55000")], Error::Database("said (55000)".to_owned())),
        (vec![('C', "57P01"), ('V', "FATAL")], Error::Unavailable("main: said (57P01)".to_owned())),
        (vec![('C', "08P01")], Error::Unavailable("main: said (08P01)".to_owned())),
        (vec![('C', "UE001")], Error::raised(Code::Constraint, "said")),
        (vec![('C', "42601")], Error::Database("said (42601)".to_owned())),
        (vec![('C', "XX000")], Error::Database("said (XX000)".to_owned())),
    ] {
        assert_eq!(refused(&error(&fields).await, None, "main", &Keys::new()), expected, "{fields:?}");
    }
}

#[test]
fn details_name_columns_in_any_language() {
    let columns = detail_columns("Key (a, b)=(1, (2)) already exists.").unwrap();
    assert_eq!(columns, ["a", "b"]);
    assert_eq!(detail_columns("Schlüssel »(name)=(x)« existiert bereits.").unwrap(), ["name"]);
    assert_eq!(detail_columns("Key (lower(email))=(x) already exists.").unwrap(), ["lower(email)"]);
    assert_eq!(detail_columns("something else"), None);
}

#[test]
fn names_are_quoted_in_any_language() {
    assert_eq!(quoted("materialized view \"stale\" has not been populated"), "stale");
    assert_eq!(quoted("materialisierte Sicht »alt« wurde noch nicht befüllt"), "alt");
    assert_eq!(quoted("nothing quoted"), "nothing quoted");
}

#[test]
fn codes_of_applications_are_told_from_those_of_the_server() {
    for code in ["45000", "PT402", "P0001", "38000", "UE001", "99999"] {
        assert!(is_of_application(code), "{code}");
    }
    for code in ["42501", "23505", "22P02", "XX000", "P0004", "57014", "HV000"] {
        assert!(!is_of_application(code), "{code}");
    }
}
