//! The server's end, and its refusals to start.

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::client::*;
use crate::server::*;

#[tokio::test]
async fn a_signal_to_stop_lets_what_is_in_flight_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        let server = home.start(&["--latency", "2s", "--wait", "1ms"]);
        let address = server.address;
        let client = server.hold("key", "stopped-1").await;
        server.signal(signal);
        within(async { while TcpStream::connect(address).await.is_ok() {} }).await;
        let answer = within(client).await.unwrap().unwrap();
        assert_eq!(answer.status, 201, "{signal:?}");
        assert_eq!(server.exit().await.code(), Some(0), "{signal:?}");

        let again = home.start(&[]).place("key", CALL).await;
        assert!(again.is_replay(), "{signal:?}");
        assert_eq!(again.body, answer.body);
        assert_eq!(home.journal().len(), 1);
    }
}

#[tokio::test]
async fn a_signal_to_stop_waits_for_a_handler_whose_client_is_gone() {
    let home = Home::new();
    let server = home.start(&["--latency", "2s", "--wait", "1ms"]);
    let client = server.hold("key", "hung-up-1").await;
    client.abort();
    assert!(client.await.is_err(), "it hung up in mid-handler");
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));
    assert_eq!(home.journal().len(), 1);
    assert!(home.start(&[]).place("key", CALL).await.is_replay());
}

#[test]
fn a_store_that_is_open_elsewhere_is_said_with_what_to_do() {
    if is_skipped_over_a_database("servers share a database") {
        return;
    }
    let home = Home::new();
    let _server = home.start(&[]);
    let second = home.command(&[]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("cannot open the idempotency store: store "), "{said}");
    assert!(said.contains("is open elsewhere"), "{said}");
    assert!(said.contains("stop the process that has it open"), "{said}");
}

#[test]
fn an_error_of_the_system_is_said_with_its_cause() {
    let home = Home::new();
    std::fs::create_dir(home.journal_path()).unwrap();
    let refused = home.command(&[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    let journal = home.journal_path();
    let expected = format!("cannot open journal {}: Is a directory", journal.display());
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("name a file"), "{said}");
}

#[test]
fn a_database_that_cannot_be_used_is_said_with_what_to_do() {
    let home = Home::new();
    for (address, cause, advice) in [
        ("postgres://user@127.0.0.1:1/name", "Connection refused", "name a running server"),
        ("postgres://user@127.0.0.1:no/name", "option `port`", "postgres://USER:PASSWORD@HOST"),
    ] {
        let refused = home.command_over(address, &[]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("cannot open the idempotency store: "), "{said}");
        assert!(said.contains(cause), "{said}");
        assert!(said.contains(advice), "{said}");
    }
}
