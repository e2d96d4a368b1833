//! The OpenAPI document, from the same table that the requests are routed by.
//!
//! ```text
//!   Rule, Ask, Tell of each row ──> path, body, statuses ──┐
//!   schemas of the types (utoipa) ── closed ───────────────┴──> /1.0/openapi.json, docs/openapi.json
//! ```
//!
//! **Invariant:** a status that a row can answer with is in the document, and the other way round: the tests provoke
//! each of them.

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{
    Components, Content, Deprecated, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Paths, RefOr,
    Required, ResponseBuilder,
};

use super::ask::{Ask, Schemas, Tell, named};
use super::caller::Access;
use super::repeats::KEY_BYTES_MAX;
use super::rule::{Kind, Rule, Verb, When};
use crate::fleet::api::server::Operation;

/// Types that may have more fields than are known: Kubernetes adds some.
const OPEN_TYPES: [&str; 4] = ["TokenReview", "TokenReviewSpec", "TokenReviewStatus", "TokenUser"];

/// What is said of each status.
const STATUSES: [(u16, &str); 14] = [
    (200, "Done."),
    (202, "Begun: `metadata` is the operation, `Location` says where to ask for it."),
    (400, "What was asked makes no sense."),
    (401, "A token in a header is missing or does not count."),
    (403, "Whoever asks is not trusted, or this is a worker."),
    (404, "There is no such thing."),
    (405, "Not this method."),
    (409, "Something else came first."),
    (413, "The body is too long."),
    (422, "The Idempotency-Key was used for another request."),
    (500, "It failed."),
    (503, "In no fleet yet, on the way out, or no quorum."),
    (520, "The node is not in the fleet."),
    (521, "The node is in a fleet already."),
];

/// The document while rows are added.
#[derive(Default)]
pub(super) struct Document {
    paths: BTreeMap<&'static str, PathItem>,
    schemas: Schemas,
}

/// The statuses that a row answers with.
pub(super) fn statuses(rule: &Rule, has_body: bool, has_parameters: bool) -> BTreeSet<u16> {
    let mut codes = BTreeSet::from([200]);
    if has_body {
        codes.extend([400, 413]);
    }
    if has_parameters {
        codes.insert(400);
    }
    match rule.access {
        Access::Open | Access::JoinToken => {}
        Access::Trusted | Access::Certificate => drop(codes.insert(403)),
        Access::Capi | Access::Node | Access::Worker => drop(codes.insert(401)),
    }
    match rule.when {
        When::Always => {}
        When::NotStopping => drop(codes.insert(503)),
        When::InFleet => codes.extend([503, 520]),
        When::ControlPlane => codes.extend([403, 503, 520]),
    }
    match rule.kind {
        Kind::Reads => {}
        Kind::Changes => codes.extend([400, 409, 422, 500]),
        Kind::Task => codes.extend([202, 400, 409, 422, 500]),
    }
    codes.extend(rule.also);
    codes
}

impl Document {
    /// Adds a row in all its forms.
    pub(super) fn row<A: Ask, T: Tell>(&mut self, rule: &Rule) {
        let body = A::body(&mut self.schemas);
        let told = T::told(&mut self.schemas);
        let codes = statuses(rule, body.is_some(), !A::query().is_empty());
        let begun = codes.contains(&202).then(|| named::<Operation>(&mut self.schemas));
        for (number, (verb, path)) in rule.forms.iter().enumerate() {
            let mut operation = OperationBuilder::new()
                .operation_id(Some(if number == 0 {
                    rule.name.to_owned()
                } else {
                    format!("{}-alias-{number}", rule.name)
                }))
                .summary(Some(rule.summary))
                .tag("management");
            if number > 0 {
                operation = operation.deprecated(Some(Deprecated::True));
            }
            for parameter in parameters(rule, path) {
                operation = operation.parameter(parameter);
            }
            match body.clone().filter(|_| *verb != Verb::Get) {
                Some(body) => {
                    let must = if A::body_is_required() { Required::True } else { Required::False };
                    let body = RequestBodyBuilder::new()
                        .content("application/json", Content::new(Some(body)))
                        .required(Some(must))
                        .build();
                    operation = operation.request_body(Some(body));
                }
                None => {
                    for parameter in A::query() {
                        operation = operation.parameter(parameter);
                    }
                }
            }
            for code in &codes {
                let schema = match code {
                    200 => envelope("sync", "Success", 200, told.clone()),
                    202 => envelope(
                        "async",
                        "Operation created",
                        100,
                        begun.clone().unwrap_or_else(|| told.clone()),
                    ),
                    _ => failure(*code),
                };
                operation =
                    operation.response(code.to_string(), answer(*code, "application/json", schema));
            }
            self.add(path, *verb, operation);
        }
    }

