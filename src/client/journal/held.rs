//! The jobs whose entries this process holds.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Key;

use super::began::Began;

/// The key of each job that is held, and the time of its first use, by the job's name.
#[derive(Debug, Default)]
pub(super) struct HeldJobs(Mutex<HashMap<Key, (Key, Began)>>);

/// A job's place among those that are held. It ends with the value.
#[derive(Debug)]
pub(super) struct Holding {
    jobs: Arc<HeldJobs>,
    name: Key,
}

impl HeldJobs {
    pub(super) fn hold(self: &Arc<Self>, name: Key, key: Key, began: Began) -> Holding {
        self.0.lock().insert(name.clone(), (key, began));
        Holding { jobs: Arc::clone(self), name }
    }

    /// Returns name, key and time of each job that is held.
    pub(super) fn list(&self) -> Vec<(Key, Key, Began)> {
        let jobs = self.0.lock();
        jobs.iter().map(|(name, (key, began))| (name.clone(), key.clone(), *began)).collect()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.jobs.0.lock().remove(&self.name);
    }
}
