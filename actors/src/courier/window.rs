//! What a courier holds of its endpoint's backlog: one lane for each thread, its deliveries in order, the first of them up
//! for sending. Of what it has seen and has no room for it remembers the ids, which are small; the rest of the backlog
//! stays in the store, and the window knows where to read on. So nobody ever searches the store for a thread's next
//! delivery, and the store needs no index for it. Pure: no actor, no clock, no store.

use crate::ports::Delivery;
use std::collections::{BTreeSet, HashMap, VecDeque};
use tract_domain::{Timestamp, UserId};

/// How many of one thread's deliveries are held: a busy or failing thread must not fill the window.
pub(super) const LANE: usize = 16;

/// How many threads may wait for their next attempt in memory. An endpoint that fails so many is not read on until some
/// of them are due.
const WAITING: usize = 8192;

/// How many ids are remembered, of all lanes, for each delivery that may be held: half a megabyte for a window of 1024. Past
/// it the backlog is not read on until half of them have had their turn.
const REMEMBERED: usize = 64;

/// How many deliveries are held together with their entries, which may be large; the others' are read when they are sent.
pub(crate) const ENTRIES: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    /// Deliveries that are held at the most, but for the one of each waiting lane.
    size: usize,
    /// Every delivery up to this id has been seen: it is in a lane, or its lane remembers it.
    cursor: u64,
    /// There may be deliveries above the cursor that nobody will hand in.
    behind: bool,
    lanes: HashMap<UserId, Lane>,
    /// Lanes whose first delivery may be sent, the oldest delivery first.
    ready: BTreeSet<(u64, UserId)>,
    /// Lanes whose first delivery is not due yet.
    waiting: BTreeSet<(Timestamp, u64, UserId)>,
    held: usize,
    /// Ids that lanes remember.
    remembered: usize,
}

/// One thread's deliveries to this endpoint.
#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Delivery>,
    /// The ids of those behind the queue, which are in the store.
    behind: VecDeque<u64>,
    place: Place,
}

/// Where a lane is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere yet.
    #[default]
    New,
    /// In `ready`.
    Ready,
    /// Its first delivery is being sent.
    Busy,
    /// In `waiting`, until its first delivery is due.
    Waiting,
    /// Its next deliveries are being read from the store.
    Reading,
}

/// A part of the backlog to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// From above this id.
    pub(super) after: u64,
    /// At most so many.
    pub(super) limit: usize,
}

