//! Commands on a store that a server has open: they ask the server.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use refrain::admin::{Admin, Socket, Token};
use serde_json::Value;

use crate::kit::{Holder, Home, Run, begin, complete, scope};

const TOKEN: &str = "0123456789abcdef";

#[test]
fn each_command_works_while_a_server_has_the_store_open() {
    let home = Home::filled();
    let at_rest = |command: &[&str]| home.run(command).json();
    let list = ["ls", "--api-key-file", "api-key", "--json"];
    let get = ["get", "call-1", "--api-key-file", "api-key", "--json"];
    let top = ["top", "--json"];
    let before = (at_rest(&list), at_rest(&get), at_rest(&top));
    let exported = home.run(&["export"]).done();
    let holder = Holder::serving(&home.store());
    let status = home.run(&["status", "--json"]).json();
    assert_eq!(status["process"], holder.process.id());
    assert_eq!(status["stats"]["in_flight"], 1);
    assert!(status["bytes"].as_u64().unwrap() > 0);

    assert_eq!((at_rest(&list), at_rest(&get), at_rest(&top)), before);
    assert_eq!(home.run(&["export"]).done(), exported);
    let in_flight = at_rest(&["in-flight", "--json"]);
    assert_eq!(in_flight[0]["key"], "call-9");
    assert_eq!(in_flight[0]["stage"], "running");
    for act in [&["get", "call-9"][..], &["forget", "call-9", "--yes"]] {
        let said = home.run(&[act, &["--api-key-file", "api-key"]].concat()).refusal(4);
        assert_eq!(said, "call-9 is in flight for request req_call-9; run this again later");
    }
    home.run(&["verify"]).done();
    home.run(&["reap", "--yes"]).done();
    let watched = home.run(&["watch", "--every", "100ms", "--count", "2", "--jsonl"]).done();
    let lines: Vec<Value> = watched.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["in_flight"]), (2, &Value::from(1)));
}

#[test]
fn an_act_through_a_server_is_durable_and_answered() {
    let home = Home::filled();
    let holder = Holder::serving(&home.store());
    let answer = "HTTP/1.1 201 Created\ncontent-type: text/plain\n\npaid";
    std::fs::write(home.path().join("response"), answer).unwrap();
    let resolve = ["resolve", "payment-9", "--api-key-file", "api-key", "--complete", "response"];
    home.run(&[&resolve[..], &["--yes"]].concat()).done();
    home.run(&["forget", "call-2", "--api-key-file", "api-key", "--erase", "--yes"]).done();
    let acts = |run: Run| {
        let notes = run.json();
        let acts =
            notes.as_array().unwrap().iter().map(|note| note["act"].as_str().unwrap().to_owned());
        acts.collect::<Vec<_>>()
    };
    let noted = acts(home.run(&["audit", "--json"]));
    assert_eq!(noted, ["complete", "forget", "erase"]);
    // Killed: nothing but what is on disk is left.
    drop(holder);
    let body = home.run(&["get", "payment-9", "--api-key-file", "api-key", "--body"]).done();
    assert_eq!(body, "paid");
    assert_eq!(acts(home.run(&["audit", "--json"])), noted);
    assert_eq!(acts(home.run(&["audit", "--json", "--key", "call-2"])), ["forget"]);
    assert_eq!(home.run(&["get", "call-2", "--api-key-file", "api-key"]).code, 3);
    let said = home.run(&[&resolve[..], &["--yes"]].concat()).refusal(3);
    assert_eq!(said, "payment-9 is completed already; see it with `refrain get`");
}

#[test]
fn a_backup_through_a_server_opens_as_a_store_of_its_own() {
    let home = Home::filled();
    let holder = Holder::serving(&home.store());
    home.run(&["backup", "copy"]).done();
    let said = home.run(&["backup", "copy"]);
    assert_eq!(said.code, 1, "{said:?}");
    drop(holder);
    let copy = home.run(&["ls", "--store", "copy", "--api-key-file", "api-key", "--json"]).json();
    assert_eq!(copy.as_array().unwrap().len(), 6, "{copy}");
}

