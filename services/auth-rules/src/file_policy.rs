//! Policies of files by prefix: the most specific prefix of a path decides.

use std::{cmp::Reverse, fmt, sync::Arc};

use query::file::{FileOperation, FilePath};

use crate::{
    path::Root,
    rule::{self, Policy},
};

/// The beginning of paths: segments, some of which take any.
#[derive(Debug, Clone, PartialEq)]
pub struct Prefix(Vec<Segment>);

#[derive(Debug, Clone, PartialEq)]
enum Segment {
    Literal(String),
    /// Takes any segment, which rules see under this name.
    Capture(String),
}

impl Prefix {
    /// Parses `/users/:user`; the empty text and `/` are the beginning of every path.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let path = FilePath::parse(text).map_err(|error| error.to_string())?;
        let mut segments: Vec<Segment> = Vec::new();
        for segment in path.segments() {
            let segment = match segment.strip_prefix(':') {
                None => Segment::Literal(segment.to_owned()),
                Some("") => return Err(format!("invalid prefix {text:?}: expected a name after :")),
                Some(name) => Segment::Capture(name.to_owned()),
            };
            if matches!(segment, Segment::Capture(_)) && segments.contains(&segment) {
                return Err(format!("invalid prefix {text:?}: two segments have one name"));
            }
            segments.push(segment);
        }
        Ok(Self(segments))
    }

    /// Whether it matches the same paths as `other`.
    pub fn is_same(&self, other: &Prefix) -> bool {
        let is_same = |(one, other): (&Segment, &Segment)| match (one, other) {
            (Segment::Capture(_), Segment::Capture(_)) => true,
            (one, other) => one == other,
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(is_same)
    }

    /// What it captures of the path, if the path begins with it.
    fn captured(&self, path: &FilePath) -> Option<Vec<(String, String)>> {
        let mut captured = Vec::new();
        let mut segments = path.segments();
        for segment in &self.0 {
            match (segment, segments.next()?) {
                (Segment::Literal(literal), found) if literal == found => {}
                (Segment::Literal(_), _) => return None,
                (Segment::Capture(name), found) => captured.push((name.clone(), found.to_owned())),
            }
        }
        Some(captured)
    }

    /// Whether it is the beginning of a path below `folder` and of none that the folder itself has.
    fn is_below(&self, folder: &FilePath) -> bool {
        let mut own = self.0.iter();
        let fits = folder.segments().all(|found| match own.next() {
            Some(Segment::Literal(literal)) => literal == found,
            Some(Segment::Capture(_)) => true,
            None => false,
        });
        fits && own.next().is_some()
    }

    /// Sorts more specific ones first: more segments, then literals before captures from the left, then longer ones.
    fn specificity(&self) -> impl Ord + use<> {
        let is_capture: Vec<bool> = self.0.iter().map(|segment| matches!(segment, Segment::Capture(_))).collect();
        let text = self.to_string();
        (Reverse(self.0.len()), is_capture, Reverse(text.len()), text)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Literal(text) => write!(f, "/{text}"),
            Segment::Capture(name) => write!(f, "/:{name}"),
        })
    }
}

/// The policies of the files below a prefix; an operation without one is denied.
#[derive(Debug, Clone)]
pub struct PrefixPolicies {
    /// The prefix.
    pub prefix: Prefix,
    /// Who may write files and make folders.
    pub create: Option<Arc<Policy>>,
    /// Who may read.
    pub read: Option<Arc<Policy>>,
    /// Who may delete.
    pub delete: Option<Arc<Policy>>,
    /// Who may list.
    pub list: Option<Arc<Policy>>,
}

impl PrefixPolicies {
    fn of(&self, operation: FileOperation) -> Option<&Policy> {
        match operation {
            FileOperation::Create => self.create.as_deref(),
            FileOperation::Read => self.read.as_deref(),
            FileOperation::Delete => self.delete.as_deref(),
            FileOperation::List => self.list.as_deref(),
        }
    }
}

/// The policies of a bucket.
#[derive(Debug, Clone, Default)]
pub struct FilePolicies {
    /// The most specific first.
    by_prefix: Vec<PrefixPolicies>,
}

/// The policy of an access.
#[derive(Debug)]
pub struct Found<'a> {
    /// The policy; `None` where the prefix has none for the operation.
    pub policy: Option<&'a Policy>,
    /// Segments that the prefix names.
    pub params: Vec<(String, String)>,
}

/// Parts of a request that are not the same for everything below a folder.
const OF_ENTRIES: [Root; 5] = [Root::Path, Root::Name, Root::Size, Root::ContentType, Root::Meta];

