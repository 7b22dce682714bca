//! A thousand calls over a network that fails three times in ten.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::calls::*;
use crate::proxy::{Fault, Proxy};
use crate::server::{Home, within};

const CALLS: usize = 1000;
const AT_ONCE: usize = 16;
/// The timeout of an attempt: an answer that is delayed comes too late.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The faults: three in ten, of all kinds, in an order without a pattern.
fn fault(number: usize) -> Fault {
    let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    if mixed % 10 >= 3 {
        return Fault::None;
    }
    match (mixed / 10) % 5 {
        0 => Fault::DropBefore,
        1 => Fault::DropAfter,
        2 => Fault::Delay(3 * TIMEOUT),
        3 => Fault::Truncate,
        _ => Fault::Reset,
    }
}

/// The number that a call dials, different for each call.
fn destination(number: usize) -> String {
    format!("+1415556{number:04}")
}

#[tokio::test]
async fn each_call_is_answered_and_was_run_once() {
    let home = Home::new();
    let server = home.start(&[]);
    let proxy = Proxy::start(server.address, fault).await;
    let (sender, places) = (sender(TIMEOUT), Arc::new(Semaphore::new(AT_ONCE)));
    let calls: Vec<_> = (0..CALLS)
        .map(|number| {
            let (sender, places, address) = (sender.clone(), Arc::clone(&places), proxy.address);
            tokio::spawn(async move {
                let _place = places.acquire().await.unwrap();
                place(&sender, address, &destination(number)).await.unwrap()
            })
        })
        .collect();
    let mut ids = HashMap::new();
    let (mut replays, mut attempts) = (0, 0);
    for (number, call) in calls.into_iter().enumerate() {
        let placed = within(call).await.unwrap();
        assert_eq!((placed.status, placed.destination), (201, destination(number)));
        replays += usize::from(placed.call.is_replay());
        attempts += placed.call.attempts() as usize;
        let key = placed.call.key().unwrap().as_str().to_owned();
        assert!(ids.insert(key, placed.id).is_none(), "no two calls share a key");
    }
    let journal = home.journal();
    let keys: HashSet<_> = journal.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!((journal.len(), keys.len()), (CALLS, CALLS));
    assert!(keys.iter().all(|key| ids.contains_key(*key)));
    let ids: HashSet<_> = ids.into_values().collect();
    assert_eq!(ids.len(), CALLS, "each call has its own answer");
    // The faults were there, and were met.
    let faults = proxy.faults.load(Ordering::Relaxed);
    assert!(faults > CALLS / 4 && replays > CALLS / 10 && attempts > CALLS + CALLS / 4);
}
