//! A transition in the making: every rule that holds whatever the command is written here once.

use crate::{
    Agent, Cause, ChannelEvent, Completion, Context, ControlAction, ControlChange, Effect, Entry, Fact, Handoff, Json,
    Message, Phase, ReceiverId, ReceiverKind, Refusal, Reply, State, StateChange, Thread, Topic, Transition,
    thread::{Held, Step},
};

/// How many control changes a thread remembers to explain itself.
const HISTORY: usize = 10;

pub(crate) struct Change<'a> {
    pub(crate) thread: Thread,
    pub(crate) ctx: Context<'a>,
    entries: Vec<Entry>,
    effects: Vec<Effect>,
}

/// A move of control.
pub(crate) struct Move<'m> {
    pub(crate) to: &'m ReceiverId,
    pub(crate) action: ControlAction,
    pub(crate) cause: Cause,
    pub(crate) by: Option<&'m ReceiverId>,
    pub(crate) metadata: Option<&'m Json>,
    /// Who had the conversation before, if this move is a hand-off that the new holder has yet to answer.
    pub(crate) handoff: Option<Vec<ReceiverId>>,
}

/// The end of a conversation.
pub(crate) struct End<'m> {
    pub(crate) completion: Completion,
    pub(crate) cause: Cause,
    pub(crate) by: Option<&'m ReceiverId>,
    pub(crate) metadata: Option<&'m Json>,
    /// Whether control stays where it is, instead of going back to the default receiver.
    pub(crate) stays: bool,
}

impl<'a> Change<'a> {
    pub(crate) fn of(thread: &Thread, ctx: Context<'a>) -> Self {
        Self { thread: thread.clone(), ctx, entries: Vec::new(), effects: Vec::new() }
    }

    pub(crate) fn done(self, reply: Reply) -> Transition {
        Transition { thread: self.thread, entries: self.entries, effects: self.effects, reply }
    }

    pub(crate) fn active(&self) -> &ReceiverId {
        &self.thread.control.active
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.thread.control.epoch
    }

    pub(crate) fn state(&self) -> State {
        self.thread.phase.state()
    }

    pub(crate) fn active_kind(&self) -> Option<ReceiverKind> {
        self.ctx.policy.kind(self.active())
    }

    // ---- what a command must meet ----

    pub(crate) fn require_receiver(&self, by: &ReceiverId) -> Result<ReceiverKind, Refusal> {
        self.ctx.policy.kind(by).ok_or_else(|| Refusal::NotAReceiver(by.clone()))
    }

    pub(crate) fn require_active(&self, by: &ReceiverId) -> Result<(), Refusal> {
        if self.active() == by {
            return Ok(());
        }
        Err(Refusal::NotActive { by: by.clone(), active: self.active().clone(), epoch: self.epoch() })
    }

