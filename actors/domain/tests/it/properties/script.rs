//! Random histories as data, so that proptest can shrink them: what is asked names parties by their role at that moment.

use proptest::{collection::vec, option, prelude::*, sample::select};
use tract_domain::{AgentEvent, ControlOp, Policy, Receiver, ReceiverId, ReceiverKind, Sender};

/// Everyone who is or could be a receiver; the last never is one.
pub(crate) const ROSTER: [&str; 6] = ["iva", "sac", "ect1", "ect2", "ect3", "ghost"];
const RECEIVERS: usize = ROSTER.len() - 1;

pub(crate) fn id(index: usize) -> ReceiverId {
    ReceiverId::new(ROSTER[index]).unwrap()
}

/// A history: a configuration, and what happens under it.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) setup: Setup,
    pub(crate) steps: Vec<Step>,
}

/// A client's configuration; receivers by their index in the roster.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    settings: Vec<Settings>,
    default: usize,
    handoff: Option<usize>,
    fallback: Vec<usize>,
    handoff_timeout: u64,
    idle_timeout: u64,
    human_assistance: bool,
}

#[derive(Debug, Clone)]
struct Settings {
    present: bool,
    healthy: bool,
    may_take: bool,
    may_request: bool,
    may_pass_to_any: bool,
    requires_received: bool,
    only_while_active: bool,
}

/// Time passes (or goes back), then something happens.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) ms: i64,
    pub(crate) act: Act,
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    Nothing,
    Ceu,
    Send {
        by: Who,
        sender: Option<Sender>,
        epoch: Moment,
        agent: Option<u8>,
    },
    Event {
        by: Who,
        event: AgentEvent,
        agent: Option<u8>,
    },
    Control {
        by: Who,
        op: ControlOp,
        to: Option<Who>,
        epoch: Moment,
        window: Option<u64>,
        offer: OfferId,
    },
    /// The holder offers; or, if there is an offer already, the pending one accepts or declines it.
    Negotiate {
        to: Option<Who>,
        accept: bool,
    },
    HandoffAnswered {
        by: Who,
        epoch: Moment,
    },
    Iva {
        turn: WhichTurn,
        end: TurnEnd,
    },
    SendToAgent {
        countdown: u64,
    },
    Feedback,
    Drain {
        from: Who,
        to: Who,
    },
    Configure(Configure),
}

/// A party, by its role at that moment or by name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who {
    Holder,
    Offered,
    Asking,
    Named(usize),
}

/// Which epoch is given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    Unsaid,
    Present,
    Stale,
}

/// Which offer id is given back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OfferId {
    Unsaid,
    Present,
    Wrong,
}

/// A turn that there was, counted back from the last, or the present moment whoever holds it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WhichTurn {
    Back(usize),
    Present,
}

#[derive(Debug, Clone)]
pub(crate) enum TurnEnd {
    Answered { messages: usize, handoff: Option<usize>, complete: bool, details: bool, fault: bool },
    Deferred,
    Broke,
}

#[derive(Debug, Clone)]
pub(crate) enum Configure {
    Healthy(usize, bool),
    Remove(usize),
    Add(usize),
    Default(usize),
    Handoff(Option<usize>),
    Fallback(Vec<usize>),
    Timeouts(u64, u64),
    HumanAssistance(bool),
}

pub(crate) fn script(steps: usize) -> impl Strategy<Value = Script> {
    (setup(), vec(step(), 0..=2 * steps)).prop_map(|(setup, steps)| Script { setup, steps })
}

fn index() -> impl Strategy<Value = usize> {
    0..RECEIVERS
}

fn fallback() -> impl Strategy<Value = Vec<usize>> {
    vec(index(), 0..=4)
}

fn timeouts() -> impl Strategy<Value = (u64, u64)> {
    (prop_oneof![1 => Just(0), 6 => Just(120_000)], prop_oneof![1 => Just(0), 12 => Just(480_000), 1 => Just(1)])
}

fn settings() -> impl Strategy<Value = Settings> {
    let flag = any::<bool>;
    (prop::bool::weighted(0.95), prop::bool::weighted(0.9), flag(), flag(), flag(), flag(), flag()).prop_map(
        |(present, healthy, may_take, may_request, may_pass_to_any, requires_received, only_while_active)| Settings {
            present,
            healthy,
            may_take,
            may_request,
            may_pass_to_any,
            requires_received,
            only_while_active,
        },
    )
}