    /// Adds a row with answers of its own.
    pub(super) fn bare(
        &mut self,
        verb: Verb,
        path: &'static str,
        operation: OperationBuilder,
        answers: Vec<(u16, &'static str, RefOr<Schema>)>,
    ) {
        let mut operation = operation.tag("management");
        for (code, kind, schema) in answers {
            operation = operation.response(code.to_string(), answer(code, kind, schema));
        }
        self.add(path, verb, operation);
    }

    /// Where schemas go.
    pub(super) fn schemas(&mut self) -> &mut Schemas {
        &mut self.schemas
    }

    fn add(&mut self, path: &'static str, verb: Verb, operation: OperationBuilder) {
        let method = match verb {
            Verb::Get => HttpMethod::Get,
            Verb::Post => HttpMethod::Post,
            Verb::Put => HttpMethod::Put,
            Verb::Delete => HttpMethod::Delete,
        };
        let item = PathItem::new(method, operation);
        match self.paths.get_mut(path) {
            Some(there) => there.merge_operations(item),
            None => drop(self.paths.insert(path, item)),
        }
    }

    /// The whole document.
    pub(super) fn finish(self) -> OpenApi {
        let mut components = Components::new();
        for (name, schema) in self.schemas {
            let schema = if OPEN_TYPES.contains(&name.as_str()) { schema } else { closed(schema) };
            components.schemas.insert(name, schema);
        }
        let mut paths = Paths::new();
        for (path, item) in self.paths {
            paths.paths.insert(path.to_owned(), item);
        }
        let info = InfoBuilder::new()
            .title("Quorate management")
            .version("1.0")
            .description(Some(
                "The API by which a fleet of nodes is formed, looked at and changed: over a unix socket, or over TLS \
                 with a certificate of the fleet.",
            ))
            .build();
        OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
    }
}

/// Headers of the access, and places in the path.
fn parameters(rule: &Rule, path: &str) -> Vec<Parameter> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let header = |name: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .schema(Some(text().min_length(Some(1))))
            .build()
    };
    let mut parameters = match rule.access {
        Access::Capi => vec![header("capi-auth-token")],
        Access::Node => vec![header("node-token")],
        Access::Worker => vec![header("Worker-Name"), header("Worker-Token")],
        Access::Open | Access::Trusted | Access::JoinToken | Access::Certificate => Vec::new(),
    };
    if rule.takes_key() {
        parameters.push(
            ParameterBuilder::new()
                .name("Idempotency-Key")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some("The same answer to who asks the same again, for a day."))
                .schema(Some(text().min_length(Some(1)).max_length(Some(KEY_BYTES_MAX))))
                .build(),
        );
    }
    for place in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        parameters.push(
            ParameterBuilder::new()
                .name(place)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(text().format(Some(SchemaFormat::Custom("uuid".to_owned())))))
                .build(),
        );
    }
    parameters
}

fn answer(code: u16, kind: &str, schema: RefOr<Schema>) -> utoipa::openapi::Response {
    let said = STATUSES.iter().find(|(known, _)| *known == code).map_or("", |(_, said)| *said);
    ResponseBuilder::new().description(said).content(kind, Content::new(Some(schema))).build()
}

fn only<T: Into<serde_json::Value>>(kind: Type, value: T) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind).enum_values(Some([value.into()]))
}

fn envelope(kind: &str, status: &str, code: u16, metadata: RefOr<Schema>) -> RefOr<Schema> {
    let operation = ObjectBuilder::new().schema_type(Type::String);
    enclosed(
        [
            ("type", only(Type::String, kind)),
            ("status", only(Type::String, status)),
            ("status_code", only(Type::Integer, code)),
            ("operation", operation),
            ("error_code", only(Type::Integer, 0)),
            ("error", only(Type::String, "")),
        ],
        metadata,
    )
}

pub(super) fn failure(code: u16) -> RefOr<Schema> {
    enclosed(
        [
            ("type", only(Type::String, "error")),
            ("status", only(Type::String, "")),
            ("status_code", only(Type::Integer, 0)),
            ("operation", only(Type::String, "")),
            ("error_code", only(Type::Integer, code)),
            ("error", ObjectBuilder::new().schema_type(Type::String).min_length(Some(1))),
        ],
        ObjectBuilder::new().schema_type(Type::Null).into(),
    )
}

fn enclosed<const N: usize>(
    fields: [(&str, ObjectBuilder); N],
    metadata: RefOr<Schema>,
) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    for (name, schema) in fields {
        object = object.property(name, schema).required(name);
    }
    object.property("metadata", metadata).required("metadata").into()
}

/// An object that names its fields has no others.
fn closed(schema: RefOr<Schema>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object))
            if !object.properties.is_empty() && object.additional_properties.is_none() =>
        {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            RefOr::T(Schema::Object(object))
        }
        other => other,
    }
}
