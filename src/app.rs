//! The composition root: the one place that names both a concrete store and the actors.

use crate::config::Settings;
use std::{future::Future, io};

/// Why the router did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// This build has no router in it.
    #[error("the router is not part of this build")]
    NotBuilt,
}

/// Runs a future on the runtime that the router needs.
pub fn run<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future))
}

/// Runs the router until it is told to stop.
pub async fn serve(settings: Settings) -> Result<(), AppError> {
    let _ = settings;
    Err(AppError::NotBuilt)
}
