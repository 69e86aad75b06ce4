//! A document: parsed once, then used by every request that sends the same text.

use std::collections::HashMap;

use async_graphql_parser::{
    Pos, Positioned, parse_query,
    types::{Directive, DocumentOperations, ExecutableDocument, OperationDefinition, Selection, SelectionSet},
};
use async_graphql_value::Name;
use query::{Error, Guard};

use super::{
    plan::PlanCache,
    refusal::{Refusal, Result},
    scan::scan,
};

/// A document that can be planned: its fragments exist and none spreads itself.
#[derive(Debug)]
pub struct Document {
    /// Its tree.
    pub tree: ExecutableDocument,
    /// Numbers that the tree cannot hold, by the enum value that stands for them.
    pub numbers: HashMap<String, String>,
    /// What is planned alike for every request.
    pub plans: PlanCache,
}

impl Document {
    /// Parses `text`, as far as `guard` lets it pass.
    pub fn parse(text: &str, guard: Guard) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(Refusal::malformed("No definitions provided"));
        }
        let scanned = scan(text, guard)?;
        let tree = parse_query(&scanned.text).map_err(|error| syntax_refusal(&error))?;
        check_directives(&tree)?;
        check_fragments(&tree)?;
        Ok(Self { tree, numbers: scanned.numbers, plans: PlanCache::new(text.len()) })
    }

    /// The operation called `name`; without one the only operation.
    pub fn operation(&self, name: Option<&str>) -> Result<&Positioned<OperationDefinition>> {
        match (&self.tree.operations, name) {
            (DocumentOperations::Single(operation), None) => Ok(operation),
            (DocumentOperations::Single(_), Some(name)) => Err(unknown_operation(name, None)),
            (DocumentOperations::Multiple(operations), Some(name)) => operations
                .get(name)
                .ok_or_else(|| unknown_operation(name, query::nearest(name, operations.keys().map(Name::as_str)))),
            (DocumentOperations::Multiple(operations), None) => {
                let mut all = operations.values();
                match (all.next(), all.next()) {
                    (Some(operation), None) => Ok(operation),
                    _ => Err(Refusal::malformed("operationName is required: the document has several operations")),
                }
            }
        }
    }
}

fn unknown_operation(name: &str, nearest: Option<String>) -> Box<Refusal> {
    let hint = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    Refusal::malformed(format!("operation {name} is not in the document{hint}"))
}

/// Selections inside one another that the parser takes.
const MAX_SELECTION_DEPTH: usize = 64;

fn syntax_refusal(error: &async_graphql_parser::Error) -> Box<Refusal> {
    let at = error.positions().next();
    let text = match error {
        async_graphql_parser::Error::Syntax { message, start, .. } => {
            // The parser draws the line with an arrow below it; what was expected stands after the equals sign.
            let reason = message.lines().rev().find_map(|line| line.trim_start().strip_prefix("= ")).unwrap_or(message);
            format!("syntax error at line {}, column {}: {reason}", start.line, start.column)
        }
        async_graphql_parser::Error::RecursionLimitExceeded => {
            return Refusal::new(Error::TooComplex {
                what: "depth",
                seen: MAX_SELECTION_DEPTH + 1,
                limit: MAX_SELECTION_DEPTH,
            });
        }
        other => other.to_string(),
    };
    let refusal = Refusal::malformed(text);
    match at {
        Some(at) => refusal.at(at),
        None => refusal,
    }
}

/// Operations, variables and fragments have no directives here.
fn check_directives(tree: &ExecutableDocument) -> Result<()> {
    for (_, operation) in tree.operations.iter() {
        no_directives(&operation.node.directives, "an operation")?;
        for variable in &operation.node.variable_definitions {
            no_directives(&variable.node.directives, "a variable")?;
        }
    }
    for fragment in tree.fragments.values() {
        no_directives(&fragment.node.directives, "a fragment definition")?;
    }
    Ok(())
}

fn no_directives(directives: &[Positioned<Directive>], of: &str) -> Result<()> {
    match directives.first() {
        None => Ok(()),
        Some(directive) => {
            let text = format!("directive @{} is not known on {of}", directive.node.name.node);
            Err(Refusal::malformed(text).at(directive.pos))
        }
    }
}

/// Refuses spreads of fragments that do not exist, and fragments that spread themselves, however far around. Takes time
/// that is linear in the document, and no stack.
fn check_fragments(tree: &ExecutableDocument) -> Result<()> {
    for (_, operation) in tree.operations.iter() {
        let mut spreads = Vec::new();
        collect_spreads(&operation.node.selection_set.node, &mut spreads);
        spreads.iter().try_for_each(|spread| check_exists(tree, spread))?;
    }
    let mut spreads_of: HashMap<&str, Vec<Spread<'_>>> = HashMap::with_capacity(tree.fragments.len());
    for (name, fragment) in &tree.fragments {
        let mut spreads = Vec::new();
        collect_spreads(&fragment.node.selection_set.node, &mut spreads);
        spreads.iter().try_for_each(|spread| check_exists(tree, spread))?;
        spreads_of.insert(name.as_str(), spreads);
    }
    let mut seen: HashMap<&str, Visit> = HashMap::with_capacity(tree.fragments.len());
    for name in tree.fragments.keys() {
        check_cycle(name.as_str(), &spreads_of, &mut seen)?;
    }
    Ok(())
}

struct Spread<'a> {
    name: &'a str,
    at: Pos,
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    Open,
    Done,
}

