//! Schedules that depend on their seed alone.

use std::cell::Cell;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// The most changes of priority in a schedule by priorities.
const MAX_CHANGES: u64 = 3;

thread_local! {
    /// The seed of the schedule that runs on this thread, and a digest of its choices so far.
    pub(super) static CURRENT: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// Gives each of a number of seeds in a row its schedule.
///
/// An even seed chooses anew at every step. An odd one gives each thread a priority, and changes it
/// at up to three steps (after probabilistic concurrency testing, Burckhardt et al., ASPLOS 2010).
/// The range of those steps is drawn as well, so that nothing is carried over from one schedule to
/// the next.
pub(super) struct Seeded {
    seeds: std::ops::Range<u64>,
    numbers: Numbers,
    priorities: Option<Priorities>,
    digest: u64,
}

impl Seeded {
    pub(super) fn new(seeds: std::ops::Range<u64>) -> Self {
        Self { seeds, numbers: Numbers(0), priorities: None, digest: 0 }
    }
}

impl Scheduler for Seeded {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = self.seeds.next()?;
        CURRENT.set(Some((seed, 0)));
        self.numbers = Numbers(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        self.priorities = (seed % 2 == 1).then(|| Priorities::draw(&mut self.numbers));
        self.digest = 0;
        Some(Schedule::new(seed))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let next = match &mut self.priorities {
            Some(priorities) => {
                priorities.choose(&mut self.numbers, runnable, current, is_yielding)
            }
            None => runnable[self.numbers.below(runnable.len())].id(),
        };
        self.digest = (self.digest ^ usize::from(next) as u64).wrapping_mul(0x0100_0000_01b3);
        CURRENT.set(CURRENT.get().map(|(seed, _)| (seed, self.digest)));
        Some(next)
    }

    fn next_u64(&mut self) -> u64 {
        self.numbers.next()
    }
}

/// The priorities of threads: the thread with the highest runs, until it blocks.
struct Priorities {
    of: Vec<u64>,
    changes: Vec<usize>,
    /// A priority below all that were given.
    lowest: u64,
    choices: usize,
}

impl Priorities {
    fn draw(numbers: &mut Numbers) -> Self {
        let horizon = 1 << (4 + numbers.below(7));
        let changes = (0..=numbers.next() % MAX_CHANGES).map(|_| numbers.below(horizon)).collect();
        Self { of: Vec::new(), changes, lowest: u64::MAX / 2, choices: 0 }
    }

    fn choose(
        &mut self,
        numbers: &mut Numbers,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> TaskId {
        if let [only] = runnable {
            return only.id();
        }
        // Whoever waits or spins yields. Behind all others for good it would miss most meetings, so
        // it goes there one time in two.
        let goes_last = self.changes.contains(&self.choices)
            || (is_yielding && numbers.next().is_multiple_of(2));
        self.choices += 1;
        match current {
            Some(current) if goes_last => {
                self.lowest -= 1;
                let lowest = self.lowest;
                *self.of(numbers, current) = lowest;
            }
            Some(current) if is_yielding => *self.of(numbers, current) = Self::draw_one(numbers),
            _ => {}
        }
        let first = runnable.iter().max_by_key(|task| *self.of(numbers, task.id()));
        first.expect("somebody can go on").id()
    }

    fn of(&mut self, numbers: &mut Numbers, task: TaskId) -> &mut u64 {
        let task = usize::from(task);
        while self.of.len() <= task {
            self.of.push(Self::draw_one(numbers));
        }
        &mut self.of[task]
    }

    /// A priority above those of the threads that went last.
    fn draw_one(numbers: &mut Numbers) -> u64 {
        u64::MAX / 2 + numbers.next() / 2
    }
}

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("it is below a usize")
    }
}
