//! What a registry's operator is promised of a cluster: acceptance tests of requirements, by their numbers.

use anyhow::Result;

use crate::member::{Member, Workspace, panics_in};
use crate::verdict::Verdict;

mod addresses;
mod campaign;
mod grow;
mod nine;
mod perf;
mod presence;
mod probes;
mod quota;
mod rbac;
mod rotation;
mod starts;
mod upgrade;

pub(crate) use self::addresses::{Options as AddressesOptions, addresses};
pub(crate) use self::campaign::{Options as CampaignOptions, campaign};
pub(crate) use self::grow::{Options as GrowOptions, grow};
pub(crate) use self::perf::{Options as CheckPerfOptions, check_perf};
pub(crate) use self::presence::{Options as PresenceOptions, presence};
pub(crate) use self::probes::{Options as ProbesOptions, probes};
pub(crate) use self::quota::{Options as QuotaOptions, quota};
pub(crate) use self::rbac::{Options as RbacOptions, rbac};
pub(crate) use self::rotation::{Options as RotationOptions, rotation};
pub(crate) use self::starts::{Options as StartsOptions, starts};
pub(crate) use self::upgrade::{Options as UpgradeOptions, upgrade};

/// Ends the members. Their files are kept if there are findings, and it is told what plays the same `again`.
fn conclude(
    workspace: Workspace,
    mut members: Vec<Member>,
    mut findings: Vec<String>,
    again: String,
) -> Result<Verdict> {
    for member in &mut members {
        findings.extend(member.ended());
        findings.extend(panics_in(&member.spec().log)?);
    }
    drop(members);
    if findings.is_empty() {
        workspace.discard()?;
    } else {
        findings.push(format!("kept: {}", workspace.path().display()));
        findings.push(again);
    }
    Ok(Verdict::of(findings))
}
