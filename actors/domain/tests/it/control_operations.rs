//! Section 7, the table of control operations: who may, what happens, what is refused, and in which order it is judged.

use crate::scene::*;
use tract_domain::{Cause, ControlAction, ControlOp::*, ControlRequest, Reply, State, Topic};

/// Who asks for what, and what comes of it: a code, or who is active then.
type Row = (&'static str, ControlRequest, Result<&'static str, &'static str>);

fn check(stage: impl Fn() -> Scene, rows: &[Row]) {
    for (what, request, expected) in rows {
        let mut scene = stage();
        let before = scene.thread.clone();
        let result = scene.operate(request.clone());
        match (&result, expected) {
            (Ok(()), Ok(active)) => {
                assert_eq!(scene.active(), *active, "{what}");
                let moves = u64::from(before.control().active.as_str() != *active);
                assert_eq!(scene.epoch(), before.control().epoch + moves, "{what}: one epoch for a move");
                if moves == 0 && request.op != Request && request.op != Offer {
                    assert_eq!(scene.thread, before, "{what}: nothing changes");
                }
            }
            (Err(refusal), Err(wanted)) => {
                assert_eq!(refusal.code(), *wanted, "{what}");
                assert_eq!(scene.thread, before, "{what}: a refusal changes nothing");
            }
            _ => panic!("{what}: {result:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn pass() {
    check(
        || Scene::at(State::Pinned, PLAIN),
        &[
            ("the active one passes to a primary", op(PLAIN, Pass, Some(SAC)), Ok(SAC)),
            ("the active one passes to the default", op(PLAIN, Pass, Some(IVA)), Ok(IVA)),
            ("an ECT passes to another ECT", op(PLAIN, Pass, Some(FREE)), Err("target_not_permitted")),
            ("a primary one passes though it is not active", op(SAC, Pass, Some(FREE)), Ok(FREE)),
            ("a primary one passes to itself", op(SAC, Pass, Some(SAC)), Ok(SAC)),
            ("a standby ECT", op(FREE, Pass, Some(SAC)), Err("not_active")),
            ("to its holder", op(PLAIN, Pass, Some(PLAIN)), Ok(PLAIN)),
            ("to its holder, by a primary one", op(SAC, Pass, Some(PLAIN)), Ok(PLAIN)),
            ("to nobody known", op(PLAIN, Pass, Some("ghost")), Err("unknown_receiver")),
            ("by nobody known", op("ghost", Pass, Some(SAC)), Err("not_a_receiver")),
        ],
    );
    check(
        || Scene::at(State::Pinned, FREE),
        &[("an ECT that may pass to any", op(FREE, Pass, Some(PLAIN)), Ok(PLAIN))],
    );
    check(
        || Scene::with(|p| p.default_receiver = id(PLAIN)).brought_to(State::Pinned, STRICT),
        &[("an ECT passes to the default receiver, an ECT", op(STRICT, Pass, Some(PLAIN)), Ok(PLAIN))],
    );
}

#[test]
fn take() {
    check(
        || Scene::at(State::Pinned, PLAIN),
        &[
            ("a primary one: SAC", op(SAC, Take, None), Ok(SAC)),
            ("a primary one: IVA", op(IVA, Take, Some(IVA)), Ok(IVA)),
            ("an ECT whose settings allow it", op(FREE, Take, Some(FREE)), Ok(FREE)),
            ("an ECT whose settings do not", op(STRICT, Take, None), Err("not_permitted")),
            ("the holder itself, whose settings do not", op(PLAIN, Take, None), Err("not_permitted")),
        ],
    );
    check(|| Scene::at(State::Pinned, FREE), &[("the holder itself", op(FREE, Take, None), Ok(FREE))]);
}

#[test]
fn request() {
    check(
        || Scene::at(State::Pinned, PLAIN),
        &[
            ("a primary one asks", op(SAC, Request, Some(PLAIN)), Ok(PLAIN)),
            ("without naming the active one", op(SAC, Request, None), Ok(PLAIN)),
            ("an ECT whose settings allow it", op(FREE, Request, Some(PLAIN)), Ok(PLAIN)),
            ("an ECT whose settings do not", op(STRICT, Request, Some(PLAIN)), Err("not_permitted")),
            ("of somebody who is not active", op(SAC, Request, Some(FREE)), Err("receiver_not_active")),
        ],
    );
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.operate(op(SAC, Request, Some(PLAIN))).unwrap();
    assert_eq!(scene.told(Topic::ControlRequest), [PLAIN], "it goes to the active one, and to nobody else");
    assert_eq!(scene.requested_by(), Some(SAC));
    assert_eq!(code(&scene.operate(op(FREE, Request, Some(PLAIN)))), "request_pending");
}

#[test]
fn offer() {
    check(
        || Scene::at(State::Pinned, PLAIN),
        &[
            ("who may pass may offer", op(PLAIN, Offer, Some(SAC)), Ok(PLAIN)),
            ("and who may not pass to it may not", op(PLAIN, Offer, Some(FREE)), Err("target_not_permitted")),
            ("a primary one", op(SAC, Offer, Some(FREE)), Ok(PLAIN)),
            ("a standby ECT", op(FREE, Offer, Some(SAC)), Err("not_active")),
        ],
    );
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.operate(op(PLAIN, Offer, Some(PLAIN))).unwrap();
    assert_eq!((scene.offered_to(), scene.entries.len()), (None, 0), "an offer to the holder changes nothing");
    scene.operate(op(PLAIN, Offer, Some(SAC))).unwrap();
    assert_eq!(scene.told(Topic::ControlOffer), [SAC], "it goes to the pending one, and to nobody else");
    let Reply::Control { offer_id, .. } = &scene.reply else { panic!("{:?}", scene.reply) };
    assert!(offer_id.is_some() && *offer_id == scene.offer_id(), "its id is in the answer");
    assert_eq!(code(&scene.operate(op(SAC, Offer, Some(FREE)))), "offer_pending");
}

#[test]
fn accept_and_decline() {
    let offered = || {
        let mut scene = Scene::at(State::Pinned, FREE);
        scene.operate(op(FREE, Offer, Some(PLAIN))).unwrap();
        scene
    };
    let with_id =
        |request: ControlRequest, offer_id: &str| ControlRequest { offer_id: Some(offer_id.into()), ..request };
    let offer_id = offered().offer_id().unwrap();
    check(
        offered,
        &[
            ("the pending one accepts", op(PLAIN, Accept, None), Ok(PLAIN)),
            ("giving the id back", with_id(op(PLAIN, Accept, Some(PLAIN)), &offer_id), Ok(PLAIN)),
            ("giving another id", with_id(op(PLAIN, Accept, None), "offer-0-0"), Err("no_offer")),
            ("another one accepts", op(SAC, Accept, None), Err("no_offer")),
            ("the offerer accepts", op(FREE, Accept, None), Err("no_offer")),
            ("another one declines", op(SAC, Decline, None), Err("no_offer")),
            ("with another id", with_id(op(PLAIN, Decline, None), "offer-0-0"), Err("no_offer")),
        ],
    );
    check(
        || Scene::at(State::Pinned, FREE),
        &[
            ("nothing to accept", op(PLAIN, Accept, None), Err("no_offer")),
            ("nothing to decline", op(PLAIN, Decline, None), Err("no_offer")),
        ],
    );
}

#[test]
fn release() {
    let on_sac = || Scene::with(|p| p.default_receiver = id(SAC));
    check(
        || on_sac().brought_to(State::Pinned, PLAIN),
        &[
            ("the active one", op(PLAIN, Release, None), Ok(SAC)),
            ("a primary one that is not active", op(SAC, Release, None), Err("not_active")),
            ("a standby ECT", op(FREE, Release, None), Err("not_active")),
        ],
    );
    check(|| on_sac().brought_to(State::Pinned, SAC), &[("by the default receiver", op(SAC, Release, None), Ok(SAC))]);
    check(|| Scene::at(State::Pinned, PLAIN), &[("to the IVA", op(PLAIN, Release, None), Ok(IVA))]);
}

/// A target that is not healthy is refused, by every operation that would move control to it.
#[test]
fn an_unhealthy_target_is_unavailable() {
    let sick = |name: &'static str| {
        move || {
            let mut scene = Scene::at(State::Pinned, PLAIN);
            scene.unhealthy(name);
            scene
        }
    };
    let offered = || {
        let mut scene = Scene::at(State::Pinned, PLAIN);
        scene.operate(op(PLAIN, Offer, Some(SAC))).unwrap();
        scene.unhealthy(SAC);
        scene
    };
    check(sick(SAC), &[("pass", op(PLAIN, Pass, Some(SAC)), Err("receiver_unavailable"))]);
    check(sick(SAC), &[("offer", op(PLAIN, Offer, Some(SAC)), Err("receiver_unavailable"))]);
    check(sick(SAC), &[("take", op(SAC, Take, None), Err("receiver_unavailable"))]);
    check(sick(IVA), &[("release", op(PLAIN, Release, None), Err("receiver_unavailable"))]);
    check(offered, &[("accept", op(SAC, Accept, None), Err("receiver_unavailable"))]);
    check(sick(PLAIN), &[("but its holder keeps it", op(PLAIN, Pass, Some(PLAIN)), Ok(PLAIN))]);
}

/// The fencing token is honoured on every operation, but permission is judged first.
#[test]
fn a_stale_epoch_is_refused_on_every_operation() {
    let offered = || {
        let mut scene = Scene::at(State::Pinned, FREE);
        scene.operate(op(FREE, Offer, Some(SAC))).unwrap();
        scene
    };
    let stale = |request: ControlRequest| ControlRequest { control_epoch: Some(1), ..request };
    let epoch = offered().epoch();
    let fresh = |request: ControlRequest| ControlRequest { control_epoch: Some(epoch), ..request };
    check(
        offered,
        &[
            ("pass", stale(op(FREE, Pass, Some(SAC))), Err("stale_epoch")),
            ("take", stale(op(SAC, Take, None)), Err("stale_epoch")),
            ("request", stale(op(SAC, Request, None)), Err("stale_epoch")),
            ("offer", stale(op(FREE, Offer, Some(SAC))), Err("stale_epoch")),
            ("accept", stale(op(SAC, Accept, None)), Err("stale_epoch")),
            ("decline", stale(op(SAC, Decline, None)), Err("stale_epoch")),
            ("release", stale(op(FREE, Release, None)), Err("stale_epoch")),
            ("to its holder", stale(op(FREE, Pass, Some(FREE))), Err("stale_epoch")),
            ("not active and stale", stale(op(PLAIN, Pass, Some(SAC))), Err("not_active")),
            ("the present one", fresh(op(FREE, Pass, Some(SAC))), Ok(SAC)),
        ],
    );
}

/// `invalid_state` for control operations: in none and complete, and nowhere else.
#[test]
fn control_operations_need_an_open_conversation() {
    let requests = || {
        [
            op(IVA, Pass, Some(SAC)),
            op(SAC, Take, None),
            op(SAC, Request, None),
            op(IVA, Offer, Some(SAC)),
            op(SAC, Accept, None),
            op(SAC, Decline, None),
            op(IVA, Release, None),
        ]
    };
    for (state, holder) in [(State::None, IVA), (State::Complete, IVA)] {
        for request in requests() {
            check(|| Scene::at(state, holder), &[(request.op.as_str(), request, Err("invalid_state"))]);
        }
    }
    for (state, holder) in
        [(State::Bot, IVA), (State::Incomplete, PLAIN), (State::Pinned, PLAIN), (State::Waiting, PLAIN)]
    {
        for request in requests() {
            let result = Scene::at(state, holder).operate(request);
            assert_ne!(code(&result), "invalid_state", "{state:?}: {result:?}");
        }
    }
}

/// Every move is one entry with one epoch, told to all, with its cause.
#[test]
fn every_move_is_told_to_all_with_its_cause() {
    let all = [IVA, SAC, PLAIN, FREE, STRICT];
    let cases = [
        (op(PLAIN, Pass, Some(SAC)), ControlAction::Pass, Cause::Pass),
        (op(SAC, Take, None), ControlAction::Take, Cause::Take),
        (op(PLAIN, Release, None), ControlAction::Pass, Cause::Release),
    ];
    for (request, action, cause) in cases {
        let mut scene = Scene::at(State::Pinned, PLAIN);
        scene.operate(request).unwrap();
        assert_eq!(scene.controls(), [(action, cause)]);
        assert_eq!(scene.told(action.topic()), all);
    }
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.operate(op(PLAIN, Offer, Some(SAC))).unwrap();
    scene.operate(op(SAC, Accept, None)).unwrap();
    assert_eq!(scene.controls(), [(ControlAction::Pass, Cause::Accept)], "an accepted offer does not expire");
    assert_eq!(scene.told(Topic::ControlPass), all);
}

/// A thread starts in state none, epoch 1, with the default receiver active.
#[test]
fn a_new_thread() {
    let scene = Scene::with(|p| p.default_receiver = id(SAC));
    assert_eq!(scene.stands(), (State::None, SAC, 0));
    assert_eq!((scene.epoch(), scene.thread.sequence()), (1, 0));
}

/// The thread tells why it is where it is: the last ten control changes with cause, actor, time and epoch.
#[test]
fn a_thread_remembers_its_last_control_changes() {
    let mut scene = Scene::at(State::Pinned, SAC);
    for _ in 0..7 {
        scene.wait(SECOND);
        scene.pass(SAC, PLAIN).unwrap();
        scene.operate(op(SAC, Take, None)).unwrap();
    }
    assert_eq!(scene.thread.history().len(), 10);
    let last = scene.thread.history().last().unwrap();
    assert_eq!((last.action, last.cause, last.by.clone()), (ControlAction::Take, Cause::Take, Some(id(SAC))));
    assert_eq!((last.epoch, last.at), (scene.epoch(), scene.now));
    assert_eq!((last.from.as_str(), last.to.as_str()), (PLAIN, SAC));
}
