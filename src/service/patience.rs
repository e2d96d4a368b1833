//! How long a caller waits, told by itself (gRPC over HTTP/2, `grpc-timeout`).

use std::future::Future;
use std::time::Duration;

use tonic::Status;
use tonic::metadata::MetadataMap;

/// How long the caller waits; a caller that is cut off without a word cannot take back what it asked for.
pub(super) fn patience(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count.checked_mul(3600)?),
        "M" => Duration::from_secs(count.checked_mul(60)?),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Ends in DeadlineExceeded when the caller's patience does.
pub(super) async fn within<T>(
    patience: Option<Duration>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(patience) = patience else { return call.await };
    let ended = tokio::time::timeout(patience, call).await;
    ended.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("context deadline exceeded")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_has_a_unit() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            patience(&metadata)
        };
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("5"), None);
        assert_eq!(read("99999999999999999999S"), None);
    }
}
