use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::Fault;
use proto::{
    auth::{AuthorizeFilesRequest, FileAccess, FileSignature, SignFileRequest, WireFileOperation as FileOperation},
    grant,
};
use query::file::FileTerms;
use serde_json::{Value as Json, json};

use super::{DENIED, SIGNATURE_SECONDS};
use crate::{
    Service,
    cases::{developing, service, shop, snapshot, token},
    grant::GRANT_LIFETIME_MS,
};

/// A moment that is no whole second.
const NOW_MS: u64 = 1_900_000_000_123;
const NOW_S: i64 = 1_900_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(NOW_MS)
}

/// Resources with a bucket `files` that has these rules.
fn bucket(rules: Json) -> mesh::resources::Snapshot {
    let [project, database, table] = shop(json!({}));
    let meta = json!({"project": "shop", "id": "files"});
    snapshot(&[project, database, table, json!({"kind": "bucket", "meta": meta, "spec": {"rules": rules}})])
}

fn access(operation: FileOperation, path: &str) -> FileAccess {
    let (bucket, path) = ("files".to_owned(), Some(path.to_owned()));
    let no_size = operation != FileOperation::Create;
    FileAccess { bucket, operation: operation.into(), path, no_size, ..FileAccess::default() }
}

fn read(path: &str) -> FileAccess {
    access(FileOperation::Read, path)
}

fn create(path: &str, size: Option<u64>) -> FileAccess {
    FileAccess { size, ..access(FileOperation::Create, path) }
}

fn request(token: &str, accesses: Vec<FileAccess>) -> AuthorizeFilesRequest {
    let (project, token) = ("shop".to_owned(), token.to_owned());
    AuthorizeFilesRequest { project, token, accesses, ..AuthorizeFilesRequest::default() }
}

/// Terms of the granted access, `None` where it is not granted, and whether they hold for all below.
fn decided(service: &Service, request: AuthorizeFilesRequest) -> Result<Vec<(Option<FileTerms>, bool)>, String> {
    let response = service.authorize_files(request, now()).map_err(|error| Fault::from(error).message)?;
    let terms = |grant| grant::pair(b"mesh").1.file_terms(grant).unwrap();
    Ok(response.verdicts.into_iter().map(|verdict| (verdict.grant.map(terms), verdict.covers)).collect())
}

/// The terms of the only access.
fn granted(service: &Service, token: &str, access: FileAccess) -> Result<FileTerms, String> {
    let mut verdicts = decided(service, request(token, vec![access]))?;
    Ok(verdicts.remove(0).0.expect("a denial is an error"))
}

fn matching(f1: &str, f2: &str) -> Json {
    json!({"rule": "match", "type": "string", "eval": "==", "f1": f1, "f2": f2})
}

fn ann() -> String {
    token(&json!({"id": "ann"}))
}

#[test]
fn a_grant_is_for_what_was_asked_and_ends() {
    let service = service(&bucket(json!([{"prefix": "/", "create": {"rule": "allow"}}])));
    let terms = granted(&service, "", create("a/b.txt", Some(7))).unwrap();
    assert_eq!((terms.project.as_str(), terms.bucket.as_str()), ("shop", "files"));
    assert_eq!(terms.path.map(|path| path.to_string()).as_deref(), Some("/a/b.txt"));
    assert_eq!((terms.size, terms.is_provisional), (Some(7), false));
    assert_eq!(terms.expires_ms, NOW_MS as i64 + GRANT_LIFETIME_MS);
}

#[test]
fn a_grant_is_provisional_while_path_or_size_are_unknown() {
    let service = service(&bucket(json!([{"prefix": "/", "create": {"rule": "allow"}}])));
    let nowhere = |size| FileAccess { path: None, ..create("", size) };
    let folder = FileAccess { no_size: true, ..create("folder", None) };
    for (access, is_provisional) in [
        (create("a", Some(0)), false),
        (create("a", None), true),
        (nowhere(Some(1)), true),
        (nowhere(None), true),
        (folder, false),
    ] {
        let terms = granted(&service, "", access.clone()).unwrap();
        assert_eq!((terms.is_provisional, terms.size), (is_provisional, access.size), "{access:?}");
    }
}

#[test]
fn a_size_that_is_unknown_may_be_any_and_one_that_is_known_is_looked_at() {
    let small = json!({"rule": "match", "type": "number", "eval": "<", "f1": "args.size", "f2": 10, "anonymous": true});
    let service = service(&bucket(json!([{"prefix": "/", "create": small}])));
    assert!(granted(&service, "", create("a", Some(9))).is_ok());
    assert!(granted(&service, "", create("a", None)).is_ok());
    assert!(granted(&service, &ann(), create("a", Some(10))).is_err());
    let folder = FileAccess { no_size: true, ..create("a", None) };
    assert!(granted(&service, &ann(), folder).is_err(), "a folder has no size");
}

