//! The one table of what there is: method, path, who may call it, what it takes and gives.
//!
//! The router and the OpenAPI document are both made from it, and tests go through it row by row.

use super::auth::Auth;
use super::{
    Edge, admin, channel, control, deliveries, feedback, files, history, hooks, integration, messages, operations,
    signed, sync, threads, users,
};
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::routing::{MethodFilter, MethodRouter, on};
use std::sync::Arc;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// One operation.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, without the trailing slash, which is optional everywhere. Ids stand in braces.
    pub path: &'static str,
    /// Other paths of the same operation.
    pub aliases: &'static [&'static str],
    /// Who may call it.
    pub auth: Auth,
    /// Whether it changes anything, and so takes an `Idempotency-Key`.
    pub idempotent: bool,
    /// What it is for, in a line.
    pub summary: &'static str,
    /// What else one should know.
    pub about: &'static str,
    /// Its body.
    pub takes: Option<SchemaOf>,
    /// Its query parameters.
    pub query: &'static [Parameter],
    /// Its answer; none for what is not JSON.
    pub gives: Option<SchemaOf>,
    /// The status of success.
    pub success: StatusCode,
    /// Whether its body is a form and not JSON.
    pub is_form: bool,
    /// As what an answer comes that is not JSON.
    pub gives_as: &'static str,
    pub(super) handler: MethodRouter<Arc<Edge>>,
}

/// A query parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// Whether it is a number.
    pub integer: bool,
}

/// The schemas that a type needs.
#[derive(Clone, Copy)]
pub struct SchemaOf {
    /// Its own, by name; none for any object.
    pub own: fn() -> Option<(String, RefOr<Schema>)>,
    /// Those that it refers to.
    pub others: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl std::fmt::Debug for SchemaOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SchemaOf").field(&(self.own)().map(|(name, _)| name)).finish()
    }
}

impl SchemaOf {
    /// Of this type.
    pub fn of<T: ToSchema>() -> Self {
        Self { own: || Some((T::name().into_owned(), <T as PartialSchema>::schema())), others: T::schemas }
    }
    fn object() -> Self {
        Self { own: || None, others: |_| {} }
    }
}

impl Route {
    fn new<H, T>(
        (method, filter): (Method, MethodFilter),
        path: &'static str,
        auth: Auth,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Edge>>,
        T: 'static,
    {
        Self {
            method,
            path,
            aliases: &[],
            auth,
            idempotent: false,
            summary,
            about: "",
            takes: None,
            query: &[],
            gives: None,
            success: StatusCode::OK,
            is_form: false,
            gives_as: "text/plain",
            handler: on(filter, handler),
        }
    }
    /// All its paths.
    pub fn paths(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.path).chain(self.aliases.iter().copied())
    }
    fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
    fn created(self) -> Self {
        Self { success: StatusCode::CREATED, ..self }
    }
    fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }
    fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }
    fn takes<T: ToSchema>(self) -> Self {
        Self { takes: Some(SchemaOf::of::<T>()), ..self }
    }
    fn takes_form<T: ToSchema>(self) -> Self {
        Self { is_form: true, ..self.takes::<T>() }
    }
    fn gives_bytes(self) -> Self {
        Self { gives_as: "application/octet-stream", ..self }
    }
    fn takes_object(self) -> Self {
        Self { takes: Some(SchemaOf::object()), ..self }
    }
    fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }
    fn gives<T: ToSchema>(self) -> Self {
        Self { gives: Some(SchemaOf::of::<T>()), ..self }
    }
    fn gives_object(self) -> Self {
        Self { gives: Some(SchemaOf::object()), ..self }
    }
}

const GET: (Method, MethodFilter) = (Method::GET, MethodFilter::GET);
const POST: (Method, MethodFilter) = (Method::POST, MethodFilter::POST);
const PUT: (Method, MethodFilter) = (Method::PUT, MethodFilter::PUT);
const DELETE: (Method, MethodFilter) = (Method::DELETE, MethodFilter::DELETE);

const fn parameter(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, required: false, integer: false }
}
const USER_ID: Parameter = Parameter { required: true, ..parameter("user_id", "The thread.") };
const AFTER: Parameter =
    Parameter { integer: true, ..parameter("after", "Only entries with a higher sequence; default 0.") };
const LIMIT: Parameter = Parameter { integer: true, ..parameter("limit", "How many at most, 1 to 500; default 100.") };
const CURSOR: Parameter = parameter("cursor", "`next` of the page before.");
const CLIENT_ID: Parameter = parameter("client_id", "Of this client.");
const ENDPOINT: Parameter = parameter("endpoint", "Of this endpoint, as `GET /admin/v1/hooks` names it.");
const FORCE: Parameter = parameter("force", "`true` removes it although threads still use it.");