fn check_exists(tree: &ExecutableDocument, spread: &Spread<'_>) -> Result<()> {
    if tree.fragments.contains_key(spread.name) {
        return Ok(());
    }
    let nearest = query::nearest(spread.name, tree.fragments.keys().map(Name::as_str));
    let hint = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    Err(Refusal::malformed(format!("fragment {} is not in the document{hint}", spread.name)).at(spread.at))
}

/// Depth first with a stack of its own: the next spread of each open fragment.
fn check_cycle<'a>(
    root: &'a str,
    spreads_of: &HashMap<&'a str, Vec<Spread<'a>>>,
    seen: &mut HashMap<&'a str, Visit>,
) -> Result<()> {
    if seen.contains_key(root) {
        return Ok(());
    }
    seen.insert(root, Visit::Open);
    let mut stack = vec![(root, 0)];
    while let Some((name, next)) = stack.last_mut() {
        let Some(spread) = spreads_of.get(name).and_then(|spreads| spreads.get(*next)) else {
            seen.insert(name, Visit::Done);
            stack.pop();
            continue;
        };
        *next += 1;
        match seen.get(spread.name) {
            Some(Visit::Done) => {}
            Some(Visit::Open) => {
                return Err(Refusal::malformed(format!("fragment {} spreads itself", spread.name)).at(spread.at));
            }
            None => {
                seen.insert(spread.name, Visit::Open);
                stack.push((spread.name, 0));
            }
        }
    }
    Ok(())
}

/// Spreads in `set` at any depth; the parser bounds the depth.
fn collect_spreads<'a>(set: &'a SelectionSet, spreads: &mut Vec<Spread<'a>>) {
    for item in &set.items {
        match &item.node {
            Selection::Field(field) => collect_spreads(&field.node.selection_set.node, spreads),
            Selection::InlineFragment(fragment) => collect_spreads(&fragment.node.selection_set.node, spreads),
            Selection::FragmentSpread(spread) => {
                spreads.push(Spread { name: spread.node.fragment_name.node.as_str(), at: spread.pos });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::refusal::Cause;

    fn parse(text: &str) -> Result<Document> {
        Document::parse(text, Guard::default())
    }

    fn error(text: &str) -> String {
        match parse(text).unwrap_err().cause {
            Cause::Model(error) => error.to_string(),
            Cause::Fault(fault) => fault.message,
        }
    }

    #[test]
    fn a_syntax_error_says_where_and_what_was_expected() {
        assert_eq!(error("{ a(x: ) }"), "syntax error at line 1, column 8: expected value");
    }

    #[test]
    fn an_empty_document_is_refused() {
        assert_eq!(error(" \n"), "No definitions provided");
        assert_eq!(error("fragment F on A { a }"), "document does not contain an operation");
    }

    #[test]
    fn fragments_that_spread_themselves_are_refused() {
        let around = "{ a { ...F } } fragment F on A { b { ...G } } fragment G on B { ... { a { ...F } } }";

        assert!(error(around).ends_with("spreads itself"), "{}", error(around));
        assert_eq!(error("{ a { ...F } } fragment F on A { b ...F }"), "fragment F spreads itself");
    }

    #[test]
    fn a_fragment_may_be_spread_in_many_places() {
        let document = "{ a { ...F ...G } } fragment F on A { ...H } fragment G on A { ...H } fragment H on A { a }";

        assert!(parse(document).is_ok());
    }

    #[test]
    fn a_long_chain_of_fragments_takes_no_stack() {
        let mut text = "{ a { ...F0 } }".to_owned();
        for index in 0..20_000 {
            text.push_str(&format!(" fragment F{index} on A {{ ...F{} }}", index + 1));
        }
        text.push_str(" fragment F20000 on A { a }");

        assert!(parse(&text).is_ok());
    }

    #[test]
    fn an_unknown_fragment_is_refused_with_the_nearest() {
        assert_eq!(
            error("{ a { ...Albun } } fragment Album on A { a }"),
            "fragment Albun is not in the document; did you mean Album?"
        );
    }

    #[test]
    fn the_operation_is_found_by_name() {
        let document = parse("query A { a } query B { b }").unwrap();

        assert!(document.operation(Some("B")).is_ok());
        assert!(document.operation(Some("C")).is_err());
        assert!(document.operation(None).is_err());
        assert!(parse("query A { a }").unwrap().operation(None).is_ok());
        assert!(parse("{ a }").unwrap().operation(Some("A")).is_err());
    }

    #[test]
    fn the_deepest_document_that_is_parsed_fits_a_small_stack() {
        let values = format!("{{ a(x: {}{}) {{ b }} }}", "[".repeat(98), "]".repeat(98));
        let fields = format!("{{ {} a {} }}", "a { ".repeat(60), "}".repeat(60));
        let types = format!("query($x: {}Int{}) {{ a }}", "[".repeat(98), "]".repeat(98));

        for text in [values, fields, types] {
            let parsed = std::thread::Builder::new().stack_size(1 << 20).spawn(move || parse(&text).is_ok());
            assert!(parsed.unwrap().join().unwrap());
        }
    }

    #[test]
    fn selections_that_the_parser_does_not_take_are_too_complex() {
        let text = format!("{{ {} a {} }}", "a { ".repeat(66), "}".repeat(66));

        assert_eq!(error(&text), "depth of 65 is over the limit of 64");
    }

    #[test]
    fn directives_of_operations_are_refused() {
        assert_eq!(error("query A @live { a }"), "directive @live is not known on an operation");
    }
}