#[test]
fn a_type_that_is_not_declared_is_unknown_until_there_is_a_name() {
    let service = service(&bucket(json!([{"prefix": "/", "create": matching("args.contentType", "image/png")}])));
    for (path, content_type, is_granted) in [
        (None, "", true),
        (None, "image/png", true),
        (None, "text/plain", false),
        (Some("a"), "", false),
        (Some("a"), "image/png", true),
    ] {
        let (path, content_type) = (path.map(str::to_owned), content_type.to_owned());
        let access = FileAccess { path, content_type, ..create("", None) };
        assert_eq!(granted(&service, &ann(), access.clone()).is_ok(), is_granted, "{access:?}");
    }
}

#[test]
fn denials_are_told_one_by_one_where_that_is_asked_for() {
    let own = matching("args.params.user", "args.auth.id");
    let service = service(&bucket(json!([{"prefix": "/:user", "read": own}])));
    let accesses = vec![read("bob/a"), read("ann/a")];
    let each = AuthorizeFilesRequest { each: true, ..request(&ann(), accesses.clone()) };
    let found: Vec<bool> = decided(&service, each).unwrap().iter().map(|(terms, _)| terms.is_some()).collect();
    assert_eq!(found, [false, true]);
    assert_eq!(decided(&service, request(&ann(), accesses)).unwrap_err(), DENIED);
}

#[test]
fn a_stranger_is_asked_for_a_token_where_one_helps() {
    let public = |rule: Json| {
        let mut rule = rule;
        rule["anonymous"] = json!(true);
        rule
    };
    let name = || matching("args.name", "open");
    let service = service(&bucket(json!([
        {"prefix": "/named", "read": name()},
        {"prefix": "/public", "read": public(name())},
        {"prefix": "/closed", "read": {"rule": "deny"}},
    ])));
    let missing = "a token is needed, and none was sent";
    for (path, stranger, known) in [
        ("named/open", Err(missing), Ok(())),
        ("named/x", Err(missing), Err(DENIED)),
        ("public/open", Ok(()), Ok(())),
        ("public/x", Err(missing), Err(DENIED)),
        ("closed/open", Err(DENIED), Err(DENIED)),
        ("elsewhere", Err(DENIED), Err(DENIED)),
    ] {
        for (token, expected) in [("", stranger), (&*ann(), known)] {
            let found = granted(&service, token, read(path)).map(|_| ());
            assert_eq!(found, expected.map_err(str::to_owned), "{path} {token:?}");
        }
    }
}

#[test]
fn a_path_that_is_unknown_is_granted_where_some_path_may_be() {
    let nowhere = || FileAccess { path: None, ..create("", Some(1)) };
    let staff = matching("args.auth.role", "staff");
    let service = service(&bucket(json!([
        {"prefix": "/closed", "create": {"rule": "deny"}},
        {"prefix": "/", "create": staff},
    ])));
    assert!(granted(&service, &token(&json!({"role": "staff"})), nowhere()).is_ok());
    assert_eq!(granted(&service, &ann(), nowhere()).unwrap_err(), DENIED);
    assert_eq!(granted(&service, "", nowhere()).unwrap_err(), "a token is needed, and none was sent");
}

