//! The way to a sidecar in a pod: the Webhook, its reports, and the pod's admin port through the API server.
//!
//! A port is forwarded by a kubelet, so an API server alone does not suffice. Here a small one stands in: it
//! answers three questions, and speaks Kubernetes' port-forward protocol (channels of one WebSocket, each
//! beginning with its port) between the program as users run it and the admin port of a real sidecar.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_plan::{ObjectName, Plan};
use tidings_sidecar::sidecar::{Options, Sidecar};
use tidings_store::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

const PORT: u16 = 8788;

/// What stands in for an API server with a node.
#[derive(Clone)]
struct ApiServer {
    admin: SocketAddr,
    forwarded: Arc<AtomicUsize>,
}

// === impl ApiServer ===

impl ApiServer {
    /// Starts it before a sidecar's admin port; returns a kubeconfig that leads to it.
    async fn start(admin: SocketAddr) -> (Self, tempfile::NamedTempFile) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { admin, forwarded: Arc::default() };
        tokio::spawn(server.clone().serve(listener));
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "it", "user": {}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "shop"}}],
        });
        std::fs::write(kubeconfig.path(), config.to_string()).unwrap();
        (server, kubeconfig)
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, std::convert::Infallible>(server.answer(request)) }
                });
                let serving = hyper::server::conn::http1::Builder::new();
                let _ = serving.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            });
        }
    }

    fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/apis/tidings.dev/v1alpha1/namespaces/shop/webhooks/mail" => json_of(&webhook()),
            "/apis/tidings.dev/v1alpha1/namespaces/auth/deliveryreports" => {
                assert_eq!(request.uri().query(), Some("&labelSelector=tidings.dev%2Fauth-server%3Dlogto"));
                json_of(&reports())
            }
            "/api/v1/namespaces/auth/pods/logto-0/portforward" => self.forward(request),
            "/api/v1/namespaces/auth/pods/logto-1/portforward" => {
                let mut refused = json_of(&json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden",
                    "message": "no", "details": {"name": "logto-1", "kind": "pods"},
                }));
                *refused.status_mut() = StatusCode::FORBIDDEN;
                refused
            }
            other => panic!("nobody asks for {other}"),
        }
    }

    fn forward(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.forwarded.fetch_add(1, Ordering::SeqCst);
        let key = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
        let admin = self.admin;
        tokio::spawn(async move {
            let upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            bridge(WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await, admin).await;
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::UPGRADE, "websocket")
            .header(header::CONNECTION, "Upgrade")
            .header(header::SEC_WEBSOCKET_ACCEPT, key)
            .header(header::SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io")
            .body(Full::default())
            .unwrap()
    }
}

/// Carries the data channel's bytes to and from the admin port.
async fn bridge<S>(mut socket: WebSocketStream<S>, admin: SocketAddr)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut pod = TcpStream::connect(admin).await.unwrap();
    for channel in [0, 1] {
        let head = [&[channel], PORT.to_le_bytes().as_slice()].concat();
        socket.send(Message::binary(head)).await.unwrap();
    }
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) if bytes.first() == Some(&0) => pod.write_all(&bytes[1..]).await.unwrap(),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            read = pod.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    let message = Message::binary([&[0], &buffer[..length]].concat());
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
            },
        }
    }
}

fn json_of(value: &Value) -> Response<Full<Bytes>> {
    Response::new(Full::from(value.to_string()))
}

fn webhook() -> Value {
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Webhook", "metadata": {"name": "mail", "namespace": "shop"},
        "spec": {
            "authServerRef": {"name": "logto", "namespace": "auth"}, "events": ["*"],
            "endpoint": {"url": "https://mail.example.com/"}, "secretRef": {"name": "mail"},
        },
    })
}

/// Of a sidecar that reports in two parts, and of one that may not be reached.
fn reports() -> Value {
    let report = |pod: &str, part: i32| {
        json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "DeliveryReport",
            "metadata": {"name": format!("{pod}-{part}"), "namespace": "auth"},
            "spec": {
                "authServerRef": {"name": "logto"}, "pod": pod, "store": "s", "part": part,
                "plan": {"generation": 1, "digest": "d"}, "time": "2026-01-31T12:00:00Z",
                "events": {"received": 0, "unmatched": 0},
            },
        })
    };
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "DeliveryReportList", "metadata": {},
        "items": [report("logto-0", 0), report("logto-0", 1), report("logto-1", 0)],
    })
}

/// A sidecar at work that runs one Webhook, whose endpoint takes everything.
async fn sidecar() -> (SocketAddr, TempDir) {
    let endpoint = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/hook", endpoint.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = endpoint.accept().await.unwrap();
            let taken = service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), taken),
            );
        }
    });
    let plan = json!({
        "version": tidings_plan::PLAN_VERSION,
        "authServer": ObjectName::new("auth", "logto"),
        "ingest": tidings_plan::Ingest::default(),
        "egress": tidings_plan::Egress { allow: vec!["127.0.0.0/8".parse().unwrap()], allow_insecure: true, ..Default::default() },
        "webhooks": [{
            "webhook": ObjectName::new("shop", "mail"), "uid": "u", "generation": 1, "events": ["*"],
            "endpoint": {"url": url, "inCluster": false, "headers": {}, "tls": {}},
            "signingKeys": ["a-key-that-is-long-enough-for-all"], "filter": null, "format": "Native",
            "delivery": tidings_plan::Delivery::default(), "suspend": false,
        }],
    });
    let plan = Plan::from_json(plan.to_string().as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let store = Settings { dir: folder.path().to_owned(), ..Settings::default() };
    let options = Options { listen: any, admin_listen: any, store, ..Options::default() };
    let sidecar = Sidecar::start(options).await.unwrap();
    sidecar.apply(&plan).await;
    let admin = sidecar.admin_address();
    tokio::spawn(sidecar.run(std::future::pending()));
    (admin, folder)
}

async fn tidings(arguments: &[&str], kubeconfig: &tempfile::NamedTempFile) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(arguments).arg("--kubeconfig").arg(kubeconfig.path());
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_is_sent_by_the_sidecar_of_the_first_pod_that_can_be_reached() {
    let (admin, _folder) = sidecar().await;
    let (server, kubeconfig) = ApiServer::start(admin).await;
    let (code, output, error) = tidings(&["test", "mail"], &kubeconfig).await;
    assert_eq!(code, Some(0), "{output}{error}");
    assert!(output.contains("by sidecar logto-0") && output.contains("answered 200"), "{output}");
    assert_eq!(
        server.forwarded.load(Ordering::SeqCst),
        1,
        "one port for a sidecar, however many parts it reports in"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_may_not_be_reached_is_told_with_the_missing_right_and_the_others_are_shown() {
    let (admin, _folder) = sidecar().await;
    let (_server, kubeconfig) = ApiServer::start(admin).await;
    let (code, output, error) = tidings(&["deliveries", "mail", "-o", "json"], &kubeconfig).await;
    assert_eq!(code, Some(1), "{output}{error}");
    let page: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&page["webhook"], &page["deliveries"]), (&json!("shop/mail"), &json!([])));
    let expected = "you may not get and create pods/portforward logto-1 in namespace auth: have an administrator grant you the verbs get and create on pods/portforward";
    assert!(error.contains(expected), "{error}");
}
