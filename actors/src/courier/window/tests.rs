//! The window against a store that is a sorted map: whatever happens, each thread's deliveries are taken up in order, none
//! is lost, and what is held stays within its bound.

use super::*;
use crate::ports::{Endpoint, Lease, What};
use std::collections::BTreeMap;

const SIZE: usize = 64;
const NOW: Timestamp = Timestamp(1_000);

fn delivery(id: u64, user: &str) -> Delivery {
    Delivery {
        id,
        strand: 0,
        behind: 0,
        endpoint: Endpoint::from_name("hook:acme:one:message:receive"),
        user_id: UserId::new(user).unwrap(),
        webhook_id: id.to_string(),
        what: What::Entry,
        sequence: id,
        answers_handoff: None,
        created_at: NOW,
        attempts: 0,
        first_attempt_at: None,
        due_at: NOW,
        replayed: false,
        entry: None,
    }
}

/// What is really there, with a window on it.
struct Scene {
    window: Window,
    stored: BTreeMap<u64, Delivery>,
    taken: Vec<u64>,
}

impl Scene {
    fn new() -> Self {
        let mut window = Window::new(SIZE);
        assert!(window.hold(&Held::everything()));
        let all = window.wants();
        window.read(&all, vec![Vec::new()], NOW);
        Self { window, stored: BTreeMap::new(), taken: Vec::new() }
    }
    fn commit(&mut self, id: u64, user: &str) {
        self.stored.insert(id, delivery(id, user));
        self.window.hand_in(delivery(id, user), NOW);
    }
    /// Commits what nobody hands in.
    fn commit_unseen(&mut self, id: u64, user: &str) {
        self.stored.insert(id, delivery(id, user));
        self.window.fall_behind(0);
    }
    fn page(&self, after: u64, limit: usize) -> Vec<Delivery> {
        self.stored.range(after + 1..).map(|(_, delivery)| delivery).take(limit).cloned().collect()
    }
    fn by_id(&self, ids: &[u64]) -> Vec<Delivery> {
        ids.iter().filter_map(|id| self.stored.get(id)).cloned().collect()
    }
    fn read_on(&mut self) {
        while let Some(part) = self.window.wants().pop() {
            let read = self.page(part.after, part.limit);
            let stuck = read.is_empty();
            self.window.read(&[part], vec![read], NOW);
            if stuck {
                break;
            }
        }
    }
    fn take_up(&mut self) -> Option<Delivery> {
        let delivery = self.window.take_up()?;
        self.taken.push(delivery.id);
        Some(delivery)
    }
    fn finish(&mut self, delivery: &Delivery) {
        self.stored.remove(&delivery.id);
        let mut next = self.window.finished(delivery, NOW);
        while !next.is_empty() {
            next = self.window.lane_read(&delivery.user_id, self.by_id(&next), NOW);
        }
    }
    fn deliver_all(&mut self) {
        loop {
            self.read_on();
            assert!(self.window.held <= SIZE + LANE, "{} are held", self.window.held);
            let Some(delivery) = self.take_up() else { break };
            self.finish(&delivery);
        }
    }
}

#[test]
fn the_oldest_delivery_is_taken_up_first_and_one_of_a_thread_at_a_time() {
    let mut scene = Scene::new();
    for (id, user) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
        scene.commit(id, user);
    }
    let first = scene.take_up().unwrap();
    assert_eq!((scene.take_up().unwrap().id, scene.take_up().unwrap().id), (2, 4));
    assert!(scene.take_up().is_none(), "3 waits for 1");
    scene.finish(&first);
    assert_eq!(scene.take_up().unwrap().id, 3);
}

#[test]
fn a_failing_thread_holds_one_delivery_and_finds_the_others_in_the_store() {
    let mut scene = Scene::new();
    (1..=40).for_each(|id| scene.commit(id, "a"));
    assert!(scene.window.held <= LANE);
    let mut first = scene.take_up().unwrap();
    first.due_at = NOW.plus(5_000);
    scene.window.changed(first.clone(), NOW);
    assert_eq!((scene.window.held, scene.window.next_due()), (0, Some(NOW.plus(5_000))));
    scene.commit(41, "a");
    scene.window.raise_due(NOW.plus(4_999));
    assert!(!scene.window.has_ready());
    scene.window.raise_due(NOW.plus(5_000));
    scene.taken.clear();
    scene.deliver_all();
    assert_eq!(scene.taken, (1..=41).collect::<Vec<_>>());
}

