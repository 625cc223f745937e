//! The rules of contracts, one constant for each kind of change.

use super::finding::{Level, Rule};

macro_rules! rules {
    ($($name:ident = $id:literal, $level:ident, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub static $name: Rule = Rule { id: $id, level: Level::$level, meaning: $meaning };)*
        /// Every rule, in the order of the page.
        pub static ALL: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    OPERATION_REMOVED = "operation-removed", Breaking, "An operation is gone.";
    OPERATION_ADDED = "operation-added", Compatible, "An operation is new.";
    OPERATION_DEPRECATED = "operation-deprecated", Compatible, "An operation is deprecated, and still works.";
    OPERATION_ID_CHANGED = "operation-id-changed", Warning, "An operation has another id; generated clients get another name.";
    PARAMETER_REMOVED = "parameter-removed", Warning, "A parameter is not read anymore.";
    PARAMETER_ADDED = "parameter-added", Compatible, "An optional parameter is new.";
    PARAMETER_ADDED_REQUIRED = "parameter-added-required", Breaking, "A required parameter is new.";
    PARAMETER_BECAME_REQUIRED = "parameter-became-required", Breaking, "An optional parameter is required.";
    PARAMETER_BECAME_OPTIONAL = "parameter-became-optional", Compatible, "A required parameter is optional.";
    PARAMETER_ENCODING_CHANGED = "parameter-encoding-changed", Breaking, "A list or object in a parameter is written differently (style, explode, content).";
    BODY_ADDED_REQUIRED = "body-added-required", Breaking, "A required request body is new.";
    BODY_ADDED = "body-added", Compatible, "An optional request body is new.";
    BODY_REMOVED = "body-removed", Breaking, "The request body is not read anymore.";
    BODY_BECAME_REQUIRED = "body-became-required", Breaking, "An optional request body is required.";
    BODY_BECAME_OPTIONAL = "body-became-optional", Compatible, "A required request body is optional.";
    REQUEST_MEDIA_TYPE_REMOVED = "request-media-type-removed", Breaking, "A media type of the request is refused.";
    RESPONSE_MEDIA_TYPE_REMOVED = "response-media-type-removed", Breaking, "A media type of a response is gone.";
    MEDIA_TYPE_ADDED = "media-type-added", Compatible, "A media type is new.";
    STATUS_SUCCESS_REMOVED = "success-status-removed", Breaking, "A status of success is gone.";
    STATUS_FAILURE_REMOVED = "failure-status-removed", Compatible, "A status of failure is gone.";
    STATUS_ADDED = "status-added", Compatible, "A status is new.";
    HEADER_REQUIRED_REMOVED = "required-header-removed", Breaking, "A header that every response had is gone.";
    HEADER_OPTIONAL_REMOVED = "optional-header-removed", Warning, "A header that some responses had is gone.";
    HEADER_BECAME_OPTIONAL = "header-became-optional", Breaking, "A header that every response had may be missing.";
    HEADER_ADDED = "header-added", Compatible, "A response has another header.";
    SECURITY_TIGHTENED = "security-tightened", Breaking, "Credentials that sufficed do not.";
    SECURITY_LOOSENED = "security-loosened", Compatible, "Other or fewer credentials suffice as well.";
    SECURITY_SCHEME_CHANGED = "security-scheme-changed", Breaking, "A credential is sent differently.";
    ROLE_RAISED = "role-raised", Breaking, "An operation requires a stronger role (`x-required-role`).";
    ROLE_LOWERED = "role-lowered", Compatible, "An operation requires a weaker role (`x-required-role`).";
    PROBLEM_CODE_REMOVED = "problem-code-removed", Breaking, "A code of problems is gone (`x-problem-codes`); callers act on codes.";
    SERVER_REMOVED = "server-removed", Warning, "An address of the API is gone.";

    REQUEST_TYPE_NARROWED = "request-type-narrowed", Breaking, "A type or format that was accepted is refused.";
    RESPONSE_TYPE_WIDENED = "response-type-widened", Breaking, "A response may have another type or format.";
    TYPE_CHANGED = "type-changed-compatibly", Compatible, "A request accepts more types, or a response has fewer.";
    REQUEST_ENUM_NARROWED = "request-enum-narrowed", Breaking, "A value that was accepted is refused.";
    REQUEST_ENUM_WIDENED = "request-enum-widened", Compatible, "A request accepts more values.";
    RESPONSE_ENUM_NARROWED = "response-enum-narrowed", Breaking, "A value that was promised is gone.";
    RESPONSE_ENUM_WIDENED = "response-enum-widened", Breaking, "A response may have a new value; a client that knows all values fails on it.";
    REQUEST_BOUND_NARROWED = "request-bound-narrowed", Breaking, "A bound of what is accepted is tighter or new.";
    RESPONSE_BOUND_WIDENED = "response-bound-widened", Breaking, "A bound of what a response has is looser or gone.";
    BOUND_CHANGED = "bound-changed-compatibly", Compatible, "A request accepts more, or a response promises more.";
    REQUEST_PATTERN_ADDED = "request-pattern-added", Breaking, "A text that was accepted must match a pattern.";
    REQUEST_PATTERN_CHANGED = "request-pattern-changed", Warning, "The pattern of an accepted text is another; which texts it refuses is not decided.";
    PATTERN_CHANGED = "pattern-changed-compatibly", Compatible, "The pattern of a response is another, or one of a request is gone.";
    REQUEST_NOT_NULLABLE = "request-became-not-nullable", Breaking, "`null` was accepted and is refused.";
    RESPONSE_NULLABLE = "response-became-nullable", Breaking, "A response may be `null` where it was not.";
    NULLABLE_CHANGED = "nullable-changed-compatibly", Compatible, "A request accepts `null`, or a response has none anymore.";
    REQUEST_FIELD_REMOVED = "request-field-removed", Warning, "A field is not read anymore.";
    REQUEST_FIELD_REFUSED = "request-field-refused", Breaking, "A field is gone from a request that refuses unknown ones.";
    REQUEST_FIELD_ADDED = "request-field-added", Compatible, "An optional field is new, or a required one with a default.";
    REQUEST_FIELD_ADDED_REQUIRED = "request-field-added-required", Breaking, "A required field is new.";
    REQUEST_FIELD_BECAME_REQUIRED = "request-field-became-required", Breaking, "An optional field is required.";
    REQUEST_FIELD_BECAME_OPTIONAL = "request-field-became-optional", Compatible, "A required field is optional.";
    RESPONSE_FIELD_REMOVED = "response-field-removed", Breaking, "A field of a response is gone.";
    RESPONSE_FIELD_ADDED = "response-field-added", Compatible, "A response has another field.";
    RESPONSE_FIELD_BECAME_OPTIONAL = "response-field-became-optional", Breaking, "A field that was always present may be missing.";
    RESPONSE_FIELD_BECAME_REQUIRED = "response-field-became-required", Compatible, "A field that may have been missing is always present.";
    REQUEST_CLOSED = "request-closed", Breaking, "Unknown fields were accepted and are refused (`additionalProperties`).";
    ADDITIONAL_CHANGED = "additional-changed-compatibly", Compatible, "Unknown fields are accepted, or not sent anymore.";
    RESPONSE_OPENED = "response-opened", Warning, "A response may have unknown fields.";
    REQUEST_VARIANT_REMOVED = "request-variant-removed", Breaking, "One of several accepted forms is refused (`oneOf`, `anyOf`).";
    RESPONSE_VARIANT_ADDED = "response-variant-added", Breaking, "A response may have another form (`oneOf`, `anyOf`).";
    VARIANT_CHANGED = "variant-changed-compatibly", Compatible, "A request accepts another form, or a response has one less.";
    DISCRIMINATOR_CHANGED = "discriminator-changed", Breaking, "The field that names the form is another, or leads elsewhere.";
    DEFAULT_CHANGED = "parameter-default-changed", Breaking, "A parameter that is left out means something else.";
    DEFAULT_ADDED = "parameter-default-added", Compatible, "The default of a parameter is said for the first time.";
    FIELD_DEFAULT_CHANGED = "field-default-changed", Compatible, "The default of a field of a body is another.";
    READ_ONLY = "request-field-became-read-only", Warning, "A field that a request could set is only read.";
    WRITE_ONLY = "response-field-became-write-only", Warning, "A field that a response had is only written.";
    NOT_CHANGED = "exclusion-changed", Warning, "What a schema excludes (`not`) is another.";

    DOCUMENT_REMOVED = "document-removed", Breaking, "A whole document of the contract is gone.";
    DOCUMENT_ADDED = "document-added", Compatible, "A document of the contract is new.";
    SUBJECT_REMOVED = "subject-removed", Breaking, "Nothing is published under a subject anymore.";
    SUBJECT_ADDED = "subject-added", Compatible, "A subject is new.";
    SUBJECT_MOVED = "subject-moved", Breaking, "A subject is stored in another stream.";
    SUBJECT_PEERS_CHANGED = "subject-peers-changed", Warning, "A subject is published or read by others.";
    SETTING_REMOVED = "setting-removed", Breaking, "A setting is not read anymore.";
    SETTING_ADDED = "setting-added", Compatible, "A setting is new, and has a default or may be left out.";
    SETTING_ADDED_REQUIRED = "setting-added-required", Breaking, "A setting is new and must be given.";
    SETTING_BECAME_REQUIRED = "setting-became-required", Breaking, "A setting must be given that could be left out.";
    SETTING_DEFAULT_CHANGED = "setting-default-changed", Breaking, "A setting that is left out means something else.";
    SETTING_VALUES_CHANGED = "setting-values-changed", Warning, "What a setting accepts is described differently.";
    METRIC_REMOVED = "metric-removed", Breaking, "A metric is gone; alerts and dashboards on it are silent.";
    METRIC_ADDED = "metric-added", Compatible, "A metric is new.";
    METRIC_TYPE_CHANGED = "metric-type-changed", Breaking, "A metric has another type or unit.";
    METRIC_LABEL_REMOVED = "metric-label-removed", Breaking, "A label is gone, or one of its values.";
    METRIC_LABEL_ADDED = "metric-label-added", Breaking, "A metric has another label; sums and joins of its series change.";
    METRIC_LABEL_VALUE_ADDED = "metric-label-value-added", Compatible, "A label has another value.";

    PROTO_FILE_CHANGED = "proto-package-changed", Breaking, "A package is gone, or a file has another package or syntax.";
    PROTO_MESSAGE_REMOVED = "proto-message-removed", Breaking, "A message is gone.";
    PROTO_ENUM_REMOVED = "proto-enum-removed", Breaking, "An enum is gone.";
    PROTO_SERVICE_REMOVED = "proto-service-removed", Breaking, "A service is gone.";
    PROTO_METHOD_REMOVED = "proto-method-removed", Breaking, "A method is gone.";
    PROTO_METHOD_CHANGED = "proto-method-changed", Breaking, "A method has another request, response, streaming or idempotency.";
    PROTO_FIELD_REMOVED = "proto-field-removed", Breaking, "A field's number is gone.";
    PROTO_FIELD_RENAMED = "proto-field-renamed", Breaking, "A field's number has another name, or another name in JSON.";
    PROTO_FIELD_TYPE_CHANGED = "proto-field-type-changed", Breaking, "A field has another type.";
    PROTO_FIELD_CARDINALITY_CHANGED = "proto-field-cardinality-changed", Breaking, "A field is repeated, optional or required where it was not, or the reverse.";
    PROTO_FIELD_ONEOF_CHANGED = "proto-field-oneof-changed", Breaking, "A field moved into, out of or between oneofs.";
    PROTO_FIELD_OPTION_CHANGED = "proto-field-option-changed", Breaking, "An option that decides how a field is read is another (`default`, `jstype`, `ctype`).";
    PROTO_ONEOF_REMOVED = "proto-oneof-removed", Breaking, "A oneof is gone.";
    PROTO_ENUM_VALUE_REMOVED = "proto-enum-value-removed", Breaking, "A number of an enum is gone.";
    PROTO_ENUM_VALUE_RENAMED = "proto-enum-value-renamed", Breaking, "A number of an enum has another name.";
    PROTO_RESERVED_REMOVED = "proto-reserved-removed", Breaking, "A number or name is not reserved anymore, and could be used again.";
    PROTO_OPTION_CHANGED = "proto-option-changed", Breaking, "An option of a file that decides about generated code is another.";
    PROTO_ADDED = "proto-added", Compatible, "A message, enum, value, field, service or method is new.";
}
