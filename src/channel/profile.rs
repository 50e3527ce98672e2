//! A user as the channel side describes it (section 10).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tract_domain::DevicePlatform;

/// What the channel side told of a user: the stored form of the user's record.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The client's own id of the user.
    pub auth_id: String,
    /// The client's own proof of the user, handed on to its bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_code: Option<String>,
    /// Telephone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mobile_no: Option<String>,
    /// Address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// ISO 639-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_code: Option<String>,
    /// What the user holds in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_model: Option<String>,
    /// What it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_name: Option<String>,
    /// The kind of client; default: a plain webhook channel.
    #[serde(default = "webhook")]
    pub device_platform: DevicePlatform,
    /// Whatever else the channel side knows: a flat object.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub custom_data: Map<String, Value>,
}

fn webhook() -> DevicePlatform {
    DevicePlatform::Webhook
}
