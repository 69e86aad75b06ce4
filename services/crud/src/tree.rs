//! A read tree as it runs: the statements of its levels, and how their rows become JSON.

use foldhash::HashMap;
use query::{Shape, resources::Numbers};

use crate::{Error, cell::Key, json, store::Rows};

/// Rows that are written on the runtime's thread; more than that is work for a blocking one.
const INLINE_ROWS: usize = 2000;

/// A compiled tree. The root is the first level; each level stands after the one above it.
#[derive(Debug)]
pub struct Plan {
    /// The levels.
    pub levels: Vec<Level>,
}

/// What is read at one place of the tree.
#[derive(Debug)]
pub struct Level {
    /// The relation that leads to it; empty at the root.
    pub name: String,
    /// What JSON it becomes.
    pub shape: Shape,
    /// Whether a statement reads its rows; `false` where there is nothing to ask.
    pub is_asked: bool,
    /// Columns that hold the key of the parent.
    pub link: Vec<usize>,
    /// What a row is written as.
    pub members: Vec<Member>,
    /// Rows that it may have.
    pub most: usize,
    /// Rows that are answered, where the database's limit ends them.
    pub cut: Option<usize>,
    /// Skip and limit leave nothing.
    pub is_void: bool,
}

/// A member of a row. `key` is the member's name as JSON, with its colon.
#[derive(Debug)]
pub enum Member {
    /// A column of the row.
    Column {
        /// See above.
        key: Vec<u8>,
        /// Which.
        column: usize,
    },
    /// The same for each row.
    Constant {
        /// Name, colon and value.
        text: Vec<u8>,
    },
    /// How many rows there are.
    Count {
        /// See above.
        key: Vec<u8>,
    },
    /// The rows of a level below.
    Relation {
        /// See above.
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
    /// By level; `None` where there was nothing to ask.
    rows: Vec<Option<Rows>>,
    numbers: Numbers,
}

/// What a tree became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// JSON.
    pub json: Vec<u8>,
    /// The database's limit cut rows off.
    pub truncated: bool,
    /// Statements it took.
    pub statements: usize,
}

/// Rows of a level by the key of their parent: a chain for each key, in the order of the rows.
#[derive(Default)]
struct Index {
    ends: HashMap<Key, (u32, u32)>,
    /// By row; itself at the end.
    next: Vec<u32>,
}

impl Plan {
    /// The plan with the rows of its statements, taken from `rows` in their order; `root` are those of a root that has
    /// no statement.
    pub fn with(
        self,
        root: Option<Rows>,
        rows: &mut impl Iterator<Item = Rows>,
        numbers: Numbers,
    ) -> Result<Tree, Error> {
        let mut all = Vec::with_capacity(self.levels.len());
        let mut root = root;
        for level in &self.levels {
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
    pub async fn answer(self, kept: Option<Vec<usize>>) -> Result<Answer, Error> {
        let rows: usize = self.rows.iter().flatten().map(Rows::len).sum();
        if rows <= INLINE_ROWS {
            return Ok(self.write(kept));
        }
        let written = tokio::task::spawn_blocking(move || self.write(kept)).await;
        written.map_err(|stopped| Error::Unavailable(stopped.to_string()))
    }

    fn write(&self, kept: Option<Vec<usize>>) -> Answer {
        let statements = self.plan.levels.iter().filter(|level| level.is_asked).count();
        let root = &self.plan.levels[0];
        let fetched = self.rows[0].as_ref().map_or(0, Rows::len);
        let kept = kept.unwrap_or_else(|| (0..fetched.min(root.cut.unwrap_or(usize::MAX))).collect());
        let levels = self.plan.levels.iter().zip(&self.rows);
        let indexes: Vec<Index> = levels.map(|(level, rows)| index(level, rows.as_ref())).collect();
        let mut writer = Writer { tree: self, indexes: &indexes, out: Vec::with_capacity(64 + fetched * 64) };
        writer.node(0, kept.iter().copied());
        Answer { json: writer.out, truncated: root.cut.is_some_and(|cut| fetched > cut), statements }
    }
}

struct Writer<'a> {
    tree: &'a Tree,
    indexes: &'a [Index],
    out: Vec<u8>,
}

impl Writer<'_> {
    /// Writes what a level has for one parent: `rows`.
    fn node(&mut self, level: usize, mut rows: impl Iterator<Item = usize>) {
        let here = &self.tree.plan.levels[level];
        match here.shape {
            Shape::Many => {
                self.out.push(b'[');
                for (index, row) in rows.enumerate() {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    self.row(level, row);
                }
                self.out.push(b']');
            }
            Shape::One => match rows.next() {
                Some(row) => self.row(level, row),
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
    }

    fn row(&mut self, level: usize, row: usize) {
        let tree = self.tree;
        let rows = tree.rows[level].as_ref().expect("a row that is written was read");
        self.out.push(b'{');
        for (index, member) in tree.plan.levels[level].members.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            match member {
                Member::Column { key, column } => {
                    self.out.extend_from_slice(key);
                    json::cell(&mut self.out, &rows.cell(row, *column), tree.numbers);
                }
                Member::Constant { text } => self.out.extend_from_slice(text),
                Member::Count { .. } => unreachable!("counts stand in aggregates only"),
                Member::Relation { key, columns, level } => {
                    self.out.extend_from_slice(key);
                    self.related(*level, parent(rows, row, columns));
                }
            }
        }
        self.out.push(b'}');
    }

    fn related(&mut self, level: usize, key: Option<Key>) {
        let indexes = self.indexes;
        match key.and_then(|key| indexes[level].ends.get(&key)) {
            Some(ends) => self.node(level, indexes[level].rows(*ends)),
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
                Member::Count { key } => {
                    self.out.extend_from_slice(key);
                    self.count(level, count);
                }
                Member::Constant { text } => self.out.extend_from_slice(text),
                Member::Column { .. } | Member::Relation { .. } => unreachable!("aggregates hold counts and constants"),
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

impl Index {
    /// The rows of a chain, in their order.
    fn rows(&self, (first, last): (u32, u32)) -> impl Iterator<Item = usize> + '_ {
        let next = move |at: &u32| (*at != last).then(|| self.next[*at as usize]);
        std::iter::successors(Some(first), next).map(|row| row as usize)
    }
}

fn index(level: &Level, rows: Option<&Rows>) -> Index {
    let mut index = Index::default();
    let Some(rows) = rows.filter(|_| !level.link.is_empty()) else {
        return index;
    };
    index.next.reserve(rows.len());
    for row in 0..rows.len() {
        let here = u32::try_from(row).expect("a level has far fewer rows than 2^32");
        index.next.push(here);
        let Some(key) = parent(rows, row, &level.link) else {
            continue;
        };
        let ends = index.ends.entry(key).or_insert((here, here));
        index.next[ends.1 as usize] = here;
        ends.1 = here;
    }
    index
}

/// The key in `columns` of a row; `None` where one of them is null.
fn parent(rows: &Rows, row: usize, columns: &[usize]) -> Option<Key> {
    if let [column] = columns {
        return rows.cell(row, *column).key();
    }
    let keys: Option<Vec<Key>> = columns.iter().map(|column| rows.cell(row, *column).key()).collect();
    keys.map(|keys| Key::Many(keys.into()))
}
