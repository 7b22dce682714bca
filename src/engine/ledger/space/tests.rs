//! P6, P8, P11 and P14 on the room of a store alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::*;

const LOG: u64 = 1024 * 1024;

/// A space whose next log has room for so many pages.
fn space(pages: u64) -> Arc<Space> {
    let space = Arc::new(Space::new(LOG, 0));
    space.measure(0, LOG).wake();
    offer(&space, pages * PAGE, false);
    space
}

/// Offers the space of a next log.
fn offer(space: &Space, usable: u64, can_grow: bool) {
    let ceiling = if can_grow { u64::MAX } else { 0 };
    space.offer(Next { usable, ceiling, spare: 0 }).expect("it is large enough").wake();
}

fn granted(space: &Arc<Space>, scope: &str, pages: u64) -> Reservation {
    match space.admit(Scope::new(scope), pages) {
        Ok(Admission::Granted(room)) => room,
        other => panic!("{other:?}"),
    }
}

fn turn(space: &Arc<Space>, scope: &str) -> Turn {
    match space.admit(Scope::new(scope), 1) {
        Ok(Admission::Queued(turn)) => *turn,
        other => panic!("{other:?}"),
    }
}

/// A page for an entry that is queued for the writer.
fn queued(space: &Arc<Space>) -> Reservation {
    let mut room = granted(space, "s", 1);
    room.queue(1);
    room
}

