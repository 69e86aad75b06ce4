//! What a user of the command line sees: output, exit codes, and files.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

const CHINOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/chinook");

/// `perigee` with `args`, in `dir`, without variables that could change what it does.
fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perigee"));
    command.current_dir(dir).args(args).env_remove("CHINOOK_URL").env("PERIGEE_TELEMETRY__LOG", "warn");
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("the binary runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Fails, with `code` and one line on stderr; returns the line.
fn fails(output: &Output, code: i32) -> String {
    let line = err(output);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.trim_end().lines().count(), 1, "one line, not: {line}");
    assert_eq!(out(output), "");
    line
}

fn succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", err(output));
    out(output)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A running `perigee dev`, killed when it is dropped.
struct Dev {
    child: Child,
    address: String,
    note: String,
}

impl Dev {
    /// Starts on a free port and waits for the note to end with its curl line.
    fn start(resources: &str, data: &Path) -> Dev {
        let data = data.to_str().expect("UTF-8");
        let mut command = command(Path::new("."), &["dev", resources, "--listen", "127.0.0.1:0", "--data", data]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut note = String::new();
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.expect("UTF-8");
            note.push_str(&line);
            note.push('\n');
            if line.trim_start().starts_with("curl ") {
                break;
            }
        }
        let after = note.split("http://").nth(1).unwrap_or_else(|| panic!("no address in: {note}"));
        let address = after.split([' ', '/', '\n']).next().unwrap_or_default().to_owned();
        Dev { child, address, note }
    }

    fn curl_line(&self) -> &str {
        self.note.lines().map(str::trim).find(|line| line.starts_with("curl ")).expect("the note has one")
    }

