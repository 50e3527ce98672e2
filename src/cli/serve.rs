//! `tract serve`

use super::{ConfigFile, Failure};
use crate::{
    app,
    config::{Settings, listen_address},
};
use std::net::SocketAddr;

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    /// Where to listen; wins over the settings
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    listen: Option<SocketAddr>,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut settings = Settings::load(self.config.path().as_deref())?;
        if let Some(listen) = self.listen {
            settings.listen = listen;
        }
        Ok(app::run(app::serve(settings)).map_err(Failure::Runtime)??)
    }
}
