//! A thread on a stage: one builder, and verbs that read like a scenario.

use tract_domain::{
    Agent, AgentEvent, Body, Cause, ChannelEvent, Command, Context, ControlAction, ControlOp, ControlRequest, Effect,
    Entry, Fact, IvaAnswer, Message, Policy, Receiver, ReceiverId, ReceiverKind, Refusal, Reply, Sender, State,
    StateChange, Thread, Timestamp, Topic, Transition, Turn,
};

pub(crate) const IVA: &str = "iva";
pub(crate) const SAC: &str = "sac";
/// An agent tool with the default settings.
pub(crate) const PLAIN: &str = "plain";
/// An agent tool that may do everything.
pub(crate) const FREE: &str = "free";
/// An agent tool that must say `received`, and reads along only while it is active.
pub(crate) const STRICT: &str = "strict";

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const HANDOFF: u64 = 120 * SECOND;
pub(crate) const IDLE: u64 = 480 * SECOND;
pub(crate) const WISH: u64 = 60 * SECOND;

pub(crate) fn id(name: &str) -> ReceiverId {
    ReceiverId::new(name).unwrap()
}

pub(crate) fn body(text: &str) -> Body {
    Body(text.into())
}

pub(crate) fn agent(name: &str) -> Agent {
    Agent { name: Some(name.to_owned()), ..Agent::default() }
}

pub(crate) fn op(by: &str, op: ControlOp, to: Option<&str>) -> ControlRequest {
    let receiver = to.map(id);
    ControlRequest { by: id(by), op, receiver, control_epoch: None, deadline_ms: None, offer_id: None, metadata: None }
}

fn receiver(name: &str, kind: ReceiverKind) -> Receiver {
    Receiver {
        id: id(name),
        kind,
        name: name.to_owned(),
        healthy: true,
        may_take: false,
        may_request: false,
        may_pass_to_any: false,
        requires_received: false,
        only_while_active: false,
    }
}

/// IVA (default), SAC, and three agent tools; hand-offs go to `plain`, and there is no fallback.
pub(crate) fn policy() -> Policy {
    let free =
        Receiver { may_take: true, may_request: true, may_pass_to_any: true, ..receiver(FREE, ReceiverKind::Ect) };
    let strict = Receiver { requires_received: true, only_while_active: true, ..receiver(STRICT, ReceiverKind::Ect) };
    Policy {
        receivers: vec![
            receiver(IVA, ReceiverKind::Iva),
            receiver(SAC, ReceiverKind::Sac),
            receiver(PLAIN, ReceiverKind::Ect),
            free,
            strict,
        ],
        default_receiver: id(IVA),
        handoff_receiver: Some(id(PLAIN)),
        fallback: Vec::new(),
        handoff_timeout_ms: HANDOFF,
        idle_timeout_ms: IDLE,
        human_assistance: true,
        bot_break_message: body("sorry"),
    }
}

/// One thread, its configuration and its clock. `entries` and `effects` are those of the last verb.
pub(crate) struct Scene {
    pub(crate) policy: Policy,
    pub(crate) thread: Thread,
    pub(crate) now: Timestamp,
    pub(crate) entries: Vec<Entry>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) reply: Reply,
}

