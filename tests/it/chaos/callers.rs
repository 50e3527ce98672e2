//! Callers of the public API: each call goes to any node, and is repeated with its key until there is an answer.

use super::{
    history::{Call, Moment, Told, Wish},
    scene::Scene,
};
use crate::{mutation::Random, support::Reply};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a caller waits for a node before it asks another.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);

/// How long a caller repeats a call.
const REPEAT_FOR: Duration = Duration::from_secs(30);

/// How long an offer stands, in seconds: so short that some expire.
const OFFER_S: u64 = 2;

/// How long a caller waits before it repeats a call.
const PAUSE: Duration = Duration::from_millis(50);

/// What is to be called.
pub(super) struct Order {
    /// See [`Call::id`].
    pub(super) id: String,
    pub(super) thread: usize,
    /// The desk that calls; none for the customer.
    pub(super) by: Option<usize>,
    pub(super) wish: Wish,
    /// The fencing token to give.
    pub(super) epoch: Option<u64>,
}

impl Order {
    /// The customer of a thread writes these words.
    pub(super) fn say(words: impl Into<String>, thread: usize) -> Self {
        Self { id: words.into(), thread, by: None, wish: Wish::Say, epoch: None }
    }
}

/// What is generally known of a thread; perhaps out of date.
#[derive(Clone, Default)]
struct Rumour {
    active: String,
    epoch: u64,
    /// The id of the last offer, and to whom.
    offer: Option<(String, String)>,
}

/// What all callers share.
pub(super) struct Callers {
    scene: Arc<Scene>,
    began: Instant,
    rumours: Vec<Mutex<Rumour>>,
    /// What happened to each thread.
    histories: Vec<Mutex<Vec<Call>>>,
    /// Answers that no caller should ever get.
    pub(super) oddities: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// What came of asking once.
enum Came {
    Told(Told),
    /// Surely nothing was done.
    NotDone,
    /// Nobody knows.
    Lost,
}

impl Callers {
    pub(super) fn new(scene: &Arc<Scene>) -> Arc<Self> {
        let threads = scene.threads.len();
        Arc::new(Self {
            scene: Arc::clone(scene),
            began: Instant::now(),
            rumours: (0..threads).map(|_| Mutex::default()).collect(),
            histories: (0..threads).map(|_| Mutex::default()).collect(),
            oddities: Mutex::default(),
            over: AtomicBool::new(false),
        })
    }

    fn now(&self) -> Moment {
        self.began.elapsed().as_micros().try_into().expect("a test ends")
    }

