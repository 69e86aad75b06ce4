//! Paths into a request: `args.auth.org.name`, `args.doc.tags.0`, `args.auth.teams[args.doc.team]`.

use std::fmt;

/// Most levels of brackets in one path.
const MAX_DEPTH: usize = 8;

/// The root of a path: a part of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// Claims of the caller's token.
    Auth,
    /// The caller's token itself.
    Token,
    /// The project's id.
    Project,
    /// The client's own word for the operation.
    Op,
    /// The client's condition.
    Find,
    /// The document of a create.
    Doc,
    /// Changes of an update by operator: `args.update.$set.name`.
    Update,
    /// Changes of an update by column: `args.changes.name.set`.
    Changes,
    /// The client's limit and skip.
    Opts,
    /// The path of a file, with the slash at its beginning.
    Path,
    /// The last segment of that path.
    Name,
    /// Bytes of a file that is written.
    Size,
    /// Media type of a file that is written.
    ContentType,
    /// Segments of the path that the prefix of the rule names: `args.params.user` of `/users/:user`; of a call, its
    /// parameters.
    Params,
    /// The user's metadata of a file that is written.
    Meta,
}

/// What a rule is about: decides which parts of a request it may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Rows of tables.
    #[default]
    Tables,
    /// Files of buckets.
    Files,
    /// Functions of services.
    Functions,
    /// Custom events, whose payload stands where functions have parameters.
    Events,
}

impl Scope {
    fn roots(self) -> &'static [(&'static str, Root)] {
        match self {
            Scope::Tables => &Root::OF_TABLES,
            Scope::Files => &Root::OF_FILES,
            Scope::Functions | Scope::Events => &Root::OF_FUNCTIONS,
        }
    }

    /// `files` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Tables => "tables",
            Scope::Files => "files",
            Scope::Functions => "functions",
            Scope::Events => "events",
        }
    }
}

/// A path to a value of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// The part of the request that it starts from.
    pub root: Root,
    /// Steps from there.
    pub steps: Vec<Step>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Into the member, or the item, of this name.
    Name(String),
    /// Into the member or item whose name is the value at another path.
    Value(Path),
}