impl Window {
    /// Empty, with everything still in the store.
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            cursor: 0,
            behind: true,
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            held: 0,
            remembered: 0,
        }
    }

    /// Lets go of everything: it is read anew from the store.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.size);
    }

    /// Some were committed that nobody handed in.
    pub(super) fn fall_behind(&mut self) {
        self.behind = true;
    }

    /// What to read of the backlog now, if there is any and there is room.
    pub(super) fn wants(&self) -> Option<Page> {
        let room = self.behind
            && self.held <= self.size / 2
            && self.waiting.len() < WAITING
            && self.remembered <= self.size * REMEMBERED / 2;
        room.then(|| Page { after: self.cursor, limit: self.size - self.held })
    }

    /// Takes a page of the backlog that was read.
    pub(super) fn read(&mut self, asked: Page, page: Vec<Delivery>, now: Timestamp) {
        // What was committed meanwhile is handed in, or whoever hands in says that some was missed.
        self.behind = page.len() >= asked.limit;
        for delivery in page {
            self.admit(delivery, now);
        }
    }

    /// Takes a delivery that was committed just now. While the store has older ones, it waits there too.
    pub(super) fn hand_in(&mut self, delivery: Delivery, now: Timestamp) {
        if !self.behind {
            self.admit(delivery, now);
        }
    }

    /// Puts a delivery into its lane, if there is room; else notes that it is in the store.
    fn admit(&mut self, mut delivery: Delivery, now: Timestamp) {
        if delivery.id <= self.cursor {
            return;
        }
        if self.held >= ENTRIES {
            delivery.entry = None;
        }
        if self.held >= self.size || self.waiting.len() >= WAITING || self.remembered >= self.size * REMEMBERED {
            self.behind = true;
            return;
        }
        self.cursor = delivery.id;
        let user_id = delivery.user_id.clone();
        let lane = self.lanes.entry(user_id.clone()).or_default();
        let closed = matches!(lane.place, Place::Reading | Place::Waiting);
        if closed || !lane.behind.is_empty() || lane.queue.len() >= LANE {
            lane.behind.push_back(delivery.id);
            self.remembered += 1;
            return;
        }
        lane.queue.push_back(delivery);
        self.held += 1;
        if lane.place == Place::New {
            self.place(&user_id, now);
        }
    }

    /// Puts a lane where it belongs by its first delivery.
    fn place(&mut self, user_id: &UserId, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(user_id) else { return };
        let Some(first) = lane.queue.front() else { return };
        if first.due_at > now {
            lane.place = Place::Waiting;
            self.waiting.insert((first.due_at, first.id, user_id.clone()));
            // Only the first is needed until then, and its entry not yet.
            self.held -= lane.queue.len();
            for delivery in lane.queue.drain(1..).rev() {
                lane.behind.push_front(delivery.id);
                self.remembered += 1;
            }
            if let Some(first) = lane.queue.front_mut() {
                first.entry = None;
            }
        } else {
            lane.place = Place::Ready;
            self.ready.insert((first.id, user_id.clone()));
        }
    }

    /// Readies the lanes that have become due.
    pub(super) fn raise_due(&mut self, now: Timestamp) {
        while self.waiting.first().is_some_and(|(due_at, ..)| *due_at <= now) {
            let Some((_, id, user_id)) = self.waiting.pop_first() else { return };
            if let Some(lane) = self.lanes.get_mut(&user_id) {
                lane.place = Place::Ready;
                self.held += 1;
                self.ready.insert((id, user_id));
            }
        }
    }

    /// When the next lane becomes due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(due_at, ..)| *due_at)
    }

    /// Whether anything may be sent.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes up the oldest delivery that may be sent; its lane waits for what becomes of it.
    pub(super) fn take_up(&mut self) -> Option<Delivery> {
        let (_, user_id) = self.ready.pop_first()?;
        let lane = self.lanes.get_mut(&user_id)?;
        lane.place = Place::Busy;
        lane.queue.front().cloned()
    }

    /// The delivery that was taken up is to be tried (on) as it stands now.
    pub(super) fn changed(&mut self, delivery: Delivery, now: Timestamp) {
        let user_id = delivery.user_id.clone();
        if let Some(lane) = self.busy(&delivery) {
            if let Some(first) = lane.queue.front_mut() {
                *first = delivery;
            }
            self.place(&user_id, now);
        }
    }

    /// The delivery that was taken up is over. Which of its lane have to be read now, by their ids; none if none.
    #[must_use]
    pub(super) fn finished(&mut self, delivery: &Delivery, now: Timestamp) -> Vec<u64> {
        let Some(lane) = self.busy(delivery) else { return Vec::new() };
        lane.queue.pop_front();
        self.held -= 1;
        self.go_on(&delivery.user_id, now)
    }

    /// The lane whose first delivery this is, being sent. None if the window was cleared meanwhile.
    fn busy(&mut self, delivery: &Delivery) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(&delivery.user_id)?;
        let same = lane.place == Place::Busy && lane.queue.front().is_some_and(|first| first.id == delivery.id);
        same.then_some(lane)
    }

    /// Where a lane goes whose first delivery is over. Which ones have to be read, if it goes on with such.
    fn go_on(&mut self, user_id: &UserId, now: Timestamp) -> Vec<u64> {
        let Some(lane) = self.lanes.get_mut(user_id) else { return Vec::new() };
        if !lane.queue.is_empty() {
            self.place(user_id, now);
            return Vec::new();
        }
        let next: Vec<u64> = lane.behind.drain(..lane.behind.len().min(LANE)).collect();
        self.remembered -= next.len();
        if next.is_empty() {
            self.lanes.remove(user_id);
        } else {
            lane.place = Place::Reading;
        }
        next
    }

    /// Takes a lane's next deliveries, those that there still are. Which ones have to be read then, if it has none now.
    #[must_use]
    pub(super) fn lane_read(&mut self, user_id: &UserId, page: Vec<Delivery>, now: Timestamp) -> Vec<u64> {
        let reading = self.lanes.get_mut(user_id).filter(|lane| lane.place == Place::Reading);
        let Some(lane) = reading else { return Vec::new() };
        self.held += page.len();
        lane.queue.extend(page);
        self.go_on(user_id, now)
    }
}

#[cfg(test)]
#[path = "window/tests.rs"]
mod tests;
