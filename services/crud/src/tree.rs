//! Plan of a read tree, and the writer that joins the rows of its levels to JSON.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use proto::crud::Answer;
use query::{Shape, resources::Numbers};

use crate::{
    Error,
    blocking::{self, Stop},
    budget::Budget,
    cell::{Cell, Key, KeyForm},
    json,
    mapping::Mapping,
    store::Rows,
};

/// Most rows that are written on the runtime's thread; more are written on a blocking one.
const INLINE_ROWS: usize = 2000;
/// Most bytes that are written there: rows that several parents share are written once for each of them.
const INLINE_BYTES: usize = 256 << 10;
/// Bytes written between two checks of the limit and of cancellation: some ten microseconds.
const CHECK_BYTES: usize = 32 << 10;
/// Bytes after which an answer that is not written inline goes on in a [`Mapping`].
const FLUSH_BYTES: usize = 128 << 10;
/// Bytes of a chunk of a long value: three of them are four of base64.
const CHUNK_BYTES: usize = 30 << 10;
/// Rows indexed between two checks of cancellation.
const CHECK_ROWS: usize = 4096;

/// A compiled tree. The root is the first level; each level stands after the one above it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The levels.
    pub levels: Arc<[Level]>,
}

/// Level of a tree: the rows of one node.
#[derive(Debug)]
pub struct Level {
    /// The relation that leads to it; empty at the root.
    pub name: String,
    /// Shape of its JSON.
    pub shape: Shape,
    /// Whether a statement reads its rows; `false` where there is nothing to ask.
    pub is_asked: bool,
    /// Columns that hold the key of the parent.
    pub link: Vec<usize>,
    /// Form of that key.
    pub key_form: KeyForm,
    /// Members of a row's JSON.
    pub members: Vec<JsonMember>,
    /// Most rows that it may have.
    pub most: usize,
    /// Most rows that are answered, where the database's limit applies.
    pub cut: Option<usize>,
    /// Whether skip and limit leave nothing.
    pub is_void: bool,
}

/// A member of a row's JSON object.
#[derive(Debug)]
pub enum JsonMember {
    /// A column of the row.
    Column {
        /// Its name as JSON, with the colon.
        key: Vec<u8>,
        /// Its position.
        column: usize,
    },
    /// The same for each row.
    Constant {
        /// Name, colon and value.
        text: Vec<u8>,
    },
    /// Number of rows.
    Count {
        /// Its name as JSON, with the colon.
        key: Vec<u8>,
    },
    /// The rows of a level below.
    Relation {
        /// Its name as JSON, with the colon.
        key: Vec<u8>,
        /// Columns of this row that hold their key.
        columns: Vec<usize>,
        /// The level.
        level: usize,
    },
}

/// A tree with its rows.
#[derive(Debug)]
pub struct Tree {
    plan: Plan,
    /// Rows by level; `None` where no statement was needed.
    rows: Vec<Option<Rows>>,
    numbers: Numbers,
}

/// Reason for stopping before the end of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    /// The byte limit is exceeded.
    Full,
    /// Its stop is due.
    Stopped,
}

/// Hash index of a level's rows by the key of their parent: a chain for each key, in the order of the rows.
#[derive(Default)]
struct JoinIndex {
    ends: HashMap<Key, (u32, u32)>,
    /// Next row of the chain, by row; at the end, the row itself.
    next: Vec<u32>,
}

impl Plan {
    /// Number of its statements.
    pub fn statements(&self) -> usize {
        self.levels.iter().filter(|level| level.is_asked).count()
    }

