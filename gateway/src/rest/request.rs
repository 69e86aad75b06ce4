//! Request bodies of REST.

use mesh::Fault;
use query::{Error, Object, Operation, Options, Shape, Value};

use super::fields::{Fields, is_empty};
use crate::{error, write::Write};

/// A read.
#[derive(Debug)]
pub struct ReadBody {
    /// Which rows.
    pub find: Value,
    /// JSON form of the rows; never [`Shape::Aggregate`].
    pub shape: Shape,
    /// Columns, order and how many.
    pub options: Options,
}

/// One write of a batch.
#[derive(Debug)]
pub struct BatchItem {
    /// Its table.
    pub table: String,
    /// The write.
    pub write: Write,
}

/// The read that a body asks for.
pub fn read(mut fields: Fields) -> Result<ReadBody, Fault> {
    let shape = match fields.text("op")?.as_deref() {
        Some("all") => Shape::Many,
        Some("one") => Shape::One,
        Some("count") => Shape::Count,
        Some("distinct") => return Err(error::bad_request("op distinct is not supported by this version")),
        other => return Err(invalid_op(&fields, other, "all, one, count")),
    };
    for field in ["group", "aggregate"] {
        fields.reject_unsupported(field)?;
    }
    let find = find(&mut fields)?;
    let mut inside = Fields::inside("options", fields.object("options")?.unwrap_or_default());
    inside.reject_unsupported("join")?;
    let options = Options {
        select: select(&mut inside, "select")?,
        sort: inside.take("sort").filter(|sort| !is_empty(sort)),
        skip: inside.take("skip"),
        limit: inside.take("limit"),
    };
    Ok(ReadBody { find, shape, options })
}

/// The `returning` of a write; `None` where the body has none.
pub fn returning(fields: &mut Fields) -> Result<Option<Options>, Fault> {
    let select = select(fields, "returning")?;
    Ok(select.map(|select| Options { select: Some(select), ..Options::default() }))
}

/// The items of a batch, in their order.
pub fn batch(mut fields: Fields) -> Result<Vec<BatchItem>, Fault> {
    let items = fields.list("reqs")?.unwrap_or_default();
    items.into_iter().enumerate().map(|(index, item)| batch_item(index, item)).collect()
}

fn batch_item(index: usize, item: Value) -> Result<BatchItem, Fault> {
    let name = format!("reqs[{index}]");
    let Value::Object(object) = item else {
        return Err(error::bad_request(format!("invalid {name}: expected object, found {}", item.kind())));
    };
    let mut fields = Fields::inside(name.clone(), object);
    let operation = match fields.text("type")?.as_deref() {
        Some("create") => Operation::Create,
        Some("update") => Operation::Update,
        Some("delete") => Operation::Delete,
        Some(other) => {
            let message =
                format!("invalid batch request type: {name}.type {other}, expected one of create, update, delete");
            return Err(error::bad_request(message));
        }
        None => return Err(Fault::from(Error::Required(format!("{name}.type")))),
    };
    let table = fields.text("col")?.ok_or_else(|| Fault::from(Error::Required(format!("{name}.col"))))?;
    Ok(BatchItem { table, write: write(operation, fields)? })
}

/// The write that a body asks for.
pub fn write(operation: Operation, fields: Fields) -> Result<Write, Fault> {
    match operation {
        Operation::Create => create(fields),
        Operation::Update => update(fields),
        Operation::Delete => delete(fields),
        Operation::Read => Err(Fault::internal("the request could not be answered", "a read among writes")),
    }
}

fn create(mut fields: Fields) -> Result<Write, Fault> {
    let op = fields.text("op")?;
    let docs = fields.take("doc").ok_or_else(|| Fault::from(Error::Required(fields.name("doc"))))?;
    match (op.as_deref(), &docs) {
        (Some("one"), Value::Object(_)) | (Some("all"), Value::List(_)) => Ok(Write::Create { docs }),
        (Some("one"), _) => Err(fields.wrong_type("doc", "object where op is one", &docs)),
        (Some("all"), _) => Err(fields.wrong_type("doc", "array where op is all", &docs)),
        (other, _) => Err(invalid_op(&fields, other, "one, all")),
    }
}

fn update(mut fields: Fields) -> Result<Write, Fault> {
    let one = match fields.text("op")?.as_deref() {
        Some("all") => false,
        Some("one") => true,
        Some("upsert") => return Err(error::bad_request("op upsert is not supported by this version")),
        other => return Err(invalid_op(&fields, other, "all, one")),
    };
    let find = find(&mut fields)?;
    let update = fields.object("update")?.unwrap_or_default();
    let is_given = |(_, value): &(String, Value)| !is_empty(value);
    if !update.0.iter().any(is_given) {
        let message =
            format!("invalid update: {} changes nothing, expected operators such as $set", fields.name("update"));
        return Err(error::bad_request(message));
    }
    Ok(Write::Update { find, update: Value::Object(update), one })
}

