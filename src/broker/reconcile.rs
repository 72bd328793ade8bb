//! Following the metadata: opens and closes partitions, moves their positions, resolves settings.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use crate::base::PartitionId;
use crate::metadata::{Command, ConfigResource, Image, Response, Topic};
use crate::partition::{Partition, RecoveredGap};

use super::settings::{BrokerSettings, Layers};
use super::{Broker, ChangeError, TopicSettings};

impl Broker {
    /// Proposes a command and, once it is applied, reconciles with the result, so that whoever asked for the change
    /// finds it done.
    pub(super) async fn propose(&self, command: Command) -> Result<Response, ChangeError> {
        match self.quorum.propose(&command).await? {
            Response::Rejected(reject) => Err(reject.into()),
            response => {
                self.reconcile().await;
                Ok(response)
            }
        }
    }

    /// Runs until the process ends.
    pub async fn follow_metadata(self: Arc<Self>) {
        let mut image = self.image.clone();
        while image.changed().await.is_ok() {
            self.reconcile().await;
        }
    }

    /// Brings the open partitions in line with the newest image.
    pub async fn reconcile(&self) {
        let mut reconciled = self.reconciled.lock().await;
        let image = self.image();
        if image.applied <= reconciled.applied {
            return;
        }
        for (id, topic) in image.topics.iter() {
            let before = reconciled.topics.get(id);
            if before.is_none_or(|before| !Arc::ptr_eq(before, topic)) {
                self.reconcile_topic(before.map(|t| &**t), topic);
            }
        }
        for (id, topic) in reconciled.topics.iter().filter(|(id, _)| !image.topics.contains_key(*id)) {
            for index in 0..topic.partitions.len() {
                self.registry.close(PartitionId { topic: *id, index: index as i32 });
            }
        }
        self.resolve_settings(&reconciled, &image);
        *reconciled = image;
        self.coordinators.reconciled();
    }

    fn reconcile_topic(&self, before: Option<&Topic>, topic: &Topic) {
        for (index, partition) in topic.partitions.iter().enumerate() {
            let known = before.and_then(|b| b.partitions.get(index));
            if known.is_some_and(|known| Arc::ptr_eq(known, partition)) {
                continue;
            }
            let id = PartitionId { topic: topic.id, index: index as i32 };
            match self.registry.get(id) {
                Some(open) if partition.leader == self.node => open.follow(partition),
                Some(_) => self.registry.close(id),
                None if partition.leader == self.node => {
                    let opened: Result<_, RecoveredGap> = self
                        .registry
                        .open(id, |slot| Partition::open(id, topic.name.clone(), slot, partition, Vec::new(), 0));
                    if let Err(gap) = opened {
                        tracing::error!(%gap, "a partition cannot be opened");
                    }
                }
                None => {}
            }
        }
    }

    fn layers<'a>(&'a self, image: &'a Image) -> Layers<'a> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        Layers {
            broker: image.broker_configs.get(&self.node).unwrap_or(&NONE),
            cluster: &image.cluster_configs,
            fixed: &self.static_settings,
        }
    }

    /// Resolves the settings of topics that changed; of all, when a default changed.
    pub(super) fn resolve_settings(&self, before: &Image, image: &Image) {
        let layers = self.layers(image);
        let defaults_changed = before.applied == 0
            || before.cluster_configs != image.cluster_configs
            || before.broker_configs.get(&self.node) != image.broker_configs.get(&self.node);
        if defaults_changed {
            self.broker_settings.send_replace(Arc::new(BrokerSettings::resolve(layers)));
        }
        if before.client_quotas != image.client_quotas {
            self.quotas.set(&image.client_quotas);
        }
        if before.client_metrics != image.client_metrics {
            self.telemetry.set(&image.client_metrics);
        }
        let mut settings = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        settings.retain(|id, _| image.topics.contains_key(id));
        for (id, topic) in image.topics.iter() {
            let unchanged = before.topics.get(id).is_some_and(|b| b.configs == topic.configs);
            if defaults_changed || !unchanged || !settings.contains_key(id) {
                settings.insert(*id, Arc::new(TopicSettings::resolve(&topic.configs, layers)));
            }
        }
    }

    /// What the settings of a topic amount to.
    pub fn topic_settings(&self, topic: &Topic) -> Arc<TopicSettings> {
        let known = self.settings.read().unwrap_or_else(PoisonError::into_inner).get(&topic.id).cloned();
        known.unwrap_or_else(|| Arc::new(TopicSettings::resolve(&topic.configs, self.layers(&self.image()))))
    }

    /// What the settings of this broker amount to.
    pub fn broker_settings(&self) -> Arc<BrokerSettings> {
        self.broker_settings.borrow().clone()
    }

    /// The same as they change.
    pub fn watch_settings(&self) -> watch::Receiver<Arc<BrokerSettings>> {
        self.broker_settings.subscribe()
    }

    /// The layers that settings come from, for showing them.
    pub fn with_layers<T>(&self, show: impl FnOnce(Layers<'_>) -> T) -> T {
        show(self.layers(&self.image()))
    }

    /// The settings that are set on a resource itself.
    pub fn overrides(&self, resource: &ConfigResource) -> BTreeMap<String, String> {
        let image = self.image();
        match resource {
            ConfigResource::Topic(name) => image.topic(name).map(|t| t.configs.clone()).unwrap_or_default(),
            ConfigResource::Broker(node) => image.broker_configs.get(node).cloned().unwrap_or_default(),
            ConfigResource::Cluster => image.cluster_configs.clone(),
            ConfigResource::Group(name) => image.group_configs.get(name).cloned().unwrap_or_default(),
            ConfigResource::ClientMetrics(name) => image.client_metrics.get(name).cloned().unwrap_or_default(),
        }
    }
}
