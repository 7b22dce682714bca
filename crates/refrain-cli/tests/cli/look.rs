//! Commands that look: `status`, `get` and `ls`.

use refrain::Scope;
use serde_json::json;

use crate::kit::{API_KEY, Home, complete, scope};

#[test]
fn status_has_the_health_and_the_sizes() {
    let home = Home::filled();
    let shown = home.run(&["status"]).done();
    assert!(shown.contains("health       ok\n"), "{shown}");
    assert!(shown.contains("interrupted  1 key\n"), "{shown}");

    let status = home.run(&["status", "--json"]).json();
    assert_eq!(status["health"], "ok");
    assert_eq!(status["is_ready"], true);
    assert_eq!(status["stats"]["open_claims"], 1);
    assert!(status["bytes"].as_u64().unwrap() >= 1024 * 1024, "{status}");
    assert!(status["free_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_response_is_decoded_with_its_json_indented() {
    let shown = Home::filled().run(&["get", "call-1", "--api-key-file", "api-key"]).done();
    let response = "\nHTTP 201 Created\ncontent-type: application/json\n\n{\n  \"id\": \"call_81\",\n  \
                    \"to\": \"+14155556789\",\n  \"price\": 1.50\n}\n";
    assert!(shown.ends_with(response), "{shown}");
    assert!(shown.contains("request      req_call-1\n"), "{shown}");
}

#[test]
fn a_scope_is_named_by_its_digest_or_by_the_api_key_on_standard_input() {
    let home = Home::filled();
    let digest = home.run(&["get", "call-2", "--scope", &scope().to_string(), "--json"]).json();
    let input = home.run_with(API_KEY, &["get", "call-2", "--api-key-file", "-", "--json"]).json();
    assert_eq!(digest, input);
    assert_eq!(digest["scope"], scope().to_string());
    assert_eq!(digest["response"]["body"], "the account is empty\n");
    assert_eq!(digest["response"]["headers"], json!([["content-type", "text/plain"]]));
}

#[test]
fn a_body_comes_out_as_it_is_and_is_not_let_loose_on_a_terminal() {
    let home = Home::filled();
    let raw = home.run(&["get", "upload-7", "--api-key-file", "api-key", "--body"]);
    assert_eq!((raw.code, &raw.bytes[..]), (0, &b"\xff\xd8\x1b[31m\xff"[..]));
    let shown = home.run(&["get", "upload-7", "--api-key-file", "api-key"]).done();
    assert!(shown.contains("(8 bytes that are not text; `--body` prints them"), "{shown}");
    let json = home.run(&["get", "upload-7", "--api-key-file", "api-key", "--json"]).json();
    assert_eq!(json["response"]["body"], json!({ "base64": "/9gbWzMxbf8=" }));
}

#[test]
fn a_record_without_a_response_and_an_interrupted_run_are_told_apart() {
    let home = Home::filled();
    let done = home.run(&["get", "stream-3", "--api-key-file", "api-key"]).done();
    assert!(done.ends_with("The operation is done, and its response was not kept.\n"), "{done}");
    let json = home.run(&["get", "stream-3", "--api-key-file", "api-key", "--json"]).json();
    assert_eq!((&json["state"], &json["response"]), (&json!("completed"), &json!(null)));

    let run = home.run(&["get", "payment-9", "--api-key-file", "api-key"]).done();
    assert!(run.contains("state        interrupted\n"), "{run}");
    let body = home.run(&["get", "payment-9", "--api-key-file", "api-key", "--body"]).refusal(3);
    assert_eq!(body, "payment-9 has no body; its run was interrupted");
}

#[test]
fn ls_lists_each_key_of_the_scope_in_order_and_then_the_interrupted_ones() {
    let home = Home::filled();
    let listed = home.run(&["ls", "--api-key-file", "api-key"]).done();
    let keys: Vec<_> = listed.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(keys, ["KEY", "call-1", "call-2", "stream-3", "upload-7", "payment-9"]);
    let other = Scope::from_api_key("sk_live_52").to_string();
    assert_eq!(home.run(&["ls", "--scope", &other, "--json"]).done(), "[]\n");
}

#[test]
fn filters_of_ls_are_taken_together() {
    let home = Home::filled();
    let keys = |filters: &[&str]| {
        let all = [&["ls", "--api-key-file", "api-key", "--json"], filters].concat();
        let listed = home.run(&all).json();
        let keys = listed.as_array().unwrap().iter().map(|line| line["key"].as_str().unwrap());
        keys.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(keys(&["--prefix", "call-"]), ["call-1", "call-2"]);
    assert_eq!(keys(&["--prefix", "call-2"]), ["call-2"]);
    assert_eq!(keys(&["--prefix", "p"]), ["payment-9"]);
    assert_eq!(keys(&["--status", "402"]), ["call-2"]);
    assert_eq!(keys(&["--state", "interrupted"]), ["payment-9"]);
    assert_eq!(keys(&["--state", "completed", "--prefix", "s"]), ["stream-3"]);
    assert_eq!(keys(&["--state", "completed", "--since", "1h", "--prefix", "up"]), ["upload-7"]);
    assert_eq!(keys(&["--since", "2100-01-01T00:00:00Z"]), ["payment-9"]);
    assert!(keys(&["--state", "damaged"]).is_empty());
}

#[test]
fn a_long_list_has_every_key_once_in_each_form() {
    let home = Home::empty();
    let store = home.open();
    for number in 0..700 {
        complete(&store, &format!("k{number:04}"), &http::Response::new("done".into()));
    }
    drop(store);
    let lines = home.run(&["ls", "--api-key-file", "api-key", "--jsonl"]).done();
    let keys = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let keys: Vec<_> = keys.map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<_> = (0..700).map(|number| format!("k{number:04}")).collect();
    assert_eq!(keys, expected);
    let document = home.run(&["ls", "--api-key-file", "api-key", "--json"]).json();
    assert_eq!(document.as_array().unwrap().len(), 700);
}
