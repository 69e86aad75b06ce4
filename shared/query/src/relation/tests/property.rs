//! Properties of the names of relations, over schemas of few names that get into each other's way.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use crate::fixtures::{chinook, table};
use crate::{ForeignKey, Relation, Schema, Table};

const TABLES: [&str; 6] = ["user", "post", "parent", "children", "tag", "user_row"];
const COLUMNS: [&str; 14] = [
    "user",
    "user_id",
    "user_code",
    "id_user",
    "parent",
    "parent_id",
    "post",
    "post_id",
    "children",
    "owner",
    "owner_id",
    "reply_to",
    "parent_row",
    "tag_id",
];

/// A name, and what it means: the direction, the other table and the pairs of columns.
type Meanings = BTreeMap<String, (bool, String, Vec<(String, String)>)>;

fn meaning(relation: &Relation) -> (bool, String, Vec<(String, String)>) {
    (relation.refers, relation.table.clone(), relation.on.clone())
}

/// The names of a table's relations, also those that are not published.
fn meanings(table: &Table) -> Meanings {
    let names = |relation: &Relation| [Some(relation.name.clone()), relation.long_name.clone()];
    let all = table.relations.iter().flat_map(|one| names(one).into_iter().flatten().map(|name| (name, meaning(one))));
    all.collect()
}

/// The preferred names that are free, and long names for all others.
fn without_alternatives(table: &Table) -> Meanings {
    let mut claims: Vec<(String, String, &Relation)> = Vec::new();
    for relation in &table.relations {
        let columns: Vec<&str> = match relation.refers {
            true => relation.on.iter().map(|(near, _)| near.as_str()).collect(),
            false => relation.on.iter().map(|(_, far)| far.as_str()).collect(),
        };
        let preferred = match columns.as_slice() {
            [column] if relation.refers => {
                let name = column.strip_suffix("_id").unwrap_or(column);
                if table.column(name).is_ok() { relation.table.clone() } else { name.to_owned() }
            }
            _ => relation.table.clone(),
        };
        claims.push((preferred, format!("{}_by_{}", relation.table, columns.join("_")), relation));
    }
    let is_free = |name: &String| {
        claims.iter().filter(|(preferred, ..)| preferred == name).count() == 1 && table.column(name).is_err()
    };
    let mut taken: HashSet<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    taken.extend(claims.iter().map(|(preferred, ..)| preferred.clone()).filter(|name| is_free(name)));
    let mut named = Meanings::new();
    for (preferred, long, relation) in &claims {
        let mut name = if is_free(preferred) { preferred.clone() } else { long.clone() };
        let mut position = 2;
        while !is_free(preferred) && !taken.insert(name.clone()) {
            name = format!("{long}_{position}");
            position += 1;
        }
        named.insert(name, meaning(relation));
    }
    named
}

fn tables() -> impl Strategy<Value = Vec<Table>> {
    let key = (0..COLUMNS.len(), 0..TABLES.len(), any::<bool>(), prop::bool::weighted(0.1));
    let of_one = (prop::collection::vec(0..COLUMNS.len(), 0..3), prop::collection::vec(key, 0..4));
    prop::collection::vec(of_one, TABLES.len()).prop_map(|all| {
        let mut tables = Vec::new();
        for (name, (columns, keys)) in TABLES.into_iter().zip(all) {
            let mut wanted: Vec<&str> =
                columns.into_iter().chain(keys.iter().map(|key| key.0)).map(|at| COLUMNS[at]).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let columns = wanted.iter().map(|column| format!("{column}:int")).collect::<Vec<_>>().join(" ");
            let mut table = table(name, &format!("id:int code:int tenant:int {columns}"), &["id"], &[]);
            table.foreign_keys = keys.into_iter().map(foreign_key).collect();
            tables.push(table);
        }
        tables
    })
}

