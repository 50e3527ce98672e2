//! What is said, by whom, on which kind of device (section 1).

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sender {
    /// The customer.
    Ceu,
    /// The bot.
    Iva,
    /// The system itself.
    Haptik,
    /// An external chat tool, speaking for itself.
    Ect,
    /// A human agent, through SAC or an ECT.
    Aeu,
}

impl Sender {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ceu => "ceu",
            Self::Iva => "iva",
            Self::Haptik => "haptik",
            Self::Ect => "ect",
            Self::Aeu => "aeu",
        }
    }
    /// Reads the wire name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Ceu, Self::Iva, Self::Haptik, Self::Ect, Self::Aeu].into_iter().find(|s| s.as_str() == name)
    }
    /// Whether its messages go out to the customer.
    pub fn reaches_customer(self) -> bool {
        self != Self::Ceu
    }
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $label:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// All of them, in the contract's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The number on the wire.
            pub fn number(self) -> u64 {
                match self { $(Self::$variant => $number),* }
            }
            /// The name for people.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }
        }
        impl TryFrom<u64> for $name {
            type Error = String;
            fn try_from(number: u64) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|p| p.number() == number).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|p| format!("{} ({})", p.number(), p.name())).collect();
                    format!("{number} is not one of {}", known.join(", "))
                })
            }
        }
        impl From<$name> for u64 {
            fn from(value: $name) -> u64 { value.number() }
        }
    };
}

numbered! {
    /// What the customer's client runs on.
    DevicePlatform {
        /// Android app.
        Android = 2, "Android";
        /// Facebook Messenger.
        Facebook = 3, "Facebook";
        /// Jio.
        Jio = 4, "Jio";
        /// Web widget.
        WebSdk = 5, "WebSDK";
        /// iOS app.
        Ios = 6, "iOS";
        /// Plain webhook channel; the default.
        Webhook = 13, "Webhook";
        /// WhatsApp.
        WhatsApp = 14, "WhatsApp";
        /// Jio Chat connector.
        JioChat = 15, "Jio Chat connector";
    }
}

numbered! {
    /// What kind of message a customer sent.
    MessageType {
        /// Regular text.
        Text = 0, "regular text";
        /// An image file.
        Image = 1, "image";
        /// A document file.
        Document = 52, "document";
    }
}

/// A message's HSL object in its serialised form, exactly as it travels. The edge makes it from what it accepted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Body(pub Arc<str>);

/// JSON text that passes through untouched; the edge has checked that it is an object.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub Arc<str>);

// What people say never reaches a log, not even by way of `{:?}`.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
    }
}