const FOUND_BY: [Parameter; 6] = [
    CLIENT_ID,
    parameter("state", "In this state: none, bot, incomplete, pinned, waiting, complete."),
    parameter("active", "Held by this receiver."),
    parameter("q", "The beginning of a `user_id`, or a whole `auth_id`."),
    LIMIT,
    CURSOR,
];

const DELIVERIES: [Parameter; 6] = [
    parameter("state", "That have come so far: pending, delivered, rejected, dead."),
    parameter("category", "To this hook, with `subcategory`."),
    parameter("subcategory", "With `category`."),
    parameter("user_id", "Of this thread."),
    LIMIT,
    CURSOR,
];

const HISTORY: [Parameter; 6] = [
    Parameter { integer: true, ..parameter("business_id", "The thread's business.") },
    parameter("user_name", "The thread's `user_id`."),
    parameter("pxut", "The thread's `user_id`, without its business."),
    // Not marked as required: it may be in the body.
    Parameter { integer: true, ..parameter("conversation_no", "Which conversation, from 1. Must be given.") },
    Parameter { integer: true, ..parameter("limit", "Only so many messages, the last ones, 1 to 1000; default 1000.") },
    parameter("response_type", "`json` (default) or `text`."),
];

/// Everything there is, except the pages of the documentation themselves.
pub fn table() -> Vec<Route> {
    let mut table = signed_routes();
    table.extend(tool_routes());
    table.extend(channel_routes());
    table.extend(admin_routes());
    table.extend(operations_routes());
    table
}

/// Part A: what an external chat tool signs with its certificate.
fn signed_routes() -> Vec<Route> {
    use Auth::Signed;
    vec![
        Route::new(POST, "/tract/management/token/issue", Signed, "Get a token", signed::issue_token)
            .aliases(&["/jwt/issue"])
            .about(
                "For one client that the tool is enabled for. Every refusal is a 400 with its code; the same request \
                    again is `replayed_request`. `Idempotency-Key` means nothing here.",
            )
            .takes::<signed::SignedTokenRequest>()
            .gives::<signed::SignedTokenIssued>(),
        Route::new(
            POST,
            "/tract/management/client/list",
            Signed,
            "List the clients you are enabled for",
            signed::list_clients,
        )
        .takes::<signed::ClientListRequest>()
        .gives::<signed::ClientList>(),
    ]
}

