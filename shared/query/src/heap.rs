//! Approximate memory of values and reads: what is kept for long counts against limits.

use std::mem::size_of;

use crate::{Field, FieldKind, Filter, Node, Object, Read, Typed, Value};

/// What a list that an allocator hands out takes besides its items.
const ALLOCATION_BYTES: usize = 16;

impl Value {
    /// Approximate bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        let inside = match self {
            Value::Null | Value::Bool(_) | Value::Int(_) => 0,
            Value::Number(text) | Value::Text(text) => text.capacity() + ALLOCATION_BYTES,
            Value::List(items) => items.iter().map(Value::memory_bytes).sum::<usize>() + ALLOCATION_BYTES,
            Value::Object(object) => object.memory_bytes(),
        };
        size_of::<Value>() + inside
    }
}

impl Object {
    /// Approximate bytes of memory that its members take.
    pub fn memory_bytes(&self) -> usize {
        let member = |(name, value): &(String, Value)| text_bytes(name) + value.memory_bytes();
        self.0.iter().map(member).sum::<usize>() + ALLOCATION_BYTES
    }
}

impl Read {
    /// Approximate bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        text_bytes(&self.database) + text_bytes(&self.table) + node_bytes(&self.node)
    }
}

fn text_bytes(text: &str) -> usize {
    size_of::<String>() + text.len() + ALLOCATION_BYTES
}

fn node_bytes(node: &Node) -> usize {
    let sort: usize = node.sort.iter().map(|sort| text_bytes(&sort.column)).sum();
    let fields: usize = node.fields.iter().map(field_bytes).sum();
    size_of::<Node>() + filter_bytes(&node.filter) + sort + fields + ALLOCATION_BYTES
}

fn field_bytes(field: &Field) -> usize {
    let kind = match &field.kind {
        FieldKind::Column(text) | FieldKind::Constant(text) => text_bytes(text),
        FieldKind::Columns | FieldKind::Count => 0,
        FieldKind::Relation { name, node } => text_bytes(name) + node_bytes(node),
    };
    size_of::<Field>() + field.key.len() + ALLOCATION_BYTES + kind
}

fn typed_bytes(value: &Typed) -> usize {
    let inside = match value {
        Typed::Null
        | Typed::Bool(_)
        | Typed::Int(_)
        | Typed::Float(_)
        | Typed::Date(_)
        | Typed::Time(_)
        | Typed::Timestamp(_)
        | Typed::Uuid(_) => 0,
        Typed::Decimal(text) | Typed::Text(text) | Typed::Json(text) | Typed::Other(text) => {
            text.capacity() + ALLOCATION_BYTES
        }
        Typed::Bytes(bytes) => bytes.capacity() + ALLOCATION_BYTES,
        Typed::List(items) => items.iter().map(typed_bytes).sum::<usize>() + ALLOCATION_BYTES,
    };
    size_of::<Typed>() + inside
}

fn filter_bytes(filter: &Filter) -> usize {
    let inside = match filter {
        Filter::And(all) | Filter::Or(all) => all.iter().map(filter_bytes).sum(),
        Filter::Not(one) => filter_bytes(one),
        Filter::Compare { column, value, .. } => text_bytes(column) + typed_bytes(value),
        Filter::In { column, values } => text_bytes(column) + values.iter().map(typed_bytes).sum::<usize>(),
        Filter::IsNull { column } => text_bytes(column),
        Filter::Related { relation, long_name, filter, .. } => {
            text_bytes(relation) + long_name.as_deref().map_or(0, text_bytes) + filter_bytes(filter)
        }
    };
    size_of::<Filter>() + ALLOCATION_BYTES + inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_a_condition_counts_wherever_it_is() {
        let values: Vec<Typed> = (0..99_000).map(Typed::Int).collect();
        let filter = Filter::Not(Box::new(Filter::And(vec![Filter::In { column: "id".to_owned(), values }])));
        let inner = Node { filter, ..Node::new(crate::Shape::Many, vec![Field::column("id")]) };
        let relation = FieldKind::Relation { name: "track".to_owned(), node: inner };
        let fields = vec![Field { key: "track".to_owned(), kind: relation }];
        let node = Node::new(crate::Shape::Many, fields);
        let read = Read { database: "music".into(), table: "album".into(), node };
        assert!(read.memory_bytes() >= 99_000 * size_of::<Typed>());
    }

    #[test]
    fn what_is_longer_takes_more() {
        let list = |count: i64| Value::List((0..count).map(Value::Int).collect());
        assert!(list(99_000).memory_bytes() >= 99_000 * size_of::<Value>());
        assert!(Value::Text("a".repeat(1000)).memory_bytes() >= 1000);
        let object = |value| Object(vec![("a".to_owned(), value)]);
        assert!(object(list(100)).memory_bytes() >= object(list(10)).memory_bytes() + 90 * size_of::<Value>());
    }
}
