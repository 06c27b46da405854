//! Who has room for caches.

use burn::tensor::{Device, Tensor};

use super::*;
use crate::memory::Workspace;

const ROW: RowBytes = RowBytes {
    thinker: 100,
    talker: 10,
    accepted: 1,
};

/// What an answer of so many rows left for the talker.
fn kept(rows: usize) -> Kept {
    let mut kept = Kept::default();
    let accepted = Tensor::zeros([rows, 2], &Device::flex());
    kept.thinker.passed(&vec![1; rows], Some(accepted));
    kept
}

fn thinker(rows: usize) -> Rows {
    Rows {
        thinker: rows,
        ..Rows::default()
    }
}

fn is_kept(resting: Resting) -> bool {
    resting.wake().rows().accepted > 0
}

#[test]
fn the_longest_waiting_give_up_first_and_no_more_than_is_needed() {
    let budget = Arc::new(Budget::new(ROW, 1000));
    let waiting = [300, 300, 300].map(|rows| budget.rest(kept(rows)));
    // 100 bytes are free.
    drop(budget.lease(thinker(1), Captures::default()).expect("room"));
    let lease = budget.lease(thinker(3), Captures::default());
    assert_eq!(waiting.map(is_kept), [false, true, true]);
    drop(lease);
}

#[test]
fn what_rests_takes_the_place_of_what_waits() {
    let budget = Arc::new(Budget::new(ROW, 1000));
    let first = budget.rest(kept(600));
    let second = budget.rest(kept(600));
    assert_eq!([first, second].map(is_kept), [false, true]);
    // Alone it may be more than the room; beside an answer it may not.
    assert!(is_kept(budget.rest(kept(1200))));
    let lease = budget.lease(thinker(5), Captures::default());
    let [small, large] = [400, 600].map(|rows| budget.rest(kept(rows)));
    assert_eq!([small, large].map(is_kept), [false, false]);
    assert!(is_kept(budget.rest(kept(400))));
    drop(lease);
}

#[test]
fn a_conversation_that_ends_leaves_its_room() {
    let budget = Arc::new(Budget::new(ROW, 1000));
    let [first, second] = [600, 400].map(|rows| budget.rest(kept(rows)));
    drop(first);
    let third = budget.rest(kept(600));
    assert_eq!([second, third].map(is_kept), [true, true]);
}

#[test]
fn an_answer_is_refused_only_beside_another() {
    let budget = Budget::new(ROW, 1000);
    let none = Captures::default();
    let alone = budget.lease(thinker(20), none).expect("it is alone");
    let refused = budget.lease(thinker(1), none).expect_err("no room");
    let found = (100, 0);
    assert!(matches!(refused, Error::NoRoom { needed, free } if (needed, free) == found));
    drop(alone);
    let half = budget.lease(thinker(5), none).expect("room");
    let other = budget.lease(thinker(5), none).expect("room");
    assert!(budget.lease(thinker(1), none).is_err());
    drop(half);
    drop(budget.lease(thinker(5), none).expect("room"));
    drop(other);
}

#[test]
fn captured_caches_are_of_one_answer_and_take_no_room() {
    let budget = Budget::new(ROW, 1000);
    let some = Captures {
        thinker: true,
        speech: true,
    };
    let rows = Rows {
        thinker: 9,
        talker: 10,
        accepted: 100,
    };
    let first = budget.lease(rows, some).expect("room");
    assert_eq!((first.captured(), first.bytes), (some, 100));
    // The second would need 1100 bytes of its own, and 900 are left.
    assert!(budget.lease(rows, some).is_err());
    let text = budget.lease(thinker(9), some).expect("room");
    assert_eq!((text.captured(), text.bytes), (Captures::default(), 900));
    drop(first);
    let next = budget.lease(thinker(9), some).expect("room");
    assert_eq!((next.captured(), next.bytes), (some, 0));
}

#[test]
fn there_is_room_for_what_the_plan_has_and_for_what_the_limit_leaves() {
    let plan = MemoryPlan {
        components: Vec::new(),
        weights_bytes: 5000,
        context: 50,
        kv_bytes_per_token: 100,
        kv_bytes: 5000,
        talker_kv_bytes: 700,
        workspace_bytes: 300,
        total_bytes: 11_000,
        workspace: Workspace::default(),
    };
    let both = |captured| Captures {
        thinker: captured,
        speech: captured,
    };
    let room = |captured, limit| Budget::of(&plan, ROW, both(captured), limit).limit;
    assert_eq!(room(false, 11_000), 5000 + 700 + 50);
    assert_eq!(room(false, 13_000), 2000 + 5000 + 700 + 50);
    assert_eq!(room(true, 13_000), 2000 + 50);
}