/// Part A: what an external chat tool uses.
fn tool_routes() -> Vec<Route> {
    use Auth::Receiver;
    vec![
        Route::new(POST, "/tract/hooks/register", Receiver, "Register a hook", hooks::register)
            .about("One hook for each category and subcategory; registering again replaces the URL and enables it. The \
                    answer that makes the signing secret shows it, and no other.")
            .takes::<hooks::RegisterHook>()
            .gives::<hooks::HookRegistered>()
            .idempotent(),
        Route::new(GET, "/tract/hooks/list", Receiver, "List hooks and how they fare", hooks::list)
            .gives::<hooks::Hooks>(),
        Route::new(POST, "/tract/hooks/unregister", Receiver, "Remove a hook", hooks::unregister)
            .about("What waits for it goes too.")
            .takes::<hooks::WhichHook>()
            .gives::<hooks::HookUnregistered>()
            .idempotent(),
        Route::new(POST, "/tract/hooks/enable", Receiver, "Enable a hook again", hooks::enable)
            .about("What was kept while it was disabled is sent, in order. Enabling one that is enabled changes nothing.")
            .takes::<hooks::WhichHook>()
            .gives::<hooks::HookRegistered>()
            .idempotent(),
        Route::new(POST, "/tract/hooks/test", Receiver, "Send a hook a ping", hooks::trial::test)
            .about("Signed like a payload, sent at once, also to a hook that is disabled: `{\"event\": \"ping\", \"category\", \
                    \"subcategory\", \"timestamp\"}`. A ping that fails is a 200 with `success: false`.")
            .takes::<hooks::WhichHook>()
            .gives::<hooks::trial::HookTested>()
            .idempotent(),
        Route::new(POST, "/tract/hooks/secret/rotate", Receiver, "Replace the signing secret", hooks::trial::rotate)
            .about("For 24 hours both sign: two signatures in `webhook-signature`, the old one's in \
                    `X-Hub-Signature-Previous`. Replacing it again within that time ends the oldest at once.")
            .takes::<hooks::trial::RotateSecret>()
            .gives::<hooks::trial::SecretRotated>()
            .idempotent(),
        Route::new(GET, "/tract/hooks/deliveries", Receiver, "What was sent to your hooks", hooks::deliveries::list)
            .about("All that wait and all dead letters (kept 7 days); of those received, the last thousand or so for each hook.")
            .query(&DELIVERIES)
            .gives::<hooks::deliveries::Deliveries>(),
        Route::new(POST, "/tract/hooks/replay", Receiver, "Send dead letters again", hooks::deliveries::replay)
            .about("One by its `webhook_id`, or all since a time. They carry `replayed: true` and may be out of order.")
            .takes::<hooks::deliveries::ReplayDeliveries>()
            .gives::<deliveries::DeliveriesReplayed>()
            .idempotent(),
        Route::new(POST, "/tract/user", Receiver, "Who a user is", users::user)
            .takes::<control::OfThread>()
            .gives::<users::UserView>(),
        Route::new(POST, "/tract/user/details", Receiver, "A user's details", users::user_details)
            .takes::<users::DetailsRequest>()
            .gives::<users::UserDetails>(),
        Route::new(POST, "/tract/message/send", Receiver, "Send a message to the customer", messages::send)
            .about("Only the active receiver may: others get 409 `not_active` with the holder. A string that begins like \
                    a JSON object must be valid HSL; any other is text.")
            .takes::<messages::SendMessage>()
            .gives::<messages::MessageSent>()
            .idempotent(),
        Route::new(POST, "/tract/events/send", Receiver, "Report an event", messages::send_event)
            .aliases(&["/tract/event/send"])
            .about("`aeu_events.received`, `.allocated`, `.user_timeout`; `conversation_state.waiting`, `.complete`.")
            .takes::<messages::SendEvent>()
            .gives::<messages::EventSent>()
            .idempotent(),
        Route::new(GET, "/tract/thread/feed", Receiver, "Read a thread's entries", threads::feed)
            .about("Gapless, oldest first: how a tool that was down catches up. A tool that is set to get messages only \
                    while it is in control sees only the conversations that it has held; there, go on while `next_after` \
                    is greater than `after`.")
            .query(&[USER_ID, AFTER, LIMIT])
            .gives::<threads::FeedPage>(),
        Route::new(GET, "/tract/thread", Receiver, "Where a thread stands, and why", threads::show)
            .query(&[USER_ID])
            .gives::<threads::ThreadView>(),
        Route::new(POST, "/tract/thread_control/listeners", Receiver, "Who could hold a thread", control::listeners)
            .takes::<control::OfThread>()
            .gives::<control::Listeners>(),
        Route::new(POST, "/tract/thread_control/request", Receiver, "Move thread control", control::request)
            .about("A refusal has `success: false` and a `reason` with code and message, and the holder where that is why.")
            .takes::<control::RequestControl>()
            .gives::<control::ControlGranted>()
            .idempotent(),
    ]
}

