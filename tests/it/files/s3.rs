//! The S3 protocol: clients of others, unmodified, and requests that must be refused.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use tests::{
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    node_tool,
    object_store::S3,
    python_tool,
};

use super::Kind;

scenarios!(boto3_does_all_operations, aws_sdk_does_all_operations, requests_that_must_be_refused,);

const ADMIN: (&str, &str) = ("depot-admin", "a secret of the admin that is long enough");
const USER: (&str, &str) = ("depot-user", "a secret of the user that is long enough");
const OTHER: (&str, &str) = ("other-admin", "a secret of another project, long enough");

/// Projects with access keys, and a bucket `files` with this backend.
struct Depot {
    mesh: TestMesh,
    folder: tempfile::TempDir,
    _s3: S3,
}

fn keys(keys: &[((&str, &str), &str)]) -> String {
    let keys =
        keys.iter().map(|((id, secret), claims)| format!("{{ id: {id}, secret: \"{secret}\", claims: {claims} }}"));
    format!("s3: {{ keys: [{}] }}", keys.collect::<Vec<_>>().join(", "))
}

fn resources(backend: &str, own_keys: &[((&str, &str), &str)]) -> String {
    let (own, other) = (keys(own_keys), keys(&[(OTHER, "{ id: ann, role: admin }")]));
    let admin = "{ rule: match, type: string, eval: \"==\", f1: args.auth.role, f2: admin }";
    let of_user = "{ rule: match, type: string, eval: \"==\", f1: args.params.user, f2: args.auth.id }";
    let small = "{ rule: match, type: number, eval: \"<=\", f1: args.size, f2: 10 }";
    let all = |rule: &str| format!("create: {rule}, read: {rule}, delete: {rule}");
    format!(
        "kind: project\nmeta: {{ id: depot }}\nspec: {{ {own} }}\n---\n\
         kind: project\nmeta: {{ id: other }}\nspec: {{ {other} }}\n---\n\
         kind: bucket\nmeta: {{ project: other, id: files }}\nspec: {{ backend: {{ kind: memory }}, rules: [{{ prefix: /, {} }}] }}\n---\n\
         kind: bucket\nmeta: {{ project: depot, id: files }}\nspec:\n  backend: {backend}\n  rules:\n    \
         - {{ prefix: /, {} }}\n    - {{ prefix: \"/own/:user\", {} }}\n    \
         - {{ prefix: /small, create: {small}, read: {{ rule: allow }}, delete: {{ rule: allow }} }}\n---\n\
         kind: bucket\nmeta: {{ project: depot, id: second }}\nspec: {{ backend: {{ kind: memory }}, rules: [{{ prefix: /, {} }}] }}\n",
        all("{ rule: allow }"),
        all(admin),
        all(of_user),
        all(admin),
    )
}

/// Further buckets of the project: one with limits, and one with files that only the admin may list.
fn more_buckets() -> &'static str {
    "---\nkind: bucket\nmeta: { project: depot, id: limited }\nspec: { backend: { kind: memory }, limits: { size: 1024, types: [text/plain] }, rules: [{ prefix: /, create: { rule: allow }, read: { rule: allow } }] }\n\
     ---\nkind: bucket\nmeta: { project: depot, id: narrow }\nspec: { backend: { kind: memory }, limits: { quota: { bytes: 1000 } }, rules: [{ prefix: /, create: { rule: allow }, read: { rule: allow } }] }\n\
     ---\nkind: bucket\nmeta: { project: depot, id: slow }\nspec: { backend: { kind: memory }, limits: { rate: { perSecond: 0.01, burst: 2 } }, rules: [{ prefix: /, create: { rule: allow }, read: { rule: allow } }] }\n\
     ---\nkind: bucket\nmeta: { project: depot, id: mixed }\nspec:\n  backend: { kind: memory }\n  rules:\n    \
     - { prefix: /, create: { rule: allow }, read: { rule: allow } }\n    \
     - { prefix: /hidden, create: { rule: allow }, read: { rule: match, type: string, eval: \"==\", f1: args.auth.role, f2: admin } }\n"
}

impl Depot {
    async fn with(shape: Shape, kind: Kind, more: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let s3 = S3::start(&folder.path().join("s3")).await?;
        let backend = kind.backend(folder.path(), &s3);
        let own = [(ADMIN, "{ id: ann, role: admin }"), (USER, "{ id: bob }")];
        let resources = format!("{}{more}", resources(&backend, &own));
        let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..Setup::default() }).await?;
        Ok(Self { mesh, folder, _s3: s3 })
    }

    fn endpoint(&self) -> String {
        format!("http://{}/s3/depot", self.mesh.client.address())
    }
}

async fn boto3_does_all_operations(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let depot = Depot::with(shape, kind, "").await?;
        let told = python_tool::script("s3_operations.py", &[&depot.endpoint(), ADMIN.0, ADMIN.1]).await;
        ensure!(told.with_context(|| format!("{kind:?}"))?.contains("done"), "{kind:?}");
        if kind == Kind::Local {
            let left = std::fs::read_dir(depot.folder.path().join("local/.perigee/parts"))?.count();
            assert_eq!(left, 0, "nothing is left of uploads that have ended");
        }
    }
    Ok(())
}

async fn aws_sdk_does_all_operations(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::S3] {
        let depot = Depot::with(shape, kind, "").await?;
        let told = node_tool::script("s3_operations.js", &[&depot.endpoint(), ADMIN.0, ADMIN.1]).await;
        ensure!(told.with_context(|| format!("{kind:?}"))?.contains("done"), "{kind:?}");
    }
    Ok(())
}

async fn requests_that_must_be_refused(shape: Shape) -> anyhow::Result<()> {
    let depot = Depot::with(shape, Kind::Local, more_buckets()).await?;
    let address = depot.mesh.client.address().to_string();
    let arguments = [&address, ADMIN.0, ADMIN.1, USER.0, USER.1, OTHER.0, OTHER.1];
    ensure!(python_tool::script("s3_refusals.py", &arguments).await?.contains("done"));
    let metrics = depot.mesh.client.send(Method::GET, "/metrics", &[], Bytes::new()).await?;
    let metrics = String::from_utf8_lossy(metrics.body());
    ensure!(metrics.contains("protocol=\"s3\""), "{metrics}");
    Ok(())
}
