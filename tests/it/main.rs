//! Scenarios, each in both shapes of the mesh, and the case suite on all engines.

/// Runs each scenario twice: all services in one process, then every service on its own port.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use tests::mesh::Shape;

            #[tokio::test(flavor = "multi_thread")]
            async fn in_one_process() -> anyhow::Result<()> {
                super::$name(Shape::OneProcess).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn split() -> anyhow::Result<()> {
                super::$name(Shape::Split).await
            }
        }
    )*};
}

mod bad_input;
mod budgets;
mod cases;
mod changes;
mod clients;
mod deploy;
mod dialect_feeds;
mod doctor;
mod echo;
mod event_streams;
mod events;
mod files;
mod functions;
mod init;
mod introspection;
mod json_socket;
mod left_out;
mod legacy_sockets;
mod links;
mod live;
mod live_batches;
mod live_differential;
mod moved;
mod nats;
mod openapi;
mod overload;
mod process;
mod readme;
mod realtime;
mod rooms;
mod row_changes;
mod schemas;
mod shop;
mod socket_limits;
mod space_cloud;
mod workspace;
