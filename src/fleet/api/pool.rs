//! Addresses that a load balancer may give out: networks, and ranges from one address to another.

use std::net::IpAddr;

use ipnet::IpNet;

/// Why one entry of `load-balancer.cidrs` is none, in k8sd's words (`cluster_config_convert_loadbalancer.go`).
pub(super) fn fault(entry: &str) -> Option<String> {
    let Some((start, stop)) = entry.split_once('-') else {
        return match entry.parse::<IpNet>() {
            Ok(_network) => None,
            Err(_) => {
                Some(format!("load-balancer configuration contains an invalid CIDR {entry:?}"))
            }
        };
    };
    let why = match (start.parse::<IpAddr>(), stop.parse::<IpAddr>()) {
        _ if stop.contains('-') => "not in $START-$END format".to_owned(),
        (Err(_), _) => format!("with an invalid start IP ({start:?})"),
        (_, Err(_)) => format!("with an invalid stop IP ({stop:?})"),
        (Ok(first), Ok(last)) if last < first => {
            format!("with start IP ({start:?}) greater than the stop IP ({stop:?})")
        }
        (Ok(_), Ok(_)) => return None,
    };
    Some(format!("load-balancer.cidrs contains an IP range ({entry:?}) {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_ranges_are_taken_and_what_is_neither_is_refused_with_its_reason() {
        for good in [
            "10.0.0.0/24",
            "10.3.0.7/32",
            "2001:db8::/64",
            "10.3.0.7-10.3.0.10",
            "10.3.0.7-10.3.0.7",
            "2001:db8::-2001:db8::10",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for (bad, why) in [
            ("", "invalid CIDR \"\""),
            ("bananas", "invalid CIDR \"bananas\""),
            ("fd01::/64,fd02::/64", "invalid CIDR"),
            ("10.3.0.1000-10.3.0.1001", "invalid start IP (\"10.3.0.1000\")"),
            ("10.3.0.10-10.3.0.300", "invalid stop IP (\"10.3.0.300\")"),
            ("10.3.0.10-10.3.0.7", "greater than the stop IP (\"10.3.0.7\")"),
            ("2001:db8::-2001:db8::gg", "invalid stop IP"),
            ("10.3.0.10-10.3.0.12-10.3.0.15", "not in $START-$END format"),
        ] {
            let fault = fault(bad).expect(bad);
            assert!(fault.contains(why), "{bad}: {fault}");
        }
    }
}
