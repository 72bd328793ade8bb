//! DescribeUserScramCredentials (key 50, KIP-554): nobody has any, for this release has no SCRAM. It is answered all the
//! same, because the stock tool asks for them whenever it shows the quotas of users.

use std::collections::HashMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};

use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};

use super::Handlers;
use super::administer::Refusal;

impl Handlers {
    pub(super) async fn describe_user_scram_credentials(
        &self,
        request: Request,
        body: DescribeUserScramCredentialsRequest,
    ) -> Reply {
        let mut response = DescribeUserScramCredentialsResponse::default().with_error_message(None);
        match self.permit(&request.context, Operation::Describe, Resource::CLUSTER).map_err(Refusal::from) {
            Ok(_permit) => response.results = results(&body.users.unwrap_or_default()),
            Err(refusal) => (response.error_code, response.error_message) = (refusal.code(), refusal.text()),
        }
        self.count(&request, response.error_code);
        for result in &response.results {
            self.count(&request, result.error_code);
        }
        Reply::encode(request.to, &response)
    }
}

/// Each user once, in the order in which they are first named.
fn results(asked: &[UserName]) -> Vec<DescribeUserScramCredentialsResult> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for user in asked {
        *times.entry(&user.name).or_default() += 1;
    }
    let mut results = Vec::with_capacity(times.len());
    for UserName { name, .. } in asked {
        let refusal = match times.remove(&**name) {
            // Was answered where it was named first.
            None => continue,
            Some(1) => {
                let message = format!("Attempt to describe a user credential that does not exist: {name}");
                Refusal::new(ResponseError::ResourceNotFound, message)
            }
            Some(_) => {
                let message =
                    format!("Cannot describe SCRAM credentials for the same user twice in a single request: {name}");
                Refusal::new(ResponseError::DuplicateResource, message)
            }
        };
        results.push(
            DescribeUserScramCredentialsResult::default()
                .with_user(name.clone())
                .with_error_code(refusal.code())
                .with_error_message(refusal.text()),
        );
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::text;

    /// As a real Kafka 4.3.1 without such credentials answers.
    #[test]
    fn nobody_has_credentials() {
        let named = |names: &[&str]| -> Vec<(String, i16)> {
            let asked: Vec<_> = names.iter().map(|name| UserName::default().with_name(text(*name))).collect();
            results(&asked).iter().map(|result| (result.user.to_string(), result.error_code)).collect()
        };
        assert_eq!(named(&[]), []);
        assert_eq!(named(&["a", "b", "a"]), [("a".to_owned(), 92), ("b".to_owned(), 91)]);
    }
}
