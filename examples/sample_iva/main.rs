//! Runs the sample IVA as a process of its own; [`iva`] is the part worth reading.
//!
//! ```text
//! cargo run --example sample_iva -- --listen 127.0.0.1:9001 --secret whsec_… --colleague sprinkle
//! ```
//!
//! `--secret` is what the tenants file says, or what `tract apply` printed, for the client's IVA; its `url` there is
//! `http://127.0.0.1:9001/turn` (plain http on a private address needs the router's development egress settings).

pub mod iva;
#[path = "../webhook/mod.rs"]
pub mod webhook;

use clap::Parser;

#[derive(Parser)]
#[command(about = "A sample IVA (bot) for the TRACT router")]
struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: std::net::SocketAddr,
    /// The secret of the client's IVA
    #[arg(long, env = "IVA_SECRET", hide_env_values = true)]
    secret: String,
    /// The receiver that gets customers who ask for a person
    #[arg(long, default_value = "sprinkle")]
    colleague: String,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let Arguments { listen, secret, colleague } = Arguments::parse();
    let listener = tokio::net::TcpListener::bind(listen).await?;
    eprintln!("sample IVA: http://{}/turn", listener.local_addr()?);
    let routes = iva::routes(iva::Settings { secret, colleague }, |report| eprintln!("{report:?}"));
    axum::serve(listener, routes).await
}
