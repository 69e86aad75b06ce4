//! Changes that foreign keys make: the engine makes them by itself, and the log does not have them.

use std::collections::{BTreeMap, BTreeSet};

use mysql_async::{Conn, prelude::Queryable};

use super::layout::{LoggedRows, MappedTable};
use crate::store::mysql::MysqlError;

const RULES: &str = "\
SELECT r.TABLE_NAME, k.REFERENCED_TABLE_SCHEMA, r.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME,
    r.DELETE_RULE IN ('CASCADE', 'SET NULL'), r.UPDATE_RULE IN ('CASCADE', 'SET NULL')
FROM information_schema.REFERENTIAL_CONSTRAINTS AS r JOIN information_schema.KEY_COLUMN_USAGE AS k
    ON k.CONSTRAINT_SCHEMA = r.CONSTRAINT_SCHEMA AND k.TABLE_NAME = r.TABLE_NAME AND k.CONSTRAINT_NAME = r.CONSTRAINT_NAME
WHERE r.CONSTRAINT_SCHEMA = DATABASE()
    AND (r.DELETE_RULE IN ('CASCADE', 'SET NULL') OR r.UPDATE_RULE IN ('CASCADE', 'SET NULL'))";

/// A foreign key by which a change of one table changes another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CascadeRule {
    /// The table that is changed.
    child: String,
    /// The table that it refers to, with its database.
    parent: (String, String),
    /// A column that it refers to.
    column: String,
    on_delete: bool,
    on_update: bool,
}

/// By the tables that rows are deleted and updated in: which others that changes.
#[derive(Debug, Clone, Default)]
pub struct Cascades {
    by_parent: BTreeMap<(String, String), Vec<CascadeRule>>,
}

/// The foreign keys of the database that change rows.
pub async fn rules(conn: &mut Conn) -> Result<Vec<CascadeRule>, MysqlError> {
    type RuleRow = (String, String, String, String, bool, bool);
    let rows = conn.query::<RuleRow, _>(RULES).await?;
    let rule = |(child, database, parent, column, on_delete, on_update)| CascadeRule {
        child,
        parent: (database, parent),
        column,
        on_delete,
        on_update,
    };
    Ok(rows.into_iter().map(rule).collect())
}

impl Cascades {
    /// Those that change tables of a database, directly or by way of others.
    pub fn new(database: &str, rules: &[CascadeRule]) -> Self {
        let mut by_parent: BTreeMap<_, Vec<CascadeRule>> = BTreeMap::new();
        let children: BTreeSet<&String> = rules.iter().map(|rule| &rule.child).collect();
        for child in children {
            let (mut reached, mut next) = (BTreeSet::from([child]), vec![child]);
            while let Some(table) = next.pop() {
                for rule in rules.iter().filter(|rule| rule.child == *table) {
                    let rule = CascadeRule { child: child.clone(), ..rule.clone() };
                    by_parent.entry(rule.parent.clone()).or_default().push(rule);
                }
                let parents = rules.iter().filter(|rule| rule.child == *table && rule.parent.0 == database);
                next.extend(parents.map(|rule| &rule.parent.1).filter(|parent| reached.insert(*parent)));
            }
        }
        Self { by_parent }
    }

    /// The tables that are changed by rows of a table that were deleted, or updated.
    pub fn changed(&self, map: &MappedTable, body: &[u8], is_update: bool) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        if self.by_parent.is_empty() {
            return changed;
        }
        for rule in self.by_parent.get(&(map.database.clone(), map.table.clone())).into_iter().flatten() {
            let is_changed = match is_update {
                false => rule.on_delete,
                true => rule.on_update && LoggedRows::has_changed(body, map, &rule.column),
            };
            if is_changed {
                changed.insert(rule.child.clone());
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_by_way_of_others_is_known() {
        let rule = |child: &str, parent: &str| CascadeRule {
            child: child.to_owned(),
            parent: ("shop".to_owned(), parent.to_owned()),
            column: "id".to_owned(),
            on_delete: true,
            on_update: false,
        };
        let cascades = Cascades::new("shop", &[rule("line", "bill"), rule("bill", "customer"), rule("bill", "line")]);
        let children = |parent: &str| -> BTreeSet<String> {
            let rules = cascades.by_parent.get(&("shop".to_owned(), parent.to_owned()));
            rules.into_iter().flatten().map(|rule| rule.child.clone()).collect()
        };
        assert_eq!(children("customer"), BTreeSet::from(["bill".to_owned(), "line".to_owned()]));
        assert_eq!(children("bill"), BTreeSet::from(["bill".to_owned(), "line".to_owned()]));
        assert!(children("other").is_empty());
    }
}
