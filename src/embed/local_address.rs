//! The address from which members are dialled, with the gate `SetMemberLocalAddr` (etcd `server/embed/config.go`,
//! `InferLocalAddr`): on a host of several addresses the kernel might choose one that this member's certificate does
//! not name.

use std::net::IpAddr;

use super::config::Config;
use super::gates::is_on;
use crate::support::urls::texts;

/// The first advertised peer address that others could see: not a name, not a loopback address, not "any".
pub(super) fn infer(config: &Config) -> Option<IpAddr> {
    if !is_on(&config.cluster.feature_gates, "SetMemberLocalAddr") {
        return None;
    }
    let advertised = &config.member.advertise_peer;
    tracing::info!(
        "advertise-peer-urls" = ?texts(advertised),
        "searching for a suitable member local address in AdvertisePeerURLs"
    );
    let addresses = advertised.iter().filter_map(|url| url.hostname().parse::<IpAddr>().ok());
    let found = { addresses }.find(|address| !address.is_loopback() && !address.is_unspecified());
    match found {
        Some(address) => tracing::info!("LocalAddr" = %address, "setting member local address"),
        None => tracing::warn!(
            "advertise-peer-urls" = ?texts(advertised),
            "unable to set a member local address due to lack of suitable local addresses"
        ),
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::gates::decided;
    use crate::support::urls::parse_list;

    fn inferred(gates: &str, advertised: &str) -> Option<String> {
        let mut config = Config::default();
        config.cluster.feature_gates = decided(gates);
        config.member.advertise_peer = parse_list(advertised).unwrap();
        infer(&config).map(|address| address.to_string())
    }

    #[test]
    fn the_first_address_that_others_could_see_is_taken_if_the_gate_is_open() {
        const OPEN: &str = "SetMemberLocalAddr=true";
        for (gates, advertised, want) in [
            (OPEN, "https://10.0.0.1:2380", Some("10.0.0.1")),
            (OPEN, "https://127.0.0.1:2380,https://0.0.0.0:1,https://10.0.0.2:3", Some("10.0.0.2")),
            (OPEN, "https://[fd00::1]:2380", Some("fd00::1")),
            (OPEN, "https://[::1]:2380,https://[::]:1", None),
            (OPEN, "https://a.example:2380", None),
            ("", "https://10.0.0.1:2380", None),
        ] {
            assert_eq!(inferred(gates, advertised).as_deref(), want, "{gates} {advertised}");
        }
    }
}
