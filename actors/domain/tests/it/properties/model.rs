//! A second, flat reading of sections 7 and 9, independent of the domain's code: who holds the thread, in which state,
//! what is pending until when, and which refusal is due. It knows nothing of entries and effects.

use tract_domain::{
    AgentEvent, Command, ControlOp, ControlRequest, DeadlineKind, Policy, ReceiverId, ReceiverKind, Sender, State,
    Thread, Timestamp, Turn,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    active: ReceiverId,
    epoch: u64,
    state: State,
    conversation: u64,
    offer: Option<Offer>,
    request: Option<(ReceiverId, Timestamp)>,
    handoff: Option<(Timestamp, Vec<ReceiverId>)>,
    countdown: Option<Timestamp>,
    since: Timestamp,
    spoke: Timestamp,
    judged: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    from: ReceiverId,
    to: ReceiverId,
    deadline: Timestamp,
    window: u64,
    tried: Vec<ReceiverId>,
}

/// What a decision depends on besides the command.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) now: Timestamp,
    /// The time of the thread's last entry: the next one is not earlier.
    pub(crate) last_entry: Timestamp,
    /// Offer ids are opaque: the model takes the present one as given.
    pub(crate) offer_id: Option<&'a str>,
}

type Outcome = Result<(), &'static str>;

