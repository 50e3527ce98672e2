//! What other nodes change in the configuration is taken over within a second.

use super::Tenancy;
use std::{sync::Arc, time::Duration};

/// How often the store is asked for its revision.
const EVERY: Duration = Duration::from_millis(300);

/// Takes over what other nodes change, for ever.
pub async fn follow(tenancy: Arc<Tenancy>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(EVERY).await;
        match tenancy.refresh().await {
            Ok(changed) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the configuration can be read again");
                }
                if changed {
                    tracing::info!("another node changed the configuration");
                }
            }
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "the configuration could not be read; what other nodes change is not seen");
            }
            Err(_) => {}
        }
    }
}
