//! The metrics of the process, with feature `metrics`. Without it nothing is recorded.

#[cfg(feature = "metrics")]
use std::time::Duration;

#[cfg(feature = "metrics")]
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use refrain::admin::Admin;

use crate::failure::Failure;

/// The time after which the recorder sums up what it was told, so that it does not grow.
#[cfg(feature = "metrics")]
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Recorder {
    #[cfg(feature = "metrics")]
    handle: PrometheusHandle,
}

impl Recorder {
    #[cfg(feature = "metrics")]
    pub(crate) fn install() -> Result<Self, Failure> {
        let handle = PrometheusBuilder::new().install_recorder().map_err(Failure::Metrics)?;
        let upkeep = handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_EVERY).await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self { handle })
    }

    #[cfg(not(feature = "metrics"))]
    #[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    pub(crate) fn install() -> Result<Self, Failure> {
        Ok(Self {})
    }

    /// Gives operators the metrics, if there are any.
    pub(crate) fn show(self, admin: Admin) -> Admin {
        #[cfg(feature = "metrics")]
        return admin.metrics(move || self.handle.render());
        #[cfg(not(feature = "metrics"))]
        admin
    }
}
