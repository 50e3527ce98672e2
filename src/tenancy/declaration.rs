//! What `tract apply` sends: the form of `tenants.toml`, as JSON to `POST /admin/v1/apply`, certificates inlined as PEM.

use serde::{Deserialize, Serialize};

/// The tenants to create or update.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Declaration {}

/// Something that applying made; secrets are shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// `certificate`, `api_token`, `iva_secret` or `channel_secret`.
    pub kind: String,
    /// Of what: an `ect_id`, a `client_id`, or `client_id/business_id`.
    pub of: String,
    /// The id or secret.
    pub value: String,
}
