//! How commands talk to a running router: its admin API.

use crate::tenancy::Secret;
use reqwest::{StatusCode, redirect::Policy};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{convert::Infallible, time::Duration};

/// Which router, and what opens it.
#[derive(Debug, clap::Args)]
pub(super) struct Router {
    /// The router's URL
    #[arg(long, env = "TRACT_URL", default_value = "http://127.0.0.1:8080", value_parser = base_url)]
    url: reqwest::Url,
    /// The router's admin token
    #[arg(long, env = "TRACT_ADMIN_TOKEN", hide_env_values = true, value_parser = secret)]
    admin_token: Secret,
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

fn base_url(text: &str) -> Result<reqwest::Url, &'static str> {
    let url = reqwest::Url::parse(text).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    url.ok_or("must be a URL such as http://127.0.0.1:8080")
}

/// Why the router did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error("cannot reach the router at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("the router refused the admin token; set --admin-token or TRACT_ADMIN_TOKEN")]
    Unauthorized,
    #[error("the router refused: {0}")]
    Refused(String),
    #[error("the router answered {0}: {1}")]
    Failed(u16, String),
    #[error("the router's answer is not what this version of tract expects")]
    Unintelligible,
}

impl Router {
    /// Posts to a path of the admin API and reads the answer.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, AdminError> {
        self.ask(path, |client, url| client.post(url).json(body)).await
    }

    /// Gets a path of the admin API and reads the answer.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, AdminError> {
        self.ask(path, |client, mut url| {
            if !query.is_empty() {
                url.query_pairs_mut().extend_pairs(query);
            }
            client.get(url)
        })
        .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        request: impl FnOnce(reqwest::Client, reqwest::Url) -> reqwest::RequestBuilder,
    ) -> Result<T, AdminError> {
        let base = self.url.as_str().trim_end_matches('/');
        let unreachable = |error: reqwest::Error| AdminError::Unreachable {
            url: base.to_owned(),
            reason: innermost(&error.without_url()),
        };
        let client = reqwest::Client::builder().redirect(Policy::none()).timeout(Duration::from_secs(30)).build();
        let mut url = self.url.clone();
        url.set_path(&format!("{}/admin/v1/{path}", self.url.path().trim_end_matches('/')));
        let request = request(client.map_err(unreachable)?, url);
        let answer = request.bearer_auth(self.admin_token.expose()).send().await.map_err(unreachable)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unreachable)?;
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|_| AdminError::Unintelligible);
        }
        let told = serde_json::from_str::<Value>(&text).ok();
        let told =
            told.as_ref().and_then(|v| v.get("error").or_else(|| v.get("error_message"))).and_then(Value::as_str);
        let told = told.unwrap_or("no reason given").to_owned();
        Err(match status {
            StatusCode::UNAUTHORIZED => AdminError::Unauthorized,
            status if status.is_client_error() => AdminError::Refused(told),
            status => AdminError::Failed(status.as_u16(), told),
        })
    }
}

/// What really went wrong, without the layers that only pass it on.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}
