//! Shapes of request bodies, and the reads that are kept by them: a read by key is planned once for all keys.
//!
//! The shape of a body is its text without the values of its `find`. Bodies of the same shape say the same but for these
//! values, so that a body whose shape is known is neither parsed nor planned.

use std::sync::Arc;

use mesh::cache::{self, WeightedCache, Weighter};
use query::{Budget, Column, Filter, Node, Parser, Read, Value};

use crate::{catalogue::Project, plan::TableRef};

/// Approximate memory limit of the kept reads of a node.
const CACHE_BYTES: u64 = 16 << 20;
/// Reads of the size that is usual that it holds.
const READS_EXPECTED: usize = 8000;
/// Bodies over this size have no shape.
const BODY_BYTES_MAX: usize = 1024;
/// Digits of integers that are surely within 64 bits.
const DIGITS_MAX: usize = 18;

/// In the place of an integer: a character that no JSON has there.
const INTEGER: u8 = 0;
/// In the place of a text.
const TEXT: u8 = 1;

/// The shape of a body, and the values that it leaves out.
struct BodyShape {
    /// Different for different versions of projects, tables and texts.
    key: Vec<u8>,
    values: Vec<Value>,
}

/// Reads by the shape of the body that asks for them: those whose condition is that columns have the body's values.
#[derive(Debug)]
pub struct ReadCache {
    cache: WeightedCache<Box<[u8]>, Arc<ReadTemplate>, TemplateWeighter>,
}

/// A read whose condition is to be made of values.
#[derive(Debug)]
struct ReadTemplate {
    /// The read of all rows.
    read: Read,
    /// The column of each value.
    columns: Vec<Column>,
}

impl BodyShape {
    /// The shape of the `body` of a read of a table; `None` for one that is long or not plain.
    ///
    /// It need not be valid: only the shapes of bodies that are are kept, and all bodies of such a shape are valid too.
    fn of(project: &Project, table_ref: TableRef<'_>, body: &[u8]) -> Option<Self> {
        let TableRef { database, table, .. } = table_ref;
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
        let mut key = Vec::with_capacity(body.len() + database.len() + table.len() + 10);
        key.extend_from_slice(&project.version.to_le_bytes());
        for name in [database, table] {
            key.push(u8::try_from(name.len()).ok()?);
            key.extend_from_slice(name.as_bytes());
        }
        let mut shape = Self { key, values: Vec::with_capacity(2) };
        shape.scan(body)?;
        Some(shape)
    }

    /// Appends `body` to the key, and its values to the others.
    ///
    /// A body that itself has the characters in the place of values has fewer values than the shape that its key is of.
    fn scan(&mut self, body: &[u8]) -> Option<()> {
        let (mut rest, mut copied, mut depth, mut in_find) = (body, 0, 0_usize, false);
        // Slices of what is left: no index is checked for each byte.
        while let [byte, after @ ..] = rest {
            let start = body.len() - rest.len();
            rest = match byte {
                b'{' | b'[' => {
                    depth += 1;
                    after
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    after
                }
                b'"' => {
                    let (text, after) = plain_text(after)?;
                    if is_name(after) {
                        in_find = if depth == 1 { text == b"find" } else { in_find };
                    } else if depth == 2 && in_find {
                        self.leave_out(&body[copied..start], TEXT, Value::Text(str::from_utf8(text).ok()?.to_owned()));
                        copied = body.len() - after.len();
                    }
                    after
                }
                b'-' | b'0'..=b'9' if depth == 2 && in_find => {
                    let (integer, after) = plain_integer(rest)?;
                    self.leave_out(&body[copied..start], INTEGER, Value::Int(integer));
                    copied = body.len() - after.len();
                    after
                }
                _ => after,
            };
        }
        self.key.extend_from_slice(&body[copied..]);
        Some(())
    }

    fn leave_out(&mut self, before: &[u8], kind: u8, value: Value) {
        self.key.extend_from_slice(before);
        self.key.push(kind);
        self.values.push(value);
    }
}

/// Whether each byte is one of a text that stands for itself: it is no quote, no escape and no control character.
static IS_PLAIN: [bool; 256] = {
    let mut is_plain = [true; 256];
    let mut byte = 0;
    while byte < b' ' as usize {
        is_plain[byte] = false;
        byte += 1;
    }
    is_plain[b'"' as usize] = false;
    is_plain[b'\\' as usize] = false;
    is_plain
};

/// The text of a string until its closing quote, if it is without escapes and control characters, and what follows.
fn plain_text(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (text, rest) = rest.split_at(rest.iter().position(|byte| !IS_PLAIN[usize::from(*byte)])?);
    Some((text, rest.strip_prefix(b"\"")?))
}

