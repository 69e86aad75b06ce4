//! Relations and their names, derived from foreign keys.

mod neighbour;
mod word;

use std::collections::HashSet;

use foldhash::{HashMap, HashMapExt};

use crate::{ForeignKey, Relation, Table, neighbours::Places};

/// A relation before its name is assigned.
struct Claim {
    /// The name it gets unless another claims it too, or a column has it.
    preferred: String,
    /// What it is called where that fails, best first.
    alternatives: Vec<String>,
    /// `<table>_by_<columns>`.
    long: String,
    /// The id of the database that it leads into from another.
    into: Option<String>,
    relation: Relation,
}

/// Relations of each table of `database` and of its neighbours, in the order of `tables`; `places` says where a table
/// stands in them. Those into another database stand last.
pub fn all(database: &str, tables: &[Table], places: &Places) -> Vec<Vec<Relation>> {
    let mut ones: Vec<Vec<Claim>> = tables.iter().map(|_| Vec::new()).collect();
    let mut backs: Vec<Vec<Claim>> = tables.iter().map(|_| Vec::new()).collect();
    for (index, table) in tables.iter().enumerate() {
        for key in &table.foreign_keys {
            let Some(far) = places.find(key.foreign_database.as_deref(), &key.foreign_table) else { continue };
            let Some(on) = pairs(table, key, &tables[far]) else { continue };
            let crosses = table.database != key.foreign_database;
            let into = |id: &Option<String>| crosses.then(|| id.as_deref().unwrap_or(database).to_owned());
            backs[far].push(Claim { into: into(&table.database), ..reverse(table, key, &on) });
            ones[index].push(Claim { into: into(&key.foreign_database), ..to_one(table, key, on) });
        }
    }
    let claims = ones.into_iter().zip(backs).map(|(ones, backs)| ones.into_iter().chain(backs));
    let named = |(table, claims): (&Table, _)| {
        let (inner, outer): (Vec<Claim>, Vec<Claim>) =
            Iterator::partition(claims, |claim: &Claim| claim.into.is_none());
        let mut relations = assign_names(table, inner);
        neighbour::assign_names(table, &mut relations, outer);
        relations
    };
    tables.iter().zip(claims).map(named).collect()
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
    let role = word::role(key);
    Claim {
        preferred: named_by_column(table, key).unwrap_or(&key.foreign_table).to_owned(),
        alternatives: vec![role.to_owned(), format!("{role}_row")],
        long: by_columns(&key.foreign_table, key),
        into: None,
        relation: relation((&key.foreign_database, &key.foreign_table), false, true, on),
    }
}

/// From a row of the other table back to the rows of `table` that refer to it: one, where its key's columns are unique.
fn reverse(table: &Table, key: &ForeignKey, on: &[(String, String)]) -> Claim {
    let within = |unique: &Vec<String>| !unique.is_empty() && unique.iter().all(|name| key.columns.contains(name));
    let single = within(&table.primary_key) || table.unique_keys.iter().any(within);
    let role = word::role(key);
    let mut alternatives = Vec::new();
    if key.foreign_table == table.name && key.foreign_database == table.database {
        // Where the column names the other direction, the table's name is the preferred one of this one alone.
        let own_name = named_by_column(table, key).is_none().then_some(table.name.as_str());
        alternatives.extend(word::opposite(role).or(own_name).map(str::to_owned));
    }
    alternatives.push(format!("{}_of_{role}", table.name));
    let on = on.iter().map(|(near, far)| (far.clone(), near.clone())).collect();
    Claim {
        preferred: table.name.clone(),
        alternatives,
        long: by_columns(&table.name, key),
        into: None,
        relation: relation((&table.database, &table.name), !single, false, on),
    }
}

fn relation(
    (database, table): (&Option<String>, &str),
    many: bool,
    refers: bool,
    on: Vec<(String, String)>,
) -> Relation {
    let (database, table) = (database.clone(), table.to_owned());
    Relation { name: String::new(), long_name: None, database, table, many, refers, on }
}

