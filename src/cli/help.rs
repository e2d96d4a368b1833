//! The help text, made from the table.

use std::fmt::Write as _;

use super::table::{Group, rows};
use crate::embed::gates::GATES;

/// What stands below a mistake on the command line, and above the list of flags.
pub(super) const USAGE: &str = "\
Usage:

  quorate [flags]
    Start a server that speaks etcd.

  quorate COMMAND
    Ask a node of a fleet, such as `quorate status`; `quorate help` lists the commands.

  quorate --version
    Show the version.

  quorate -h | --help
    Show this help.

  quorate --config-file
    Path to a YAML or JSON file with all settings; other flags and variables are then ignored.
    In it, durations are whole nanoseconds; --heartbeat-interval and --election-timeout stay milliseconds.
";

/// Every listed flag with its default and one sentence.
pub(super) fn flags() -> String {
    let mut out = String::new();
    for group in Group::LISTED {
        write!(out, "\n{}:\n", group.title()).expect(TO_A_STRING);
        for row in rows().filter(|row| row.group == group) {
            write!(out, "  --{} '{}'\n    {}\n", row.name, row.default, row.help)
                .expect(TO_A_STRING);
            if row.name == "feature-gates" {
                for (gate, stage, default) in GATES {
                    writeln!(out, "    {gate}=true|false ({} - default={default})", stage.word())
                        .expect(TO_A_STRING);
                }
            }
        }
    }
    out.push_str(
        "\nA variable ETCD_<FLAG>, in upper case and with _ for -, does as its flag does.\n",
    );
    out
}

const TO_A_STRING: &str = "writing to a string";
