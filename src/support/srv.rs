//! DNS service records (RFC 2782), with the service names of etcd (`client/pkg/srv/srv.go`).

use std::cmp::Reverse;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::rdata::SRV;

use super::urls::join_host_port;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Host name, without the dot at its end.
    pub target: String,
    /// Port.
    pub port: u16,
    /// Lower ones go first.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
}

/// A record of members that serve clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Whether it was named by the service for TLS.
    pub secure: bool,
    /// Where.
    pub record: Record,
}

impl Client {
    /// As an endpoint.
    pub fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", join_host_port(&self.record.target, self.record.port))
    }
}

/// The name of a service: `etcd-client`, or `etcd-client-ssl` for TLS, and a suffix that tells clusters apart.
pub fn service_name(service: &str, secure: bool, suffix: &str) -> String {
    let ssl = if secure { "-ssl" } else { "" };
    let dash = if suffix.is_empty() { "" } else { "-" };
    format!("{service}{ssl}{dash}{suffix}")
}

/// Whom names are asked of. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Names(TokioResolver);

impl Names {
    /// As the system's configuration says (`resolv.conf`).
    pub fn of_the_system() -> Result<Names, String> {
        let builder = TokioResolver::builder_tokio();
        builder.map(|builder| Names(builder.build())).map_err(|why| format!("lookup: {why}"))
    }

    /// Where a domain says that clients are served, with TLS first. An error only if neither service is known.
    pub async fn clients(&self, domain: &str, suffix: &str) -> Result<Vec<Client>, String> {
        let mut found = Vec::new();
        let mut faults = Vec::new();
        for secure in [true, false] {
            match self.lookup(&service_name("etcd-client", secure, suffix), domain).await {
                Ok(records) => {
                    found.extend(records.into_iter().map(|record| Client { secure, record }));
                }
                Err(why) => faults.push(why),
            }
        }
        match faults.as_slice() {
            [tls, plain] => Err(format!("dns lookup errors: {tls} and {plain}")),
            _ => Ok(found),
        }
    }

    /// The records of `_service._tcp.domain`, by priority; the heavier ones of one priority first.
    pub async fn lookup(&self, service: &str, domain: &str) -> Result<Vec<Record>, String> {
        let name = format!("_{service}._tcp.{domain}");
        let answer = self.0.srv_lookup(name.clone()).await.map_err(|why| {
            match why.is_no_records_found() {
                // Go's words for a name that is not there.
                true => format!("lookup {name}: no such host"),
                false => format!("lookup {name}: {why}"),
            }
        })?;
        let record = |srv: &SRV| Record {
            target: srv.target().to_utf8().trim_end_matches('.').to_owned(),
            port: srv.port(),
            priority: srv.priority(),
            weight: srv.weight(),
        };
        let mut records: Vec<Record> = answer.iter().map(record).collect();
        records.sort_by_key(|record| (record.priority, Reverse(record.weight)));
        Ok(records)
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::testing::Zone;
    use super::*;

    #[test]
    fn services_are_named_as_etcd_names_them() {
        assert_eq!(service_name("etcd-client", true, ""), "etcd-client-ssl");
        assert_eq!(service_name("etcd-server", false, "blue"), "etcd-server-blue");
    }

    #[test]
    fn an_endpoint_has_its_scheme() {
        let record = Record { target: "::1".to_owned(), port: 1, priority: 0, weight: 0 };
        assert_eq!(Client { secure: true, record }.url(), "https://[::1]:1");
    }

    #[tokio::test]
    async fn records_come_by_priority_and_a_name_that_is_not_there_is_told_in_gos_words() {
        let zone = Zone::serve(&[
            ("_etcd-client-ssl._tcp.example.com.", 2, 0, 3, "localhost."),
            ("_etcd-client-ssl._tcp.example.com.", 1, 1, 2, "localhost."),
            ("_etcd-client-ssl._tcp.example.com.", 1, 5, 1, "localhost."),
        ])
        .await;
        let found = zone.names().clients("example.com", "").await.unwrap();
        let urls: Vec<String> = found.iter().map(Client::url).collect();
        assert_eq!(urls, ["https://localhost:1", "https://localhost:2", "https://localhost:3"]);
        assert_eq!(
            zone.names().clients("example.com", "blue").await,
            Err("dns lookup errors: lookup _etcd-client-ssl-blue._tcp.example.com: no such host and lookup \
                 _etcd-client-blue._tcp.example.com: no such host"
                .to_owned())
        );
    }
}
