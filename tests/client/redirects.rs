//! A redirect is not the answer to a mutation.

use http::{Method, Request};
use http_body_util::Full;
use refrain::client::{Failure, Stop};
use tower::Layer;

use crate::kit::*;

/// reqwest made a GET of each order that was redirected, and its 200 was taken for the answer.
#[tokio::test(start_paused = true)]
async fn a_redirect_that_changes_method_or_origin_fails_the_call_and_is_not_followed() {
    let elsewhere = "http://other.test/v1/calls";
    for (status, location) in [
        (301, "/v1/calls/"),
        (302, "/v1/calls/"),
        (303, "/v1/calls/7"),
        (301, elsewhere),
        (307, elsewhere),
        (308, elsewhere),
        (307, "https://calls.test/v1/calls"),
        (308, "http://calls.test:8080/v1/calls"),
    ] {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let network = Network::of([redirect(status, location)]);
            let mut request = keyed("mine", "{}");
            *request.method_mut() = method;
            let error = send(&through(&network), request).await.unwrap_err();
            assert_eq!((network.sent().len(), error.stop()), (1, Stop::Final), "{status}");
            match error.failure() {
                Failure::Redirected { status: told, location: led, .. } => {
                    assert_eq!((told.as_u16(), led.to_str().unwrap()), (status, location));
                }
                other => panic!("{status}: {other}"),
            }
            let response = error.response().unwrap();
            assert_eq!(response.headers()["location"], location);
            assert!(!format!("{error:?}").contains(location), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn within_the_origin_the_same_request_is_sent_on_under_the_same_key() {
    for status in [307, 308] {
        let fates = [redirect(status, "v2/calls?a=b"), redirect(status, "http://CALLS.test:80/v3")];
        let network = Network::of(fates);
        let response = send(&through(&network), post("order")).await.unwrap();
        assert_eq!((response.status().as_u16(), call_of(&response).attempts()), (200, 1));
        let sent = network.sent();
        let uris: Vec<_> = sent.iter().map(|sent| sent.uri.to_string()).collect();
        let origin = "http://calls.test/v1";
        assert_eq!(uris[..2], [format!("{origin}/calls"), format!("{origin}/v2/calls?a=b")]);
        assert_eq!(uris[2..], ["http://calls.test/v3"]);
        let key = call_of(&response).key().unwrap().as_str().to_owned();
        assert!(sent.iter().all(|sent| sent.method == Method::POST && sent.body == "order"));
        assert!(sent.iter().all(|sent| sent.key() == key));
    }
}

/// A 307 holds for one request.
#[tokio::test(start_paused = true)]
async fn a_retry_begins_at_the_address_of_the_call() {
    let fates = [redirect(307, "/v2"), later(503, "0"), redirect(307, "/v3")];
    let network = Network::of(fates);
    let response = send(&through(&network), post("{}")).await.unwrap();
    assert_eq!(call_of(&response).attempts(), 2);
    let paths: Vec<_> = network.sent().iter().map(|sent| sent.uri.path().to_owned()).collect();
    assert_eq!(paths, ["/v1/calls", "/v2", "/v1/calls", "/v3"]);
}

#[tokio::test(start_paused = true)]
async fn redirects_are_bounded() {
    let network = Network::of((0..20).map(|_| redirect(308, "/v1/calls")));
    let error = send(&through(&network), post("{}")).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Redirected { .. }), "{error}");
    assert_eq!((network.sent().len(), error.call().attempts(), error.stop()), (11, 1, Stop::Final));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_can_be_sent_once_is_not_sent_on() {
    let network = Network::of([redirect(307, "/v2")]);
    let client = layer().max_request_bytes(2).layer(network.clone());
    let error = send(&client, post("longer")).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Redirected { .. }), "{error}");
    assert_eq!(network.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_leads_nowhere_answers_the_call() {
    for status in [301, 302, 303, 307, 308] {
        let network = Network::of([Fate::Answer(answer(status, ""))]);
        let response = send(&through(&network), post("{}")).await.unwrap();
        assert_eq!((response.status().as_u16(), network.sent().len()), (status, 1));
    }
    for status in [300, 304] {
        let network = Network::of([redirect(status, "/v2")]);
        let response = send(&through(&network), post("{}")).await.unwrap();
        assert_eq!((response.status().as_u16(), network.sent().len()), (status, 1));
    }
}

/// It is for the transport to follow it.
#[tokio::test(start_paused = true)]
async fn a_redirect_of_a_safe_method_is_an_answer() {
    let network = Network::of([redirect(308, "/v2")]);
    let request = Request::get("http://calls.test/v1/calls").body(Full::default()).unwrap();
    let response = send(&through(&network), request).await.unwrap();
    assert_eq!((response.status().as_u16(), network.sent().len()), (308, 1));
}
