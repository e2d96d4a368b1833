//! `certs-status`, `refresh-certs`: when certificates expire, and new ones.

use std::io;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::api::{Api, typed};
use super::failure::Failure;
use super::format::Answer;
use super::line::RefreshCerts;
use super::table::table;
use super::words::content;
use crate::fleet::api::certificates::{
    CertificatesStatus, RefreshPlan, RefreshPlanRequest, RefreshRunAnswer, RefreshRunRequest,
    RotationStatus,
};
use crate::support::clock::{Clock as _, SystemClock};
use crate::support::yaml;

/// `GET k8sd/certs-status`.
pub(super) async fn status(api: &Api) -> Result<Answer, Failure> {
    let metadata = api.get("/1.0/k8sd/certs-status").await?;
    let now = SystemClock::default().unix_ms() / 1000;
    Ok(Answer::told(metadata, |metadata| Ok(plain_status(&typed(metadata)?, now))))
}

/// Two tables; `now` in seconds since 1970.
fn plain_status(status: &CertificatesStatus, now: i64) -> String {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let certificates = status.certificates.iter().map(|certificate| {
        vec![
            certificate.name.clone(),
            moment(&certificate.expires),
            residual(&certificate.expires, now),
            certificate.certificate_authority.clone(),
            yes_no(certificate.externally_managed),
        ]
    });
    let heads =
        ["CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED"];
    let mut out = table(&heads, certificates);
    if let Some(RotationStatus { state, reason, waits_for }) = &status.rotation {
        let names = match waits_for.as_slice() {
            [] => String::new(),
            names => format!(": {}", names.join(", ")),
        };
        out.push_str(&format!("\nA new certificate authority is {state}; {reason}{names}.\n"));
    }
    if status.certificate_authorities.is_empty() {
        return out;
    }
    let authorities = status.certificate_authorities.iter().map(|authority| {
        vec![
            authority.name.clone(),
            moment(&authority.expires),
            residual(&authority.expires, now),
            yes_no(authority.externally_managed),
        ]
    });
    out.push('\n');
    let heads = ["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"];
    out.push_str(&table(&heads, authorities));
    out
}

/// A moment of RFC 3339 for people; what is none stays as it is.
pub(super) fn moment(rfc3339: &str) -> String {
    match DateTime::parse_from_rfc3339(rfc3339) {
        Ok(moment) => moment.with_timezone(&Utc).format("%b %d, %Y %H:%M UTC").to_string(),
        Err(_) => rfc3339.to_owned(),
    }
}

/// How long until then, in the largest unit that fits twice.
fn residual(rfc3339: &str, now: i64) -> String {
    let Ok(moment) = DateTime::parse_from_rfc3339(rfc3339) else { return "unknown".to_owned() };
    let left = moment.timestamp() - now;
    if left <= 0 {
        return "expired".to_owned();
    }
    for (unit, seconds) in [("d", 86_400), ("h", 3600), ("m", 60)] {
        if left >= 2 * seconds {
            return format!("{}{unit}", left / seconds);
        }
    }
    format!("{left}s")
}

/// `POST k8sd/refresh-certs/plan`, then `run` with the plan's seed; or `update` with what a file holds.
pub(super) async fn refresh(api: &Api, refresh: RefreshCerts) -> Result<Answer, Failure> {
    if let Some(path) = &refresh.external_certificates {
        let name = path.display();
        let pairs = match yaml::parse(&content(path, &mut io::stdin())?) {
            Ok(pairs @ Value::Object(_)) => pairs,
            Ok(_) => return Err(Failure::usage(format!("{name}: certificates are a mapping"))),
            Err(why) => return Err(Failure::usage(format!("{name}: {why}"))),
        };
        let metadata = api.post("/1.0/k8sd/refresh-certs/update", &pairs).await?;
        return Ok(Answer::said(metadata, "The certificates are in use.\n"));
    }
    let certificates = refresh.certificates;
    let ask = RefreshPlanRequest { certificates: certificates.clone() };
    let metadata = api.post("/1.0/k8sd/refresh-certs/plan", &ask).await?;
    let plan: RefreshPlan = typed(&metadata)?;
    if refresh.plan {
        return Ok(Answer::said(metadata, plain_plan(&plan)));
    }
    let run = RefreshRunRequest {
        certificates,
        seed: plan.seed,
        expiration_seconds: refresh.expires_in.map_or(0, |span| span.0 / 1_000_000_000),
        extra_sans: refresh.extra_sans,
    };
    let metadata = api.post("/1.0/k8sd/refresh-certs/run", &run).await?;
    Ok(Answer::told(metadata, |metadata| {
        let seconds = typed::<RefreshRunAnswer>(metadata)?.expiration_seconds;
        let until = DateTime::from_timestamp(seconds, 0)
            .map_or_else(|| seconds.to_string(), |moment| moment.to_rfc3339());
        Ok(format!("The new certificates are good until {}.\n", moment(&until)))
    }))
}

fn plain_plan(plan: &RefreshPlan) -> String {
    let requests = match plan.certificate_signing_requests.as_slice() {
        [] => "none".to_owned(),
        requests => requests.join(", "),
    };
    format!("seed: {}\ncertificate signing requests: {requests}\n", plan.seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_the_largest_unit_that_fits_twice() {
        let at = "2026-11-22T12:00:00Z";
        let then = DateTime::parse_from_rfc3339(at).unwrap().timestamp();
        for (left, want) in [
            (366 * 86_400, "366d"),
            (2 * 86_400, "2d"),
            (2 * 86_400 - 1, "47h"),
            (7_199, "119m"),
            (119, "119s"),
            (0, "expired"),
            (-5, "expired"),
        ] {
            assert_eq!(residual(at, then - left), want);
        }
        assert_eq!(residual("soon", 0), "unknown");
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(moment("2027-11-22T12:34:56+02:00"), "Nov 22, 2027 10:34 UTC");
        assert_eq!(moment("never"), "never");
    }
}
