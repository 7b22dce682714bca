//! Calls that are the same are sent once.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use refrain::client::{Body, CallId, Stop};
use tower::{Layer, ServiceExt};

use crate::kit::*;

fn named(id: &str, body: &'static str) -> Request<Full<Bytes>> {
    let mut request = post(body);
    request.extensions_mut().insert(CallId::new(id));
    request
}

async fn text(response: http::Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test(start_paused = true)]
async fn two_at_once_under_one_key_or_id_share_one_request() {
    for request in [|| keyed("mine", "{}"), || named("form-7", "{}")] {
        let network = Network::of([Fate::Fail, Fate::Answer(answer(201, "placed"))]);
        let client = through(&network);
        let (first, second) = tokio::join!(send(&client, request()), send(&client, request()));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!((call_of(&first), network.sent().len()), (call_of(&second), 2));
        assert_eq!((text(first).await, text(second).await), ("placed".into(), "placed".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_shared_too() {
    let conflict = r#"{"error": {"code": "idempotency_conflict", "message": ""}}"#;
    let network = Network::of([Fate::Fail, Fate::Answer(answer(409, conflict))]);
    let client = through(&network);
    let call = || send(&client, keyed("mine", "{}"));
    let (first, second) = tokio::join!(call(), call());
    assert_eq!(first.unwrap_err().to_string(), second.unwrap_err().to_string());
    assert_eq!(network.sent().len(), 2);
}

#[tokio::test]
async fn a_panic_is_shared_too_and_leaves_nobody_waiting() {
    let service = tower::service_fn(|_: Request<Body>| async {
        tokio::task::yield_now().await;
        if true {
            panic!("this is the test's");
        }
        Ok::<http::Response<Full<Bytes>>, BoxError>(http::Response::default())
    });
    let client = layer().layer(service);
    let call = || client.clone().oneshot(keyed("mine", "{}"));
    let (first, second) = tokio::join!(call(), call());
    assert_eq!(first.unwrap_err().to_string(), second.unwrap_err().to_string());
}

#[tokio::test(start_paused = true)]
async fn one_who_gives_up_does_not_take_the_call_along() {
    let network = Network::of([Fate::Hang, Fate::Answer(answer(201, "placed"))]);
    let client = layer().attempt_timeout(Duration::from_secs(5)).layer(network.clone());
    let impatient =
        tokio::time::timeout(Duration::from_secs(1), send(&client, keyed("mine", "{}")));
    let (impatient, patient) = tokio::join!(impatient, send(&client, keyed("mine", "{}")));
    assert!(impatient.is_err());
    assert_eq!((patient.unwrap().status().as_u16(), network.sent().len()), (201, 2));
}

/// Its error said that nothing was sent, while the call that it shared was on its way.
#[tokio::test(start_paused = true)]
async fn one_whose_deadline_passes_is_not_told_that_nothing_was_sent() {
    let network = Network::of([Fate::Hang, Fate::Answer(answer(201, "placed"))]);
    let layer = layer().attempt_timeout(Duration::from_secs(5));
    let patient = layer.layer(network.clone());
    let hasty = layer.clone().deadline(Duration::from_secs(1)).layer(network.clone());
    let (patient, hasty) =
        tokio::join!(send(&patient, keyed("mine", "{}")), send(&hasty, keyed("mine", "{}")));
    assert_eq!((patient.unwrap().status().as_u16(), network.sent().len()), (201, 2));
    let hasty = hasty.unwrap_err();
    assert_eq!((hasty.stop(), hasty.call().attempts()), (Stop::Deadline, 1));
}

#[tokio::test(start_paused = true)]
async fn what_differs_is_not_shared_and_neither_is_content() {
    let network = Network::default();
    let client = through(&network);
    let mut other = keyed("mine", "{}");
    other.headers_mut().insert("authorization", "Bearer another".parse().unwrap());
    let (a, b, c) = tokio::join!(
        send(&client, keyed("mine", "{}")),
        send(&client, keyed("mine", "[]")),
        send(&client, other),
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(network.sent().len(), 3);
    let (a, b) = tokio::join!(send(&client, post("{}")), send(&client, post("{}")));
    assert_ne!(call_of(&a.unwrap()).key(), call_of(&b.unwrap()).key());
    assert_eq!(network.sent().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_one_key_within_the_window() {
    let window = Duration::from_secs(10);
    let network = Network::default();
    let client = layer().call_ids(window, 2).layer(network.clone());
    let key = async |id| {
        send(&client, named(id, "{}")).await.unwrap();
        network.sent().pop().unwrap().key().to_owned()
    };
    let first = key("a").await;
    assert_eq!(key("a").await, first, "and it was sent again, for the server to replay");
    assert_ne!(key("b").await, first);
    tokio::time::advance(window).await;
    let second = key("a").await;
    assert_ne!(second, first);
    // A known one costs no other its place, and no more are remembered than the layer is told.
    let other = key("b").await;
    assert_eq!((key("a").await, key("b").await), (second.clone(), other));
    key("c").await;
    key("d").await;
    assert_ne!(key("a").await, second);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_passes_on_goes_to_one_and_the_others_ask_for_theirs() {
    let long = || Fate::Answer(answer(200, "longer"));
    let network = Network::of([long(), long()]);
    let client = layer().max_response_bytes(4).layer(network.clone());
    let call = || send(&client, keyed("mine", "{}"));
    let (first, second) = tokio::join!(call(), call());
    assert_eq!(text(first.unwrap()).await, text(second.unwrap()).await);
    assert_eq!(network.sent().len(), 2);
}
