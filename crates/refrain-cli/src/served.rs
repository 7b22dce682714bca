//! A store that a server has open, asked over its socket or its port.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use refrain::admin::{Code, Done, Entry, Held, Line, Mandate, Note, Refusal, Status, Verdict};
use refrain::backend::Cursor;
use refrain::{Key, Scope};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::desk::List;
use crate::failure::{Failure, Result};

/// The longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The longest wait for an answer that needs no reading of files.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The longest answer that is no list, and the longest line of one, in bytes.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;

/// The place where a server answers operators.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Socket(PathBuf),
    /// An `http://` URL.
    Url(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// The connection to a server.
pub(crate) struct Served {
    client: Client,
    address: Address,
    base: String,
    token: Option<String>,
}

impl Served {
    /// Gets ready to ask; nobody is asked yet.
    pub(crate) fn new(address: Address, token: Option<String>) -> Result<Self> {
        let builder = Client::builder().connect_timeout(CONNECT_WITHIN).timeout(None).no_proxy();
        let (builder, base) = match &address {
            Address::Socket(path) => {
                (builder.unix_socket(path.clone()), "http://localhost".to_owned())
            }
            Address::Url(url) => (builder, url.trim_end_matches('/').to_owned()),
        };
        let client = builder.build().map_err(|error| unanswered(&address, &error))?;
        Ok(Self { client, address, base, token })
    }

    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T> {
        let response = self.send(self.asking(path, query).timeout(ANSWER_WITHIN))?;
        self.read(response)
    }

    pub(crate) fn find(&self, scope: Scope, key: &Key) -> Result<Option<Entry>> {
        let query = [("scope", scope.to_string()), ("key", key.as_str().to_owned())];
        match self.get("entry", &query) {
            Ok(entry) => Ok(Some(entry)),
            Err(Failure::Refused(Refusal { code: Code::NotFound, .. })) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub(crate) fn records(
        &self,
        scope: Option<Scope>,
        after: Option<Cursor>,
        with_responses: bool,
    ) -> Result<List<'_, Entry>> {
        let mut query = of_scope(scope);
        query.push(("responses", with_responses.to_string()));
        if let Some(Cursor { scope, key }) = after {
            query.push(("after_scope", scope.to_string()));
            query.push(("after_key", key.as_str().to_owned()));
        }
        self.list("records", &query)
    }

    pub(crate) fn interrupted(&self, scope: Option<Scope>) -> Result<List<'_, Entry>> {
        self.list("interrupted", &of_scope(scope))
    }

    pub(crate) fn in_flight(&self) -> Result<List<'_, Held>> {
        self.list("in-flight", &[])
    }

    pub(crate) fn audit(&self) -> Result<List<'_, Note>> {
        self.list("audit", &[])
    }

    pub(crate) fn resolve(
        &self,
        scope: Scope,
        key: &Key,
        verdict: &Verdict,
        mandate: &Mandate,
    ) -> Result<Done> {
        let asked = json!({ "scope": scope, "key": key, "verdict": verdict, "mandate": mandate });
        self.post("resolve", &asked)
    }

    pub(crate) fn forget(&self, scope: Scope, key: &Key, mandate: &Mandate) -> Result<Done> {
        self.post("forget", &json!({ "scope": scope, "key": key, "mandate": mandate }))
    }

    pub(crate) fn reap(&self, erase: bool, mandate: &Mandate) -> Result<Done> {
        self.post("reap", &json!({ "erase": erase, "mandate": mandate }))
    }

    pub(crate) fn verify(&self) -> Result<Option<String>> {
        let answer: Value = self.post("verify", &json!({}))?;
        match &answer["damage"] {
            Value::Null if answer.get("damage").is_some() => Ok(None),
            Value::String(damage) => Ok(Some(damage.clone())),
            _ => Err(self.misunderstood()),
        }
    }

    pub(crate) fn backup(&self, path: &Path) -> Result<()> {
        let path = std::path::absolute(path).map_err(|source| Failure::File {
            action: "find",
            path: path.into(),
            source,
        })?;
        let Some(path) = path.to_str() else {
            let said = "the path of a backup that a server makes has to be text";
            return Err(Failure::Usage(said.into()));
        };
        self.post::<Done>("backup", &json!({ "path": path })).map(drop)
    }

    /// Asks for something that may take long.
    fn post<T: DeserializeOwned>(&self, path: &str, asked: &impl Serialize) -> Result<T> {
        let request = self.client.post(self.url(path)).json(asked);
        self.read(self.send(request)?).map_err(|failure| match failure {
            Failure::Served(sentence) => Failure::Served(format!(
                "{sentence}; what was asked may have been done all the same"
            )),
            failure => failure,
        })
    }

    fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<List<'_, T>> {
        // A list may take long, and a server that is frozen answers nothing at all.
        let _: Status = self.get("status", &[])?;
        let response = self.send(self.asking(path, query))?;
        let mut lines = Lines { served: self, lines: BufReader::new(response), read: 0 };
        Ok(Box::new(std::iter::from_fn(move || lines.next().transpose())))
    }

    fn asking(&self, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        self.client.get(self.url(path)).query(query)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.base)
    }

    fn send(&self, request: RequestBuilder) -> Result<Response> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().map_err(|error| unanswered(&self.address, &error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        match self.read(response) {
            Ok(refusal) => Err(Failure::Refused(refusal)),
            Err(_) => Err(Failure::Served(format!(
                "{} does not answer as a server with a store does: status {status}; check the \
                 address",
                self.address
            ))),
        }
    }

    fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T> {
        serde_json::from_reader(BufReader::new(response.take(MAX_ANSWER)))
            .map_err(|error| if error.is_io() { self.cut_off() } else { self.misunderstood() })
    }

    fn cut_off(&self) -> Failure {
        Failure::Served(format!(
            "the server at {} has ended its answer early: it has gone away, or gave the answer up \
             because nobody took it for a while, as where `less` waits; run this again",
            self.address
        ))
    }

    fn misunderstood(&self) -> Failure {
        Failure::Served(format!(
            "{} does not answer as a server with a store does; check the address, and use the \
             `refrain` of the server's version",
            self.address
        ))
    }
}

/// The lines of a list that is being read.
struct Lines<'a> {
    served: &'a Served,
    lines: BufReader<Response>,
    read: u64,
}

impl Lines<'_> {
    /// Reads an item; none behind the line that ends the list.
    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut line = Vec::new();
        let mut lines = self.lines.by_ref().take(MAX_ANSWER);
        let read = lines.read_until(b'\n', &mut line);
        if read.is_err() || !line.ends_with(b"\n") {
            return Err(self.served.cut_off());
        }
        match serde_json::from_slice(&line) {
            Ok(Line::Item(item)) => {
                self.read += 1;
                Ok(Some(item))
            }
            Ok(Line::Error(refusal)) => Err(Failure::Refused(refusal)),
            Ok(Line::End(items)) if items == self.read => Ok(None),
            Ok(Line::End(_)) => Err(self.served.misunderstood()),
            Err(_) => Err(self.served.misunderstood()),
        }
    }
}

fn of_scope(scope: Option<Scope>) -> Vec<(&'static str, String)> {
    scope.map(|scope| ("scope", scope.to_string())).into_iter().collect()
}

fn unanswered(address: &Address, error: &reqwest::Error) -> Failure {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    // The last cause is the system's, and those in front of it name the client's own parts.
    let cause = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
    let advice = if error.is_timeout() {
        "look whether the server is overloaded, and run this again"
    } else {
        "check the address, and that the server runs"
    };
    Failure::Served(format!("no answer from {address}: {cause}; {advice}"))
}
