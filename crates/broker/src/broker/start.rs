//! Bringing a broker up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use metadata::Endpoint;
use metrics_exporter_prometheus::PrometheusHandle;
use protocol::grpc::v1::Listener;
use protocol::{BrokerEpoch, ClusterId, DirectoryId, IncarnationId, Offset};
use replication::streams::{FetcherManager, LeaderService, LocalBroker, replication_server};
use replication::{Followers, ReplicaManager, ReplicaManagerConfig};
use storage::hints::HintStore;
use storage::meta_properties::{self, MetaPropertiesError};
use storage::{LogManager, ManagerConfig, OpenError, StartupReport, boot_id};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::warn;

use super::client_port::KafkaPort;
use super::early::EarlyPorts;
use super::reconciler::{Local, Reconciler};
use super::{Broker, Ports, public_services, readiness};
use crate::complaints::Complaints;
use crate::config::{BrokerConfig, ConnectionLimits, HostPort};
use crate::context::BrokerContext;
use crate::controller_client::{ControllerClient, ControllerLocator};
use crate::coordinator::group_runtime::{self, GroupCoordinatorParts};
use crate::directory_channel::ControllerDirectoryChannel;
use crate::group_lag;
use crate::grpc_admin::AdminService;
use crate::grpc_records::RecordsService;
use crate::http::{self, MetricsPage, PassingSeries};
use crate::identity::NodeIdentity;
use crate::internal_server::NodeService;
use crate::isr_channel::ControllerIsrChannel;
use crate::listener::{self, BindError, ConnectionGate, Http2Windows, Services};
use crate::metric_names;
use crate::producer_ids::ProducerIds;
use crate::records::Validator;
use crate::relay::{Peers, Relay, RelayService};
use crate::session::{self, ImageStore, Introduction, SessionParts, SessionStatus, SessionTimings};
use crate::shutdown::NodeShutdown;

/// High-watermark hints, within the first log directory.
const HINTS: &str = "hints";

