//! A server's own figures, from its `/metrics`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const DEADLINE: Duration = Duration::from_secs(10);

/// One reading. Figures that labels tell apart are summed up under their name.
#[derive(Debug, Default)]
pub(super) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Reads `endpoint`, an `http://host:port`.
    pub(super) fn of(endpoint: &str) -> Result<Self> {
        let address = endpoint.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        // 1.0: the answer comes whole, and the connection ends behind it.
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "/metrics answers {status}");
        Ok(Self::parse(body))
    }

    fn parse(text: &str) -> Self {
        let mut figures = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let name = series.split_once('{').map_or(series, |(name, _)| name);
            if let Ok(value) = value.parse::<f64>() {
                *figures.entry(name.to_owned()).or_insert(0.0) += value;
            }
        }
        Self(figures)
    }

    /// `None` where the server has no such figure.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// A figure that the server must have.
    pub(super) fn must(&self, name: &str) -> Result<f64> {
        self.get(name).with_context(|| format!("/metrics shows no {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_told_apart_by_labels_are_summed() {
        let text = "# TYPE a counter\na 3\nb{group=\"0\"} 1.5\nb{group=\"1\",of=\"x y\"} 2\n";
        let scrape = Scrape::parse(text);
        assert_eq!(scrape.get("a"), Some(3.0));
        assert_eq!(scrape.get("b"), Some(3.5));
        assert_eq!(scrape.get("c"), None);
    }
}
