//! The middleware among others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::dev::Service;
use actix_web::error::{ErrorGatewayTimeout, ErrorUnauthorized};
use actix_web::{App as ActixApp, HttpMessage, HttpResponse, ResponseError, web};
use bytes::Bytes;
use http::HeaderMap;
use refrain::server::actix::Idempotency;
use refrain::server::{
    Dialect, Exchange, Execution, IdempotencyLayer, KeepPolicy, Refusal, RevDesk, scope,
};
use refrain::{RequestId, Scope, Store};

use crate::kit::*;

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Store::builder().open_in_memory().unwrap())
}

/// A client that authentication has found.
#[derive(Clone)]
struct Client(String);

#[test]
fn what_authentication_finds_reaches_the_scope_the_authorization_and_the_handler() {
    let layer = layer().scope(scope::extension).authorize_replay(|parts, _| async move {
        parts.extensions.get::<Client>().is_some_and(|client| client.0 == "account-1")
    });
    on_worker(async {
        let app = ActixApp::new()
            .wrap(Idempotency::new(layer).extension::<Client>())
            .wrap_fn(|request, service| {
                if let Some(client) = request.headers().get("x-client") {
                    let client = Client(client.to_str().unwrap().to_owned());
                    request.extensions_mut().insert(Scope::new("one"));
                    request.extensions_mut().insert(client);
                }
                service.call(request)
            })
            .route(
                "/",
                web::post().to(|client: web::ReqData<Client>| async move { client.into_inner().0 }),
            );
        let app = serve!(app);
        let ask = |client: &str| app.send(request("a", "{}").insert_header(("x-client", client)));
        assert_eq!(app.ask("a").await.refusal(), (401, "unauthorized".into()));
        assert_eq!(ask("account-1").await.text(), "account-1");
        assert!(ask("account-1").await.is_replay());
        assert_eq!(ask("account-2").await.refusal().0, 403);
    });
}

#[test]
fn an_error_of_an_inner_middleware_counts_as_its_response() {
    on_worker(async {
        for (layer, expected, runs) in [
            (layer(), [401, 401, 504, 504, 504], 5),
            (layer().durable(true), [401, 401, 504, 409, 409], 3),
            (layer().keep(KeepPolicy::All), [401, 401, 504, 504, 504], 2),
        ] {
            let ran = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&ran);
            let app = ActixApp::new()
                .wrap_fn(move |request, _service| {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let error = match request.headers().contains_key("x-nobody") {
                        true => ErrorUnauthorized("nobody"),
                        false => ErrorGatewayTimeout("slow"),
                    };
                    async { Err::<actix_web::dev::ServiceResponse, _>(error) }
                })
                .wrap(Idempotency::new(layer));
            let app = serve!(app);
            let mut statuses = Vec::new();
            for key in ["a", "a", "b", "b", "b"] {
                let mut asked = request(key, "{}");
                if key == "a" {
                    asked = asked.insert_header(("x-nobody", "1"));
                }
                let answer = app.send(asked).await;
                assert!(answer.header("x-request-id").is_some());
                statuses.push(answer.status);
            }
            assert_eq!(statuses, expected);
            assert_eq!(ran.load(Ordering::SeqCst), runs);
        }
    });
}

/// An error of a middleware that has a type of its own.
#[derive(Debug)]
struct Nobody;

impl std::fmt::Display for Nobody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody")
    }
}

impl ResponseError for Nobody {
    fn status_code(&self) -> actix_web::http::StatusCode {
        actix_web::http::StatusCode::UNAUTHORIZED
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::Unauthorized().insert_header(("x-realm", "calls")).body("who?")
    }
}

/// A middleware that reports errors may ask for the response, and drop it. The client got an empty
/// 500 then.
#[test]
fn an_error_of_an_inner_middleware_gives_its_response_out_as_often_as_it_is_asked() {
    on_worker(async {
        let app = ActixApp::new()
            .wrap_fn(|_request, _service| async {
                Err::<actix_web::dev::ServiceResponse, _>(Nobody.into())
            })
            .wrap(Idempotency::new(layer()))
            .wrap_fn(|request, service| {
                let answering = service.call(request);
                async {
                    let answer = answering.await;
                    if let Err(error) = &answer {
                        assert_eq!(error.error_response().status(), 401);
                        assert_eq!(error.as_response_error().status_code(), 401);
                        assert_eq!(error.to_string(), "nobody");
                    }
                    answer
                }
            });
        let app = serve!(app);
        for asked in [request("a", "{}"), anonymous("{}")] {
            let answer = app.send(asked).await;
            assert!(answer.is_error);
            assert_eq!((answer.status, answer.text()), (401, "who?"));
            assert_eq!(answer.header("x-realm"), Some("calls"));
        }
    });
}

