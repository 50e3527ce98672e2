//! `tract demo`: one conversation from the customer to the bot, to a human agent, and to its end, printed as it travels.
//!
//! It talks to a running router through its public HTTP API only. Bot and agent tool are the samples of `examples/`, each a
//! real HTTP server; what is printed is what they received, and what stands in the thread's feed.

mod api;
mod channel;
mod guide;
mod narrator;
pub mod samples;
mod screen;
mod story;

pub use api::CallError;

use api::{Api, Channel};
use guide::Guide;
use narrator::{Narrator, News};
use samples::{ect, iva};
use screen::Screen;
use serde_json::{Value, json};
use std::{future::Future, io, time::Duration};
use story::Story;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

const CLIENT: &str = "acme";
const ECT: &str = "sprinkle";
const BUSINESS: u64 = 343;

/// How the demo is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether it stays up after the script, for going on by hand.
    pub stay: bool,
    /// How long each step of the script may take.
    pub step_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { stay: true, step_timeout: Duration::from_secs(20) }
    }
}

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The samples found no port, or there is nowhere to print.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Setting up: a call failed.
    #[error("setting up: {0}")]
    SetUp(#[from] CallError),
    /// Setting up: the router has been used before.
    #[error("setting up: the router made no {0} for the demo's tenant; it needs a router that does not have it yet")]
    NotFresh(&'static str),
    /// Setting up: the sample agent tool could not start.
    #[error("setting up: {0}")]
    Ect(#[from] ect::StartError),
    /// A call of the script failed.
    #[error("step \"{step}\": {source}")]
    Step {
        /// Which step.
        step: &'static str,
        /// Why.
        source: CallError,
    },
    /// Something that should have happened was not seen.
    #[error("step \"{step}\": not seen within {patience:?}: {}", missing.join("; "))]
    Missing {
        /// Which step.
        step: &'static str,
        /// How long it was waited for.
        patience: Duration,
        /// What was not seen.
        missing: Vec<&'static str>,
    },
}

/// Plays the demo on a fresh router, which must be allowed to call plain http on this machine, and stays until `shutdown`
/// if the options say so. The samples run as long as this future does.
///
/// # Errors
/// A [`DemoError`] that names the step which failed. A reader that goes away (`tract demo | head`) is no error.
pub async fn run(
    router_url: &str,
    admin_token: &str,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DemoError> {
    let played = tokio::select! {
        biased;
        () = shutdown => Ok(()),
        played = play(router_url, admin_token, options, Screen::stdout()) => played,
    };
    match played {
        Err(DemoError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        played => played,
    }
}

async fn play(router_url: &str, admin_token: &str, options: Options, mut screen: Screen) -> Result<(), DemoError> {
    let api = Api::new(router_url);
    // The ports must be known before the tenants are declared, the secrets before anything can be served.
    let bot = TcpListener::bind("127.0.0.1:0").await?;
    let phone = TcpListener::bind("127.0.0.1:0").await?;
    let tool = TcpListener::bind("127.0.0.1:0").await?;
    let tool_url = format!("http://{}", tool.local_addr()?);
    screen.text(&format!(
        "router {}   bot http://{}   agent tool {tool_url}   channel http://{}",
        api.base(),
        bot.local_addr()?,
        phone.local_addr()?
    ))?;

    let declaration = json!({
        "ect": [{"ect_id": ECT, "name": "Sprinkle", "fqdn": "chat.sprinkle.example"}],
        "client": [{
            "client_id": CLIENT,
            "name": "Acme",
            "ects": [ECT],
            "handoff_receiver": ECT,
            "iva": {"url": format!("http://{}/turn", bot.local_addr()?)},
            "business": [{
                "business_id": BUSINESS,
                "name": "Acme Shop",
                "webhook": {"url": format!("http://{}/channel", phone.local_addr()?)}
            }]
        }]
    });
    let made = api.apply(admin_token, &declaration).await?;
    let channel =
        Channel { client_id: CLIENT.to_owned(), api_token: secret(&made, "api_token")?, business_id: BUSINESS };
    let (iva_secret, channel_secret) = (secret(&made, "iva_secret")?, secret(&made, "channel_secret")?);
    let ect_token = api.token(admin_token, CLIENT, ECT).await?;
    let iva_token = api.token(admin_token, CLIENT, "iva").await?;

    screen.columns()?;
    let (news, newspaper) = mpsc::unbounded_channel();
    let (told, facts) = mpsc::unbounded_channel();
    let narrator = Narrator::new(screen, api.clone(), ect_token.clone(), ECT.to_owned(), told);

    let mut servers = JoinSet::new();
    let report = news.clone();
    let settings = iva::Settings { secret: iva_secret, colleague: ECT.to_owned() };
    let routes = iva::routes(settings, move |what| drop(report.send(News::Iva(what))));
    servers.spawn(async move { axum::serve(bot, routes).await });
    let report = news.clone();
    let routes = channel::routes(channel_secret, move |what| drop(report.send(News::Channel(what))));
    servers.spawn(async move { axum::serve(phone, routes).await });

    let script = async {
        let report = news.clone();
        let settings = ect::Settings {
            router: api.base().to_owned(),
            token: ect_token.clone(),
            receiver: ECT.to_owned(),
            public_url: tool_url,
            secret: None,
        };
        let _tool = ect::SampleEct::start(settings, tool, move |what| drop(report.send(News::Ect(what)))).await?;
        let story =
            Story { api: &api, channel: &channel, ect: ECT, news: &news, facts, patience: options.step_timeout };
        let user_id = story.play().await?;

        let _ = news.send(News::Heading("Go on by hand".to_owned()));
        let guide = Guide {
            router: api.base(),
            admin_token,
            channel: &channel,
            ect: ECT,
            ect_token: &ect_token,
            iva_token: &iva_token,
            user_id: &user_id,
        };
        let _ = news.send(News::Text(guide.page()));
        let _ = news.send(News::Text("ready: everything stays up until Ctrl-C".to_owned()));
        let (flush, flushed) = oneshot::channel();
        let _ = news.send(News::Flush(flush));
        let _ = flushed.await;
        if options.stay {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    // The narrator ends only when it can print no more; what it could not print is then the outcome.
    tokio::select! {
        told = narrator.tell(newspaper) => told.map_err(DemoError::from),
        played = script => played,
    }
}

/// What applying made of this kind; there is one of each.
fn secret(made: &Value, kind: &'static str) -> Result<String, DemoError> {
    let made = made.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = made.iter().find(|made| made["kind"] == kind).and_then(|made| made["value"].as_str());
    found.map(str::to_owned).ok_or(DemoError::NotFresh(kind))
}

#[cfg(test)]
mod tests;
