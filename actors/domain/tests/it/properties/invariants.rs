//! What must hold after every step, each under its own name, told from entries and effects alone.

use super::ledger::{Ledger, Observed};
use std::collections::{BTreeMap, BTreeSet};
use tract_domain::{
    AgentEvent, Cause, ChannelEvent, Command, Completion, ControlAction, ControlOp, DeadlineKind, Effect, Entry, Event,
    Fact, ReceiverId, ReceiverKind, Sender, State, StateChange, Thread, Topic,
};

/// All that a transition must keep. The ledger holds what came before it.
pub(crate) fn check(ledger: &Ledger, step: &Observed<'_>) {
    invariant_sequence_is_gapless(ledger, step);
    invariant_time_never_goes_back(ledger, step);
    invariant_epoch_counts_the_moves(ledger, step);
    invariant_one_receiver_is_active(ledger, step);
    invariant_only_the_holder_speaks(step);
    invariant_bot_means_the_iva(step);
    invariant_conversations_count_up(ledger, step);
    invariant_states_follow_the_table(ledger, step);
    invariant_commands_cause_only_their_own_states(step);
    invariant_completions_are_announced_once(step);
    invariant_wishes_end(ledger, step);
    invariant_offer_ids_are_unique(ledger, step);
    invariant_deadlines_exist_when_they_should(step);
    invariant_each_customer_message_is_one_turn(step);
    invariant_everyone_entitled_is_told_once(step);
    invariant_only_a_new_holders_2xx_answers(ledger, step);
    invariant_history_tells_the_last_moves(step);
    invariant_answers_name_their_turn(ledger, step);
}

/// Each entry is the previous + 1.
fn invariant_sequence_is_gapless(ledger: &Ledger, step: &Observed<'_>) {
    let sequences: Vec<u64> = step.entries().iter().map(|e| e.sequence).collect();
    let expected: Vec<u64> = (ledger.sequence + 1..).take(sequences.len()).collect();
    assert_eq!(sequences, expected);
    assert_eq!(step.after().sequence(), ledger.sequence + sequences.len() as u64);
}

/// Whatever the clock does.
fn invariant_time_never_goes_back(ledger: &Ledger, step: &Observed<'_>) {
    let mut last = ledger.last_at;
    for entry in step.entries() {
        assert!(entry.at >= last && entry.at >= step.now, "{entry:?} after {last:?}, decided at {:?}", step.now);
        last = entry.at;
    }
}

/// The epoch starts at 1, is one more with each pass and take, and never moves otherwise.
fn invariant_epoch_counts_the_moves(ledger: &Ledger, step: &Observed<'_>) {
    let mut epoch = 1 + ledger.moves;
    for entry in step.entries() {
        epoch += u64::from(moved(entry).is_some());
        assert_eq!(entry.control_epoch, epoch, "{entry:?}");
    }
    assert_eq!(step.after().control().epoch, epoch);
}

/// The control entries, put end to end, say who is active at each entry.
fn invariant_one_receiver_is_active(ledger: &Ledger, step: &Observed<'_>) {
    let mut active = ledger.active.clone();
    for entry in step.entries() {
        if let Some((from, to)) = moved(entry) {
            assert_eq!(*from, active, "a move begins with who is active");
            assert_ne!(from, to, "a move moves");
            active = to.clone();
        }
        assert_eq!(entry.active, active, "{entry:?}");
    }
    assert_eq!(step.after().control().active, active);
    assert!(step.policy.receiver(&active).is_some(), "a settled thread is held by a receiver of the client");
}

/// A message reaches the customer from the active receiver at that epoch, or from the system; each exactly once.
fn invariant_only_the_holder_speaks(step: &Observed<'_>) {
    for (index, entry) in step.entries().iter().enumerate() {
        let sent = step.channel(ChannelEvent::Message).filter(|e| *e == index).count();
        let Fact::Message(message) = &entry.fact else {
            assert_eq!(sent, 0, "what is no message is not sent as one");
            continue;
        };
        assert_eq!(sent, usize::from(message.sender != Sender::Ceu), "{message:?}");
        match message.sender {
            Sender::Ceu | Sender::Haptik => assert_eq!(message.by, None),
            Sender::Iva | Sender::Ect | Sender::Aeu => {
                assert_eq!(message.by.as_ref(), Some(&entry.active));
                let iva = step.policy.kind(&entry.active) == Some(ReceiverKind::Iva);
                assert_eq!(iva, message.sender == Sender::Iva);
                if let Some(Command::Send { by, control_epoch, .. }) = step.command {
                    assert_eq!(*by, entry.active);
                    assert!(control_epoch.is_none_or(|epoch| epoch == entry.control_epoch));
                }
            }
        }
    }
}

