//! What is said when a node serves: one line for programs, and in dev the commands for a first record.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::config::{Config, Listener, Mode, PLAINTEXT};
use crate::security;

/// The release of Kafka whose protocol is served.
pub const KAFKA_RELEASE: &str = "4.3";

/// The addresses that are listened on, now that they are bound.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Only in dev.
    pub plaintext: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
    /// Where TLS clients are told to connect.
    bootstrap: Option<String>,
    pub admin: SocketAddr,
}

impl Addresses {
    pub fn new(bound: &[(&Listener, SocketAddr)], admin: SocketAddr) -> Addresses {
        let find = |plaintext: bool| bound.iter().find(|(listener, _)| (listener.name == PLAINTEXT) == plaintext);
        let bootstrap = find(false).map(|(listener, address)| {
            let endpoint = listener.endpoint(*address);
            crate::config::HostPort { host: endpoint.host, port: endpoint.port }.to_string()
        });
        Addresses {
            plaintext: find(true).map(|(_, address)| *address),
            tls: find(false).map(|(_, address)| *address),
            bootstrap,
            admin,
        }
    }

    /// `casemate ready plaintext=ADDR tls=ADDR admin=ADDR`, without the listeners that are not there.
    fn line(&self) -> String {
        let mut line = "casemate ready".to_owned();
        for (name, address) in [("plaintext", self.plaintext), ("tls", self.tls), ("admin", Some(self.admin))] {
            if let Some(address) = address {
                let _ = write!(line, " {name}={address}");
            }
        }
        line
    }
}

/// Says on standard error that the node serves. Where a port was any, the client settings in the folder are written
/// anew first, so that they work as they are. Blocks on file I/O.
pub fn announce(config: &Config, addresses: &Addresses) {
    let any_port = config.tls.bind.port() == 0 || config.tls.advertise.as_ref().is_some_and(|host| host.port == 0);
    if (config.mode == Mode::Dev || any_port)
        && let Some(bootstrap) = &addresses.bootstrap
        && let Err(error) = security::write_client_settings(&config.data_dir, bootstrap)
    {
        tracing::warn!(%error, "the settings for clients in the folder could not be written anew");
    }
    eprint!("{}", text(config, addresses));
}

fn text(config: &Config, addresses: &Addresses) -> String {
    let mut text = addresses.line();
    text.push('\n');
    if config.mode == Mode::Dev
        && let Some(address) = addresses.plaintext
    {
        let client = config.data_dir.join("client");
        let (client, admin) = (client.display(), addresses.admin);
        let _ = write!(
            text,
            "  a first record in and out:\n\
             \x20   echo hello | kcat -P -b {address} -t first\n\
             \x20   kcat -C -b {address} -t first -o beginning -e\n\
             \x20 the same with Kafka's tools:\n\
             \x20   kafka-console-producer.sh --bootstrap-server {address} --topic first\n\
             \x20   kafka-console-consumer.sh --bootstrap-server {address} --topic first --partition 0 --offset earliest\n\
             \x20 over mutual TLS: kcat -F {client}/librdkafka.conf -L\n\
             \x20 health: curl http://{admin}/ready\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostPort, SSL};

    #[test]
    fn the_line_names_what_is_listened_on() {
        let plaintext = Listener { name: PLAINTEXT, bind: "127.0.0.1:0".parse().unwrap(), advertise: None };
        let advertise = HostPort::parse("kafka.example:0").ok();
        let tls = Listener { name: SSL, bind: "[::1]:0".parse().unwrap(), advertise };
        let (first, second, admin) =
            ("127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap(), "127.0.0.1:3".parse().unwrap());
        let dev = Addresses::new(&[(&plaintext, first), (&tls, second)], admin);
        assert_eq!(dev.line(), "casemate ready plaintext=127.0.0.1:1 tls=[::1]:2 admin=127.0.0.1:3");
        assert_eq!(dev.bootstrap.as_deref(), Some("kafka.example:2"));
        assert_eq!(Addresses::new(&[(&tls, second)], admin).line(), "casemate ready tls=[::1]:2 admin=127.0.0.1:3");
    }
}
