//! Standard output: for people, or as JSON.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tables and sentences.
    People,
    /// One JSON document.
    Document,
    /// One line of JSON for each item.
    Lines,
}

/// The output of a command.
pub(crate) struct Output {
    format: Format,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, out: BufWriter::new(io::stdout().lock()) }
    }

    /// Prints one thing: as text that ends with a line, or as JSON.
    pub(crate) fn document(&mut self, people: &str, json: &impl Serialize) -> Result<()> {
        match self.format {
            Format::People => self.bytes(people.as_bytes()),
            Format::Document => {
                serde_json::to_writer_pretty(&mut self.out, json).map_err(failed)?;
                self.bytes(b"\n")
            }
            Format::Lines => self.line(json),
        }
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Failure::Output)
    }

    /// Begins a list. Nothing of it is kept: each item is printed when it is known.
    pub(crate) fn list(&mut self, heading: &str) -> Result<List<'_>> {
        match self.format {
            Format::People => self.bytes(format!("{heading}\n").as_bytes())?,
            Format::Document => self.bytes(b"[")?,
            Format::Lines => {}
        }
        Ok(List { output: self, is_empty: true })
    }

    /// Prints one line of JSON.
    pub(crate) fn line(&mut self, json: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.out, json).map_err(failed)?;
        self.bytes(b"\n")
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(Failure::Output)
    }
}

/// A list that is being printed.
pub(crate) struct List<'a> {
    output: &'a mut Output,
    is_empty: bool,
}

impl List<'_> {
    /// Prints an item: `people` without the end of its line.
    pub(crate) fn item(&mut self, people: &str, json: &impl Serialize) -> Result<()> {
        let is_first = std::mem::replace(&mut self.is_empty, false);
        match self.output.format {
            Format::People => self.output.bytes(format!("{people}\n").as_bytes()),
            Format::Document => {
                self.output.bytes(if is_first { b"\n  " } else { b",\n  " })?;
                serde_json::to_writer(&mut self.output.out, json).map_err(failed)
            }
            Format::Lines => self.output.line(json),
        }
    }

    /// Writes the items so far, for a list that goes on for long.
    pub(crate) fn show(&mut self) -> Result<()> {
        self.output.out.flush().map_err(Failure::Output)
    }

    /// Ends the list.
    pub(crate) fn end(self) -> Result<()> {
        match self.output.format {
            Format::Document if self.is_empty => self.output.bytes(b"]\n"),
            Format::Document => self.output.bytes(b"\n]\n"),
            Format::People | Format::Lines => Ok(()),
        }
    }
}

/// The output's own types always have a JSON form, so the output itself has failed.
fn failed(error: serde_json::Error) -> Failure {
    Failure::Output(error.into())
}
