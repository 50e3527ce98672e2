//! What we post to others, described: hooks (section 4), the channel webhook (section 10), the bot's turns (section 9).
//!
//! These types describe; the payloads themselves are rendered where deliveries are made.

use crate::http::routes::SchemaOf;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// How all of them are delivered.
pub(super) const DELIVERY: &str = "Delivered at least once, in order for each thread; duplicates carry the same \
    `webhook-id`. Signed as Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`) and with \
    `X-Hub-Signature: sha1=…`; for 24 hours after a secret is replaced, both sign (`X-Hub-Signature-Previous`). Answer with a 2xx within 5 seconds (the bot: within its own timeout); a non-empty `error` in \
    the answer's JSON rejects it.";

/// One kind of webhook.
pub(super) struct Webhook {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) payload: SchemaOf,
}

/// All of them.
pub(super) fn webhooks() -> Vec<Webhook> {
    let webhook = |name, summary, payload| Webhook { name, summary, payload };
    vec![
        webhook("message.receive", "A message entered the thread", SchemaOf::of::<MessageReceived>()),
        webhook("conversation_state", "The conversation entered a state", SchemaOf::of::<EventHappened>()),
        webhook("aeu_events", "Another agent side reported something", SchemaOf::of::<EventHappened>()),
        webhook("user_events.create_user", "A user was created", SchemaOf::of::<UserCreated>()),
        webhook("thread_control", "Control moved, or was asked for", SchemaOf::of::<EventHappened>()),
        webhook("ping", "A hook is tried, by `POST /tract/hooks/test/`", SchemaOf::of::<HookPinged>()),
        webhook("channel", "A message or event for the customer", SchemaOf::of::<ChannelWebhookBody>()),
        webhook("iva_turn", "A customer's message for the bot", SchemaOf::of::<IvaTurn>()),
    ]
}

/// A ping, to the hook that it tries. It has a `webhook-id` of its own and is not sent again.
#[derive(Serialize, ToSchema)]
struct HookPinged {
    /// Always `ping`.
    #[schema(example = "ping")]
    event: String,
    #[schema(example = "message")]
    category: String,
    #[schema(example = "receive")]
    subcategory: String,
    timestamp: String,
}

/// A message, to a `message.receive` hook.
#[derive(Serialize, ToSchema)]
struct MessageReceived {
    user_id: String,
    message_id: u64,
    #[schema(example = "1")]
    conversation_number: String,
    /// An HSL object, serialised to a string.
    #[schema(example = r#"{"text":"Where is my order?","type":"TEXT","data":{"quick_replies":[]}}"#)]
    message_body: String,
    /// `ceu`, `iva`, `haptik`, `ect` or `aeu`.
    #[schema(example = "ceu")]
    sender: String,
    timestamp: String,
    /// The sender's own keys, with `sequence`, `control_epoch`, `active`, `standby` and `replayed`.
    #[schema(value_type = Object, example = json!({"sequence": 7, "control_epoch": 2, "active": "iva", "standby": true}))]
    metadata: Value,
}

/// An event, to a hook of its category and subcategory.
#[derive(Serialize, ToSchema)]
struct EventHappened {
    #[schema(example = "1")]
    conversation_number: String,
    user_id: String,
    #[schema(example = "conversation_state")]
    category: String,
    #[schema(example = "incomplete")]
    subcategory: String,
    /// JSON, serialised to a string: `sequence`, `control_epoch`, `timestamp`, and what the event is about.
    #[schema(example = r#"{"sequence":8,"control_epoch":2,"timestamp":"2026-07-25T17:20:00.007Z","cause":"handoff"}"#)]
    metadata: String,
}

/// A new user. The answer may be `{"success": true, "ect_user_id": "…"}`.
#[derive(Serialize, ToSchema)]
struct UserCreated {
    user_id: String,
    /// The client's own id of the user.
    third_party_user_id: Option<String>,
    user_name: Option<String>,
    /// The platform's name.
    #[schema(example = "WhatsApp")]
    device_platform: Option<String>,
    details_available: Option<Vec<DetailName>>,
}

/// The name of a detail.
#[derive(Serialize, ToSchema)]
struct DetailName {
    #[schema(example = "email")]
    name: String,
}

/// A message or event for the customer, to the business's channel webhook.
#[derive(Serialize, ToSchema)]
struct ChannelWebhookBody {
    /// `1.0`
    version: String,
    timestamp: String,
    business_id: u64,
    business_name: String,
    /// `message`, `chat_pinned`, `chat_complete` or `webhook_conversation_complete`.
    event_name: String,
    user: ChannelUser,
    agent: ChannelAgent,
    /// Not with `webhook_conversation_complete`.
    message: Option<ChannelMessage>,
    /// Only with `webhook_conversation_complete`.
    #[schema(value_type = Option<Object>)]
    follow_up_details: Option<Value>,
    /// Only with `webhook_conversation_complete`: which conversation ended, how, and by whom.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
}

/// To whom.
#[derive(Serialize, ToSchema)]
struct ChannelUser {
    auth_id: String,
    device_platform: u64,
    device_platform_name: String,
    user_name: Option<String>,
    user_id: String,
    phone_model: Option<String>,
    os_version: Option<String>,
    package_name: Option<String>,
}

/// From whom.
#[derive(Serialize, ToSchema)]
struct ChannelAgent {
    id: Option<String>,
    name: String,
    profile_image: Option<String>,
    is_automated: bool,
    email: Option<String>,
}

/// What.
#[derive(Serialize, ToSchema)]
struct ChannelMessage {
    id: u64,
    /// An HSL object.
    #[schema(value_type = Object)]
    body: Value,
}

/// A customer's message, to the client's bot. The answer: `{"response": […], "status": true, "callback_ops"?,
/// "conversation_details"?, "user_details"?, "complete"?}`, or 202 to answer later with a token of its own.
#[derive(Serialize, ToSchema)]
struct IvaTurn {
    /// `API_INTEGRATION`
    event: String,
    /// `tract`
    node: String,
    business_id: u64,
    #[schema(value_type = Object)]
    user: Value,
    conversation_no: u64,
    #[schema(value_type = Object)]
    conversation_details: Value,
    #[schema(value_type = Object)]
    user_details: Value,
    #[schema(value_type = Object)]
    entities: Value,
    /// `id`, `body`, `type`, `timestamp`.
    #[schema(value_type = Object)]
    message: Value,
}
