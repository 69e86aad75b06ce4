//! `perigee doctor`: what live queries have of the databases of a folder, and what they lack.

use std::path::PathBuf;

use anyhow::anyhow;
use crud::{Diagnosis, Finding, NamedObject, Removal, Severity, WhileUsed};
use query::resources::{Database, DatabaseResource};
use serde_json::{Value, json};

use crate::{check, failure::Failure, output, progress::Progress, token};

/// Arguments of `perigee doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  perigee doctor examples/chinook --data perigee-data")]
pub struct DoctorArgs {
    /// The resource folder
    #[arg(default_value = token::DEFAULT_DIR)]
    pub dir: PathBuf,
    /// Where SQLite files are kept
    #[arg(long, value_name = "DIR", default_value = token::DEFAULT_DATA)]
    pub data: PathBuf,
    /// Removes what live queries left in the databases
    #[arg(long)]
    pub remove: bool,
    /// Removes it also from a database of PostgreSQL that a server was just seen to follow
    #[arg(long, requires = "remove")]
    pub force: bool,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// What was found in one database, or done to it.
struct Report<T> {
    project: String,
    database: String,
    engine: &'static str,
    outcome: Result<T, String>,
}

/// What can be said of a database.
trait Reported {
    /// For people, a line each.
    fn lines(&self) -> Vec<String>;
    /// For programs, beside the names of the database.
    fn json(&self) -> Value;
    /// What makes the command fail.
    fn failure(&self) -> Option<&'static str>;
}

/// Prints the reports. Fails where a database cannot be reached or lacks something, and where something of ours stays.
pub async fn run(args: DoctorArgs) -> Result<(), Failure> {
    match args.remove {
        false => print(&args, &reports(&args, async |spec| crud::diagnose(spec, &args.data).await).await?),
        true => {
            let while_used = if args.force { WhileUsed::Remove } else { WhileUsed::Refuse };
            print(&args, &reports(&args, async |spec| crud::remove(spec, &args.data, while_used).await).await?)
        }
    }
}

async fn reports<T>(
    args: &DoctorArgs,
    ask: impl AsyncFn(&Database) -> Result<T, crud::Error>,
) -> Result<Vec<Report<T>>, Failure> {
    let snapshot = check::load(&args.dir)?;
    let progress = Progress::start("asking the databases");
    let mut reports = Vec::new();
    for (DatabaseResource { meta, spec }, _) in snapshot.of() {
        progress.next(format!("asking {}/{}", meta.project, meta.id));
        let outcome = Box::pin(ask(spec)).await.map_err(|error| match error.cause() {
            Some(cause) => cause.to_owned(),
            None => error.to_string(),
        });
        let engine = spec.engine().map_or("unknown", |engine| engine.name());
        reports.push(Report { project: meta.project.clone(), database: meta.id.clone(), engine, outcome });
    }
    Ok(reports)
}

fn print<T: Reported>(args: &DoctorArgs, reports: &[Report<T>]) -> Result<(), Failure> {
    let text = match args.json {
        true => format!("{:#}\n", json!({ "databases": reports.iter().map(Report::json).collect::<Vec<_>>() })),
        false if reports.is_empty() => format!("{} has no database\n", args.dir.display()),
        false => reports.iter().map(Report::text).collect(),
    };
    output::print(&text);
    let failed = |report: &Report<T>| {
        let why = match &report.outcome {
            Ok(found) => found.failure()?,
            Err(_) => "cannot be reached",
        };
        Some(format!("{}/{} {why}", report.project, report.database))
    };
    let failures: Vec<String> = reports.iter().filter_map(failed).collect();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(anyhow!("{}", failures.join(", ")).into()),
    }
}

impl<T: Reported> Report<T> {
    fn text(&self) -> String {
        let head = format!("{}/{}  {}", self.project, self.database, self.engine);
        match &self.outcome {
            Ok(found) => std::iter::once(head).chain(found.lines()).map(|line| line + "\n").collect(),
            Err(why) => format!("{head}\n  not reached: {why}\n"),
        }
    }

    fn json(&self) -> Value {
        let mut json = json!({ "project": self.project, "database": self.database, "engine": self.engine });
        let more = match &self.outcome {
            Ok(found) => found.json(),
            Err(why) => json!({ "error": why }),
        };
        if let (Some(all), Value::Object(more)) = (json.as_object_mut(), more) {
            all.insert("reached".to_owned(), Value::Bool(self.outcome.is_ok()));
            all.extend(more);
        }
        json
    }
}

impl Reported for Diagnosis {
    fn lines(&self) -> Vec<String> {
        let (followed, all) = (self.followed.len(), self.tables.len());
        let source = match self.source {
            "off" => "live queries are refused: changes.source is off",
            "none" => "live queries are refused",
            "binlog" => "changes are read from the binary log",
            "slot" => "changes of rows are read from a slot",
            _ => "changes of rows are read from triggers",
        };
        let noted = if matches!(self.source, "none" | "binlog") { "" } else { "changes are noted by triggers; " };
        let mut lines = vec![format!("  {noted}{followed} of {all} tables can be followed"), format!("  {source}")];
        for finding in &self.findings {
            lines.push(format!("  {}: {}", word(finding.severity), finding.text));
            lines.extend(finding.sql.iter().map(|sql| format!("    {sql}")));
        }
        lines.extend(self.objects.iter().map(|object| format!("  there is: {}", named(object))));
        lines
    }

    fn json(&self) -> Value {
        let finding = |Finding { severity, text, sql }: &Finding| json!({ "severity": word(*severity), "text": text, "sql": sql });
        json!({
            "source": self.source,
            "tables": self.tables,
            "followed": self.followed,
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "objects": objects(&self.objects),
        })
    }

    fn failure(&self) -> Option<&'static str> {
        let is_missing = |finding: &Finding| finding.severity == Severity::Missing;
        self.findings.iter().any(is_missing).then_some("lacks something for live queries")
    }
}

impl Reported for Removal {
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.removed.iter().map(|object| format!("  removed: {}", named(object))).collect();
        if self.removed.is_empty() && !self.is_partial {
            lines.push("  nothing to remove".to_owned());
        }
        lines.extend(self.left.iter().map(|object| format!("  stays: {}", named(object))));
        lines.extend(self.warnings.iter().map(|text| format!("  note: {text}")));
        lines
    }

    fn json(&self) -> Value {
        json!({
            "removed": objects(&self.removed),
            "left": objects(&self.left),
            "partial": self.is_partial,
            "warnings": self.warnings,
        })
    }

    fn failure(&self) -> Option<&'static str> {
        self.is_partial.then_some("keeps objects of live queries")
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Missing => "missing",
        Severity::Unfollowed => "not followed",
        Severity::Note => "note",
    }
}

fn named(object: &NamedObject) -> String {
    format!("{} {}", object.kind, object.name)
}

fn objects(objects: &[NamedObject]) -> Vec<Value> {
    objects.iter().map(|object| json!({ "kind": object.kind, "name": object.name })).collect()
}