fn invariant_bot_means_the_iva(step: &Observed<'_>) {
    let thread = step.after();
    if thread.state().is_open() {
        let iva = step.policy.kind(&thread.control().active) == Some(ReceiverKind::Iva);
        assert_eq!(iva, thread.state() == State::Bot);
    }
}

/// A conversation opens with a customer's message, is the previous + 1, opens once and completes at most once.
fn invariant_conversations_count_up(ledger: &Ledger, step: &Observed<'_>) {
    let (mut open, mut conversation) = (ledger.state.is_open(), ledger.conversation);
    let opens = matches!(step.command, Some(Command::Ceu { .. })) && !open;
    let expected = conversation + u64::from(opens);
    for entry in step.entries() {
        assert_eq!(entry.conversation, expected, "an opening's own control change belongs to what it opens");
        if let Fact::State(change) = &entry.fact {
            if !open {
                conversation += 1;
                assert_eq!(change.cause, Cause::CeuMessage);
            }
            open = change.to.is_open();
        }
    }
    assert_eq!((conversation, step.after().conversation()), (expected, expected));
    if matches!(step.command, Some(Command::Ceu { .. })) {
        let said = step.entries().iter().filter(|e| matches!(&e.fact, Fact::Message(m) if m.sender == Sender::Ceu));
        assert_eq!(
            (said.count(), open),
            (1, true),
            "a customer's message is never lost, and finds an open conversation"
        );
    }
}

/// Every change of state stands in the table, seen with who is active, why, and whether control moved just before.
fn invariant_states_follow_the_table(ledger: &Ledger, step: &Observed<'_>) {
    let mut state = ledger.state;
    let mut previous: Option<&Entry> = None;
    for entry in step.entries() {
        if let Fact::State(change) = &entry.fact {
            assert_eq!(change.from, state);
            state = change.to;
            let iva = step.policy.kind(&entry.active) == Some(ReceiverKind::Iva);
            let moved = previous.and_then(moved).is_some();
            assert!(in_the_table(change, iva, moved), "not in the table: {change:?}, iva: {iva}, moved: {moved}");
            if change.cause == Cause::IdleTimeout {
                let quiet_since = ledger.since.max(ledger.spoke);
                assert!(step.now.since(quiet_since) >= step.policy.idle_timeout_ms, "quiet for long enough");
            }
        }
        previous = Some(entry);
    }
    assert_eq!(step.after().state(), state);
}

fn in_the_table(change: &StateChange, iva: bool, moved: bool) -> bool {
    use Cause::*;
    let operation = matches!(change.cause, Pass | Take | Accept | Release);
    let chain = matches!(change.cause, Fallback | ReturnToDefault);
    match (change.from, change.to) {
        (State::None | State::Complete, State::Bot) => iva && change.cause == CeuMessage,
        (State::None | State::Complete, State::Incomplete) => !iva && change.cause == CeuMessage,
        (State::Bot, State::Incomplete) if matches!(change.cause, Handoff | BotBreak | SendToAgent) => moved && !iva,
        (State::None | State::Complete, _) | (_, State::None) => false,
        (from, State::Incomplete) => {
            let why =
                operation || matches!(change.cause, ReceiverRemoved | Drain) || (chain && from == State::Incomplete);
            moved && !iva && why
        }
        (from, State::Bot) => {
            let why = matches!(change.cause, ReceiverRemoved | Drain) || (chain && from == State::Incomplete);
            moved && iva && why
        }
        (State::Incomplete, State::Pinned) => matches!(change.cause, Allocated | AeuMessage),
        (State::Waiting, State::Pinned) => matches!(change.cause, Allocated | AeuMessage | CeuMessage),
        (State::Pinned, State::Waiting) => change.cause == Waiting,
        (State::Bot, State::Complete) if change.cause == IvaComplete => !moved,
        (State::Bot | State::Waiting, State::Complete) if change.cause == IdleTimeout => true,
        (_, State::Complete) => match change.cause {
            Complete | UserTimeout => !moved,
            _ => operation && iva && moved,
        },
        _ => false,
    }
}

