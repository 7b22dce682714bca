//! The tools that the tests build with. Nothing here asserts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::body::{MessageBody, to_bytes};
use actix_web::dev::ServiceResponse;
use actix_web::http::header::HeaderMap;
use actix_web::test::TestRequest;
use actix_web::{App as ActixApp, Error, HttpResponse, rt, web};
use bytes::Bytes;
use refrain::Store;
use refrain::server::IdempotencyLayer;
use refrain::server::actix::Idempotency;
use serde_json::Value;

/// Runs a test on a system of its own.
pub(crate) fn on_worker<T>(test: impl Future<Output = T>) -> T {
    rt::System::new().block_on(test)
}

pub(crate) type Asking = Pin<Box<dyn Future<Output = Answer>>>;

/// An app that is called in-process.
pub(crate) struct Served(Box<dyn Fn(TestRequest) -> Asking>);

/// Serves an app. A macro, because the types of apps have no short names.
macro_rules! serve {
    ($app:expr) => {{
        use actix_web::dev::Service as _;

        let service = std::rc::Rc::new(actix_web::test::init_service($app).await);
        $crate::kit::Served::new(move |request: actix_web::test::TestRequest| {
            let answering = service.call(request.to_request());
            Box::pin(async { $crate::kit::Answer::read(answering.await).await })
        })
    }};
}
pub(crate) use serve;

impl Served {
    pub(crate) fn new(ask: impl Fn(TestRequest) -> Asking + 'static) -> Self {
        Self(Box::new(ask))
    }

    pub(crate) fn send(&self, request: TestRequest) -> Asking {
        (self.0)(request)
    }

    pub(crate) fn ask(&self, key: &str) -> Asking {
        self.send(request(key, "{}"))
    }
}

/// An app whose handler counts its runs.
pub(crate) struct App {
    pub(crate) served: Served,
    pub(crate) store: Store,
    runs: Arc<AtomicUsize>,
}

impl App {
    pub(crate) async fn new(answer: impl Fn(usize) -> HttpResponse + Clone + 'static) -> Self {
        Self::with(|layer| layer, answer).await
    }

    pub(crate) async fn with(
        configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
        answer: impl Fn(usize) -> HttpResponse + Clone + 'static,
    ) -> Self {
        let store = Store::builder().open_in_memory().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&runs);
        let handler = move |_body: Bytes| {
            let response = answer(counter.fetch_add(1, Ordering::SeqCst));
            async move { response }
        };
        let layer = configure(IdempotencyLayer::new(store.clone()));
        let app = ActixApp::new()
            .wrap(Idempotency::new(layer))
            .service(web::resource("/").to(handler.clone()))
            .service(web::resource("/elsewhere").to(handler));
        Self { served: serve!(app), store, runs }
    }

    pub(crate) fn send(&self, request: TestRequest) -> Asking {
        self.served.send(request)
    }

    pub(crate) fn ask(&self, key: &str) -> Asking {
        self.served.ask(key)
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

/// A POST with a token and a key.
pub(crate) fn request(key: &str, body: &str) -> TestRequest {
    anonymous(body)
        .insert_header(("authorization", "Bearer sk_live_51"))
        .insert_header(("idempotency-key", key))
}

/// A POST without either.
pub(crate) fn anonymous(body: &str) -> TestRequest {
    TestRequest::post().uri("/").set_payload(body.to_owned())
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// `None` if it broke off.
    pub(crate) body: Option<Bytes>,
    /// True if actix made the response from an error.
    pub(crate) is_error: bool,
}

impl Answer {
    pub(crate) async fn read(answer: Result<ServiceResponse<impl MessageBody>, Error>) -> Self {
        match answer {
            Ok(response) => Self::of(response.into_parts().1, false).await,
            Err(error) => Self::of(error.error_response(), true).await,
        }
    }

    async fn of(response: HttpResponse<impl MessageBody>, is_error: bool) -> Self {
        let (head, body) = response.into_parts();
        let body = to_bytes(body).await.ok();
        Self { status: head.status().as_u16(), headers: head.headers().clone(), body, is_error }
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.header("idempotency-replay") == Some("true")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().unwrap()).unwrap()
    }

    /// The status, and the code of an error.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let json = self.json();
        (self.status, json["error"]["code"].as_str().unwrap_or("none").to_owned())
    }

    /// The body, if it is JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.body.as_ref().unwrap()).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}