#[test]
fn a_rule_of_files_sees_the_token_and_the_metadata() {
    let rules = json!([
        {"prefix": "/token", "read": matching("args.token", &ann())},
        {"prefix": "/meta", "create": matching("args.meta.kind", "photo")},
    ]);
    let service = service(&bucket(rules));
    assert!(granted(&service, &ann(), read("token/a")).is_ok());
    assert_eq!(granted(&service, &token(&json!({"id": "bob"})), read("token/a")).unwrap_err(), DENIED);
    for (meta, is_granted) in [(r#"{"kind": "photo"}"#, true), (r#"{"kind": "text"}"#, false), ("", false)] {
        let access = FileAccess { meta: meta.to_owned(), ..create("meta/a", Some(1)) };
        assert_eq!(granted(&service, &ann(), access).is_ok(), is_granted, "{meta}");
    }
    let access = FileAccess { meta: "[]".to_owned(), ..create("meta/a", Some(1)) };
    assert_eq!(granted(&service, &ann(), access).unwrap_err(), "invalid meta: expected object, found array");
}

#[test]
fn a_refusal_in_development_names_the_rule_and_what_it_sees() {
    let named = matching("args.name", "open");
    let service = developing(&bucket(json!([{"prefix": "/named", "read": named}, {"prefix": "/", "read": null}])));
    let refused = granted(&service, &ann(), read("named/x")).unwrap_err();
    assert!(refused.starts_with(&format!("{DENIED}; inline:")), "{refused}");
    assert!(
        refused.ends_with(": spec.rules.0.read: spec.rules.0.read wants args.name == \"open\" (args.name is \"x\")"),
        "{refused}"
    );
    let stranger = granted(&service, "", read("named/open")).unwrap_err();
    assert!(stranger.ends_with("; `perigee token shop '{\"id\":1}' --dir there` prints a token"), "{stranger}");
    let none = granted(&service, &ann(), read("other/x")).unwrap_err();
    assert!(
        none.contains("the most specific prefix of /other/x among the rules of bucket files has none for read"),
        "{none}"
    );
}

fn sign(service: &Service, token: &str, access: FileAccess, seconds: u32) -> Result<FileSignature, String> {
    let (project, token) = ("shop".to_owned(), token.to_owned());
    let request = SignFileRequest { project, token, access: Some(access), seconds };
    let response = service.sign_file(request, now()).map_err(|error| Fault::from(error).message)?;
    Ok(response.signature.unwrap())
}

/// The terms that a signed address has at a second.
fn opened(service: &Service, access: FileAccess, signed: &FileSignature, second: i64) -> Result<FileTerms, String> {
    let request = AuthorizeFilesRequest { signature: Some(signed.clone()), ..request("", vec![access]) };
    let at = UNIX_EPOCH + Duration::from_secs(second.unsigned_abs());
    let mut response = service.authorize_files(request, at).map_err(|error| Fault::from(error).message)?;
    Ok(grant::pair(b"mesh").1.file_terms(response.verdicts.remove(0).grant.unwrap()).unwrap())
}

#[test]
fn a_signed_address_is_good_for_its_file_until_it_expires() {
    let service = service(&bucket(json!([{"prefix": "/", "read": {"rule": "authenticated"}}])));
    let signed = sign(&service, &ann(), read("a.txt"), 60).unwrap();
    assert_eq!(signed.expires_s, NOW_S + 60);
    let terms = opened(&service, read("a.txt"), &signed, NOW_S + 59).unwrap();
    assert_eq!(terms.path.map(|path| path.to_string()).as_deref(), Some("/a.txt"));
    assert_eq!(opened(&service, read("a.txt"), &signed, NOW_S + 60).unwrap_err(), "the address has expired");
    let invalid = "the signature of the address is invalid";
    let other = FileAccess { bucket: "others".to_owned(), ..read("a.txt") };
    for access in [read("b.txt"), read("a.txt/b"), access(FileOperation::Delete, "a.txt"), other] {
        assert_eq!(opened(&service, access.clone(), &signed, NOW_S).unwrap_err(), invalid, "{access:?}");
    }
    let later = FileSignature { expires_s: signed.expires_s + 1, ..signed.clone() };
    assert_eq!(opened(&service, read("a.txt"), &later, NOW_S).unwrap_err(), invalid);
    let none = FileSignature { signature: "~".to_owned(), ..signed };
    assert_eq!(opened(&service, read("a.txt"), &none, NOW_S).unwrap_err(), invalid);
}

#[test]
fn an_address_is_signed_for_who_may_use_it_and_for_a_week_at_most() {
    let service = service(&bucket(json!([{"prefix": "/", "read": {"rule": "authenticated"}}])));
    assert_eq!(sign(&service, "", read("a"), 60).unwrap_err(), "a token is needed, and none was sent");
    for (seconds, is_signed) in [(0, false), (1, true), (SIGNATURE_SECONDS, true), (SIGNATURE_SECONDS + 1, false)] {
        let signed = sign(&service, &ann(), read("a"), seconds);
        let told = |error: &String| error.starts_with("invalid expires: expected 1 to 604800 seconds");
        assert_eq!(signed.as_ref().err().map(told), if is_signed { None } else { Some(true) }, "{seconds}");
    }
}

#[test]
fn an_upload_is_signed_where_the_rule_does_not_look_at_what_will_come() {
    let rules = json!([
        {"prefix": "/path", "create": matching("args.name", "a")},
        {"prefix": "/size", "create": {"rule": "match", "type": "number", "eval": "<", "f1": "args.size", "f2": 9},
            "read": {"rule": "match", "type": "bool", "eval": "==", "f1": "utils.exists(args.size)", "f2": false}},
        {"prefix": "/type", "create": matching("args.contentType", "image/png")},
        {"prefix": "/meta", "create": matching("args.meta.kind", "photo")},
    ]);
    let service = service(&bucket(rules));
    let sent = |path: &str| FileAccess {
        content_type: "image/png".to_owned(),
        meta: r#"{"kind": "photo"}"#.to_owned(),
        ..create(path, Some(1))
    };
    assert!(sign(&service, &ann(), sent("path/a"), 60).is_ok());
    assert_eq!(sign(&service, &ann(), sent("path/b"), 60).unwrap_err(), DENIED);
    for path in ["size/a", "type/a", "meta/a"] {
        let refused = sign(&service, &ann(), sent(path), 60).unwrap_err();
        assert!(refused.starts_with("an address cannot be signed for PUT"), "{path}: {refused}");
    }
    assert!(sign(&service, &ann(), read("size/a"), 60).is_ok(), "a file that is there has its size");
}