    pub(crate) fn require_epoch(&self, given: Option<u64>) -> Result<(), Refusal> {
        match given {
            Some(given) if given != self.epoch() => {
                Err(Refusal::StaleEpoch { given, active: self.active().clone(), epoch: self.epoch() })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn require_state(&self, what: &'static str, fits: impl Fn(State) -> bool) -> Result<(), Refusal> {
        let state = self.state();
        if fits(state) {
            return Ok(());
        }
        Err(Refusal::InvalidState { what, state, active: self.active().clone(), epoch: self.epoch() })
    }

    // ---- what happens ----

    /// Appends an entry; returns its index.
    fn record(&mut self, fact: Fact) -> usize {
        let thread = &mut self.thread;
        thread.sequence += 1;
        thread.last_entry_at = thread.last_entry_at.max(self.ctx.now);
        self.entries.push(Entry {
            sequence: thread.sequence,
            conversation: thread.conversation,
            at: thread.last_entry_at,
            control_epoch: thread.control.epoch,
            active: thread.control.active.clone(),
            fact,
        });
        self.entries.len() - 1
    }

    /// Tells a receiver, unless the client no longer has it: an offerer may be removed before its offer expires.
    fn tell(&mut self, to: &ReceiverId, topic: Topic, entry: usize) {
        if self.ctx.policy.receiver(to).is_none() {
            return;
        }
        let answers_handoff = self.answers_handoff(to);
        self.effects.push(Effect::Hook { to: to.clone(), topic, entry, answers_handoff });
    }

    fn tell_all(&mut self, topic: Topic, entry: usize, but: Option<&ReceiverId>) {
        let policy = self.ctx.policy;
        for receiver in policy.receivers.iter().filter(|r| Some(&r.id) != but) {
            self.tell(&receiver.id, topic, entry);
        }
    }

    fn tell_channel(&mut self, event: ChannelEvent, entry: usize) {
        self.effects.push(Effect::Channel { event, entry });
    }

    /// The epoch of the hand-off that a 2xx of this receiver answers, if it answers one.
    pub(crate) fn answers_handoff(&self, to: &ReceiverId) -> Option<u64> {
        let waits = self.thread.control.handoff.is_some() && self.active() == to;
        let enough = self.ctx.policy.receiver(to).is_some_and(|r| !r.requires_received);
        (waits && enough).then_some(self.epoch())
    }

    /// A message enters the thread.
    pub(crate) fn say(&mut self, message: Message) -> usize {
        let (to_customer, by) = (message.sender.reaches_customer(), message.by.clone());
        let entry = self.record(Fact::Message(message));
        self.thread.last_message_at = self.thread.last_entry_at;
        self.thread.last_message = self.thread.sequence;
        let policy = self.ctx.policy;
        for receiver in &policy.receivers {
            let listens = !receiver.only_while_active || receiver.id == *self.active();
            if Some(&receiver.id) != by.as_ref() && listens {
                self.tell(&receiver.id, Topic::MessageReceive, entry);
            }
        }
        if to_customer {
            self.tell_channel(ChannelEvent::Message, entry);
        } else if self.active_kind() == Some(ReceiverKind::Iva) {
            self.effects.push(Effect::IvaTurn { entry });
        }
        entry
    }

    /// Something is reported; the agent side's reports go to every other receiver, the rest stands in the thread only.
    pub(crate) fn report(&mut self, event: crate::Event) -> usize {
        let told = match &event {
            crate::Event::Agent { topic, by, .. } => Some((*topic, by.clone())),
            crate::Event::Iva { .. } | crate::Event::Feedback(_) => None,
        };
        let entry = self.record(Fact::Event(event));
        if let Some((topic, by)) = told {
            self.tell_all(topic, entry, Some(&by));
        }
        entry
    }

    /// The conversation enters a state.
    pub(crate) fn enter(&mut self, phase: Phase, mut change: StateChange) -> usize {
        change.from = self.state();
        change.to = phase.state();
        if change.agent.is_none() {
            change.agent = phase.agent().cloned();
        }
        let topic = change.to.topic();
        self.thread.phase = phase;
        let entry = self.record(Fact::State(change));
        if let Some(topic) = topic {
            self.tell_all(topic, entry, None);
        }
        entry
    }

    /// An agent has the conversation. The customer learns it when nobody, or somebody else, had it before.
    pub(crate) fn pin(&mut self, cause: Cause, by: Option<&ReceiverId>, agent: Option<&Agent>) {
        let known = self.thread.phase.agent().cloned().unwrap_or_default();
        let was = self.state();
        let agent = agent.cloned().unwrap_or_else(|| known.clone());
        let entered = was == State::Incomplete || (cause == Cause::Allocated && agent != known);
        let entry = self.enter(Phase::Pinned { agent }, state_change(cause, by));
        if entered {
            self.tell_channel(ChannelEvent::ChatPinned, entry);
        }
    }

    /// Another agent has the conversation, which is pinned already.
    pub(crate) fn reallocate(&mut self, agent: &Agent, entry: usize) {
        if let Phase::Pinned { agent: known } = &mut self.thread.phase
            && known != agent
        {
            *known = agent.clone();
            self.tell_channel(ChannelEvent::ChatPinned, entry);
        }
    }

    /// Something happens to control that is not a move.
    pub(crate) fn note_control(&mut self, change: ControlChange, tell: &[&ReceiverId]) -> usize {
        let topic = change.action.topic();
        let step = step(&change);
        let entry = self.record(Fact::Control(change));
        self.remember(step);
        for to in tell {
            self.tell(to, topic, entry);
        }
        entry
    }

    fn remember(&mut self, mut step: Step) {
        step.sequence = self.thread.sequence;
        step.at = self.thread.last_entry_at;
        step.epoch = self.epoch();
        self.thread.history.push_back(step);
        while self.thread.history.len() > HISTORY {
            self.thread.history.pop_front();
        }
    }

    /// Control moves. Offers and requests end, but for the one that this move fulfils.
    pub(crate) fn give(&mut self, to_be: Move<'_>) {
        let Move { to, action, cause, by, metadata, handoff } = to_be;
        self.end_wishes(Cause::ControlMoved, cause, to);
        self.thread.countdown = None;
        let from = self.active().clone();
        let sequence = self.thread.sequence;
        self.thread.held.entry(from.clone()).or_default().through = sequence;

        let control = &mut self.thread.control;
        control.active = to.clone();
        control.epoch += 1;
        let is_ect = self.ctx.policy.kind(to) == Some(ReceiverKind::Ect);
        control.handoff = match handoff {
            Some(tried) if is_ect && self.ctx.policy.handoff_timeout_ms > 0 => {
                Some(Handoff { deadline: self.ctx.now.plus(self.ctx.policy.handoff_timeout_ms), tried })
            }
            _ => None,
        };
        let change = ControlChange {
            action,
            from,
            to: to.clone(),
            cause,
            by: by.cloned(),
            offer_id: None,
            deadline: None,
            metadata: metadata.cloned(),
        };
        let topic = action.topic();
        let step = step(&change);
        let entry = self.record(Fact::Control(change));
        self.remember(step);
        if self.state().is_open() {
            self.hold();
            self.catch_up(to);
        }
        self.tell_all(topic, entry, None);
    }

    /// The active receiver holds the present conversation.
    fn hold(&mut self) {
        let conversation = self.thread.conversation;
        let held: &mut Held = self.thread.held.entry(self.thread.control.active.clone()).or_default();
        match held.conversations.last_mut() {
            Some((_, last)) if *last == conversation => {}
            Some((_, last)) if *last + 1 == conversation => *last = conversation,
            _ => held.conversations.push((conversation, conversation)),
        }
    }

    /// A receiver that listens only while active gets what the conversation said before.
    fn catch_up(&mut self, to: &ReceiverId) {
        if !self.ctx.policy.receiver(to).is_some_and(|r| r.only_while_active) {
            return;
        }
        let sent = self.thread.held.get(to).map_or(0, |h| h.through);
        let after = sent.max(self.thread.opened_after);
        let through = self.thread.last_message;
        if through > after {
            let answers_handoff = self.answers_handoff(to);
            self.effects.push(Effect::History { to: to.clone(), after, through, answers_handoff });
        }
    }

    /// Ends what is pending, but for what the move fulfils: the accepted offer, the request of who now gets control.
    fn end_wishes(&mut self, why: Cause, cause: Cause, to: &ReceiverId) {
        if let Some(offer) = self.thread.control.offer.take()
            && cause != Cause::Accept
        {
            let (from, pending) = (offer.from.clone(), offer.to.clone());
            let change = ControlChange { offer_id: Some(offer.id), ..expiry(why, &from, &pending) };
            self.note_control(change, &both(&from, &pending));
        }
        if let Some(request) = self.thread.control.request.take()
            && (request.from != *to || why == Cause::Completed)
        {
            let asked = self.active().clone();
            self.note_control(expiry(why, &request.from, &asked), &[&request.from]);
        }
    }

    /// A new conversation begins, with whoever is active.
    pub(crate) fn open_conversation(&mut self) {
        self.thread.conversation += 1;
        self.thread.opened_after = self.thread.sequence;
        let policy = self.ctx.policy;
        let active = self.active().clone();
        if !policy.healthy(&active)
            && let Some(stand_in) = policy.fallback.iter().find(|r| **r != active && policy.healthy(r))
        {
            self.give(Move {
                to: stand_in,
                action: ControlAction::Pass,
                cause: Cause::Fallback,
                by: None,
                metadata: None,
                handoff: Some(vec![active]),
            });
        } else if self.active_kind() == Some(ReceiverKind::Ect) && policy.handoff_timeout_ms > 0 {
            let deadline = self.ctx.now.plus(policy.handoff_timeout_ms);
            self.thread.control.handoff = Some(Handoff { deadline, tried: Vec::new() });
        }
        self.hold();
        self.enter(self.phase_of_holder(), state_change(Cause::CeuMessage, None));
    }

    /// The state in which an open conversation begins with whoever is active: `bot` or `incomplete`.
    pub(crate) fn phase_of_holder(&self) -> Phase {
        if self.active_kind() == Some(ReceiverKind::Iva) {
            Phase::Bot { since: self.ctx.now }
        } else {
            Phase::Incomplete
        }
    }

    /// The conversation is over.
    pub(crate) fn complete(&mut self, end: End<'_>) {
        self.end_wishes(Cause::Completed, end.cause, &self.thread.control.active.clone());
        self.thread.control.handoff = None;
        self.thread.countdown = None;
        let details = self.thread.conversation_details(self.ctx.now).cloned();
        self.thread.details = None;
        let agent = self.thread.phase.agent().cloned();
        let change = StateChange {
            completion: Some(end.completion),
            agent,
            metadata: end.metadata.cloned(),
            details,
            ..state_change(end.cause, end.by)
        };
        let entry = self.enter(Phase::Complete, change);
        if end.completion == Completion::Agent {
            self.tell_channel(ChannelEvent::ChatComplete, entry);
        }
        self.tell_channel(ChannelEvent::WebhookConversationComplete, entry);
        let default = &self.ctx.policy.default_receiver;
        if !end.stays && self.active() != default {
            self.give(Move {
                to: default,
                action: ControlAction::Pass,
                cause: Cause::ReturnToDefault,
                by: None,
                metadata: None,
                handoff: None,
            });
        }
    }
}

/// A change of state, to be completed by [`Change::enter`].
pub(crate) fn state_change(cause: Cause, by: Option<&ReceiverId>) -> StateChange {
    StateChange {
        from: State::None,
        to: State::None,
        cause,
        by: by.cloned(),
        completion: None,
        agent: None,
        metadata: None,
        details: None,
    }
}

/// An offer or request ended without an answer.
pub(crate) fn expiry(cause: Cause, from: &ReceiverId, to: &ReceiverId) -> ControlChange {
    ControlChange {
        action: ControlAction::Expire,
        from: from.clone(),
        to: to.clone(),
        cause,
        by: None,
        offer_id: None,
        deadline: None,
        metadata: None,
    }
}

/// Two receivers, once if they are the same.
pub(crate) fn both<'r>(a: &'r ReceiverId, b: &'r ReceiverId) -> Vec<&'r ReceiverId> {
    if a == b { vec![a] } else { vec![a, b] }
}

fn step(change: &ControlChange) -> Step {
    Step {
        sequence: 0,
        at: crate::Timestamp::default(),
        action: change.action,
        from: change.from.clone(),
        to: change.to.clone(),
        cause: change.cause,
        by: change.by.clone(),
        epoch: 0,
    }
}
