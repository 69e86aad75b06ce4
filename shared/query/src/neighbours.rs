//! Places of tables: a database's own by their names, those of its neighbours by database and name.
//!
//! Neighbours are databases of the same project that are other schemas of the same database of a server.

use foldhash::HashMap;

use crate::Table;

/// Where each table stands in a list that begins with the database's own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Places {
    own: HashMap<String, usize>,
    neighbours: HashMap<String, HashMap<String, usize>>,
}

impl Places {
    /// The places of `tables`.
    pub fn of(tables: &[Table]) -> Self {
        let mut places = Self::default();
        for (index, table) in tables.iter().enumerate() {
            let of_database = match &table.database {
                None => &mut places.own,
                Some(database) => places.neighbours.entry(database.clone()).or_default(),
            };
            of_database.insert(table.name.clone(), index);
        }
        places
    }

    /// The number of the database's own tables.
    pub fn own(&self) -> usize {
        self.own.len()
    }

    /// The place of the table called `name` of a neighbour, or of the database itself.
    pub fn find(&self, database: Option<&str>, name: &str) -> Option<usize> {
        match database {
            None => self.own.get(name),
            Some(database) => self.neighbours.get(database)?.get(name),
        }
        .copied()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Error, ForeignKey, Relation, Schema, Table, fixtures};

    fn of(database: &str, table: Table) -> Table {
        Table { database: Some(database.to_owned()), ..table }
    }

    /// `table` with a key of one column into another database.
    fn referring(mut table: Table, column: &str, (database, foreign): (Option<&str>, &str)) -> Table {
        table.foreign_keys.push(ForeignKey {
            columns: vec![column.to_owned()],
            foreign_database: database.map(str::to_owned),
            foreign_table: foreign.to_owned(),
            foreign_columns: vec!["id".to_owned()],
        });
        table
    }

    /// Names, databases and tables of the relations of a table.
    fn relations<'s>(schema: &'s Schema, database: Option<&str>, table: &str) -> Vec<(&'s str, &'s str, &'s str)> {
        let relations = &schema.table_of(database, table).unwrap().relations;
        let told = relations.iter().map(|to| (&*to.name, to.database.as_deref().unwrap_or_default(), &*to.table));
        told.collect()
    }

    /// The sales, as seen from sales or from crm: `visible` is the form of a database's id there.
    fn shop(own: &str) -> Schema {
        let visible = |id: &'static str| (id != own).then_some(id);
        let placed = |id: &'static str, table: Table| Table { database: visible(id).map(str::to_owned), ..table };
        let user = placed("crm", fixtures::table("user", "id:int name:text", &["id"], &[]));
        let note = placed("crm", fixtures::table("note", "id:int user_id:int", &["id"], &[]));
        let note = referring(note, "user_id", (visible("crm"), "user"));
        let own_user = placed("sales", fixtures::table("user", "id:int", &["id"], &[]));
        let order = placed("sales", fixtures::table("order", "id:int user_id:int seller_id:int", &["id"], &[]));
        let order = referring(order, "user_id", (visible("crm"), "user"));
        let order = referring(order, "seller_id", (visible("sales"), "user"));
        let sales_note = placed("sales", fixtures::table("note", "id:int author_id:int", &["id"], &[]));
        let sales_note = referring(sales_note, "author_id", (visible("crm"), "user"));
        Schema::with_neighbours(own.to_owned(), vec![user, note, own_user, order, sales_note])
    }

    #[test]
    fn keys_into_a_neighbour_make_relations_both_ways() {
        let schema = shop("sales");

        assert_eq!(relations(&schema, None, "order"), [("seller", "", "user"), ("user", "crm", "user")]);
        assert_eq!(
            relations(&schema, Some("crm"), "user"),
            [("note", "crm", "note"), ("sales_note_by_author_id", "", "note"), ("order", "", "order")],
        );
        let back = &schema.table_of(Some("crm"), "user").unwrap().relations[2];
        assert_eq!((back.many, back.refers), (true, false));
        assert_eq!(schema.target(back).unwrap().name, "order");
    }

    #[test]
    fn names_are_the_same_from_either_side() {
        let (sales, crm) = (shop("sales"), shop("crm"));
        let names = |schema: &Schema, database: Option<&str>, table: &str| {
            let relations = &schema.table_of(database, table).unwrap().relations;
            relations.iter().map(|relation| relation.name.clone()).collect::<Vec<_>>()
        };
        for table in ["user", "note"] {
            assert_eq!(names(&sales, Some("crm"), table), names(&crm, None, table), "{table}");
        }
        for table in ["user", "order", "note"] {
            assert_eq!(names(&sales, None, table), names(&crm, Some("sales"), table), "{table}");
        }
    }

    #[test]
    fn what_is_left_out_keeps_its_names_from_others() {
        let mut tables = shop("sales").into_tables();
        for table in tables.iter_mut().filter(|table| table.database.is_some() && table.name == "note") {
            table.is_left_out = true;
        }
        let link = Relation {
            name: "order".to_owned(),
            long_name: None,
            database: Some("crm".to_owned()),
            table: "note".to_owned(),
            many: true,
            refers: true,
            on: vec![("id".to_owned(), "user_id".to_owned())],
        };
        let user = tables.iter_mut().find(|table| table.database.is_some() && table.name == "user");
        user.unwrap().links.push(link);

        let schema = Schema::with_neighbours("sales".to_owned(), tables);

        assert_eq!(relations(&schema, Some("crm"), "user"), [("sales_note_by_author_id", "", "note")]);
    }

    #[test]
    fn tables_of_neighbours_are_found_by_relations_only() {
        let schema = shop("sales");
        let own: Vec<&str> = schema.tables().iter().map(|table| table.name.as_str()).collect();

        assert_eq!(own, ["user", "order", "note"]);
        assert_eq!(schema.table("user").unwrap().database, None);
        let alone = Schema::new(vec![of("crm", fixtures::table("user", "id:int", &["id"], &[]))]);
        assert!(matches!(alone.table("user"), Err(Error::UnknownTable { nearest: None, .. })));
    }

    #[test]
    fn another_database_renames_no_relation() {
        let alone = |schema: &Schema| {
            let mut tables = schema.clone().into_tables();
            tables.retain(|table| table.database.is_none());
            Schema::new(tables)
        };
        for own in ["sales", "crm"] {
            let schema = shop(own);
            for table in alone(&schema).tables() {
                let with = &schema.table(&table.name).unwrap().relations;
                assert!(table.relations.iter().all(|relation| with.contains(relation)), "{with:?}");
            }
        }
    }
}
