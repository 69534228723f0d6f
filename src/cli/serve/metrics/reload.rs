//! Whether the last reload succeeded and when one last did, of the configuration and of the certificate.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::admin::Snapshot;

/// The results of reloads, for the metrics.
#[derive(Debug)]
pub struct Reloads {
    /// The configuration file.
    pub configuration: LastReload,
    /// The certificate and its key.
    pub certificate: LastReload,
}

/// The result of the last reload of one thing. The start of the server counts as the first.
#[derive(Debug)]
pub struct LastReload {
    successful: AtomicBool,
    /// Seconds since 1970 of the last success.
    succeeded: AtomicU64,
}

impl Reloads {
    /// Records the start of the server; `now` in seconds since 1970.
    pub fn at_start(now: u64) -> Self {
        Self { configuration: LastReload::at_start(now), certificate: LastReload::at_start(now) }
    }

    /// Adds the metrics.
    pub fn collect(&self, out: &mut Snapshot) {
        let (config, certificate) = (self.configuration.values(), self.certificate.values());
        let help = "1 if the last reload of the configuration succeeded, 0 if the one before stays in use.";
        out.gauge("hallpass_config_last_reload_successful", help, &[], config.0);
        let help = "Last successful reload of the configuration, in seconds since 1970.";
        out.gauge("hallpass_config_last_reload_success_timestamp_seconds", help, &[], config.1);
        let help = "1 if the last reload of the certificate succeeded, 0 if the one before stays in use.";
        out.gauge("hallpass_certificate_last_reload_successful", help, &[], certificate.0);
        let help = "Last successful reload of the certificate, in seconds since 1970.";
        out.gauge("hallpass_certificate_last_reload_success_timestamp_seconds", help, &[], certificate.1);
    }
}

impl LastReload {
    fn at_start(now: u64) -> Self {
        Self { successful: AtomicBool::new(true), succeeded: AtomicU64::new(now) }
    }

    /// Records a reload at `now`, in seconds since 1970.
    pub fn record(&self, successful: bool, now: u64) {
        self.successful.store(successful, Relaxed);
        if successful {
            self.succeeded.store(now, Relaxed);
        }
    }

    /// Records that the files have again what is in use: a failure is over, and the time of the last success stays.
    pub fn settle(&self) {
        self.successful.store(true, Relaxed);
    }

    /// Returns 1 if the last reload succeeded, else 0, and the time of the last success.
    pub fn values(&self) -> (f64, f64) {
        (f64::from(u8::from(self.successful.load(Relaxed))), self.succeeded.load(Relaxed) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_reload_keeps_the_time_of_the_last_success() {
        let reload = LastReload::at_start(100);
        assert_eq!(reload.values(), (1.0, 100.0));
        reload.record(false, 200);
        assert_eq!(reload.values(), (0.0, 100.0));
        reload.settle();
        assert_eq!(reload.values(), (1.0, 100.0));
        reload.record(false, 200);
        reload.record(true, 300);
        assert_eq!(reload.values(), (1.0, 300.0));
    }
}
