//! Receivers that reset, stall, drip, flood, break TLS or send nonsense: each costs its own Webhook
//! alone, is told by reason and phase, and is tried again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, Issuer, KeyPair};
use tidings_plan::{Endpoint, SecretText, Tls, WebhookPlan};
use tidings_signature::SigningKey;
use tidings_tests::capture;
use tidings_tests::plan::{Change as _, plan, webhook, webhook_to};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::Receiver;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Listens, and does with each connection what it is told.
async fn endpoint<F>(act: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(act(stream));
        }
    });
    address
}

async fn read_some(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    let _ = stream.read(&mut buffer).await;
}

/// Beside a good Webhook, one to the hostile endpoint: the good one gets its event, the other one fails
/// for this reason in this phase, and keeps the event.
async fn fails(hostile: WebhookPlan, reason: &str, phase: &str) -> (Process, serde_json::Value) {
    let good = Receiver::start().await;
    let mut hostile = hostile.retrying_within(1, 2, 3600);
    hostile.delivery.timeout_seconds = 1;
    let home = Home::default();
    home.put(&plan([webhook("good", &good), hostile]));
    let sidecar = home.start().await;
    let body = br#"{"event":"A"}"#;
    let signature = SigningKey::new(&capture::signing_key()).unwrap().logto_signature(body);
    let headers = format!("logto-signature-sha-256: {signature}\r\n");
    assert_eq!(sidecar.sender().await.post("/events", &headers, body).await.unwrap().status, 200);
    good.wait_for(1).await;
    let status = sidecar
        .wait_webhook("shop/hostile", "it failed", |webhook| webhook["failed"].as_u64() > Some(0))
        .await;
    let failure = &status["lastFailure"];
    assert_eq!((&failure["reason"], &failure["phase"]), (&reason.into(), &phase.into()), "{failure}");
    assert_eq!(
        (&status["delivered"], &status["pending"], &status["deadLettered"]),
        (&0.into(), &1.into(), &0.into())
    );
    (sidecar, status)
}