    /// The plan with the rows of its statements, taken from `rows` in their order; `root` are those of a root that has
    /// no statement.
    pub fn with_rows(
        self,
        root: Option<Rows>,
        rows: &mut impl Iterator<Item = Rows>,
        numbers: Numbers,
    ) -> Result<Tree, Error> {
        let mut all = Vec::with_capacity(self.levels.len());
        let mut root = root;
        for level in self.levels.iter() {
            let here = if level.is_asked { rows.next() } else { root.take() };
            if let Some(rows) = &here
                && level.is_asked
                && rows.len() > level.most
            {
                return Err(too_large(level));
            }
            all.push(here);
        }
        Ok(Tree { plan: self, rows: all, numbers })
    }
}

fn too_large(level: &Level) -> Error {
    let most = level.most;
    Error::TooLarge(match level.name.as_str() {
        "" => format!("more than {most} rows are asked for; ask for fewer with limit and skip"),
        name => format!("relation {name} leads to more than {most} rows; give it a limit"),
    })
}

impl Tree {
    /// Writes the tree, off the runtime's threads where it is large. `kept` are the rows of the root that count.
    pub async fn answer(self, kept: Option<Vec<usize>>, budget: &mut Budget<'_>) -> Result<Answer, Error> {
        let rows: usize = self.rows.iter().flatten().map(Rows::len).sum();
        if rows <= INLINE_ROWS {
            let room = budget.answer_room();
            match self.write(kept.as_deref(), room.min(INLINE_BYTES), None) {
                Ok(answer) => {
                    budget.answered(answer.json.len());
                    return Ok(answer);
                }
                Err(_) if room <= INLINE_BYTES => return Err(budget.too_large()),
                Err(_) => {}
            }
        }
        // Rare and large: kept out of the futures of all others.
        Box::pin(self.answer_on_thread(kept, budget)).await
    }

    /// Writes the tree on a blocking thread: once more where it turns out not to be small, when there is memory for it.
    async fn answer_on_thread(self, kept: Option<Vec<usize>>, budget: &mut Budget<'_>) -> Result<Answer, Error> {
        let mut tree = self;
        let mut kept = kept;
        loop {
            let room = budget.answer_room();
            let work = move |stop: &Stop| match tree.write(kept.as_deref(), room, Some(stop)) {
                Ok(answer) => Ok(answer),
                Err(halt) => Err((halt, tree, kept)),
            };
            let turn = budget.turn().await;
            let written = blocking::run(work).await?;
            drop(turn);
            match written {
                Ok(answer) => {
                    budget.answered(answer.json.len());
                    return Ok(answer);
                }
                Err((Halt::Stopped, ..)) => return Err(Error::Deadline),
                Err((Halt::Full, ..)) if !budget.may_answer_more() => return Err(budget.too_large()),
                Err((Halt::Full, same, rows)) => (tree, kept) = (same, rows),
            }
            budget.grow().await?;
        }
    }

    /// The JSON, of at most `most` bytes.
    fn write(&self, kept: Option<&[usize]>, most: usize, stop: Option<&Stop>) -> Result<Answer, Halt> {
        let statements = u32::try_from(self.plan.statements()).unwrap_or(u32::MAX);
        let root = &self.plan.levels[0];
        let fetched = self.rows[0].as_ref().map_or(0, Rows::len);
        // The root is never looked up by a key.
        let below = self.plan.levels.iter().zip(&self.rows).skip(1);
        let indexes: Vec<JoinIndex> =
            below.map(|(level, rows)| index(level, rows.as_ref(), stop)).collect::<Result<_, _>>()?;
        let out = Vec::with_capacity(fetched.saturating_mul(64).saturating_add(64).min(most).min(FLUSH_BYTES));
        let mut writer = Writer { tree: self, indexes: &indexes, out, before: None, most, stop, check_at: 0 };
        match kept {
            Some(kept) => writer.node(0, kept.iter().copied())?,
            None => writer.node(0, 0..fetched.min(root.cut.unwrap_or(usize::MAX)))?,
        }
        let json = writer.finish()?;
        Ok(Answer { json, truncated: root.cut.is_some_and(|cut| fetched > cut), statements })
    }
}

