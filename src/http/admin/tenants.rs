//! ECTs, clients and businesses.

use super::view;
use crate::http::auth::Admin;
use crate::http::request::{InPath, Params, Posted};
use crate::http::{Edge, Problem, idempotency};
use crate::reading::Fault;
use crate::tenancy::{Client, Declaration, KeepMade, Made, TenancyError};
use axum::Json as Answered;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tract_domain::{BusinessId, ClientId, Json, ReceiverId};
use utoipa::ToSchema;

/// What applying made: ids and secrets, each shown this once.
#[derive(Serialize, ToSchema)]
pub struct Applied {
    /// In the declaration's order.
    #[schema(value_type = Vec<MadeView>)]
    made: Vec<Made>,
}

/// Something that applying made.
#[derive(Serialize, ToSchema)]
pub struct MadeView {
    /// `certificate`, `api_token`, `iva_secret` or `channel_secret`.
    kind: String,
    /// Of what: an `ect_id`, a `client_id`, or `client_id/business_id`.
    of: String,
    /// The id or secret.
    value: String,
}

/// `POST /admin/v1/apply`
pub async fn apply(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    Posted { body, key }: Posted<Map<String, Value>>,
) -> Result<Response, Problem> {
    let key = edge.operators(key, "admin/apply", "");
    if let Some(answer) = edge.kept_for(key.as_ref()).await? {
        return Ok(idempotency::body(&answer, true));
    }
    let keep = key.map(|key| (key, without_secrets as fn(&[Made]) -> Json));
    let (declaration, faults) = Declaration::read(&Value::Object(body));
    let made = applied(&edge, declaration, faults, keep).await?;
    Ok(Answered(Applied { made }).into_response())
}

/// What is kept of an answer: the ids of certificates are no secrets, the rest is shown once.
fn without_secrets(made: &[Made]) -> Json {
    let shown = made.iter().map(|made| match made.kind.as_str() {
        "certificate" => json!({"kind": made.kind, "of": made.of, "value": made.value}),
        _ => json!({"kind": made.kind, "of": made.of}),
    });
    Json(json!({"made": shown.collect::<Vec<_>>()}).to_string().into())
}

/// Applies a declaration; every fault in it is told, by its place.
async fn applied(
    edge: &Edge,
    declaration: Declaration,
    faults: Vec<Fault>,
    keep: KeepMade,
) -> Result<Vec<Made>, Problem> {
    if !faults.is_empty() {
        return Err(TenancyError::from(faults).into());
    }
    Ok(edge.tenancy.apply(declaration, edge.now(), keep).await?)
}

/// What putting something made, and its fields that mean nothing here, by their full names.
struct Put {
    made: Vec<Made>,
    ignored: Vec<String>,
}

/// Applies what was put. A declaration is a file's twin and has to be right to the letter; here, as in every body, unknown
/// fields are ignored, but not in silence.
async fn put(edge: &Edge, declaration: &Value) -> Result<Put, Problem> {
    let (declaration, faults, ignored) = Declaration::read_body(declaration);
    Ok(Put { made: applied(edge, declaration, faults, None).await?, ignored })
}

impl Put {
    /// With what stands there now.
    fn shown(self, name: &str, shown: Value) -> Answered<Value> {
        let mut answer = json!({name: shown, "made": self.made});
        if !self.ignored.is_empty() {
            answer["ignored"] = json!(self.ignored);
        }
        Answered(answer)
    }
}

/// Puts the id from the path into the body, which may repeat it but not contradict it.
fn identified(mut body: Map<String, Value>, field: &str, id: Value) -> Result<Map<String, Value>, Problem> {
    let same = |given: &Value| *given == id || given.as_str() == Some(&*id.to_string());
    if body.get(field).is_some_and(|given| !same(given)) {
        return Err(Problem::invalid(field, "is not the one in the path"));
    }
    body.insert(field.to_owned(), id);
    Ok(view::declared(body))
}

fn removed() -> Answered<Value> {
    Answered(json!({"success": true}))
}

/// `GET /admin/v1/ects`
pub async fn list_ects(State(edge): State<Arc<Edge>>, _: Admin) -> Answered<Value> {
    let ects: Vec<_> = edge.tenancy.directory().ects().iter().map(|e| view::ect(e)).collect();
    Answered(json!({"ects": ects}))
}

fn shown_ect(edge: &Edge, id: &ReceiverId) -> Result<Value, Problem> {
    edge.tenancy.directory().ect(id).map(|e| view::ect(e)).ok_or_else(|| Problem::unknown("ECT"))
}

/// `GET /admin/v1/ects/{ect_id}`
pub async fn get_ect(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(id): InPath<ReceiverId>,
) -> Result<Answered<Value>, Problem> {
    shown_ect(&edge, &id).map(Answered)
}

/// `PUT /admin/v1/ects/{ect_id}`
pub async fn put_ect(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(id): InPath<ReceiverId>,
    Posted { body, .. }: Posted<Map<String, Value>>,
) -> Result<Answered<Value>, Problem> {
    let ect = identified(body, "ect_id", json!(id.as_str()))?;
    let put = put(&edge, &json!({"ect": [ect]})).await?;
    Ok(put.shown("ect", shown_ect(&edge, &id)?))
}