impl Model {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self {
            active: policy.default_receiver.clone(),
            epoch: 1,
            state: State::None,
            conversation: 0,
            offer: None,
            request: None,
            handoff: None,
            countdown: None,
            since: Timestamp(0),
            spoke: Timestamp(0),
            judged: None,
        }
    }

    /// Whether the thread stands where the model says.
    pub(crate) fn assert_matches(&self, thread: &Thread, policy: &Policy) {
        let control = thread.control();
        assert_eq!(control.active, self.active, "who is active");
        assert_eq!(thread.state(), self.state, "the state");
        assert_eq!((control.epoch, thread.conversation()), (self.epoch, self.conversation), "epoch, conversation");
        let offer = control.offer.as_ref().map(|o| (&o.from, &o.to));
        assert_eq!(offer, self.offer.as_ref().map(|o| (&o.from, &o.to)), "the pending offer");
        let request = control.request.as_ref().map(|r| &r.from);
        assert_eq!(request, self.request.as_ref().map(|(from, _)| from), "the pending request");
        assert_eq!(thread.deadlines(policy), self.deadlines(policy), "the deadlines");
    }

    fn deadlines(&self, policy: &Policy) -> Vec<(DeadlineKind, Timestamp)> {
        let idle = matches!(self.state, State::Bot | State::Waiting) && policy.idle_timeout_ms > 0;
        let idle = idle.then(|| self.since.max(self.spoke).plus(policy.idle_timeout_ms));
        [
            (DeadlineKind::Handoff, self.handoff.as_ref().map(|h| h.0)),
            (DeadlineKind::Offer, self.offer.as_ref().map(|o| o.deadline)),
            (DeadlineKind::Request, self.request.as_ref().map(|r| r.1)),
            (DeadlineKind::Countdown, self.countdown),
            (DeadlineKind::Idle, idle),
        ]
        .into_iter()
        .filter_map(|(kind, at)| at.map(|at| (kind, at)))
        .collect()
    }

    /// Time and configuration; whether anything happened.
    pub(crate) fn settle(&mut self, given: Given<'_>) -> bool {
        let policy = given.policy;
        let mut happened = false;
        if policy.receiver(&self.active).is_none() {
            let gone = self.active.clone();
            self.moves(&policy.default_receiver);
            if self.open() {
                self.enter_with_holder(given);
                self.awaits_answer(given, vec![gone]);
            }
            happened = true;
        }
        loop {
            let due = self.deadlines(policy).into_iter().filter(|(_, at)| *at <= given.now);
            let Some((kind, _)) = due.min_by_key(|(kind, at)| (*at, *kind)) else { return happened };
            happened = true;
            match kind {
                DeadlineKind::Handoff => self.handoff_unanswered(given),
                DeadlineKind::Offer => self.offer_goes_on(policy, given.now),
                DeadlineKind::Request => self.request = None,
                DeadlineKind::Countdown => {
                    self.countdown = None;
                    self.hand_to_agent(given, None);
                }
                DeadlineKind::Idle => self.complete(policy, false),
            }
        }
    }

    pub(crate) fn decide(&mut self, command: &Command, given: Given<'_>) -> Outcome {
        match command {
            Command::Ceu { .. } => self.customer_writes(given),
            Command::Send { by, sender, control_epoch, .. } => {
                let fits = match kind(given.policy, by)? {
                    ReceiverKind::Iva => *sender == Sender::Iva,
                    ReceiverKind::Sac | ReceiverKind::Ect => matches!(sender, Sender::Aeu | Sender::Ect),
                };
                refuse_unless(fits, "sender_not_allowed")?;
                refuse_unless(*by == self.active, "not_active")?;
                self.epoch_fits(*control_epoch)?;
                self.handoff = None;
                self.speaks(given);
                if *sender == Sender::Aeu && matches!(self.state, State::Incomplete | State::Waiting) {
                    self.state = State::Pinned;
                }
            }
            Command::Event { by, event, .. } => self.reported(by, *event, given)?,
            Command::Control(request) => self.operate(request, given)?,
            Command::HandoffAnswered { by, epoch } => {
                let needs_more = given.policy.receiver(by).is_none_or(|r| r.requires_received);
                if *by == self.active && *epoch == self.epoch && !needs_more {
                    self.handoff = None;
                }
            }
            Command::IvaDeferred { .. } => {}
            Command::IvaBroke { turn, .. } => {
                if self.is_current(*turn, given)
                    && self.state == State::Bot
                    && !(given.policy.human_assistance && self.hand_to_agent(given, None))
                {
                    self.speaks(given);
                }
            }
            Command::IvaAnswered { turn, answer } => {
                if !self.is_current(*turn, given) {
                    return Ok(());
                }
                if !answer.messages.is_empty() {
                    self.speaks(given);
                }
                if self.state != State::Bot {
                    return Ok(());
                }
                if let Some(wanted) = &answer.handoff {
                    if !self.hand_to_agent(given, Some(wanted)) {
                        self.speaks(given);
                    }
                } else if answer.complete {
                    self.complete(given.policy, false);
                }
            }
            Command::Feedback(_) => {
                refuse_unless(self.state != State::None, "no_conversation")?;
                let again = self.judged.is_some_and(|at| given.now.0 - at.0 < 3_600_000);
                refuse_unless(!again, "duplicate_feedback")?;
                self.judged = Some(given.now);
            }
            Command::Drain { from, to } => {
                refuse_unless(given.policy.receiver(to).is_some(), "unknown_receiver")?;
                if *to != self.active {
                    refuse_unless(*from == self.active, "receiver_not_active")?;
                    refuse_unless(given.policy.healthy(to), "receiver_unavailable")?;
                    self.moves(to);
                    if self.open() {
                        self.enter_with_holder(given);
                        self.awaits_answer(given, Vec::new());
                    }
                }
            }
            Command::SendToAgent { countdown_ms, .. } => {
                refuse_unless(self.open(), "invalid_state")?;
                if self.state == State::Bot {
                    self.countdown = Some(given.now.plus(*countdown_ms));
                }
            }
        }
        Ok(())
    }

    fn customer_writes(&mut self, given: Given<'_>) {
        if !self.open() {
            let policy = given.policy;
            self.conversation += 1;
            let holder = self.active.clone();
            let stand_in = policy.fallback.iter().find(|r| policy.healthy(r) && **r != holder);
            match stand_in {
                Some(stand_in) if !policy.healthy(&holder) => {
                    self.moves(stand_in);
                    self.awaits_answer(given, vec![holder]);
                }
                _ => self.awaits_answer(given, Vec::new()),
            }
            self.enter_with_holder(given);
        }
        self.speaks(given);
        if self.state == State::Waiting {
            self.state = State::Pinned;
        }
    }

    fn reported(&mut self, by: &ReceiverId, event: AgentEvent, given: Given<'_>) -> Outcome {
        kind(given.policy, by)?;
        refuse_unless(*by == self.active, "not_active")?;
        let fits =
            self.open() && (event != AgentEvent::Waiting || matches!(self.state, State::Pinned | State::Waiting));
        refuse_unless(fits, "invalid_state")?;
        match event {
            AgentEvent::Received => self.handoff = None,
            AgentEvent::Allocated => {
                self.handoff = None;
                if matches!(self.state, State::Incomplete | State::Waiting) {
                    self.state = State::Pinned;
                }
            }
            AgentEvent::UserTimeout | AgentEvent::Complete => self.complete(given.policy, false),
            AgentEvent::Waiting if self.state == State::Pinned => {
                (self.state, self.since) = (State::Waiting, given.now);
            }
            AgentEvent::Waiting => {}
        }
        Ok(())
    }

    fn operate(&mut self, request: &ControlRequest, given: Given<'_>) -> Outcome {
        let policy = given.policy;
        let by = &request.by;
        let primary = kind(policy, by)? != ReceiverKind::Ect;
        let settings = policy.receiver(by).ok_or("not_a_receiver")?;
        let to = request.receiver.clone();
        refuse_unless(to.as_ref().is_none_or(|to| policy.receiver(to).is_some()), "unknown_receiver")?;
        let holds = *by == self.active;

        // Who may.
        match request.op {
            ControlOp::Pass | ControlOp::Offer => {
                refuse_unless(primary || holds, "not_active")?;
                let to = to.as_ref().unwrap_or(&self.active);
                let easy = *to == self.active || *to == policy.default_receiver;
                let to_primary = policy.kind(to) != Some(ReceiverKind::Ect);
                refuse_unless(primary || settings.may_pass_to_any || to_primary || easy, "target_not_permitted")?;
            }
            ControlOp::Take => refuse_unless(primary || settings.may_take, "not_permitted")?,
            ControlOp::Request => refuse_unless(primary || settings.may_request, "not_permitted")?,
            ControlOp::Release => refuse_unless(holds, "not_active")?,
            ControlOp::Accept | ControlOp::Decline => {}
        }
        // When.
        self.epoch_fits(request.control_epoch)?;
        refuse_unless(self.open(), "invalid_state")?;
        // What.
        let healthy = |r: &ReceiverId| refuse_unless(policy.healthy(r), "receiver_unavailable");
        match request.op {
            ControlOp::Pass | ControlOp::Take | ControlOp::Release => {
                let to = match request.op {
                    ControlOp::Pass => to.unwrap_or_else(|| self.active.clone()),
                    ControlOp::Take => by.clone(),
                    _ => policy.default_receiver.clone(),
                };
                if to != self.active {
                    healthy(&to)?;
                    self.given_to(&to, request.op != ControlOp::Take, given);
                }
            }
            ControlOp::Offer => {
                let to = to.unwrap_or_else(|| self.active.clone());
                if to != self.active {
                    healthy(&to)?;
                    refuse_unless(self.offer.is_none(), "offer_pending")?;
                    let window = request.deadline_ms.unwrap_or(60_000);
                    let (from, deadline) = (by.clone(), given.now.plus(window));
                    self.offer = Some(Offer { from, to, deadline, window, tried: Vec::new() });
                }
            }
            ControlOp::Request => {
                refuse_unless(to.is_none_or(|to| to == self.active), "receiver_not_active")?;
                if !holds {
                    refuse_unless(self.request.is_none(), "request_pending")?;
                    let deadline = given.now.plus(request.deadline_ms.unwrap_or(60_000));
                    self.request = Some((by.clone(), deadline));
                }
            }
            ControlOp::Accept | ControlOp::Decline => {
                let id_fits = request.offer_id.as_deref().is_none_or(|id| Some(id) == given.offer_id);
                let pending = self.offer.as_ref().is_some_and(|o| o.to == *by) && id_fits;
                refuse_unless(pending, "no_offer")?;
                if request.op == ControlOp::Accept {
                    healthy(by)?;
                    self.given_to(by, false, given);
                } else {
                    self.offer_goes_on(policy, given.now);
                }
            }
        }
        Ok(())
    }

    // ---- the contract's sentences ----

    fn open(&self) -> bool {
        !matches!(self.state, State::None | State::Complete)
    }

    fn epoch_fits(&self, given: Option<u64>) -> Outcome {
        refuse_unless(given.is_none_or(|epoch| epoch == self.epoch), "stale_epoch")
    }

    fn is_current(&self, turn: Turn, given: Given<'_>) -> bool {
        let iva = given.policy.kind(&self.active) == Some(ReceiverKind::Iva);
        iva && turn.conversation == self.conversation && turn.epoch == self.epoch
    }

    fn speaks(&mut self, given: Given<'_>) {
        self.spoke = given.last_entry.max(given.now);
    }

    /// Each change of the active receiver increments the epoch, and ends what is pending.
    fn moves(&mut self, to: &ReceiverId) {
        self.active = to.clone();
        self.epoch += 1;
        (self.offer, self.request, self.handoff, self.countdown) = (None, None, None, None);
    }

    /// `bot` with the IVA, `incomplete` with anybody else.
    fn enter_with_holder(&mut self, given: Given<'_>) {
        let iva = given.policy.kind(&self.active) == Some(ReceiverKind::Iva);
        self.state = if iva { State::Bot } else { State::Incomplete };
        self.since = given.now;
    }

    /// A hand-off is any move to an ECT that it did not itself take or accept, a new conversation included.
    fn awaits_answer(&mut self, given: Given<'_>, tried: Vec<ReceiverId>) {
        let policy = given.policy;
        if policy.kind(&self.active) == Some(ReceiverKind::Ect) && policy.handoff_timeout_ms > 0 {
            self.handoff = Some((given.now.plus(policy.handoff_timeout_ms), tried));
        }
    }

    /// By an operation: the IVA completes the conversation and keeps the thread.
    fn given_to(&mut self, to: &ReceiverId, hand_off: bool, given: Given<'_>) {
        self.moves(to);
        if given.policy.kind(to) == Some(ReceiverKind::Iva) {
            return self.complete(given.policy, true);
        }
        self.enter_with_holder(given);
        if hand_off {
            self.awaits_answer(given, Vec::new());
        }
    }

    /// Every other completion returns control to the default receiver.
    fn complete(&mut self, policy: &Policy, stays: bool) {
        self.state = State::Complete;
        (self.offer, self.request, self.handoff, self.countdown) = (None, None, None, None);
        if !stays && self.active != policy.default_receiver {
            self.moves(&policy.default_receiver);
        }
    }

    fn hand_to_agent(&mut self, given: Given<'_>, wanted: Option<&str>) -> bool {
        let policy = given.policy;
        let wanted = wanted.and_then(|w| ReceiverId::new(w).ok());
        let order = wanted.iter().chain(&policy.handoff_receiver).chain(&policy.fallback);
        let mut takers = order.filter(|r| policy.healthy(r) && policy.kind(r) != Some(ReceiverKind::Iva));
        let Some(to) = takers.next() else { return false };
        self.moves(to);
        self.enter_with_holder(given);
        self.awaits_answer(given, Vec::new());
        true
    }

    fn handoff_unanswered(&mut self, given: Given<'_>) {
        let Some((_, mut tried)) = self.handoff.take() else { return };
        let policy = given.policy;
        let silent = self.active.clone();
        tried.push(silent.clone());
        let next = policy.fallback.iter().find(|r| !tried.contains(r) && policy.healthy(r));
        let to = next.unwrap_or(&policy.default_receiver).clone();
        if to == silent {
            return;
        }
        self.moves(&to);
        self.enter_with_holder(given);
        if !tried.contains(&to) {
            self.awaits_answer(given, tried);
        }
    }

    /// `fallback` in order, without the offerer, those tried and those not healthy.
    fn offer_goes_on(&mut self, policy: &Policy, now: Timestamp) {
        let Some(Offer { from, to, window, mut tried, .. }) = self.offer.take() else { return };
        tried.push(to);
        let fits = |r: &&ReceiverId| **r != from && **r != self.active && !tried.contains(r) && policy.healthy(r);
        if let Some(to) = policy.fallback.iter().find(fits).cloned() {
            self.offer = Some(Offer { from, to, deadline: now.plus(window), window, tried });
        }
    }
}

fn kind(policy: &Policy, by: &ReceiverId) -> Result<ReceiverKind, &'static str> {
    policy.kind(by).ok_or("not_a_receiver")
}

fn refuse_unless(holds: bool, code: &'static str) -> Outcome {
    if holds { Ok(()) } else { Err(code) }
}
