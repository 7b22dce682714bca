//! The rows of the contract, in its order.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::{Method, StatusCode};
use refrain::{Fingerprint, Operation, Scope};

use crate::kit::*;

fn answers(status: u16) -> impl Fn(usize) -> HttpResponse + Clone + 'static {
    let status = StatusCode::from_u16(status).unwrap();
    move |run| HttpResponse::build(status).body(format!("run {run}"))
}

#[test]
fn every_mutation_takes_a_key_and_the_other_methods_ignore_it() {
    on_worker(async {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let app = App::new(answers(200)).await;
            for is_replay in [false, true] {
                let answer = app.send(request("a", "{}").method(method.clone())).await;
                assert_eq!(answer.is_replay(), is_replay, "{method}");
            }
        }
        let app = App::new(answers(200)).await;
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(app.send(request("not a key", "").method(method)).await.status, 200);
        }
        assert_eq!(app.runs(), 3);
    });
}

#[test]
fn the_same_request_is_replayed_with_its_status_and_the_mark_of_a_replay() {
    on_worker(async {
        let app = App::new(answers(201)).await;
        let first = app.ask("a").await;
        assert_eq!((first.status, first.text(), first.is_replay()), (201, "run 0", false));
        let again = app.ask("a").await;
        assert_eq!((again.status, again.text(), again.is_replay()), (201, "run 0", true));
        assert_eq!(app.runs(), 1);
    });
}

#[test]
fn another_body_method_path_or_query_is_a_conflict_that_names_the_original() {
    on_worker(async {
        let app = App::new(answers(201)).await;
        let original = app.ask("a").await;
        for other in [
            request("a", "[]"),
            request("a", ""),
            request("a", "{}").method(Method::PUT),
            request("a", "{}").uri("/?"),
            request("a", "{}").uri("/?dry=1"),
            request("a", "{}").uri("/elsewhere"),
        ] {
            let refused = app.send(other).await;
            assert_eq!(refused.refusal(), (409, "idempotency_conflict".into()));
            let named = refused.json()["error"]["fields"]["conflicts_with"].clone();
            assert_eq!(Some(named.as_str().unwrap()), original.header("x-request-id"));
        }
        assert_eq!(app.runs(), 1);
    });
}

#[test]
fn p6_another_token_is_another_key() {
    on_worker(async {
        let app = App::new(answers(201)).await;
        app.ask("a").await;
        let elsewhere = request("a", "{}").insert_header(("authorization", "Bearer sk_live_52"));
        assert!(!app.send(elsewhere).await.is_replay());
        assert_eq!(app.runs(), 2);
    });
}

#[test]
fn a_failure_frees_the_key_and_a_success_keeps_it() {
    on_worker(async {
        for failure in [400, 422, 500, 503] {
            let app = App::new(move |run| answers(if run == 0 { failure } else { 201 })(run)).await;
            assert_eq!(app.ask("a").await.status, failure);
            assert_eq!(app.ask("a").await.status, 201);
            let again = app.ask("a").await;
            assert_eq!((again.status, again.is_replay()), (201, true));
            assert_eq!(app.runs(), 2);
        }
    });
}

#[test]
fn a_wait_that_ends_first_is_told_who_runs() {
    on_worker(async {
        let app = App::with(|layer| layer.wait(Duration::ZERO), answers(200)).await;
        let scope = Scope::from_api_key("sk_live_51");
        let running = Operation::new(scope, "a".parse().unwrap(), Fingerprint::of(["other"]))
            .request_id("first".parse().unwrap());
        let _held = app.store.begin(&running).await.unwrap();
        let refused = app.ask("a").await;
        assert_eq!(refused.refusal(), (409, "idempotency_in_progress".into()));
        assert_eq!(refused.json()["error"]["fields"]["in_progress_request_id"], "first");
        assert_eq!(refused.header("retry-after"), Some("1"));
    });
}

#[test]
fn keys_outside_the_grammar_are_refused_and_the_quoted_form_is_the_same_key() {
    on_worker(async {
        let app = App::new(answers(200)).await;
        let long = "k".repeat(256);
        let invalid = (400, "idempotency_key_invalid".to_owned());
        for key in ["", "a b", "\"open", "\"a\";p=1", &long] {
            assert_eq!(app.ask(key).await.refusal(), invalid, "{key:?}");
        }
        let bytes = anonymous("{}").insert_header(("idempotency-key", &b"cl\xc3\xa9"[..]));
        assert_eq!(app.send(bytes).await.refusal(), invalid);
        let twice = request("a", "{}").append_header(("idempotency-key", "a"));
        assert_eq!(app.send(twice).await.refusal(), invalid);
        assert_eq!(app.runs(), 0);
        app.ask(&long[1..]).await;
        app.ask("b").await;
        assert!(app.ask("\"b\"").await.is_replay());
    });
}

#[test]
fn without_a_key_a_request_passes_and_a_route_can_require_one() {
    on_worker(async {
        let app = App::new(answers(200)).await;
        for _ in 0..2 {
            let answer = app.send(anonymous("{}")).await;
            assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
        }
        assert_eq!(app.runs(), 2);
        let app = App::with(|layer| layer.require_key(true), answers(200)).await;
        let refused = app.send(anonymous("{}")).await;
        assert_eq!(refused.refusal(), (400, "idempotency_key_missing".into()));
        assert_eq!(app.runs(), 0);
        assert_eq!(app.send(anonymous("").method(Method::GET)).await.status, 200);
    });
}

