//! Calls of functions, and what variables and fragments make of their parameters.

use mesh::{Code, Fault};

use super::*;

/// The code and the text of the refusal of a document, whose variable `p` has so many bytes.
fn refused(text: &str, bytes: usize) -> Option<(Code, String)> {
    let sent = format!(r#"{{"p": "{}"}}"#, "x".repeat(bytes));
    let refusal = planned(&fixture::with_functions(), text, &sent).err()?;
    let fault = match refusal.cause {
        Cause::Model(error) => Fault::from(error),
        Cause::Fault(fault) => fault,
    };
    Some((fault.code, fault.message))
}

#[test]
fn a_value_that_stands_in_many_places_is_bounded() {
    let times = |part: &str| part.repeat(100);
    let fields = |field: &str| (0..100).map(|index| format!("a{index}: {field} ")).collect::<String>();
    let long = "x".repeat(1 << 20);
    for text in [
        format!("query($p: String) {{ mail {{ {} }} }}", fields("find(to: $p)")),
        format!("query($p: String) {{ {} }}", fields("find(to: $p) @mail")),
        format!("query($p: String) {{ mail {{ find(to: [{}]) }} }}", times("$p ")),
        format!("{{ {} }} fragment F on MailService {{ find(to: \"{long}\") }}", fields("mail { ...F }")),
        format!("query($p: String) {{ album(where: {{_or: [{}]}}) {{ title }} }}", times("{title: {_eq: $p}} ")),
        format!("mutation($p: String) {{ insert_album(docs: [{}]) {{ affected }} }}", times("{title: $p} ")),
    ] {
        let (code, told) = refused(&text, 1 << 20).unwrap_or_else(|| panic!("{}", &text[..100]));
        assert_eq!(code, Code::TooLarge, "{told}");
    }
}

#[test]
fn a_large_value_may_stand_in_a_few_places() {
    for text in [
        "query($p: String) { mail { find(a: $p, b: [$p], c: {d: $p}) } }",
        "query($p: String) { mail { a: find(a: $p) b: find(a: $p) } c: find(a: $p) @mail }",
        "mutation($p: String) { insert_album(docs: [{title: $p}, {title: $p}]) { affected } }",
    ] {
        assert_eq!(refused(text, 8 << 20), None, "{text}");
    }
    assert_eq!(refused("query($p: String) { mail { find(a: $p) } }", 40 << 20), None);
}
