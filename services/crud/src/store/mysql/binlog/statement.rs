//! What a statement in a binary log means for the tables that are followed.

/// What a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggedStatement {
    /// It begins a transaction, sets a savepoint, or changes no rows.
    Harmless,
    /// It ends a transaction whose rows count.
    Commit,
    /// It ends a transaction whose rows do not count.
    Rollback,
    /// Rows since a savepoint do not count.
    RollbackTo,
    /// It commits rows that were prepared before, or not in this connection.
    XaCommit,
    /// It empties the tables that it names.
    Truncate,
    /// It may change the tables that it names, or their rows.
    Names,
    /// It removes the databases that it names.
    DropDatabase,
    /// It may change rows of any table.
    Any,
}

impl LoggedStatement {
    /// What a text is.
    pub fn of(sql: &str) -> Self {
        use LoggedStatement as Is;
        let words: Vec<String> = words(after_settings(sql)).take(6).map(str::to_ascii_uppercase).collect();
        let word = |index: usize| words.get(index).map_or("", String::as_str);
        let has_table = words.iter().any(|word| word == "TABLE" || word == "TABLES");
        let is_temporary = words.iter().any(|word| word == "TEMPORARY");
        match (word(0), word(1)) {
            ("BEGIN" | "SAVEPOINT" | "RELEASE" | "START", _) => Is::Harmless,
            ("COMMIT", _) => Is::Commit,
            ("ROLLBACK", "TO") => Is::RollbackTo,
            ("ROLLBACK", _) => Is::Rollback,
            ("XA", "COMMIT") => Is::XaCommit,
            ("XA", "ROLLBACK") => Is::Rollback,
            ("XA", _) => Is::Harmless,
            // It may change rows, and is only explained as well.
            ("ANALYZE", _) if !has_table => Is::Any,
            ("SET", "STATEMENT") => Is::Any,
            ("GRANT" | "REVOKE" | "ANALYZE" | "OPTIMIZE" | "REPAIR" | "FLUSH" | "SET", _) => Is::Harmless,
            ("CREATE" | "DROP", _) if has_table && is_temporary => Is::Harmless,
            ("TRUNCATE", _) => Is::Truncate,
            ("DROP", "DATABASE" | "SCHEMA") => Is::DropDatabase,
            ("CREATE", "OR") if matches!(word(3), "DATABASE" | "SCHEMA") => Is::DropDatabase,
            ("CREATE" | "DROP" | "ALTER" | "RENAME", _) if has_table => Is::Names,
            // Indexes, views, routines, users, and what else has no rows.
            ("CREATE" | "DROP" | "ALTER" | "RENAME", _) => Is::Harmless,
            _ => Is::Any,
        }
    }
}

/// Whether a text has a name as a word, whatever the case of its letters.
pub fn names(sql: &str, name: &str) -> bool {
    let (text, name) = (sql.to_lowercase(), name.to_lowercase());
    let quoted = name.replace('`', "``");
    let is_part = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || matches!(char, '_' | '$'));
    let is_word = |at: usize, wanted: &str| {
        !is_part(text[..at].chars().next_back()) && !is_part(text[at + wanted.len()..].chars().next())
    };
    [name, quoted].iter().any(|wanted| text.match_indices(wanted.as_str()).any(|(at, _)| is_word(at, wanted)))
}

/// The statement that follows the settings that are only its own, as in `SET STATEMENT lock_wait_timeout = 1 FOR ALTER …`.
fn after_settings(sql: &str) -> &str {
    let mut rest = sql;
    let mut is_next = |wanted: &str| next_word(&mut rest).is_some_and(|word| word.eq_ignore_ascii_case(wanted));
    if !(is_next("SET") && is_next("STATEMENT")) {
        return sql;
    }
    while let Some(word) = next_word(&mut rest) {
        if word.eq_ignore_ascii_case("FOR") {
            return rest;
        }
    }
    sql
}

/// The words of a text.
fn words(sql: &str) -> impl Iterator<Item = &str> {
    let mut rest = sql;
    std::iter::from_fn(move || next_word(&mut rest))
}