/// The name that the column of a key gives: what is left of it without `_id`, unless that is a column of its own.
fn named_by_column<'k>(table: &Table, key: &'k ForeignKey) -> Option<&'k str> {
    let [column] = key.columns.as_slice() else { return None };
    let name = word::without_id(column);
    let is_column = table.columns.iter().any(|column| column.name == name);
    (!name.is_empty() && !is_column).then_some(name)
}

/// Gives every claim a name that no column and no other relation of `table` has, whatever the order of claims.
///
/// A preferred name that is a column's or claimed twice is given to none: each of those claims gets its best alternative,
/// and is found by its long name too. An alternative that anything else is called or prefers, or that two have, is given
/// to none as well; a claim without any left is called by its long name.
fn assign_names(table: &Table, claims: Vec<Claim>) -> Vec<Relation> {
    let columns: HashSet<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let mut claimants: HashMap<&str, Vec<&Claim>> = HashMap::new();
    for claim in &claims {
        claimants.entry(&claim.preferred).or_default().push(claim);
    }
    let is_free =
        |claim: &Claim| claimants[claim.preferred.as_str()].len() == 1 && !columns.contains(&*claim.preferred);
    let preferred: Vec<bool> = claims.iter().map(is_free).collect();
    let mut taken: HashSet<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    taken.extend(claims.iter().zip(&preferred).filter(|(_, free)| **free).map(|(claim, _)| claim.preferred.clone()));
    let long = long_names(&claims, &preferred, &mut taken);
    // A self reference claims the table's name for both directions: the one back may have it.
    let is_own = |of: &[&Claim]| of.len() == 2 && of.iter().all(|claim| claim.relation.table == table.name);
    taken.extend(claimants.iter().filter(|(_, of)| !is_own(of)).map(|(name, _)| (*name).to_owned()));
    let chosen = best_alternatives(&claims, &long, &taken);
    let named = claims.into_iter().zip(long).zip(chosen);
    named
        .map(|((claim, long), chosen)| match (long, chosen) {
            (None, _) => Relation { name: claim.preferred, ..claim.relation },
            (Some(long), None) => Relation { name: long, ..claim.relation },
            (long, Some(name)) => Relation { name, long_name: long, ..claim.relation },
        })
        .collect()
}

/// The long name of each claim without its preferred one; the later of two that want the same gets `_2`, `_3`. Keys of
/// the table itself come first, then those of the others in the order of their names.
fn long_names(claims: &[Claim], preferred: &[bool], taken: &mut HashSet<String>) -> Vec<Option<String>> {
    let mut order: Vec<usize> = (0..claims.len()).filter(|index| !preferred[*index]).collect();
    order.sort_by_key(|index| {
        let relation = &claims[*index].relation;
        if relation.refers { (false, "") } else { (true, relation.table.as_str()) }
    });
    let mut names = vec![None; claims.len()];
    for index in order {
        let name = unique(claims[index].long.clone(), taken);
        taken.insert(name.clone());
        names[index] = Some(name);
    }
    names
}

/// For each claim with a long name the first of its alternatives that is not taken and that no other has among its own.
fn best_alternatives(claims: &[Claim], long: &[Option<String>], taken: &HashSet<String>) -> Vec<Option<String>> {
    let unnamed = || claims.iter().zip(long).map(|(claim, long)| long.is_some().then_some(&claim.alternatives));
    let mut wanted: HashMap<&str, usize> = HashMap::new();
    for name in unnamed().flatten().flatten() {
        *wanted.entry(name).or_default() += 1;
    }
    let is_free = |name: &&String| wanted[name.as_str()] == 1 && !taken.contains(*name);
    unnamed().map(|alternatives| alternatives?.iter().find(is_free).cloned()).collect()
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

#[cfg(test)]
mod tests;
