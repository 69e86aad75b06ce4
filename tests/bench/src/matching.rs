//! Matching: which of many conditions a change concerns, by the index over them and by a look at each.

use std::{hint::black_box, path::Path, time::Instant};

use anyhow::ensure;
use query::{Abilities, Column, Comparison, Filter, FilterIndex, Matching, Object, Row, Table, Type, Typed, Value};

use crate::callgrind::{self, Count};

/// What to match.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Only this way, once, for those who count its instructions.
    #[arg(long, value_enum)]
    way: Option<Way>,
}

/// How it is found what a change concerns.
#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum Way {
    /// By the index.
    Index,
    /// By a look at each condition.
    Each,
}

/// Conditions `owner = n`, and others: ranges, lists, disjunctions and conjunctions.
const SIZES: [(usize, usize); 3] = [(10_000, 0), (10_000, 1_000), (100_000, 10_000)];
/// The number of changes of a round, and rounds, of which the fastest counts.
const CHANGES: usize = 200;
const ROUNDS: usize = 20;
/// Changes whose instructions are counted.
const COUNTED_CHANGES: usize = 1_000;

/// Measures all sizes and prints them.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(way) = options.way {
        let mut subject = Subject::new(10_000, 0);
        let changes = changes(COUNTED_CHANGES, 10_000, false);
        black_box(match way {
            Way::Index => by_index(&mut subject, &changes),
            Way::Each => by_each(&subject, &changes[..1]),
        });
        return Ok(());
    }
    println!("{:<34} {:>12} {:>12} {:>8}   ns a change of both images", "conditions", "each", "index", "hits");
    for (equalities, others) in SIZES {
        let mut subject = Subject::new(equalities, others);
        for concerns in [false, true] {
            let changes = changes(CHANGES, equalities, concerns);
            let few = &changes[..20];
            ensure!(by_each(&subject, few) == by_index(&mut subject, few), "both find the same");
            let hits = by_index(&mut subject, &changes) as f64 / CHANGES as f64;
            let each = fastest(|| by_each(&subject, few), few.len());
            let index = fastest(|| by_index(&mut subject, &changes), CHANGES);
            let about = if concerns { "some concern" } else { "none concerned" };
            println!("{:<34} {each:>12.0} {index:>12.0} {hits:>8.1}", format!("{equalities} + {others}, {about}"));
        }
    }
    Ok(())
}

/// Instructions and allocations of one change among 10,000 equalities that it does not concern, by this program itself.
pub fn counted(home: &Path, way: Way) -> anyhow::Result<Count> {
    let (name, function, changes) = match way {
        Way::Index => ("index", "*matching*by_index*", COUNTED_CHANGES),
        Way::Each => ("each", "*matching*by_each*", 1),
    };
    let Count { instructions, allocations } =
        callgrind::within(home, &std::env::current_exe()?, &["matching", "--way", name], function)?;
    Ok(Count { instructions: instructions / changes as u64, allocations: allocations / changes as u64 })
}

fn fastest(mut run: impl FnMut() -> usize, changes: usize) -> f64 {
    let mut fastest = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        black_box(run());
        fastest = fastest.min(begin.elapsed().as_secs_f64() * 1e9 / changes as f64);
    }
    fastest
}

struct Subject {
    table: Table,
    filters: Vec<Filter>,
    index: FilterIndex<usize>,
}

impl Subject {
    fn new(equalities: usize, others: usize) -> Self {
        let abilities = Abilities { matching: Matching::All, ..Abilities::default() };
        let column = |(name, r#type): (&str, Type)| Column { abilities, ..Column::new(name, r#type, "") };
        let columns = [
            ("id", Type::Int64),
            ("owner", Type::Int64),
            ("status", Type::Int64),
            ("price", Type::Float),
            ("title", Type::Text),
            ("body", Type::Text),
        ];
        let table = Table::new("item", columns.map(column).to_vec());
        let equal = |column: &str, value: usize| compares(column, Comparison::Eq, Typed::Int(value as i64));
        let range = |from: usize| {
            let price = |comparison, value: usize| compares("price", comparison, Typed::Float(value as f64));
            Filter::And(vec![price(Comparison::Gte, from), price(Comparison::Lt, from + 3)])
        };
        let other = |number: usize| match number % 4 {
            0 => range(number),
            1 => Filter::In {
                column: "owner".to_owned(),
                values: (0..3).map(|place| Typed::Int((number * 3 + place) as i64)).collect(),
            },
            2 => Filter::Or(vec![equal("owner", number), range(number)]),
            _ => Filter::And(vec![equal("status", number % 4), range(number)]),
        };
        let filters: Vec<Filter> =
            (0..equalities).map(|owner| equal("owner", owner)).chain((0..others).map(other)).collect();
        let mut index = FilterIndex::new(&table);
        for (key, filter) in filters.iter().enumerate() {
            index.insert(filter, key);
        }
        Self { table, filters, index }
    }

    fn passes(&self, key: usize, images: &[Object; 2]) -> bool {
        let row = |columns| Row { table: &self.table, columns, related: &[] };
        images.iter().any(|columns| self.filters[key].matches(&row(columns)) == Some(true))
    }
}

fn compares(column: &str, comparison: Comparison, value: Typed) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison, value }
}

/// Rows before and after a change of their text, and of their price.
fn changes(count: usize, owners: usize, concerns: bool) -> Vec<[Object; 2]> {
    let image = |number: usize, text: &str| {
        let place = number * 7919 % owners;
        let owner = if concerns { place } else { owners * 10 + place };
        let price = if concerns { place % 10_000 } else { 1_000_000 + place };
        Object(vec![
            ("id".to_owned(), Value::Int(number as i64)),
            ("owner".to_owned(), Value::Int(owner as i64)),
            ("status".to_owned(), Value::Int(3)),
            ("price".to_owned(), Value::Int(price as i64)),
            ("title".to_owned(), Value::Text("a title of some length".to_owned())),
            ("body".to_owned(), Value::Text(text.to_owned())),
        ])
    };
    (0..count).map(|number| [image(number, "before"), image(number, "after")]).collect()
}

/// How many conditions the changes concern, by a look at each.
#[inline(never)]
fn by_each(subject: &Subject, changes: &[[Object; 2]]) -> usize {
    let concerned =
        |images: &[Object; 2]| (0..subject.filters.len()).filter(|key| subject.passes(*key, images)).count();
    changes.iter().map(concerned).sum()
}

/// The same by the index, whose candidates are decided on.
#[inline(never)]
fn by_index(subject: &mut Subject, changes: &[[Object; 2]]) -> usize {
    let (mut concerned, mut candidates) = (0, Vec::new());
    for images in changes {
        candidates.clear();
        subject.index.candidates(&[&images[0], &images[1]], |key| candidates.push(*key));
        concerned += candidates.iter().filter(|key| subject.passes(**key, images)).count();
    }
    concerned
}