    fn stop(mut self) -> Option<i32> {
        // The shell's own: a slim machine has no program called kill.
        let killed = Command::new("sh").args(["-c", "kill -TERM $0", &self.child.id().to_string()]).status();
        assert!(killed.expect("sh runs").success());
        self.child.wait().expect("a child ends").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Fails where it has ended already, which is the aim.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn version_says_version_commit_and_build() {
    let text = succeeds(&run(Path::new("."), &["version"]));

    assert!(text.starts_with(concat!("perigee ", env!("CARGO_PKG_VERSION"), " commit ")), "{text}");
    assert!(text.contains(" build "), "{text}");
}

#[test]
fn the_schema_and_the_completions_are_printed() {
    let schema = succeeds(&run(Path::new("."), &["schema"]));
    for part in ["\"project\"", "\"database\"", "\"table\"", "rowFilter", "2020-12"] {
        assert!(schema.contains(part), "{part}: {schema}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeeds(&run(Path::new("."), &["completions", shell])).contains("perigee"), "{shell}");
    }
}

#[test]
fn help_is_no_failure() {
    for args in [&["--help"][..], &["dev", "--help"], &["token", "--help"]] {
        assert!(succeeds(&run(Path::new("."), args)).contains("Example:"));
    }
}

#[test]
fn the_example_of_each_command_works() {
    let dir = folder();
    std::os::unix::fs::symlink(Path::new(CHINOOK).parent().expect("a folder"), dir.path().join("examples"))
        .expect("linked");
    let programs = Path::new(env!("CARGO_BIN_EXE_perigee")).parent().expect("a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").expect("a path"));
    // The others serve until they are stopped, or ask one that does.
    for name in ["init", "check", "token", "schema", "completions", "version"] {
        let help = succeeds(&run(dir.path(), &[name, "--help"]));
        let example = help.lines().skip_while(|line| *line != "Example:").nth(1).expect("an example").trim();
        let output = Command::new("bash").args(["-c", example]).current_dir(dir.path()).env("PATH", &path).output();
        let output = output.expect("bash runs");
        assert!(output.status.success(), "{example}: {}", err(&output));
    }
}

#[test]
fn wrong_usage_exits_2() {
    let dir = folder();
    fails(&run(dir.path(), &[]), 2);
    fails(&run(dir.path(), &["fly"]), 2);
    fails(&run(dir.path(), &["token", "shop", "not json"]), 2);
    let line = fails(&run(dir.path(), &["dev", "--listen", "0.0.0.0:4122"]), 2);
    assert!(line.contains("loopback"), "{line}");
}

#[test]
fn the_example_has_no_faults() {
    let text = succeeds(&run(Path::new("."), &["check", CHINOOK]));

    assert!(text.contains("1 project, 1 database, 11 tables"), "{text}");
}

#[test]
fn check_says_where_and_what_every_fault_is() {
    let dir = folder();
    fs::write(dir.path().join("a.yaml"), "kind: project\nmeta: { id: shop }\nspec:\n  nmae: Shop\n").expect("written");
    let table =
        "kind: table\nmeta: { project: shop, database: music, id: album }\nspec:\n  rules:\n    read: { rule: alow }\n";
    fs::write(dir.path().join("b.yaml"), table).expect("written");

    let output = run(dir.path(), &["check", "."]);

    let text = err(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().any(|line| line.contains("a.yaml:4:") && line.contains("name")), "{text}");
    assert!(text.lines().any(|line| line.contains("b.yaml:5:") && line.contains("spec.rules.read")), "{text}");
}

#[test]
fn check_of_no_folder_says_so() {
    for args in [&["check", "nowhere"][..], &["token", "shop", "{}", "--dir", "nowhere"], &["dev", "nowhere"]] {
        let line = fails(&run(folder().path(), args), 1);
        assert_eq!(line, "perigee: nowhere does not exist; `perigee init nowhere` makes it\n");
    }
}

#[test]
fn token_signs_with_the_primary_key() {
    let dir = folder();
    let project = "kind: project\nmeta: { id: shop }\nspec:\n  tokens: [{ kid: main, alg: HS256, secret: a-secret-of-thirty-two-characters, primary: true }]\n";
    fs::write(dir.path().join("project.yaml"), project).expect("written");

    let token = succeeds(&run(dir.path(), &["token", "shop", r#"{"id": 5}"#]));

    assert_eq!(token.trim_end().split('.').count(), 3, "{token}");
    let line = fails(&run(dir.path(), &["token", "shoop", "{}"]), 1);
    assert!(line.contains("shop"), "{line}");
}

#[test]
fn init_writes_a_closed_folder_once() {
    let dir = folder();

    succeeds(&run(dir.path(), &["init", "shop"]));

    let shop = dir.path().join("shop");
    assert!(fs::read_to_string(shop.join(".gitignore")).expect("written").contains(".env"));
    assert!(fs::read_to_string(shop.join(".env")).expect("written").contains("SHOP_SECRET="));
    succeeds(&run(dir.path(), &["check", "shop"]));
    succeeds(&run(dir.path(), &["token", "shop", "{}", "--dir", "shop"]));
    let line = fails(&run(dir.path(), &["init", "shop"]), 1);
    assert!(line.contains("project.yaml"), "{line}");
}

#[test]
fn init_of_a_missing_database_writes_nothing() {
    let dir = folder();

    fails(&run(dir.path(), &["init", "shop", "--database", "sqlite:none.db"]), 2);

    assert!(!dir.path().join("shop").exists());
    assert!(!dir.path().join("none.db").exists());
}

#[test]
fn dev_serves_the_example_until_it_is_asked_to_stop() {
    let data = folder();
    let dev = Dev::start(CHINOOK, data.path());
    assert!(dev.note.contains("music") && dev.note.contains("11 tables"), "{}", dev.note);

    let answer = Command::new("sh").args(["-c", dev.curl_line()]).output().expect("sh runs");
    assert!(out(&answer).starts_with(r#"{"data":"#), "{}: {}", dev.curl_line(), out(&answer));
    succeeds(&run(Path::new("."), &["health", &dev.address]));

    let address = dev.address.clone();
    assert_eq!(dev.stop(), Some(0));
    fails(&run(Path::new("."), &["health", &address]), 1);
    let told = succeeds(&run(Path::new("."), &["doctor", CHINOOK, "--data", data.path().to_str().expect("UTF-8")]));
    let followed = "shop/music  sqlite\n  changes are noted by triggers; 11 of 11 tables can be followed\n  changes of rows are read from triggers\n";
    assert_eq!(told, followed);
}

#[test]
fn a_development_token_opens_what_its_claims_allow() {
    let data = folder();
    let dev = Dev::start(CHINOOK, data.path());
    let data_path = data.path().to_str().expect("UTF-8");

    let token =
        succeeds(&run(Path::new("."), &["token", "shop", r#"{"id": 5}"#, "--dir", CHINOOK, "--data", data_path]));

    let url = format!("http://{}/v1/api/shop/graphql", dev.address);
    let ask = |authorization: &str| {
        let body = r#"{"query": "{ invoice { customer_id } }"}"#;
        let headers = ["-H", "content-type: application/json", "-H", authorization];
        let answer = Command::new("curl").args(["-s", &url, "-d", body]).args(headers).output();
        out(&answer.expect("curl runs"))
    };
    let mine = ask(&format!("authorization: Bearer {}", token.trim_end()));
    assert_eq!(mine.matches("\"customer_id\":5").count(), 7, "{mine}");
    assert_eq!(mine.matches("\"customer_id\"").count(), 7, "{mine}");
    assert!(ask("authorization:").contains("UNAUTHENTICATED"));
}

#[test]
fn a_folder_above_finds_the_variables_beside_each_document() {
    let dir = folder();
    succeeds(&run(dir.path(), &["init", "shop"]));
    succeeds(&run(dir.path(), &["init", "blog"]));

    let text = succeeds(&run(dir.path(), &["check", "."]));
    assert!(text.contains("2 projects, 2 databases, 2 tables"), "{text}");

    fs::remove_file(dir.path().join("shop/.env")).expect("removed");
    let line = fails(&run(dir.path(), &["check", "."]), 1);
    let told = "the variable SHOP_SECRET is not set: there is no shop/.env, there is no .env";
    assert!(line.contains(told) && line.starts_with("shop/project.yaml:"), "{line}");
}

#[test]
fn init_refuses_a_schema_of_a_file() {
    let dir = folder();
    fs::write(dir.path().join("a.db"), "").expect("written");
    let line = fails(&run(dir.path(), &["init", "shop", "--database", "sqlite:a.db", "--schema", "sales"]), 1);
    assert!(line.contains("an SQLite file has no schema sales"), "{line}");
    assert!(!dir.path().join("shop").exists());
}

#[test]
fn dev_counts_open_tables_and_shows_one_with_the_token_it_needs() {
    let dir = folder();
    succeeds(&run(dir.path(), &["init", "shop"]));
    let tables = dir.path().join("shop/tables.yaml");
    let text = fs::read_to_string(&tables).expect("written");
    let role =
        "read: { rule: match, type: string, eval: \"==\", f1: args.auth.role, f2: staff, columns: { deny: [secret] } }";
    fs::write(&tables, text.replacen("read: { rule: deny }", role, 1)).expect("written");
    let init = "type: sqlite\n  init: [shop.sql]";
    let database = dir.path().join("shop/database.yaml");
    let text = fs::read_to_string(&database).expect("written");
    fs::write(&database, text.replace("type: sqlite", init)).expect("written");
    let sql = "CREATE TABLE note (secret TEXT, id INTEGER PRIMARY KEY, v TEXT); INSERT INTO note VALUES ('s', 1, 'x');";
    fs::write(dir.path().join("shop/shop.sql"), sql).expect("written");

    let dev = Dev::start(dir.path().join("shop").to_str().expect("UTF-8"), &dir.path().join("data"));

    assert!(dev.note.contains("sqlite, 1 table, 1 open\n"), "{}", dev.note);
    assert!(dev.curl_line().contains(r#"token shop '{"role":"staff"}' --dir "#), "{}", dev.curl_line());
    let answer = Command::new("sh").args(["-c", dev.curl_line()]).output().expect("sh runs");
    assert_eq!(out(&answer), r#"{"data":{"note":[{"id":1,"v":"x"}]}}"#, "{}", dev.curl_line());
}

#[test]
fn init_writes_a_denied_table_for_each_of_a_database() {
    let data = folder();
    Dev::start(CHINOOK, data.path()).stop();
    let dir = folder();
    let url = format!("sqlite:{}", data.path().join("music.db").display());

    let output = run(dir.path(), &["init", "shop", "--database", &url]);
    succeeds(&output);
    assert_eq!(err(&output), "", "progress is for terminals");

    let tables = fs::read_to_string(dir.path().join("shop/tables.yaml")).expect("written");
    assert_eq!(tables.matches("kind: table").count(), 11);
    assert_eq!(tables.matches("rule: deny").count(), 44);
    assert!(tables.starts_with("# yaml-language-server: $schema=.schema.json\n"), "{tables}");
    let schema = fs::read_to_string(dir.path().join("shop/.schema.json")).expect("written");
    assert_eq!(schema, succeeds(&run(Path::new("."), &["schema"])));
    let text = succeeds(&run(dir.path(), &["check", "shop"]));
    assert!(text.contains("11 tables"), "{text}");
}

#[test]
fn init_leaves_out_what_is_broken_and_names_it() {
    let dir = folder();
    let file = dir.path().join("broken.db");
    let script = "CREATE TABLE good (id INTEGER PRIMARY KEY); CREATE VIEW stale AS SELECT gone FROM good; \
                  CREATE VIEW seen AS SELECT id FROM good;";
    rusqlite::Connection::open(&file).expect("a file").execute_batch(script).expect("SQL");

    let text = succeeds(&run(dir.path(), &["init", "shop", "--database", &format!("sqlite:{}", file.display())]));

    assert!(text.contains("left out: stale: no such column: gone"), "{text}");
    let tables = fs::read_to_string(dir.path().join("shop/tables.yaml")).expect("written");
    let (good, seen) = tables.split_once("---").expect("two tables");
    assert!(good.contains("id: good") && good.matches("rule: deny").count() == 4, "{tables}");
    // Nothing writes through it.
    assert!(seen.contains("id: seen") && seen.contains("read: { rule: deny }"), "{tables}");
    assert_eq!(seen.matches("rule: deny").count(), 1, "{tables}");
}

#[test]
fn dev_says_which_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();

    let line = fails(&run(folder().path(), &["dev", CHINOOK, "--listen", &address]), 1);

    assert!(line.contains(&address), "{line}");
}

#[test]
fn serve_prints_its_defaults() {
    let text = succeeds(&run(Path::new("."), &["serve", "--print-config"]));

    assert!(text.contains("127.0.0.1:4122") && text.contains('#'), "{text}");
}

#[test]
fn serve_on_a_wrong_configuration_opens_no_port() {
    let dir = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let config: PathBuf = dir.path().join("node.yaml");
    // Were the port opened first, the fault told would be the taken port.
    fs::write(&config, format!("listen: {{ http: {address} }}\nlimts: {{}}\n")).expect("written");

    let line = fails(&run(dir.path(), &["serve", "--config", "node.yaml"]), 1);

    assert!(line.contains("limts"), "{line}");
}

#[test]
fn serve_opens_no_mesh_port_to_others_without_a_key() {
    let dir = folder();
    fs::write(dir.path().join("node.yaml"), "listen: { http: '127.0.0.1:0', mesh: '0.0.0.0:0' }\n").expect("written");
    let line = fails(&run(dir.path(), &["serve", "--config", "node.yaml"]), 1);
    assert!(line.contains("mesh_key is not set, and listen.mesh is 0.0.0.0:0"), "{line}");
    assert!(line.contains("set mesh_key to the same secret on all nodes"), "{line}");
    assert!(!dir.path().join("perigee-data").exists(), "nothing was started");
}

#[test]
fn a_variable_that_names_no_setting_is_a_warning() {
    let dir = folder();
    let mut command = command(dir.path(), &["serve"]);
    command.env("PERIGEE_PORT", "tcp://10.0.0.1:4122").env("PERIGEE_LISTEN__HTTP", "192.0.2.1:1");
    let told = err(&command.output().expect("the binary runs"));
    assert!(told.contains("variable names no setting") && told.contains("PERIGEE_PORT"), "{told}");
    assert!(told.contains("cannot listen on 192.0.2.1:1"), "it went on to open its ports: {told}");
}