/// A command does not bring about the causes of another one.
fn invariant_commands_cause_only_their_own_states(step: &Observed<'_>) {
    for entry in step.entries() {
        let Fact::State(change) = &entry.fact else { continue };
        let fits = match step.command {
            None => {
                use Cause::*;
                matches!(change.cause, Fallback | ReturnToDefault | ReceiverRemoved | IdleTimeout | SendToAgent)
            }
            Some(Command::Ceu { .. }) => change.cause == Cause::CeuMessage,
            Some(Command::Send { sender, .. }) => *sender == Sender::Aeu && change.cause == Cause::AeuMessage,
            Some(Command::Event { event, .. }) => {
                let cause = match event {
                    AgentEvent::Received => None,
                    AgentEvent::Allocated => Some(Cause::Allocated),
                    AgentEvent::UserTimeout => Some(Cause::UserTimeout),
                    AgentEvent::Waiting => Some(Cause::Waiting),
                    AgentEvent::Complete => Some(Cause::Complete),
                };
                cause == Some(change.cause)
            }
            Some(Command::Control(request)) => {
                let cause = match request.op {
                    ControlOp::Pass => Some(Cause::Pass),
                    ControlOp::Take => Some(Cause::Take),
                    ControlOp::Accept => Some(Cause::Accept),
                    ControlOp::Release => Some(Cause::Release),
                    ControlOp::Request | ControlOp::Offer | ControlOp::Decline => None,
                };
                cause == Some(change.cause)
            }
            Some(Command::IvaAnswered { .. }) => matches!(change.cause, Cause::Handoff | Cause::IvaComplete),
            Some(Command::IvaBroke { .. }) => change.cause == Cause::BotBreak,
            Some(Command::Drain { .. }) => change.cause == Cause::Drain,
            Some(
                Command::HandoffAnswered { .. }
                | Command::IvaDeferred { .. }
                | Command::SendToAgent { .. }
                | Command::Feedback(_),
            ) => false,
        };
        assert!(fits, "{:?} caused {change:?}", step.command);
    }
}

/// Each end of a conversation: one `webhook_conversation_complete`, after one `chat_complete` if an agent ended it.
fn invariant_completions_are_announced_once(step: &Observed<'_>) {
    for (index, entry) in step.entries().iter().enumerate() {
        let announced: Vec<ChannelEvent> = step
            .effects()
            .iter()
            .filter_map(|e| match e {
                Effect::Channel { event, entry } if *entry == index => Some(*event),
                _ => None,
            })
            .filter(|e| matches!(e, ChannelEvent::ChatComplete | ChannelEvent::WebhookConversationComplete))
            .collect();
        let expected: &[ChannelEvent] = match &entry.fact {
            Fact::State(StateChange { to: State::Complete, completion, .. }) => match completion {
                Some(Completion::Agent) => &[ChannelEvent::ChatComplete, ChannelEvent::WebhookConversationComplete],
                Some(Completion::Bot | Completion::Auto) => &[ChannelEvent::WebhookConversationComplete],
                None => panic!("an end without its kind: {entry:?}"),
            },
            _ => &[],
        };
        assert_eq!(announced, expected);
    }
}

