//! `perigee init`: a starting resource folder, closed by default.

mod documents;
mod links;
mod source;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

pub use source::Source;

use crate::{failure::Failure, output};
use documents::Plan;

/// Arguments of `perigee init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  perigee init shop\n\nWith a database:\n  \
                        perigee init shop --database sqlite:shop.db\n  \
                        perigee init shop --database postgres://localhost/shop --schema sales --schema hr\n  \
                        perigee init shop --database mysql://shop@localhost/shop")]
pub struct InitArgs {
    /// The folder to write; made where it does not exist
    pub dir: PathBuf,
    /// The project's id; the folder's name where it is not given
    #[arg(long, value_name = "ID", value_parser = project_id)]
    pub project: Option<String>,
    /// A database to look at: sqlite:FILE, postgres://USER@HOST/NAME or mysql://USER@HOST/NAME
    #[arg(long, value_name = "URL", value_parser = Source::parse)]
    pub database: Option<Source>,
    /// A schema of a PostgreSQL database, `public` where none is given; may be given several times, and makes one
    /// database resource each
    #[arg(long, value_name = "NAME", requires = "database", value_delimiter = ',')]
    pub schema: Vec<String>,
}

/// A file to write.
struct File {
    name: &'static str,
    text: String,
    /// Only its owner may read it.
    is_secret: bool,
}

/// Looks at the database, if one is given, and writes the folder; an existing file of the same name is left alone and
/// is an error, before anything is written.
pub async fn run(args: InitArgs) -> Result<(), Failure> {
    let project = match &args.project {
        Some(id) => id.clone(),
        None => project_of(&args.dir),
    };
    let database = match args.database {
        Some(source) => Some(source.look(&args.schema).await?),
        None => None,
    };
    let plan = Plan::new(project, database);
    write(&args.dir, &plan.files())?;
    ignore(&args.dir.join(".gitignore")).with_context(|| format!("{} has no .gitignore", args.dir.display()))?;
    output::print(&plan.note(&args.dir));
    Ok(())
}

fn write(dir: &Path, files: &[File]) -> anyhow::Result<()> {
    let taken: Vec<&str> = files.iter().map(|file| file.name).filter(|name| dir.join(name).exists()).collect();
    if !taken.is_empty() {
        bail!("{} has {} already; choose another folder or move them", dir.display(), taken.join(", "));
    }
    fs::create_dir_all(dir).with_context(|| format!("the folder {} cannot be made", dir.display()))?;
    for file in files {
        let path = dir.join(file.name);
        create(&path, file).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn create(path: &PathBuf, file: &File) -> anyhow::Result<()> {
    let mode = if file.is_secret { 0o600 } else { 0o644 };
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    Ok(out.write_all(file.text.as_bytes())?)
}

/// Keeps what must not be committed out of git: adds the lines that `path` lacks.
fn ignore(path: &Path) -> anyhow::Result<()> {
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let lacking =
        [".env", "perigee-data/"].into_iter().filter(|line| !before.lines().any(|known| known.trim() == *line));
    let lacking: String = lacking.map(|line| format!("{line}\n")).collect();
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    Ok(fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(format!("{gap}{lacking}").as_bytes())?)
}

fn project_id(text: &str) -> Result<String, String> {
    match gateway::is_project_id(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("invalid project id: expected letters a to z, digits, `-` and `_`, beginning with a letter or digit"
                .to_owned())
        }
    }
}

/// A project id out of the folder's name.
fn project_of(dir: &Path) -> String {
    let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let name = full.file_name().map(|name| name.to_string_lossy().into_owned());
    let id = source::identifier(&name.unwrap_or_default()).to_ascii_lowercase();
    let id = id.trim_start_matches(['-', '_']);
    if gateway::is_project_id(id) { id.to_owned() } else { "app".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_an_id_that_a_project_can_have() {
        for (dir, id) in [("/x/MyShop", "myshop"), ("/x/_Old-1", "old-1"), ("/", "app"), ("/x/shop", "shop")] {
            assert_eq!(project_of(Path::new(dir)), id, "{dir}");
        }
    }

    #[test]
    fn a_gitignore_gains_only_the_lines_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".gitignore");
        fs::write(&path, "/target\n.env").unwrap();

        ignore(&path).unwrap();
        ignore(&path).unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "/target\n.env\nperigee-data/\n");
    }
}
