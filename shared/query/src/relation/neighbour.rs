//! Names of relations into another database of the project: they make way for all others.

use std::collections::HashSet;

use foldhash::{HashMap, HashMapExt};

use super::{Claim, unique};
use crate::{Relation, Table};

/// Gives names to `claims` of `table` and adds their relations.
///
/// Each gets the name that it would have within one database, where no column and no relation has it and no other claim
/// wants it; else `<database>_<table>_by_<columns>`. So a database that comes to a project renames no relation
/// within another.
pub fn assign_names(table: &Table, relations: &mut Vec<Relation>, claims: Vec<Claim>) {
    let mut taken: HashSet<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    for relation in relations.iter() {
        taken.insert(relation.name.clone());
        taken.extend(relation.long_name.clone());
    }
    let mut wanted: HashMap<&str, usize> = HashMap::new();
    for claim in &claims {
        *wanted.entry(&claim.preferred).or_default() += 1;
    }
    let is_free = |claim: &Claim| wanted[claim.preferred.as_str()] == 1 && !taken.contains(&claim.preferred);
    let free: Vec<bool> = claims.iter().map(is_free).collect();
    let names = claims.iter().zip(&free).filter(|(_, free)| **free).map(|(claim, _)| claim.preferred.clone());
    taken.extend(names.collect::<Vec<_>>());

    let mut named: Vec<(Claim, bool)> = claims.into_iter().zip(free).collect();
    // The same on every side, whichever database looks.
    named.sort_by(|(one, _), (other, _)| order(one).cmp(&order(other)));
    for (claim, is_free) in named {
        let name = match (is_free, claim.into) {
            (true, _) => claim.preferred,
            (false, into) => unique(format!("{}_{}", into.unwrap_or_default(), claim.long), &taken),
        };
        taken.insert(name.clone());
        relations.push(Relation { name, ..claim.relation });
    }
}

/// Relations to one row first, then by database, table and columns.
fn order(claim: &Claim) -> (bool, Option<&str>, &str, &[(String, String)]) {
    (!claim.relation.refers, claim.into.as_deref(), &claim.relation.table, &claim.relation.on)
}
