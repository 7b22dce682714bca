//! The key that a command is about, and its owner.

use clap::Args;
use refrain::{Key, Scope};

use crate::failure::Result;
use crate::owner::Owner;

/// A key of one owner.
#[derive(Args, Debug)]
pub(crate) struct Address {
    /// The idempotency key
    #[arg(value_name = "KEY")]
    pub(crate) key: Key,
    #[command(flatten)]
    owner: Owner,
}

impl Address {
    /// Returns the scope of the key.
    pub(crate) fn scope(&self) -> Result<Scope> {
        self.owner.scope()
    }

    /// Returns true if the API key comes from standard input.
    pub(crate) fn reads_input(&self) -> bool {
        self.owner.reads_input()
    }
}