    /// Has the callers end, each after the call that it is at.
    pub(super) fn finish(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// What was called on a thread so far.
    pub(super) fn history(&self, thread: usize) -> Vec<Call> {
        self.histories[thread].lock().unwrap().clone()
    }

    /// Calls this and that until the callers are to end.
    pub(super) async fn run(self: Arc<Self>, number: usize, seed: u64) {
        let mut random = Random::new(seed.wrapping_add(number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for n in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let thread = random.below(self.scene.threads.len());
            let (by, wish, epoch) = self.think(thread, &mut random);
            let order = Order { id: format!("{number}-{n}"), thread, by, wish, epoch };
            self.call(order, || random.below(self.scene.nodes())).await;
            // People think.
            tokio::time::sleep(Duration::from_millis(random.below(40) as u64)).await;
        }
    }

    /// What to want next, and as whom.
    fn think(&self, thread: usize, random: &mut Random) -> (Option<usize>, Wish, Option<u64>) {
        let known = self.rumours[thread].lock().unwrap().clone();
        let named = |name: &str| self.scene.desks.iter().position(|desk| desk.name == name);
        let anybody = random.below(self.scene.desks.len());
        // Mostly whoever may.
        let holder = named(&known.active).filter(|_| random.below(8) > 0).unwrap_or(anybody);
        let other = self.scene.desks[random.below(self.scene.desks.len())].name.to_owned();
        let epoch = (known.epoch > 0 && random.below(2) == 0).then_some(known.epoch);
        let control = |op, to: Option<String>, offer_id| Wish::Control { op, to, offer_id };
        let (by, wish) = match random.below(100) {
            0..25 => return (None, Wish::Say, None),
            25..60 => (holder, Wish::Send),
            60..70 => (anybody, control("take", None, None)),
            70..77 => (holder, control("pass", Some(other), None)),
            77..86 => (holder, control("offer", Some(other), None)),
            86..93 => match known.offer {
                Some((id, to)) => {
                    let op = if random.below(3) > 0 { "accept" } else { "decline" };
                    (named(&to).unwrap_or(anybody), control(op, None, Some(id)))
                }
                None => (anybody, control("accept", None, None)),
            },
            93..95 => (holder, control("release", None, None)),
            _ => return (Some(anybody), Wish::Look, None),
        };
        (Some(by), wish, epoch)
    }

    /// Makes a call at these nodes in turn, until it is answered or nobody has the patience any more, and writes it down.
    pub(super) async fn call(&self, order: Order, mut nodes: impl FnMut() -> usize) -> Call {
        let (begun, until) = (self.now(), Instant::now() + REPEAT_FOR);
        let (mut doubtful, mut asked_last) = (false, begun);
        let told = loop {
            match self.ask(self.request(&order, nodes()), &order.wish).await {
                Came::Told(told) => break told,
                Came::NotDone => {}
                Came::Lost => doubtful = true,
            }
            if Instant::now() > until {
                break if doubtful { Told::Unknown } else { Told::NotDone };
            }
            tokio::time::sleep(PAUSE).await;
            asked_last = self.now();
        };
        let Order { id, thread, by, wish, epoch } = order;
        // Reading again is no repetition.
        let begun = if wish == Wish::Look { asked_last } else { begun };
        let by = by.map(|by| self.scene.desks[by].name.to_owned());
        let call = Call { id, by, wish, epoch, begun, asked_last, ended: self.now(), doubtful, told };
        self.spread(thread, &call);
        self.histories[thread].lock().unwrap().push(call.clone());
        call
    }

    fn request(&self, order: &Order, node: usize) -> RequestBuilder {
        let Order { id, thread, by, wish, epoch } = order;
        let (api, thread) = (self.scene.api(node), &self.scene.threads[*thread]);
        let user_id = &thread.user_id;
        let Some(desk) = by.map(|by| &self.scene.desks[by]) else {
            return self.scene.channel.at(&api).saying(&thread.auth_id, id).header("idempotency-key", id);
        };
        let token = desk.token.at(&api);
        let mut body = json!({"user_id": user_id});
        if let Some(epoch) = epoch {
            body["control_epoch"] = (*epoch).into();
        }
        let path = match wish {
            Wish::Look | Wish::Say => {
                return token.request(Method::GET, &format!("/tract/thread/?user_id={user_id}"));
            }
            Wish::Send => {
                body["sender"] = "aeu".into();
                body["message_body"] = id.clone().into();
                "/tract/message/send/"
            }
            Wish::Control { op, to, offer_id } => {
                body["type"] = (*op).into();
                body["requester"] = desk.name.into();
                body["metadata"] = json!({"call": id});
                if let Some(to) = to {
                    body["receiver"] = to.clone().into();
                }
                if let Some(offer_id) = offer_id {
                    body["offer_id"] = offer_id.clone().into();
                }
                if *op == "offer" {
                    body["deadline_seconds"] = OFFER_S.into();
                }
                "/tract/thread_control/request"
            }
        };
        token.request(Method::POST, path).json(&body).header("idempotency-key", id)
    }

    async fn ask(&self, request: RequestBuilder, wish: &Wish) -> Came {
        let answer = match request.timeout(GIVE_UP_AFTER).send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Came::NotDone,
            Err(_) => return Came::Lost,
        };
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let Ok(bytes) = answer.bytes().await else { return Came::Lost };
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let reply = Reply { status, headers, body };
        match status {
            200 => Came::Told(success(&reply.body, wish)),
            400..500 if status != 429 => Came::Told(refusal(&reply.body, wish)),
            429 | 503 => Came::NotDone,
            504 => Came::Lost,
            _ => {
                self.oddities.lock().unwrap().push(format!("{wish:?}: {status} {}", reply.body));
                Came::Lost
            }
        }
    }

    /// What an answer shows of the thread, everybody hears.
    fn spread(&self, thread: usize, call: &Call) {
        let mut rumour = self.rumours[thread].lock().unwrap();
        let mut hear = |active: &str, epoch: u64| {
            if epoch >= rumour.epoch {
                (rumour.active, rumour.epoch) = (active.to_owned(), epoch);
            }
        };
        match &call.told {
            Told::Holds { active, epoch, offer_id } => {
                hear(active, *epoch);
                if let (Some(id), Wish::Control { to: Some(to), .. }) = (offer_id, &call.wish) {
                    rumour.offer = Some((id.clone(), to.clone()));
                }
            }
            Told::Stands { active, epoch, .. } | Told::Refused { holder: Some((active, epoch)), .. } => {
                hear(active, *epoch);
            }
            _ => {}
        }
    }
}

fn text(body: &Value, key: &str) -> String {
    body[key].as_str().unwrap_or_default().to_owned()
}

fn number(body: &Value, key: &str) -> u64 {
    body[key].as_u64().unwrap_or_default()
}

fn success(body: &Value, wish: &Wish) -> Told {
    match wish {
        Wish::Say => Told::Said { message_id: number(body, "message_id"), sequence: None, epoch: None },
        Wish::Send => Told::Said {
            message_id: number(body, "message_id"),
            sequence: Some(number(body, "sequence")),
            epoch: Some(number(body, "control_epoch")),
        },
        Wish::Control { .. } => Told::Holds {
            active: text(body, "active"),
            epoch: number(body, "control_epoch"),
            offer_id: body["offer_id"].as_str().map(str::to_owned),
        },
        Wish::Look => Told::Stands {
            sequence: number(body, "last_sequence"),
            state: text(body, "state"),
            active: text(body, "active"),
            epoch: number(body, "control_epoch"),
            pending: body["pending"].as_str().map(str::to_owned),
        },
    }
}

fn refusal(body: &Value, wish: &Wish) -> Told {
    let reason = if matches!(wish, Wish::Control { .. }) { &body["reason"] } else { body };
    let holder = reason["active"].as_str().map(|active| (active.to_owned(), number(reason, "control_epoch")));
    Told::Refused { code: text(reason, "code"), holder }
}
