//! UnregisterBroker (key 64, KIP-631): takes a broker that is gone out of the cluster. With one node the only broker is
//! the one that answers.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::base::NodeId;
use crate::kafka::{Reply, Request};
use crate::metadata::Image;
use crate::security::{Operation, Resource};

use super::Handlers;
use super::administer::{Refusal, outcome};

impl Handlers {
    pub(super) async fn unregister_broker(&self, request: Request, body: UnregisterBrokerRequest) -> Reply {
        let permitted = self.permit(&request.context, Operation::Alter, Resource::CLUSTER);
        let result =
            permitted.map_err(Refusal::from).and_then(|_permit| judge(&self.broker.image(), NodeId(body.broker_id.0)));
        let (code, message) = outcome(&result);
        self.count(&request, code);
        let response = UnregisterBrokerResponse::default().with_error_code(code).with_error_message(message);
        Reply::encode(request.to, &response)
    }
}

fn judge(image: &Image, broker: NodeId) -> Result<(), Refusal> {
    Err(match image.brokers.contains_key(&broker) {
        // A real broker lets itself be unregistered and is then of no use until it is started again.
        true => Refusal::invalid(format!("Broker {broker} is the only one of this cluster and stays registered.")),
        false => Refusal::new(
            ResponseError::BrokerIdNotRegistered,
            format!("Broker ID {broker} is not currently registered"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_broker_can_be_unregistered() {
        let image = Image::default();
        for (id, message) in
            [(9, "Broker ID 9 is not currently registered"), (-1, "Broker ID -1 is not currently registered")]
        {
            let refusal = judge(&image, NodeId(id)).unwrap_err();
            assert_eq!((refusal.code(), refusal.message.as_deref()), (102, Some(message)));
        }
    }
}