impl Scene {
    /// A new thread.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }
    /// A new thread with another configuration.
    pub(crate) fn with(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = policy();
        change(&mut policy);
        let thread = Thread::open(&policy);
        let now = Timestamp(1_700_000_000_000);
        Self { policy, thread, now, entries: Vec::new(), effects: Vec::new(), reply: Reply::Done }
    }
    /// A thread in this state, held by this receiver, with nothing pending. (IVA holds none, bot and complete.)
    pub(crate) fn at(state: State, holder: &str) -> Self {
        Self::new().brought_to(state, holder)
    }
    pub(crate) fn brought_to(mut self, state: State, holder: &str) -> Self {
        if state == State::None {
            return self;
        }
        self.ceu("hello");
        if state == State::Complete {
            self.event(holder, AgentEvent::Complete).unwrap();
        } else if state != State::Bot {
            self.pass(SAC, holder).unwrap();
            self.event(holder, AgentEvent::Received).unwrap();
        }
        if matches!(state, State::Pinned | State::Waiting) {
            self.event(holder, AgentEvent::Allocated).unwrap();
        }
        if state == State::Waiting {
            self.event(holder, AgentEvent::Waiting).unwrap();
        }
        assert_eq!((self.state(), self.active()), (state, holder), "the stage is set");
        self
    }
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy);
    }
    pub(crate) fn set(&mut self, name: &str, change: impl FnOnce(&mut Receiver)) {
        change(self.policy.receivers.iter_mut().find(|r| r.id == id(name)).unwrap());
    }
    pub(crate) fn unhealthy(&mut self, name: &str) {
        self.set(name, |r| r.healthy = false);
    }

    // ---- verbs ----

    /// Decides a command as the shell does: what is due comes first.
    pub(crate) fn decide(&mut self, command: &Command) -> Result<(), Refusal> {
        self.settle();
        let ctx = Context { now: self.now, policy: &self.policy };
        let done = self.thread.decide(command, ctx)?;
        self.take_over(done);
        Ok(())
    }
    fn settle(&mut self) -> bool {
        let ctx = Context { now: self.now, policy: &self.policy };
        let Some(done) = self.thread.settle(ctx) else { return false };
        self.take_over(done);
        true
    }
    fn take_over(&mut self, done: Transition) {
        Transition { thread: self.thread, entries: self.entries, effects: self.effects, reply: self.reply } = done;
    }
    /// Time passes, and what became due happens; false if nothing did.
    pub(crate) fn wait(&mut self, ms: u64) -> bool {
        self.now = self.now.plus(ms);
        self.settle()
    }
    pub(crate) fn ceu(&mut self, text: &str) {
        self.decide(&Command::Ceu { body: body(text), metadata: None }).unwrap();
    }
    pub(crate) fn send(&mut self, by: &str, sender: Sender) -> Result<(), Refusal> {
        self.send_at(by, sender, None)
    }
    pub(crate) fn send_at(&mut self, by: &str, sender: Sender, control_epoch: Option<u64>) -> Result<(), Refusal> {
        let (by, body) = (id(by), body("said"));
        self.decide(&Command::Send { by, sender, body, metadata: None, agent: None, control_epoch })
    }
    pub(crate) fn event(&mut self, by: &str, event: AgentEvent) -> Result<(), Refusal> {
        self.decide(&Command::Event { by: id(by), event, agent: None, metadata: None })
    }
    pub(crate) fn allocate(&mut self, by: &str, name: &str) {
        let (event, agent) = (AgentEvent::Allocated, Some(agent(name)));
        self.decide(&Command::Event { by: id(by), event, agent, metadata: None }).unwrap();
    }
    pub(crate) fn operate(&mut self, request: ControlRequest) -> Result<(), Refusal> {
        self.decide(&Command::Control(request))
    }
    pub(crate) fn pass(&mut self, by: &str, to: &str) -> Result<(), Refusal> {
        self.operate(op(by, ControlOp::Pass, Some(to)))
    }
    pub(crate) fn answered_2xx(&mut self, by: &str) {
        let epoch = self.epoch();
        self.decide(&Command::HandoffAnswered { by: id(by), epoch }).unwrap();
    }
    pub(crate) fn turn(&self) -> Turn {
        let (message, conversation) = (self.thread.sequence(), self.thread.conversation());
        Turn { message, conversation, epoch: self.epoch() }
    }
    pub(crate) fn iva(&mut self, turn: Turn, answer: IvaAnswer) {
        self.decide(&Command::IvaAnswered { turn, answer }).unwrap();
    }
    pub(crate) fn breaks(&mut self, turn: Turn) {
        self.decide(&Command::IvaBroke { turn, reason: "timeout".to_owned() }).unwrap();
    }

    // ---- what is to be seen ----

    pub(crate) fn state(&self) -> State {
        self.thread.state()
    }
    pub(crate) fn active(&self) -> &str {
        self.thread.control().active.as_str()
    }
    pub(crate) fn epoch(&self) -> u64 {
        self.thread.control().epoch
    }
    /// State, holder and conversation in one.
    pub(crate) fn stands(&self) -> (State, &str, u64) {
        (self.state(), self.active(), self.thread.conversation())
    }
    pub(crate) fn offer_id(&self) -> Option<String> {
        self.thread.control().offer.as_ref().map(|o| o.id.clone())
    }
    pub(crate) fn offered_to(&self) -> Option<&str> {
        self.thread.control().offer.as_ref().map(|o| o.to.as_str())
    }
    pub(crate) fn requested_by(&self) -> Option<&str> {
        self.thread.control().request.as_ref().map(|r| r.from.as_str())
    }
    pub(crate) fn awaits_handoff(&self) -> bool {
        self.thread.control().handoff.is_some()
    }
    /// Who was told of this topic by the last verb, in order.
    pub(crate) fn told(&self, wanted: Topic) -> Vec<&str> {
        let to = |e| match e {
            &Effect::Hook { ref to, topic, .. } if topic == wanted => Some(to.as_str()),
            _ => None,
        };
        self.effects.iter().filter_map(to).collect()
    }
    /// What the channel was told by the last verb, in order.
    pub(crate) fn channel(&self) -> Vec<ChannelEvent> {
        let event = |e: &Effect| if let Effect::Channel { event, .. } = e { Some(*event) } else { None };
        self.effects.iter().filter_map(event).collect()
    }
    pub(crate) fn iva_turns(&self) -> usize {
        self.effects.iter().filter(|e| matches!(e, Effect::IvaTurn { .. })).count()
    }
    /// The ranges that this receiver was sent by the last verb.
    pub(crate) fn histories(&self, whose: &str) -> Vec<(u64, u64)> {
        let range = |e: &Effect| match e {
            Effect::History { to, after, through, .. } if to.as_str() == whose => Some((*after, *through)),
            _ => None,
        };
        self.effects.iter().filter_map(range).collect()
    }
    /// The control changes of the last verb.
    pub(crate) fn controls(&self) -> Vec<(ControlAction, Cause)> {
        let change = |e: &Entry| if let Fact::Control(c) = &e.fact { Some((c.action, c.cause)) } else { None };
        self.entries.iter().filter_map(change).collect()
    }
    pub(crate) fn state_changes(&self) -> Vec<&StateChange> {
        self.entries.iter().filter_map(|e| if let Fact::State(s) = &e.fact { Some(s) } else { None }).collect()
    }
    pub(crate) fn messages(&self) -> Vec<&Message> {
        self.entries.iter().filter_map(|e| if let Fact::Message(m) = &e.fact { Some(m) } else { None }).collect()
    }
}

/// The code of a refusal, or "ok".
pub(crate) fn code(result: &Result<(), Refusal>) -> &'static str {
    result.as_ref().map_or_else(Refusal::code, |()| "ok")
}
