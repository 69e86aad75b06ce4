//! Merged statements: those of a snapshot that are equal but for their values are one for the server.
//!
//! `SELECT … WHERE "a" = $1` for a hundred values becomes one that joins the list of the values with what the statement
//! selects for each of them. Its rows have the number of the value, by which they are told apart; those of one value come in the
//! order of the statement, which a `LATERAL` item with a parameter keeps: it is run once for each item of the list.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use query::Typed;
use tokio_postgres::types::{Kind, Type};

use super::{
    PostgresRows, bind,
    connection::{Connection, Message, PreparedStatement, row_bytes, send_pipelined},
    error::PostgresError,
    pooler::TransactionKind,
    prepared, snapshot,
    statement_stats::StatementRegistry,
};
use crate::{
    bind::Bind,
    budget::SharedRoom,
    store::{MERGED_FROM, Statement, identifier},
};

/// The server's compiler of plans takes longer than all that they do, and is thought to be worth it for what many items cost
/// together.
const WITHOUT_JIT: &str = "SET LOCAL jit TO off";

/// The type of the items of a list whose values have to be told as texts.
const TEXT: &str = "\"pg_catalog\".\"text\"";

/// What is sent for some statements.
enum Sent {
    /// One as it is, by its index.
    Alone(usize),
    /// Several of them as one.
    Merged {
        /// Their indexes.
        of: Vec<usize>,
        /// The one.
        statement: Statement,
    },
}

/// Indexes of statements that are equal but for their values, in groups that are worth merging.
pub fn groups(statements: &[Statement]) -> Vec<Vec<usize>> {
    let mut by_text: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, statement) in statements.iter().enumerate() {
        by_text.entry(&statement.text).or_default().push(index);
    }
    by_text.into_values().filter(|group| group.len() >= MERGED_FROM).collect()
}

/// As [`snapshot`], with those of each of `groups` merged where their types allow it; also how many statements were sent.
pub async fn merged_snapshot(
    connection: &Connection,
    registry: &StatementRegistry,
    (statements, groups): (&[Statement], &[Vec<usize>]),
    room: &SharedRoom<'_, '_>,
) -> Result<(Vec<PostgresRows>, usize), PostgresError> {
    let stats = |statement: &Statement| registry.stats(&statement.text);
    if connection.is_shared() {
        // A statement without a name does not tell the types of its values.
        let stats: Vec<_> = statements.iter().map(stats).collect();
        return Ok((snapshot(connection, &stats, statements, room).await?, statements.len()));
    }
    let firsts: Vec<_> = groups.iter().map(|group| stats(&statements[group[0]])).collect();
    let ready = prepared(connection, &firsts).await?;
    let sent = sent(statements, groups, &ready);
    let own = |sent: &Sent| match sent {
        Sent::Alone(index) => stats(&statements[*index]),
        Sent::Merged { statement, .. } => stats(statement),
    };
    let ready = prepared(connection, &sent.iter().map(own).collect::<Vec<_>>()).await?;
    let mut messages: Vec<Message<'_>> =
        vec![super::begin(connection, TransactionKind::Snapshot), super::command(connection, WITHOUT_JIT)];
    for (ready, sent) in ready.iter().zip(&sent) {
        let args = match sent {
            Sent::Alone(index) => &statements[*index].args,
            Sent::Merged { statement, .. } => &statement.args,
        };
        messages.push(Box::pin(async move { connection.run(ready, args, room).await.map(Some) }));
    }
    messages.push(super::command(connection, "COMMIT"));
    let answers = send_pipelined(messages).await.map_err(|(_, failure)| failure)?;
    Ok((in_order(sent.iter().zip(answers), statements.len())?, sent.len()))
}

/// What is sent for `statements`; `ready` are the first statements of the groups.
fn sent(statements: &[Statement], groups: &[Vec<usize>], ready: &[PreparedStatement]) -> Vec<Sent> {
    let mut all = Vec::with_capacity(statements.len());
    let mut is_merged = vec![false; statements.len()];
    for (group, ready) in groups.iter().zip(ready) {
        let PreparedStatement::Named { statement, .. } = ready else { continue };
        let members: Vec<&Statement> = group.iter().map(|index| &statements[*index]).collect();
        if let Some(statement) = merged(&members, statement.params()) {
            group.iter().for_each(|index| is_merged[*index] = true);
            all.push(Sent::Merged { of: group.clone(), statement });
        }
    }
    all.extend((0..statements.len()).filter(|index| !is_merged[*index]).map(Sent::Alone));
    all
}

