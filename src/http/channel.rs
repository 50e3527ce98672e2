//! The channel side: users, and what they write (section 10).

use super::auth::ChannelSide;
use super::decode::{Int, Name, Nested, Text};
use super::idempotency::{self, RequestKey, Scope, mark, rendered};
use super::messages::unexpected;
use super::request::Posted;
use super::users::read_profile;
use super::{Edge, Problem};
use crate::channel::Profile;
use crate::hsl;
use crate::wire;
use axum::Json as Answered;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;
use tract_actors::ports::{
    Endpoint, IdempotencyKey, KeyHome, NewDelivery, OpenThread, StoreError, Tenants, UserWrite, What, Written,
};
use tract_actors::router::{Answer, Ask, Failure};
use tract_domain::{
    BusinessId, ClientId, Command, DevicePlatform, MessageType, Origin, Policy, Reply, Thread, Topic, Turn, UserId,
};
use utoipa::ToSchema;
use uuid::Uuid;

/// How often a write is decided again when others write the same user, and asked again when its outcome is unknown.
const TRIES: usize = 8;

/// A user as the channel side tells of it. A field that is absent stays as it is; an empty text removes it.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"auth_id": "wa:491700000001", "name": "Kim", "device_platform": 14, "business_id": 343,
    "custom_data": {"plan": "gold"}}))]
pub struct PutUser {
    /// The client's own id of the user.
    #[schema(value_type = String, max_length = 256)]
    auth_id: Name<256>,
    /// The client's own proof of the user, handed on to its bot.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    auth_code: Option<Text<4096>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    mobile_no: Option<Text<64>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    email: Option<Text<320>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Option<Text<256>>,
    /// ISO 639-1.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "en")]
    language_code: Option<Text<16>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    phone_model: Option<Text<256>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    os_version: Option<Text<256>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    package_name: Option<Text<256>>,
    /// 2 Android, 3 Facebook, 4 Jio, 5 WebSDK, 6 iOS, 13 Webhook (default), 14 WhatsApp, 15 Jio Chat connector.
    #[serde(default)]
    #[schema(value_type = Option<u64>, example = 14)]
    device_platform: Option<Int>,
    /// Default: the client's first business.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    business_id: Option<Int>,
    /// A flat object; replaces the former one.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    custom_data: Option<Map<String, Value>>,
}

/// The user as it is now.
#[derive(Serialize, ToSchema)]
pub struct UserPut {
    auth_id: String,
    mobile_no: Option<String>,
    email: Option<String>,
    name: Option<String>,
    /// The public handle of the user's thread with this business.
    user_id: String,
}

/// `POST /v1.0/user/`: creates, or updates what is there
pub async fn create_user(
    State(edge): State<Arc<Edge>>,
    side: ChannelSide,
    Posted { body, key }: Posted<PutUser>,
) -> Result<Response, Problem> {
    edge.put_user(&side.client, body, key, true).await
}

/// `PUT /v1.0/user/`: updates
pub async fn update_user(
    State(edge): State<Arc<Edge>>,
    side: ChannelSide,
    Posted { body, .. }: Posted<PutUser>,
) -> Result<Response, Problem> {
    edge.put_user(&side.client, body, None, false).await
}

impl PutUser {
    /// What the schema cannot say.
    fn check(&self) -> Result<Option<DevicePlatform>, Problem> {
        let language = self.language_code.as_deref().unwrap_or_default();
        if !language.is_empty() && (language.len() != 2 || !language.bytes().all(|b| b.is_ascii_alphabetic())) {
            return Err(Problem::invalid("language_code", "must be a two-letter code of ISO 639-1"));
        }
        for (name, value) in self.custom_data.iter().flatten() {
            if value.is_object() || value.is_array() {
                return Err(Problem::invalid(&format!("custom_data.{name}"), "must not be nested"));
            }
        }
        let platform = self.device_platform.map(|Int(number)| DevicePlatform::try_from(number));
        platform.transpose().map_err(|what| Problem::invalid("device_platform", what))
    }