fn setup() -> impl Strategy<Value = Setup> {
    let default = prop_oneof![2 => Just(0), 3 => index()];
    let order = (default, option::of(index()), fallback(), timeouts(), prop::bool::weighted(0.7));
    (vec(settings(), RECEIVERS), order).prop_map(
        |(settings, (default, handoff, fallback, timeouts, human_assistance))| {
            let (handoff_timeout, idle_timeout) = timeouts;
            Setup { settings, default, handoff, fallback, handoff_timeout, idle_timeout, human_assistance }
        },
    )
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        12 => Just(Who::Holder),
        1 => Just(Who::Offered),
        1 => Just(Who::Asking),
        9 => index().prop_map(Who::Named),
        1 => (0..ROSTER.len()).prop_map(Who::Named),
    ]
}

fn target() -> impl Strategy<Value = Option<Who>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Who::Holder)),
        1 => Just(Some(Who::Asking)),
        10 => index().prop_map(|i| Some(Who::Named(i))),
        1 => (0..ROSTER.len()).prop_map(|i| Some(Who::Named(i))),
    ]
}

fn moment() -> impl Strategy<Value = Moment> {
    prop_oneof![6 => Just(Moment::Unsaid), 3 => Just(Moment::Present), 1 => Just(Moment::Stale)]
}

fn agent() -> impl Strategy<Value = Option<u8>> {
    option::of(0..3_u8)
}

fn act() -> impl Strategy<Value = Act> {
    let senders = [Sender::Aeu, Sender::Ect, Sender::Iva, Sender::Haptik, Sender::Ceu];
    let events = [
        AgentEvent::Received,
        AgentEvent::Allocated,
        AgentEvent::Allocated,
        AgentEvent::Allocated,
        AgentEvent::Waiting,
        AgentEvent::Waiting,
        AgentEvent::Waiting,
        AgentEvent::UserTimeout,
        AgentEvent::Complete,
    ];
    use ControlOp::{Accept, Decline, Offer, Pass, Release, Request, Take};
    let operations = vec![Pass, Pass, Pass, Take, Take, Request, Offer, Offer, Accept, Decline, Release];
    let offer = prop_oneof![3 => Just(OfferId::Unsaid), 3 => Just(OfferId::Present), 1 => Just(OfferId::Wrong)];
    let window = option::weighted(0.2, select(vec![0_u64, 1, 5_000, u64::MAX]));
    let turn = prop_oneof![8 => Just(WhichTurn::Back(0)), 2 => (1..4_usize).prop_map(WhichTurn::Back), 1 => Just(WhichTurn::Present)];
    let answered = (0..3_usize, option::weighted(0.3, 0..=ROSTER.len()), prop::bool::weighted(0.2), any::<bool>())
        .prop_map(|(messages, handoff, complete, details)| {
            let fault = details && messages == 2;
            TurnEnd::Answered { messages, handoff, complete, details, fault }
        });
    let end = prop_oneof![6 => answered, 1 => Just(TurnEnd::Deferred), 2 => Just(TurnEnd::Broke)];
    prop_oneof![
        3 => Just(Act::Nothing),
        10 => Just(Act::Ceu),
        8 => (who(), option::weighted(0.2, select(senders.to_vec())), moment(), agent())
            .prop_map(|(by, sender, epoch, agent)| Act::Send { by, sender, epoch, agent }),
        8 => (who(), select(events.to_vec()), agent()).prop_map(|(by, event, agent)| Act::Event { by, event, agent }),
        16 => (who(), select(operations), target(), moment(), window, offer)
            .prop_map(|(by, op, to, epoch, window, offer)| Act::Control { by, op, to, epoch, window, offer }),
        4 => (target(), any::<bool>()).prop_map(|(to, accept)| Act::Negotiate { to, accept }),
        4 => index().prop_map(|by| {
            let (by, to) = (Who::Named(by), Some(Who::Holder));
            Act::Control { by, op: Request, to, epoch: Moment::Unsaid, window: None, offer: OfferId::Unsaid }
        }),
        2 => (who(), moment()).prop_map(|(by, epoch)| Act::HandoffAnswered { by, epoch }),
        4 => (turn, end).prop_map(|(turn, end)| Act::Iva { turn, end }),
        2 => (0..=10_000_u64).prop_map(|countdown| Act::SendToAgent { countdown }),
        2 => Just(Act::Feedback),
        3 => (who(), who()).prop_map(|(from, to)| Act::Drain { from, to }),
        3 => configure().prop_map(Act::Configure),
    ]
}