#[test]
fn without_one_bearer_token_a_key_is_refused() {
    on_worker(async {
        let app = App::new(answers(200)).await;
        let tokens: [&[&str]; 4] = [&[], &["Basic x"], &["Bearer"], &["Bearer a", "Bearer a"]];
        for given in tokens {
            let mut nobody = anonymous("{}").insert_header(("idempotency-key", "a"));
            for token in given {
                nobody = nobody.append_header(("authorization", *token));
            }
            let refused = app.send(nobody).await;
            assert_eq!(refused.refusal(), (401, "unauthorized".into()), "{given:?}");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        }
        assert_eq!(app.runs(), 0);
        let lower = request("a", "{}").insert_header(("authorization", "bearer  sk_live_51"));
        assert_eq!(app.send(lower).await.status, 200);
        assert!(app.ask("a").await.is_replay());
    });
}

#[test]
fn every_answer_names_the_request_at_hand() {
    on_worker(async {
        let app = App::new(answers(200)).await;
        for (key, body, status) in
            [("a", "{}", 200), ("a", "{}", 200), ("a", "[]", 409), ("", "", 400)]
        {
            let named = request(key, body).insert_header(("x-request-id", "mine-1"));
            let answer = app.send(named).await;
            assert_eq!((answer.status, answer.header("x-request-id")), (status, Some("mine-1")));
            let made = app.send(request(key, body)).await;
            assert!(made.header("x-request-id").unwrap().starts_with("req_"));
        }
    });
}

#[test]
fn p15_a_panic_answers_internal_error_and_frees_the_key() {
    on_worker(async {
        let app =
            App::new(
                |run| if run == 0 { panic!("the carrier") } else { HttpResponse::Ok().into() },
            )
            .await;
        let failed = app.ask("a").await;
        assert_eq!(failed.refusal(), (500, "internal_error".into()));
        assert!(failed.header("x-request-id").is_some());
        assert_eq!(app.ask("a").await.status, 200);
        assert_eq!(app.runs(), 2);

        let keyless = App::new(|_| panic!("the carrier")).await;
        let failed = keyless.send(anonymous("{}")).await;
        assert_eq!(failed.refusal(), (500, "internal_error".into()));
        assert!(failed.header("x-request-id").is_some());
    });
}

#[test]
fn p7_a_panic_of_a_durable_run_interrupts_the_key() {
    on_worker(async {
        let app = App::with(|layer| layer.durable(true), |_| panic!("the carrier")).await;
        let first = app.ask("a").await;
        assert_eq!(first.refusal(), (500, "internal_error".into()));
        let refused = app.ask("a").await;
        assert_eq!(refused.refusal(), (409, "idempotency_interrupted".into()));
        let named = refused.json()["error"]["fields"]["interrupted_request_id"].clone();
        assert_eq!(Some(named.as_str().unwrap()), first.header("x-request-id"));
        assert_eq!(app.runs(), 1);
    });
}

#[test]
fn a_store_that_cannot_answer_refuses_before_the_handler_runs() {
    on_worker(async {
        let app = App::new(answers(200)).await;
        app.store.close(Duration::ZERO).await.unwrap();
        let refused = app.ask("a").await;
        assert_eq!(refused.refusal(), (503, "idempotency_unavailable".into()));
        assert_eq!((refused.header("retry-after"), app.runs()), (Some("1"), 0));
    });
}

#[test]
fn p3_only_the_headers_of_one_connection_or_moment_are_not_replayed() {
    on_worker(async {
        for cookies in [false, true] {
            let app = App::with(
                |layer| layer.replay_set_cookie(cookies),
                |_| {
                    HttpResponse::Ok()
                        .append_header(("connection", "close, X-Hop"))
                        .append_header(("x-hop", "1"))
                        .append_header(("date", "now"))
                        .append_header(("server", "us"))
                        .append_header(("set-cookie", "a=1"))
                        .append_header(("link", "<1>"))
                        .append_header(("link", "<2>"))
                        .append_header(("link", "<3>"))
                        .append_header(("x-raw", &b"\xfe\xff"[..]))
                        .body("x")
                },
            )
            .await;
            let links = |answer: &Answer| -> Vec<String> {
                let links = answer.headers.get_all("link");
                links.map(|link| link.to_str().unwrap().to_owned()).collect()
            };
            let first = app.ask("a").await;
            assert!(first.headers.contains_key("x-hop"));
            assert!(first.headers.contains_key("set-cookie"));
            assert_eq!(links(&first), ["<1>", "<2>", "<3>"]);
            let again = app.ask("a").await;
            for gone in ["connection", "x-hop", "date", "server"] {
                assert!(!again.headers.contains_key(gone), "{gone}");
            }
            assert_eq!(again.headers.contains_key("set-cookie"), cookies);
            assert_eq!(links(&again), ["<1>", "<2>", "<3>"]);
            let raw = again.headers.get("x-raw").unwrap();
            assert_eq!((raw.as_bytes(), again.text()), (&b"\xfe\xff"[..], "x"));
        }
    });
}
