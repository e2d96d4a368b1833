//! The gateway's paths and the messages they take, read from `proto/`: a method that gets a path is asked here as well.
//!
//! Read is what stands in those files, not the whole language: messages, enums and oneofs within each other, services
//! with `google.api.http` paths. Types are known by their last name.

use std::collections::BTreeMap;

const FILES: [&str; 5] = [
    include_str!("../../../../proto/kv.proto"),
    include_str!("../../../../proto/auth.proto"),
    include_str!("../../../../proto/rpc.proto"),
    include_str!("../../../../proto/v3lock.proto"),
    include_str!("../../../../proto/v3election.proto"),
];

/// One field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) repeated: bool,
}

impl Field {
    /// Its other name in JSON.
    pub(super) fn camel(&self) -> String {
        let mut camel = String::new();
        let mut up = false;
        for c in self.name.chars() {
            match c {
                '_' => up = true,
                c if std::mem::take(&mut up) => camel.extend(c.to_uppercase()),
                c => camel.push(c),
            }
        }
        camel
    }
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) path: String,
    pub(super) input: String,
    /// Requests come one after another.
    pub(super) streams_in: bool,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) messages: BTreeMap<String, Vec<Field>>,
    pub(super) enums: BTreeMap<String, Vec<String>>,
    pub(super) routes: Vec<Route>,
}

impl Schema {
    pub(super) fn read() -> Self {
        let mut schema = Self::default();
        for file in FILES {
            let words = words(file);
            Reader { words: &words, at: 0, schema: &mut schema }.file();
        }
        schema
    }
}

/// Names, numbers, texts with their first quotation mark, and single signs.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for line in text.lines() {
        let mut rest = line.trim();
        while !rest.is_empty() && !rest.starts_with("//") {
            let length = if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.find('"').unwrap_or(quoted.len());
                words.push(rest[..=end].to_owned());
                end + 2
            } else {
                let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
                let length = rest.find(|c| !plain(c)).unwrap_or(rest.len()).max(1);
                words.push(rest[..length].to_owned());
                length
            };
            rest = rest[length.min(rest.len())..].trim_start();
        }
    }
    words
}

fn last_name(kind: &str) -> String {
    kind.rsplit('.').next().unwrap_or(kind).to_owned()
}

struct Reader<'a> {
    words: &'a [String],
    at: usize,
    schema: &'a mut Schema,
}

impl<'a> Reader<'a> {
    fn word(&mut self) -> &'a str {
        let words = self.words;
        let word = words.get(self.at).map_or("", String::as_str);
        self.at += 1;
        word
    }

    fn is(&mut self, expected: &str) -> bool {
        let is = self.words.get(self.at).is_some_and(|word| word == expected);
        self.at += usize::from(is);
        is
    }

    fn name(&mut self) -> String {
        self.word().to_owned()
    }

    /// To the end of a statement, whatever stands in it.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.words.len() {
            match self.word() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                ";" if depth == 0 => return,
                _ => {}
            }
        }
    }

    fn file(&mut self) {
        while self.at < self.words.len() {
            match self.word() {
                "message" => self.message(),
                "enum" => self.enumeration(),
                "service" => self.service(),
                ";" => {}
                _ => self.skip(),
            }
        }
    }

    fn message(&mut self) {
        let name = self.name();
        let mut fields = Vec::new();
        self.word();
        let mut inside = 1;
        while inside > 0 && self.at < self.words.len() {
            match self.word() {
                "}" => inside -= 1,
                "oneof" => {
                    self.at += 2;
                    inside += 1;
                }
                "message" => self.message(),
                "enum" => self.enumeration(),
                "option" | "reserved" => self.skip(),
                ";" => {}
                first => {
                    let repeated = first == "repeated";
                    let kind = if repeated { self.word() } else { first };
                    let kind = last_name(kind);
                    let name = self.name();
                    fields.push(Field { name, kind, repeated });
                    self.skip();
                }
            }
        }
        self.schema.messages.insert(name, fields);
    }

    fn enumeration(&mut self) {
        let name = self.name();
        self.word();
        let mut values = Vec::new();
        loop {
            match self.word() {
                "}" | "" => break,
                "option" | "reserved" => self.skip(),
                value => {
                    values.push(value.to_owned());
                    self.skip();
                }
            }
        }
        self.schema.enums.insert(name, values);
    }

    fn service(&mut self) {
        self.at += 2;
        while self.is("rpc") {
            self.at += 2;
            let streams_in = self.is("stream");
            let input = last_name(self.word());
            let mut depth = 0_usize;
            loop {
                match self.word() {
                    "{" => depth += 1,
                    "}" => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            break;
                        }
                    }
                    ";" if depth == 0 => break,
                    "" => return,
                    word => {
                        if let Some(path) = word.strip_prefix("\"/v3/") {
                            let path = format!("/v3/{path}");
                            let route = Route { path, input: input.clone(), streams_in };
                            self.schema.routes.push(route);
                        }
                    }
                }
            }
        }
        self.is("}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_messages_and_enums_are_read() {
        let schema = Schema::read();
        assert_eq!(schema.routes.len(), 51, "{:?}", schema.routes);
        let watch = schema.routes.iter().find(|route| route.path == "/v3/watch").unwrap();
        assert!(watch.streams_in && watch.input == "WatchRequest");
        for route in &schema.routes {
            assert!(schema.messages.contains_key(&route.input), "{route:?}");
        }
        let compare = &schema.messages["Compare"];
        let names: Vec<&str> = compare.iter().map(|field| field.name.as_str()).collect();
        assert!(names.contains(&"create_revision") && names.contains(&"range_end"), "{names:?}");
        assert_eq!(schema.enums["SortOrder"], ["NONE", "ASCEND", "DESCEND"]);
        assert!(schema.messages["TxnRequest"].iter().any(|field| field.repeated));
        for field in schema.messages.values().flatten() {
            let scalars = ["bytes", "string", "bool", "int64", "uint64", "int32", "uint32"];
            let known = scalars.contains(&field.kind.as_str())
                || schema.messages.contains_key(&field.kind)
                || schema.enums.contains_key(&field.kind);
            assert!(known, "{field:?}");
        }
    }

    #[test]
    fn names_have_a_second_form() {
        let camel = |name: &str| {
            Field { name: name.to_owned(), kind: String::new(), repeated: false }.camel()
        };
        assert_eq!(camel("range_end"), "rangeEnd");
        assert_eq!(camel("ID"), "ID");
    }
}