struct Writer<'a> {
    tree: &'a Tree,
    /// Of the levels below the root.
    indexes: &'a [JoinIndex],
    out: Vec<u8>,
    /// Earlier output, moved out of `out` once it is large.
    before: Option<Mapping>,
    /// Bytes that it may have.
    most: usize,
    stop: Option<&'a Stop>,
    /// Length of `out` at the next check.
    check_at: usize,
}

impl Writer<'_> {
    /// Checks the limit and cancellation.
    #[cold]
    fn check_limits(&mut self) -> Result<(), Halt> {
        if self.stop.is_some_and(Stop::is_due) {
            return Err(Halt::Stopped);
        }
        let room = self.most.checked_sub(self.len()).ok_or(Halt::Full)?;
        if self.stop.is_some() && self.out.len() > FLUSH_BYTES {
            self.before = self.before.take().or_else(|| Mapping::new(self.most));
            if let Some(before) = &mut self.before {
                before.take(&mut self.out);
            }
        }
        self.check_at = self.out.len() + CHECK_BYTES.min(room);
        Ok(())
    }

    fn len(&self) -> usize {
        self.before.as_ref().map_or(0, Mapping::len) + self.out.len()
    }

    /// All that was written.
    fn finish(mut self) -> Result<Bytes, Halt> {
        if self.len() > self.most {
            return Err(Halt::Full);
        }
        Ok(match self.before {
            Some(mut before) => {
                before.take(&mut self.out);
                Bytes::from_owner(before)
            }
            None => self.out.into(),
        })
    }

    /// Writes what a level has for one parent: `rows`.
    fn node(&mut self, level: usize, mut rows: impl Iterator<Item = usize>) -> Result<(), Halt> {
        let here = &self.tree.plan.levels[level];
        match here.shape {
            Shape::Many => {
                self.out.push(b'[');
                for (index, row) in rows.enumerate() {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    self.row(level, row)?;
                }
                self.out.push(b']');
            }
            Shape::One => match rows.next() {
                Some(row) => self.row(level, row)?,
                None => self.out.extend_from_slice(b"null"),
            },
            Shape::Count => {
                let count = rows.next();
                self.count(level, count);
            }
            Shape::Aggregate if here.is_void => self.out.extend_from_slice(b"[]"),
            Shape::Aggregate => {
                let count = rows.next();
                self.out.push(b'[');
                self.aggregate(level, count);
                self.out.push(b']');
            }
        }
        Ok(())
    }

    fn row(&mut self, level: usize, row: usize) -> Result<(), Halt> {
        if self.out.len() >= self.check_at {
            self.check_limits()?;
        }
        let tree = self.tree;
        let rows = tree.rows[level].as_ref().expect("a row that is written was read");
        self.out.push(b'{');
        for (index, member) in tree.plan.levels[level].members.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            match member {
                JsonMember::Column { key, column } => {
                    self.out.extend_from_slice(key);
                    self.cell(&rows.cell(row, *column))?;
                }
                JsonMember::Constant { text } => self.out.extend_from_slice(text),
                JsonMember::Count { .. } => unreachable!("counts stand in aggregates only"),
                JsonMember::Relation { key, columns, level } => {
                    self.out.extend_from_slice(key);
                    let form = tree.plan.levels[*level].key_form;
                    self.related(*level, parent(rows, row, columns, form))?;
                }
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Writes a value; a long one in chunks.
    fn cell(&mut self, cell: &Cell<'_>) -> Result<(), Halt> {
        match cell {
            Cell::Text(text) if text.len() > CHECK_BYTES => self.long(text.as_bytes(), "\"", json::escaped),
            Cell::Bytes(bytes) if bytes.len() > CHECK_BYTES => self.long(bytes, "\"", json::base64),
            Cell::Json(bytes) if bytes.len() > CHECK_BYTES => {
                self.long(bytes, "", |out, piece| out.extend_from_slice(piece))
            }
            Cell::List(items) => self.list(items),
            _ => {
                json::cell(&mut self.out, cell, self.tree.numbers);
                Ok(())
            }
        }
    }

    fn list(&mut self, items: &[Cell<'_>]) -> Result<(), Halt> {
        self.out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.cell(item)?;
            if self.out.len() >= self.check_at {
                self.check_limits()?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn long(&mut self, bytes: &[u8], quote: &str, write: impl Fn(&mut Vec<u8>, &[u8])) -> Result<(), Halt> {
        self.out.extend_from_slice(quote.as_bytes());
        for piece in bytes.chunks(CHUNK_BYTES) {
            write(&mut self.out, piece);
            self.check_limits()?;
        }
        self.out.extend_from_slice(quote.as_bytes());
        Ok(())
    }

    fn related(&mut self, level: usize, key: Option<Key>) -> Result<(), Halt> {
        let index = &self.indexes[level - 1];
        match key.and_then(|key| index.ends.get(&key)) {
            Some(ends) => self.node(level, index.rows(*ends)),
            None => self.node(level, std::iter::empty()),
        }
    }

    fn aggregate(&mut self, level: usize, count: Option<usize>) {
        self.out.push(b'{');
        for (index, member) in self.tree.plan.levels[level].members.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            match member {
                JsonMember::Count { key } => {
                    self.out.extend_from_slice(key);
                    self.count(level, count);
                }
                JsonMember::Constant { text } => self.out.extend_from_slice(text),
                JsonMember::Column { .. } | JsonMember::Relation { .. } => {
                    unreachable!("aggregates hold counts and constants")
                }
            }
        }
        self.out.push(b'}');
    }

    /// The count that `row` holds, in the column after the parent's key; a parent without rows has none.
    fn count(&mut self, level: usize, row: Option<usize>) {
        match (row, &self.tree.rows[level]) {
            (Some(row), Some(rows)) => {
                let column = self.tree.plan.levels[level].link.len();
                json::cell(&mut self.out, &rows.cell(row, column), self.tree.numbers);
            }
            _ => self.out.push(b'0'),
        }
    }
}

impl JoinIndex {
    /// Adds the next row to the chain of `key`.
    fn push(&mut self, key: Option<Key>) {
        let here = u32::try_from(self.next.len()).expect("a level has far fewer rows than 2^32");
        self.next.push(here);
        let Some(key) = key else {
            return;
        };
        let ends = self.ends.entry(key).or_insert((here, here));
        self.next[ends.1 as usize] = here;
        ends.1 = here;
    }

    /// The rows of a chain, in their order.
    fn rows(&self, (first, last): (u32, u32)) -> impl Iterator<Item = usize> + '_ {
        let next = move |at: &u32| (*at != last).then(|| self.next[*at as usize]);
        std::iter::successors(Some(first), next).map(|row| row as usize)
    }
}

fn index(level: &Level, rows: Option<&Rows>, stop: Option<&Stop>) -> Result<JoinIndex, Halt> {
    let mut index = JoinIndex::default();
    let Some(rows) = rows else {
        return Ok(index);
    };
    index.next.reserve(rows.len());
    for first in (0..rows.len()).step_by(CHECK_ROWS) {
        if stop.is_some_and(Stop::is_due) {
            return Err(Halt::Stopped);
        }
        for row in first..rows.len().min(first + CHECK_ROWS) {
            index.push(parent(rows, row, &level.link, level.key_form));
        }
    }
    Ok(index)
}

/// The key in `columns` of a row; `None` where one of them is null.
fn parent(rows: &Rows, row: usize, columns: &[usize], form: KeyForm) -> Option<Key> {
    if let [column] = columns {
        return rows.key(row, *column, form);
    }
    let keys: Option<Vec<Key>> = columns.iter().map(|column| rows.key(row, *column, form)).collect();
    keys.map(|keys| Key::Many(keys.into()))
}

#[cfg(test)]
mod tests;
