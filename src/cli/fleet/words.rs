//! What is read from files, standard input and arguments.
//!
//! **Invariant:** a token is held as a [`Sensitive`] from here on; no complaint quotes it.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::failure::Failure;
use super::line::TokenSource;
use crate::fleet::api::Sensitive;
use crate::support::listen::words;

/// No file of settings, and no token, is longer.
const LONGEST: u64 = 1 << 20;

/// Whether a file's name stands for standard input.
pub(super) fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

impl TokenSource {
    pub(super) fn is_stdin(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.reveal() == "-")
            || self.token_file.as_deref().is_some_and(is_stdin)
    }

    /// The token itself.
    pub(super) fn read(self, stdin: &mut impl Read) -> Result<Sensitive, Failure> {
        token(self.token, self.token_file.as_deref(), stdin)
    }
}

/// A secret that an argument is, or `-` stands for, or a file holds; the line's end does not belong to it.
pub(super) fn token(
    argument: Option<Sensitive>,
    file: Option<&Path>,
    stdin: &mut impl Read,
) -> Result<Sensitive, Failure> {
    let (secret, whence) = match (argument, file) {
        (Some(token), _) if token.reveal() == "-" => {
            (Sensitive::new(all_of(stdin, "standard input")?), "standard input".to_owned())
        }
        (Some(token), _) => (token, "the command line".to_owned()),
        (None, Some(path)) => (Sensitive::new(content(path, stdin)?), path.display().to_string()),
        (None, None) => return Err(Failure::usage("a token is needed")),
    };
    let trimmed = secret.reveal().trim();
    if trimmed.is_empty() {
        return Err(Failure::usage(format!("the token of {whence} is empty")));
    }
    Ok(Sensitive::new(trimmed.to_owned()))
}

/// What a file holds; `-` is standard input.
pub(super) fn content(path: &Path, stdin: &mut impl Read) -> Result<String, Failure> {
    if is_stdin(path) {
        return all_of(stdin, "standard input");
    }
    let name = path.display().to_string();
    let file = fs::File::open(path)
        .map_err(|why| Failure::usage(format!("cannot read {name}: {}", words(&why))))?;
    all_of(&mut &file, &name)
}

fn all_of(from: &mut impl Read, name: &str) -> Result<String, Failure> {
    let refused = |why: io::Error| Failure::usage(format!("cannot read {name}: {}", words(&why)));
    let mut text = String::new();
    let length = from.take(LONGEST + 1).read_to_string(&mut text).map_err(refused)?;
    if length as u64 > LONGEST {
        return Err(Failure::usage(format!("{name} is longer than {LONGEST} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Option<Sensitive> {
        Some(Sensitive::new(text.to_owned()))
    }

    #[test]
    fn a_token_comes_from_the_line_from_standard_input_or_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "from-file\n").unwrap();
        let mut stdin = "from-stdin\n".as_bytes();
        assert_eq!(token(hidden("bare"), None, &mut stdin).unwrap().reveal(), "bare");
        assert_eq!(token(hidden("-"), None, &mut stdin).unwrap().reveal(), "from-stdin");
        assert_eq!(token(None, Some(&file), &mut stdin).unwrap().reveal(), "from-file");
        let dash = Path::new("-");
        let mut again = "piped".as_bytes();
        assert_eq!(token(None, Some(dash), &mut again).unwrap().reveal(), "piped");
    }

    #[test]
    fn what_holds_no_token_is_named() {
        let why = token(hidden("-"), None, &mut "\n".as_bytes()).unwrap_err();
        assert_eq!(why.to_string(), "the token of standard input is empty");
        let why = token(None, Some(Path::new("/nowhere/at/all")), &mut io::empty()).unwrap_err();
        assert_eq!(why.to_string(), "cannot read /nowhere/at/all: no such file or directory");
        let long = vec![b'x'; usize::try_from(LONGEST).unwrap() + 1];
        let why = token(hidden("-"), None, &mut long.as_slice()).unwrap_err();
        assert_eq!(why.to_string(), "standard input is longer than 1048576 bytes");
    }
}
