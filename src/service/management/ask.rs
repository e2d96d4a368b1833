//! How a row's request is read, and what its answer looks like: from the types of `fleet::api`.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Ref, Schema, Type};
use utoipa::openapi::{RefOr, Required};
use utoipa::{PartialSchema, ToSchema};

use super::body::parse;
use super::rule::Call;
use crate::fleet::error::FleetError;

/// Schemas by name.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

/// A request.
pub(super) trait Ask: Sized + Send + 'static {
    /// Reads it.
    fn read(call: &Call, body: &[u8]) -> Result<Self, FleetError>;

    /// What it is about, for the audit log. Never a secret.
    fn object(&self) -> String {
        String::new()
    }

    /// Its body's schema, if it has a body; what that needs goes to `schemas`.
    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>>;

    /// Whether there must be one.
    fn body_is_required() -> bool {
        true
    }

    /// What may stand in the query; of a row with a body, in its forms without one.
    fn query() -> Vec<Parameter> {
        Vec::new()
    }
}

/// A request with nothing in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nothing;

impl Ask for Nothing {
    fn read(_: &Call, _: &[u8]) -> Result<Self, FleetError> {
        Ok(Nothing)
    }

    fn body(_: &mut Schemas) -> Option<RefOr<Schema>> {
        None
    }
}

/// Reads a body of JSON and checks it further.
pub(super) fn read_body<T: DeserializeOwned + Serialize>(
    body: &[u8],
    check: impl FnOnce(&mut T) -> Result<(), FleetError>,
) -> Result<T, FleetError> {
    let mut ask = parse(body)?;
    check(&mut ask)?;
    Ok(ask)
}

/// Reads the part of the URI after `?`, strictly.
pub(super) fn read_query<T: DeserializeOwned>(call: &Call) -> Result<T, FleetError> {
    axum::extract::Query::<T>::try_from_uri(&call.uri).map(|query| query.0).map_err(|why| {
        FleetError::Invalid(format!("failed to parse the query: {}", why.body_text()))
    })
}

/// A parameter in the query.
pub(super) fn in_query(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(schema))
        .build()
}

/// A reference to the schema of `T`, which goes to `schemas` with all that it needs.
pub(super) fn named<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    T::schemas(schemas);
    let name: Cow<'static, str> = T::name();
    schemas.push((name.to_string(), T::schema()));
    Ref::from_schema_name(name).into()
}

/// An answer.
pub(super) trait Tell: Serialize + Send + 'static {
    /// Its schema; what that needs goes to `schemas`.
    fn told(schemas: &mut Schemas) -> RefOr<Schema>;
}

impl<T: ToSchema + Serialize + Send + 'static> Tell for T {
    fn told(schemas: &mut Schemas) -> RefOr<Schema> {
        named::<T>(schemas)
    }
}

/// A list, where `Vec` itself has no name.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T: ToSchema> PartialSchema for List<T> {
    fn schema() -> RefOr<Schema> {
        ArrayBuilder::new().items(Ref::from_schema_name(T::name())).into()
    }
}

impl<T: ToSchema> ToSchema for List<T> {
    fn name() -> Cow<'static, str> {
        format!("{}List", T::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        T::schemas(schemas);
        schemas.push((T::name().to_string(), T::schema()));
    }
}

/// `null`.
#[derive(Debug, Serialize)]
pub(super) struct Null;

impl PartialSchema for Null {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Null).into()
    }
}

impl ToSchema for Null {}
