//! The judge of a key's journal: the rules that its answers keep, whatever the faults.

use std::collections::HashMap;
use std::time::Duration;

use super::figures;
use super::group::Death;
use super::journal::{Entry, Life, Moment, Told};
use super::node::PATIENCE;
use super::possession::Possession;
use super::words::{Answer, Ask, Begin, Seen, response};

/// The time by which an answer may come after its deadline: the time that the database may take, and
/// what a busy machine needs.
const ALLOWANCE: Duration = PATIENCE.saturating_add(Duration::from_secs(1));
/// The database's times are rounded to milliseconds.
const MILLISECOND: Moment = 1_000;
/// A node guesses the database's time, and is behind by as much as an answer was on its way.
const GUESS: Moment = 1_000_000;

/// What is known beside the journal.
pub(super) struct Evidence {
    pub(super) deaths: Vec<Death>,
    pub(super) stops: Vec<(Life, Moment, Moment)>,
}

type Verdict = Result<(), String>;

/// Judges the journal of one key.
///
/// # Errors
///
/// The rule that was broken, with the journal.
pub(super) fn judge(mut entries: Vec<Entry>, evidence: &Evidence) -> Verdict {
    entries.sort_unstable_by_key(|entry| entry.sent);
    Case::new(&entries, evidence).and_then(|case| case.judge()).map_err(|what| {
        let start = entries.first().map_or(0, |entry| entry.sent);
        let lines = entries.iter().map(|entry| format!("\n        {}", entry.line(start)));
        let deaths = evidence.deaths.iter().map(|Death { life, lease_until }| {
            let at = (lease_until - start) as f64 / 1000.0;
            format!("\n        {life} lost its lease at {at:.1}")
        });
        format!("{what}{}{}", lines.collect::<String>(), deaths.collect::<String>())
    })
}

/// A record that was seen.
#[derive(Debug)]
struct Known<'a> {
    seen: &'a Seen,
    /// The first moment at which somebody was told of it: it was committed by then.
    told: Moment,
    /// The possession that it was completed from, if its response says so.
    by: Option<&'a str>,
}

struct Case<'a> {
    entries: &'a [Entry],
    evidence: &'a Evidence,
    begins: HashMap<&'a str, (&'a Begin, &'a Entry)>,
    possessions: Vec<Possession<'a>>,
    /// By the time of completion.
    records: Vec<Known<'a>>,
}

impl<'a> Case<'a> {
    fn new(entries: &'a [Entry], evidence: &'a Evidence) -> Result<Self, String> {
        let begins = entries
            .iter()
            .filter_map(|entry| match &entry.ask {
                Ask::Begin(begin) => Some((begin.request.as_str(), (begin, entry))),
                _ => None,
            })
            .collect();
        let possessions = Possession::all(entries);
        let mut case = Self { entries, evidence, begins, possessions, records: Vec::new() };
        case.collect_records()?;
        Ok(case)
    }

    fn judge(&self) -> Verdict {
        self.records_do_not_overlap()?;
        for entry in self.entries {
            let Some(told) = &entry.told else { continue };
            self.answer_is_possible(entry, told)
                .map_err(|what| format!("#{}: {what}", entry.number))?;
        }
        self.possessions_do_not_overlap()?;
        self.nothing_is_completed_after_it_was_lost()
    }

    /// Collects the records that were seen, each of which must be what a completion asked for.
    fn collect_records(&mut self) -> Verdict {
        for entry in self.entries {
            let Some(Told { at, answer: Answer::Record(seen), .. }) = &entry.told else { continue };
            let by = self.completion(entry, seen)?;
            match self.records.iter_mut().find(|known| known.seen.request == seen.request) {
                Some(known) if known.seen != seen => {
                    return Err(format!("two records of one run: {:?} and {seen:?}", known.seen));
                }
                Some(known) => known.told = known.told.min(*at),
                None => self.records.push(Known { seen, told: *at, by }),
            }
        }
        self.records.sort_unstable_by_key(|known| known.seen.completed_ms);
        Ok(())
    }