fn delete(mut fields: Fields) -> Result<Write, Fault> {
    let one = match fields.text("op")?.as_deref() {
        Some("all") => false,
        Some("one") => true,
        other => return Err(invalid_op(&fields, other, "all, one")),
    };
    Ok(Write::Delete { find: find(&mut fields)?, one })
}

fn find(fields: &mut Fields) -> Result<Value, Fault> {
    Ok(Value::Object(fields.object("find")?.unwrap_or(Object::default())))
}

/// A tree or a list of names; what is empty asks for nothing in particular.
fn select(fields: &mut Fields, name: &str) -> Result<Option<Value>, Fault> {
    match fields.take(name) {
        Some(select @ (Value::Object(_) | Value::List(_))) => Ok(Some(select).filter(|select| !is_empty(select))),
        Some(other) => Err(fields.wrong_type(name, "object or array of names", &other)),
        None => Ok(None),
    }
}

fn invalid_op(fields: &Fields, op: Option<&str>, known: &str) -> Fault {
    let name = fields.name("op");
    let seen = op.map_or_else(|| format!("{name} is required"), |op| format!("{name} {op} is not known"));
    error::bad_request(format!("invalid parameter provided: {seen}, expected one of {known}"))
}

#[cfg(test)]
mod tests {
    use query::Guard;

    use super::*;

    fn fields(json: &str) -> Fields {
        match proto::json::parse(json.as_bytes(), Guard::default()) {
            Ok(Value::Object(object)) => Fields::new(object),
            other => panic!("expected object, found {other:?}"),
        }
    }

    fn message<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        result.expect_err("the request is refused").message
    }

    #[test]
    fn a_read_needs_an_op_that_is_known() {
        let expected = "invalid parameter provided: op is required, expected one of all, one, count";
        assert_eq!(message(read(fields(r#"{"find":{}}"#))), expected);
        assert_eq!(message(read(fields("{}"))), expected);
        let unknown = "invalid parameter provided: op many is not known, expected one of all, one, count";
        assert_eq!(message(read(fields(r#"{"op":"many"}"#))), unknown);
        assert_eq!(message(read(fields(r#"{"op":1}"#))), "invalid op: expected string, found integer");
        assert_eq!(message(read(fields(r#"{"op":"distinct"}"#))), "op distinct is not supported by this version");
    }

    #[test]
    fn a_read_of_old_clients_with_every_key_empty_is_a_plain_read() {
        let body = r#"{"find":{"_id":{"$eq":"1"}},"op":"all","options":{"select":null,"sort":null,"skip":null,"limit":null,
            "distinct":null,"debug":false},"group":[],"aggregate":{},"matchWhere":[{"a":1}],"postProcess":{"x":1}}"#;
        let read = read(fields(body)).expect("it is a plain read");
        assert_eq!(read.options, Options::default());
        assert_eq!(read.shape, Shape::Many);
    }

    #[test]
    fn what_this_version_cannot_do_is_refused() {
        for (field, body) in [
            ("group", r#"{"op":"all","group":["a"]}"#),
            ("aggregate", r#"{"op":"all","aggregate":{"sum":["a"]}}"#),
            ("options.join", r#"{"op":"all","options":{"join":[{}]}}"#),
        ] {
            assert_eq!(message(read(fields(body))), format!("{field} is not supported by this version"));
        }
    }

    #[test]
    fn a_find_that_is_a_list_is_refused() {
        for body in [r#"{"op":"all","find":[]}"#, r#"{"op":"all","find":[{"a":1}]}"#] {
            assert_eq!(message(read(fields(body))), "invalid find: expected object, found array");
        }
    }

    #[test]
    fn a_create_of_one_wants_an_object_and_of_all_a_list() {
        assert!(create(fields(r#"{"op":"one","doc":{"a":1}}"#)).is_ok());
        assert!(create(fields(r#"{"op":"all","doc":[]}"#)).is_ok());
        let one = message(create(fields(r#"{"op":"one","doc":[{"a":1}]}"#)));
        assert_eq!(one, "invalid doc: expected object where op is one, found array");
        let all = message(create(fields(r#"{"op":"all","doc":{"a":1}}"#)));
        assert_eq!(all, "invalid doc: expected array where op is all, found object");
        assert_eq!(message(create(fields(r#"{"op":"one"}"#))), "doc is required");
    }

    #[test]
    fn an_update_that_changes_nothing_is_refused() {
        for body in [r#"{"op":"all"}"#, r#"{"op":"all","update":{}}"#, r#"{"op":"all","update":{"$set":{}}}"#] {
            assert!(message(update(fields(body))).starts_with("invalid update: "));
        }
    }

    #[test]
    fn a_batch_names_the_item_that_is_wrong() {
        let zap = message(batch(fields(r#"{"reqs":[{"type":"zap","col":"posts"}]}"#)));
        assert_eq!(zap, "invalid batch request type: reqs[0].type zap, expected one of create, update, delete");
        let item = r#"{"reqs":[{"type":"delete","col":"a","op":"all"},{"type":"delete","col":"a"}]}"#;
        assert!(message(batch(fields(item))).contains("reqs[1].op is required"));
        assert!(batch(fields("{}")).expect("an empty batch is one").is_empty());
    }
}
