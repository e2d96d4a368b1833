//! Answers as text, JSON or YAML.
//!
//! **Invariant:** JSON and YAML are the answer's metadata as the node sent it, or a part of it: nothing is added or renamed.

use serde_json::Value;

use super::failure::Failure;
use super::line::Format;

/// What a command has to say on standard output.
#[derive(Debug)]
pub(super) struct Answer {
    /// For programs.
    pub(super) metadata: Value,
    /// For people; lines end with a line feed. Programs get metadata that we cannot put into words, too.
    plain: Result<String, Failure>,
}

impl Answer {
    /// For programs alone.
    pub(super) fn of(metadata: Value) -> Answer {
        Answer { metadata, plain: Ok(String::new()) }
    }

    /// An answer that says the same whatever the metadata is.
    pub(super) fn said(metadata: Value, plain: impl Into<String>) -> Answer {
        Answer { metadata, plain: Ok(plain.into()) }
    }

    /// An answer whose words are made of the metadata.
    pub(super) fn told(
        metadata: Value,
        words: impl FnOnce(&Value) -> Result<String, Failure>,
    ) -> Answer {
        let plain = words(&metadata);
        Answer { metadata, plain }
    }

    /// In the form that was asked for.
    pub(super) fn text(self, format: Format) -> Result<String, Failure> {
        match format {
            Format::Plain => self.plain,
            Format::Json => serde_json::to_string_pretty(&self.metadata)
                .map(|text| text + "\n")
                .map_err(|why| Failure::failed(format!("cannot write JSON: {why}"))),
            Format::Yaml => serde_saphyr::to_string(&self.metadata)
                .map_err(|why| Failure::failed(format!("cannot write YAML: {why}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::support::yaml;

    #[test]
    fn all_three_forms_say_the_same() {
        let metadata = json!({
            "status": {"ready": true, "members": [{"name": "a", "address": "127.0.0.1:6400"}], "n": 3},
            "tricky": ["yes", "0x10", "1.0", "null", "", "a: b", "#x", "two\nlines\n", " edges "],
            "none": null, "empty": {}, "list": []
        });
        let text = |format| Answer::said(metadata.clone(), "fine\n").text(format).unwrap();
        assert_eq!(text(Format::Plain), "fine\n");
        let json: Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(json, metadata);
        assert_eq!(yaml::parse(&text(Format::Yaml)).unwrap(), metadata);
    }

    #[test]
    fn what_cannot_be_put_into_words_is_still_there_for_programs() {
        let answer = || Answer::told(json!({"new": 1}), |_| Err(Failure::failed("odd")));
        assert_eq!(answer().text(Format::Plain).unwrap_err().to_string(), "odd");
        assert!(answer().text(Format::Json).unwrap().contains("\"new\": 1"));
    }
}
