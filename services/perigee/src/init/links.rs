//! Relations that the names of columns and tables suggest and that no foreign key declares.

use std::collections::{HashMap, HashSet};

use query::{Column, Comparisons, Schema, Table, Type};

/// Bytes of the longest name of a column that is taken apart.
const NAME_BYTES_MAX: usize = 128;

/// Names of unique columns that others refer to as to a primary key; plain.
const KEY_NAMES: [&str; 5] = ["id", "uuid", "guid", "code", "key"];

/// A link that a table's document offers.
#[derive(Debug, PartialEq)]
pub struct SuggestedLink {
    /// What the relation would be called.
    pub name: String,
    /// The table that it leads to.
    pub table: String,
    /// The column of the table whose document it is in.
    pub column: String,
    /// The key of the other table.
    pub foreign_column: String,
}

/// Tables by their names, for looking up what columns are called after.
pub struct TableIndex<'s> {
    tables: &'s [Table],
    by_name: HashMap<String, Vec<usize>>,
}

impl<'s> TableIndex<'s> {
    /// The index of the tables of `schema`.
    pub fn of(schema: &'s Schema) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, table) in schema.tables().iter().enumerate() {
            by_name.entry(plain(&table.name)).or_default().push(index);
        }
        Self { tables: schema.tables(), by_name }
    }

    /// Links from `table` over its columns, except those of a foreign key and those that are `declared` otherwise.
    ///
    /// `user_id` suggests `user` or `users` where that has a key `id` or `user_id` of the same type, unless there is a
    /// `user_type`: then the name of a table is in each row.
    pub fn suggested(&self, table: &Table, declared: &[&str]) -> Vec<SuggestedLink> {
        let keys = table.foreign_keys.iter().flat_map(|key| &key.columns).map(String::as_str);
        let declared: HashSet<&str> = keys.chain(declared.iter().copied()).collect();
        let columns: HashSet<String> = table.columns.iter().map(|column| plain(&column.name)).collect();
        let names = table.columns.iter().map(|column| column.name.clone());
        let mut taken: HashSet<String> = names.chain(table.relations.iter().map(|one| one.name.clone())).collect();
        let mut links = Vec::new();
        for column in table.columns.iter().filter(|column| !declared.contains(column.name.as_str())) {
            let Some((base, far, key)) = self.referred(table, column) else { continue };
            if columns.contains(&format!("{}type", plain(base))) {
                continue;
            }
            let names = [base.to_owned(), format!("{base}_row")];
            let Some(name) = names.into_iter().find(|name| taken.insert(name.clone())) else { continue };
            let (table, column) = (far.name.clone(), column.name.clone());
            links.push(SuggestedLink { name, table, column, foreign_column: key.name.clone() });
        }
        links
    }

    /// What `column` is called after, with the table and the key that it names: `user`, `users` and `id` for `user_id`.
    fn referred<'c>(&self, table: &Table, column: &'c Column) -> Option<(&'c str, &'s Table, &'s Column)> {
        splits(&column.name).find_map(|(base, rest)| {
            let far = self.called_after(&plain(base))?;
            let rest = plain(rest);
            let key = key_called(far, &rest, &rest).or_else(|| key_called(far, &plain(&column.name), &rest))?;
            let is_itself = far.name == table.name && key.name == column.name;
            (!is_itself && is_alike(column, key)).then_some((base, far, key))
        })
    }

    /// The only table called `base`, or as several of them are called in English.
    fn called_after(&self, base: &str) -> Option<&'s Table> {
        let of_y = base.strip_suffix('y').map(|stem| format!("{stem}ies"));
        let forms = [Some(base.to_owned()), Some(format!("{base}s")), Some(format!("{base}es")), of_y];
        let called = forms.iter().flatten().find_map(|form| self.by_name.get(form))?;
        match called.as_slice() {
            [index] => Some(&self.tables[*index]),
            _ => None,
        }
    }
}

/// `name` taken apart where a word begins, the last word first: `user_group_id` is `user_group` and `id`, then `user` and
/// `group_id`.
fn splits(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let begins_word = move |place: usize| {
        let before = name[..place].chars().next_back();
        match name[place..].chars().next() {
            Some('_') => true,
            Some(c) => c.is_uppercase() && before.is_some_and(|c| c.is_lowercase() || c.is_numeric()),
            None => false,
        }
    };
    let last = if name.len() <= NAME_BYTES_MAX { name.len() } else { 0 };
    let places = (1..last).rev().filter(move |place| name.is_char_boundary(*place) && begins_word(*place));
    let parts = places.map(move |place| (name[..place].trim_matches('_'), name[place..].trim_matches('_')));
    parts.filter(|(base, rest)| !base.is_empty() && !rest.is_empty())
}

/// `name` as others may write it: without `_`, in lower case.
fn plain(name: &str) -> String {
    name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

/// The column of `table` that is a key by itself and is called `name`: the primary key, or another one where the `kind`
/// of the column that refers to it says so.
fn key_called<'t>(table: &'t Table, name: &str, kind: &str) -> Option<&'t Column> {
    let others = table.unique_keys.iter().filter(|_| KEY_NAMES.contains(&kind));
    let mut single = std::iter::once(&table.primary_key).chain(others).filter_map(|key| match key.as_slice() {
        [column] if plain(column) == name => Some(column),
        _ => None,
    });
    table.column(single.next()?).ok()
}

/// Whether the values of two columns can be equal.
fn is_alike(column: &Column, key: &Column) -> bool {
    let is_integer = |column: &Column| matches!(column.r#type, Type::Int16 | Type::Int32 | Type::Int64);
    let is_comparable = |column: &Column| column.readable && column.comparisons() != Comparisons::None;
    let is_same = match (column.r#type, key.r#type) {
        (Type::Other, Type::Other) => column.native == key.native,
        (one, other) => one == other || is_integer(column) && is_integer(key),
    };
    is_same && is_comparable(column) && is_comparable(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_where_words_begin() {
        let parts = |name: &'static str| splits(name).collect::<Vec<_>>();
        assert_eq!(parts("user_group_id"), [("user_group", "id"), ("user", "group_id")]);
        assert_eq!(parts("userGroupID"), [("userGroup", "ID"), ("user", "GroupID")]);
        assert_eq!(parts("größe_id"), [("größe", "id")]);
        for whole in ["id", "_id", "user", "ID", "user_", ""] {
            assert_eq!(parts(whole), [], "{whole}");
        }
        assert_eq!(splits(&"a_".repeat(100)).count(), 0);
    }
}