/// At most one offer and one request; each ends by its answer, its deadline, a change of control, or completion.
fn invariant_wishes_end(ledger: &Ledger, step: &Observed<'_>) {
    let (mut offer, mut request) = (ledger.offer.clone(), ledger.request.clone());
    for entry in step.entries() {
        match &entry.fact {
            Fact::Control(c) => match c.action {
                ControlAction::Offer => {
                    let made = (c.offer_id.clone().expect("an offer has an id"), c.from.clone(), c.to.clone());
                    assert_ne!(c.to, entry.active, "the holder has nothing to accept");
                    assert_eq!(offer.replace(made), None, "one offer at a time");
                }
                ControlAction::Request => {
                    assert_eq!(c.to, entry.active, "the holder is asked");
                    assert_ne!(c.from, entry.active, "the holder has nothing to ask for");
                    assert_eq!(request.replace(c.from.clone()), None, "one request at a time");
                }
                ControlAction::Decline | ControlAction::Expire if c.offer_id.is_some() => {
                    let ended = c.offer_id.clone().map(|id| (id, c.from.clone(), c.to.clone()));
                    assert_eq!(offer.take(), ended, "what ends was pending");
                }
                ControlAction::Decline => panic!("only an offer is declined: {entry:?}"),
                ControlAction::Expire => assert_eq!(request.take().as_ref(), Some(&c.from), "what ends was pending"),
                ControlAction::Pass | ControlAction::Take => {
                    let accepted = offer.take();
                    let by_accept = c.cause == Cause::Accept;
                    assert_eq!(accepted.is_some(), by_accept, "a move ends every offer but the accepted one");
                    assert!(accepted.is_none_or(|(_, _, to)| to == c.to), "accepted by the pending one");
                    assert!(request.take().is_none_or(|from| from == c.to), "a move ends every request but its own");
                }
            },
            Fact::State(change) if change.to == State::Complete => {
                assert_eq!((&offer, &request), (&None, &None), "completion ends both, before it is told");
            }
            Fact::State(_) | Fact::Message(_) | Fact::Event(_) => {}
        }
    }
    let control = step.after().control();
    assert_eq!(control.offer.as_ref().map(|o| (o.id.clone(), o.from.clone(), o.to.clone())), offer);
    assert_eq!(control.request.as_ref().map(|r| r.from.clone()), request);
}

fn invariant_offer_ids_are_unique(ledger: &Ledger, step: &Observed<'_>) {
    let mut new = BTreeSet::new();
    for entry in step.entries() {
        if let Fact::Control(c) = &entry.fact
            && c.action == ControlAction::Offer
        {
            let id = c.offer_id.clone().unwrap_or_default();
            assert!(!ledger.offer_ids.contains(&id) && new.insert(id), "{c:?}");
        }
    }
}

/// A deadline exists exactly while there is what it is for, and only where that can be.
fn invariant_deadlines_exist_when_they_should(step: &Observed<'_>) {
    let thread = step.after();
    let (control, state) = (thread.control(), thread.state());
    let deadlines = thread.deadlines(step.policy);
    let has = |kind| {
        let count = deadlines.iter().filter(|(k, _)| *k == kind).count();
        assert!(count <= 1, "{kind:?} twice");
        count == 1
    };
    assert_eq!(has(DeadlineKind::Offer), control.offer.is_some());
    assert_eq!(has(DeadlineKind::Request), control.request.is_some());
    assert_eq!(has(DeadlineKind::Handoff), control.handoff.is_some());
    let idles = matches!(state, State::Bot | State::Waiting) && step.policy.idle_timeout_ms > 0;
    assert_eq!(has(DeadlineKind::Idle), idles);
    if control.handoff.is_some() {
        let ect = step.policy.kind(&control.active) == Some(ReceiverKind::Ect);
        assert!(ect && state == State::Incomplete, "only an ECT that nobody has picked up for owes an answer");
    }
    assert!(!has(DeadlineKind::Countdown) || state == State::Bot, "a countdown is for a chat with the bot");
    assert!(state.is_open() || deadlines.is_empty(), "nothing is due when nothing is open: {deadlines:?}");
    assert_eq!(thread.next_deadline(step.policy), deadlines.iter().map(|(_, at)| *at).min());
}

/// While the IVA is active each customer message is one turn; nothing else is.
fn invariant_each_customer_message_is_one_turn(step: &Observed<'_>) {
    for (index, entry) in step.entries().iter().enumerate() {
        let turns = step.effects().iter().filter(|e| matches!(e, Effect::IvaTurn { entry } if *entry == index)).count();
        let of_customer = matches!(&entry.fact, Fact::Message(m) if m.sender == Sender::Ceu);
        let iva = step.policy.kind(&entry.active) == Some(ReceiverKind::Iva);
        assert_eq!(turns, usize::from(of_customer && iva), "{entry:?}");
    }
}

