//! Shapes of live queries: all that their reads and grants say but for the values of conditions.
//!
//! It is known by it which of them the database may answer by one statement. It decides nothing of what they are answered.

use std::{fmt::Write as _, sync::Arc};

use query::{FieldKind, Filter, GrantTerms, Node, Read};

use crate::catalogue::Project;

/// Values of a list up to which their number makes no other shape.
const VALUES_FEW: usize = 63;

/// Hash of a shape.
pub type ShapeKey = blake3::Hash;

/// The shape of `reads` with grants of these terms.
pub fn of(project: &Project, reads: &[Read], terms: &[Arc<GrantTerms>]) -> ShapeKey {
    let mut text = String::new();
    let _ = write!(text, "{:?}", (&project.id, project.version));
    for Read { database, table, node: of } in reads {
        let _ = write!(text, "{:?}", (database, table));
        node(&mut text, of);
    }
    for terms in terms {
        let GrantTerms { database, table, operation, filter: granted, columns, .. } = &**terms;
        let _ = write!(text, "{:?}", (database, table, operation, columns));
        filter(&mut text, granted);
    }
    blake3::hash(text.as_bytes())
}

fn node(text: &mut String, Node { shape, fields, filter: own, sort, skip, limit }: &Node) {
    let _ = write!(text, "{:?}", (shape, sort, skip, limit));
    filter(text, own);
    text.push('{');
    for field in fields.iter() {
        match &field.kind {
            FieldKind::Relation { name, node: below } => {
                let _ = write!(text, "{:?}", (&field.key, name));
                node(text, below);
            }
            kind @ (FieldKind::Column(_) | FieldKind::Columns | FieldKind::Constant(_) | FieldKind::Count) => {
                let _ = write!(text, "{:?}", (&field.key, kind));
            }
        }
    }
    text.push('}');
}

fn filter<V>(text: &mut String, of: &Filter<V>) {
    let mut each = |name: &str, filters: &[Filter<V>]| {
        text.push_str(name);
        text.push('(');
        filters.iter().for_each(|of| filter(text, of));
        text.push(')');
    };
    let _ = match of {
        Filter::And(all) => return each("and", all),
        Filter::Or(any) => return each("or", any),
        Filter::Not(of) => return each("not", std::slice::from_ref(&**of)),
        Filter::Compare { column, comparison, value: _ } => write!(text, "{:?}", (column, comparison)),
        Filter::In { column, values } => write!(text, "{:?}", (column, bits_of(values.len()))),
        Filter::IsNull { column } => write!(text, "null {column:?}"),
        Filter::Related { relation, long_name: _, quantifier, filter: below } => {
            let _ = write!(text, "{:?}", (relation, quantifier));
            return filter(text, below);
        }
    };
}

/// The bits of a number of values: many may cost much, for which those who ask for few are not to wait. None are another
/// statement.
fn bits_of(count: usize) -> u32 {
    match count {
        0 => 0,
        _ => (count | VALUES_FEW).ilog2(),
    }
}

#[cfg(test)]
mod tests {
    use query::{Comparison, Shape, Sort, Typed};

    use super::*;

    fn text_of(node_of: &Node) -> String {
        let mut text = String::new();
        node(&mut text, node_of);
        text
    }

    fn equals(column: &str, value: i64) -> Filter {
        Filter::Compare { column: column.to_owned(), comparison: Comparison::Eq, value: Typed::Int(value) }
    }

    fn node_of(filter: Filter, limit: u64) -> Node {
        Node { shape: Shape::Many, fields: Vec::new().into(), filter, sort: Vec::new(), skip: 0, limit: Some(limit) }
    }

    #[test]
    fn values_are_not_of_the_shape_and_all_else_is() {
        let list = |values: Vec<i64>| Filter::In {
            column: "a".to_owned(),
            values: values.into_iter().map(Typed::Int).collect(),
        };
        let same = |one: Filter, other: Filter| text_of(&node_of(one, 5)) == text_of(&node_of(other, 5));
        assert!(same(equals("a", 1), equals("a", 2)));
        assert!(same(list(vec![1]), list(vec![2, 3])));
        assert!(!same(list(vec![1]), list(vec![])));
        assert!(same(list(vec![1]), list(vec![1; VALUES_FEW])));
        assert!(!same(list(vec![1]), list(vec![1; VALUES_FEW + 1])));
        assert!(!same(equals("a", 1), equals("b", 1)));
        assert!(!same(equals("a", 1), Filter::Not(Box::new(equals("a", 1)))));
        assert!(!same(equals("a", 1), Filter::And(vec![equals("a", 1)])));
        assert!(!same(Filter::Or(vec![equals("a", 1)]), Filter::And(vec![equals("a", 1)])));
        assert!(!same(equals("a", 1), Filter::IsNull { column: "a".to_owned() }));
        let (one, mut other) = (node_of(equals("a", 1), 5), node_of(equals("a", 1), 5));
        assert_ne!(text_of(&one), text_of(&node_of(equals("a", 1), 6)));
        other.sort = vec![Sort { column: "a".to_owned(), descending: true }];
        assert_ne!(text_of(&one), text_of(&other));
    }
}