/// Part B: the channel side and the bot.
fn channel_routes() -> Vec<Route> {
    vec![
        Route::new(POST, "/v1.0/user", Auth::Channel, "Create a user", channel::create_user)
            .about("Updates a user that is there.")
            .takes::<channel::PutUser>()
            .gives::<channel::UserPut>()
            .idempotent(),
        Route::new(PUT, "/v1.0/user", Auth::Channel, "Update a user", channel::update_user)
            .takes::<channel::PutUser>()
            .gives::<channel::UserPut>(),
        Route::new(
            POST,
            "/v1.0/log_message_from_user",
            Auth::Channel,
            "Take in a customer's message",
            channel::log_message,
        )
        .about("To another business of the client it opens that thread from the same user's data.")
        .takes::<channel::LogMessage>()
        .gives::<channel::MessageLogged>()
        .idempotent(),
        Route::new(
            POST,
            "/v1.0/sync_message_from_user",
            Auth::Channel,
            "Take in a customer's message and wait for the bot's replies",
            sync::sync_message,
        )
        .about("As `log_message_from_user`, and the replies go to the channel webhook all the same, under the same ids. Waits \
                for the bot's own time-out and 5 seconds, at most a minute; then, or when an agent has the conversation, \
                `message` is empty.")
        .takes::<channel::LogMessage>()
        .gives::<sync::SyncReply>()
        .idempotent(),
        Route::new(
            POST,
            "/v1.0/log_feedback_from_user",
            Auth::Channel,
            "Take in what a customer thinks of the conversation",
            feedback::log_feedback,
        )
        .about("It stands in the thread's feed; no hook tells of it. Again within an hour is 409 `duplicate_feedback`.")
        .takes::<feedback::LogFeedback>()
        .gives::<integration::Success>()
        .created()
        .idempotent(),
        Route::new(POST, files::ROUTE, Auth::Channel, "Take in a file that a customer sent", files::log_file)
            .about(
                "An image becomes a CAROUSEL, a document a BUTTON with a LINK; `metadata` has `file_url` and \
                    `message_type`. The same `Idempotency-Key` and form, whatever its boundary, gets the first link again.",
            )
            .takes_form::<files::FileFields>()
            .gives::<files::FileLogged>()
            .idempotent(),
        Route::new(POST, "/v1.0/webhook", Auth::Channel, "Enable the channel webhook again", channel::enable_webhook)
            .about("What was kept while it was disabled is sent, in order.")
            .takes::<channel::EnableWebhook>()
            .gives::<channel::WebhookEnabled>()
            .idempotent(),
        Route::new(
            POST,
            "/integration/external/v1.0/send_chat_to_agent",
            Auth::Integration,
            "Move a chat to an agent after a countdown",
            integration::send_chat_to_agent,
        )
        .takes::<integration::SendChatToAgent>()
        .gives::<integration::Success>()
        .idempotent(),
        Route::new(
            GET,
            "/integration/external/v1.0/get_chat_history",
            Auth::Integration,
            "Read a conversation",
            history::first,
        )
        .about("As v2.0, but agents appear as `agent(<name>)`.")
        .query(&HISTORY)
        .gives::<history::ChatHistory>(),
        Route::new(
            GET,
            "/integration/external/v2.0/get_chat_history",
            Auth::Integration,
            "Read a conversation",
            history::second,
        )
        .about("By `business_id` and `user_name`, else by `pxut`. The parameters may also be fields of a JSON body.")
        .query(&HISTORY)
        .gives::<history::ChatHistory>(),
    ]
}