    /// The profile with this told of it.
    fn over(&self, profile: Option<Profile>, platform: Option<DevicePlatform>) -> Profile {
        let mut profile = profile.unwrap_or_else(|| Profile::new(&*self.auth_id));
        fn set<const N: usize>(field: &mut Option<String>, told: &Option<Text<N>>) {
            if let Some(text) = told {
                *field = Some(text.to_string()).filter(|t| !t.is_empty());
            }
        }
        set(&mut profile.auth_code, &self.auth_code);
        set(&mut profile.mobile_no, &self.mobile_no);
        set(&mut profile.email, &self.email);
        set(&mut profile.name, &self.name);
        set(&mut profile.language_code, &self.language_code);
        set(&mut profile.phone_model, &self.phone_model);
        set(&mut profile.os_version, &self.os_version);
        set(&mut profile.package_name, &self.package_name);
        if let Some(language) = &mut profile.language_code {
            language.make_ascii_lowercase();
        }
        if let Some(platform) = platform {
            profile.device_platform = platform;
        }
        if let Some(custom) = &self.custom_data {
            profile.custom_data.clone_from(custom);
        }
        profile
    }
}

impl Edge {
    async fn put_user(
        &self,
        client: &ClientId,
        body: PutUser,
        key: Option<RequestKey>,
        create: bool,
    ) -> Result<Response, Problem> {
        let platform = body.check()?;
        let (business, policy) = self.business(client, body.business_id)?;
        let scope = Scope { client: Some(client), receiver: "", route: "user", thread: "" };
        let user_id = self.store.user_id(client, business, &body.auth_id);
        let key = key.map(|key| key.scoped(scope, KeyHome::User(user_id.clone()), self.now()));
        for _ in 0..TRIES {
            if let Some(key) = &key
                && let Some(answer) = self.kept(key).await?
            {
                return Ok(idempotency::body(&answer, true));
            }
            let stored = self.store.user(client, &body.auth_id).await?;
            if stored.is_none() && !create {
                return Err(Problem::unknown_user());
            }
            let former = stored.as_ref().map(|user| read_profile(&user.profile)).transpose()?;
            let profile = body.over(former, platform);
            let answer = rendered(&UserPut {
                auth_id: profile.auth_id.clone(),
                mobile_no: profile.mobile_no.clone(),
                email: profile.email.clone(),
                name: profile.name.clone(),
                user_id: user_id.to_string(),
            });
            let write = UserWrite {
                commit_id: Uuid::now_v7(),
                client: client.clone(),
                auth_id: (&*body.auth_id).into(),
                expected_version: stored.map_or(0, |user| user.version),
                profile: Some(rendered(&profile)),
                open: Some(self.opening(client, business, &policy, &user_id).await?),
                idempotency: key.clone().map(|key| (key, answer.clone())),
                now: self.now(),
            };
            if self.written(write).await? == Written::Applied {
                return Ok(idempotency::body(&answer, false));
            }
        }
        Err(contended())
    }

    /// The business that is meant, with the policy of its threads.
    pub(super) fn business(&self, client: &ClientId, named: Option<Int>) -> Result<(BusinessId, Arc<Policy>), Problem> {
        let directory = self.tenancy.directory();
        let first = || directory.client(client).and_then(|c| c.businesses.first()).map(|b| b.business_id);
        let Some(business) = named.map(|Int(id)| id).or_else(first) else {
            return Err(Problem::invalid("business_id", "is missing, and the client has no business"));
        };
        let policy = self.tenancy.policy(client, business).ok_or_else(|| Problem::unknown_business(business))?;
        Ok((business, policy))
    }

    /// A new thread, and who is told of it.
    async fn opening(
        &self,
        client: &ClientId,
        business: BusinessId,
        policy: &Policy,
        user_id: &UserId,
    ) -> Result<OpenThread, Problem> {
        let origin = self.store.origin(user_id).await?;
        let hooks = policy.receivers.iter().filter_map(|r| self.tenancy.hook(client, &r.id, Topic::CreateUser));
        let outbox = hooks
            .map(|endpoint| NewDelivery {
                webhook_id: create_user_id(user_id, origin, &endpoint),
                endpoint,
                what: What::CreateUser,
                sequence: 0,
                answers_handoff: None,
            })
            .collect();
        Ok(OpenThread { business, thread: Thread::open_after(policy, origin), outbox })
    }

