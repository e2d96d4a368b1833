//! Downgrades, which there are none of: no earlier Quorate reads these files, and etcd 3.6 never will. Requests are
//! looked at in etcd's order (`server/etcdserver/v3_server.go`, `Downgrade`), and every target is refused as one that
//! the cluster cannot go down to.

use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::downgrade_request::DowngradeAction;

use crate::keyspace::error::KeyspaceError;

/// Whether the request may be answered with the cluster's version.
pub(crate) fn downgrade(request: &pb::DowngradeRequest) -> Result<(), KeyspaceError> {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
            if is_version(&request.version) || is_version(&format!("{}.0", request.version)) {
                return Err(KeyspaceError::InvalidDowngradeTarget);
            }
            Err(KeyspaceError::WrongDowngradeVersionFormat)
        }
        Ok(DowngradeAction::Cancel) => {
            tracing::warn!(error = "no inflight downgrade job", "failed to cancel downgrade");
            Ok(())
        }
        Err(_) => Err(KeyspaceError::UnknownMethod),
    }
}

/// `major.minor.patch`, maybe with `-pre-release` and `+metadata`, as etcd's semver reads it.
fn is_version(text: &str) -> bool {
    let (rest, metadata) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, before) = rest.split_once('-').unwrap_or((rest, ""));
    let is_number = |part: &str| !part.is_empty() && part.parse::<i64>().is_ok();
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_label = |label: &str| label.is_empty() || label.split('.').all(is_word);
    let numbers: Vec<&str> = numbers.split('.').collect();
    numbers.len() == 3
        && numbers.into_iter().all(is_number)
        && is_label(before)
        && is_label(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_version_can_be_downgraded_to_and_cancelling_nothing_is_fine() {
        use KeyspaceError::{
            InvalidDowngradeTarget as Target, UnknownMethod, WrongDowngradeVersionFormat as Format,
        };
        let rows = [
            (0, "3.6", Err(Target)),
            (0, "3.6.0", Err(Target)),
            (1, "3.6", Err(Target)),
            (1, "3.7.1-rc.1+x", Err(Target)),
            (0, "99.99", Err(Target)),
            (0, "", Err(Format)),
            (0, "3", Err(Format)),
            (1, "v3.6", Err(Format)),
            (1, "3.6.0.1", Err(Format)),
            (1, "3.x", Err(Format)),
            (2, "", Ok(())),
            (2, "nonsense", Ok(())),
            (3, "3.6", Err(UnknownMethod)),
        ];
        for (action, version, told) in rows {
            let request = pb::DowngradeRequest { action, version: version.to_owned() };
            assert_eq!(downgrade(&request), told, "{action} {version}");
        }
    }
}
