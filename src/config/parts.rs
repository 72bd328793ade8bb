//! Options in the form in which the parts of the process take them.

use std::time::Duration;

use super::Config;
use crate::base::limits;
use crate::broker::{BrokerOptions, BrokerSettings};
use crate::kafka::connection::ConnectionOptions;
use crate::object::ObjectOptions;
use crate::security::ClientIdentity;
use crate::wal::WalOptions;

/// Longer than any connection lives; a timer cannot take "never".
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

impl Config {
    pub fn wal_options(&self) -> WalOptions {
        let wal = &self.options.wal;
        WalOptions {
            segment_bytes: wal.segment_bytes,
            budget_bytes: wal.budget_bytes,
            queue_bytes: usize::try_from(wal.queue_bytes).unwrap_or(usize::MAX),
        }
    }

    pub fn object_options(&self) -> ObjectOptions {
        ObjectOptions { cache_bytes: self.options.objects.cache_bytes, ..ObjectOptions::at(self.place.clone()) }
    }

    /// How this node proves who it is to the object storage.
    pub fn object_identity(&self) -> Option<ClientIdentity> {
        let objects = &self.options.objects;
        let (cert_chain, key) = (self.path(&objects.client_cert_file)?, self.path(&objects.client_key_file)?);
        Some(ClientIdentity { cert_chain, key })
    }

    pub fn broker_options(&self) -> BrokerOptions {
        let objects = &self.options.objects;
        BrokerOptions {
            upload_bytes: objects.upload_bytes,
            upload_interval: Duration::from_millis(objects.upload_interval_ms),
            object_bytes_max: objects.object_bytes,
            merge_ranges: usize::try_from(objects.merge_ranges).unwrap_or(usize::MAX),
            maintenance_interval: Duration::from_millis(objects.maintenance_interval_ms),
            object_grace: Duration::from_millis(objects.grace_ms),
            room_wait: Duration::from_millis(self.options.wal.room_wait_ms),
        }
    }

    /// Bounds of a client's connection, some of which are Kafka's settings.
    pub fn connection_options(&self, settings: &BrokerSettings) -> ConnectionOptions {
        let limits = &self.options.limits;
        ConnectionOptions {
            request_bytes_max: settings.request_bytes_max,
            requests_max: limits::CONNECTION_REQUESTS_MAX,
            bytes_max: limits::CONNECTION_BYTES_MAX,
            answer_bytes_max: limits::CONNECTION_ANSWER_BYTES_MAX,
            frame_timeout: Duration::from_millis(limits.frame_timeout_ms),
            idle_timeout: settings.connection_idle_ms.map_or(NEVER, Duration::from_millis),
            // The rest of the bound is for the last uploads.
            drain_timeout: Duration::from_millis(limits.drain_ms) / 3,
        }
    }
}
