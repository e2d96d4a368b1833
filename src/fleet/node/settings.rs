//! What a managed node is told when its daemon starts; names and addresses that a request brings go before these.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where others reach a node that nobody has told anything else.
pub const ADDRESS_DEFAULT: &str = "127.0.0.1";

/// Settings of one managed node. They may differ from node to node, and from start to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// Everything the node keeps; made with mode 0700 if it is missing.
    pub state_dir: PathBuf,
    /// Its name, where bootstrap or join give none.
    pub name: String,
    /// The host (a name or an IP address, no port) by which others reach it, where bootstrap or join give none.
    pub host: String,
    /// The IP address that listeners are bound to; empty for that of `host`.
    pub listen: String,
    /// Of `/1.0/` over TLS.
    pub api_port: u16,
    /// Of etcd's clients, over TLS and with certificates of the fleet.
    pub client_port: u16,
    /// Of members among themselves, over TLS.
    pub peer_port: u16,
    /// Etcd's clients without TLS, on 127.0.0.1 alone; `None` for no such listener. It may be `client_port`, unless that
    /// is bound to every address.
    pub plain_client_port: Option<u16>,
    /// Names and addresses beside `host` that its certificates are to hold.
    pub extra_sans: Vec<String>,
    /// Pace and patience.
    pub timers: Timers,
}

/// Pace of the member and patience of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timers {
    /// etcd's `--heartbeat-interval`, in milliseconds.
    pub heartbeat_ms: u64,
    /// etcd's `--election-timeout`, in milliseconds.
    pub election_ms: u64,
    /// How long a call may take that gives no `timeout` (the origin's 90 s).
    pub call: Duration,
    /// How long a member that is being stopped may take before the process ends without it.
    pub stop: Duration,
    /// How often a node looks after its certificates when nothing has told it to.
    pub certificates: Duration,
}

impl Default for NodeSettings {
    fn default() -> Self {
        NodeSettings {
            state_dir: PathBuf::from("/var/lib/quorate"),
            name: String::new(),
            host: ADDRESS_DEFAULT.to_owned(),
            listen: String::new(),
            api_port: 6400,
            client_port: 2379,
            peer_port: 2380,
            plain_client_port: None,
            extra_sans: Vec::new(),
            timers: Timers::default(),
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            heartbeat_ms: 100,
            election_ms: 1000,
            call: Duration::from_secs(90),
            stop: Duration::from_secs(15),
            certificates: Duration::from_secs(5),
        }
    }
}

impl NodeSettings {
    /// The first thing that is wrong, in words for who gave them.
    pub fn fault(&self) -> Option<String> {
        let mut ports = vec![
            ("api-port", self.api_port),
            ("client-port", self.client_port),
            ("peer-port", self.peer_port),
        ];
        // The client port may speak both.
        let plain = self.plain_client_port.filter(|port| *port != self.client_port);
        ports.extend(plain.map(|port| ("plain-client-port", port)));
        for (at, (name, port)) in ports.iter().enumerate() {
            if *port == 0 {
                return Some(format!("--{name} must be between 1 and 65535"));
            }
            if let Some((other, _)) = ports[..at].iter().find(|(_, other)| other == port) {
                return Some(format!("--{name} and --{other} are both {port}"));
            }
        }
        if self.plain_client_port == Some(self.client_port) && self.listens_everywhere() {
            return Some(format!(
                "--plain-client-port and --client-port are both {}, which listens on every address",
                self.client_port
            ));
        }
        if self.host.is_empty() || self.host.contains(['/', ',', ' ']) {
            return Some(format!("--address {:?} is neither a name nor an IP address", self.host));
        }
        if self.host.contains(':') && address_in(&self.host).is_none() {
            return Some(format!("--address {:?} is a host without a port, no more", self.host));
        }
        if !self.listen.is_empty() && address_in(&self.listen).is_none() {
            return Some(format!("--listen {:?} is no IP address", self.listen));
        }
        if self.timers.heartbeat_ms == 0 || self.timers.election_ms < 5 * self.timers.heartbeat_ms {
            let Timers { heartbeat_ms, election_ms, .. } = self.timers;
            return Some(format!(
                "--election-timeout[{election_ms}ms] should be at least as 5 times as \
                 --heartbeat-interval[{heartbeat_ms}ms]"
            ));
        }
        None
    }

    /// `host:port` of the API as others reach it: `given` with the port completed, or what the settings say.
    pub fn api_address(&self, given: &str) -> String {
        if given.is_empty() {
            return join_host(&self.host, self.api_port);
        }
        match split_host(given) {
            (_, Some(_)) => given.to_owned(),
            (host, None) => join_host(host, self.api_port),
        }
    }

