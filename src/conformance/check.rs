//! What is checked, why the router does it, and what it asks of an endpoint.

use serde::Serialize;

/// One thing that an endpoint handles or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The URL is one that a router takes.
    Url,
    /// One ordinary delivery. Without it nothing else can be judged.
    Answers,
    /// Every kind of webhook.
    Topics,
    /// The same delivery again.
    Duplicates,
    /// The same delivery later, signed anew.
    Retries,
    /// Threads in any order against each other, numbers that jump.
    Order,
    /// Messages of the past, and dead letters.
    History,
    /// Fields and kinds that came later.
    Unknown,
    /// Large and unusual messages.
    Contents,
    /// As many at once as the router sends.
    Concurrency,
    /// What is not from the router.
    Signatures,
    /// Two secrets at once.
    Rotation,
    /// A 2xx that says `error`.
    Rejections,
    /// How long answers take.
    Latency,
}

impl Check {
    /// All of them, as they are run and told.
    pub const ALL: [Self; 14] = [
        Self::Url,
        Self::Answers,
        Self::Topics,
        Self::Duplicates,
        Self::Retries,
        Self::Order,
        Self::History,
        Self::Unknown,
        Self::Contents,
        Self::Concurrency,
        Self::Signatures,
        Self::Rotation,
        Self::Rejections,
        Self::Latency,
    ];

    /// The name by which the report's reader and a program know it.
    pub fn name(self) -> &'static str {
        self.texts().0
    }
    /// What an endpoint does that passes.
    pub fn title(self) -> &'static str {
        self.texts().1
    }
    /// Why the router does this.
    pub fn why(self) -> &'static str {
        self.texts().2
    }
    /// What is asked of the endpoint.
    pub fn demand(self) -> &'static str {
        self.texts().3
    }

    fn texts(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Url => (
                "url",
                "is at a URL that a router calls",
                "A router calls https URLs at public addresses only. Its operator can allow more, for development.",
                "Serve the endpoint by https before you register it with a router that is not your own.",
            ),
            Self::Answers => (
                "answers",
                "answers an ordinary delivery with 2xx, in time",
                "An answer of 2xx within 5 seconds says that you have it. Anything else (4xx and redirects included) is \
                 a failure: the delivery is tried again for an hour, and the thread's later webhooks wait behind it. A \
                 410 disables the hook at once.",
                "Check the signature, write the delivery down, answer 200, and work on it afterwards.",
            ),
            Self::Topics => (
                "topics",
                "takes every kind of webhook",
                "Each hook that you register is sent its own kind of payload: messages, events whose `metadata` is JSON \
                 in a string, and created users. POST /tract/hooks/test/ sends a `ping`.",
                "Answer 2xx to every kind, also to those that you have no use for; or do not register that hook. Where \
                 this URL is registered for some of them only, name these with --topic.",
            ),
            Self::Duplicates => (
                "duplicates",
                "takes the same delivery twice",
                "Delivery is at least once: if your answer is lost on its way, or the router restarts, the same event \
                 comes again with the same `webhook-id`. An error such as 409 would be taken for a failure, and the \
                 delivery repeated for an hour.",
                "Remember each `webhook-id` together with what you did about it; answer 200 the second time too, and \
                 do nothing more.",
            ),
            Self::Retries => (
                "retries",
                "takes a retry of what it may or may not have seen",
                "After a failure or a slow answer the router hangs up and sends the same `webhook-id` again after 5 s, \
                 25 s and so on up to an hour, with a new `webhook-timestamp` and therefore a new signature.",
                "Know a delivery by its `webhook-id` alone, never by timestamp or signature. Take a retry that comes \
                 while you are still at work on the first attempt.",
            ),
            Self::Order => (
                "order",
                "takes threads in any order, and numbers that jump",
                "Order is kept within one thread at one hook. Threads do not wait for each other, nor do hooks; and what \
                 another hook is told, or what you said yourself, has numbers that you do not see here.",
                "Order by `sequence` within each thread. Where numbers are missing, answer 2xx and read \
                 GET /tract/thread/feed/ afterwards; do not refuse what comes early.",
            ),
            Self::History => (
                "history",
                "takes messages of the past, marked as replayed",
                "A tool set to receive = \"active\" is first sent the conversation so far when a chat comes to it, each \
                 message with its own author and time and `replayed: true`. Dead letters that you have replayed carry \
                 the same mark, and can come after younger ones.",
                "Take them whatever their age and sender; sort by `sequence`; start nothing because of them that an \
                 old message should not start.",
            ),
            Self::Unknown => (
                "unknown",
                "takes what it does not know",
                "The contract grows: later versions add fields, message types and events. A field of which \
                 nothing is known is left out, not null.",
                "Ignore unknown fields. Answer 2xx to a category, subcategory or message type that you do not know.",
            ),
            Self::Contents => (
                "contents",
                "takes large and unusual messages",
                "A message may have 64 KiB, in any language, and what customers type passes through untouched. Escaped \
                 twice, as HSL in a string, it can be four times as large on the wire.",
                "Allow request bodies of 512 KiB, store text as UTF-8 of four bytes a character, and show unknown \
                 elements by their `text`.",
            ),
            Self::Concurrency => (
                "concurrency",
                "takes 32 deliveries at once",
                "Threads do not wait for each other, so the router has up to 32 deliveries under way to one hook.",
                "Answer each within 5 seconds under this load, or say 503 with Retry-After: that is honoured.",
            ),
            Self::Signatures => (
                "signatures",
                "refuses what the router did not send",
                "Whoever learns your URL can post to it. Only the signature proves that a webhook is from the router, \
                 that nobody altered it, and when it was sent.",
                "Before you parse, verify `webhook-signature` over the raw bytes of the body, and refuse timestamps \
                 more than 5 minutes off. Any Standard Webhooks library does both. Answer 401 to what fails.",
            ),
            Self::Rotation => (
                "rotation",
                "takes deliveries signed with two secrets",
                "After you rotate the hooks' secret, the old and the new one both sign for 24 hours: `webhook-signature` \
                 holds several signatures, `X-Hub-Signature` is of the new secret, `X-Hub-Signature-Previous` of the old.",
                "Split `webhook-signature` at spaces and be content with one that matches. If you verify \
                 `X-Hub-Signature`, look at `X-Hub-Signature-Previous` too.",
            ),
            Self::Rejections => (
                "rejections",
                "rejects nothing",
                "A 2xx whose JSON body has a non-empty `error` counts as received: it is recorded as rejected, and not \
                 sent again. It does not answer a hand-off.",
                "Keep `error` for what you cannot use and never want to see again.",
            ),
            Self::Latency => (
                "latency",
                "answers fast",
                "A later webhook of a thread waits for the answer to the one before it; after 5 seconds the router \
                 hangs up.",
                "Answer once it is written down. A second is a long time for a chat.",
            ),
        }
    }
}
