//! What a courier holds of its endpoint's backlog: one lane for each thread, its deliveries in order, the first of them up
//! for sending. Of what it has seen and has no room for it remembers the ids, which are small; the rest of the backlog
//! stays in the store, and the window knows where to read on. So nobody ever searches the store for a thread's next
//! delivery, and the store needs no index for it. Pure: no actor, no clock, no store.

use crate::ports::{Delivery, Held, Part};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use tract_domain::{Timestamp, UserId};

/// How many of one thread's deliveries are held: a busy or failing thread must not fill the window.
pub(super) const LANE: usize = 16;

/// How many threads may wait for their next attempt in memory. An endpoint that fails so many is not read on until some
/// of them are due.
const WAITING: usize = 8192;

/// How many ids are remembered, of all lanes, for each delivery that may be held: half a megabyte for a window of 1024. Past
/// it the backlog is not read on until half of them have had their turn.
const REMEMBERED: usize = 64;

/// How many strands are read at once.
const PARTS: usize = 16;

/// How many deliveries are held together with their entries, which may be large; the others' are read when they are sent.
pub(crate) const ENTRIES: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    /// Deliveries that are held at the most, but for the one of each waiting lane.
    size: usize,
    /// The strands that are held.
    strands: BTreeMap<u16, Strand>,
    /// After which strand the backlog is read on.
    turn: u16,
    lanes: HashMap<UserId, Lane>,
    /// Lanes whose first delivery may be sent, the oldest delivery first.
    ready: BTreeSet<(u64, UserId)>,
    /// Lanes whose first delivery is not due yet.
    waiting: BTreeSet<(Timestamp, u64, UserId)>,
    held: usize,
    /// Ids that lanes remember.
    remembered: usize,
}

/// How far a strand's backlog has been read.
#[derive(Debug)]
struct Strand {
    /// The epoch of the lease.
    epoch: u64,
    /// Every delivery up to this id has been seen: it is in a lane, or its lane remembers it.
    cursor: u64,
    /// There may be deliveries above the cursor that nobody will hand in.
    behind: bool,
}

/// One thread's deliveries to this endpoint.
#[derive(Debug, Default)]
struct Lane {
    strand: u16,
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

impl Window {
    /// Empty, with nothing held.
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            strands: BTreeMap::new(),
            turn: 0,
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            held: 0,
            remembered: 0,
        }
    }

    /// Lets go of everything: it is read anew from the store.
    pub(super) fn clear(&mut self) {
        let strands = std::mem::take(&mut self.strands);
        *self = Self::new(self.size);
        let anew = |(strand, Strand { epoch, .. })| (strand, Strand { epoch, cursor: 0, behind: true });
        self.strands = strands.into_iter().map(anew).collect();
    }

    /// Takes up the strands that are held now, with their backlog still in the store, and lets go of the others. Whether
    /// anything has changed.
    pub(super) fn hold(&mut self, held: &Held) -> bool {
        let known = self.strands.iter().map(|(strand, known)| (*strand, known.epoch));
        if known.eq(held.all_active()) {
            return false;
        }
        let lost: BTreeSet<u16> =
            self.strands.iter().filter(|(s, known)| held.active(**s) != Some(known.epoch)).map(|(s, _)| *s).collect();
        self.strands.retain(|strand, _| !lost.contains(strand));
        let gone: Vec<UserId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lost.contains(&lane.strand))
            .map(|(user_id, _)| user_id.clone())
            .collect();
        for user_id in gone {
            self.drop_lane(user_id);
        }
        for (strand, epoch) in held.all_active() {
            self.strands.entry(strand).or_insert(Strand { epoch, cursor: 0, behind: true });
        }
        true
    }

    fn drop_lane(&mut self, user_id: UserId) {
        let Some(lane) = self.lanes.remove(&user_id) else { return };
        self.remembered -= lane.behind.len();
        match (lane.place, lane.queue.front()) {
            // What waits is not counted as held.
            (Place::Waiting, Some(first)) => {
                self.waiting.remove(&(first.due_at, first.id, user_id));
            }
            (Place::Ready, Some(first)) => {
                self.held -= lane.queue.len();
                self.ready.remove(&(first.id, user_id));
            }
            _ => self.held -= lane.queue.len(),
        }
    }

    /// The epoch under which this strand is held, if it is.
    pub(super) fn epoch(&self, strand: u16) -> Option<u64> {
        self.strands.get(&strand).map(|strand| strand.epoch)
    }

    /// Some were committed in this strand that nobody handed in.
    pub(super) fn fall_behind(&mut self, strand: u16) {
        if let Some(strand) = self.strands.get_mut(&strand) {
            strand.behind = true;
        }
    }

    /// What to read of the backlog now; nothing if there is none or no room.
    pub(super) fn wants(&mut self) -> Vec<Part> {
        let room =
            self.held <= self.size / 2 && self.waiting.len() < WAITING && self.remembered <= self.size * REMEMBERED / 2;
        if !room {
            return Vec::new();
        }
        // In turn, so that none waits for the others' backlogs.
        let behind = |range: std::collections::btree_map::Range<'_, u16, Strand>| {
            range.filter(|(_, known)| known.behind).map(|(strand, known)| (*strand, known.cursor)).collect::<Vec<_>>()
        };
        let after = (std::ops::Bound::Excluded(self.turn), std::ops::Bound::Unbounded);
        let mut next = behind(self.strands.range(after));
        next.extend(behind(self.strands.range(..=self.turn)));
        next.truncate(PARTS);
        let Some((last, _)) = next.last() else { return Vec::new() };
        self.turn = *last;
        let limit = ((self.size - self.held) / next.len()).max(1);
        next.into_iter().map(|(strand, after)| Part { strand, after, limit }).collect()
    }

    /// Takes the parts of the backlog that were read.
    pub(super) fn read(&mut self, asked: &[Part], pages: Vec<Vec<Delivery>>, now: Timestamp) {
        for (part, page) in asked.iter().zip(pages) {
            // What was committed meanwhile is handed in, or whoever hands in says that some was missed.
            if let Some(strand) = self.strands.get_mut(&part.strand).filter(|strand| strand.cursor == part.after) {
                strand.behind = page.len() >= part.limit;
            }
            for delivery in page {
                self.admit(delivery, now);
            }
        }
    }

    /// Takes a delivery that was committed just now. While the store has older ones, it waits there too.
    pub(super) fn hand_in(&mut self, delivery: Delivery, now: Timestamp) {
        let Some(strand) = self.strands.get_mut(&delivery.strand) else { return };
        // Another node committed some of those before it.
        strand.behind |= delivery.behind > strand.cursor;
        if !strand.behind {
            self.admit(delivery, now);
        }
    }

    /// Puts a delivery into its lane, if there is room; else notes that it is in the store.
    fn admit(&mut self, mut delivery: Delivery, now: Timestamp) {
        let Some(strand) = self.strands.get_mut(&delivery.strand) else { return };
        if delivery.id <= strand.cursor {
            return;
        }
        if self.held >= ENTRIES {
            delivery.entry = None;
        }
        if self.held >= self.size || self.waiting.len() >= WAITING || self.remembered >= self.size * REMEMBERED {
            strand.behind = true;
            return;
        }
        strand.cursor = delivery.id;
        let user_id = delivery.user_id.clone();
        let lane = self.lanes.entry(user_id.clone()).or_default();
        lane.strand = delivery.strand;
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