    /// The peer URL of a node whose API is reached at `address`.
    pub fn peer_url(&self, address: &str) -> String {
        format!("https://{}", join_host(split_host(address).0, self.peer_port))
    }

    /// The client URL of a node whose API is reached at `address`.
    pub fn client_url(&self, address: &str) -> String {
        format!("https://{}", join_host(split_host(address).0, self.client_port))
    }

    /// The IP address that listeners are bound to: names are not bound to, every address is then.
    pub fn listen_host(&self) -> &str {
        let chosen = if self.listen.is_empty() { &self.host } else { &self.listen };
        address_in(chosen).map_or("0.0.0.0", |(bare, _)| bare)
    }

    /// Whether listeners are bound to every address.
    pub fn listens_everywhere(&self) -> bool {
        address_in(self.listen_host()).is_some_and(|(_, address)| address.is_unspecified())
    }

    /// Whether clients without TLS come to the same listener as those with it.
    pub fn shares_client_port(&self) -> bool {
        self.plain_client_port == Some(self.client_port) && self.listen_host() == "127.0.0.1"
    }
}

/// The IP address that `host` is, without brackets; `None`: it is a name.
fn address_in(host: &str) -> Option<(&str, IpAddr)> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Some((bare, bare.parse().ok()?))
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn join_host(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Host without brackets, and the port if one is given.
pub(crate) fn split_host(address: &str) -> (&str, Option<u16>) {
    if let Some(rest) = address.strip_prefix('[') {
        let Some((host, tail)) = rest.split_once(']') else { return (address, None) };
        return (host, tail.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (address, None),
        },
        _ => (address, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_api_is_completed_by_its_port() {
        let settings = NodeSettings { host: "10.0.0.1".to_owned(), ..NodeSettings::default() };
        for (given, want) in [
            ("", "10.0.0.1:6400"),
            ("10.0.0.2", "10.0.0.2:6400"),
            ("10.0.0.2:7000", "10.0.0.2:7000"),
            ("node-1.example", "node-1.example:6400"),
            ("::1", "[::1]:6400"),
            ("[::1]", "[::1]:6400"),
            ("[::1]:7000", "[::1]:7000"),
        ] {
            assert_eq!(settings.api_address(given), want, "{given}");
        }
        assert_eq!(settings.peer_url("[::1]:7000"), "https://[::1]:2380");
        assert_eq!(settings.client_url("h:7000"), "https://h:2379");
    }

    #[test]
    fn ports_that_meet_and_timers_that_do_not_fit_are_refused() {
        let fault = |change: fn(&mut NodeSettings)| {
            let mut settings = NodeSettings::default();
            change(&mut settings);
            settings.fault()
        };
        assert_eq!(fault(|_| ()), None);
        assert!(fault(|s| s.peer_port = 2379).unwrap().contains("both 2379"));
        assert!(fault(|s| s.plain_client_port = Some(6400)).unwrap().contains("both 6400"));
        assert_eq!(fault(|s| s.plain_client_port = Some(2379)), None);
        let everywhere = |s: &mut NodeSettings| {
            s.plain_client_port = Some(2379);
            s.listen = "0.0.0.0".to_owned();
        };
        assert!(fault(everywhere).unwrap().contains("every address"));
        assert!(fault(|s| s.api_port = 0).unwrap().contains("api-port"));
        assert!(fault(|s| s.timers.election_ms = 300).unwrap().contains("5 times"));
        assert!(fault(|s| s.host = "http://x".to_owned()).is_some());
        assert!(fault(|s| s.host = "10.0.0.1:6400".to_owned()).unwrap().contains("without a port"));
        assert!(fault(|s| s.host = "node-1:6400".to_owned()).unwrap().contains("without a port"));
        assert_eq!(fault(|s| s.host = "[::1]".to_owned()), None);
        assert!(fault(|s| s.listen = "node-1".to_owned()).unwrap().contains("no IP address"));
        assert_eq!(fault(|s| s.listen = "::1".to_owned()), None);
    }

    #[test]
    fn a_name_is_not_bound_to() {
        let listen = |host: &str, listen: &str| {
            let (host, listen) = (host.to_owned(), listen.to_owned());
            let settings = NodeSettings { host, listen, ..NodeSettings::default() };
            settings.listen_host().to_owned()
        };
        assert_eq!(listen("10.0.0.1", ""), "10.0.0.1");
        assert_eq!(listen("node-1.example", ""), "0.0.0.0");
        assert_eq!(listen("node-1.example", "127.0.0.1"), "127.0.0.1");
        assert_eq!(listen("[::1]", ""), "::1");
    }
}