fn configure() -> impl Strategy<Value = Configure> {
    prop_oneof![
        2 => (index(), prop::bool::weighted(0.8)).prop_map(|(i, healthy)| Configure::Healthy(i, healthy)),
        1 => index().prop_map(Configure::Remove),
        3 => index().prop_map(Configure::Add),
        1 => index().prop_map(Configure::Default),
        1 => option::of(index()).prop_map(Configure::Handoff),
        1 => fallback().prop_map(Configure::Fallback),
        1 => timeouts().prop_map(|(handoff, idle)| Configure::Timeouts(handoff, idle)),
        1 => any::<bool>().prop_map(Configure::HumanAssistance),
    ]
}

/// Mostly moments, sometimes just short of or past a time-out, and now and then the clock goes back.
fn step() -> impl Strategy<Value = Step> {
    let ms = prop_oneof![
        90 => 0..3_000_i64,
        3 => Just(60_000),
        3 => Just(120_000),
        1 => Just(479_999),
        1 => 480_000..2_000_000_i64,
        2 => -200_000..0_i64,
    ];
    (ms, act()).prop_map(|(ms, act)| Step { ms, act })
}

fn kind(index: usize) -> ReceiverKind {
    match index {
        0 => ReceiverKind::Iva,
        1 => ReceiverKind::Sac,
        _ => ReceiverKind::Ect,
    }
}

impl Setup {
    fn receiver(&self, index: usize) -> Receiver {
        let settings = &self.settings[index];
        Receiver {
            id: id(index),
            kind: kind(index),
            name: ROSTER[index].to_owned(),
            healthy: settings.healthy,
            may_take: settings.may_take,
            may_request: settings.may_request,
            may_pass_to_any: settings.may_pass_to_any,
            requires_received: settings.requires_received,
            only_while_active: settings.only_while_active && kind(index) == ReceiverKind::Ect,
        }
    }
    pub(crate) fn policy(&self) -> Policy {
        let present = |i: &usize| self.settings[*i].present || *i == self.default;
        Policy {
            receivers: (0..RECEIVERS).filter(present).map(|i| self.receiver(i)).collect(),
            default_receiver: id(self.default),
            handoff_receiver: self.handoff.map(id),
            fallback: self.fallback.iter().map(|i| id(*i)).collect(),
            handoff_timeout_ms: self.handoff_timeout,
            idle_timeout_ms: self.idle_timeout,
            human_assistance: self.human_assistance,
            bot_break_message: tract_domain::Body("sorry".into()),
        }
    }
    /// Changes a configuration to another one that is valid: the default receiver always exists.
    pub(crate) fn configure(&self, policy: &mut Policy, change: &Configure) {
        match change {
            Configure::Healthy(i, healthy) => {
                policy.receivers.iter_mut().filter(|r| r.id == id(*i)).for_each(|r| r.healthy = *healthy);
            }
            Configure::Remove(i) if policy.receivers.len() > 1 => {
                policy.receivers.retain(|r| r.id != id(*i));
                if policy.default_receiver == id(*i) {
                    policy.default_receiver = policy.receivers[0].id.clone();
                }
            }
            Configure::Add(i) if policy.receiver(&id(*i)).is_none() => policy.receivers.push(self.receiver(*i)),
            Configure::Default(i) if policy.receiver(&id(*i)).is_some() => policy.default_receiver = id(*i),
            Configure::Remove(_) | Configure::Add(_) | Configure::Default(_) => {}
            Configure::Handoff(i) => policy.handoff_receiver = i.map(id),
            Configure::Fallback(order) => policy.fallback = order.iter().map(|i| id(*i)).collect(),
            Configure::Timeouts(handoff, idle) => {
                (policy.handoff_timeout_ms, policy.idle_timeout_ms) = (*handoff, *idle);
            }
            Configure::HumanAssistance(on) => policy.human_assistance = *on,
        }
    }
}
