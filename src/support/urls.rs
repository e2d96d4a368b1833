//! URLs of flags, refused with the words of Go's `net/url` and etcd's `types.NewURLs`.
//!
//! Only what etcd's flags can say: `http(s)://host:port` without a path, and `unix(s)://` sockets.

use std::fmt;

use super::go::quote::quote;

/// One parsed URL of a flag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    /// Lower-case scheme: `http`, `https`, `unix` or `unixs` once checked.
    pub scheme: String,
    /// `host:port`, or the first part of a socket's path.
    pub host: String,
    /// What follows the host, `/` included.
    pub path: String,
    /// `?` and what follows, which means nothing here and is kept as etcd keeps it.
    pub query: String,
}

impl Url {
    /// True for `unix://` and `unixs://`.
    pub fn is_unix(&self) -> bool {
        self.scheme == "unix" || self.scheme == "unixs"
    }

    /// True for `https://` and `unixs://`.
    pub fn is_secure(&self) -> bool {
        self.scheme == "https" || self.scheme == "unixs"
    }

    /// Where a unix socket lives: host and path as written, so `unix://localhost:20000` is a file of that name
    /// in the working directory.
    pub fn socket_path(&self) -> String {
        format!("{}{}", self.host, self.path)
    }

    /// Host and port apart; the host without brackets. The error is Go's.
    pub fn host_port(&self) -> Result<(String, String), String> {
        split_host_port(&self.host)
    }

    /// The host without port and brackets, empty if there is none.
    pub fn hostname(&self) -> String {
        self.host_port().map(|(host, _)| host).unwrap_or_default()
    }

    /// Go's `url.Parse`, in its words.
    fn parse(text: &str) -> Result<Url, String> {
        let failed = |why: &str| format!("parse {}: {why}", quote(text));
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(failed("net/url: invalid control character in URL"));
        }
        let without_fragment = text.split_once('#').map_or(text, |(before, _)| before);
        let (scheme, rest) = split_scheme(without_fragment).map_err(failed)?;
        let (rest, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let (host, path) = if let Some(after) = rest.strip_prefix("//") {
            let end = after.find('/').unwrap_or(after.len());
            let (authority, path) = after.split_at(end);
            let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
            check_host(host).map_err(|why| failed(&why))?;
            (host.to_owned(), path.to_owned())
        } else {
            let first = rest.split('/').next().unwrap_or_default();
            if scheme.is_empty() && first.contains(':') {
                return Err(failed("first path segment in URL cannot contain colon"));
            }
            (String::new(), rest.to_owned())
        };
        Ok(Url { scheme, host, path, query: query.to_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}{}", self.scheme, self.host, self.path, self.query)
    }
}

/// Parses and sorts a comma-separated list, as etcd's `types.NewURLs` does.
pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
    let mut urls = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let url = Url::parse(part)?;
        match url.scheme.as_str() {
            "http" | "https" => {
                if url.host_port().is_err() {
                    return Err(format!(
                        "URL address does not have the form \"host:port\": {part}"
                    ));
                }
                if !url.path.is_empty() {
                    return Err(format!("URL must not contain a path: {part}"));
                }
            }
            "unix" | "unixs" => {}
            _ => {
                return Err(format!("URL scheme must be http, https, unix, or unixs: {part}"));
            }
        }
        urls.push(url);
    }
    urls.sort_by_key(ToString::to_string);
    Ok(urls)
}

/// The URLs as texts.
pub fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

fn split_scheme(text: &str) -> Result<(String, &str), &'static str> {
    for (i, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            ':' if i == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((text[..i].to_ascii_lowercase(), &text[i + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if host.starts_with('[') {
        let Some(end) = host.rfind(']') else {
            return Err("missing ']' in host".to_owned());
        };
        &host[end + 1..]
    } else {
        if let Some(bad) = host.chars().find(|c| " \"<>\\^`{|}".contains(*c)) {
            return Err(format!("invalid character {} in host name", quote(&bad.to_string())));
        }
        host.rfind(':').map_or("", |colon| &host[colon..])
    };
    let digits = port.strip_prefix(':');
    if !port.is_empty() && !digits.is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {} after host", quote(port)));
    }
    Ok(())
}

/// Go's `net.SplitHostPort`, in its words.
pub fn split_host_port(address: &str) -> Result<(String, String), String> {
    let failed = |why: &str| Err(format!("address {address}: {why}"));
    let Some(colon) = address.rfind(':') else {
        return failed("missing port in address");
    };
    let (host, port) = (&address[..colon], &address[colon + 1..]);
    if let Some(inner) = host.strip_prefix('[') {
        return match inner.strip_suffix(']') {
            Some(inner) => Ok((inner.to_owned(), port.to_owned())),
            None if address.ends_with(']') => failed("missing port in address"),
            None => failed("missing ']' in address"),
        };
    }
    if address.starts_with('[') {
        return failed("missing port in address");
    }
    if host.contains(':') {
        return failed("too many colons in address");
    }
    Ok((host.to_owned(), port.to_owned()))
}

/// Go's `net.JoinHostPort`: an IPv6 address is put in brackets.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_refused_in_etcds_words() {
        for (text, want) in [
            (
                "127.0.0.1:2379",
                "parse \"127.0.0.1:2379\": first path segment in URL cannot contain colon",
            ),
            (":2379", "parse \":2379\": missing protocol scheme"),
            (
                "http://127.0.0.1",
                "URL address does not have the form \"host:port\": http://127.0.0.1",
            ),
            (
                "http://127.0.0.1:foo",
                "parse \"http://127.0.0.1:foo\": invalid port \":foo\" after host",
            ),
            ("http://127.0.0.1:2379/x", "URL must not contain a path: http://127.0.0.1:2379/x"),
            ("http://a b:2379", "parse \"http://a b:2379\": invalid character \" \" in host name"),
            ("somewhere", "URL scheme must be http, https, unix, or unixs: somewhere"),
            ("file://foo/bar", "URL scheme must be http, https, unix, or unixs: file://foo/bar"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
        ] {
            assert_eq!(parse_list(text), Err(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn urls_are_sorted_and_printed_as_written() {
        let urls = parse_list("http://localhost:5,http://10.1.1.1:80, unix://a/b.sock").unwrap();
        assert_eq!(texts(&urls), ["http://10.1.1.1:80", "http://localhost:5", "unix://a/b.sock"]);
        assert_eq!(urls[2].socket_path(), "a/b.sock");
        let with_query = parse_list("http://127.0.0.1:1?a=b/c#d").unwrap();
        assert_eq!(texts(&with_query), ["http://127.0.0.1:1?a=b/c"]);
        let v6 = &parse_list("http://[::1]:2379").unwrap()[0];
        assert_eq!(v6.host_port(), Ok(("::1".to_owned(), "2379".to_owned())));
    }
}
