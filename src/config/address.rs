//! Addresses as options write them. Nothing is looked up: what is listened on is a number.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// Reads `HOST:PORT` or `[IPv6]:PORT`.
    pub fn parse(text: &str) -> Result<HostPort, &'static str> {
        const FORM: &str = "write HOST:PORT, such as kafka.example:9093";
        let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
        let port = port.parse().map_err(|_| "the port is a number from 0 to 65535")?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(address) => address.parse::<IpAddr>().map_err(|_| FORM)?.to_string(),
            None if host.contains(':') => return Err("write an IPv6 address in brackets, such as [::1]:9093"),
            None => host.to_owned(),
        };
        if host.is_empty() || host.len() > 253 || !host.chars().all(|c| c.is_ascii_graphic() && !"/@[]\"'".contains(c))
        {
            return Err(FORM);
        }
        Ok(HostPort { host, port })
    }

    /// Reads an address to listen on: a name other than localhost is refused.
    pub fn parse_bind(text: &str) -> Result<SocketAddr, &'static str> {
        let HostPort { host, port } = HostPort::parse(text)?;
        if host == "localhost" {
            return Ok((Ipv4Addr::LOCALHOST, port).into());
        }
        let address: IpAddr = host.parse().map_err(
            |_| "listen on an IP address of this machine, such as 0.0.0.0:9093 for all; names belong in advertise",
        )?;
        Ok((address, port).into())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        assert_eq!(HostPort::parse("a.b:9").unwrap().to_string(), "a.b:9");
        assert_eq!(HostPort::parse("[::1]:9").unwrap().to_string(), "[::1]:9");
        for bad in ["", "a", "a:", ":9", "a:65536", "::1:9", "[::1]9", "[a]:9", "a b:9", "https://a:9", "a\n:9"] {
            assert!(HostPort::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_addresses_are_listened_on() {
        assert_eq!(HostPort::parse_bind("localhost:1"), Ok(SocketAddr::from(([127, 0, 0, 1], 1))));
        assert_eq!(HostPort::parse_bind("[::]:0"), Ok("[::]:0".parse().unwrap()));
        assert!(HostPort::parse_bind("kafka.example:9093").unwrap_err().contains("advertise"));
    }
}
