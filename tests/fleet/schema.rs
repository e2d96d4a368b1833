//! Bodies against the OpenAPI document that a daemon serves: as much of JSON Schema as stands in it. A keyword that is
//! not known here fails, so that nothing in the document goes unchecked.

use serde_json::Value;

/// Keywords that demand nothing of a body, or nothing that its type does not say.
const SAY_NOTHING: [&str; 5] = ["description", "default", "format", "propertyNames", "deprecated"];

pub(crate) struct Document(Value);

impl Document {
    pub(crate) fn new(document: Value) -> Document {
        Document(document)
    }

    /// What is wrong with an answer to `form`: a status that is not documented, or a body that does not fit.
    pub(crate) fn faults(&self, form: &str, status: u16, body: &Value) -> Vec<String> {
        let (method, path) = form.split_once(' ').expect("a method and a path");
        let operation = &self.0["paths"][path][method.to_lowercase()];
        let schema = &operation["responses"][status.to_string()]["content"]["application/json"];
        match schema.get("schema") {
            Some(schema) => {
                let mut found = Vec::new();
                self.check(schema, body, "answer", &mut found);
                found
            }
            None => vec![format!("the status {status} is not documented")],
        }
    }

    fn check(&self, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
        for (keyword, demand) in schema.as_object().expect("a schema is an object") {
            let fits = match keyword.as_str() {
                "$ref" => {
                    let pointer = demand.as_str().expect("a text").trim_start_matches('#');
                    let named = self.0.pointer(pointer).expect("what is named is there");
                    self.check(named, value, place, found);
                    true
                }
                "oneOf" => demand.as_array().expect("a list").iter().any(|one| {
                    let mut faults = Vec::new();
                    self.check(one, value, place, &mut faults);
                    faults.is_empty()
                }),
                "type" => match demand {
                    Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
                    kind => is_of(kind, value),
                },
                "enum" => demand.as_array().expect("a list").contains(value),
                "minimum" => value.as_f64().is_none_or(|n| Some(n) >= demand.as_f64()),
                "maximum" => value.as_f64().is_none_or(|n| Some(n) <= demand.as_f64()),
                "minLength" => {
                    value.as_str().is_none_or(|t| Some(t.len() as u64) >= demand.as_u64())
                }
                "required" => {
                    let names = demand.as_array().expect("a list");
                    let is_there =
                        |name: &Value| value.get(name.as_str().expect("a text")).is_some();
                    !value.is_object() || names.iter().all(is_there)
                }
                // Both say something of the same fields: they are gone through once.
                "additionalProperties" if schema.get("properties").is_some() => true,
                "properties" | "additionalProperties" => {
                    self.check_fields(schema, value, place, found);
                    true
                }
                "items" => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(demand, item, &format!("{place}[{at}]"), found);
                    }
                    true
                }
                other => {
                    assert!(SAY_NOTHING.contains(&other), "{other} is not looked at");
                    true
                }
            };
            if !fits {
                found.push(format!("{place}: {value} does not fit {keyword}: {demand}"));
            }
        }
    }

    fn check_fields(&self, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
        let others = schema.get("additionalProperties");
        for (name, value) in value.as_object().into_iter().flatten() {
            let place = format!("{place}.{name}");
            match (schema["properties"].get(name), others) {
                (Some(schema), _) => self.check(schema, value, &place, found),
                (None, Some(Value::Bool(false))) => {
                    found.push(format!("{place} is not documented"));
                }
                (None, None | Some(Value::Bool(true))) => {}
                (None, Some(schema)) => self.check(schema, value, &place, found),
            }
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a kind is a text") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no kind is called {other}"),
    }
}

#[test]
fn what_does_not_fit_is_found_by_its_place() {
    let document = serde_json::json!({
        "components": {"schemas": {"Name": {"type": "string", "minLength": 1}}},
        "paths": {"/x": {"get": {"responses": {"200": {"content": {"application/json": {"schema": {
            "type": "object", "required": ["a"], "additionalProperties": false,
            "properties": {
                "a": {"type": "array", "items": {"$ref": "#/components/schemas/Name"}},
                "b": {"oneOf": [{"type": "null"}, {"type": "integer", "maximum": 3}]},
            },
        }}}}}}}},
    });
    let document = Document::new(document);
    let faults = |body: Value| document.faults("GET /x", 200, &body);
    assert_eq!(faults(serde_json::json!({"a": ["n"], "b": 3})), Vec::<String>::new());
    for (body, place) in [
        (serde_json::json!({}), "answer: {} does not fit required"),
        (serde_json::json!({"a": ["n", ""]}), "answer.a[1]: \"\" does not fit minLength"),
        (serde_json::json!({"a": [], "b": 4}), "answer.b: 4 does not fit oneOf"),
        (serde_json::json!({"a": [], "c": 1}), "answer.c is not documented"),
    ] {
        let faults = faults(body);
        assert!(faults.len() == 1 && faults[0].starts_with(place), "{place}: {faults:?}");
    }
    assert_eq!(document.faults("GET /x", 404, &Value::Null).len(), 1);
}
