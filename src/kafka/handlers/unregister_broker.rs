//! UnregisterBroker (key 64, KIP-631): takes a node that is gone out of the cluster for good.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::base::NodeId;
use crate::broker::ChangeError;
use crate::kafka::{ConnectionContext, Reply, Request};
use crate::metadata::{Image, Reject};
use crate::security::{Operation, Resource};

use super::Handlers;
use super::administer::{Refusal, outcome};

impl Handlers {
    pub(super) async fn unregister_broker(&self, request: Request, body: UnregisterBrokerRequest) -> Reply {
        let result = self.unregister(&request.context, NodeId(body.broker_id.0)).await;
        let (code, message) = outcome(&result);
        self.count(&request, code);
        let response = UnregisterBrokerResponse::default().with_error_code(code).with_error_message(message);
        Reply::encode(request.to, &response)
    }

    async fn unregister(&self, context: &ConnectionContext, broker: NodeId) -> Result<(), Refusal> {
        let permit = self.permit(context, Operation::Alter, Resource::CLUSTER)?;
        judge(&self.broker.image(), broker)?;
        match self.broker.remove_node(&permit, broker).await {
            // Only this node has what is not uploaded yet, or it leads something still: the words say what to do.
            Err(ChangeError::Rejected(
                reject @ (Reject::NodeLeads { .. } | Reject::NodeHoldsLedgers { .. } | Reject::LastNode(_)),
            )) => Err(Refusal::invalid(reject.to_string())),
            done => Ok(done?),
        }
    }
}

/// A real broker lets itself be unregistered while it runs, and is then of no use until it is started again.
fn judge(image: &Image, broker: NodeId) -> Result<(), Refusal> {
    match image.brokers.get(&broker) {
        None => Err(Refusal::new(
            ResponseError::BrokerIdNotRegistered,
            format!("Broker ID {broker} is not currently registered"),
        )),
        Some(_) if image.brokers.len() == 1 => {
            Err(Refusal::invalid(format!("Broker {broker} is the only one of this cluster and stays registered.")))
        }
        Some(registered) if !registered.fenced => Err(Refusal::invalid(format!(
            "Broker {broker} is running: drain its node and stop it first. A node that is unregistered does not come back \
             under its id."
        ))),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::administer::one_topic;
    use crate::kafka::handlers::picture_tests::three_brokers;

    #[test]
    fn only_a_broker_that_is_down_and_not_the_last_can_be_unregistered() {
        let cluster = three_brokers(&[3]);
        for (image, id, expected) in [
            (&cluster, 9, Err((102, "Broker ID 9 is not currently registered"))),
            (&cluster, -1, Err((102, "Broker ID -1 is not currently registered"))),
            (&cluster, 1, Err((42, "Broker 1 is running: drain its node and stop it first"))),
            (&cluster, 3, Ok(())),
            (&one_topic("t", 1), 1, Err((42, "Broker 1 is the only one of this cluster and stays registered."))),
        ] {
            match (judge(image, NodeId(id)), expected) {
                (Ok(()), Ok(())) => {}
                (Err(refusal), Err((code, message))) => {
                    assert_eq!(refusal.code(), code);
                    assert!(refusal.message.as_ref().is_some_and(|m| m.starts_with(message)), "{refusal:?}");
                }
                other => panic!("{id}: {other:?}"),
            }
        }
    }
}