#[test]
fn what_is_committed_while_a_lane_is_read_is_not_forgotten() {
    let mut scene = Scene::new();
    (1..=17).for_each(|id| scene.commit(id, "a"));
    for _ in 0..16 {
        let delivery = scene.take_up().unwrap();
        if delivery.id < 16 {
            scene.finish(&delivery);
            continue;
        }
        scene.stored.remove(&16);
        let next = scene.window.finished(&delivery, NOW);
        assert_eq!(next, [17], "it is in the store only");
        // Handed in while the read is under way.
        scene.commit(18, "a");
        assert!(scene.window.lane_read(&delivery.user_id, scene.by_id(&next), NOW).is_empty());
    }
    scene.deliver_all();
    assert_eq!(scene.taken, (1..=18).collect::<Vec<_>>());
}

#[test]
fn what_is_above_the_cursor_comes_with_the_backlog_and_not_twice() {
    let mut scene = Scene::new();
    (1..=17).for_each(|id| scene.commit(id, "a"));
    (18..=70).for_each(|id| scene.commit_unseen(id, "b"));
    scene.commit_unseen(71, "a");
    let page = scene.window.wants().remove(0);
    // Read now, and handed over when the thread has long got its next deliveries.
    let late = scene.page(page.after, page.limit);
    while let Some(delivery) = scene.take_up() {
        scene.finish(&delivery);
    }
    assert_eq!(scene.taken, (1..=17).collect::<Vec<_>>());
    scene.window.read(&[page], vec![late], NOW);
    scene.deliver_all();
    assert_eq!(scene.taken.iter().filter(|id| **id == 71).count(), 1);
    assert_eq!(scene.taken.len(), 71);
}

#[test]
fn a_backlog_of_any_size_passes_through() {
    let mut scene = Scene::new();
    let users: Vec<String> = (0..300).map(|n| format!("user{n}")).collect();
    for id in 1..=5_000 {
        let user = &users[usize::try_from(id * 7919 % 300).unwrap()];
        if id % 3 == 0 { scene.commit(id, user) } else { scene.commit_unseen(id, user) }
    }
    scene.deliver_all();
    assert!(scene.stored.is_empty(), "{} are left", scene.stored.len());
    assert_eq!(scene.taken.len(), 5_000, "none twice");
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for id in scene.taken {
        let before = last.insert(id * 7919 % 300, id).unwrap_or(0);
        assert!(before < id, "a thread's deliveries in order");
    }
    assert!(scene.window.lanes.is_empty());
}

#[test]
fn after_it_was_cleared_what_comes_back_is_nothing_to_it() {
    let mut scene = Scene::new();
    (1..=3).for_each(|id| scene.commit(id, "a"));
    let first = scene.take_up().unwrap();
    scene.window.clear();
    assert!(scene.window.finished(&first, NOW).is_empty());
    scene.window.changed(first, NOW);
    assert!(!scene.window.has_ready());
    scene.taken.clear();
    scene.deliver_all();
    assert_eq!(scene.taken, [1, 2, 3], "all is read anew");
}

#[test]
fn what_is_gone_when_it_is_read_holds_nobody_up() {
    let mut scene = Scene::new();
    (1..=60).for_each(|id| scene.commit(id, "a"));
    (17..=50).for_each(|id| {
        scene.stored.remove(&id);
    });
    scene.deliver_all();
    assert_eq!(scene.taken, (1..=16).chain(51..=60).collect::<Vec<_>>());
    assert!(scene.window.lanes.is_empty());
}

#[test]
fn what_is_remembered_has_a_bound() {
    let mut scene = Scene::new();
    scene.commit(1, "a");
    let mut first = scene.take_up().unwrap();
    first.due_at = NOW.plus(5_000);
    scene.window.changed(first, NOW);
    let bound = SIZE * REMEMBERED;
    let end = 2 * bound as u64;
    (2..=end).for_each(|id| scene.commit(id, "a"));
    assert_eq!(scene.window.remembered, bound);
    assert!(scene.window.strands[&0].behind && scene.window.wants().is_empty());
    scene.window.raise_due(NOW.plus(5_000));
    scene.taken.clear();
    scene.deliver_all();
    assert_eq!(scene.taken, (1..=end).collect::<Vec<_>>());
    assert_eq!((scene.window.remembered, scene.window.held), (0, 0));
}

