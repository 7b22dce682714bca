//! Retries: the failures that are tried again, when, and how often. Time is tokio's, paused: time
//! jumps ahead when all tasks wait.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use refrain::client::{Error, Failure, Stop};
use tokio::time::Instant;
use tower::retry::budget::TpsBudget;
use tower::{Layer, ServiceExt};

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_sent_again_under_the_same_key() {
    let in_progress = r#"{"error": {"code": "idempotency_in_progress", "message": ""}}"#;
    // The server's own refusal of a body that broke off.
    let mut unreadable = answer(400, r#"{"error": {"code": "body_unreadable", "message": ""}}"#);
    unreadable.headers_mut().insert("retry-after", "0".parse().unwrap());
    let fates = [
        Fate::Fail,
        Fate::Torn,
        Fate::Hang,
        Fate::Answer(answer(409, in_progress)),
        later(408, "0"),
        Fate::Answer(answer(408, "")),
        Fate::Answer(unreadable),
        later(425, "0"),
        later(429, "0"),
        Fate::Answer(answer(502, "")),
        Fate::Answer(answer(503, "")),
        Fate::Answer(answer(504, "")),
        Fate::Answer(answer(201, "placed")),
    ];
    let attempts = fates.len();
    let network = Network::of(fates);
    let client = layer().max_attempts(20).layer(network.clone());
    let response = send(&client, post("{}")).await.unwrap();
    let call = call_of(&response);
    assert_eq!((response.status().as_u16(), call.attempts() as usize), (201, attempts));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "placed");
    let sent = network.sent();
    assert!(sent.iter().all(|sent| sent.key() == call.key().unwrap().as_str()));
    assert!(sent.iter().all(|sent| sent.body == "{}"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_asked_for_twice() {
    for status in [200, 302, 400, 401, 403, 404, 409, 422, 500, 501] {
        let network = Network::of([Fate::Answer(answer(status, "{}"))]);
        let response = send(&through(&network), post("{}")).await.unwrap();
        assert_eq!((response.status().as_u16(), network.sent().len()), (status, 1));
    }
}

/// With a method that the layer knows nothing of, nobody can tell if a retry is safe.
#[tokio::test(start_paused = true)]
async fn what_has_neither_a_key_nor_a_safe_method_is_sent_once() {
    for status in [408, 503] {
        let network = Network::of([later(status, "0")]);
        let mut request = post("{}");
        *request.method_mut() = "LOCK".parse().unwrap();
        let error = fails(&through(&network), request).await;
        assert_eq!((network.sent().len(), error.stop()), (1, Stop::NotIdempotent));
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_as_long_as_the_server_says() {
    let network = Network::of([later(503, "7"), later(429, "2.5"), later(408, "soon")]);
    let start = Instant::now();
    send(&through(&network), post("{}")).await.unwrap();
    let took = start.elapsed();
    assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn pauses_double_with_some_chance_and_are_bounded() {
    let mut tries = Vec::new();
    for _ in 0..10 {
        let network = Network::of((0..6).map(|_| Fate::Fail));
        let client = layer().max_attempts(7).backoff(SECOND, 4 * SECOND).layer(network.clone());
        let start = Instant::now();
        send(&client, post("{}")).await.unwrap();
        let (took, least) = (start.elapsed(), (1 + 2 + 4 + 4 + 4 + 4) * SECOND);
        assert!((least..least * 3 / 2 + SECOND).contains(&took), "{took:?}");
        tries.push(took);
    }
    tries.dedup();
    assert_eq!(tries.len(), 10, "no two calls come back at once");
}

async fn fails(client: &refrain::client::Client<Network>, request: Request<Full<Bytes>>) -> Error {
    send(client, request).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn patience_ends_with_the_last_error_and_the_key() {
    let network = Network::of((0..9).map(|_| later(503, "1")));
    let error = fails(&layer().max_attempts(3).layer(network.clone()), post("{}")).await;
    assert_eq!((error.call().attempts(), error.stop()), (3, Stop::Attempts));
    assert_eq!(error.call().key().unwrap().as_str(), network.sent()[0].key());
    assert_eq!(error.response().unwrap().status(), 503);
    assert!(matches!(error.failure(), Failure::Later { retry_after: Some(SECOND), .. }));
    assert_eq!(
        error.to_string(),
        "the server answered 503 Service Unavailable; the maximum number of attempts was reached (3 attempts)"
    );

    let network = Network::of([later(503, "121")]);
    let error = fails(&through(&network), post("{}")).await;
    assert_eq!((error.call().attempts(), error.stop()), (1, Stop::Deadline));

    // Longer than there is time, and longer than any number of seconds.
    for endless in ["18446744073709551615", "99999999999999999999999"] {
        let network = Network::of([later(503, endless)]);
        let error = fails(&layer().deadline(Duration::MAX).layer(network), post("{}")).await;
        assert_eq!((error.call().attempts(), error.stop()), (1, Stop::Deadline), "{endless}");
    }

    let spent = TpsBudget::new(10 * SECOND, 0, 0.0);
    let network = Network::of([Fate::Fail]);
    let error = fails(&layer().budget(spent).layer(network.clone()), post("{}")).await;
    assert_eq!((error.call().attempts(), error.stop()), (1, Stop::Budget));
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_in_mid_attempt() {
    let network = Network::of([Fate::Hang, Fate::Hang, Fate::Hang]);
    let client = layer().attempt_timeout(4 * SECOND).deadline(10 * SECOND).layer(network);
    let start = Instant::now();
    let error = fails(&client, post("{}")).await;
    assert_eq!((error.call().attempts(), error.stop()), (3, Stop::Deadline));
    assert!(matches!(error.failure(), Failure::TimedOut { .. }));
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn what_a_server_refuses_is_typed_in_each_dialect_and_final() {
    let problem = |status, body| {
        let mut response = answer(status, body);
        let problem = "application/problem+json".parse().unwrap();
        response.headers_mut().insert("content-type", problem);
        response
    };
    let conflict = |original: Option<&str>, error: &Error| match error.failure() {
        Failure::Conflict { original_request_id: id } => {
            id.as_ref().map(|id| id.as_str()) == original
        }
        _ => false,
    };
    let revdesk = answer(
        409,
        r#"{"error": {"code": "idempotency_conflict", "message": "", "fields": {"conflicts_with": "req_81"}}}"#,
    );
    let error = refused(revdesk).await;
    assert!(conflict(Some("req_81"), &error), "{error}");
    let stripe = answer(400, r#"{"error": {"type": "idempotency_error", "message": ""}}"#);
    assert!(conflict(None, &refused(stripe).await));
    let ietf =
        problem(422, r#"{"type": "about:blank", "title": "Idempotency-Key is already used"}"#);
    assert!(conflict(None, &refused(ietf).await));

    let interrupted = answer(
        409,
        r#"{"error": {"code": "idempotency_interrupted", "message": "", "fields": {"interrupted_request_id": "req_7"}}}"#,
    );
    let error = refused(interrupted).await;
    assert!(
        matches!(error.failure(), Failure::Interrupted { original_request_id: Some(id) } if id.as_str() == "req_7")
    );
    let interrupted = problem(
        409,
        r#"{"title": "A request with this Idempotency-Key was interrupted", "detail": "so it is (request req_7)."}"#,
    );
    let error = refused(interrupted).await;
    assert!(
        matches!(error.failure(), Failure::Interrupted { original_request_id: Some(id) } if id.as_str() == "req_7")
    );

    let gone =
        answer(409, r#"{"error": {"code": "idempotency_result_unavailable", "message": ""}}"#);
    assert!(matches!(refused(gone).await.failure(), Failure::ResultUnavailable { .. }));
    // A later attempt, after the server's restart, might run it again.
    let unknown =
        answer(503, r#"{"error": {"code": "idempotency_outcome_unknown", "message": ""}}"#);
    assert!(matches!(refused(unknown).await.failure(), Failure::OutcomeUnknown));
}

/// Sends a call that gets this response, and returns the call's error.
async fn refused(response: Response<Full<Bytes>>) -> Error {
    let network = Network::of([Fate::Answer(response)]);
    let error = fails(&through(&network), post("{}")).await;
    assert_eq!((network.sent().len(), error.stop()), (1, Stop::Final));
    assert!(error.response().is_some());
    error
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_held_is_sent_once() {
    let network = Network::of([Fate::Fail]);
    let client = layer().max_request_bytes(4).layer(network.clone());
    let error = fails(&client, post("longer")).await;
    assert_eq!((error.call().attempts(), error.stop()), (1, Stop::BodyNotRepeatable));
    assert!(error.to_string().contains("the body can be sent only once"), "{error}");

    let pieces =
        ["a", "b"].map(|piece| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(piece))));
    let stream = StreamBody::new(futures_util::stream::iter(pieces));
    let request = Request::post("http://calls.test/").body(stream).unwrap();
    let response = through(&network).oneshot(request).await.unwrap();
    assert_eq!(call_of(&response).attempts(), 1);
    assert_eq!(network.sent()[1].body, "ab");
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_passes_on_as_it_comes() {
    // But not if its head says that it is none.
    let network =
        Network::of([Fate::Answer(answer(503, "longer")), Fate::Answer(answer(200, "longer"))]);
    let client = layer().max_response_bytes(4).layer(network);
    let response = send(&client, post("{}")).await.unwrap();
    assert_eq!(call_of(&response).attempts(), 2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "longer");
}

#[tokio::test(start_paused = true)]
async fn to_wait_for_the_service_is_part_of_an_attempt() {
    let busy = tower::limit::ConcurrencyLimit::new(Network::of([Fate::Hang]), 1);
    let client = layer().attempt_timeout(4 * SECOND).deadline(10 * SECOND).layer(busy);
    let (first, second) =
        tokio::join!(client.clone().oneshot(post("{}")), client.clone().oneshot(post("{}")));
    let attempts = |response| call_of(&response).attempts();
    assert_eq!(attempts(first.unwrap()) + attempts(second.unwrap()), 4, "both timed out once");
}

#[tokio::test]
async fn a_replay_is_told_in_all_spellings() {
    for name in ["idempotency-replay", "idempotent-replayed", "idempotency-replayed"] {
        let mut replay = answer(201, "{}");
        replay.headers_mut().insert(name, "true".parse().unwrap());
        let network = Network::of([Fate::Answer(replay)]);
        let response = send(&through(&network), post("{}")).await.unwrap();
        assert!(call_of(&response).is_replay(), "{name}");
    }
}