    /// Writes, and asks again while the outcome is unknown.
    async fn written(&self, write: UserWrite) -> Result<Written, Problem> {
        for _ in 0..TRIES {
            match self.store.write_user(write.clone()).await {
                Err(StoreError::OutcomeUnknown) => {}
                answered => return Ok(answered?),
            }
        }
        Err(StoreError::OutcomeUnknown.into())
    }

    /// Asks a customer's thread; one that is not there, or has left meanwhile, is opened first.
    pub(super) async fn ask_of(
        &self,
        customer: &Customer<'_>,
        command: Command,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Answer, NotTaken> {
        let ask = Ask { user_id: customer.user_id.clone(), client: customer.client.clone(), command, idempotency };
        match self.threads.ask(ask.clone()).await {
            Err(Failure::UnknownUser) => {
                self.open(customer).await.map_err(NotTaken::Surely)?;
                Ok(self.threads.ask(ask).await?)
            }
            answered => Ok(answered?),
        }
    }

    /// Opens a customer's thread with this business, if the customer is known to the client.
    pub(super) async fn open(&self, customer: &Customer<'_>) -> Result<(), Problem> {
        let Customer { client, auth_id, business, policy, user_id } = *customer;
        for _ in 0..TRIES {
            let not_registered =
                || Problem::new(StatusCode::FORBIDDEN, "user_not_registered", "user is not registered");
            let stored = self.store.user(client, auth_id).await?.ok_or_else(not_registered)?;
            let write = UserWrite {
                commit_id: Uuid::now_v7(),
                client: client.clone(),
                auth_id: auth_id.into(),
                expected_version: stored.version,
                profile: None,
                open: Some(self.opening(client, business, policy, user_id).await?),
                idempotency: None,
                now: self.now(),
            };
            if self.written(write).await? == Written::Applied {
                return Ok(());
            }
        }
        Err(contended())
    }
}

/// A customer at one business of the client.
pub(super) struct Customer<'a> {
    pub(super) client: &'a ClientId,
    pub(super) auth_id: &'a str,
    pub(super) business: BusinessId,
    pub(super) policy: &'a Policy,
    pub(super) user_id: &'a UserId,
}

/// Why there is no message.
pub(super) enum NotTaken {
    /// There may be one.
    Perhaps,
    /// There is none.
    Surely(Problem),
}

impl From<Failure> for NotTaken {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::OutcomeUnknown => Self::Perhaps,
            other => Self::Surely(other.into()),
        }
    }
}

impl From<NotTaken> for Problem {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::Perhaps => Failure::OutcomeUnknown.into(),
            NotTaken::Surely(problem) => problem,
        }
    }
}

/// What a customer wrote.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"user": {"auth_id": "wa:491700000001"}, "message_body": "Where is my order?",
    "message_type": 0, "business_id": 343}))]
pub struct LogMessage {
    /// Who.
    #[schema(value_type = LogUser)]
    user: Nested<LogUser>,
    /// Never parsed: always a text. At most 64 KiB.
    message_body: String,
    /// 0, regular text.
    #[schema(value_type = u64, example = 0)]
    message_type: Int,
    /// To which business.
    #[schema(value_type = u64, example = 343)]
    business_id: Int,
}

/// Who wrote.
#[derive(Deserialize, ToSchema)]
pub struct LogUser {
    /// The client's own id of the user.
    #[schema(value_type = String, max_length = 256)]
    auth_id: Name<256>,
}

/// The message as it was taken.
#[derive(Serialize, ToSchema)]
pub struct MessageLogged {
    message_id: u64,
    message_body: String,
    #[schema(example = "2026-07-25T17:20:00.007Z")]
    created_at: String,
    message_type: u64,
}

/// A customer's message that is in its thread.
pub(super) struct TakenIn {
    pub(super) user_id: UserId,
    pub(super) policy: Arc<Policy>,
    /// Its turn, if the IVA has the thread.
    pub(super) turn: Turn,
    pub(super) message_id: u64,
    pub(super) answer: Answer,
}

