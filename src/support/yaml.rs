//! Config files: YAML or JSON (which is YAML) into a JSON tree.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Number, Value};

/// Reads the first document of `text`; an empty text is an empty mapping. The error says line and column.
pub fn parse(text: &str) -> Result<Value, String> {
    let documents = Yaml::load_from_str(text).map_err(|why| why.to_string())?;
    match documents.into_iter().next() {
        Some(document) => tree(&document),
        None => Ok(Value::Object(Map::new())),
    }
}

fn tree(node: &Yaml<'_>) -> Result<Value, String> {
    match node {
        Yaml::Value(scalar) => Ok(leaf(scalar)),
        Yaml::Sequence(items) => items.iter().map(tree).collect(),
        Yaml::Mapping(pairs) => {
            let mut object = Map::new();
            for (key, value) in pairs {
                let key = match tree(key)? {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                object.insert(key, tree(value)?);
            }
            Ok(Value::Object(object))
        }
        Yaml::Tagged(_, inner) => tree(inner),
        Yaml::Representation(text, ..) => Ok(Value::String(text.to_string())),
        Yaml::Alias(_) => Err("an alias without an anchor".to_owned()),
        Yaml::BadValue => Err("a value that does not fit its tag".to_owned()),
    }
}

fn leaf(scalar: &Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(b) => Value::Bool(*b),
        Scalar::Integer(n) => Value::Number((*n).into()),
        Scalar::FloatingPoint(n) => {
            Number::from_f64(n.into_inner()).map_or(Value::Null, Value::Number)
        }
        Scalar::String(text) => Value::String(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        let yaml = "name: a\nlist: [x, 'y']\nn: 100\nb: true\nnested:\n  k: 1.5\n# c\n";
        let want =
            json!({"name": "a", "list": ["x", "y"], "n": 100, "b": true, "nested": {"k": 1.5}});
        assert_eq!(parse(yaml).unwrap(), want);
        assert_eq!(parse(&want.to_string()).unwrap(), want);
        assert_eq!(parse("").unwrap(), json!({}));
    }

    #[test]
    fn broken_yaml_says_where() {
        let why = parse("name: [1\n").unwrap_err();
        assert!(why.contains("line"), "{why}");
    }
}
