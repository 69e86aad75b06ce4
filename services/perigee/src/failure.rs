//! Failure of a command: message and exit code.

use std::{fmt, path::Path};

use mesh::resources::ResourceFault;

/// Failure of a command, as it is printed to stderr.
#[derive(Debug)]
pub enum Failure {
    /// The arguments are wrong.
    Usage(String),
    /// The resource folder is wrong: where, and what was expected.
    Faults(Vec<String>),
    /// Anything else, with the way there.
    Failed(anyhow::Error),
}

impl Failure {
    /// The faults of `folder` in the order of their places, each with a path that an editor can open from here.
    pub fn faults(folder: &Path, faults: &[ResourceFault]) -> Self {
        let folder = folder.strip_prefix(".").unwrap_or(folder);
        let mut faults: Vec<&ResourceFault> = faults.iter().collect();
        faults.sort_by_key(|fault| (&fault.file, fault.line, fault.column));
        Self::Faults(faults.into_iter().map(|fault| folder.join(fault.to_string()).display().to_string()).collect())
    }

    /// The exit code: 2 for wrong usage, else 1.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Faults(_) | Failure::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    /// One line per thing to mend.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) => write!(f, "perigee: {message}"),
            Failure::Faults(lines) => write!(f, "{}", lines.join("\n")),
            Failure::Failed(error) => {
                let line = format!("{error:#}").lines().map(str::trim).collect::<Vec<_>>().join(" ");
                write!(f, "perigee: {line}")
            }
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let error = anyhow!("first\n  second").context("could not start");

        assert_eq!(Failure::from(error).to_string(), "perigee: could not start: first second");
    }

    #[test]
    fn faults_stand_in_order_with_the_folder_they_are_in() {
        let fault =
            |line| ResourceFault { file: "t.yaml".into(), line, column: 5, path: "spec".into(), message: "no".into() };
        let told = |folder: &str| Failure::faults(Path::new(folder), &[fault(10), fault(3)]).to_string();

        assert_eq!(told("shop"), "shop/t.yaml:3:5: spec: no\nshop/t.yaml:10:5: spec: no");
        assert_eq!(told("."), "t.yaml:3:5: spec: no\nt.yaml:10:5: spec: no");
    }
}