impl FilePolicies {
    /// Policies by prefix, no two of which match the same paths.
    pub fn new(mut by_prefix: Vec<PrefixPolicies>) -> Self {
        by_prefix.sort_by_cached_key(|policies| policies.prefix.specificity());
        Self { by_prefix }
    }

    /// The policy of the operation on `path`: that of the most specific prefix; `None` where no prefix matches.
    pub fn find(&self, path: &FilePath, operation: FileOperation) -> Option<Found<'_>> {
        self.by_prefix.iter().find_map(|policies| {
            let params = policies.prefix.captured(path)?;
            Some(Found { policy: policies.of(operation), params })
        })
    }

    /// All policies of the operation.
    pub fn all(&self, operation: FileOperation) -> impl Iterator<Item = &Policy> {
        self.by_prefix.iter().filter_map(move |policies| policies.of(operation))
    }

    /// Whether the policy of the folder decides for everything below it alike.
    pub fn is_alike_below(&self, folder: &FilePath, policy: &Policy) -> bool {
        let is_other = |policies: &PrefixPolicies| policies.prefix.is_below(folder);
        !self.by_prefix.iter().any(is_other) && !OF_ENTRIES.iter().any(|root| rule::depends_on(&policy.rule, *root))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{path::Scope, rule::Parser};

    fn policies(prefixes: &[&str]) -> FilePolicies {
        let policies = prefixes.iter().map(|prefix| {
            let policy =
                Parser::default().policy_in(Scope::Files, &json!({"rule": "allow"}), "spec").expect("it is sound");
            let read = Some(Arc::new(Policy { place: (*prefix).to_owned(), ..policy }));
            PrefixPolicies { prefix: Prefix::parse(prefix).unwrap(), create: None, read, delete: None, list: None }
        });
        FilePolicies::new(policies.collect())
    }

    fn found(prefixes: &[&str], path: &str) -> Option<(String, Vec<(String, String)>)> {
        let policies = policies(prefixes);
        let found = policies.find(&FilePath::parse(path).unwrap(), FileOperation::Read)?;
        Some((found.policy?.place.clone(), found.params))
    }

    /// The cases of the reference: security rules 263 to 278, file rules 74 to 88.
    #[test]
    fn the_most_specific_prefix_decides() {
        for (prefixes, path, expected) in [
            (&["/", "/public"][..], "/public/a", Some("/public")),
            (&["/", "/:userId", "/public"], "/public/a", Some("/public")),
            (&["/9pub", "/:userId"], "/9pub/x", Some("/9pub")),
            (&["/a", "/a/b", "/:x/b"], "/a/b/c", Some("/a/b")),
            (&["/", "/private/data"], "/private/data/x", Some("/private/data")),
            (&["/public"], "/publicity", None),
            (&["/public"], "/q", None),
            (&["/"], "/a..b", Some("/")),
            (&["/users/:userId"], "/users", None),
            (&["/img"], "/img", Some("/img")),
            (&["/img/"], "/img", Some("/img/")),
            (&[""], "/a/b", Some("")),
            (&["/"], "/", Some("/")),
            (&["/a/:x", "/:y/b"], "/a/b", Some("/a/:x")),
            (&[], "/a", None),
        ] {
            let told = found(prefixes, path).map(|(prefix, _)| prefix);
            assert_eq!(told.as_deref(), expected, "{prefixes:?} {path}");
        }
    }

    #[test]
    fn captures_are_those_of_the_prefix_that_decides() {
        let (_, params) = found(&["/:a/x", "/:b"], "/1/y").unwrap();
        assert_eq!(params, [("b".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn an_operation_without_a_policy_is_not_looked_for_elsewhere() {
        let policies = policies(&["/"]);
        let found = policies.find(&FilePath::parse("/a").unwrap(), FileOperation::Delete).unwrap();
        assert!(found.policy.is_none());
    }

    #[test]
    fn a_folder_is_decided_as_a_whole_where_nothing_below_differs() {
        let folder = |path: &str| FilePath::parse(path).unwrap();
        let with = |prefixes: &[&str], path: &str| {
            let policies = policies(prefixes);
            let policy = policies.find(&folder(path), FileOperation::Read).unwrap().policy.unwrap();
            policies.is_alike_below(&folder(path), policy)
        };
        assert!(with(&["/", "/a"], "/a"));
        assert!(with(&["/", "/a/b"], "/c"));
        assert!(!with(&["/", "/a/b"], "/a"));
        assert!(!with(&["/", "/a/b"], "/"));
        assert!(!with(&["/", "/:x/b"], "/a"));
        let sized = json!({"rule": "match", "type": "number", "eval": "<", "f1": "args.size", "f2": 5});
        let policy = Parser::default().policy_in(Scope::Files, &sized, "spec").expect("it is sound");
        assert!(!policies(&["/"]).is_alike_below(&folder("/a"), &policy));
    }
}
