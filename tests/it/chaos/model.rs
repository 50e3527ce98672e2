//! One thread's control as the contract has it (sections 6 and 7): what an entry may follow, and what may be told of it.

use super::history::{Call, Entry, Fact, Told, Wish};

/// Where a thread stands after some of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) active: String,
    pub(super) epoch: u64,
    pub(super) offer: Option<Offer>,
    pub(super) state: String,
    pub(super) conversation: u64,
    last_message: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) id: String,
    pub(super) to: String,
}

fn holds(what: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if what { Ok(()) } else { Err(otherwise()) }
}

impl Standing {
    /// A thread that nothing has happened on: its default receiver is active.
    pub(super) fn new(default_receiver: &str) -> Self {
        let (active, state) = (default_receiver.to_owned(), "none".to_owned());
        Self { active, epoch: 1, offer: None, state, conversation: 0, last_message: 0 }
    }

    fn is_open(&self) -> bool {
        !matches!(&*self.state, "none" | "complete")
    }

    /// Takes the next entry, unless it cannot follow.
    pub(super) fn take(&mut self, entry: &Entry) -> Result<(), String> {
        let moves = matches!(&entry.fact, Fact::Control { action, .. } if action == "pass" || action == "take");
        let epoch = self.epoch + u64::from(moves);
        holds(entry.epoch == epoch, || format!("the epoch ought to be {epoch}"))?;
        match &entry.fact {
            Fact::Message { id, active, .. } => {
                holds(*active == self.active, || format!("{} is active, not {active}", self.active))?;
                holds(*id > self.last_message, || "its message id is not above the one before".to_owned())?;
                self.last_message = *id;
            }
            Fact::State { from, to } => {
                holds(*from == self.state, || format!("the state was {}", self.state))?;
                let opens = u64::from(!self.is_open());
                let conversation = self.conversation + opens;
                holds(entry.conversation == conversation, || format!("this is conversation {conversation}"))?;
                (self.state, self.conversation) = (to.clone(), conversation);
            }
            Fact::Control { action, cause, from, to, offer_id, .. } => {
                self.control(action, cause, (from, to), offer_id.as_deref())?;
            }
            Fact::Event => {}
        }
        Ok(())
    }

    fn control(
        &mut self,
        action: &str,
        cause: &str,
        (from, to): (&str, &str),
        offer_id: Option<&str>,
    ) -> Result<(), String> {
        match action {
            "pass" | "take" => {
                holds(from == self.active && to != from, || format!("{} is active", self.active))?;
                let fulfilled = self.offer.take_if(|offer| cause == "accept" && offer.to == to).is_some();
                holds(fulfilled == (cause == "accept"), || "no such offer was pending".to_owned())?;
                holds(self.offer.is_none(), || "the pending offer ought to have ended before".to_owned())?;
                (self.active, self.epoch) = (to.to_owned(), self.epoch + 1);
            }
            "offer" => {
                holds(self.offer.is_none(), || "an offer was pending already".to_owned())?;
                holds(to != self.active, || "it is offered to its holder".to_owned())?;
                let id = offer_id.ok_or("an offer without an id")?.to_owned();
                self.offer = Some(Offer { id, to: to.to_owned() });
            }
            // A request's expiry has no offer.
            "decline" | "expire" if offer_id.is_some() => {
                let ended = self.offer.take().filter(|offer| Some(&*offer.id) == offer_id && offer.to == to);
                holds(ended.is_some(), || "no such offer was pending".to_owned())?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether this call may have brought about this entry, as the first of its commit that tells of it, here.
    pub(super) fn allows(&self, call: &Call, entry: &Entry) -> Result<(), String> {
        let by = call.by.as_deref();
        holds(call.epoch.is_none_or(|epoch| epoch == self.epoch), || format!("the epoch was {}", self.epoch))?;
        let holder = || holds(by == Some(&*self.active), || format!("{} was active", self.active));
        match (&call.wish, &entry.fact) {
            (Wish::Say, Fact::Message { sender, .. }) => holds(sender == "ceu", || format!("said by {sender}")),
            (Wish::Send, Fact::Message { sender, .. }) => {
                holds(sender == "aeu", || format!("said by {sender}"))?;
                holder()
            }
            (Wish::Control { op, to, offer_id }, Fact::Control { action, cause, to: went, by: did, .. }) => {
                holds(did.as_deref() == by, || format!("done by {did:?}"))?;
                holds(cause == op, || format!("done as {cause}"))?;
                let expected = match *op {
                    "take" => "take",
                    "offer" => "offer",
                    "decline" => "decline",
                    _ => "pass",
                };
                holds(action == expected, || format!("it shows as {action}"))?;
                let target = if matches!(*op, "take" | "accept" | "decline") { by } else { to.as_deref() };
                holds(target.is_none_or(|target| target == went), || format!("it went to {went}"))?;
                match *op {
                    "accept" | "decline" => {
                        let offered = self.offer.as_ref().filter(|offer| Some(&*offer.to) == by);
                        let fits = offered.is_some_and(|offer| offer_id.as_ref().is_none_or(|id| *id == offer.id));
                        holds(fits, || "no such offer was pending".to_owned())
                    }
                    "take" => Ok(()),
                    _ => holder(),
                }
            }
            _ => Err("it shows as something else".to_owned()),
        }
    }

    /// Whether this can have been told of the thread as it stands here, to somebody whose call changed nothing.
    pub(super) fn explains(&self, call: &Call, sequence: u64) -> bool {
        let by = call.by.as_deref();
        let holder = |active: &str, epoch: u64| active == self.active && epoch == self.epoch;
        match &call.told {
            Told::Stands { sequence: seen, state, active, epoch, pending } => {
                let offered = self.offer.as_ref().map(|offer| &offer.to);
                *seen == sequence && holder(active, *epoch) && *state == self.state && pending.as_ref() == offered
            }
            // Moving control to its holder changes nothing.
            Told::Holds { active, epoch, offer_id: None } => {
                let Wish::Control { op, to, .. } = &call.wish else { return false };
                let meant = if *op == "take" { by } else { to.as_deref() };
                let idle = matches!(*op, "take" | "pass" | "offer" | "release");
                idle && self.is_open() && holder(active, *epoch) && meant.is_none_or(|to| to == active)
            }
            Told::Refused { code, holder: Some((active, epoch)) } => {
                let true_here = match &**code {
                    "not_active" => by != Some(&*self.active),
                    "stale_epoch" => call.epoch.is_some_and(|given| given != self.epoch),
                    "invalid_state" => !self.is_open(),
                    "offer_pending" => self.offer.is_some(),
                    "no_offer" => {
                        let Wish::Control { offer_id, .. } = &call.wish else { return false };
                        let fits = |offer: &Offer| offer_id.as_ref().is_none_or(|id| *id == offer.id);
                        !self.offer.as_ref().is_some_and(|offer| Some(&*offer.to) == by && fits(offer))
                    }
                    _ => false,
                };
                true_here && holder(active, *epoch)
            }
            _ => false,
        }
    }
}
