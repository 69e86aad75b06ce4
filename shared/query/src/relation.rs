//! The names of relations, derived from foreign keys; and the links that are put in their places.

use std::collections::HashSet;

use foldhash::{HashMap, HashMapExt};

use crate::{ForeignKey, Relation, Table};

/// A relation before its name is assigned.
struct Claim {
    /// The name it gets unless another claims it too.
    preferred: String,
    /// `<table>_by_<columns>`, for where another does.
    fallback: String,
    relation: Relation,
}

/// Relations of each table, in the order of `tables`; `by_name` says where a table stands in them.
pub fn all(tables: &[Table], by_name: &HashMap<String, usize>) -> Vec<Vec<Relation>> {
    let mut ones: Vec<Vec<Claim>> = tables.iter().map(|_| Vec::new()).collect();
    let mut backs: Vec<Vec<Claim>> = tables.iter().map(|_| Vec::new()).collect();
    for (index, table) in tables.iter().enumerate() {
        for key in &table.foreign_keys {
            let Some(&far) = by_name.get(&key.foreign_table) else { continue };
            let Some(on) = pairs(table, key, &tables[far]) else { continue };
            backs[far].push(reverse(table, key, &on));
            ones[index].push(to_one(table, key, on));
        }
    }
    let claims = ones.into_iter().zip(backs).map(|(ones, backs)| ones.into_iter().chain(backs).collect());
    tables.iter().zip(claims).map(|(table, claims)| assign_names(table, claims)).collect()
}

/// `relations` with the links of `table`, each in the place of the relation of its name, or at the end.
pub fn with_links<'t>(
    table: &Table,
    mut relations: Vec<Relation>,
    far: impl Fn(&str) -> Option<&'t Table>,
) -> Vec<Relation> {
    for link in &table.links {
        let has_columns =
            |far: &Table| link.on.iter().all(|(own, other)| table.column(own).is_ok() && far.column(other).is_ok());
        if table.column(&link.name).is_ok() || !far(&link.table).is_some_and(has_columns) {
            continue;
        }
        match relations.iter_mut().find(|relation| relation.name == link.name) {
            Some(relation) => relation.clone_from(link),
            None => relations.push(link.clone()),
        }
    }
    relations
}

/// Pairs of a column of `table` and the column of `far` it refers to, if the key names columns that exist.
fn pairs(table: &Table, key: &ForeignKey, far: &Table) -> Option<Vec<(String, String)>> {
    let exist = |table: &Table, names: &[String]| names.iter().all(|name| table.column(name).is_ok());
    let sound = !key.columns.is_empty()
        && key.columns.len() == key.foreign_columns.len()
        && exist(table, &key.columns)
        && exist(far, &key.foreign_columns);
    sound.then(|| key.columns.iter().cloned().zip(key.foreign_columns.iter().cloned()).collect())
}

/// From a row of `table` to the row that its key refers to.
fn to_one(table: &Table, key: &ForeignKey, on: Vec<(String, String)>) -> Claim {
    let preferred = match key.columns.as_slice() {
        [column] => match without_id(column) {
            "" => &key.foreign_table,
            name if table.column(name).is_ok() => &key.foreign_table,
            name => name,
        },
        _ => &key.foreign_table,
    };
    Claim {
        preferred: preferred.to_owned(),
        fallback: by_columns(&key.foreign_table, key),
        relation: Relation { name: String::new(), table: key.foreign_table.clone(), many: false, refers: true, on },
    }
}

/// From a row of the other table back to the rows of `table` that refer to it: one, where its key's columns are unique.
fn reverse(table: &Table, key: &ForeignKey, on: &[(String, String)]) -> Claim {
    let within = |unique: &Vec<String>| !unique.is_empty() && unique.iter().all(|name| key.columns.contains(name));
    let single = within(&table.primary_key) || table.unique_keys.iter().any(within);
    Claim {
        preferred: table.name.clone(),
        fallback: by_columns(&table.name, key),
        relation: Relation {
            name: String::new(),
            table: table.name.clone(),
            many: !single,
            refers: false,
            on: on.iter().map(|(near, far)| (far.clone(), near.clone())).collect(),
        },
    }
}

/// Gives every claim a name that no column and no other relation of `table` has.
///
/// A preferred name that is a column's or claimed twice is given to none: each of those claims gets `<table>_by_<columns>`.
/// Where even that is taken (a table that refers to itself wants it for both directions), the later ones get `_2`,
/// `_3`.
fn assign_names(table: &Table, claims: Vec<Claim>) -> Vec<Relation> {
    let mut preferred: HashMap<String, usize> = HashMap::new();
    for claim in &claims {
        *preferred.entry(claim.preferred.clone()).or_default() += 1;
    }
    let mut taken: HashSet<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    let columns = taken.clone();
    let free = |claim: &Claim| preferred[&claim.preferred] == 1 && !columns.contains(&claim.preferred);
    taken.extend(claims.iter().filter(|claim| free(claim)).map(|claim| claim.preferred.clone()));
    let mut relations = Vec::with_capacity(claims.len());
    for claim in claims {
        let name = if free(&claim) { claim.preferred } else { unique(claim.fallback, &taken) };
        taken.insert(name.clone());
        relations.push(Relation { name, ..claim.relation });
    }
    relations
}

fn unique(name: String, taken: &HashSet<String>) -> String {
    if !taken.contains(&name) {
        return name;
    }
    let mut position = 2;
    while taken.contains(&format!("{name}_{position}")) {
        position += 1;
    }
    format!("{name}_{position}")
}

fn by_columns(table: &str, key: &ForeignKey) -> String {
    format!("{table}_by_{}", key.columns.join("_"))
}

fn without_id(column: &str) -> &str {
    ["_id", "Id", "ID"].iter().find_map(|suffix| column.strip_suffix(suffix)).unwrap_or(column).trim_end_matches('_')
}

#[cfg(test)]
mod tests;