/// The next word of a text. What stands in comments that the server executes are words, too; other comments are none.
fn next_word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let text = without_space(rest);
    let end = text.find(|char: char| !(char.is_alphanumeric() || char == '_')).unwrap_or(text.len());
    // A sign that is no word is one by itself.
    let end = if end == 0 { text.chars().next().map_or(0, char::len_utf8) } else { end };
    let (word, after) = text.split_at(end);
    *rest = after;
    (!word.is_empty()).then_some(word)
}

/// A text from its first word on.
fn without_space(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches(|char: char| char.is_whitespace() || matches!(char, ';' | '('));
        text = if let Some(executed) = text.strip_prefix("/*!").or_else(|| text.strip_prefix("/*M!")) {
            executed.trim_start_matches(|char: char| char.is_ascii_digit())
        } else if let Some(comment) = text.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else if let Some(line) = text.strip_prefix("--").or_else(|| text.strip_prefix('#')) {
            line.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(after) = text.strip_prefix("*/") {
            after
        } else {
            return text;
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart() {
        use LoggedStatement as Is;
        for (sql, expected) in [
            ("BEGIN", Is::Harmless),
            ("SAVEPOINT `a`", Is::Harmless),
            ("COMMIT", Is::Commit),
            ("ROLLBACK", Is::Rollback),
            ("ROLLBACK TO `a`", Is::RollbackTo),
            ("XA COMMIT X'61',X'',1", Is::XaCommit),
            ("XA ROLLBACK X'61',X'',1", Is::Rollback),
            ("truncate table `note`", Is::Truncate),
            ("/* of an application */ ALTER TABLE note ADD x INT", Is::Names),
            ("/*!50001 ALTER */ TABLE note ADD x INT", Is::Names),
            ("-- why\nALTER ONLINE IGNORE TABLE note ADD x INT", Is::Names),
            ("CREATE OR REPLACE TABLE note (x INT)", Is::Names),
            ("RENAME TABLE a TO note", Is::Names),
            ("DROP TABLE `note` /* generated by server */", Is::Names),
            ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `note`", Is::Harmless),
            ("CREATE TEMPORARY TABLE note (x INT)", Is::Harmless),
            ("CREATE INDEX i ON note (x)", Is::Harmless),
            ("CREATE DEFINER=`root`@`localhost` TRIGGER t AFTER INSERT ON note FOR EACH ROW SET @x = 1", Is::Harmless),
            ("DROP DATABASE shop", Is::DropDatabase),
            ("CREATE OR REPLACE DATABASE shop", Is::DropDatabase),
            ("SET STATEMENT lock_wait_timeout = 1, sql_mode='' FOR ALTER TABLE note ADD x INT", Is::Names),
            ("set statement max_statement_time=1 for\nTRUNCATE note", Is::Truncate),
            ("SET STATEMENT max_statement_time=1", Is::Any),
            ("SET PASSWORD FOR ann = 'x'", Is::Harmless),
            ("ANALYZE TABLE note", Is::Harmless),
            ("ANALYZE UPDATE note SET x = 1", Is::Any),
            ("GRANT SELECT ON note TO ann", Is::Harmless),
            ("INSERT INTO note VALUES (1)", Is::Any),
            ("(SELECT 1)", Is::Any),
            ("", Is::Any),
        ] {
            assert_eq!(LoggedStatement::of(sql), expected, "{sql}");
        }
    }

    #[test]
    fn names_are_words_of_a_statement() {
        for (sql, name, expected) in [
            ("ALTER TABLE `Note` ADD x INT", "note", true),
            ("ALTER TABLE shop.note ADD x INT", "note", true),
            ("ALTER TABLE notes ADD x INT", "note", false),
            ("ALTER TABLE my_note ADD x INT", "note", false),
            ("ALTER TABLE `a``b` ADD x INT", "a`b", true),
            ("DROP TABLE `naïve`", "naïve", true),
        ] {
            assert_eq!(names(sql, name), expected, "{sql} {name}");
        }
    }
}