/// The answers in the order of the statements.
fn in_order<'s>(
    answers: impl Iterator<Item = (&'s Sent, PostgresRows)>,
    count: usize,
) -> Result<Vec<PostgresRows>, PostgresError> {
    let mut rows: Vec<(usize, PostgresRows)> = Vec::with_capacity(count);
    for (sent, answer) in answers {
        match sent {
            Sent::Alone(index) => rows.push((*index, answer)),
            Sent::Merged { of, .. } => rows.extend(of.iter().copied().zip(split(answer, of.len())?)),
        }
    }
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, rows)| rows).collect())
}

/// The rows of each of the merged statements, without the number that tells them apart.
fn split(answer: PostgresRows, count: usize) -> Result<Vec<PostgresRows>, PostgresError> {
    let number_at = answer.decoders.len().checked_sub(1).ok_or_else(PostgresError::unanswered)?;
    let decoders: Arc<_> = answer.decoders[..number_at].into();
    let none = || PostgresRows { rows: Vec::new(), decoders: Arc::clone(&decoders), affected: 0, size: 0 };
    let mut all: Vec<PostgresRows> = std::iter::repeat_with(none).take(count).collect();
    for row in answer.rows {
        let number: i64 = row.try_get(number_at)?;
        let of = usize::try_from(number - 1).ok().and_then(|index| all.get_mut(index));
        let of = of.ok_or_else(PostgresError::unanswered)?;
        of.size += row_bytes(&row);
        of.rows.push(row);
    }
    Ok(all)
}

/// One statement for `members`, whose placeholders have these types. `None` where a type has no name by which a text is
/// read as the value that it stands for, or where they have the same values.
fn merged(members: &[&Statement], types: &[Type]) -> Option<Statement> {
    let first = members.first()?;
    let (mut args, mut lists, mut places) = (Vec::new(), String::new(), String::new());
    let mut placeholders = Vec::with_capacity(types.len());
    for (at, ty) in types.iter().enumerate() {
        let value = first.args.get(at)?;
        let values: Option<Vec<&Bind>> = members.iter().map(|member| member.args.get(at)).collect();
        let values = values?;
        if values.iter().all(|other| *other == value) {
            args.push(value.clone());
            placeholders.push(format!("${}", args.len()));
            continue;
        }
        let name = type_name(ty)?;
        let number = args.len() + 1;
        let (list, of, cast) = match singles(&values, ty) {
            Some(values) => (values, name, String::new()),
            None => {
                let texts: Option<Vec<Typed>> = values.into_iter().map(|value| bind::as_text(value, ty)).collect();
                (texts?, TEXT.to_owned(), format!("::{name}"))
            }
        };
        args.push(Bind::List(list));
        let between = if lists.is_empty() { "" } else { ", " };
        let _ = write!(lists, "{between}pg_catalog.unnest(${number}::{of}[])");
        let _ = write!(places, "\"a{number}\", ");
        placeholders.push(format!("(\"items\".\"a{number}\"{cast})"));
    }
    if lists.is_empty() {
        return None;
    }
    let inner = with_placeholders(&first.text, &placeholders)?;
    let text = format!(
        "SELECT \"found\".*, \"items\".\"number\" FROM ROWS FROM ({lists}) WITH ORDINALITY AS \"items\"({places}\"number\") \
         CROSS JOIN LATERAL ({inner}) AS \"found\""
    );
    Some(Statement { text: text.into(), args, columns: first.columns.clone(), sources: Vec::new(), plain: None })
}

/// The values, where each is one of the type: they go out as they do alone, and what compares with them needs no cast, which a
/// row policy would keep from the indexes. `unnest` takes lists of lists apart to the last.
fn singles(values: &[&Bind], ty: &Type) -> Option<Vec<Typed>> {
    let single = |value: &&Bind| match value {
        Bind::Value(value) if !matches!(value, Typed::List(_)) => Some(value.clone()),
        _ => None,
    };
    if matches!(ty.kind(), Kind::Array(_)) { None } else { values.iter().map(single).collect() }
}

/// The name of a type to which a cast reads texts as its input does: only who owns one can declare another cast.
fn type_name(ty: &Type) -> Option<String> {
    let is_known = match ty.kind() {
        Kind::Array(item) => type_name(item).is_some(),
        Kind::Simple | Kind::Range(_) => Type::from_oid(ty.oid()).is_some() || ty.name() == "citext",
        Kind::Enum(_) => true,
        _ => false,
    };
    is_known.then(|| format!("{}.{}", identifier(ty.schema()), identifier(ty.name())))
}

