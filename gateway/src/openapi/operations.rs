//! Operations: the paths of the REST API, and the bodies that they take.

use serde_json::{Map, Value, json};

use super::{
    names::{plain, segment},
    responses,
    tables::{Components, Describer},
    values::nullable,
};

/// A path with its item.
type PathItem = (String, Value);

impl Describer<'_> {
    /// The paths of the table at an index.
    pub fn paths(&self, table: usize) -> Vec<PathItem> {
        let database = self.names.database_id(table);
        let stored = self.stored(table);
        let (Some(database_segment), Some(table_segment)) = (segment(database), segment(&stored.name)) else {
            return Vec::new();
        };
        let operations = self.operations(table).into_iter();
        let paths = operations.map(|(verb, body)| {
            let operation = json!({
                "operationId": self.component(table, verb),
                "summary": format!("{} {} in {database}", summary(verb), stored.name),
                "tags": [database],
                "requestBody": { "required": true, "content": { "application/json": { "schema": self.body(table, body) } } },
                "responses": responses::of_operation(self.answer(table, verb), verb != "read"),
            });
            (format!("/crud/{database_segment}/{table_segment}/{verb}"), json!({ "post": operation }))
        });
        paths.chain(self.watch_path(table, &format!("/crud/{database_segment}/{table_segment}"))).collect()
    }

    /// The path of the changes of rows of the table at an index, below `base`, if the caller can follow them.
    fn watch_path(&self, table: usize, base: &str) -> Option<PathItem> {
        if !self.table_reach(table).has_rows() || !self.names.is_watchable(table) {
            return None;
        }
        let parameter = |name: &str, schema: Value, description: &str| json!({ "name": name, "in": "query", "description": description, "schema": schema });
        let encoded = |name: &str, part: &str, description: &str| {
            let content = json!({ "application/json": { "schema": self.part(table, part) } });
            json!({ "name": name, "in": "query", "description": description, "content": content })
        };
        let (text, database) = (json!({ "type": "string" }), self.names.database_id(table));
        let last = "The id of the last event that was taken, to go on after it. Wins over after.";
        let operation = json!({
            "operationId": self.component(table, "watch"),
            "summary": format!("Follow the changes of rows of {} in {database}", self.stored(table).name),
            "tags": [database],
            "parameters": [
                encoded("find", "Filter", "Which rows, by columns of the table."),
                encoded("select", "Select", "Columns."),
                parameter("initial", json!({ "type": "boolean", "default": true }), "Whether rows that there are are told."),
                parameter("after", text.clone(), "The id of an event, to go on after it. Wins over initial."),
                parameter("token", text.clone(), "The token, where no header has it."),
                json!({ "name": "Last-Event-ID", "in": "header", "description": last, "schema": text }),
            ],
            "responses": responses::of_events(
                "Events initial, ready, insert, update, delete, resync, error and end; their ids are positions",
            ),
        });
        Some((format!("{base}/watch"), json!({ "get": operation })))
    }

    /// The path of batches of a database, if one of `tables`, which are its own, can be written.
    pub fn batch_path(&self, tables: std::ops::Range<usize>) -> Option<PathItem> {
        let database = self.names.database_id(tables.clone().next()?);
        let mut items = Vec::new();
        for table in tables {
            let writes = self.operations(table).into_iter().filter(|(verb, _)| *verb != "read");
            items.extend(writes.map(|(_, body)| self.part(table, &format!("{body}Item"))));
        }
        if items.is_empty() {
            return None;
        }
        let schema = json!({
            "type": "object",
            "properties": { "reqs": { "type": ["array", "null"], "items": { "anyOf": items } } },
        });
        let operation = json!({
            "operationId": format!("{}.batch", plain(database)),
            "summary": format!("Write to tables of {database} in one transaction"),
            "tags": [database],
            "requestBody": { "required": false, "content": { "application/json": { "schema": schema } } },
            "responses": responses::of_operation(json!({ "type": "object" }), true),
        });
        Some((format!("/crud/{}/batch", segment(database)?), json!({ "post": operation })))
    }

    /// Bodies of the operations of the table at an index.
    pub fn bodies(&self, table: usize) -> Components {
        let mut all = Components::new();
        for (verb, body) in self.operations(table) {
            let schema = match verb {
                "create" => self.create(table),
                "update" => self.update(table),
                "delete" => self.delete(table),
                _ => self.read(table),
            };
            all.push((self.component(table, body), schema));
            if verb != "read" {
                all.push((self.component(table, &format!("{body}Item")), self.item(table, verb, body)));
            }
        }
        all
    }

    /// What the caller can do with the table at an index: the last part of its path and the name of its body.
    fn operations(&self, table: usize) -> Vec<(&'static str, &'static str)> {
        let (reach, stored) = (self.table_reach(table), self.stored(table));
        let all = [
            (reach.read.is_some(), ("read", "Read")),
            (reach.insert_columns(stored).is_some(), ("create", "Create")),
            (reach.update_columns(stored).is_some(), ("update", "Update")),
            (reach.delete.is_some(), ("delete", "Delete")),
        ];
        all.into_iter().filter(|(is_possible, _)| *is_possible).map(|(_, operation)| operation).collect()
    }

    /// The body of a request: that of an item of a batch, and for a write what it returns.
    fn body(&self, table: usize, body: &str) -> Value {
        let schema = self.part(table, body);
        if body == "Read" || !self.table_reach(table).has_rows() {
            return schema;
        }
        let returning = json!({ "type": "object", "properties": { "returning": self.part(table, "Select") } });
        json!({ "allOf": [schema, returning] })
    }

    fn read(&self, table: usize) -> Value {
        let find = nullable(self.part(table, "Filter"));
        let count = json!({
            "type": "object",
            "required": ["op"],
            "properties": { "op": { "const": "count" }, "find": find },
        });
        if !self.table_reach(table).has_rows() {
            return count;
        }
        let mut options = Map::new();
        options.insert("select".to_owned(), self.part(table, "Select"));
        options.extend(self.page(table));
        let rows = json!({
            "type": "object",
            "required": ["op"],
            "properties": {
                "op": { "enum": ["all", "one"] },
                "find": find,
                "options": { "type": ["object", "null"], "properties": options },
            },
        });
        json!({ "oneOf": [rows, count] })
    }

    fn create(&self, table: usize) -> Value {
        let doc = self.part(table, "Insert");
        let of = |op: &str, doc: Value| {
            json!({
                "type": "object",
                "required": ["op", "doc"],
                "properties": { "op": { "const": op }, "doc": doc },
            })
        };
        json!({ "oneOf": [of("one", doc.clone()), of("all", json!({ "type": "array", "items": doc }))] })
    }

    fn update(&self, table: usize) -> Value {
        let mut schema = self.delete_or_update(table, false);
        schema["required"] = json!(["op", "update"]);
        schema["properties"]["update"] = self.part(table, "Changes");
        schema
    }

    fn delete(&self, table: usize) -> Value {
        self.delete_or_update(table, true)
    }

    fn delete_or_update(&self, table: usize, is_delete: bool) -> Value {
        let reach = self.table_reach(table);
        let (allowed, own) = if is_delete { (&reach.delete, "DeleteFilter") } else { (&reach.update, "UpdateFilter") };
        let part = allowed.as_ref().map_or(own, |allowed| self.filter_part(table, allowed, own));
        let mut find = nullable(self.part(table, part));
        find["description"] = "Which rows. Without a condition all of them, where the rules allow that.".into();
        json!({
            "type": "object",
            "required": ["op"],
            "properties": { "op": { "enum": ["all", "one"] }, "find": find },
        })
    }

    /// An item of a batch.
    fn item(&self, table: usize, verb: &str, body: &str) -> Value {
        let of = json!({
            "type": "object",
            "required": ["type", "col"],
            "properties": { "type": { "const": verb }, "col": { "const": self.stored(table).name } },
        });
        json!({ "allOf": [of, self.part(table, body)] })
    }

    /// What an operation answers when it is done.
    fn answer(&self, table: usize, verb: &str) -> Value {
        let count = json!({ "type": "integer", "minimum": 0 });
        let has_rows = self.table_reach(table).has_rows();
        if verb != "read" {
            let mut members = Map::new();
            if has_rows {
                members.insert("affected".to_owned(), count);
                members.insert("result".to_owned(), json!({ "type": "array", "items": self.part(table, "Row") }));
            }
            return json!({ "type": "object", "properties": members, "additionalProperties": false });
        }
        let result = match has_rows {
            true => {
                let row = self.part(table, "Row");
                json!({ "anyOf": [{ "type": "array", "items": row }, row, count] })
            }
            false => count,
        };
        json!({
            "type": "object",
            "required": ["result"],
            "properties": { "result": result, "truncated": { "const": true } },
            "additionalProperties": false,
        })
    }
}

fn summary(verb: &str) -> &'static str {
    match verb {
        "create" => "Insert rows into",
        "update" => "Change rows of",
        "delete" => "Delete rows of",
        _ => "Read or count rows of",
    }
}