fn refused(space: &Arc<Space>) -> Error {
    space.admit(Scope::new("s"), 1).unwrap_err()
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(turn: &mut Turn) -> Poll<Result<Reservation>> {
    turn.poll(&mut Context::from_waker(Waker::noop()))
}

fn room_of(turn: &mut Turn) -> Option<Reservation> {
    match poll(turn) {
        Poll::Ready(room) => Some(room.unwrap()),
        Poll::Pending => None,
    }
}

fn full_disk() -> Error {
    Error::io("create", "/s/log", std::io::ErrorKind::StorageFull.into())
}

fn too_many_files() -> Error {
    Error::io("create", "/s/log", rustix::io::Errno::MFILE.into())
}

/// A space that is so far behind that no further key is let in.
fn behind() -> Arc<Space> {
    let space = space(100);
    space.freeze(4 * LOG);
    space
}

#[test]
fn p11_a_batch_uses_its_space_before_it_is_written() {
    let space = Arc::new(Space::new(LOG, 0));
    space.measure(0, 10 * PAGE).wake();
    let own = space.reserve(0).unwrap();
    let others = [0, PAGE + 1].map(|content| space.reserve(content).unwrap());
    let taken = space.take(10 * PAGE, own.bytes(), |room| {
        assert_eq!(room, 6 * PAGE, "all but the four pages of the others");
        Some(5 * PAGE + 1)
    });
    assert!(taken);
    drop(own);
    assert!(space.reserve(0).is_err());
    // An update by the reaper returns nothing either.
    space.fall_back(full_disk());
    assert!(matches!(space.reserve(0), Err(Error::Full)));
    drop(others);
    let last: Vec<_> = std::iter::from_fn(|| space.reserve(0).ok()).collect();
    assert_eq!(last.len(), 4);
}

/// The backlog was measured in logs of the largest size, which a small disk does not hold: it was full
/// before a key had to wait.
#[test]
fn p11_p14_on_a_small_disk_keys_wait_for_fewer_bytes() {
    let space = space(100);
    space.set_log_bytes(LOG / 8);
    space.freeze(LOG / 2);
    let mut waiting = turn(&space, "s");
    assert_eq!(space.figures().1, Some(Refusing::Behind));
    // The disk has grown.
    space.set_log_bytes(LOG);
    assert!(room_of(&mut waiting).is_some());
}

/// All of these were called a full disk.
#[test]
fn p14_an_error_says_what_is_in_the_way_of_a_new_key() {
    let space = space(2);
    let room = granted(&space, "s", 2);
    let Error::Limit { limit: crate::error::Limit::ReservedBytes, max, .. } = refused(&space)
    else {
        panic!("the others have it all")
    };
    assert_eq!(max, 2 * PAGE);
    assert_eq!(space.figures().1, Some(Refusing::Reserved));
    // Nothing is left of the log, and the next one is about to be prepared.
    space.take_next(0);
    let waiting = turn(&space, "s");
    assert!(matches!(space.reserve(0), Err(Error::Behind)));
    space.fall_back(full_disk());
    assert!(matches!(refused(&space), Error::Full));
    assert_eq!(space.figures().1, Some(Refusing::Full));
    space.fall_back(too_many_files());
    let Error::Unavailable { source, .. } = refused(&space) else { panic!("it is no full disk") };
    assert!(source.to_string().starts_with("cannot create /s/log"), "{source}");
    assert_eq!(space.figures().1, Some(Refusing::Unavailable));
    drop((waiting, room));
    offer(&space, 2 * PAGE, false);
    assert_eq!(space.figures().1, None);
    drop(granted(&space, "s", 1));
}

#[test]
fn p14_a_key_waits_while_too_much_waits_for_sealing_and_goes_on_as_that_is_sealed() {
    let space = behind();
    let mut waiting = turn(&space, "s");
    assert!(poll(&mut waiting).is_pending());
    space.advance(LOG / 2);
    assert!(poll(&mut waiting).is_pending());
    // In the middle of a log.
    space.advance(LOG);
    drop(room_of(&mut waiting).expect("it is let in"));
    drop(granted(&space, "s", 1));
    // Sealing fails, and has to begin again.
    space.finish(Err(full_disk()));
    assert!(matches!(refused(&space), Error::Full));
    space.finish(Ok(2 * LOG));
    drop(granted(&space, "s", 1));
}

#[test]
fn a_verdict_does_not_wait_for_sealing() {
    let space = behind();
    let waiting = turn(&space, "s");
    drop(space.reserve(0).unwrap());
    drop(waiting);
}

#[test]
fn p14_those_who_wait_are_told_when_sealing_does_not_succeed() {
    let space = behind();
    let mut turns = ["s", "t"].map(|scope| turn(&space, scope));
    let damage = Error::corrupt("/s/log", "an entry does not match its digest");
    space.finish(Err(damage));
    for turn in &mut turns {
        let Poll::Ready(Err(Error::Unavailable { source, .. })) = poll(turn) else {
            panic!("it is told")
        };
        assert!(source.to_string().starts_with("/s/log is damaged"), "{source}");
    }
    assert_eq!(space.figures().0.refused, 2);
}

#[test]
fn p14_a_key_waits_while_too_many_bytes_are_queued() {
    let space = space(10_000);
    let mut rooms = Vec::new();
    // Nothing is sealed in time, so the queue is what matters.
    let space_of_large_logs = Arc::new(Space::new(1024 * LOG, 0));
    offer(&space_of_large_logs, 1024 * LOG, false);
    for (space, most) in [(space, 3), (space_of_large_logs, 16)] {
        let mut queued = 0;
        let mut waiting = loop {
            match space.admit(Scope::new("s"), 1).unwrap() {
                Admission::Granted(mut room) => {
                    room.queue(LOG);
                    queued += 1;
                    rooms.push(room);
                }
                Admission::Queued(turn) => break turn,
            }
        };
        assert!((most * 2 / 3..=most).contains(&queued), "{queued} of {most}");
        assert!(poll(&mut waiting).is_pending());
        rooms.clear();
        drop(room_of(&mut waiting).expect("the writer has written them"));
    }
}

/// They would have been let in all at once, with bodies of a megabyte each.
#[test]
fn p14_those_in_flight_count_with_the_bytes_of_an_average_entry() {
    let space = space(1000);
    for _ in 0..100 {
        let mut room = granted(&space, "s", 1);
        room.queue(LOG / 16);
    }
    // Two logs are frozen, and as much as another may be on its way.
    space.freeze(2 * LOG + PAGE);
    let admitted = std::iter::from_fn(|| match space.admit(Scope::new("s"), 1) {
        Ok(Admission::Granted(room)) => Some(room),
        _ => None,
    });
    let admitted: Vec<_> = admitted.collect();
    assert!((14..=17).contains(&admitted.len()), "{}", admitted.len());
    // However many are in flight, they keep nobody out once there is nothing to be done.
    space.finish(Ok(2 * LOG + PAGE));
    let more: Vec<_> = (0..100).map(|_| granted(&space, "s", 1)).collect();
    drop((admitted, more));
}

#[test]
fn p6_scopes_take_turns_and_keys_of_one_come_in_order() {
    let space = space(1000);
    for _ in 0..200 {
        granted(&space, "s", 1).queue(LOG / 4);
    }
    space.freeze(4 * LOG);
    let noisy: Vec<_> = (0..3).map(|_| turn(&space, "noisy")).collect();
    let polite = turn(&space, "polite");
    let mut turns: Vec<_> = noisy.into_iter().chain([polite, turn(&space, "noisy")]).collect();
    space.advance(LOG);
    let (mut order, mut rooms) = (Vec::new(), Vec::new());
    // As much is sealed at a time as an average entry has, so one key is let in.
    for _ in 0..3 {
        space.advance(LOG / 4);
        let served: Vec<_> = turns.iter_mut().map(room_of).collect();
        order.extend(served.iter().position(Option::is_some));
        assert_eq!(served.iter().flatten().count(), 1);
        turns.remove(order[order.len() - 1]);
        rooms.push(served);
    }
    // By position among those that are left: the first noisy one, the polite one, the second one.
    assert_eq!(order, [0, 2, 0]);
    space.finish(Ok(4 * LOG));
    assert!(turns.iter_mut().all(|turn| room_of(turn).is_some()));
}

#[test]
fn p6_a_scope_that_had_nothing_waiting_is_not_ahead_of_others() {
    let space = behind();
    let mut first = turn(&space, "a");
    space.advance(4 * LOG);
    drop(room_of(&mut first).expect("its turn has come"));
    space.freeze(4 * LOG);
    let (mut b, mut a) = (turn(&space, "b"), turn(&space, "a"));
    // There is one page left, and the writer has the others.
    let [mut rest, mut page] = [98, 0].map(|pages| space.reserve(pages * PAGE).unwrap());
    rest.queue(1);
    page.queue(1);
    space.finish(Ok(8 * LOG));
    assert!(poll(&mut b).is_pending());
    drop(page);
    assert!(poll(&mut a).is_pending());
    let room = room_of(&mut b).expect("its turn has come");
    drop(rest);
    assert!(room_of(&mut a).is_some());
    drop(room);
}

/// Who comes later would otherwise overtake those who wait.
#[test]
fn p6_nobody_overtakes_those_who_wait() {
    let space = space(3);
    let [first, second, third] = [(); 3].map(|()| queued(&space));
    let Admission::Queued(mut two_pages) = space.admit(Scope::new("a"), 2).unwrap() else {
        panic!("there is too little")
    };
    drop(first);
    // There is a page, and the first in the queue needs two.
    let mut one_page = turn(&space, "b");
    drop(second);
    let room = match poll(&mut two_pages) {
        Poll::Ready(room) => room.unwrap(),
        Poll::Pending => panic!("it is the first"),
    };
    assert!(poll(&mut one_page).is_pending());
    drop(third);
    assert!(room_of(&mut one_page).is_some());
    drop(room);
}

#[test]
fn p15_a_place_that_is_given_up_is_gone_at_once_and_room_that_had_come_goes_back() {
    let space = space(2);
    let [first, second] = [(); 2].map(|()| queued(&space));
    let (given_up, mut next, last) = (turn(&space, "a"), turn(&space, "b"), turn(&space, "c"));
    drop(given_up);
    assert!(poll(&mut next).is_pending());
    drop(first);
    // Its turn has come, and it goes without looking.
    drop(next);
    let mut last = last;
    drop(room_of(&mut last).expect("the room went on"));
    drop((granted(&space, "s", 1), second));
    let counts = space.figures().0;
    assert_eq!((counts.waited, counts.refused), (3, 1));
}

#[test]
fn p8_each_change_that_makes_room_wakes_the_one_who_waits() {
    type Change = fn(&Space);
    let changes: [(&str, Change); 5] = [
        ("sealing goes on", |space| space.advance(4 * LOG)),
        ("sealing is done", |space| space.finish(Ok(4 * LOG))),
        ("sealing fails", |space| space.finish(Err(full_disk()))),
        ("the store stops", |space| space.stop(&Error::stopped())),
        ("a larger log is prepared", |space| {
            space.finish(Ok(4 * LOG));
            offer(space, 100 * PAGE, false);
        }),
    ];
    for (what, change) in changes {
        let space = behind();
        let mut waiting = turn(&space, "s");
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(waiting.poll(&mut Context::from_waker(&waker)).is_pending());
        change(&space);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "{what}");
        assert!(poll(&mut waiting).is_ready(), "{what}");
    }
}

#[test]
fn p8_nobody_waits_in_a_store_that_has_stopped() {
    let space = behind();
    let mut waiting = turn(&space, "s");
    space.stop(&Error::stopped());
    assert!(matches!(poll(&mut waiting), Poll::Ready(Err(Error::Stopped { .. }))));
    assert!(matches!(refused(&space), Error::Stopped { .. }));
}

/// On a full disk a smaller log may be all that there is.
#[test]
fn p11_a_next_log_without_room_for_all_that_is_reserved_is_not_offered() {
    let space = Arc::new(Space::new(LOG, 0));
    space.measure(0, LOG).wake();
    let _rooms: Vec<_> = (0..10).map(|_| space.reserve(0).unwrap()).collect();
    let offer = |pages| space.offer(Next { usable: pages * PAGE, ceiling: LOG, spare: 0 });
    assert!(offer(9).is_none());
    assert!(!space.has_next());
    assert!(offer(10).is_some());
    assert!(space.has_next());
}
