//! One trial, which comes to an end, or says what went wrong and how to repeat it.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use parking_lot::Mutex;

/// The failure of a trial.
#[derive(Debug, Clone)]
pub struct Failure {
    /// A description of what went wrong.
    pub what: String,
    /// The arguments of `soak` that repeat it.
    pub again: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, again } = self;
        write!(f, "{what}\n    again: cargo run --release -p refrain-proof -- {again}")
    }
}

/// Messages of the engine's own panics: the engine must not panic, whatever its disk does. Its
/// threads do not know their trial, so any trial under way may be blamed.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    static IN_TRIAL: Cell<bool> = const { Cell::new(false) };
}

/// Runs a trial, and takes a panic for its failure, in this thread or in one of the engine's.
///
/// # Errors
///
/// The failure of the trial.
pub fn run<T>(
    again: impl FnOnce() -> String,
    trial: impl FnOnce() -> Result<T, String>,
) -> Result<T, Failure> {
    watch_panics();
    IN_TRIAL.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(trial));
    IN_TRIAL.set(false);
    let panics = std::mem::take(&mut *PANICS.lock());
    let what = match outcome {
        Ok(Ok(_)) if !panics.is_empty() => panics.join("\n"),
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(what)) => what,
        Err(panic) => message(&*panic).to_owned(),
    };
    Err(Failure { what, again: again() })
}

/// Keeps the engine's panics, and prints none of these three: the engine's, the trial's, which is
/// reported, and redb's, which the engine expects of damaged files.
fn watch_panics() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            let file = panic.location().map_or("", |place| place.file());
            if file.starts_with("src/") || file.contains("refrain/src/") {
                let what = message(panic.payload());
                PANICS.lock().push(format!("the engine panicked in {file}: {what}"));
            } else if !IN_TRIAL.get() && !file.contains("redb") {
                others(panic);
            }
        }));
    });
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}