/// Section 4, who gets what: exactly those, once each, and nobody who is no receiver.
fn invariant_everyone_entitled_is_told_once(step: &Observed<'_>) {
    for (index, entry) in step.entries().iter().enumerate() {
        let mut told: BTreeMap<(&ReceiverId, Topic), usize> = BTreeMap::new();
        for effect in step.effects() {
            if let Effect::Hook { to, topic, entry, .. } = effect
                && *entry == index
            {
                *told.entry((to, *topic)).or_default() += 1;
            }
        }
        let expected: BTreeMap<_, _> = entitled(step, entry).into_iter().map(|whom| (whom, 1)).collect();
        assert_eq!(told, expected, "{entry:?}");
    }
}

fn entitled<'a>(step: &Observed<'a>, entry: &'a Entry) -> Vec<(&'a ReceiverId, Topic)> {
    let all = || step.policy.receivers.iter();
    let these = |whom: Vec<&'a ReceiverId>, topic| {
        all().map(|r| &r.id).filter(|id| whom.contains(id)).map(|id| (id, topic)).collect()
    };
    match &entry.fact {
        Fact::Message(message) => all()
            .filter(|r| Some(&r.id) != message.by.as_ref() && (!r.only_while_active || r.id == entry.active))
            .map(|r| (&r.id, Topic::MessageReceive))
            .collect(),
        Fact::State(change) => {
            let topic = change.to.topic().expect("no conversation enters none");
            all().map(|r| (&r.id, topic)).collect()
        }
        Fact::Event(Event::Agent { topic, by, .. }) => all().filter(|r| r.id != *by).map(|r| (&r.id, *topic)).collect(),
        Fact::Event(Event::Iva { .. } | Event::Feedback(_)) => Vec::new(),
        Fact::Control(c) => match c.action {
            ControlAction::Pass | ControlAction::Take => all().map(|r| (&r.id, c.action.topic())).collect(),
            ControlAction::Request | ControlAction::Offer => these(vec![&c.to], c.action.topic()),
            ControlAction::Decline => these(vec![&c.from], Topic::ControlDecline),
            ControlAction::Expire if c.offer_id.is_some() => these(vec![&c.from, &c.to], Topic::ControlExpire),
            ControlAction::Expire => these(vec![&c.from], Topic::ControlExpire),
        },
    }
}

/// The epoch that a 2xx answers is given only to the ECT that got this hand-off, and to none that must say more.
fn invariant_only_a_new_holders_2xx_answers(ledger: &Ledger, step: &Observed<'_>) {
    for effect in step.effects() {
        let (to, epoch) = match effect {
            Effect::Hook { to, answers_handoff: Some(epoch), entry, .. } => {
                assert_eq!(step.entries()[*entry].control_epoch, *epoch);
                assert_eq!(step.entries()[*entry].active, *to);
                (to, *epoch)
            }
            Effect::History { to, answers_handoff: Some(epoch), .. } => (to, *epoch),
            _ => continue,
        };
        let receiver = step.policy.receiver(to).expect("a receiver of the client");
        assert!(receiver.kind == ReceiverKind::Ect && !receiver.requires_received);
        assert!(epoch > ledger.moves, "an epoch of the present or of this step");
    }
}

/// A message that a turn brought names the customer's message, of the same conversation; nobody else's does. How far turns
/// are over never goes back, and moves only when one ends.
fn invariant_answers_name_their_turn(ledger: &Ledger, step: &Observed<'_>) {
    let turn = match step.command {
        Some(Command::IvaAnswered { turn, .. } | Command::IvaBroke { turn, .. } | Command::IvaDeferred { turn }) => {
            Some(*turn)
        }
        _ => None,
    };
    for entry in step.entries() {
        let Fact::Message(message) = &entry.fact else { continue };
        assert_eq!(message.answers, turn.map(|turn| turn.message), "{message:?}");
        assert!(message.answers.is_none() || Some(entry.conversation) == turn.map(|turn| turn.conversation));
    }
    assert_eq!(step.after().answered(), ledger.answered.max(turn.map_or(0, |turn| turn.message)));
}