impl Edge {
    /// Takes in a customer's message. Of a user who is known from another business it opens the thread here.
    pub(super) async fn take_in(
        &self,
        client: &ClientId,
        body: &LogMessage,
        key: Option<RequestKey>,
        route: &'static str,
    ) -> Result<TakenIn, Problem> {
        if body.message_type.0 != MessageType::Text.number() {
            return Err(Problem::invalid("message_type", "must be 0, regular text"));
        }
        let said = hsl::customer_text(&body.message_body).map_err(|f| Problem::invalid("message_body", f))?;
        let (business, policy) = self.business(client, Some(body.business_id))?;
        let auth_id = &*body.user.0.auth_id;
        let user_id = self.store.user_id(client, business, auth_id);
        let scope = Scope { client: Some(client), receiver: "", route, thread: user_id.as_str() };
        let key = key.map(|key| key.scoped(scope, KeyHome::Thread(user_id.clone()), self.now()));
        let customer = Customer { client, auth_id, business, policy: &policy, user_id: &user_id };
        let answer = self.ask_of(&customer, Command::Ceu { body: said, metadata: None }, key).await?;
        let Reply::Message { entry, sequence, conversation, control_epoch } = answer.reply else {
            return Err(unexpected(&answer.reply));
        };
        let turn = Turn { message: sequence, conversation, epoch: control_epoch };
        let message_id = answer.message_ids.get(entry).copied().ok_or_else(Problem::internal)?;
        Ok(TakenIn { user_id, policy, turn, message_id, answer })
    }
}

/// `POST /v1.0/log_message_from_user/`
pub async fn log_message(
    State(edge): State<Arc<Edge>>,
    side: ChannelSide,
    Posted { body, key }: Posted<LogMessage>,
) -> Result<Response, Problem> {
    let taken = edge.take_in(&side.client, &body, key, "log_message_from_user").await?;
    let logged = MessageLogged {
        message_id: taken.message_id,
        message_body: body.message_body,
        created_at: wire::time(taken.answer.at),
        message_type: body.message_type.0,
    };
    Ok(mark(Answered(logged).into_response(), taken.answer.replayed))
}

/// A channel webhook to enable.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"enabled": true, "business_id": 343}))]
pub struct EnableWebhook {
    /// Only `true` can be asked for.
    enabled: bool,
    /// Default: the client's first business.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    business_id: Option<Int>,
    /// A business has one channel webhook for all platforms: this says nothing more.
    #[serde(default)]
    #[schema(value_type = Option<u64>, example = 13)]
    device_platform: Option<Int>,
}

/// It is enabled.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookEnabled {
    /// Always true.
    enabled: bool,
}

/// `POST /v1.0/webhook/`
pub async fn enable_webhook(
    State(edge): State<Arc<Edge>>,
    side: ChannelSide,
    Posted { body, key }: Posted<EnableWebhook>,
) -> Result<Response, Problem> {
    if !body.enabled {
        return Err(Problem::invalid(
            "enabled",
            "must be true: a webhook that is not wanted is taken out of the tenants",
        ));
    }
    if let Some(Int(number)) = body.device_platform {
        DevicePlatform::try_from(number).map_err(|what| Problem::invalid("device_platform", what))?;
    }
    let directory = edge.tenancy.directory();
    let client = directory.client(&side.client).ok_or_else(|| Problem::unknown("client"))?;
    let first = || client.businesses.first().map(|b| b.business_id);
    let Some(business) = body.business_id.map(|Int(id)| id).or_else(first) else {
        return Err(Problem::invalid("business_id", "is missing, and the client has no business"));
    };
    let named = client.business(business).ok_or_else(|| Problem::unknown_business(business))?;
    if named.webhook.is_none() {
        let text = format!("business_id: business {business} has no channel webhook");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_webhook", text));
    }
    let scope = Scope { client: Some(&side.client), receiver: "", route: "webhook", thread: "" };
    let key = key.map(|key| key.scoped(scope, KeyHome::Configuration, edge.now()));
    if let Some(key) = &key
        && let Some(answer) = edge.kept(key).await?
    {
        return Ok(idempotency::body(&answer, true));
    }
    let answer = rendered(&WebhookEnabled { enabled: true });
    let endpoint = Endpoint::channel(&side.client, business);
    edge.tenancy.enable(&endpoint, edge.now(), key.map(|key| (key, answer.clone()))).await?;
    Ok(idempotency::body(&answer, false))
}

