//! The scope that a key belongs to, named by its digest or by the API key itself.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use refrain::Scope;

use crate::failure::{Failure, Result};

/// The longest API key or token that is read, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// The owner of keys.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct Owner {
    /// The file that holds the API key, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// The scope as 64 hexadecimal digits, as `refrain ls` and `refrain interrupted` show it; for an
    /// API key, its SHA-256
    #[arg(long, value_name = "HEX")]
    scope: Option<Scope>,
}

impl Owner {
    /// Returns true if the API key comes from standard input.
    pub(crate) fn reads_input(&self) -> bool {
        self.api_key_file.as_deref().is_some_and(is_input)
    }

    /// Returns the scope that was named, if one was.
    pub(crate) fn named(&self) -> Result<Option<Scope>> {
        match (&self.scope, &self.api_key_file) {
            (Some(scope), _) => Ok(Some(*scope)),
            (None, Some(file)) => scope_in(file).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Returns the scope, which has to be named.
    pub(crate) fn scope(&self) -> Result<Scope> {
        let unnamed = "no scope is named; give --api-key-file FILE, or --scope HEX";
        self.named()?.ok_or_else(|| Failure::Usage(unnamed.into()))
    }
}

/// Reads the token for a server, from its file or else from the environment.
pub(crate) fn token(file: Option<&Path>) -> Result<Option<String>> {
    let Some(file) = file else {
        let token = std::env::var("REFRAIN_ADMIN_TOKEN").unwrap_or_default().trim().to_owned();
        return Ok((!token.is_empty()).then_some(token));
    };
    let token = read(file, "read the token in")?;
    let said = || Failure::Usage(format!("there is no token in {}", file.display()));
    let token = String::from_utf8(token).map_err(|_| said())?.trim().to_owned();
    (!token.is_empty()).then_some(Some(token)).ok_or_else(said)
}

/// Returns true for the name of standard input.
pub(crate) fn is_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn scope_in(file: &Path) -> Result<Scope> {
    let key = read(file, "read the API key in")?;
    // The end of the line is the editor's, not the key's.
    match key.trim_ascii_end() {
        _ if key.len() as u64 == MAX_SECRET => {
            Err(Failure::Usage(format!("{} is too long for an API key", file.display())))
        }
        [] => Err(Failure::Usage(format!("there is no API key in {}", file.display()))),
        key => Ok(Scope::from_api_key(key)),
    }
}

fn read(file: &Path, action: &'static str) -> Result<Vec<u8>> {
    let mut secret = Vec::new();
    let read = if is_input(file) {
        io::stdin().lock().take(MAX_SECRET).read_to_end(&mut secret)
    } else {
        File::open(file).and_then(|file| file.take(MAX_SECRET).read_to_end(&mut secret))
    };
    read.map_err(|source| Failure::File { action, path: file.into(), source })?;
    Ok(secret)
}