/// The last control changes are kept, up to ten, in order, as they stand in the entries.
fn invariant_history_tells_the_last_moves(step: &Observed<'_>) {
    let history: Vec<_> = step.after().history().collect();
    assert!(history.len() <= 10);
    assert!(history.windows(2).all(|w| w[0].sequence < w[1].sequence));
    let changes = step.entries().iter().rev().filter(|e| matches!(e.fact, Fact::Control(_))).take(10);
    for (entry, told) in changes.zip(history.iter().rev()) {
        let Fact::Control(c) = &entry.fact else { continue };
        assert_eq!((told.sequence, told.at, told.epoch), (entry.sequence, entry.at, entry.control_epoch));
        assert_eq!((told.action, &told.from, &told.to, told.cause), (c.action, &c.from, &c.to, c.cause));
        assert_eq!(told.by, c.by);
    }
}

// ---- what must hold beside a single transition ----

/// After settling, nothing is due, and settling again finds nothing to do.
pub(crate) fn invariant_settling_leaves_nothing_due(thread: &Thread, ctx: tract_domain::Context<'_>) {
    assert_eq!(thread.settle(ctx), None);
    let due: Vec<_> = thread.deadlines(ctx.policy).into_iter().filter(|(_, at)| *at <= ctx.now).collect();
    assert_eq!(due, []);
}

/// Moving control to its holder, and a report that nothing follows from, change nothing at all.
pub(crate) fn invariant_no_operation_changes_nothing(before: &Thread, step: &Observed<'_>) {
    let Some(Command::Control(request)) = step.command else { return };
    let holder = &before.control().active;
    let aims_at_holder = match request.op {
        ControlOp::Pass | ControlOp::Offer => request.receiver.as_ref().is_none_or(|to| to == holder),
        ControlOp::Take | ControlOp::Request => request.by == *holder,
        ControlOp::Release => step.policy.default_receiver == *holder,
        ControlOp::Accept | ControlOp::Decline => false,
    };
    if aims_at_holder {
        assert_eq!((step.after(), step.entries(), step.effects()), (before, &[][..], &[][..]));
    }
}

/// A state that is stored and read again is the same state.
pub(crate) fn invariant_a_snapshot_is_read_back(thread: &Thread) -> Thread {
    let stored = serde_json::to_string(thread).expect("a thread can be stored");
    let read: Thread = serde_json::from_str(&stored).expect("a stored thread can be read");
    assert_eq!(read, *thread);
    read
}

/// Who listens only while active has, while it holds an open conversation, every message of it but its own, once.
pub(crate) fn invariant_no_listener_misses_a_message(ledger: &Ledger, step: &Observed<'_>) {
    let holder = &step.after().control().active;
    let listens = step.policy.receiver(holder).is_some_and(|r| r.only_while_active);
    if !listens || !step.after().state().is_open() {
        return;
    }
    let enqueued = ledger.enqueued.get(holder);
    for (sequence, by) in ledger.messages.iter().filter(|m| m.conversation == ledger.conversation).map(|m| m.told()) {
        let has_it = enqueued.is_some_and(|e| e.contains(&sequence));
        assert_eq!(has_it, by != Some(holder), "message {sequence} at {holder:?}");
    }
}

/// The thread knows which conversations each receiver has held.
pub(crate) fn invariant_held_covers_the_conversations(ledger: &Ledger, step: &Observed<'_>) {
    for receiver in super::script::ROSTER.map(|name| ReceiverId::new(name).unwrap()) {
        for conversation in (0..=ledger.conversation + 1).rev().take(6) {
            let held = ledger.held.contains(&(receiver.clone(), conversation));
            assert_eq!(step.after().has_held(&receiver, conversation), held, "{receiver:?} and {conversation}");
        }
    }
}

/// The former and the new holder, if control moved.
pub(crate) fn moved(entry: &Entry) -> Option<(&ReceiverId, &ReceiverId)> {
    match &entry.fact {
        Fact::Control(c) if matches!(c.action, ControlAction::Pass | ControlAction::Take) => Some((&c.from, &c.to)),
        _ => None,
    }
}
