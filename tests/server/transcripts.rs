//! Checks the transcripts in `docs/wire.md` against curl's output. `REFRAIN_WRITE_DOCS=1` rewrites
//! them instead.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::IntoResponse;
use axum::routing::post;
use http::StatusCode;
use refrain::server::{IdempotencyLayer, Ietf, Stripe, Verdict, scope};
use refrain::{Fingerprint, Operation, Scope, Store};
use tokio::net::TcpListener;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/wire.md");
const CALL: &str = r#"{"to":"+14155556789"}"#;
const OTHER_CALL: &str = r#"{"to":"+442079460000"}"#;

/// A server in one dialect, the contract's own by default, with a route for every reason to refuse a request.
struct Server {
    address: SocketAddr,
    store: Store,
    /// The quote that the dialect puts around a key; empty for none.
    quote: &'static str,
    transcript: String,
}

impl Server {
    async fn start(
        dialect: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
        quote: &'static str,
    ) -> Self {
        let builder = Store::builder().max_in_flight_per_scope(2);
        let store = builder.open_in_memory().unwrap();
        let layer = dialect(IdempotencyLayer::new(store.clone()))
            .wait(Duration::ZERO)
            .max_request_bytes(1000)
            .require_key(true);
        let placed = || async { (StatusCode::CREATED, "placed\n") };
        let streamed = || async { (Verdict::CompleteWithoutResponse, "streamed\n") };
        let crash = || async { (Verdict::Interrupt, StatusCode::GATEWAY_TIMEOUT) };
        let panics = || async { panic!("the carrier") as &'static str };
        let closing = store.clone();
        let closes = move || async move {
            closing.close(Duration::ZERO).wait().unwrap();
            "placed\n".into_response()
        };
        let seen_by_none = layer.clone().authorize_replay(|_, _| async { false });
        let app = Router::new()
            .route("/calls", post(placed))
            .route("/streams", post(streamed))
            .route("/crashes", post(crash))
            .route("/panics", post(panics))
            .route("/failures", post(closes))
            .layer(DefaultBodyLimit::disable())
            .layer(layer.durable(true))
            .route("/secrets", post(placed).layer(seen_by_none));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        Self { address, store, quote, transcript: String::new() }
    }

    /// Returns curl's output for a request with these headers.
    async fn curl(&self, path: &str, headers: &[&str], body: &str) -> String {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--max-time", "60"]);
        command.arg(format!("http://{}{path}", self.address));
        for header in headers {
            command.args(["--header", header]);
        }
        command.args(["--data", body]);
        let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        let output = ran.expect("curl is installed");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn key(&self, key: &str) -> String {
        format!("Idempotency-Key: {0}{key}{0}", self.quote)
    }

    /// Sends a request that prepares the next one, and ignores its answer.
    async fn prepare(&self, path: &str, key: &str) {
        let (token, key) = ("Authorization: Bearer sk_live_51", self.key(key));
        self.curl(path, &[token, &key], CALL).await;
    }

    /// Sends a request with a key, and adds the exchange to the transcript.
    async fn show(&mut self, title: &str, path: &str, key: &str, body: &str) {
        let key = self.key(key);
        let headers = ["Authorization: Bearer sk_live_51", &key];
        self.write(title, path, &headers, body).await;
    }

    async fn write(&mut self, title: &str, path: &str, headers: &[&str], body: &str) {
        let said = self.curl(path, headers, body).await;
        let options: String = headers.iter().map(|header| format!(" -H '{header}'")).collect();
        let body = if body.len() > 100 { "@1001-bytes" } else { body };
        writeln!(self.transcript, "{title}:\n\n```console").unwrap();
        writeln!(
            self.transcript,
            "$ curl -i http://127.0.0.1:8080{path}{options} \\\n    -d '{body}'"
        )
        .unwrap();
        for line in said.lines().filter(|line| !line.starts_with("date: ")) {
            writeln!(self.transcript, "{}", line.trim_end()).unwrap();
        }
        writeln!(self.transcript, "```\n").unwrap();
    }

    async fn run(mut self) -> String {
        const TOKEN: &str = "Authorization: Bearer sk_live_51";
        let store = self.store.clone();
        let hold = |key: &str| {
            let scope = Scope::from_api_key("sk_live_51");
            let fingerprint = Fingerprint::of(["what runs"]);
            store.begin(&Operation::new(scope, key.parse().unwrap(), fingerprint))
        };
        let running = hold("running");
        self.show("A first request", "/calls", "key-1", CALL).await;
        self.show("The same request again", "/calls", "key-1", CALL).await;
        self.show("Another request under the same key", "/calls", "key-1", OTHER_CALL).await;
        self.show("The same key at another endpoint", "/streams", "key-1", CALL).await;
        self.show("A request while another with its key is running", "/calls", "running", CALL)
            .await;
        let (a, key) = (hold("another"), self.key("key-2"));
        self.show("Too many requests in flight", "/calls", "key-2", CALL).await;
        drop((a, running));
        self.prepare("/crashes", "crashed").await;
        self.show("A retry of an interrupted request", "/crashes", "crashed", CALL).await;
        self.prepare("/streams", "streamed").await;
        self.show("A retry whose recorded response has no body", "/streams", "streamed", CALL)
            .await;
        self.prepare("/secrets", "secret").await;
        self.show("A replay that `authorize_replay` refuses", "/secrets", "secret", CALL).await;
        self.write("No key on a route that requires one", "/calls", &[TOKEN], CALL).await;
        self.show("A key outside the grammar", "/calls", "two words", CALL).await;
        let again = key.clone();
        self.write("Two keys on one request", "/calls", &[TOKEN, &key, &again], CALL).await;
        self.write("No token", "/calls", &[&key], CALL).await;
        self.show("A request body over the limit", "/calls", "key-2", &"x".repeat(1001)).await;
        self.show("A handler that panics", "/panics", "key-3", CALL).await;
        self.show("A response that could not be recorded", "/failures", "key-4", CALL).await;
        self.show("A store that is closed or has failed", "/calls", "key-5", CALL).await;
        number_requests(&self.transcript)
    }
}

/// Replaces random request ids by numbers, in order of first appearance.
fn number_requests(transcript: &str) -> String {
    const RANDOM: usize = 32;
    let mut numbers = BTreeMap::new();
    let mut parts = transcript.split("req_");
    let mut numbered = parts.next().unwrap().to_owned();
    for part in parts {
        let (id, rest) = part.split_at(RANDOM);
        let next = numbers.len() + 1;
        let number = *numbers.entry(id.to_owned()).or_insert(next);
        write!(numbered, "req_{number}{rest}").unwrap();
    }
    numbered
}

#[tokio::test]
async fn the_transcripts_in_the_documentation_are_what_curl_shows() {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let mut written = document.clone();
    let ietf = Ietf::new("https://developer.example.com/idempotency");
    let stripe = |layer: IdempotencyLayer| layer.dialect(Stripe).scope(scope::bearer_or_basic);
    for (name, transcript) in [
        ("revdesk", Server::start(|layer| layer, "").await.run().await),
        ("ietf", Server::start(|layer| layer.dialect(ietf), "\"").await.run().await),
        ("stripe", Server::start(stripe, "").await.run().await),
    ] {
        let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
        let from = written.find(&begin).expect("it has a place for the dialect") + begin.len();
        let to = written.find(&end).expect("it has an end for the dialect");
        written.replace_range(from..to, &format!("\n{transcript}"));
    }
    if std::env::var_os("REFRAIN_WRITE_DOCS").is_some() {
        std::fs::write(DOCUMENT, written).unwrap();
    } else {
        assert_eq!(document, written, "run it with REFRAIN_WRITE_DOCS=1");
    }
}
