//! The certificates of an ECT (section 3): upload, list, revoke.

use crate::http::auth::Admin;
use crate::http::request::{InPath, Posted};
use crate::http::{Edge, Problem, idempotency};
use crate::tenancy::{Certificate, certificate};
use axum::Json as Answered;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use tract_domain::{Json, ReceiverId, Timestamp};
use utoipa::ToSchema;

/// A certificate to upload.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UploadCertificate {
    /// One self-signed X.509 certificate in PEM, with an RSA key of at least 2048 bits or an EC key on P-256 or P-384.
    pem: String,
}

/// A certificate that is held.
#[derive(Debug, Serialize, ToSchema)]
pub struct CertificateView {
    /// What `SignatureCertUUID` carries.
    uuid: String,
    /// SHA-256 of its DER form, hex.
    fingerprint: String,
    /// Its SAN DNS names.
    names: Vec<String>,
    /// Valid from then on.
    not_before: String,
    /// Valid through then.
    not_after: String,
}

/// The certificates of an ECT.
#[derive(Debug, Serialize, ToSchema)]
pub struct Certificates {
    certificates: Vec<CertificateView>,
}

fn shown(held: &Certificate) -> CertificateView {
    let facts = certificate::facts(&held.pem).ok();
    let time = |of: fn(&crate::security::x509::Facts) -> Timestamp| {
        facts.as_ref().map(|facts| crate::wire::time(of(facts)).to_string()).unwrap_or_default()
    };
    CertificateView {
        uuid: held.uuid.clone(),
        fingerprint: held.fingerprint.clone(),
        not_before: time(|facts| facts.not_before),
        not_after: time(|facts| facts.not_after),
        names: facts.map(|facts| facts.names).unwrap_or_default(),
    }
}

fn rendered(held: &Certificate) -> Json {
    idempotency::rendered(&shown(held))
}

fn all(edge: &Edge, id: &ReceiverId) -> Result<Vec<CertificateView>, Problem> {
    let directory = edge.tenancy.directory();
    let ect = directory.ect(id).ok_or_else(|| Problem::unknown("ECT"))?;
    Ok(ect.certificates.iter().map(shown).collect())
}

/// `GET /admin/v1/ects/{ect_id}/certificates`
pub async fn list(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(id): InPath<ReceiverId>,
) -> Result<Answered<Certificates>, Problem> {
    Ok(Answered(Certificates { certificates: all(&edge, &id)? }))
}

/// `GET /admin/v1/ects/{ect_id}/certificates/{uuid}`
pub async fn show(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath((id, uuid)): InPath<(ReceiverId, String)>,
) -> Result<Answered<CertificateView>, Problem> {
    let found = all(&edge, &id)?.into_iter().find(|held| held.uuid.eq_ignore_ascii_case(&uuid));
    found.map(Answered).ok_or_else(|| Problem::unknown("certificate"))
}

/// `POST /admin/v1/ects/{ect_id}/certificates`
pub async fn upload(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(id): InPath<ReceiverId>,
    Posted { body, key }: Posted<UploadCertificate>,
) -> Result<Response, Problem> {
    let key = edge.operators(key, "admin/certificates", id.as_str());
    if let Some(answer) = edge.kept_for(key.as_ref()).await? {
        return Ok(idempotency::body(&answer, true));
    }
    let parsed = certificate::parse(&body.pem).map_err(|fault| Problem::invalid("pem", fault))?;
    let keep = key.map(|key| (key, rendered as fn(&Certificate) -> Json));
    let held = edge.tenancy.add_certificate(&id, &parsed, keep).await?;
    tracing::info!(ect = %id, uuid = held.uuid, "holds a certificate");
    Ok(Answered(shown(&held)).into_response())
}

/// `DELETE /admin/v1/ects/{ect_id}/certificates/{uuid}`
pub async fn revoke(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath((id, uuid)): InPath<(ReceiverId, String)>,
) -> Result<Answered<Value>, Problem> {
    edge.tenancy.remove_certificate(&id, &uuid).await?;
    tracing::info!(ect = %id, uuid, "revoked a certificate");
    Ok(Answered(json!({"success": true})))
}