/// The same for ever: a user is created once for each endpoint.
fn create_user_id(user_id: &UserId, origin: Origin, endpoint: &Endpoint) -> String {
    let mut event = format!("create_user\n{user_id}\n{}", endpoint.name());
    if origin.sequence > 0 {
        // Perhaps the user has been here before: this is another event.
        event.push_str(&format!("\n{}", origin.sequence));
    }
    let digest = Sha256::digest(event);
    digest.iter().take(16).fold("user_".to_owned(), |mut id, byte| {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

fn contended() -> Problem {
    Problem::unavailable("overloaded", "too many requests change this user at once; nothing was done")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Shape, decode};

    fn read(json: Value) -> Result<Profile, String> {
        let body: Result<PutUser, _> = decode::json(json.to_string().as_bytes());
        let told = body.and_then(|body| body.check().map(|platform| body.over(None, platform)));
        told.map_err(|p| p.body(Shape::ErrorMessage, "")["error_message"].as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn bad_users_are_refused_by_field() {
        for (field, value, says) in [
            ("auth_id", Value::from("a\u{7}b"), "auth_id: must not contain control characters"),
            ("auth_id", Value::from("a".repeat(257)), "auth_id: must be at most 256 characters long"),
            ("language_code", Value::from("eng"), "language_code: must be a two-letter code of ISO 639-1"),
            ("custom_data", serde_json::json!({"a": {"b": 1}}), "custom_data.a: must not be nested"),
            ("custom_data", serde_json::json!({"a": [1]}), "custom_data.a: must not be nested"),
            ("custom_data", serde_json::json!([1]), "custom_data: invalid type: sequence, expected a map"),
            ("business_id", Value::from(-1), "business_id: must be an integer from 0 to 9007199254740992"),
        ] {
            let mut body = serde_json::json!({"auth_id": "a"});
            body[field] = value;
            assert_eq!(read(body).map(drop), Err(says.to_owned()));
        }
        let unknown = read(serde_json::json!({"auth_id": "a", "device_platform": 7})).map(drop).unwrap_err();
        assert!(unknown.starts_with("device_platform: 7 is not one of 2 (Android)"), "{unknown}");
        assert_eq!(read(serde_json::json!({})).map(drop), Err("auth_id: is missing".to_owned()));
    }

    #[test]
    fn an_update_leaves_what_it_does_not_mention() {
        let first = read(serde_json::json!({"auth_id": "a", "name": "Kim", "email": "k@example.org",
            "language_code": "EN", "device_platform": "14", "custom_data": {"plan": "gold", "n": 1, "x": null}}))
        .unwrap();
        assert_eq!((first.device_platform, first.language_code.as_deref()), (DevicePlatform::WhatsApp, Some("en")));
        let body: PutUser = decode::json(br#"{"auth_id":"a","email":"","custom_data":{"plan":"lead"}}"#).unwrap();
        let second = body.over(Some(first), None);
        assert_eq!((second.name.as_deref(), second.email), (Some("Kim"), None));
        assert_eq!(second.device_platform, DevicePlatform::WhatsApp);
        assert_eq!(Value::Object(second.custom_data), serde_json::json!({"plan": "lead"}));
    }

    #[test]
    fn a_creation_is_told_under_one_id_for_each_endpoint() {
        let (user, other) = (UserId::new("u1").unwrap(), UserId::new("u2").unwrap());
        let (hook, channel) = (Endpoint::from_name("hook:a:b:user_events:create_user"), Endpoint::from_name("x"));
        let (first, again) = (Origin::default(), Origin { sequence: 9, control_epoch: 1, conversation: 1 });
        let id = create_user_id(&user, first, &hook);
        assert_eq!(id, create_user_id(&user, first, &hook));
        for another in [(&other, first, &hook), (&user, first, &channel), (&user, again, &hook)] {
            assert_ne!(id, create_user_id(another.0, another.1, another.2));
        }
    }
}
