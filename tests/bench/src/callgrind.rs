//! Instruction counts of a running server, by valgrind's callgrind.
//!
//! Instructions are the same on every machine and at every load, times are not.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// Where an allocation begins: the C library's entry points, which SQLite calls too, and mimalloc's.
const ALLOCATORS: [&str; 13] = [
    "malloc",
    "calloc",
    "realloc",
    "aligned_alloc",
    "posix_memalign",
    "memalign",
    "mi_malloc",
    "mi_malloc_aligned",
    "mi_zalloc",
    "mi_zalloc_aligned",
    "mi_calloc",
    "mi_realloc",
    "mi_realloc_aligned",
];

/// The command that runs a program under callgrind; the program's arguments follow.
pub fn command(home: &Path, program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet", "--instr-atstart=no", "--compress-strings=no"])
        .arg(option("--callgrind-out-file=", &home.join("callgrind")))
        .arg(option("--vgdb-prefix=", &home.join("vgdb")))
        .arg(program);
    command
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// What a program executes in functions of a name while it runs.
pub fn within(home: &Path, program: &Path, arguments: &[&str], function: &str) -> anyhow::Result<Count> {
    let file = home.join("callgrind.within");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no"])
        .arg(format!("--toggle-collect={function}"))
        .arg(option("--callgrind-out-file=", &file))
        .arg(program)
        .args(arguments)
        .output()
        .context("starting valgrind")?;
    ensure!(output.status.success(), "valgrind: {}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    fs::remove_file(file)?;
    count(&text)
}

/// What a process executed between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    /// User instructions of all its threads.
    pub instructions: u64,
    /// Calls that allocate memory or make an allocation larger.
    pub allocations: u64,
}

/// Counts what one process executes.
pub struct Counter {
    home: PathBuf,
    process: u32,
    taken: u32,
}

impl Counter {
    /// Starts to count in a process that was started by [`command`] with the same folder.
    pub fn start(home: &Path, process: u32) -> anyhow::Result<Self> {
        let counter = Self { home: home.to_owned(), process, taken: 0 };
        counter.tell(&["instrumentation", "on"])?;
        Ok(counter)
    }

    /// Forgets what was counted.
    pub fn reset(&self) -> anyhow::Result<()> {
        self.tell(&["zero"])
    }

    /// What was counted since the last call or reset.
    pub fn take(&mut self) -> anyhow::Result<Count> {
        self.tell(&["dump"])?;
        self.taken += 1;
        let file = self.home.join(format!("callgrind.{}", self.taken));
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        fs::remove_file(file)?;
        count(&text)
    }

    fn tell(&self, words: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("vgdb")
            .arg(option("--vgdb-prefix=", &self.home.join("vgdb")))
            .arg(format!("--pid={}", self.process))
            .args(["--cmd-time-out=60", "--max-invoke-ms=10"])
            .args(words)
            .output()
            .context("starting vgdb")?;
        ensure!(output.status.success(), "vgdb {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// Reads a profile whose names are not compressed.
fn count(profile: &str) -> anyhow::Result<Count> {
    let entries: HashSet<&str> = ALLOCATORS.into_iter().collect();
    let mut counted = Count::default();
    let mut total = None;
    let (mut caller, mut callee) = ("", "");
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            caller = name;
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = name;
        } else if let Some(calls) = line.strip_prefix("calls=") {
            // An entry point that calls another is one allocation.
            if entries.contains(callee) && !entries.contains(caller) {
                counted.allocations += calls.split(' ').next().context("a number of calls")?.parse::<u64>()?;
            }
        } else if let Some(sum) = line.strip_prefix("totals: ") {
            total = Some(sum.trim().parse()?);
        }
    }
    counted.instructions = total.context("a profile without totals")?;
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_counted_where_they_begin() {
        let profile = "\
version: 1
events: Ir

fn=answer
0 10
cfn=mi_malloc_aligned
calls=3 0
0 90
cfn=memcpy
calls=7 0
0 20

fn=mi_malloc_aligned
0 60
cfn=mi_malloc
calls=3 0
0 30

fn=sqlite3_prepare
0 5
cfn=malloc
calls=2 0
0 40

totals: 255
";
        assert_eq!(count(profile).unwrap(), Count { instructions: 255, allocations: 5 });
        assert!(count("fn=answer\n0 10\n").is_err());
    }
}