fn hostile_at(address: SocketAddr) -> WebhookPlan {
    webhook_to("hostile", &format!("http://{address}/hook?token=hush"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_resets_the_connection() {
    let address = endpoint(|mut stream| async move {
        read_some(&mut stream).await;
        // With no time to linger, closing is a reset.
        stream.set_zero_linger().unwrap();
    })
    .await;
    let (sidecar, status) = fails(hostile_at(address), "ConnectionClosed", "Waiting").await;
    let everything = format!("{status}{}", sidecar.output());
    assert!(!everything.contains("hush"), "a URL's query is shown nowhere: {everything}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_where_nobody_listens() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    fails(hostile_at(address), "ConnectFailed", "Connect").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stalls_in_a_header() {
    let address = endpoint(|mut stream| async move {
        read_some(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ").await;
        std::future::pending::<()>().await;
    })
    .await;
    let (_, status) = fails(hostile_at(address), "Timeout", "Waiting").await;
    assert_eq!(
        status["lastFailure"]["message"],
        "no answer within 1 s; the time ran out while waiting for the answer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_drips_its_body() {
    let address = endpoint(|mut stream| async move {
        read_some(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    fails(hostile_at(address), "Timeout", "Reading").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_answers_something_else_than_http() {
    let address = endpoint(|mut stream| async move {
        read_some(&mut stream).await;
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n").await;
    })
    .await;
    fails(hostile_at(address), "InvalidAnswer", "Waiting").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_sends_a_gibibyte_is_read_a_little_and_taken_by_its_status() {
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let address = endpoint(move |mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            read_some(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await;
            let chunk = vec![b'x'; 64 << 10];
            while stream.write_all(&chunk).await.is_ok() {
                counted.fetch_add(chunk.len(), std::sync::atomic::Ordering::Relaxed);
            }
        }
    })
    .await;
    let home = Home::default();
    home.put(&plan([hostile_at(address)]));
    let sidecar = home.start().await;
    assert_eq!(sidecar.sender().await.send(&capture::of_event("PostSignIn")).await.status, 200);
    sidecar.wait_webhook("shop/hostile", "delivered", |webhook| webhook["delivered"] == 1).await;
    let sent = written.load(std::sync::atomic::Ordering::Relaxed);
    assert!(sent < 32 << 20, "the rest was not read: {sent} bytes went out");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_speaks_plain_http_on_its_https_port() {
    let address = endpoint(|mut stream| async move {
        read_some(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    fails(webhook_to("hostile", &format!("https://{address}/")), "TlsFailed", "Tls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stalls_in_the_tls_handshake() {
    let address = endpoint(|mut stream| async move {
        read_some(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    fails(webhook_to("hostile", &format!("https://{address}/")), "Timeout", "Tls").await;
}

/// A CA of our own, and what it signed.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A server that speaks TLS under this name, answers 200 and tells what it was asked for.
    async fn serve(&self, name: &str, years_off: i32) -> SocketAddr {
        let (chain, key) = self.sign(name, years_off);
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![chain], key)
                .unwrap();
        let config = Arc::new(config);
        endpoint(move |stream| {
            let config = Arc::clone(&config);
            // A blocking server is the least there is to go wrong in a test.
            async move {
                let stream = stream.into_std().unwrap();
                tokio::task::spawn_blocking(move || answer_over_tls(&stream, config)).await.unwrap();
            }
        })
        .await
    }

    fn sign(
        &self,
        name: &str,
        years_off: i32,
    ) -> (rustls::pki_types::CertificateDer<'static>, rustls::pki_types::PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020 + years_off, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040 + years_off, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }
}

fn answer_over_tls(stream: &std::net::TcpStream, config: Arc<rustls::ServerConfig>) {
    use std::io::{Read as _, Write as _};
    stream.set_nonblocking(false).unwrap();
    let mut connection = rustls::ServerConnection::new(config).unwrap();
    let mut socket = stream;
    let mut tls = rustls::Stream::new(&mut connection, &mut socket);
    let mut buffer = [0; 8192];
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        match tls.read(&mut buffer) {
            Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
}

fn trusting(authority: &Authority, url: &str, server_name: Option<&str>) -> WebhookPlan {
    let mut webhook = webhook_to("hostile", url);
    let server_name = server_name.map(str::to_owned);
    webhook.endpoint.tls = Tls { ca: Some(authority.pem.clone()), server_name, ..Tls::default() };
    webhook
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_certificate_has_expired() {
    let authority = Authority::new();
    let address = authority.serve("127.0.0.1", -30).await;
    let (_, status) =
        fails(trusting(&authority, &format!("https://{address}/"), None), "TlsFailed", "Tls").await;
    assert!(status["lastFailure"]["message"].as_str().unwrap().contains("expired"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_certificate_has_another_name() {
    let authority = Authority::new();
    let address = authority.serve("other.example.com", 0).await;
    fails(trusting(&authority, &format!("https://{address}/"), None), "TlsFailed", "Tls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_ca_nobody_knows() {
    let address = Authority::new().serve("127.0.0.1", 0).await;
    fails(trusting(&Authority::new(), &format!("https://{address}/"), None), "TlsFailed", "Tls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_and_a_server_name_of_ones_own_are_honoured() {
    let authority = Authority::new();
    let address = authority.serve("hooks.internal", 0).await;
    let home = Home::default();
    home.put(&plan([trusting(&authority, &format!("https://{address}/"), Some("hooks.internal"))]));
    let sidecar = home.start().await;
    assert_eq!(sidecar.sender().await.send(&capture::of_event("PostSignIn")).await.status, 200);
    sidecar.wait_webhook("shop/hostile", "delivered", |webhook| webhook["delivered"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_resolves_to_a_forbidden_address_is_never_dialled() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    let mut plan = plan([webhook_to("hostile", &format!("http://localhost:{}/", receiver.port()))]);
    plan.egress.allow.clear();
    plan.egress.allow.push("127.0.0.1/32".parse().unwrap());
    plan.egress.deny.push("127.0.0.0/8".parse().unwrap());
    plan.egress.deny.push("::1/128".parse().unwrap());
    home.put(&plan);
    let sidecar = home.start().await;
    assert_eq!(sidecar.metric("tidings_plan_webhooks_rejected").await, Some(1));
    assert_eq!(sidecar.sender().await.send(&capture::of_event("PostSignIn")).await.status, 200);
    assert!(receiver.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_cannot_call_another_host_a_service_of_the_namespace() {
    let receiver = Receiver::start().await;
    let port = receiver.port();
    let hosts = ["127.0.0.1", "localhost", "mailer.auth.svc", "mailer.shop.svc.example.com", "shop.svc"];
    let called = hosts.map(|host| {
        let mut webhook =
            webhook_to(&format!("at-{}", host.replace('.', "-")), &format!("http://{host}:{port}/"));
        webhook.endpoint.in_cluster = true;
        webhook
    });
    let home = Home::default();
    home.put(&plan(called));
    let sidecar = home.start().await;
    assert_eq!(sidecar.metric("tidings_plan_webhooks_rejected").await, Some(hosts.len() as u64));
    assert_eq!(sidecar.sender().await.send(&capture::of_event("PostSignIn")).await.status, 200);
    assert!(receiver.received().is_empty());
}

/// A Service of the own namespace, at the addresses that the plan has for it.
fn service_at(url: &str, addresses: &[&str]) -> WebhookPlan {
    let mut webhook = webhook_to("hostile", url);
    webhook.endpoint.in_cluster = true;
    webhook.endpoint.addresses = Some(addresses.iter().map(|text| text.parse().unwrap()).collect());
    webhook
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_dialled_at_the_plans_addresses_under_its_own_name() {
    let receiver = Receiver::start().await;
    let url = format!("http://mailer.shop.svc:{}/hook", receiver.port());
    let home = Home::default();
    home.put(&plan([service_at(&url, &["127.0.0.1"])]));
    let sidecar = home.start().await;
    assert_eq!(sidecar.sender().await.send(&capture::of_event("PostSignIn")).await.status, 200);
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].header("host"), format!("mailer.shop.svc:{}", receiver.port()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_services_certificate_is_checked_for_the_services_name() {
    let authority = Authority::new();
    let address = authority.serve("mailer.shop.svc", 0).await;
    let url = format!("https://mailer.shop.svc:{}/", address.port());
    let mut webhook = trusting(&authority, &url, None);
    webhook.endpoint = Endpoint { tls: webhook.endpoint.tls, ..service_at(&url, &["127.0.0.1"]).endpoint };
    let home = Home::default();
    home.put(&plan([webhook]));
    let sidecar = home.start().await;
    assert_eq!(sidecar.sender().await.send(&capture::of_event("PostSignIn")).await.status, 200);
    sidecar.wait_webhook("shop/hostile", "delivered", |webhook| webhook["delivered"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plans_addresses_of_a_service_are_checked_as_any_others() {
    // 127.0.0.0/8 alone is open to these tests: another loopback address is not.
    fails(service_at("http://mailer.shop.svc:9/", &["::1", "169.254.169.254"]), "AddressBlocked", "Dns")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_ready_pod_waits_for_one() {
    fails(service_at("http://mailer.shop.svc:9/", &[]), "DnsFailed", "Dns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_knows() {
    fails(webhook_to("hostile", "http://nobody.invalid/"), "DnsFailed", "Dns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_header_is_sent_and_shown_nowhere() {
    let receiver = Receiver::start().await;
    let mut with_header = webhook("all", &receiver);
    with_header.endpoint.headers.insert("authorization".to_owned(), SecretText::new("Bearer hush-hush"));
    let home = Home::default();
    home.put(&plan([with_header]));
    let mut command = home.sidecar(&[]);
    command.env("TIDINGS_LOG", "trace");
    let sidecar = Process::start(command).await;
    assert_eq!(sidecar.sender().await.send(&capture::of_event("PostSignIn")).await.status, 200);
    assert_eq!(receiver.wait_for(1).await[0].header("authorization"), "Bearer hush-hush");
    let metrics = tidings_tests::client::get(sidecar.admin, "/metrics").await.unwrap().body;
    let (_, output) = sidecar.terminate().await;
    assert!(!output.contains("hush-hush") && !metrics.contains("hush-hush"));
    assert!(!output.contains(tidings_tests::plan::KEY), "no key in the log, even at trace");
}