/// Part C: the operator.
fn admin_routes() -> Vec<Route> {
    use Auth::Admin;
    use admin::{certificates, drain, hooks as endpoints, nodes, tenants, threads, tokens};
    vec![
        Route::new(POST, "/admin/v1/apply", Admin, "Create or update tenants", tenants::apply)
            .about(
                "The form of `tenants.toml` as JSON, certificates inlined as PEM text. All or nothing; applying the \
                    same again changes nothing.",
            )
            .takes_object()
            .gives::<tenants::Applied>()
            .idempotent(),
        Route::new(GET, "/admin/v1/ects", Admin, "List external chat tools", tenants::list_ects).gives_object(),
        Route::new(GET, "/admin/v1/ects/{ect_id}", Admin, "An external chat tool", tenants::get_ect).gives_object(),
        Route::new(PUT, "/admin/v1/ects/{ect_id}", Admin, "Create or replace an external chat tool", tenants::put_ect)
            .takes_object()
            .gives_object(),
        Route::new(DELETE, "/admin/v1/ects/{ect_id}", Admin, "Remove an external chat tool", tenants::delete_ect)
            .about("409 `in_use` with the count while it holds threads, unless forced.")
            .query(&[FORCE])
            .gives_object(),
        Route::new(
            GET,
            "/admin/v1/ects/{ect_id}/certificates",
            Admin,
            "List a chat tool's certificates",
            certificates::list,
        )
        .gives::<certificates::Certificates>(),
        Route::new(
            POST,
            "/admin/v1/ects/{ect_id}/certificates",
            Admin,
            "Upload a self-signed certificate",
            certificates::upload,
        )
        .about("One that is held already keeps its id.")
        .takes::<certificates::UploadCertificate>()
        .gives::<certificates::CertificateView>()
        .idempotent(),
        Route::new(GET, "/admin/v1/ects/{ect_id}/certificates/{uuid}", Admin, "A certificate", certificates::show)
            .gives::<certificates::CertificateView>(),
        Route::new(
            DELETE,
            "/admin/v1/ects/{ect_id}/certificates/{uuid}",
            Admin,
            "Revoke a certificate",
            certificates::revoke,
        )
        .about("What is signed with it is refused from then on. Tokens that it obtained live on until they expire.")
        .gives_object(),
        Route::new(GET, "/admin/v1/clients", Admin, "List clients", tenants::list_clients).gives_object(),
        Route::new(GET, "/admin/v1/clients/{client_id}", Admin, "A client", tenants::get_client)
            .about("Secrets show as `set`.")
            .gives_object(),
        Route::new(PUT, "/admin/v1/clients/{client_id}", Admin, "Create or replace a client", tenants::put_client)
            .about("Secrets that are absent, or `set`, stay as they are.")
            .takes_object()
            .gives_object(),
        Route::new(DELETE, "/admin/v1/clients/{client_id}", Admin, "Remove a client", tenants::delete_client)
            .about("409 `in_use` with the count while it has threads, unless forced.")
            .query(&[FORCE])
            .gives_object(),
        Route::new(
            GET,
            "/admin/v1/clients/{client_id}/businesses",
            Admin,
            "List a client's businesses",
            tenants::list_businesses,
        )
        .gives_object(),
        Route::new(
            GET,
            "/admin/v1/clients/{client_id}/businesses/{business_id}",
            Admin,
            "A business",
            tenants::get_business,
        )
        .gives_object(),
        Route::new(
            PUT,
            "/admin/v1/clients/{client_id}/businesses/{business_id}",
            Admin,
            "Create or replace a business",
            tenants::put_business,
        )
        .takes_object()
        .gives_object(),
        Route::new(
            DELETE,
            "/admin/v1/clients/{client_id}/businesses/{business_id}",
            Admin,
            "Remove a business",
            tenants::delete_business,
        )
        .about("409 `in_use` with the count while it has threads, unless forced.")
        .query(&[FORCE])
        .gives_object(),
        Route::new(POST, "/admin/v1/tokens", Admin, "Issue a token for a receiver", tokens::issue)
            .takes::<tokens::IssueToken>()
            .gives::<tokens::TokenIssued>(),
        Route::new(GET, "/admin/v1/hooks", Admin, "Every endpoint and how it fares", endpoints::list)
            .about("Hooks, channel webhooks and bots of all clients, or of one.")
            .query(&[CLIENT_ID])
            .gives::<endpoints::Endpoints>(),
        Route::new(POST, "/admin/v1/hooks/enable", Admin, "Enable an endpoint again", endpoints::enable)
            .about(
                "What was kept while it was disabled is sent, in order. Enabling one that is enabled changes nothing.",
            )
            .takes::<endpoints::WhichEndpoint>()
            .gives::<endpoints::EndpointEnabled>()
            .idempotent(),
        Route::new(GET, "/admin/v1/dead_letters", Admin, "Deliveries that were given up", endpoints::dead_letters)
            .about("Of all clients, of one, or of one endpoint. They are kept for 7 days.")
            .query(&[CLIENT_ID, ENDPOINT, LIMIT, CURSOR])
            .gives::<endpoints::DeadLetters>(),
        Route::new(POST, "/admin/v1/dead_letters/replay", Admin, "Send dead letters again", endpoints::replay)
            .about("One by its `webhook_id`, or all since a time. They carry `replayed: true` and may be out of order.")
            .takes::<endpoints::ReplayDeadLetters>()
            .gives::<deliveries::DeliveriesReplayed>()
            .idempotent(),
        Route::new(GET, "/admin/v1/nodes", Admin, "The nodes that share the store", nodes::list)
            .about("Which there are, as the one that is asked has heard, and how many partitions each acts for.")
            .gives::<nodes::Nodes>(),
        Route::new(GET, "/admin/v1/threads", Admin, "Find threads", threads::list)
            .query(&FOUND_BY)
            .gives::<threads::Threads>(),
        Route::new(GET, "/admin/v1/threads/{user_id}", Admin, "A thread with its feed", threads::show)
            .query(&[AFTER, LIMIT])
            .gives::<threads::ThreadWithFeed>(),
        Route::new(POST, "/admin/v1/drain", Admin, "Move threads to another receiver", drain::drain)
            .about(
                "Every thread that a receiver holds, or that a filter matches. A conversation goes on as the same one: an \
                    agent tool has to answer it as a hand-off, the bot gets it in `bot`. Threads at rest change hands, so that \
                    their next conversation opens there. Does as much as it can in 20 seconds: while `next` is there, ask \
                    again with it as `cursor`.",
            )
            .takes::<drain::DrainReceiver>()
            .gives::<drain::Drained>()
            .idempotent(),
    ]
}

fn operations_routes() -> Vec<Route> {
    use Auth::Open;
    vec![
        Route::new(GET, "/healthz", Open, "Whether the process is up", operations::healthz)
            .gives::<operations::Health>(),
        Route::new(GET, "/readyz", Open, "Whether requests are wanted", operations::readyz)
            .about("503 with the reasons while the store is not available or the process is shutting down.")
            .gives::<operations::Ready>(),
        Route::new(GET, "/files/{token}", Open, "Read a file that a customer sent", files::read_file)
            .about("Its link is the right to: 404 for every other.")
            .gives_bytes(),
        Route::new(GET, "/metrics", Open, "Metrics in Prometheus text format", operations::metrics),
    ]
}
