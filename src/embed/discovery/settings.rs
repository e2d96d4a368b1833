//! What `--discovery-*` say.

use std::fmt;

use crate::support::go::duration::GoDuration;

/// Where a member finds the others at its first start, instead of in `--initial-cluster`.
#[derive(Clone, PartialEq)]
pub struct DiscoverySettings {
    /// `--discovery-srv`: a domain whose service records name the first members; empty for none.
    pub srv_domain: String,
    /// `--discovery-srv-name`: suffix to the services asked for.
    pub srv_name: String,
    /// `--discovery-token`: names this cluster at the discovery service.
    pub token: String,
    /// `--discovery-endpoints`; empty for no such service.
    pub endpoints: Vec<String>,
    /// `--discovery-dial-timeout`: for a connection to an endpoint, and for logging in there.
    pub dial_timeout: GoDuration,
    /// `--discovery-request-timeout`: for one question, over all endpoints.
    pub request_timeout: GoDuration,
    /// `--discovery-keepalive-time`: pings while something is waited for; not sooner than each 10 s, as in grpc-go.
    pub keepalive_time: GoDuration,
    /// `--discovery-keepalive-timeout`: for the answer to a ping.
    pub keepalive_timeout: GoDuration,
    /// `--discovery-insecure-transport`: no TLS where neither a file nor an `https://` asks for it.
    pub insecure_transport: bool,
    /// `--discovery-insecure-skip-tls-verify`: TLS with whoever answers.
    pub insecure_skip_tls_verify: bool,
    /// `--discovery-cert`.
    pub cert_file: String,
    /// `--discovery-key`.
    pub key_file: String,
    /// `--discovery-cacert`.
    pub trusted_ca_file: String,
    /// `--discovery-user`: `name`, or `name:password`.
    pub user: String,
    /// `--discovery-password`; not for the log.
    pub password: String,
}

impl Default for DiscoverySettings {
    fn default() -> Self {
        DiscoverySettings {
            srv_domain: String::new(),
            srv_name: String::new(),
            token: String::new(),
            endpoints: Vec::new(),
            dial_timeout: GoDuration::from_secs(2),
            request_timeout: GoDuration::from_secs(5),
            keepalive_time: GoDuration::from_secs(2),
            keepalive_timeout: GoDuration::from_secs(6),
            insecure_transport: true,
            insecure_skip_tls_verify: false,
            cert_file: String::new(),
            key_file: String::new(),
            trusted_ca_file: String::new(),
            user: String::new(),
            password: String::new(),
        }
    }
}

/// Without user and password.
impl fmt::Debug for DiscoverySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoverySettings")
            .field("srv_domain", &self.srv_domain)
            .field("srv_name", &self.srv_name)
            .field("token", &self.token)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl DiscoverySettings {
    /// Whether a discovery service is to be asked.
    pub fn asks_a_service(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// Name and password, if there are both: as with etcd's client a name alone does not log in.
    pub(super) fn login(&self) -> Option<(&str, &str)> {
        let (name, password) = match self.user.split_once(':') {
            Some((name, password)) if self.password.is_empty() => (name, password),
            _ => (self.user.as_str(), self.password.as_str()),
        };
        (!name.is_empty() && !password.is_empty()).then_some((name, password))
    }

    /// What does not go together (etcd `server/embed/config.go`, `Validate`).
    pub(in crate::embed) fn faults(&self, initial_cluster: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let ways =
            [!initial_cluster.is_empty(), !self.srv_domain.is_empty(), self.asks_a_service()];
        if ways.iter().filter(|given| **given).count() > 1 {
            faults.push(
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                 \"discovery-endpoints\" or \"discovery-srv\""
                    .to_owned(),
            );
        }
        if self.token.is_empty() == self.asks_a_service() {
            faults.push("both --discovery-token and --discovery-endpoints must be set".to_owned());
        }
        if self.endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
            faults.push("--discovery-endpoints must not contain empty endpoints".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut DiscoverySettings)) -> DiscoverySettings {
        let mut settings = DiscoverySettings::default();
        change(&mut settings);
        settings
    }

    #[test]
    fn ways_that_exclude_each_other_and_halves_are_refused_in_etcds_words() {
        let both = settings(|s| {
            s.token = "t".to_owned();
            s.endpoints = vec!["http://a:1".to_owned()];
        });
        assert_eq!(both.faults(""), Vec::<String>::new());
        let multiple = "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                        \"discovery-endpoints\" or \"discovery-srv\"";
        assert_eq!(both.faults("a=http://a:1"), [multiple]);
        let srv = settings(|s| s.srv_domain = "example.com".to_owned());
        assert_eq!(srv.faults("a=http://a:1"), [multiple]);
        assert_eq!(srv.faults(""), Vec::<String>::new());
        let halves = "both --discovery-token and --discovery-endpoints must be set";
        assert_eq!(settings(|s| s.token = "t".to_owned()).faults("a=http://a:1"), [halves]);
        assert_eq!(settings(|s| s.endpoints = vec!["a:1".to_owned()]).faults(""), [halves]);
        let empty = settings(|s| {
            s.token = "t".to_owned();
            s.endpoints = vec!["a:1".to_owned(), " ".to_owned()];
        });
        assert_eq!(empty.faults(""), ["--discovery-endpoints must not contain empty endpoints"]);
    }

    #[test]
    fn who_logs_in_needs_a_name_and_a_password_and_shows_neither() {
        let user = |user: &str, password: &str| {
            settings(|s| (s.user, s.password) = (user.to_owned(), password.to_owned()))
        };
        assert_eq!(user("root", "hunter2").login(), Some(("root", "hunter2")));
        assert_eq!(user("root:hunter2", "").login(), Some(("root", "hunter2")));
        assert_eq!(user("root:x", "hunter2").login(), Some(("root:x", "hunter2")));
        assert_eq!(user("root", "").login(), None);
        assert!(!format!("{:?}", user("root:hunter2", "hunter2")).contains("hunter2"));
    }
}
