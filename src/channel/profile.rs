//! What the channel side tells of a customer: the user's record (section 10), in the store's and the wire's form.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use tract_domain::{DevicePlatform, Json};

/// A customer's record. It is [`StoredUser::profile`](tract_actors::ports::StoredUser::profile).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The client's own id of the user.
    pub auth_id: String,
    /// What the channel proves the user's login with. Goes to the IVA; no agent tool ever sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_code: Option<String>,
    /// Phone number, as the channel writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mobile_no: Option<String>,
    /// E-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// ISO 639-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_code: Option<String>,
    /// Of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_model: Option<String>,
    /// Of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The app that the customer writes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_name: Option<String>,
    /// What the customer's client runs on.
    #[serde(default = "webhook")]
    pub device_platform: DevicePlatform,
    /// Whatever else the channel tells; a flat object.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub custom_data: Map<String, Value>,
}

fn webhook() -> DevicePlatform {
    DevicePlatform::Webhook
}

impl Profile {
    /// A record of which nothing but the id is known.
    pub fn new(auth_id: impl Into<String>) -> Self {
        Self {
            auth_id: auth_id.into(),
            auth_code: None,
            mobile_no: None,
            email: None,
            name: None,
            language_code: None,
            phone_model: None,
            os_version: None,
            package_name: None,
            device_platform: webhook(),
            custom_data: Map::new(),
        }
    }
    /// Reads the stored form; none if it is not one.
    pub fn from_json(json: &Json) -> Option<Self> {
        serde_json::from_str(&json.0).ok()
    }
    /// What an agent tool may ask for by name (section 5): what the record holds, and `custom_data`, which cannot shadow
    /// it. `auth_code` is not among them: it is a credential, meant for the client's bot alone.
    pub fn details(&self) -> Map<String, Value> {
        let own = [
            ("mobile_no", &self.mobile_no),
            ("email", &self.email),
            ("name", &self.name),
            ("language_code", &self.language_code),
            ("phone_model", &self.phone_model),
            ("os_version", &self.os_version),
            ("package_name", &self.package_name),
        ];
        let mut details = self.custom_data.clone();
        details.insert("device_platform".to_owned(), self.device_platform.name().into());
        for (name, value) in own {
            if let Some(value) = value {
                details.insert(name.to_owned(), value.clone().into());
            }
        }
        details
    }
}

// Nothing of a person gets into a log.
impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Profile(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_is_enough() {
        let profile: Profile = serde_json::from_value(json!({"auth_id": "x"})).unwrap();
        assert_eq!(profile, Profile::new("x"));
        assert_eq!(profile.device_platform.number(), 13);
        assert_eq!(serde_json::to_value(&profile).unwrap(), json!({"auth_id": "x", "device_platform": 13}));
    }

    #[test]
    fn custom_data_shadows_nothing_and_credentials_stay() {
        let profile = Profile {
            auth_code: Some("top".to_owned()),
            email: Some("real".to_owned()),
            custom_data: json!({"email": "fake", "tier": 3}).as_object().unwrap().clone(),
            ..Profile::new("x")
        };
        let details = Value::Object(profile.details());
        assert_eq!(details, json!({"device_platform": "Webhook", "email": "real", "tier": 3}));
        assert_eq!(format!("{profile:?}"), "Profile(…)");
    }
}