#[test]
fn a_socket_that_a_dead_server_has_left_is_no_server() {
    let home = Home::filled();
    drop(Holder::serving(&home.store()));
    let socket = Socket::path_in(home.store());
    assert!(socket.exists(), "it was killed");
    home.run(&["status"]).done();
    let said = home.run(&["status", "--admin", socket.to_str().unwrap()]).refusal(1);
    assert!(said.starts_with("no answer from "), "{said}");
    assert!(
        said.ends_with(
            "Connection refused (os error 111); check the address, and that the \
                            server runs"
        ),
        "{said}"
    );
    // The next server takes its place.
    let _holder = Holder::serving(&home.store());
    assert_eq!(home.run(&["status", "--json"]).json()["stats"]["in_flight"], 1);
}

#[test]
fn a_port_wants_the_token_and_makes_no_backups() {
    let home = Home::filled();
    let store = home.open();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let admin = Admin::new(store);
    runtime.spawn(admin.serve_tcp(listener, Token::new(TOKEN).unwrap()));

    let status = ["status", "--json", "--admin", &url];
    let said = home.run(&status).refusal(2);
    assert!(said.starts_with("bring the token of this server"), "{said}");
    let run = |token: &str, arguments: &[&str]| {
        Run::of(home.command(arguments).env("REFRAIN_ADMIN_TOKEN", token))
    };
    run("0123456789abcdeF", &status).refusal(2);
    assert_eq!(run(TOKEN, &status).json()["health"], "ok");
    std::fs::write(home.path().join("token"), format!("{TOKEN}\n")).unwrap();
    home.run(&[&status[..], &["--admin-token-file", "token"]].concat()).json();
    let said = run(TOKEN, &["backup", "copy", "--admin", &url]).refusal(2);
    assert!(said.ends_with("; run this on that machine, with --store"), "{said}");
    let said = run(TOKEN, &["doctor", "--admin", &url]).refusal(2);
    assert!(said.starts_with("this works on files"), "{said}");
}

#[test]
fn what_the_command_line_names_counts_and_never_two_places() {
    let home = Home::filled();
    let run = |arguments: &[&str]| {
        Run::of(home.command(arguments).env("REFRAIN_ADMIN", "http://127.0.0.1:1"))
    };
    assert_eq!(run(&["status", "--store", "store", "--json"]).json()["store"], "store");
    let said = run(&["status"]).refusal(2);
    assert!(said.starts_with("REFRAIN_STORE and REFRAIN_ADMIN name two places"), "{said}");
    let said = home.run(&["status", "--store", "store", "--admin", "a"]);
    assert_eq!(said.code, 2, "{said:?}");
    let empty = Run::of(home.command(&["status", "--json"]).env("REFRAIN_ADMIN", ""));
    assert_eq!(empty.json()["store"], "store");
}

#[test]
fn a_server_that_stops_in_the_middle_of_a_list_is_told() {
    let home = Home::empty();
    let status = Admin::new(home.open()).status();
    let path = home.path().join("half.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = move || {
        let status = serde_json::to_string(&status).unwrap();
        let whole =
            format!("content-length: {}\r\nconnection: close\r\n\r\n{status}", status.len());
        let half = "\r\n{\"item\":{\"state\":\"damaged\",\"scope\":null,\"key\":null,".to_owned();
        for answer in [whole, half] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap()).lines();
            asked.find(|line| line.as_ref().unwrap().is_empty()).expect("the head ends").unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\n{answer}").unwrap();
        }
    };
    let server = std::thread::Builder::new().name("server".into()).spawn(server).unwrap();
    let said = home.run(&["in-flight", "--admin", path.to_str().unwrap()]);
    server.join().unwrap();
    assert_eq!(said.code, 1);
    let said = said.sentence();
    assert!(said.contains("has ended its answer early"), "{said}");
}

#[test]
fn a_list_of_all_scopes_has_each_with_its_keys() {
    let home = Home::empty();
    let store = home.open();
    complete(&store, "call-1", &http::Response::new("done".into()));
    drop(begin(&store, "call-2"));
    store.close(Duration::from_secs(10)).wait().unwrap();
    let listed = home.run(&["ls", "--json"]).json();
    let places: Vec<_> =
        listed.as_array().unwrap().iter().map(|it| (&it["scope"], &it["key"])).collect();
    let scope = Value::from(scope().to_string());
    assert_eq!(places, [(&scope, &"call-1".into()), (&scope, &"call-2".into())]);
}
