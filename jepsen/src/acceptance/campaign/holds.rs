//! The agents' ledgers, and what they must say together.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// No write was tried after a lead: it goes on, or the agent was asked to stop.
const NOT_TRIED: &str = "not tried";

/// One agent's leads.
#[derive(Debug, Default)]
pub(super) struct Ledger(Vec<Hold>);

/// From when to when a lead was held for certain, on the machine's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hold {
    node: String,
    revision: i64,
    from: u64,
    until: u64,
    on_time: String,
    /// What became of a write after it.
    late: String,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) leads: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) smallest_gap: Option<Duration>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.leads += other.leads;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.smallest_gap = match (self.smallest_gap, other.smallest_gap) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
    }
}

/// The value of a field of one line of JSON, without quotes.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.split_once(&format!("\"{name}\":"))?.1;
    match rest.strip_prefix('"') {
        Some(text) => text.split('"').next(),
        None => rest.split([',', '}']).next(),
    }
}

fn number<T: std::str::FromStr>(line: &str, name: &str) -> Result<T> {
    let read = field(line, name).and_then(|text| text.parse().ok());
    read.with_context(|| format!("no number {name} in {line}"))
}

impl Ledger {
    /// An agent that never led has none.
    pub(super) fn read(path: &Path) -> Result<Ledger> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ledger::parse(&text)
    }

    /// Whether its newest lead is the one of this revision.
    pub(super) fn has_won(&self, revision: i64) -> bool {
        self.0.last().is_some_and(|hold| hold.revision == revision)
    }

    /// Whether the lead of this revision is over, and what became of a write after it is known.
    pub(super) fn has_lost(&self, revision: i64) -> bool {
        self.0.iter().any(|hold| hold.revision == revision && hold.late != NOT_TRIED)
    }

    fn parse(text: &str) -> Result<Ledger> {
        let mut holds: Vec<Hold> = Vec::new();
        let text_of = |line: &str, name: &str| {
            field(line, name).map(str::to_owned).with_context(|| format!("no {name} in {line}"))
        };
        // A line that is being written has no end yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            match field(line, "event") {
                Some("won") => holds.push(Hold {
                    node: text_of(line, "node")?,
                    revision: number(line, "revision")?,
                    from: number(line, "from_ns")?,
                    until: number(line, "from_ns")?,
                    on_time: text_of(line, "on_time")?,
                    late: NOT_TRIED.to_owned(),
                }),
                Some("lost") => {
                    let revision: i64 = number(line, "revision")?;
                    // One that was lost before it was ever seen to be held has no begin.
                    if let Some(hold) = holds.last_mut().filter(|hold| hold.revision == revision) {
                        hold.until = number(line, "until_ns")?;
                        hold.late = text_of(line, "late")?;
                    }
                }
                other => bail!("what is {other:?} in a ledger?"),
            }
        }
        Ok(Ledger(holds))
    }
}

/// No two leads at once, fences that rise, on-time writes done and late writes refused.
pub(super) fn judge(election: &str, ledgers: &[Ledger]) -> (Tally, Vec<String>) {
    let mut holds: Vec<&Hold> = ledgers.iter().flat_map(|ledger| &ledger.0).collect();
    holds.sort_by_key(|hold| hold.from);
    let mut tally = Tally { leads: holds.len() as u64, ..Tally::default() };
    let mut findings = Vec::new();
    for pair in holds.windows(2) {
        let [before, after] = pair else { continue };
        if before.until >= after.from {
            let both = Duration::from_nanos(before.until - after.from);
            findings.push(format!("{election}: two led for {both:?}: {before:?}, {after:?}"));
        } else {
            let gap = Some(Duration::from_nanos(after.from - before.until));
            tally.add(&Tally { smallest_gap: gap, ..Tally::default() });
        }
        if before.revision >= after.revision {
            findings.push(format!("{election}: the fence did not rise: {before:?}, {after:?}"));
        }
    }
    for hold in holds {
        if hold.on_time == "refused" {
            findings.push(format!("{election}: a leader's own write was refused: {hold:?}"));
        }
        match hold.late.as_str() {
            "refused" => tally.refused += 1,
            "unknown" => tally.unknown += 1,
            "not tried" => {}
            other => findings.push(format!("{election}: a late write was {other}: {hold:?}")),
        }
    }
    (tally, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(node: &str, rows: &[(i64, u64, u64, &str)]) -> Ledger {
        let lines = rows.iter().map(|(revision, from, until, late)| {
            format!(
                "{{\"event\":\"won\",\"from_ns\":{from},\"node\":\"{node}\",\"on_time\":\"committed\",\
                 \"revision\":{revision}}}\n{{\"event\":\"lost\",\"late\":\"{late}\",\"node\":\"{node}\",\
                 \"revision\":{revision},\"until_ns\":{until},\"why\":\"x\"}}\n"
            )
        });
        Ledger::parse(&lines.collect::<String>()).unwrap()
    }

    #[test]
    fn leads_one_after_the_other_are_well() {
        let one = ledger("a", &[(1, 10, 20, "refused"), (5, 50, 60, "not tried")]);
        let two = ledger("b", &[(3, 30, 40, "refused")]);
        let (tally, findings) = judge("e", &[one, two, Ledger::default()]);
        assert_eq!((tally.leads, tally.refused, findings), (3, 2, Vec::new()));
        assert_eq!(tally.smallest_gap, Some(Duration::from_nanos(10)));
    }

    #[test]
    fn two_at_once_a_fence_that_falls_and_a_late_write_that_was_done_are_found() {
        let one = ledger("a", &[(4, 10, 30, "committed")]);
        let two = ledger("b", &[(3, 20, 40, "refused")]);
        let (_, findings) = judge("e", &[one, two]);
        let found = |what: &str| findings.iter().any(|finding| finding.contains(what));
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(found("two led for 10ns") && found("did not rise") && found("was committed"));
    }

    #[test]
    fn a_process_that_ended_without_a_word_claims_its_begin_alone() {
        let text = "{\"event\":\"won\",\"from_ns\":5,\"node\":\"a\",\"on_time\":\"committed\",\"revision\":1}\n";
        let Ledger(holds) = Ledger::parse(text).unwrap();
        assert_eq!((holds[0].from, holds[0].until), (5, 5));
        assert!(Ledger::parse("{}\n").is_err());
    }
}
