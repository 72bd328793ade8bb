//! Following the metadata: opens and closes partitions, moves their positions, resolves settings.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use crate::metadata::{Command, ConfigResource, Image, Response, Topic};

use super::opening::{Arrival, Opener, partitions_of};
use super::settings::{BrokerSettings, Layers};
use super::{Broker, ChangeError, TopicSettings};

/// Partitions that are opened before others get their turn.
const OPENINGS_IN_A_ROW: usize = 16;

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
        let follow = async {
            let mut image = self.image.clone();
            while image.changed().await.is_ok() {
                self.reconcile().await;
            }
        };
        tokio::join!(follow, self.run_openings(), self.run_moves());
    }

    /// Brings the open partitions in line with the newest image.
    pub async fn reconcile(&self) {
        let mut reconciled = self.reconciled.lock().await;
        let image = self.image();
        if image.applied <= reconciled.applied {
            return;
        }
        let opener = self.opener(&image);
        for (id, topic) in image.topics.iter() {
            let before = reconciled.topics.get(id);
            if before.is_none_or(|before| !Arc::ptr_eq(before, topic)) {
                self.reconcile_topic(&opener, &reconciled, topic).await;
            }
        }
        drop(opener);
        for topic in reconciled.topics.values().filter(|topic| !image.topics.contains_key(&topic.id)) {
            for (id, _) in partitions_of(topic) {
                self.openings.remove(id);
                self.moves.remove(id);
                self.registry.close(id);
            }
        }
        self.resolve_settings(&reconciled, &image);
        *reconciled = image;
        drop(reconciled);
        self.coordinators.reconciled();
    }

    async fn reconcile_topic(&self, opener: &Opener<'_>, before: &Image, topic: &Topic) {
        let known_topic = before.topics.get(&topic.id);
        let mut opened = 0;
        for (id, partition) in partitions_of(topic) {
            let known = known_topic.and_then(|known| known.partitions.get(id.index as usize));
            if known.is_some_and(|known| Arc::ptr_eq(known, partition)) {
                continue;
            }
            if let Some(departed) = self.registry.departed(id) {
                departed.follow(partition);
                self.registry.forget_departed(id);
            }
            if partition.leader != self.node {
                self.openings.remove(id);
                self.moves.remove(id);
                self.registry.depart(id);
                continue;
            }
            if self.registry.get(id).is_some_and(|open| open.positions().leader_epoch != partition.leader_epoch) {
                // It went away and came back between two images: others may have appended.
                self.registry.depart(id);
            }
            match self.registry.get(id) {
                Some(open) => open.follow(partition),
                None => {
                    let arrival = Arrival::between(before, known.map(|known| &**known), opener.image, partition);
                    match opener.open(topic, id, partition, arrival.handed_over) {
                        Ok(()) => self.openings.remove(id),
                        Err(_) => self.openings.add(id, arrival),
                    }
                    opened += 1;
                    if opened % OPENINGS_IN_A_ROW == 0 {
                        // Requests are served on the same threads.
                        tokio::task::yield_now().await;
                    }
                }
            }
            self.moves.consider(id, partition, self.node);
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
