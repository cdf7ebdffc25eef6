//! `tidings-operator`: turns Webhooks into the plans of sidecars, and reports back in their status.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kube::Client;
use kube::client::ClientBuilder;
use tidings_election::{Election, Settings, SettingsError, Timing};
use tidings_operator::access::{Access, ServeError};
use tidings_operator::metrics::Metrics;
use tidings_operator::run::Operator;
use tidings_operator::surface::{Problems, Surface};
use tidings_operator::watch::Scope;
use tidings_operator::world::GRACE_SECONDS;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Turns Webhooks into the plans of sidecars, and reports back in their status.
///
/// It talks to the API server that the pod's service account, or KUBECONFIG, names. Several of them may
/// run: one leads, the others wait.
#[derive(Debug, Parser)]
#[command(name = "tidings-operator", version)]
struct Arguments {
    /// The namespaces to look at, the whole cluster when none is named. Without rights in the cluster the
    /// labels of namespaces are not seen, and `AuthServers` that select by them find none.
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',', env = "TIDINGS_NAMESPACES")]
    namespaces: Vec<String>,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, default_value = "127.0.0.1:8789", env = "TIDINGS_ADMIN_LISTEN")]
    admin_listen: SocketAddr,
    /// Where the HTTPS API for teams is, which the API server's service proxy reaches; without it there is none.
    #[arg(long, value_name = "ADDRESS", env = "TIDINGS_API_LISTEN")]
    api_listen: Option<SocketAddr>,
    /// The namespace of the Lease by which one of several operators leads.
    #[arg(long, default_value = "tidings-system", value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    lease_namespace: String,
    /// The Lease's name.
    #[arg(long, default_value = "tidings-operator", value_name = "NAME")]
    lease_name: String,
    /// Who this is, as the Lease shows it: the pod's name.
    #[arg(long, default_value = "tidings-operator", value_name = "NAME", env = "POD_NAME")]
    identity: String,
    /// How long a Lease that does not change is left to its holder, in seconds.
    #[arg(long, default_value_t = 15, value_name = "SECONDS")]
    lease_duration_seconds: u64,
    /// How long a leader that cannot renew its Lease goes on, in seconds.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    renew_deadline_seconds: u64,
    /// How often the Lease is looked at, in milliseconds.
    #[arg(long, default_value_t = 2000, value_name = "MILLISECONDS")]
    retry_period_milliseconds: u64,
    /// How long it is no news that no sidecar of an AuthServer is ready, in seconds: until then Webhooks that ran
    /// stay Ready, so that a restart of an auth server's only pod changes no condition.
    #[arg(long, default_value_t = GRACE_SECONDS, value_name = "SECONDS")]
    sidecar_grace_seconds: i64,
}

/// Why it ends with an error.
#[derive(Debug, thiserror::Error)]
enum OperatorError {
    #[error("there is no way to the API server: {0}; set KUBECONFIG, or run in a pod with a service account")]
    Config(#[from] kube::config::InferConfigError),
    #[error("the client cannot be built: {0}")]
    Client(#[from] kube::Error),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot listen on {address}: {source}; end what listens there, or choose another {option}")]
    Listen { address: SocketAddr, source: std::io::Error, option: &'static str },
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("a part of the operator ended; the log tells why")]
    PartEnded,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let mut filter = EnvFilter::try_from_env("TIDINGS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // It logs answers that it cannot read, and an answer can be a Secret. Its errors are told here.
    if let Ok(silent) = "kube_client=off".parse() {
        filter = filter.add_directive(silent);
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), OperatorError> {
    let settings = arguments.election()?;
    let metrics = Metrics::default();
    let client = client(&metrics).await?;
    let (problems, scope) = (Problems::default(), arguments.scope());
    let surface = Surface::new(problems.clone(), metrics.clone());
    let listener = listen(arguments.admin_listen, "--admin-listen").await?;
    let api = match arguments.api_listen {
        Some(address) => Some(listen(address, "--api-listen").await?),
        None => None,
    };
    say_ready(&listener, api.as_ref())?;
    let serving = tokio::spawn(surface.clone().serve(listener));
    let (access, lookups) = Access::new(client.clone(), nobody().await?, metrics.clone());
    let election = Election::start(client.clone(), settings);
    let lead = election.lead();
    let operator = Operator::start(&client, &scope, &arguments.identity, lead, surface, &problems, metrics)
        .with_grace(arguments.sidecar_grace_seconds);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = tokio::select! {
        () = operator.run(lookups) => Err(OperatorError::PartEnded),
        result = serve(access, api) => Err(result.map_or_else(Into::into, |()| OperatorError::PartEnded)),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // What was under way holds its permits no longer; the Lease is given back for the next one.
    let resignation = election.resign().await;
    tracing::info!(?resignation, "the operator ends");
    serving.abort();
    ended
}

async fn listen(address: SocketAddr, option: &'static str) -> Result<TcpListener, OperatorError> {
    TcpListener::bind(address).await.map_err(|source| OperatorError::Listen { address, source, option })
}

/// Serves the API for teams, where it has an address.
async fn serve(access: Access, listener: Option<TcpListener>) -> Result<(), ServeError> {
    match listener {
        Some(listener) => access.serve(listener).await,
        None => std::future::pending().await,
    }
}

/// A client without credentials: each of its requests carries a person's token.
async fn nobody() -> Result<Client, OperatorError> {
    let mut config = kube::Config::infer().await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.auth_info = kube::config::AuthInfo::default();
    Ok(Client::try_from(config)?)
}

/// A client that counts its requests.
async fn client(metrics: &Metrics) -> Result<Client, OperatorError> {
    let mut config = kube::Config::infer().await?;
    // A request that is not answered tells as much as one that fails.
    config.connect_timeout = Some(Duration::from_secs(5));
    let metrics = metrics.clone();
    let count = move |request: http::Request<kube::client::Body>| {
        metrics.requested(request.method().as_str());
        request
    };
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder.with_layer(&tower::util::MapRequestLayer::new(count)).build())
}

fn say_ready(listener: &TcpListener, api: Option<&TcpListener>) -> Result<(), std::io::Error> {
    use std::io::Write as _;
    let api = match api {
        Some(listener) => format!(" api=https://{}", listener.local_addr()?),
        None => String::new(),
    };
    let line = format!("started admin=http://{}{api}\n", listener.local_addr()?);
    // A standard output that nobody reads any more is no reason to end.
    let _ = std::io::stdout().write_all(line.as_bytes());
    Ok(())
}

// === impl Arguments ===

impl Arguments {
    fn scope(&self) -> Scope {
        let names: BTreeSet<_> = self.namespaces.iter().filter(|name| !name.is_empty()).cloned().collect();
        if names.is_empty() { Scope::Cluster } else { Scope::Namespaces(names) }
    }

    fn election(&self) -> Result<Settings, SettingsError> {
        let timing = Timing::new(
            Duration::from_secs(self.lease_duration_seconds),
            Duration::from_secs(self.renew_deadline_seconds),
            Duration::from_millis(self.retry_period_milliseconds),
        )?;
        Settings::new(&self.lease_namespace, &self.lease_name, &self.identity, timing)
    }
}