impl Root {
    const OF_FILES: [(&'static str, Root); 9] = [
        ("auth", Root::Auth),
        ("token", Root::Token),
        ("project", Root::Project),
        ("path", Root::Path),
        ("name", Root::Name),
        ("size", Root::Size),
        ("contentType", Root::ContentType),
        ("params", Root::Params),
        ("meta", Root::Meta),
    ];
    const OF_FUNCTIONS: [(&'static str, Root); 4] =
        [("auth", Root::Auth), ("token", Root::Token), ("project", Root::Project), ("params", Root::Params)];
    const OF_TABLES: [(&'static str, Root); 9] = [
        ("auth", Root::Auth),
        ("token", Root::Token),
        ("project", Root::Project),
        ("op", Root::Op),
        ("find", Root::Find),
        ("doc", Root::Doc),
        ("update", Root::Update),
        ("changes", Root::Changes),
        ("opts", Root::Opts),
    ];

    fn named(name: &str, scope: Scope) -> Result<Root, String> {
        if let Some((_, root)) = scope.roots().iter().find(|(known, _)| *known == name) {
            return Ok(*root);
        }
        let known = scope.roots().iter().map(|(known, _)| *known);
        Err(match (name, query::nearest(name, known.clone())) {
            ("$set" | "$inc", _) if scope == Scope::Tables => {
                format!("unknown path args.{name}, write args.update.{name}")
            }
            (_, Some(nearest)) => format!("unknown path args.{name}, did you mean args.{nearest}?"),
            (_, None) => format!(
                "args.{name} is not available in rules of {}: expected one of {}",
                scope.name(),
                known.collect::<Vec<_>>().join(", ")
            ),
        })
    }
}

impl Path {
    /// The names of its steps, where none depends on a value.
    pub fn names(&self) -> Option<Vec<&str>> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Name(name) => Some(name.as_str()),
                Step::Value(_) => None,
            })
            .collect()
    }

    /// Whether it starts at a root that is meant, or has a step that does.
    pub fn depends_on_any(&self, is_meant: &impl Fn(Root) -> bool) -> bool {
        let steps = |step: &Step| match step {
            Step::Name(_) => false,
            Step::Value(path) => path.depends_on_any(is_meant),
        };
        is_meant(self.root) || self.steps.iter().any(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (root, _) = Root::OF_TABLES
            .iter()
            .chain(&Root::OF_FILES)
            .find(|(_, root)| *root == self.root)
            .expect("every root has a name");
        write!(f, "args.{root}")?;
        for step in &self.steps {
            match step {
                Step::Name(name) => write!(f, ".{name}")?,
                Step::Value(path) => write!(f, "[{path}]")?,
            }
        }
        Ok(())
    }
}

/// A parser's position in a text.
pub struct Cursor<'a> {
    /// The part that is not read yet.
    pub rest: &'a str,
    /// What the rule is about.
    pub scope: Scope,
}

impl<'a> Cursor<'a> {
    /// Consumes `text` if it comes next.
    pub fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Consumes what comes before the next of `.[](),'"`.
    pub fn word(&mut self) -> &'a str {
        let end = self.rest.find(['.', '[', ']', '(', ')', ',', '\'', '"']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// Consumes a path.
    pub fn path(&mut self) -> Result<Path, String> {
        self.nested_path(0)
    }

    fn nested_path(&mut self, depth: usize) -> Result<Path, String> {
        if depth > MAX_DEPTH {
            return Err(format!("brackets nest deeper than {MAX_DEPTH}"));
        }
        if !self.take("args.") {
            return Err("expected a path that starts with args.".to_owned());
        }
        let root = Root::named(self.word().trim(), self.scope)?;
        let mut steps = Vec::new();
        loop {
            if self.take(".") {
                let name = self.word();
                if name.is_empty() {
                    return Err("empty step in a path".to_owned());
                }
                steps.push(Step::Name(name.to_owned()));
            } else if self.take("[") {
                steps.push(Step::Value(self.nested_path(depth + 1)?));
                if !self.take("]") {
                    return Err("expected ] after the path in brackets".to_owned());
                }
            } else {
                return Ok(Path { root, steps });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Path, String> {
        parsed_in(Scope::Tables, text)
    }

    fn parsed_in(scope: Scope, text: &str) -> Result<Path, String> {
        let mut cursor = Cursor { rest: text, scope };
        let path = cursor.path()?;
        assert_eq!(cursor.rest, "", "{text}");
        Ok(path)
    }

    #[test]
    fn a_path_is_written_as_it_was_read() {
        for text in ["args.op", "args.auth.org.name", "args.auth.map[args.doc.k[args.op]].x", "args.update.$set.name"] {
            assert_eq!(parsed(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_root_is_refused_with_the_nearest() {
        assert_eq!(parsed("args.atuh.id").unwrap_err(), "unknown path args.atuh, did you mean args.auth?");
        assert_eq!(parsed("args.$set.id").unwrap_err(), "unknown path args.$set, write args.update.$set");
        assert!(parsed("args.result.0").unwrap_err().contains("is not available in rules of tables"));
        let of_files = parsed_in(Scope::Files, "args.$set.id").unwrap_err();
        assert!(!of_files.contains("args.update"), "{of_files}");
    }

    #[test]
    fn brackets_nest_so_deep() {
        let nested = |depth: usize| format!("{}args.op{}", "args.auth[".repeat(depth), "]".repeat(depth));
        assert!(parsed(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(parsed(&nested(MAX_DEPTH + 1)).unwrap_err(), "brackets nest deeper than 8");
    }

    #[test]
    fn a_rule_looks_at_what_its_requests_have() {
        for text in ["args.path", "args.contentType", "args.params.user", "args.auth.map[args.params.user]"] {
            assert_eq!(parsed_in(Scope::Files, text).unwrap().to_string(), text);
            assert!(parsed(text).is_err(), "{text}");
        }
        assert!(parsed_in(Scope::Files, "args.find.x").unwrap_err().contains("is not available in rules of files"));
        assert_eq!(
            parsed_in(Scope::Files, "args.contenttype").unwrap_err(),
            "unknown path args.contenttype, did you mean args.contentType?"
        );
    }

    #[test]
    fn malformed_paths_are_refused() {
        for text in ["args.auth.", "args.auth..id", "args.auth[x]", "args.auth[args.op", "auth.id"] {
            assert!(parsed(text).is_err(), "{text}");
        }
        let deep = "args.auth[".repeat(1000);
        assert!(parsed(&deep).unwrap_err().contains("nest deeper"));
    }
}
