//! Endpoints that DNS names, for the sub-programs that stand before a cluster (etcd `server/etcdmain/util.go`,
//! `client/pkg/transport/tls.go`).
//!
//! ```text
//!   _etcd-client[-ssl]._tcp.<domain> ──> endpoints ── https, and its certificate is the domain's ──> those
//!                                                 └── --insecure-discovery ──> all
//! ```

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::go::quote::quote;
use crate::support::listen::words;
use crate::support::srv::{Client, Names};
use crate::support::tls::{Connector, Protocol, Side, TlsSettings};
use crate::support::urls::join_host_port;

/// How long one endpoint may take to be connected to, and again to shake hands.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to look for.
pub(super) struct Wanted<'a> {
    /// `--discovery-srv`.
    pub(super) domain: &'a str,
    /// `--discovery-srv-name`.
    pub(super) suffix: &'a str,
    /// `--trusted-ca-file`; empty for the system's authorities.
    pub(super) trusted_ca_file: &'a str,
    /// `--insecure-discovery`.
    pub(super) insecure: bool,
}

impl Wanted<'_> {
    /// The endpoints of the domain that are good enough; none if none is, which was told.
    pub(super) async fn find(&self, names: &Names) -> Result<Vec<Client>, String> {
        let found = names.clients(self.domain, self.suffix).await?;
        let server = self.domain;
        let endpoints = urls(&found);
        tracing::info!("srv-server" = server, ?endpoints, "discovered cluster from SRV");
        if self.insecure {
            return Ok(found);
        }
        tracing::info!("srv-server" = server, ?endpoints, "validating discovered SRV endpoints");
        let (good, faults) = match self.connector() {
            Ok(connector) => validate(&connector, found).await,
            Err(why) => (Vec::new(), vec![why]),
        };
        let endpoints = urls(&good);
        match faults.is_empty() {
            true => tracing::info!(
                "srv-server" = server,
                ?endpoints,
                "using validated discovered SRV endpoints"
            ),
            false => tracing::warn!(
                "srv-server" = server,
                ?endpoints,
                error = faults.join(","),
                "failed to validate discovered endpoints"
            ),
        }
        Ok(good)
    }

    /// What finds out whether an endpoint speaks for the domain.
    fn connector(&self) -> Result<Connector, String> {
        let settings = TlsSettings {
            trusted_ca_file: self.trusted_ca_file.to_owned(),
            ..TlsSettings::default()
        };
        let side = Side::open(&settings, Protocol::default(), None)?;
        Ok(side.connector().expecting(self.domain))
    }
}

fn urls(clients: &[Client]) -> Vec<String> {
    clients.iter().map(Client::url).collect()
}

/// The endpoints that are, and what is wrong with the others.
async fn validate(connector: &Connector, found: Vec<Client>) -> (Vec<Client>, Vec<String>) {
    let (mut good, mut faults) = (Vec::new(), Vec::new());
    for client in found {
        let shown = quote(&client.url());
        if !client.secure {
            faults.push(format!("{shown} is insecure"));
            continue;
        }
        match dial(connector, &client).await {
            Ok(()) => good.push(client),
            Err(why) => faults.push(format!("{shown} failed to dial ({why})")),
        }
    }
    (good, faults)
}

async fn dial(connector: &Connector, client: &Client) -> Result<(), String> {
    let (host, port) = (client.record.target.as_str(), client.record.port);
    let address = join_host_port(host, port);
    let late = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout");
    let connected = timeout(PATIENCE, TcpStream::connect((host, port))).await;
    let stream = connected
        .map_err(late)
        .and_then(|connected| connected)
        .map_err(|why| format!("dial tcp {address}: connect: {}", words(&why)))?;
    let agreed = timeout(PATIENCE, connector.connect(host, stream)).await;
    let agreed = agreed.map_err(|_elapsed| "net/http: TLS handshake timeout".to_owned())?;
    agreed.map(drop).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::SanType;
    use tokio::net::TcpListener;

    use super::*;
    use crate::support::listen::Connection;
    use crate::support::srv::testing::Zone;
    use crate::support::tls::testing::{Authority, Folder, wanted};
    use crate::support::tls::{Endpoint, FirstByte};

    const TLS: &str = "_etcd-client-ssl._tcp.example.com.";
    const PLAIN: &str = "_etcd-client._tcp.example.com.";

    /// A server that shows a certificate for `name` to whoever comes; its port.
    async fn server(folder: &Folder, authority: &Authority, name: &str) -> u16 {
        let mut made = wanted("server");
        made.names = vec![SanType::DnsName(name.to_owned().try_into().unwrap())];
        let mut settings = folder.settings(&authority.sign(&made), &authority.pem);
        settings.trusted_ca_file = String::new();
        let side = Side::open(&settings, Protocol::default(), None).unwrap();
        let acceptor = side.acceptor(Endpoint::Client).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(Some(wire)) = FirstByte::read(Connection::Tcp(stream)).await {
                    // Who does not trust us goes away.
                    let _ = acceptor.accept(wire).await;
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn an_endpoint_is_taken_if_its_certificate_is_the_domains() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("authority");
        let folder = |name: &str| Folder::new(dir.path(), name);
        let good = server(&folder("good"), &authority, "example.com").await;
        let other = server(&folder("other"), &authority, "example.org").await;
        let zone = Zone::serve(&[
            (TLS, 0, 0, good, "localhost."),
            (TLS, 1, 0, other, "localhost."),
            (PLAIN, 0, 0, good, "localhost."),
        ])
        .await;
        let ca = folder("ca").put("ca", &authority.pem);
        let look =
            Wanted { domain: "example.com", suffix: "", trusted_ca_file: &ca, insecure: false };
        let found = look.find(&zone.names()).await.unwrap();
        assert_eq!(urls(&found), [format!("https://localhost:{good}")]);
        let (_, faults) = validate(
            &look.connector().unwrap(),
            zone.names().clients("example.com", "").await.unwrap(),
        )
        .await;
        assert_eq!(
            faults,
            [
                format!(
                    "\"https://localhost:{other}\" failed to dial (tls: failed to verify certificate: x509: \
                     certificate is valid for example.org, not example.com)"
                ),
                format!("\"http://localhost:{good}\" is insecure"),
            ]
        );
        let insecure = Wanted { insecure: true, ..look };
        assert_eq!(insecure.find(&zone.names()).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn without_its_authorities_no_endpoint_is_taken() {
        let zone = Zone::serve(&[(TLS, 0, 0, 1, "localhost.")]).await;
        let look = Wanted {
            domain: "example.com",
            suffix: "",
            trusted_ca_file: "/nonexistent/ca",
            insecure: false,
        };
        assert_eq!(look.find(&zone.names()).await, Ok(Vec::new()));
        let strange = Wanted { suffix: "blue", ..look };
        assert!(strange.find(&zone.names()).await.unwrap_err().starts_with("dns lookup errors: "));
    }
}
