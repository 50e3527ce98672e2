//! Runs the sample ECT as a process of its own; [`ect`] and [`desk`] are the parts worth reading.
//!
//! ```text
//! cargo run --example sample_ect -- --router http://127.0.0.1:8080 --token "$(tract token --client acme --receiver sprinkle)"
//! ```
//!
//! The router must be allowed to reach this address: plain http on a private address needs its development egress settings.

pub mod desk;
pub mod ect;
#[path = "../webhook/mod.rs"]
pub mod webhook;

use clap::Parser;
use std::process::ExitCode;
use tokio::net::TcpListener;

#[derive(Parser)]
#[command(about = "A sample ECT (agent tool) for the TRACT router")]
struct Arguments {
    /// Base URL of the router
    #[arg(long, env = "TRACT_URL", default_value = "http://127.0.0.1:8080")]
    router: String,
    /// A token of this tool
    #[arg(long, env = "ECT_TOKEN", hide_env_values = true)]
    token: String,
    /// This tool's receiver id
    #[arg(long, default_value = "sprinkle")]
    receiver: String,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9002")]
    listen: std::net::SocketAddr,
    /// Where the router reaches this tool; by default, where it listens
    #[arg(long)]
    public_url: Option<String>,
    /// The hooks' secret, as printed at the first start
    #[arg(long, env = "ECT_SECRET", hide_env_values = true)]
    secret: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample_ect: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), ect::StartError> {
    let Arguments { router, token, receiver, listen, public_url, secret } = arguments;
    let listener = TcpListener::bind(listen).await?;
    let here = format!("http://{}", listener.local_addr()?);
    let first_start = secret.is_none();
    let settings = ect::Settings { router, token, receiver, public_url: public_url.unwrap_or(here), secret };
    let tool = ect::SampleEct::start(settings, listener, |report| eprintln!("{report:?}")).await?;
    if first_start {
        println!("keep this for the next start: --secret {}", tool.secret());
    }
    tool.join().await;
    Ok(())
}
