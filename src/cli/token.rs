//! `tract token`

use super::{Failure, admin::Router, block_on, print};
use crate::reading::milliseconds;
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(super) struct Token {
    /// The client that the token is for
    #[arg(long, value_name = "ID")]
    client: String,
    /// The receiver that will use it: iva, sac, or an ect_id
    #[arg(long, value_name = "ID")]
    receiver: String,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = whole_seconds)]
    ttl: u64,
    #[command(flatten)]
    router: Router,
}

#[derive(Deserialize)]
struct Issued {
    token: String,
}

fn whole_seconds(text: &str) -> Result<u64, &'static str> {
    match milliseconds(text) {
        Ok(ms) if ms >= 1000 => Ok(ms / 1000),
        _ => Err("must be a duration of at least a second such as 90s, 30m or 1h"),
    }
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failure> {
        let body = json!({ "client_id": self.client, "receiver": self.receiver, "ttl_seconds": self.ttl });
        let issued = block_on(self.router.post::<Issued>("tokens", &body))??;
        print([issued.token])
    }
}
