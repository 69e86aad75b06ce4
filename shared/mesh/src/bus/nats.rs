//! A bus over NATS: the connection, which outlives the absence of its server, and events that may be lost.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, jetstream};
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Event, Memory, Message, subject};
use crate::{
    Component, ComponentState, Health, Tasks,
    config::{Error, NatsBus},
    telemetry::{BusMeters, Metrics},
};

/// Events that wait for the connection; more are lost, which those who subscribe elsewhere are told once it is back.
const WAITING_MAX: usize = 256;
/// Time for a connection, and for an answer of the server.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often the connection is looked at: one without an answer to two of these is made anew.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The back-off between two attempts to connect grows by this, up to [`RECONNECT_MAX`].
const RECONNECT_STEP: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// What nodes share over NATS. Clones are one.
#[derive(Clone)]
pub struct Nats {
    /// Subscribers of this process.
    pub(super) memory: Memory,
    shared: Arc<NatsShared>,
}

struct NatsShared {
    outgoing: mpsc::Sender<Message>,
    client: Client,
    context: jetstream::Context,
    /// Name of the mesh.
    mesh: String,
    /// Name of this node.
    node: String,
    config: NatsBus,
    connection: watch::Receiver<BusConnection>,
    health: Health,
    /// Streams and buckets that JetStream refused last.
    refused: Mutex<BTreeSet<String>>,
    /// Ends the task of this bus.
    _end: tokio_util::sync::DropGuard,
}

/// State of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BusConnection {
    /// Whether there is one.
    pub is_up: bool,
    /// Connections that were made so far.
    pub made: u64,
}

impl Nats {
    /// Connects to the servers of `config` in the background, now and whenever the connection is lost. `secret` is what the
    /// nodes of this mesh share.
    pub async fn connect(
        config: &NatsBus,
        secret: &[u8],
        health: &Health,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let (told, connection) = watch::channel(BusConnection::default());
        let servers: Vec<String> = config.urls().map(str::to_owned).collect();
        health.set(Component::Bus, ComponentState::Failing("NATS cannot be reached yet".to_owned()));
        let watched = Arc::new(ConnectionWatch { told, health: health.clone(), meters: metrics.bus() });
        let options = options(config).await?.event_callback(move |event| {
            watched.happened(&event);
            std::future::ready(())
        });
        let client = Box::pin(options.connect(servers)).await;
        let client = client.map_err(|error| Error(format!("bus: NATS cannot be used: {error}")))?;
        let context = jetstream::ContextBuilder::new().timeout(TIMEOUT).ack_timeout(TIMEOUT).build(client.clone());
        let stop = tasks.stop().child_token();
        let (outgoing, waiting) = mpsc::channel(WAITING_MAX);
        let shared = Arc::new(NatsShared {
            outgoing,
            client: client.clone(),
            context,
            mesh: subject::mesh(secret),
            node: rand::random::<[u8; 16]>().iter().map(|byte| format!("{byte:02x}")).collect(),
            config: config.clone(),
            connection: connection.clone(),
            health: health.clone(),
            refused: Mutex::default(),
            _end: stop.clone().drop_guard(),
        });
        let relay = Relay {
            memory: Memory::default(),
            client: client.clone(),
            prefix: format!("mesh.{}", shared.mesh),
            connection,
        };
        let memory = relay.memory.clone();
        tasks.spawn("bus", run(relay, waiting, stop));
        Ok(Self { memory, shared })
    }

    pub(super) fn publish(&self, message: Message) {
        self.memory.send(Event::Message(message.clone()));
        if self.shared.outgoing.try_send(message).is_err() {
            tracing::debug!("an event for other nodes is lost: the bus cannot be reached");
        }
    }

    /// The name of this node, which no other has.
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// Settings of the bus.
    pub(super) fn config(&self) -> &NatsBus {
        &self.shared.config
    }

    /// Name of the mesh.
    pub(super) fn mesh(&self) -> &str {
        &self.shared.mesh
    }

    pub(super) fn context(&self) -> &jetstream::Context {
        &self.shared.context
    }

    /// Notes whether JetStream has opened a stream or a bucket. Where it did not over a connection that is up, the log and
    /// `/ready` say so until it does.
    pub(super) fn noted<T>(&self, name: &str, opened: Result<T, String>) -> Result<T, String> {
        let is_up = self.shared.connection.borrow().is_up;
        let mut refused = self.shared.refused.lock().expect("no code panics while it holds this lock");
        match &opened {
            Ok(_) if refused.remove(name) && refused.is_empty() && is_up => {
                self.shared.health.set(Component::Bus, ComponentState::Ready);
                tracing::info!(name, "JetStream serves again");
            }
            Err(error) if is_up => {
                if refused.insert(name.to_owned()) {
                    tracing::warn!(error, name, "JetStream refuses");
                }
                let why = format!("JetStream of NATS does not open {name}: changes of rows cannot be told");
                self.shared.health.set(Component::Bus, ComponentState::Failing(why));
            }
            Ok(_) | Err(_) => {}
        }
        opened
    }