/// `DELETE /admin/v1/ects/{ect_id}`
pub async fn delete_ect(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(id): InPath<ReceiverId>,
    params: Params,
) -> Result<Answered<Value>, Problem> {
    edge.tenancy.delete_ect(&id, params.flag("force")?).await?;
    Ok(removed())
}

/// `GET /admin/v1/clients`
pub async fn list_clients(State(edge): State<Arc<Edge>>, _: Admin) -> Answered<Value> {
    let clients: Vec<_> = edge.tenancy.directory().clients().iter().map(|c| view::client(c)).collect();
    Answered(json!({"clients": clients}))
}

fn client(edge: &Edge, id: &ClientId) -> Result<Arc<Client>, Problem> {
    edge.tenancy.directory().client(id).cloned().ok_or_else(|| Problem::unknown("client"))
}

/// `GET /admin/v1/clients/{client_id}`
pub async fn get_client(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(id): InPath<ClientId>,
) -> Result<Answered<Value>, Problem> {
    Ok(Answered(view::client(&*client(&edge, &id)?)))
}

/// `PUT /admin/v1/clients/{client_id}`
pub async fn put_client(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(id): InPath<ClientId>,
    Posted { body, .. }: Posted<Map<String, Value>>,
) -> Result<Answered<Value>, Problem> {
    let declared = identified(body, "client_id", json!(id.as_str()))?;
    let put = put(&edge, &json!({"client": [declared]})).await?;
    Ok(put.shown("client", view::client(&*client(&edge, &id)?)))
}

/// `DELETE /admin/v1/clients/{client_id}`
pub async fn delete_client(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(id): InPath<ClientId>,
    params: Params,
) -> Result<Answered<Value>, Problem> {
    edge.tenancy.delete_client(&id, params.flag("force")?).await?;
    Ok(removed())
}

/// `GET /admin/v1/clients/{client_id}/businesses`
pub async fn list_businesses(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(id): InPath<ClientId>,
) -> Result<Answered<Value>, Problem> {
    let businesses: Vec<_> = client(&edge, &id)?.businesses.iter().map(view::business).collect();
    Ok(Answered(json!({"businesses": businesses})))
}

fn shown_business(edge: &Edge, id: &ClientId, business: BusinessId) -> Result<Value, Problem> {
    let client = client(edge, id)?;
    let found = client.businesses.iter().find(|b| b.business_id == business);
    found.map(view::business).ok_or_else(|| Problem::unknown("business"))
}

/// `GET /admin/v1/clients/{client_id}/businesses/{business_id}`
pub async fn get_business(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath((id, business)): InPath<(ClientId, BusinessId)>,
) -> Result<Answered<Value>, Problem> {
    shown_business(&edge, &id, business).map(Answered)
}

/// `PUT /admin/v1/clients/{client_id}/businesses/{business_id}`
pub async fn put_business(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath((id, business)): InPath<(ClientId, BusinessId)>,
    Posted { body, .. }: Posted<Map<String, Value>>,
) -> Result<Answered<Value>, Problem> {
    let declared = identified(body, "business_id", json!(business))?;
    // A declaration is of the whole client, so what it has is declared again, in its order: its first business is the
    // default one.
    let client = client(&edge, &id)?;
    let mut businesses: Vec<_> = client.businesses.iter().map(view::business).collect();
    match client.businesses.iter().zip(&mut businesses).find(|(b, _)| b.business_id == business) {
        Some((_, place)) => *place = Value::Object(declared),
        None => businesses.push(Value::Object(declared)),
    }
    let mut whole = match view::client(&client) {
        Value::Object(shown) => shown,
        _ => Map::new(),
    };
    whole.insert("business".to_owned(), json!(businesses));
    let whole = view::declared(whole);
    let put = put(&edge, &json!({"client": [whole]})).await?;
    Ok(put.shown("business", shown_business(&edge, &id, business)?))
}

/// `DELETE /admin/v1/clients/{client_id}/businesses/{business_id}`
pub async fn delete_business(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath((id, business)): InPath<(ClientId, BusinessId)>,
    params: Params,
) -> Result<Answered<Value>, Problem> {
    edge.tenancy.delete_business(&id, business, params.flag("force")?).await?;
    Ok(removed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_the_thing() {
        let body = |json: Value| json.as_object().cloned().unwrap_or_default();
        let id = || json!(343);
        assert_eq!(identified(body(json!({})), "business_id", id()).unwrap()["business_id"], 343);
        assert!(identified(body(json!({"business_id": 343})), "business_id", id()).is_ok());
        assert!(identified(body(json!({"business_id": "343"})), "business_id", id()).is_ok());
        let refused = identified(body(json!({"business_id": 344})), "business_id", id()).unwrap_err();
        assert_eq!(refused.status().as_u16(), 400);
    }
}
