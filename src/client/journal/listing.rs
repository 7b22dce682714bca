//! The list of the jobs that are not done.

use std::collections::HashMap;

use crate::Key;
use crate::backend::Listed;
use crate::clock::Reading;

use super::began::Began;
use super::expired::Expired;
use super::kept::Kept;
use super::{Job, JobState, Journal, JournalError, LABEL, MAX_OPEN};

/// The lines of the list of records that are read at a time.
const PAGE: usize = 256;

impl Journal {
    /// Lists the jobs that are not done, the oldest first: those that are held, those that wait to
    /// be asked for again, and those whose window has passed.
    ///
    /// A job whose window has passed is listed until [`done`](Self::done) ends it, for up to ten
    /// years. There are at most [`max_jobs`](super::JournalBuilder::max_jobs) of the others, and 65,536 of
    /// these. The list is read on this thread. A job that is being asked for at the moment may be
    /// missing.
    ///
    /// ```
    /// use refrain::client::{JobState, Journal};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("journal");
    /// let journal = Journal::open(path)?;
    /// drop(journal.key_for("invoice-42", r#"{"amount": 1200}"#).await?); // as a crash does
    ///
    /// let jobs = journal.jobs().await?;
    /// assert_eq!((&jobs[0].name[..], jobs[0].state), ("invoice-42", JobState::Waiting));
    /// let entry = journal.key_for(&jobs[0].name, "").await?;
    /// assert_eq!(entry.key(), &jobs[0].key);
    /// # entry.done().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JournalError::Newer`] and [`JournalError::Store`].
    pub async fn jobs(&self) -> Result<Vec<Job>, JournalError> {
        let (now, mut jobs) = (self.clock.read(), HashMap::new());
        self.list_held(&now, &mut jobs);
        for past in self.store.interrupted(None, MAX_OPEN).await? {
            // Without its request a key was never handed out.
            let Some(kept) = Kept::of(&past.checkpoints)? else { continue };
            let Some(key) = past.downstream_key(LABEL) else { continue };
            let state = match self.has_expired(&kept.began, &now) {
                true => JobState::WindowPassed,
                false => JobState::Waiting,
            };
            let job = line(&past.key, key, &kept.began, &now, state);
            jobs.entry(past.key).or_insert(job);
        }
        // One that was asked for meanwhile.
        self.list_held(&now, &mut jobs);
        self.list_expired(&now, &mut jobs).await?;
        let mut jobs: Vec<Job> = jobs.into_values().collect();
        jobs.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.name.cmp(&b.name)));
        Ok(jobs)
    }

    fn list_held(&self, now: &Reading, jobs: &mut HashMap<Key, Job>) {
        for (name, key, began) in self.held.list() {
            let job = line(&name, key, &began, now, JobState::Held);
            jobs.insert(name, job);
        }
    }

    /// # Errors
    ///
    /// [`JournalError::Newer`] and [`JournalError::Store`].
    async fn list_expired(
        &self,
        now: &Reading,
        jobs: &mut HashMap<Key, Job>,
    ) -> Result<(), JournalError> {
        let mut records = self.store.records(self.scope, None).with_responses();
        loop {
            let page = records.next_page(PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            for listed in page {
                let (name, record) = match listed {
                    Listed::Record { key, record, .. } => (key, record),
                    Listed::Damaged { error, .. } => return Err(error.into()),
                };
                let Expired { began, key } = Expired::of(&record)?;
                let job = line(&name, key, &began, now, JobState::WindowPassed);
                jobs.insert(name, job);
            }
        }
    }
}

fn line(name: &Key, key: Key, began: &Began, now: &Reading, state: JobState) -> Job {
    let name = name.as_str().to_owned();
    Job { name, key, first_sent: began.wall(), age: began.age(now), state }
}
