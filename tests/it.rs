//! The integration tests: the real binary in a process of its own, spoken to over its sockets.
//!
//! One binary for all of them, so that it is linked once. `CASEMATE_TEST_BOOTSTRAP=HOST:PORT` sends the tests of the
//! wire protocol to another broker, for instance a real Kafka, to judge the tests themselves.

#![forbid(unsafe_code)]

mod it {
    mod admin;
    mod answers;
    mod batch;
    mod client;
    mod cluster;
    mod compaction;
    mod crowd;
    mod full_disk;
    mod harness;
    mod hostile;
    mod kill_loop;
    mod load;
    mod matrix;
    mod oracle;
    mod outage;
    mod plants;
    mod process;
    mod quotas;
    mod store;
    mod strace;
    mod tls;
    mod transfers;
    mod versions;
    mod versions_coordinators;
    mod wire;
}