/// Why a broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The log directories could not be opened, or are not this broker's.
    #[error(transparent)]
    Logs(#[from] OpenError),
    /// A log directory's identity could not be read.
    #[error(transparent)]
    Identity(#[from] MetaPropertiesError),
    /// The system gives no thread, or no address of a socket.
    #[error("the system refuses: {0}")]
    System(#[from] std::io::Error),
    /// The compiled-in service descriptors do not fit each other.
    #[error("service descriptors: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Opening the logs ended in a panic.
    #[error("opening the log directories failed: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// A port that is bound and not served yet.
struct BoundPort {
    socket: TcpListener,
    address: SocketAddr,
}

impl BoundPort {
    async fn bind(address: &HostPort) -> Result<Self, StartError> {
        let socket = listener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }
}

impl Broker {
    /// Starts a broker: returns once its ports are bound, its logs are open and its session is being
    /// established. `incarnation` is the process's own, shared with a controller in it; `metrics` renders
    /// the process's recorder.
    pub async fn start(
        config: BrokerConfig,
        incarnation: IncarnationId,
        metrics: PrometheusHandle,
    ) -> Result<Self, StartError> {
        let started = Instant::now();
        metric_names::describe();
        let config = Arc::new(config);
        let mut internal = BoundPort::bind(&config.internal_listen).await?;
        warn_of_exposure(&internal.address);
        let mut clients = Vec::new();
        for listener in &config.listeners {
            clients.push((listener.name.clone(), BoundPort::bind(&listener.bind).await?));
        }

        let cluster_id = known_cluster(&config).await?;
        let identity_with =
            |directory| NodeIdentity::new(config.node_id, directory, incarnation, cluster_id.clone());
        let early = EarlyPorts::new(metrics.clone(), identity_with(DirectoryId::ZERO));
        internal.socket = early.serve_internal(internal.socket)?;
        let mut served = Vec::new();
        for (name, BoundPort { socket, address }) in clients {
            let socket = early.serve_client(socket)?;
            served.push((name, BoundPort { socket, address }));
        }
        let clients = served;
        let (logs, report) = open_logs(&config, cluster_id.clone()).await?;
        let directory_ids = logs.online_directories();
        let identity = Arc::new(identity_with(directory_ids.first().copied().unwrap_or_default()));
        let locator = ControllerLocator::new(Arc::clone(&identity), config.controllers.clone());
        let images = ImageStore::new();
        let controller = ControllerClient::new(locator.clone(), images.clone());
        let (epoch_sender, broker_epoch) = watch::channel(None);
        let stop = CancellationToken::new();

        let replicas = open_replicas(&config, &logs, &controller, broker_epoch.clone()).await?;
        replicas.set_directory_channel(Arc::new(ControllerDirectoryChannel::new(
            config.node_id,
            broker_epoch.clone(),
            controller.clone(),
        )));
        let local: Arc<dyn LocalBroker> = Arc::new(Local {
            identity: Arc::clone(&identity),
            broker_epoch: broker_epoch.clone(),
        });
        let fetchers = Arc::new(FetcherManager::new(Arc::clone(&local), replicas.clone()));
        let followers: Arc<dyn Followers> = fetchers.clone();
        replicas.set_followers(&followers);
        let leaders = LeaderService::new(local, replicas.clone(), stop.child_token());

        let introduction = Introduction {
            listeners: advertised(&config.advertised, &clients),
            internal_address: with_port(&config.internal_advertised, internal.address.port()).to_string(),
            rack: config.rack.clone(),
            log_dirs: directory_ids,
            unusable_log_dirs: logs.unusable_directories(),
            may_have_lost_data: !report.clean && !report.same_boot,
            static_flush_messages: config
                .node_defaults
                .value("log.flush.interval.messages")
                .and_then(|value| value.trim().parse().ok()),
            damaged: report.damaged,
        };
        let session = session::start(
            SessionParts {
                identity: Arc::clone(&identity),
                introduction,
                timings: SessionTimings {
                    heartbeat: config.heartbeat_interval,
                    timeout: config.session_timeout,
                },
                locator: locator.clone(),
                images: images.clone(),
                consumer: Arc::new(Reconciler {
                    identity: Arc::clone(&identity),
                    logs: Arc::clone(&logs),
                    replicas: Arc::clone(&replicas),
                    directories_named: AtomicBool::new(false),
                }),
                broker_epoch: epoch_sender,
            },
            stop.child_token(),
        );
        let groups = group_runtime::start(
            GroupCoordinatorParts {
                images: images.clone(),
                replicas: Arc::clone(&replicas),
                controller: controller.clone(),
                settings: config.groups.clone(),
                started,
            },
            stop.child_token(),
        );
        let context = BrokerContext {
            groups,
            peers: Peers::new(Arc::clone(&identity), images.clone()),
            producer_ids: ProducerIds::start(config.node_id, broker_epoch.clone(), controller.clone()),
            config,
            images,
            replicas: Arc::clone(&replicas),
            lost_leaders: fetchers.lost_leaders(),
            validator: Validator::new(),
            controller,
            broker_epoch,
            started,
        };

        // From here on the ports are served for good.
        drop(early);
        tokio::spawn(note_registration(
            Arc::clone(&logs),
            context.broker_epoch.clone(),
            stop.child_token(),
        ));
        tokio::spawn(http::keep_up(metrics.clone(), stop.child_token()));
        let open = watch::Sender::new(false);
        let (opened, status) = (open.subscribe(), session.status());
        tokio::spawn(follow_status(
            open,
            status.clone(),
            context.clone(),
            stop.child_token(),
        ));
        let lags = PassingSeries::default();
        let page = MetricsPage::from(metrics).with(lags.clone());
        let pages = move |grpc: Routes| {
            let status = status.clone();
            http::router(page.clone(), Arc::new(move || readiness(*status.borrow())), grpc)
        };
        let node = Routes::new(NodeService::server(Arc::clone(&identity), locator))
            .add_service(replication_server(leaders))
            .add_service(RelayService::server(identity, context.clone()));
        let internal_server = tokio::spawn(listener::serve(
            internal.socket,
            Services {
                web: pages(node),
                windows: Http2Windows::NODES,
                kafka: None,
            },
            ConnectionGate::new(ConnectionLimits::default()),
            stop.child_token(),
        ));
        let mut ports = Ports {
            clients: Vec::new(),
            internal: internal.address,
            stop_clients: stop.child_token(),
            client_servers: Vec::new(),
            internal_server,
        };
        let shutdown_requested = CancellationToken::new();
        let admin = AdminService::new(
            context.clone(),
            NodeShutdown::new(context.config.node_id, shutdown_requested.clone()),
        );
        tokio::spawn(group_lag::measure(
            context.groups.clone(),
            admin.clone(),
            lags,
            stop.child_token(),
        ));
        let records = RecordsService::new(
            context.clone(),
            Relay::new(context.clone()),
            admin.clone(),
            opened.clone(),
            ports.stop_clients.clone(),
        );
        let gate = ConnectionGate::new(context.config.connections.clone());
        for (name, port) in clients {
            let public = public_services::routes(
                admin.clone(),
                records.clone(),
                session.status(),
                ports.stop_clients.clone(),
            )?;
            let services = Services {
                web: pages(public),
                windows: Http2Windows::CLIENTS,
                kafka: Some(Arc::new(KafkaPort {
                    listener: Arc::from(name.as_str()),
                    context: context.clone(),
                    complaints: Complaints::new(),
                    open: opened.clone(),
                })),
            };
            let stop = ports.stop_clients.clone();
            let served = listener::serve(port.socket, services, gate.clone(), stop);
            ports.client_servers.push(tokio::spawn(served));
            ports.clients.push((name, port.address));
        }
        // Weak: the replicas hold the logs.
        let bounds = Arc::downgrade(&replicas);
        logs.background(move |tp| -> Option<Offset> { bounds.upgrade()?.high_watermark(tp) })?;
        Ok(Self {
            context,
            session,
            logs,
            replicas,
            fetchers,
            ports,
            shutdown_requested,
            stop: stop.drop_guard(),
        })
    }
}

/// The cluster that this broker is configured for, else the one that its directories name.
async fn known_cluster(config: &Arc<BrokerConfig>) -> Result<Option<ClusterId>, StartError> {
    if config.cluster_id.is_some() {
        return Ok(config.cluster_id.clone());
    }
    let config = Arc::clone(config);
    let found = tokio::task::spawn_blocking(move || {
        for dir in &config.log_dirs {
            let found = match meta_properties::load(dir) {
                // On a failing disk; opening the directories says what becomes of it.
                Err(MetaPropertiesError::Io { .. }) => continue,
                found => found?,
            };
            if let Some(cluster_id) = found.and_then(|found| found.cluster_id) {
                return Ok(Some(cluster_id));
            }
        }
        Ok::<_, MetaPropertiesError>(None)
    });
    Ok(found.await??)
}

/// Opens the log directories, off the runtime's workers.
async fn open_logs(
    config: &Arc<BrokerConfig>,
    cluster_id: Option<ClusterId>,
) -> Result<(Arc<LogManager>, StartupReport), StartError> {
    let config = ManagerConfig {
        cluster_id,
        recovery_threads_per_dir: config.recovery_threads_per_dir,
        flush_threads: config.flush_threads,
        ..ManagerConfig::new(config.log_dirs.clone(), config.node_id)
    };
    Ok(tokio::task::spawn_blocking(move || LogManager::open(config, &boot_id())).await??)
}

/// Notes that the controller knows of what may be lost, once the registration that told it is committed.
async fn note_registration(
    logs: Arc<LogManager>,
    mut broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
    stop: CancellationToken,
) {
    let registered = broker_epoch.wait_for(Option::is_some);
    let registered = matches!(stop.run_until_cancelled(registered).await, Some(Ok(_)));
    if !registered {
        return;
    }
    match tokio::task::spawn_blocking(move || logs.losses_are_known()).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => warn!(%error, "after an unclean stop the next start takes the page cache for lost"),
    }
}

async fn open_replicas(
    config: &BrokerConfig,
    logs: &Arc<LogManager>,
    controller: &ControllerClient,
    broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
) -> Result<Arc<ReplicaManager>, StartError> {
    let path = logs.first_dir().join(HINTS);
    let hints = tokio::task::spawn_blocking(move || HintStore::open(&path)).await?;
    let hints = hints
        .inspect_err(
            |error| warn!(%error, "no high-watermark hints: consumers wait a little longer after restarts"),
        )
        .ok();
    let isr_channel = ControllerIsrChannel::start(config.node_id, broker_epoch, controller.clone());
    Ok(ReplicaManager::new(
        ReplicaManagerConfig {
            broker_id: config.node_id,
            lag_max: config.replica_lag_time_max,
            disk_threads: config.disk_threads,
            node_defaults: config.node_defaults.clone(),
            hints,
        },
        Arc::clone(logs),
        Arc::new(isr_channel),
    )?)
}

/// Opens the client port with the first readiness, and keeps the gauges of the broker's standing.
async fn follow_status(
    open: watch::Sender<bool>,
    mut status: watch::Receiver<SessionStatus>,
    context: BrokerContext,
    stop: CancellationToken,
) {
    let mut images = context.images.subscribe();
    loop {
        let ready = status.borrow_and_update().is_ready();
        metrics::gauge!(metric_names::BROKER_READY).set(f64::from(u8::from(ready)));
        let offset = images.borrow_and_update().offset;
        metrics::gauge!(metric_names::METADATA_APPLIED_OFFSET)
            .set(offset.map_or(-1.0, |offset| offset.get() as f64));
        if ready && !open.send_replace(true) {
            tracing::info!(
                after_ms = context.started.elapsed().as_millis() as u64,
                "broker is ready"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
        }
    }
}

/// What is advertised, with the ports that were bound where 0 stands.
fn advertised(endpoints: &[Endpoint], bound: &[(String, BoundPort)]) -> Vec<Listener> {
    let port_of = |name: &str| {
        let port = bound.iter().find(|(listener, _)| listener == name);
        port.map_or(0, |(_, port)| port.address.port())
    };
    let listener = |endpoint: &Endpoint| {
        let address = with_port(
            &HostPort::new(endpoint.host.as_str(), endpoint.port),
            port_of(&endpoint.listener),
        );
        Listener {
            name: endpoint.listener.clone(),
            host: address.host,
            port: u32::from(address.port),
            security_protocol: endpoint.security_protocol.clone(),
        }
    };
    endpoints.iter().map(listener).collect()
}

fn with_port(address: &HostPort, bound: u16) -> HostPort {
    let port = if address.port == 0 { bound } else { address.port };
    HostPort::new(address.host.as_str(), port)
}

/// The internal port is unauthenticated.
fn warn_of_exposure(address: &SocketAddr) {
    if !address.ip().is_loopback() {
        warn!(
            %address,
            "the internal port is unauthenticated and reachable from other machines: keep it behind a firewall"
        );
    }
}
