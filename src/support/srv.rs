//! DNS service records (RFC 2782), with the service names of etcd (`client/pkg/srv/srv.go`).

use std::cmp::Reverse;

use hickory_resolver::TokioResolver;

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

/// Where a domain says that clients are served, with TLS first. An error only if neither service is known.
pub async fn clients(domain: &str, suffix: &str) -> Result<Vec<Client>, String> {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for secure in [true, false] {
        match lookup(&service_name("etcd-client", secure, suffix), domain).await {
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
pub async fn lookup(service: &str, domain: &str) -> Result<Vec<Record>, String> {
    let name = format!("_{service}._tcp.{domain}");
    let fault = |why: &dyn std::fmt::Display| format!("lookup {name}: {why}");
    let resolver = TokioResolver::builder_tokio().map_err(|why| fault(&why))?.build();
    let answer = resolver.srv_lookup(name.clone()).await.map_err(|why| fault(&why))?;
    let record = |srv: &hickory_resolver::proto::rr::rdata::SRV| Record {
        target: srv.target().to_utf8().trim_end_matches('.').to_owned(),
        port: srv.port(),
        priority: srv.priority(),
        weight: srv.weight(),
    };
    let mut records: Vec<Record> = answer.iter().map(record).collect();
    records.sort_by_key(|record| (record.priority, Reverse(record.weight)));
    Ok(records)
}

#[cfg(test)]
mod tests {
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
}