    /// Finds the completion that a record came from, and the possession that it was asked from.
    fn completion(&self, entry: &Entry, seen: &Seen) -> Result<Option<&'a str>, String> {
        let told = entry.told_at();
        let asked =
            self.possessions.iter().flat_map(|it| it.asked.iter().map(move |asked| (it, asked)));
        for (possession, asked) in asked {
            let Ask::Complete { response: asked_for, .. } = &asked.ask else { continue };
            let is_own = asked.number == entry.number;
            if possession.run_of(asked) != seen.request
                || *asked_for != seen.response
                || asked.sent > told
                || matches!(entry.ask, Ask::Complete { .. }) && !is_own
            {
                continue;
            }
            let by = possession.begin.request.as_str();
            if let Some(text) = &seen.response
                && *text != response(&seen.request, by)
            {
                continue;
            }
            let ttl = self.begins.get(seen.request.as_str()).map(|(begin, _)| begin.ttl_ms as i64);
            let completed = seen.completed_ms * MILLISECOND;
            if ttl != Some(seen.expires_ms - seen.completed_ms)
                || completed < asked.sent - MILLISECOND
                || completed > told + MILLISECOND
            {
                return Err(format!("#{}: a record has wrong times: {seen:?}", entry.number));
            }
            return Ok((seen.response.is_some() || is_own).then_some(by));
        }
        Err(format!("#{}: nobody has completed {seen:?}", entry.number))
    }

    fn records_do_not_overlap(&self) -> Verdict {
        for pair in self.records.windows(2) {
            if pair[1].seen.completed_ms < pair[0].seen.expires_ms {
                return Err(format!("double record: {:?} and {:?}", pair[0].seen, pair[1].seen));
            }
        }
        Ok(())
    }

    /// At no time have two possessions the key, unless one of them was lost with its session.
    fn possessions_do_not_overlap(&self) -> Verdict {
        let deaths = &self.evidence.deaths;
        for (at, first) in self.possessions.iter().enumerate() {
            for second in &self.possessions[at + 1..] {
                let overlaps = second.from < first.until;
                let lost = first.is_lost(deaths, second.from) || second.is_lost(deaths, first.from);
                if overlaps && !lost {
                    return Err(format!(
                        "two runs at once, in lease: #{} and #{}",
                        first.number, second.number
                    ));
                }
            }
        }
        Ok(())
    }

    fn nothing_is_completed_after_it_was_lost(&self) -> Verdict {
        for record in &self.records {
            let own =
                self.possessions.iter().find(|it| Some(it.begin.request.as_str()) == record.by);
            let Some(own) = own else { continue };
            let completed = record.seen.completed_ms * MILLISECOND;
            let taken = self.possessions.iter().find(|other| {
                other.number != own.number
                    && other.sent >= own.from
                    && other.from + MILLISECOND <= completed
            });
            if let Some(taken) = taken {
                let (first, second) = (own.number, taken.number);
                return Err(format!("#{first} recorded though #{second} had taken its key"));
            }
        }
        Ok(())
    }

    fn answer_is_possible(&self, entry: &Entry, told: &Told) -> Verdict {
        self.is_in_time(entry, told)?;
        match &told.answer {
            Answer::Wrong(what) => return Err(what.clone()),
            Answer::Unavailable(why) if why.contains("damaged") => {
                return Err(format!("no fault damages tables: {why}"));
            }
            _ => {}
        }
        match &entry.ask {
            Ask::Begin(begin) => self.begin_is_possible(begin, entry, told),
            Ask::Get { .. } => match (self.live(entry), &told.answer) {
                (Some(record), Answer::Record(seen)) if record.seen == seen => Ok(()),
                (Some(record), Answer::Record(_) | Answer::NoRecord) => {
                    Err(format!("lost: {:?}", record.seen))
                }
                (None, Answer::Record(seen)) => self.is_not_over(seen, entry),
                _ => Ok(()),
            },
            _ => self.end_is_possible(entry, told),
        }
    }

    /// The record that is live all through a request, because somebody was told of it before.
    fn live(&self, entry: &Entry) -> Option<&Known<'a>> {
        self.records.iter().find(|record| {
            record.told <= entry.sent
                && entry.told_at() < (record.seen.expires_ms - 1) * MILLISECOND
        })
    }

    fn is_not_over(&self, seen: &Seen, entry: &Entry) -> Verdict {
        if entry.sent > seen.expires_ms * MILLISECOND + GUESS {
            return Err(format!("a record is served after it has expired: {seen:?}"));
        }
        Ok(())
    }

    fn is_in_time(&self, entry: &Entry, told: &Told) -> Verdict {
        let deadline = match &entry.ask {
            Ask::Begin(begin) => begin.gone_after_ms.unwrap_or(begin.deadline_ms),
            _ => 0,
        };
        // A process that stood still is late from the moment on at which it went on.
        let stops = self.evidence.stops.iter().filter(|(life, from, until)| {
            *life == entry.life && *from < told.at && entry.sent < *until
        });
        let went_on = stops.map(|(_, _, until)| *until).max();
        let left = |moment| u64::try_from((told.at - moment) / MILLISECOND).unwrap_or(0);
        let took = went_on.map_or(told.took_ms, |moment| told.took_ms.min(left(moment)));
        let late = took.saturating_sub(deadline);
        figures::late(late);
        match &told.answer {
            _ if Duration::from_millis(late) > ALLOWANCE => {
                Err(format!("answered {late} ms after its deadline"))
            }
            // The timer is as coarse as a millisecond.
            Answer::InFlight { .. } if told.took_ms + 2 < deadline => {
                Err(format!("given up after {} ms", told.took_ms))
            }
            _ => Ok(()),
        }
    }

    fn begin_is_possible(&self, begin: &Begin, entry: &Entry, told: &Told) -> Verdict {
        if let Some(record) = self.live(entry) {
            let run = &record.seen.request;
            let is_same = self.fingerprint(run) == Some(begin.fingerprint);
            match &told.answer {
                Answer::Record(seen) if is_same && seen == record.seen => {}
                Answer::Conflict { original } if !is_same && original == run => {}
                Answer::InFlight { .. } | Answer::Unavailable(_) | Answer::Gone => {}
                _ => return Err(format!("lost: {:?}", record.seen)),
            }
        }
        match &told.answer {
            Answer::Run { attempt, checkpoints } => {
                if *attempt != 1 || !checkpoints.is_empty() {
                    return Err("a new run has a past".into());
                }
                self.no_durable_run_is_forgotten(entry)
            }
            Answer::Limited => Err("no limit is near".into()),
            Answer::Record(seen) => {
                if self.fingerprint(&seen.request) != Some(begin.fingerprint) {
                    return Err("a replay to another request".into());
                }
                self.is_not_over(seen, entry)
            }
            Answer::Conflict { original } => {
                let other = self.fingerprint(original);
                if other.is_none() || other == Some(begin.fingerprint) {
                    return Err("no conflict with such a request".into());
                }
                Ok(())
            }
            Answer::InFlight { holder } => {
                if entry.is_final {
                    return Err("in flight, though nobody runs".into());
                }
                self.begins.get(holder.as_str()).map(drop).ok_or("no such holder".into())
            }
            Answer::Interrupted { request, attempt, checkpoints } => {
                if self.fingerprint(request) != Some(begin.fingerprint) {
                    return Err("an interruption of another request".into());
                }
                self.interruption_is_possible(entry, request, *attempt, checkpoints)
            }
            _ => Ok(()),
        }
    }

    fn fingerprint(&self, request: &str) -> Option<u8> {
        self.begins.get(request).map(|(begin, _)| begin.fingerprint)
    }

    /// Requests about possessions, each with its possession and the run that it is about.
    fn asked(&self) -> impl Iterator<Item = (&Possession<'a>, &'a Entry, &'a str)> {
        self.possessions
            .iter()
            .flat_map(|it| it.asked.iter().map(move |asked| (it, *asked, it.run_of(asked))))
    }

    /// The possession in which a run was begun again.
    fn retried(&self, run: &str) -> Option<(&Possession<'a>, &'a Entry)> {
        let own = self.possessions.iter().find(|it| it.begin.request == run)?;
        own.retry().map(|retry| (own, retry))
    }

    fn interruption_is_possible(
        &self,
        entry: &Entry,
        run: &str,
        attempt: u32,
        checkpoints: &[String],
    ) -> Verdict {
        let Some((begin, begun)) = self.begins.get(run) else {
            return Err("no such run".into());
        };
        let interrupt = self.asked().find(|(_, asked, of)| {
            *of == run
                && matches!(asked.ask, Ask::Interrupt { .. })
                && asked.sent <= entry.told_at()
        });
        let retried = self.retried(run);
        let is_durable = begin.is_durable || retried.is_some() || interrupt.is_some();
        if !is_durable || begun.sent > entry.told_at() {
            return Err("a run that nobody claimed durably is interrupted".into());
        }
        let (number, past) = match retried.and_then(|(it, _)| self.interruption(it)) {
            Some((number, past)) => (number + 1, past),
            None => (1, &[][..]),
        };
        if attempt != number {
            return Err(format!("attempt {attempt} is interrupted, not {number}"));
        }
        self.checkpoints_are_kept(entry, run, past, checkpoints)?;
        for (_, asked, of) in self.asked() {
            let is_before = asked.told_at() <= entry.sent;
            let is_over = match (&asked.ask, asked.answer()) {
                (Ask::Release { .. }, Some(Answer::Done)) => of == run,
                (Ask::Retry { .. }, Some(Answer::Run { .. })) => of == run,
                (Ask::Complete { .. }, Some(Answer::Record(_))) => of == run,
                _ => false,
            };
            if is_before && is_over {
                return Err(format!("{run} is interrupted, which #{} had ended", asked.number));
            }
        }
        Ok(())
    }

    /// The answer that a possession began with, if it was an interruption.
    fn interruption(&self, possession: &Possession<'a>) -> Option<(u32, &'a [String])> {
        match self.begins.get(possession.begin.request.as_str())?.1.answer()? {
            Answer::Interrupted { attempt, checkpoints, .. } => Some((*attempt, checkpoints)),
            _ => None,
        }
    }

    /// All checkpoints that were acknowledged are there, in order, and none that nobody stored.
    fn checkpoints_are_kept(
        &self,
        entry: &Entry,
        run: &str,
        past: &[String],
        found: &[String],
    ) -> Verdict {
        let Some(mut rest) = found.strip_prefix(past) else {
            return Err(format!("the checkpoints of earlier attempts are lost: {past:?}"));
        };
        for (_, asked, of) in self.asked() {
            let Ask::Checkpoint { data, .. } = &asked.ask else { continue };
            if of != run || asked.sent > entry.told_at() {
                continue;
            }
            let is_known = asked.answer() == Some(&Answer::Done) && asked.told_at() <= entry.sent;
            match rest.split_first() {
                Some((first, others)) if first == data => rest = others,
                _ if is_known => return Err(format!("a checkpoint is lost: {data}")),
                _ => {}
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(format!("nobody stored {rest:?}")) }
    }

    /// No durable run that somebody was told of is begun anew, unless it was ended or has expired.
    fn no_durable_run_is_forgotten(&self, entry: &Entry) -> Verdict {
        let told = entry.told_at();
        for possession in &self.possessions {
            let retried = possession.retry();
            let interrupt = possession.asked.iter().copied().find(|asked| {
                matches!((&asked.ask, asked.answer()), (Ask::Interrupt { .. }, Some(Answer::Done)))
            });
            let is_own = possession.run == possession.begin.request;
            // The first moment at which the run is known to be durable.
            let durable = match (is_own && possession.begin.is_durable, retried, interrupt) {
                (true, ..) => possession.from,
                (_, Some(retry), _) if matches!(retry.answer(), Some(Answer::Run { .. })) => {
                    retry.told_at()
                }
                (_, _, Some(interrupt)) => interrupt.told_at(),
                _ => continue,
            };
            let run = possession.begin.request.as_str();
            if durable <= entry.sent && !self.may_be_over(run, told) {
                return Err(format!("durable run {run} is forgotten, and runs again unasked"));
            }
        }
        Ok(())
    }

    /// Returns whether a durable run may be over by a moment: released, completed or expired, itself
    /// or a later attempt of it.
    fn may_be_over(&self, run: &str, by: Moment) -> bool {
        let Some((begin, begun)) = self.begins.get(run) else { return true };
        let extended = self
            .asked()
            .filter(|(_, asked, of)| match asked.ask {
                Ask::Interrupt { .. } => *of == run,
                _ => false,
            })
            .map(|(_, asked, _)| asked.sent);
        let retried = self.retried(run).map(|(_, retry)| retry.sent);
        // If it has been begun again or interrupted, that extended it, if it took effect.
        let since = match retried {
            Some(retried) => retried,
            None => begun.sent,
        };
        let acknowledged = self.asked().any(|(_, asked, of)| {
            of == run
                && matches!(
                    (&asked.ask, asked.answer()),
                    (Ask::Interrupt { .. }, Some(Answer::Done))
                )
        });
        let since = if acknowledged { extended.fold(since, Moment::max) } else { since };
        let ttl = Moment::try_from(begin.ttl_ms).unwrap_or(Moment::MAX) * MILLISECOND;
        if since + ttl <= by + MILLISECOND {
            return true;
        }
        self.asked().any(|(possession, asked, of)| {
            of == run
                && asked.sent <= by
                && match asked.ask {
                    Ask::Complete { .. } | Ask::Release { .. } => true,
                    Ask::Retry { .. } => self.may_be_over(&possession.begin.request, by),
                    _ => false,
                }
        })
    }

    fn end_is_possible(&self, entry: &Entry, told: &Told) -> Verdict {
        let Some((possession, ..)) =
            self.asked().find(|(_, asked, _)| asked.number == entry.number)
        else {
            return Err("about nothing".into());
        };
        match (&entry.ask, &told.answer) {
            (Ask::Interrupt { .. }, Answer::Fenced) => Ok(()),
            (_, Answer::Fenced) => self.fence_is_possible(possession, entry, told),
            (Ask::Retry { .. }, Answer::Run { attempt, checkpoints }) => {
                let past = self.interruption(possession);
                if past.is_none_or(|(number, past)| number + 1 != *attempt || past != checkpoints) {
                    return Err(format!("attempt {attempt} with {checkpoints:?} is not the next"));
                }
                Ok(())
            }
            (Ask::Complete { .. }, Answer::Record(_)) => Ok(()),
            (Ask::Complete { .. } | Ask::Retry { .. }, Answer::Unavailable(_)) => Ok(()),
            (Ask::Checkpoint { .. }, Answer::Limited) => Ok(()),
            (_, Answer::Done | Answer::Unavailable(_)) => Ok(()),
            (ask, answer) => Err(format!("{ask:?} is answered with {answer:?}")),
        }
    }

    /// A claim is lost only with its session, and nothing is recorded under it then.
    fn fence_is_possible(
        &self,
        possession: &Possession<'a>,
        entry: &Entry,
        told: &Told,
    ) -> Verdict {
        let by = possession.begin.request.as_str();
        let record = self.records.iter().find(|record| record.by == Some(by));
        if let Some(record) = record
            && matches!(entry.ask, Ask::Complete { .. })
            && told.at < record.seen.expires_ms * MILLISECOND
        {
            return Err(format!("fenced, and recorded all the same: {:?}", record.seen));
        }
        // The first try of a completion may have taken effect, and its record have expired since.
        let run = possession.run_of(entry);
        let ttl = self.begins.get(run).map_or(0, |(begin, _)| begin.ttl_ms as Moment) * MILLISECOND;
        let may_be_over = matches!(entry.ask, Ask::Complete { .. }) && entry.sent + ttl <= told.at;
        if !possession.is_lost(&self.evidence.deaths, told.at) && !may_be_over {
            return Err("fenced, though its session lives".into());
        }
        Ok(())
    }
}