#[test]
fn without_a_key_an_error_of_an_inner_middleware_keeps_its_type_and_its_response_has_the_id() {
    on_worker(async {
        let app = ActixApp::new()
            .wrap_fn(|_request, _service| async {
                Err::<actix_web::dev::ServiceResponse, _>(Nobody.into())
            })
            .wrap(Idempotency::new(layer()))
            .wrap_fn(|request, service| {
                let answering = service.call(request);
                async {
                    let answer = answering.await;
                    assert!(answer.as_ref().is_err_and(|it| it.as_error::<Nobody>().is_some()));
                    answer
                }
            });
        let asked = anonymous("{}").insert_header(("x-request-id", "mine-1"));
        let answer = serve!(app).send(asked).await;
        assert_eq!((answer.status, answer.text()), (401, "who?"));
        assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    });
}

/// The panic ended the task that the answer was to come from, and the client waited forever.
#[test]
fn p15_a_panic_while_an_error_makes_its_response_is_answered_and_frees_the_key() {
    #[derive(Debug)]
    struct Broken;

    impl std::fmt::Display for Broken {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("broken")
        }
    }

    impl ResponseError for Broken {
        fn error_response(&self) -> HttpResponse {
            panic!("the response")
        }
    }

    on_worker(async {
        let app = ActixApp::new()
            .route("/", web::post().to(HttpResponse::Ok))
            .wrap_fn(|request, service| {
                let broken = request.headers().contains_key("x-broken");
                let answering = service.call(request);
                async move { if broken { Err(Broken.into()) } else { answering.await } }
            })
            .wrap(Idempotency::new(layer()));
        let app = serve!(app);
        let failed = app.send(request("a", "{}").insert_header(("x-broken", "1"))).await;
        assert_eq!(failed.refusal(), (500, "internal_error".into()));
        assert_eq!(app.ask("a").await.status, 200);
    });
}

/// So that what outer middlewares bind to a request's task is there: spans, and the likes of
/// OpenTelemetry's context.
#[test]
fn a_handler_runs_in_the_task_of_its_request() {
    tokio::task_local! {
        static TENANT: &'static str;
    }

    on_worker(async {
        let app = ActixApp::new()
            .wrap(Idempotency::new(layer()))
            .wrap_fn(|request, service| TENANT.scope("tenant-1", service.call(request)))
            .route("/", web::post().to(|| async { TENANT.get() }));
        let app = serve!(app);
        for asked in [request("a", "{}"), anonymous("{}")] {
            assert_eq!(app.send(asked).await.text(), "tenant-1");
        }
    });
}

#[cfg(feature = "tracing")]
#[test]
fn a_handler_runs_in_the_span_of_its_request() {
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry());
    on_worker(async {
        let handler = || async {
            // On the way to a handler that waits, its task is polled again.
            actix_web::rt::task::yield_now().await;
            tracing::Span::current().metadata().unwrap().name()
        };
        let app =
            ActixApp::new().wrap(Idempotency::new(layer())).route("/", web::post().to(handler));
        assert_eq!(serve!(app).ask("a").await.text(), "idempotency");
    });
}

#[test]
fn of_nested_layers_only_the_outer_one_acts() {
    on_worker(async {
        let (inner, outer) = (layer().require_key(true), layer());
        let app = ActixApp::new().wrap(Idempotency::new(outer)).service(
            web::scope("").wrap(Idempotency::new(inner.clone())).route(
                "/",
                web::post()
                    .to(|execution: Execution| async move { execution.key().as_str().to_owned() }),
            ),
        );
        let app = serve!(app);
        assert_eq!(app.ask("a").await.text(), "a");
        assert!(app.ask("a").await.is_replay());
        let refused = app.send(anonymous("{}")).await.refusal();
        assert_eq!(refused, (400, "idempotency_key_missing".into()), "the outer one has not acted");
    });
}

#[test]
fn an_id_from_an_outer_middleware_is_the_requests() {
    on_worker(async {
        let app = ActixApp::new()
            .wrap(Idempotency::new(layer()))
            .wrap_fn(|request, service| {
                let id: RequestId = "outer-1".parse().unwrap();
                request.extensions_mut().insert(id);
                service.call(request)
            })
            .route("/", web::post().to(HttpResponse::Ok));
        let app = serve!(app);
        for asked in [request("a", "{}"), request("a", "[]"), anonymous("{}")] {
            assert_eq!(app.send(asked).await.header("x-request-id"), Some("outer-1"));
        }
    });
}

#[test]
fn a_dialect_that_panics_gives_way_to_the_contracts_own() {
    #[derive(Debug)]
    struct Broken;

    impl Dialect for Broken {
        fn refuse(&self, refusal: &Refusal) -> http::Response<Bytes> {
            RevDesk.refuse(refusal)
        }

        fn sign(&self, _exchange: &Exchange<'_>, _headers: &mut HeaderMap) {
            panic!("the dialect")
        }
    }

    on_worker(async {
        let app = App::with(|layer| layer.dialect(Broken), |_| HttpResponse::Ok().into()).await;
        for asked in [request("a", "{}"), anonymous("{}")] {
            let answer = app.send(asked).await;
            assert_eq!(answer.refusal(), (500, "internal_error".into()));
            assert!(!answer.is_error, "the request is there");
        }
    });
}