fn foreign_key((column, far, to_code, composite): (usize, usize, bool, bool)) -> ForeignKey {
    let foreign = if to_code { "code" } else { "id" };
    let shared = composite.then_some("tenant");
    let columns = |own: &str| shared.into_iter().chain([own]).map(str::to_owned).collect();
    ForeignKey {
        columns: columns(COLUMNS[column]),
        foreign_database: None,
        foreign_table: TABLES[far].to_owned(),
        foreign_columns: columns(foreign),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_name_is_of_one_thing(tables in tables()) {
        let schema = Schema::new(tables);
        for table in schema.tables() {
            let mut seen: HashSet<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
            for relation in &table.relations {
                prop_assert!(seen.insert(&relation.name), "{} of {}", relation.name, table.name);
                prop_assert!(relation.long_name.iter().all(|name| seen.insert(name)), "{relation:?} of {}", table.name);
            }
        }
    }

    #[test]
    fn what_has_a_name_without_alternatives_keeps_it(tables in tables()) {
        let schema = Schema::new(tables);
        for table in schema.tables() {
            for (name, means) in without_alternatives(table) {
                prop_assert_eq!(meaning(table.relation(&name).unwrap()), means, "{} of {}", name, &table.name);
            }
            for relation in &table.relations {
                let is_preferred = relation.long_name.is_none() && !relation.name.contains("_by_");
                prop_assert!(!is_preferred || without_alternatives(table).contains_key(&relation.name));
            }
        }
    }

    #[test]
    fn the_order_of_tables_does_not_matter(tables in tables(), seed in any::<prop::sample::Index>()) {
        let mut turned = tables.clone();
        turned.rotate_left(seed.index(tables.len()));
        turned.reverse();
        let (schema, turned) = (Schema::new(tables), Schema::new(turned));
        for table in schema.tables() {
            prop_assert_eq!(meanings(table), meanings(turned.table(&table.name).unwrap()));
        }
    }

    #[test]
    fn a_table_that_is_added_takes_no_name_but_its_own(tables in tables(), added in 0..TABLES.len()) {
        let mut tables = tables;
        for table in &mut tables {
            table.foreign_keys.retain(|key| table.name == TABLES[added] || key.foreign_table != TABLES[added]);
        }
        let after = Schema::new(tables.clone());
        tables.remove(added);
        for table in Schema::new(tables).tables() {
            let after = after.table(&table.name).unwrap();
            // The long names of a self reference depend on whether both directions need one.
            let published = table.relations.iter().filter(|relation| !relation.name.contains("_by_"));
            for relation in published.filter(|relation| relation.name != TABLES[added]) {
                let now = after.find_relation(&relation.name).map(meaning);
                prop_assert!(now.is_none_or(|now| now == meaning(relation)), "{relation:?} of {}", &table.name);
            }
        }
    }
}

/// As in MusicBrainz: columns that are called as the table they refer to, trees, and pairs of keys.
#[test]
fn of_common_shapes_none_is_called_by_its_long_name() {
    let music = Schema::new(vec![
        table("area", "id:int type:int parent:int", &["id"], &[("type", "area_type", "id"), ("parent", "area", "id")]),
        table("area_type", "id:int parent:int", &["id"], &[("parent", "area_type", "id")]),
        table(
            "artist",
            "id:int area:int begin_area:int",
            &["id"],
            &[("area", "area", "id"), ("begin_area", "area", "id")],
        ),
        table(
            "l_artist_artist",
            "id:int entity0:int entity1:int link:int",
            &["id"],
            &[("entity0", "artist", "id"), ("entity1", "artist", "id"), ("link", "link", "id")],
        ),
        table("link", "id:int", &["id"], &[]),
        table(
            "order",
            "id:int billing_id:int shipping_id:int",
            &["id"],
            &[("billing_id", "address", "id"), ("shipping_id", "address", "id")],
        ),
        table("address", "id:int", &["id"], &[]),
    ]);
    let mut counts = [0; 2];
    for table in chinook().tables().iter().chain(music.tables()) {
        for relation in &table.relations {
            assert!(!relation.name.contains("_by_"), "{} of {}", relation.name, table.name);
            counts[usize::from(relation.long_name.is_some())] += 1;
        }
    }
    // Of Chinook 20 and 2.
    assert_eq!(counts, [25, 17]);
}