/// Whether a colon follows.
fn is_name(rest: &[u8]) -> bool {
    rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// A number that is an integer within 64 bits, and what follows.
fn plain_integer(rest: &[u8]) -> Option<(i64, &[u8])> {
    let (is_negative, digits) = match rest {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let (mut number, mut length, mut after) = (0, 0, digits);
    while let [digit @ b'0'..=b'9', rest @ ..] = after {
        if length == DIGITS_MAX {
            return None;
        }
        (number, length, after) = (number * 10 + i64::from(digit - b'0'), length + 1, rest);
    }
    let has_plain_digits = length == 1 || (length > 1 && digits[0] != b'0');
    let is_plain = has_plain_digits && matches!(after, [b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r', ..]);
    is_plain.then_some((if is_negative { -number } else { number }, after))
}

impl Default for ReadCache {
    fn default() -> Self {
        Self { cache: cache::weighted(CACHE_BYTES, READS_EXPECTED, TemplateWeighter) }
    }
}

impl ReadCache {
    /// The read of a table that `body` asks for, where one of its shape is kept. `None` also where a value cannot be that
    /// of its column: planning says why.
    pub fn find(&self, project: &Project, table_ref: TableRef<'_>, body: &[u8]) -> Option<Read> {
        let BodyShape { key, values } = BodyShape::of(project, table_ref, body)?;
        let template = self.cache.get(&*key)?;
        let filter = conditions(template.columns.iter(), &values)?;
        let Read { database, table, node } = &template.read;
        let Node { shape, fields, sort, skip, limit, filter: _ } = node;
        let (shape, fields, sort) = (*shape, fields.clone(), sort.clone());
        let node = Node { shape, fields, filter, sort, skip: *skip, limit: *limit };
        Some(Read { database: database.clone(), table: table.clone(), node })
    }

    /// Keeps `read`, which `body` asks for in `project`, if its condition is made of the values as a whole.
    pub fn keep(&self, project: &Project, table_ref: TableRef<'_>, body: &[u8], read: &Read) {
        let Some(BodyShape { key, values }) = BodyShape::of(project, table_ref, body) else { return };
        let Some(columns) = columns(project, read) else { return };
        if conditions(columns.iter().copied(), &values).as_ref() != Some(&read.node.filter) {
            return;
        }
        let columns = columns.into_iter().cloned().collect();
        let mut read = read.clone();
        read.node.filter = Filter::TRUE;
        self.cache.insert(key.into(), Arc::new(ReadTemplate { read, columns }));
    }
}

/// The columns that a read compares, where it compares columns and nothing else.
fn columns<'p>(project: &'p Project, read: &Read) -> Option<Vec<&'p Column>> {
    let table = project.schema(&read.database).ok()?.table(&read.table).ok()?;
    let all = match &read.node.filter {
        Filter::And(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    let column = |filter: &Filter| match filter {
        Filter::Compare { column, .. } => table.column(column).ok(),
        _ => None,
    };
    all.iter().map(column).collect()
}

/// The condition that each column has its value, as it is planned.
fn conditions<'c>(columns: impl ExactSizeIterator<Item = &'c Column>, values: &[Value]) -> Option<Filter> {
    if columns.len() != values.len() {
        return None;
    }
    let mut filters = columns.zip(values).map(|(column, value)| Parser::equals(column, value, &mut Budget::default()));
    match values.len() {
        1 => filters.next()?.ok(),
        _ => filters.collect::<Result<_, _>>().ok().map(Filter::And),
    }
}

/// Approximate memory of a kept read in bytes.
#[derive(Debug, Clone)]
struct TemplateWeighter;

impl Weighter<Box<[u8]>, Arc<ReadTemplate>> for TemplateWeighter {
    fn weight(&self, key: &Box<[u8]>, template: &Arc<ReadTemplate>) -> u64 {
        // What is selected stands in the body.
        (key.len() * 20 + template.columns.len() * 200 + 500) as u64
    }
}

#[cfg(test)]
mod tests {
    use query::{Field, Shape, Type};

    use super::*;

    fn column() -> Column {
        Column::new("a", Type::Int64, "INTEGER")
    }

    /// Its weight is near the memory that each of its parts takes, so that the limit of the cache means bytes.
    #[test]
    fn all_of_a_kept_read_counts_for_its_weight() {
        const MANY: usize = 1000;
        let weight = |body: usize, columns: usize| {
            let node = Node::new(Shape::Many, Vec::new());
            let read = Read { database: "music".into(), table: "album".into(), node };
            let template = ReadTemplate { read, columns: vec![column(); columns] };
            usize::try_from(TemplateWeighter.weight(&vec![0; body].into(), &Arc::new(template))).unwrap()
        };
        let nothing = weight(0, 0);
        assert!((size_of::<ReadTemplate>()..1000).contains(&nothing), "{nothing}");
        // The text that selects a column with a name of usual length.
        let field = size_of::<Field>() / r#""album_id":1,"#.len();
        for (part, found, bytes) in
            [("body", weight(MANY, 0) - nothing, field), ("columns", weight(0, MANY) - nothing, size_of::<Column>())]
        {
            assert!((MANY * bytes..=MANY * bytes * 4).contains(&found), "{part}: {found}, {bytes} bytes each");
        }
    }
}
