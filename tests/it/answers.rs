//! Bad input, answered as a real Kafka answers it: the same requests at every version, each with the state around it, so
//! that what is refused is seen to change nothing.
//!
//! The answers of a real Kafka are in `tests/fixtures/answers`; a run with `CASEMATE_TEST_BOOTSTRAP=HOST:PORT` and
//! `CASEMATE_TEST_WRITE=1` writes them, with the former alone it judges them. Deliberate differences are listed there.

mod book;
mod configs;
mod consumers;
mod fetch;
mod groups;
mod known;
mod offsets;
mod others;
mod produce;
mod quotas;
mod render;
mod state;
mod topics;
mod transactions;
mod world;

#[test]
fn groups_answer_as_kafka_does() {
    groups::run();
}

#[test]
fn offsets_answer_as_kafka_does() {
    offsets::run();
}

#[test]
fn consumers_answer_as_kafka_does() {
    consumers::run();
}

#[test]
fn transactions_answer_as_kafka_does() {
    transactions::run();
}

#[test]
fn produce_answers_as_kafka_does() {
    produce::run();
}

#[test]
fn fetch_answers_as_kafka_does() {
    fetch::run();
}

#[test]
fn topics_answer_as_kafka_does() {
    topics::run();
}

#[test]
fn configs_answer_as_kafka_does() {
    configs::run();
}

#[test]
fn quotas_answer_as_kafka_does() {
    quotas::run();
}

#[test]
fn others_answer_as_kafka_does() {
    others::run();
}