#[test]
fn so_many_failing_threads_stop_the_reading() {
    let mut scene = Scene::new();
    let mut id = 0;
    while scene.window.waiting.len() < WAITING {
        id += 1;
        scene.commit(id, &format!("user{id}"));
        let mut delivery = scene.take_up().unwrap();
        delivery.due_at = NOW.plus(5_000 + id);
        scene.window.changed(delivery, NOW);
    }
    scene.commit(id + 1, "late");
    assert!(scene.window.strands[&0].behind && scene.window.wants().is_empty());
    assert_eq!(scene.window.lanes.len(), WAITING);
    scene.window.raise_due(NOW.plus(5_001));
    assert!(!scene.window.wants().is_empty());
}

fn held(strands: &[(u16, u64)]) -> Held {
    Held::new(strands.iter().map(|(strand, epoch)| (*strand, Lease { epoch: *epoch, ending: false })).collect())
}

fn of(strand: u16, id: u64, user: &str) -> Delivery {
    Delivery { strand, ..delivery(id, user) }
}

#[test]
fn what_another_node_committed_before_is_read_first() {
    let mut window = Window::new(SIZE);
    window.hold(&held(&[(3, 1), (4, 1)]));
    let parts = window.wants();
    assert_eq!(parts.iter().map(|part| (part.strand, part.after)).collect::<Vec<_>>(), [(3, 0), (4, 0)]);
    window.read(&parts, vec![vec![], vec![]], NOW);
    window.hand_in(of(3, 13, "a"), NOW);
    // 23 was committed elsewhere, and nobody has told yet.
    window.hand_in(Delivery { behind: 23, ..of(3, 33, "b") }, NOW);
    window.hand_in(of(4, 14, "c"), NOW);
    assert_eq!(window.take_up().map(|delivery| delivery.id), Some(13));
    assert_eq!(window.take_up().map(|delivery| delivery.id), Some(14), "the other strand goes on");
    assert!(window.take_up().is_none());
    let parts = window.wants();
    assert_eq!(parts.iter().map(|part| (part.strand, part.after)).collect::<Vec<_>>(), [(3, 13)]);
    window.read(&parts, vec![vec![of(3, 23, "b"), of(3, 33, "b")]], NOW);
    let next = window.take_up().unwrap();
    assert_eq!(next.id, 23);
    assert!(window.finished(&next, NOW).is_empty());
    assert_eq!(window.take_up().unwrap().id, 33);
}

#[test]
fn a_strand_that_is_lost_leaves_nothing_and_one_that_comes_back_is_read_anew() {
    let mut window = Window::new(SIZE);
    window.hold(&held(&[(1, 1), (2, 5)]));
    let parts = window.wants();
    window.read(&parts, vec![vec![], vec![]], NOW);
    for n in 0..40 {
        window.hand_in(of(1, 10 + n, "busy"), NOW);
    }
    window.hand_in(of(1, 60, "ready"), NOW);
    window.hand_in(Delivery { due_at: NOW.plus(9), ..of(1, 70, "waiting") }, NOW);
    window.hand_in(of(2, 80, "other"), NOW);
    let busy = window.take_up().unwrap();
    assert!(!window.hold(&held(&[(1, 1), (2, 5)])), "nothing has changed");
    assert!(window.hold(&held(&[(2, 5)])));
    assert_eq!((window.held, window.remembered, window.lanes.len()), (1, 0, 1));
    assert!(window.next_due().is_none());
    assert!(window.finished(&busy, NOW).is_empty(), "what comes back is nothing to it");
    window.hand_in(of(1, 90, "ready"), NOW);
    assert_eq!(window.take_up().unwrap().id, 80);
    assert!(window.take_up().is_none());
    assert!(window.hold(&held(&[(1, 3), (2, 5)])));
    let parts = window.wants();
    assert_eq!((parts.len(), parts[0].strand, parts[0].after), (1, 1, 0));
    assert_eq!(window.epoch(1), Some(3));
    let ending = Held::new([(1, Lease { epoch: 3, ending: true }), (2, Lease { epoch: 5, ending: false })].into());
    assert!(window.hold(&ending), "a lease that is ending counts as lost");
    assert_eq!(window.epoch(1), None);
}

#[test]
fn many_strands_are_read_in_turn() {
    let mut window = Window::new(1024);
    let strands: Vec<(u16, u64)> = (0..40).map(|strand| (strand, 1)).collect();
    window.hold(&held(&strands));
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let parts = window.wants();
        assert!(parts.len() == PARTS && parts.iter().all(|part| part.limit == 1024 / PARTS));
        seen.extend(parts.iter().map(|part| part.strand));
        // All go on being behind.
    }
    assert_eq!(seen.len(), 40);
}
