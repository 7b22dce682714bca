//! The key that a request is sent under.

use http::{Method, Request};
use http_body_util::Full;
use refrain::client::{Failure, Stop};

use crate::kit::*;

#[tokio::test]
async fn each_mutation_gets_a_key_and_the_next_call_another() {
    let network = Network::default();
    let client = through(&network);
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let mut request = post("{}");
        *request.method_mut() = method;
        let response = send(&client, request).await.unwrap();
        let sent = network.sent().pop().unwrap();
        assert_eq!(call_of(&response).key().unwrap().as_str(), sent.key());
    }
    let mut keys: Vec<_> = network.sent().iter().map(|sent| sent.key().to_owned()).collect();
    // UUIDs of version 4.
    assert!(keys.iter().all(|key| key.len() == 36 && key.as_bytes()[14] == b'4'), "{keys:?}");
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 4);
}

#[tokio::test]
async fn a_safe_method_gets_none() {
    let network = Network::of([Fate::Fail]);
    let client = through(&network);
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let request =
            Request::builder().method(method).uri("http://calls.test/").body(Full::default());
        let response = send(&client, request.unwrap()).await.unwrap();
        assert_eq!(call_of(&response).key(), None);
    }
    assert_eq!(network.sent().len(), 4, "a safe method is tried again without a key");
    assert!(network.sent().iter().all(|sent| !sent.head.contains_key("idempotency-key")));
}

#[tokio::test]
async fn the_callers_key_is_kept_as_it_is() {
    let network = Network::default();
    let client = through(&network);
    let response = send(&client, keyed("\"mine\"", "{}")).await.unwrap();
    assert_eq!(call_of(&response).key().unwrap().as_str(), "mine");
    assert_eq!(network.sent()[0].key(), "\"mine\"");
}

#[tokio::test]
async fn keys_can_be_quoted() {
    use tower::Layer;
    let network = Network::default();
    let client = layer().quote_keys(true).layer(network.clone());
    let response = send(&client, post("{}")).await.unwrap();
    let key = call_of(&response).key().unwrap().as_str().to_owned();
    assert_eq!(network.sent()[0].key(), format!("\"{key}\""));
}

#[tokio::test]
async fn a_key_that_a_server_would_refuse_is_not_sent() {
    let network = Network::default();
    let client = through(&network);
    for key in ["", "two words", "\"open", &"k".repeat(256)] {
        let error = send(&client, keyed(key, "{}")).await.unwrap_err();
        assert!(matches!(error.failure(), Failure::KeyInvalid(_)), "{error}");
        assert_eq!((error.call().attempts(), error.stop()), (0, Stop::Final));
    }
    let mut twice = keyed("a", "{}");
    twice.headers_mut().append("idempotency-key", "b".parse().unwrap());
    let error = send(&client, twice).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::KeyRepeated), "{error}");
    assert!(network.sent().is_empty());
}
