//! Completions and manual pages of the whole program, made from the tables that its parsers use.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Arg, ArgAction, CommandFactory as _};

use super::failure::Failure;
use super::line::Line;
use crate::cli::table::{Group, rows};
use crate::cli::{agent, init, node, say};
use crate::support::flags::Kind;
use crate::support::listen::words;

/// Every command that has pages: those of this folder, the other programs, and etcd's flags of the bare program.
pub(super) fn program() -> clap::Command {
    let flags = rows().filter(|row| row.group != Group::Hidden).map(|row| {
        let arg = Arg::new(row.name).long(row.name).help(row.help);
        match row.kind {
            Kind::Bool | Kind::Ignored => arg.action(ArgAction::SetTrue),
            Kind::Text
            | Kind::Int
            | Kind::Uint
            | Kind::Uint32
            | Kind::Duration
            | Kind::Urls { .. }
            | Kind::UniqueTexts
            | Kind::Texts
            | Kind::OneOf(_)
            | Kind::SomeOf(_)
            | Kind::Gates(_) => arg.action(ArgAction::Set),
        }
    });
    let start = clap::Command::new("start").about("start the grpc proxy");
    Line::command()
        .about("Serves etcd's API as one member of a cluster, or runs a fleet of nodes and asks it")
        .arg_required_else_help(false)
        .subcommand_required(false)
        .disable_help_subcommand(true)
        .args(flags)
        .subcommands(daemons())
        .subcommand(crate::cli::gateway::command())
        .subcommand(
            clap::Command::new("grpc-proxy").about("grpc-proxy related command").subcommand(start),
        )
}

/// The programs that make and watch nodes; what they take is theirs.
pub(super) fn daemons() -> [clap::Command; 3] {
    [
        node::Flags::command().name("daemon"),
        init::command().name("init"),
        agent::command().name("agent"),
    ]
}

/// The completions of a shell, to standard output.
pub(super) fn completion(shell: clap_complete::Shell) {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut program(), "quorate", &mut out);
    say(&mut io::stdout(), &String::from_utf8_lossy(&out));
}

/// One page a command, `quorate.1` and `quorate-<command>.1`; what was written.
pub(super) fn man(folder: &Path) -> Result<Vec<String>, Failure> {
    let refused = |what: &Path, why: &io::Error| {
        Failure::failed(format!("cannot write {}: {}", what.display(), words(why)))
    };
    fs::create_dir_all(folder).map_err(|why| refused(folder, &why))?;
    let mut root = program();
    root.build();
    let mut written = Vec::new();
    let mut left = vec![(root, "quorate".to_owned())];
    while let Some((command, name)) = left.pop() {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            left.push((sub.clone(), format!("{name}-{}", sub.get_name())));
        }
        let path = folder.join(format!("{name}.1"));
        let mut page = Vec::new();
        clap_mangen::Man::new(command.name("quorate").display_name(name))
            .manual("Quorate")
            .render(&mut page)
            .and_then(|()| fs::File::create(&path)?.write_all(&page))
            .map_err(|why| refused(&path, &why))?;
        written.push(path.display().to_string());
    }
    written.sort();
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_command_line_is_sound() {
        program().debug_assert();
        Line::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_page_that_tells_its_flags() {
        let dir = tempfile::tempdir().unwrap();
        let written = man(dir.path()).unwrap();
        let page = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(written.len() > 25, "{written:?}");
        assert!(page("quorate-join-cluster.1").contains("token\\-file"));
        assert!(page("quorate-config-set.1").contains("KEY=VALUE"));
        assert!(page("quorate.1").contains("listen\\-client\\-urls"));
        assert!(page("quorate.1").contains("quorate\\-bootstrap(1)"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(man(&file.join("pages")).unwrap_err().code(), 1);
    }

    #[test]
    fn each_shell_gets_every_command() {
        for shell in
            [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish]
        {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut program(), "quorate", &mut out);
            let text = String::from_utf8(out).unwrap();
            for word in ["join-cluster", "refresh-certs", "wait-ready", "initial-cluster-token"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
