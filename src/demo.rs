//! The whole system on one machine, talking to itself.

use crate::app::AppError;
use std::net::SocketAddr;

/// Runs the demo until it is told to stop.
pub async fn run(listen: SocketAddr) -> Result<(), AppError> {
    let _ = listen;
    Err(AppError::NotBuilt)
}
