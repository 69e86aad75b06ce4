//! The OpenAPI document of the REST API, as the tools of others understand it, and what it says held against answers.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    client::Client,
    mesh::{ENGINES, Shape},
    python_tool, token,
};

use super::introspection::{Dev, shown};

scenarios!(a_validator_takes_the_document_of_each_caller, rows_are_as_described);

/// The paths of a document, as the validator prints them.
pub async fn validated(client: &Client, token: &str, every: Option<&str>) -> anyhow::Result<Vec<String>> {
    let url = client.openapi_url();
    let arguments: Vec<&str> = [&url, token].into_iter().chain(every).collect();
    let text = python_tool::script("validate.py", &arguments).await?;
    serde_json::from_str(&text).context("the script prints JSON")
}

async fn a_validator_takes_the_document_of_each_caller(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let mesh = shown(shape, engine).await?;

        let anybody = validated(&mesh.client, "", None).await?;
        let staff = validated(&mesh.client, &token::staff(), None).await?;
        let lab = validated(&mesh.client.with_project("lab"), "", None).await?;

        for table in ["artist", "album", "track"] {
            let path = format!("/crud/music/{table}/read");
            assert!(anybody.contains(&path) && staff.contains(&path), "{path} {engine:?}");
        }
        for operation in ["invoice/read", "employee/read", "playlist/create", "track/update", "batch"] {
            let path = format!("/crud/music/{operation}");
            assert!(!anybody.contains(&path) && staff.contains(&path), "{path} {engine:?}");
        }
        for operation in ["t/delete", "keyless/create", "odd%20%22name%22%3B%20drop/update", "t_view/read", "batch"] {
            let path = format!("/crud/lab/{operation}");
            assert!(lab.contains(&path), "{path} {engine:?}");
        }
        assert!(!lab.iter().any(|path| path == "/crud/lab/t_view/create"), "a view that is not written {engine:?}");
        mesh.stop().await;
    }
    Ok(())
}

async fn rows_are_as_described(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let mesh = shown(shape, engine).await?;
        for client in [mesh.staff(), mesh.client.with_project("lab")] {
            let (status, document) = client.get(&client.openapi_path()).await?;
            assert_eq!(status, 200, "{document}");
            let paths = document["paths"].as_object().context("paths")?;
            let reads: Vec<&String> = paths.keys().filter(|path| path.ends_with("/read")).collect();
            ensure!(reads.len() > 5, "{reads:?}");
            for path in reads {
                for op in ["all", "count"] {
                    let (status, answer) = client.post(&path[1..], &json!({ "op": op })).await?;
                    assert_eq!(status, 200, "{path} {engine:?}: {answer}");
                    check(&document, path, &answer).with_context(|| format!("{path} {engine:?}: {answer}"))?;
                }
            }
        }
        mesh.stop().await;
    }
    Ok(())
}

/// Checks that the answer of an operation is one that the document describes.
pub fn check(document: &Value, path: &str, answer: &Value) -> anyhow::Result<()> {
    let mut schema = document.clone();
    let escaped = path.replace('~', "~0").replace('/', "~1").replace('%', "%25");
    let place = format!("#/paths/{escaped}/post/responses/200/content/application~1json/schema");
    schema["$ref"] = place.into();
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema)?;
    let errors: Vec<String> = validator.iter_errors(answer).map(|error| error.to_string()).take(5).collect();
    ensure!(errors.is_empty(), "{errors:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_takes_the_document_of_a_thousand_tables() -> anyhow::Result<()> {
    // In groups: what the validator follows ends somewhere.
    let dev = Dev::thousand_tables(|index| (index % 10 > 0).then_some(index - index % 10)).await?;

    let paths = validated(&dev.client, "", Some("800")).await?;

    // Four operations and the watch of each table, and the batch.
    assert_eq!(paths.len(), 5001);
    Ok(())
}

/// Resources of the music shop in which staff may do everything with a table.
async fn writable_shop() -> anyhow::Result<Dev> {
    let example = tests::engine::chinook();
    let read = |name: &str| std::fs::read_to_string(example.join(name));
    let secret = token::SECRET;
    let project = format!(
        "kind: project\nmeta: {{ id: shop }}\nspec:\n  tokens: [{{ kid: main, alg: HS256, secret: {secret}, primary: true }}]\n"
    );
    let database = "kind: database\nmeta: { project: shop, id: music }\nspec: { url: \"sqlite:test.db\" }\n";
    let authenticated = "    create: { rule: authenticated }\n";
    let all = format!("{authenticated}    update: {{ rule: authenticated }}\n    delete: {{ rule: authenticated }}\n");
    let tables = read("tables.yaml")?;
    ensure!(tables.contains(authenticated), "the example has tables that staff write");
    let resources = [
        ("project.yaml", project),
        ("database.yaml", database.to_owned()),
        ("tables.yaml", tables.replace(authenticated, &all)),
    ];
    Dev::start("shop", &resources, &read("sqlite.sql")?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() -> anyhow::Result<()> {
    let dev = writable_shop().await?;

    // Every operation at random, and one with all that its body can be and cannot.
    let random = ["--phases", "fuzzing", "--max-examples", "6"];
    let whole = ["--phases", "coverage", "--include-operation-id", "music.playlist.create"];
    for options in [&random[..], &whole] {
        let (url, token) = (dev.client.openapi_url(), token::staff());
        let printed = python_tool::script("fuzz.py", &[&[&*url, &token], options].concat()).await;
        let printed = printed.with_context(|| dev.process.log())?;
        assert!(printed.contains("No issues found"), "{printed}");
    }
    Ok(())
}
