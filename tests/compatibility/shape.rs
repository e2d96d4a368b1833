//! The shape of an answer: which fields it has, not what they hold.

use std::collections::BTreeSet;
use std::path::Path;

use protox::prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use serde_json::Value as Json;

/// The API that `proto/` describes.
pub(crate) fn api() -> DescriptorPool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files =
        ["kv.proto", "auth.proto", "rpc.proto", "v3lock.proto", "v3election.proto", "health.proto"];
    let mut compiler = protox::Compiler::new([folder]).expect("proto/ can be read");
    compiler.include_imports(true).open_files(files).expect("proto/ compiles");
    compiler.descriptor_pool()
}

/// Every method with its name as `package.Service/Method`.
pub(crate) fn methods(api: &DescriptorPool) -> Vec<(String, MethodDescriptor)> {
    let all = api.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    all.map(|method| (format!("{}/{}", method.parent_service().full_name(), method.name()), method))
        .collect()
}

/// The gateway's paths of a method: of its rule, and of the rule's additional bindings.
pub(crate) fn paths(api: &DescriptorPool, method: &MethodDescriptor) -> Vec<String> {
    let rule = api.get_extension_by_name("google.api.http").expect("the annotations are there");
    let options = method.options();
    if !options.has_extension(&rule) {
        return Vec::new();
    }
    let rule = options.get_extension(&rule);
    let rule = rule.as_message().expect("a rule is a message");
    let more = rule.get_field_by_name("additional_bindings").expect("a rule has it");
    let more = more.as_list().expect("the bindings are a list").to_vec();
    let post = |rule: &DynamicMessage| {
        let path = rule.get_field_by_name("post").expect("a rule has it");
        path.as_str().expect("it is text").to_owned()
    };
    let more = more.iter().map(|rule| post(rule.as_message().expect("a rule is a message")));
    std::iter::once(post(rule)).chain(more).collect()
}

/// `header{cluster_id member_id} kvs{key}`: the fields that are set, and of a list those of any of its messages.
pub(crate) fn of_message(message: &DynamicMessage) -> String {
    joined(fields_of_message(message))
}

fn fields_of_message(message: &DynamicMessage) -> BTreeSet<String> {
    let known = message.fields().map(|(field, value)| format!("{}{}", field.name(), inner(value)));
    let unknown = message.unknown_fields().map(|field| format!("field {}", field.number()));
    known.chain(unknown).collect()
}

fn inner(value: &Value) -> String {
    match value {
        Value::Message(message) => format!("{{{}}}", of_message(message)),
        Value::List(list) => {
            let messages = list.iter().filter_map(Value::as_message);
            braced(messages.flat_map(fields_of_message).collect())
        }
        _ => String::new(),
    }
}

/// The same of JSON, down to `depth` levels.
pub(crate) fn of_json(value: &Json, depth: usize) -> String {
    match value {
        Json::Object(_) if depth > 0 => format!("{{{}}}", joined(fields_of_json(value, depth))),
        Json::Array(list) if depth > 0 => {
            braced(list.iter().flat_map(|one| fields_of_json(one, depth)).collect())
        }
        _ => String::new(),
    }
}

fn fields_of_json(value: &Json, depth: usize) -> BTreeSet<String> {
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(name, value)| format!("{name}{}", of_json(value, depth - 1))).collect()
}

fn braced(fields: BTreeSet<String>) -> String {
    if fields.is_empty() { String::new() } else { format!("{{{}}}", joined(fields)) }
}

fn joined(fields: BTreeSet<String>) -> String {
    fields.into_iter().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_list_has_the_fields_of_any_of_its_messages() {
    let json = serde_json::json!({"b": [{"c": 1}, {"d": {"e": 2}}], "a": "x", "n": [1]});
    assert_eq!(of_json(&json, 3), "{a b{c d{e}} n}");
    assert_eq!(of_json(&json, 1), "{a b n}");
}