    /// Most bytes of a message.
    pub(super) fn message_bytes(&self) -> usize {
        self.shared.client.max_payload()
    }

    /// State of the connection, and changes of it.
    pub fn connection(&self) -> watch::Receiver<BusConnection> {
        self.shared.connection.clone()
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("mesh", &self.shared.mesh).finish_non_exhaustive()
    }
}

async fn options(config: &NatsBus) -> Result<ConnectOptions, Error> {
    let mut options = ConnectOptions::new()
        .name("perigee")
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(TIMEOUT)
        .request_timeout(Some(TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .no_echo()
        .reconnect_delay_callback(|attempts| {
            let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            RECONNECT_STEP.saturating_mul(attempts).min(RECONNECT_MAX)
        });
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        options = options.user_and_password(user.clone(), password.0.clone());
    }
    if let Some(token) = &config.token {
        options = options.token(token.0.clone());
    }
    if let Some(file) = &config.credentials {
        let read = options.credentials_file(file).await;
        options = read
            .map_err(|_| Error(format!("bus.credentials: the file {} has no credentials of NATS", file.display())))?;
    }
    if let Some(file) = &config.ca {
        options = options.add_root_certificates(file.clone());
    }
    if let (Some(certificate), Some(key)) = (&config.certificate, &config.key) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    let is_tls =
        config.urls().any(|url| url.starts_with("tls://")) || config.ca.is_some() || config.certificate.is_some();
    Ok(options.require_tls(is_tls))
}

/// What is told of the connection.
struct ConnectionWatch {
    told: watch::Sender<BusConnection>,
    health: Health,
    meters: BusMeters,
}

impl ConnectionWatch {
    fn happened(&self, event: &async_nats::Event) {
        match event {
            async_nats::Event::Connected => {
                let mut made = 0;
                self.told.send_modify(|state| {
                    (state.is_up, state.made) = (true, state.made + 1);
                    made = state.made;
                });
                self.meters.connected.set(1);
                if made > 1 {
                    self.meters.reconnects.inc();
                }
                self.health.set(Component::Bus, ComponentState::Ready);
                tracing::info!("bus connected");
            }
            async_nats::Event::Disconnected | async_nats::Event::Closed => {
                self.told.send_modify(|state| state.is_up = false);
                self.meters.connected.set(0);
                self.health.set(Component::Bus, ComponentState::Failing("the connection to NATS is lost".to_owned()));
                tracing::warn!("bus disconnected");
            }
            async_nats::Event::ServerError(error) => tracing::warn!(%error, "the bus refuses"),
            async_nats::Event::ClientError(error) => {
                if !self.told.borrow().is_up {
                    let why = format!("NATS cannot be reached: {error}");
                    self.health.set(Component::Bus, ComponentState::Failing(why));
                }
                tracing::debug!(%error, "the bus fails");
            }
            async_nats::Event::SlowConsumer(_) => tracing::warn!("events of the bus are not taken fast enough"),
            async_nats::Event::LameDuckMode | async_nats::Event::Draining => {}
        }
    }
}

/// Exchange of events with other nodes.
struct Relay {
    memory: Memory,
    client: Client,
    /// What all subjects begin with.
    prefix: String,
    connection: watch::Receiver<BusConnection>,
}

async fn run(mut relay: Relay, waiting: mpsc::Receiver<Message>, stop: CancellationToken) {
    stop.run_until_cancelled(relay.exchange(waiting)).await;
}

impl Relay {
    /// Sends what waits, and gives subscribers what other nodes send.
    async fn exchange(&mut self, mut waiting: mpsc::Receiver<Message>) {
        let Ok(mut incoming) = self.client.subscribe(format!("{}.>", self.prefix)).await else {
            tracing::error!("events of other nodes cannot be heard: the bus is closed");
            return;
        };
        let mut made = self.connection.borrow().made;
        loop {
            tokio::select! {
                Some(message) = waiting.recv() => {
                    let subject = format!("{}.{}", self.prefix, message.subject);
                    // What cannot be sent is lost, as events may be.
                    let _ = self.client.publish(subject, message.payload).await;
                }
                Some(message) = incoming.next() => {
                    let subject = message.subject.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('.'));
                    let Some(subject) = subject.map(str::to_owned) else { continue };
                    self.memory.send(Event::Message(Message { subject, payload: message.payload }));
                }
                Ok(()) = self.connection.changed() => {
                    let state = *self.connection.borrow_and_update();
                    if state.is_up && std::mem::replace(&mut made, state.made) != state.made {
                        self.memory.send(Event::Lagged(0));
                    }
                }
                else => return,
            }
        }
    }
}
