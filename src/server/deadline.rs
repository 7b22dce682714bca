//! Time limits. Most of what has one is ready at once, so a timer is made only for what is not.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// A time by which something must have happened.
#[derive(Debug)]
pub(super) struct Deadline {
    end: End,
    /// `None` until something was waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    At(Instant),
    /// So long after the first wait has begun.
    After(Duration),
}

pin_project! {
    /// A future with a [`Deadline`]; `None` if that has passed.
    // Not an async function: that would hold the future twice.
    pub(super) struct Race<'a, F> {
        #[pin]
        future: F,
        deadline: &'a mut Deadline,
    }
}

impl Deadline {
    pub(super) fn at(end: Instant) -> Self {
        Self { end: End::At(end), timer: None }
    }

    /// Returns a deadline so long after the first wait for something.
    pub(super) fn after(limit: Duration) -> Self {
        Self { end: End::After(limit), timer: None }
    }

    /// Waits for a future until the deadline.
    pub(super) fn race<F: Future>(&mut self, future: F) -> Race<'_, F> {
        Race { future, deadline: self }
    }

    /// Puts a deadline that has passed off for so long.
    pub(super) fn put_off(&mut self, limit: Duration) {
        if let Some(timer) = &mut self.timer {
            let end = timer.deadline() + limit;
            timer.as_mut().reset(end);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() {
            let end = match self.end {
                End::At(end) => Some(end),
                End::After(limit) => Instant::now().checked_add(limit),
            };
            // One beyond all times never comes.
            let Some(end) = end else { return Poll::Pending };
            self.timer = Some(Box::pin(sleep_until(end)));
        }
        match &mut self.timer {
            // A future that has used up its task's budget must not outrun its deadline.
            Some(timer) => pin!(unconstrained(timer.as_mut())).poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<F: Future> Future for Race<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.future.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => this.deadline.poll(cx).map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::task::coop::consume_budget;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_takes_no_timer_and_what_is_not_is_cut_off_in_time() {
        let start = Instant::now();
        for mut deadline in [Deadline::after(SECOND), Deadline::at(start + 3 * SECOND)] {
            assert_eq!(deadline.race(ready(1)).await, Some(1));
            assert!(deadline.timer.is_none());
            assert_eq!(deadline.race(pending::<()>()).await, None);
        }
        assert_eq!(start.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_put_off_from_where_it_was() {
        let start = Instant::now();
        let mut deadline = Deadline::after(SECOND);
        assert_eq!(deadline.race(pending::<()>()).await, None);
        tokio::time::advance(SECOND / 2).await;
        deadline.put_off(SECOND);
        assert_eq!(deadline.race(pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_uses_up_its_tasks_budget_is_cut_off_too() {
        let mut deadline = Deadline::after(SECOND);
        let busy = async {
            loop {
                consume_budget().await;
            }
        };
        let advance = tokio::time::advance(2 * SECOND);
        let (cut_off, ()) = tokio::join!(deadline.race(busy), advance);
        assert_eq!(cut_off, None);
    }
}
