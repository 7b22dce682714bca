//! Servers on one database behind a balancer, which asks each in turn.

use std::ops::Deref;

use crate::kit;
use crate::kit::proxy::Proxy;
use crate::node;
pub(crate) use crate::node::{Door, PAUSE, whole, within};

/// What survives the servers: a schema of their own, and the journal of their common carrier.
pub(crate) struct Home(node::Home);

impl Home {
    pub(crate) fn new() -> Self {
        Self::over(kit::server::Server::shared().address())
    }

    /// A home in the database at an address.
    pub(crate) fn over(address: String) -> Self {
        Self(node::Home::over(Some(address)))
    }

    /// Starts two servers that are asked in turn.
    pub(crate) fn start(&self, arguments: &[&str]) -> Fleet {
        self.start_all(2, arguments)
    }

    pub(crate) fn start_all(&self, nodes: usize, arguments: &[&str]) -> Fleet {
        Fleet::of((0..nodes).map(|_| self.node(arguments)).collect())
    }

    /// Starts one server.
    pub(crate) fn node(&self, arguments: &[&str]) -> node::Server {
        self.0.start(arguments)
    }

    /// Starts one server behind a network of its own.
    pub(crate) fn node_behind(&self, network: &Proxy, arguments: &[&str]) -> node::Server {
        let address = kit::server::address(network.port);
        node::Server::start(self.0.command_over(&address, arguments))
    }

    /// The ids of the requests whose effects there have been, in order.
    pub(crate) fn effects(&self) -> Vec<String> {
        let id = |line: &serde_json::Value| line["request_id"].as_str().unwrap().to_owned();
        self.journal().iter().map(id).collect()
    }
}

impl Deref for Home {
    type Target = node::Home;

    fn deref(&self) -> &node::Home {
        &self.0
    }
}

/// Servers that are asked in turn. Dropped, they are killed.
pub(crate) struct Fleet {
    nodes: Vec<node::Server>,
    _balancer: Proxy,
    door: Door,
}

impl Fleet {
    fn of(nodes: Vec<node::Server>) -> Self {
        let balancer = Proxy::in_turn(nodes.iter().map(|node| node.address.port()).collect());
        let address = ([127, 0, 0, 1], balancer.port).into();
        Self { nodes, _balancer: balancer, door: Door { address } }
    }

    pub(crate) fn kill(self) {
        self.nodes.into_iter().for_each(node::Server::kill);
    }
}

impl Deref for Fleet {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}
