//! Size of the JSON of written rows, as far as it is known before they are stored.

use std::sync::Arc;

use query::{Type, Typed};

use crate::{
    budget::{AnswerLimit, Room},
    resolve::{MemberKind, Mutation, MutationKind, NewRow, Node, NodeMember},
};

/// Most bytes of JSON that is answered of an inserted row, for any values that are sent.
#[derive(Debug, Clone)]
pub struct RowSize {
    /// Bytes besides those of values that are sent.
    fixed: usize,
    /// The position in the row of each value that is sent and answered.
    sent: Arc<[usize]>,
    /// Whether the database makes a value that may be long.
    is_unbounded: bool,
}

impl RowSize {
    /// The size of what `node` asks for of `row`.
    pub fn of(node: &Node<'_>, row: &NewRow<'_>) -> Self {
        let (mut fixed, mut sent, mut is_unbounded) = (row_bytes(node), Vec::with_capacity(node.members.len()), false);
        for member in &node.members {
            let MemberKind::Column(column) = &member.kind else { continue };
            match row.iter().position(|(given, _)| std::ptr::eq(*given, *column)) {
                Some(at) => sent.push(at),
                None if is_short(column.r#type) => fixed += SHORT_BYTES,
                None => is_unbounded = true,
            }
        }
        Self { fixed, sent: sent.into(), is_unbounded }
    }

    /// The size of a row of which so many values are sent and answered, and nothing else.
    #[cfg(test)]
    pub fn of_sent(count: usize) -> Self {
        Self { fixed: 0, sent: (0..count).collect(), is_unbounded: false }
    }

    /// The bytes for the values that `value` tells by their positions in the row; `None` where they are not known.
    pub fn bytes<'v>(&self, value: impl Fn(usize) -> Option<&'v Typed>) -> Option<usize> {
        if self.is_unbounded {
            return None;
        }
        self.sent.iter().try_fold(self.fixed, |bytes, at| Some(bytes + written_bytes(value(*at)?)))
    }

    /// Approximate memory in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.sent)
    }
}

/// Whether what is answered of an insert is within the limit whatever the database makes of it: the columns have values
/// that were sent, or of a type whose values are short.
pub fn is_small(mutation: &Mutation<'_>, node: &Node<'_>, limit: AnswerLimit) -> bool {
    let MutationKind::Insert(rows) = &mutation.kind else { return false };
    let row_bytes = |row: &NewRow<'_>| RowSize::of(node, row).bytes(|at| Some(&*row[at].1));
    let bytes = rows.iter().try_fold(0, |bytes, row| Some(bytes + row_bytes(row)?));
    bytes.is_some_and(|bytes| is_within(bytes, limit))
}

/// Whether a list of rows that take so many bytes is within the limit.
pub fn is_within(rows_bytes: usize, limit: AnswerLimit) -> bool {
    (rows_bytes + 2) as u64 <= limit.bytes.saturating_sub(limit.used)
}

/// Memory of rows whose JSON is within the limit whatever they hold, where a row has `row_bytes` besides its values: text
/// grows by up to six times where it is escaped, and a number from its 16 bytes to [`SHORT_BYTES`].
pub fn small_room(row_bytes: usize, limit: AnswerLimit) -> Room {
    let growth = (row_bytes + SHORT_BYTES) as u64 / 16 + 6;
    let bytes = limit.bytes.saturating_sub(limit.used) / growth;
    Room { bytes: usize::try_from(bytes).unwrap_or(usize::MAX), limit: limit.bytes }
}

/// Bytes of a row's JSON without its values: braces, names, quotes, colons, commas, and texts that are fixed.
pub fn row_bytes(node: &Node<'_>) -> usize {
    let member = |member: &NodeMember<'_>| {
        let fixed = if let MemberKind::Constant(text) = &member.kind { text.len() } else { 0 };
        (member.key.len() + fixed) * 6 + 6
    };
    3 + node.members.iter().map(member).sum::<usize>()
}

/// The most bytes of JSON that a value of a short type has: a decimal that is padded to the scale of its column.
pub const SHORT_BYTES: usize = 320;

/// Whether values of the type have at most [`SHORT_BYTES`] as JSON, in any engine.
fn is_short(r#type: Type) -> bool {
    match r#type {
        Type::Bool
        | Type::Int16
        | Type::Int32
        | Type::Int64
        | Type::Float
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::Uuid => true,
        Type::Decimal
        | Type::Text
        | Type::Bytes
        | Type::Json
        | Type::Other
        | Type::Any
        | Type::Address
        | Type::List(_) => false,
    }
}

/// The most bytes of JSON that a value has once it is stored and read.
pub fn written_bytes(value: &Typed) -> usize {
    match value {
        Typed::Null
        | Typed::Bool(_)
        | Typed::Int(_)
        | Typed::Float(_)
        | Typed::Date(_)
        | Typed::Time(_)
        | Typed::Timestamp(_)
        | Typed::Uuid(_) => SHORT_BYTES,
        Typed::Decimal(text) | Typed::Text(text) | Typed::Json(text) | Typed::Other(text) => {
            text.len() * 6 + SHORT_BYTES
        }
        Typed::Bytes(bytes) => bytes.len() * 2 + SHORT_BYTES,
        Typed::List(items) => 2 + items.iter().map(|item| written_bytes(item) + 1).sum::<usize>(),
    }
}