/// `text` with these in the place of `$1`, `$2`…, but in names and literals; `None` where it has another.
fn with_placeholders(text: &str, placeholders: &[String]) -> Option<String> {
    let mut out = String::with_capacity(text.len() + placeholders.len() * 32);
    let mut quote = None;
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\'', '$']) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let found = after.as_bytes()[0];
        rest = &after[1..];
        if found == b'$' && quote.is_none() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: usize = rest[..digits].parse().ok()?;
            out.push_str(placeholders.get(number.checked_sub(1)?)?);
            rest = &rest[digits..];
            continue;
        }
        out.push(char::from(found));
        if found != b'$' {
            // A quote within quotes is doubled: it ends them, and begins them again.
            quote = match quote {
                None => Some(found),
                Some(open) if open == found => None,
                open => open,
            };
        }
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str, args: Vec<Bind>) -> Statement {
        Statement { text: text.into(), args, columns: [].into(), sources: Vec::new(), plain: None }
    }

    fn int(value: i64) -> Bind {
        Bind::Value(Typed::Int(value))
    }

    #[test]
    fn what_differs_is_a_list_and_what_does_not_is_one_value() {
        let text = "SELECT \"$1\" FROM t WHERE a = $2 AND b = '$1''$2' AND c = ANY($1) LIMIT $3";
        let members: Vec<Statement> = (0..2)
            .map(|number| {
                let list = Bind::List(vec![Typed::Int(number), Typed::Null]);
                statement(text, vec![list, Bind::Value(Typed::Text(format!("x{number}"))), int(5)])
            })
            .collect();
        let members: Vec<&Statement> = members.iter().collect();

        let merged = merged(&members, &[Type::INT4_ARRAY, Type::VARCHAR, Type::INT8]).unwrap();

        assert_eq!(
            &*merged.text,
            "SELECT \"found\".*, \"items\".\"number\" FROM ROWS FROM \
             (pg_catalog.unnest($1::\"pg_catalog\".\"text\"[]), \
             pg_catalog.unnest($2::\"pg_catalog\".\"varchar\"[])) WITH ORDINALITY AS \"items\"(\"a1\", \"a2\", \"number\") CROSS JOIN \
             LATERAL (SELECT \"$1\" FROM t WHERE a = (\"items\".\"a2\") AND b = '$1''$2' AND c = \
             ANY((\"items\".\"a1\"::\"pg_catalog\".\"_int4\")) LIMIT $3) AS \"found\""
        );
        let texts = |texts: [&str; 2]| Bind::List(texts.map(|text| Typed::Text(text.to_owned())).to_vec());
        assert_eq!(merged.args, [texts(["{\"0\",NULL}", "{\"1\",NULL}"]), texts(["x0", "x1"]), int(5)]);
    }

    #[test]
    fn values_go_out_as_they_are_and_lists_as_texts() {
        let of = |value: Bind, ty: Type| {
            let members = [statement("SELECT $1", vec![Bind::Value(Typed::Null)]), statement("SELECT $1", vec![value])];
            merged(&members.each_ref(), &[ty]).map(|one| (one.text.contains("\"a1\"::"), one.args))
        };
        let list = |value: Typed| vec![Bind::List(vec![Typed::Null, value])];
        let mood = Type::new("mood".to_owned(), 70_000, Kind::Enum(Vec::new()), "shop".to_owned());
        for (value, ty) in [
            (Typed::Float(0.1), Type::FLOAT4),
            (Typed::Bytes(vec![0, 255]), Type::BYTEA),
            (Typed::Text(String::new()), Type::BPCHAR),
            (Typed::Text("glad".to_owned()), mood),
        ] {
            assert_eq!(of(Bind::Value(value.clone()), ty), Some((false, list(value))));
        }
        let items = vec![Typed::Int(1), Typed::Null];
        for value in [Bind::Value(Typed::List(items.clone())), Bind::List(items)] {
            assert_eq!(of(value, Type::INT4_ARRAY), Some((true, list(Typed::Text("{\"1\",NULL}".to_owned())))));
        }
    }

    #[test]
    fn statements_of_the_same_values_or_of_types_that_others_declare_are_not_merged() {
        let same = [statement("SELECT $1", vec![int(1)]), statement("SELECT $1", vec![int(1)])];
        assert_eq!(merged(&same.each_ref(), &[Type::INT4]), None);
        let other = Type::new("pair".to_owned(), 70_000, Kind::Simple, "shop".to_owned());
        let differing = [statement("SELECT $1", vec![int(1)]), statement("SELECT $1", vec![int(2)])];
        assert!(merged(&differing.each_ref(), &[Type::INT4]).is_some());
        assert_eq!(merged(&differing.each_ref(), &[other]), None);
    }

    #[test]
    fn few_statements_of_one_text_are_no_group() {
        let of = |text: &str, count| vec![statement(text, Vec::new()); count];
        let all = [of("a", MERGED_FROM), of("b", MERGED_FROM - 1), of("a", 1)].concat();
        let expected: Vec<usize> = (0..MERGED_FROM).chain([MERGED_FROM * 2 - 1]).collect();
        assert_eq!(groups(&all), [expected]);
    }
}
