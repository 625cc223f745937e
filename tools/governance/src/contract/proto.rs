//! Compares two folders of .proto files by what they declare, package by package.
//!
//! A declaration may move between files of its package. Names count as well as numbers: JSON and generated code use them.

use super::{
    finding::{Finding, Findings, Rule},
    rules::{self as r},
};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Everything that some files declare, by full name.
#[derive(Debug, Default)]
pub struct Declared {
    packages: BTreeMap<String, BTreeSet<String>>,
    options: BTreeMap<String, BTreeMap<&'static str, String>>,
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
    services: BTreeMap<String, BTreeMap<String, MethodDescriptorProto>>,
}

impl Declared {
    /// Compiles the files, named relative to the folder that imports are relative to.
    ///
    /// # Errors
    /// What the compiler says, with file and line.
    pub fn compile(folder: &Path, files: &[PathBuf]) -> Result<Self, String> {
        let set = protox::compile(files, [folder]).map_err(|e| format!("{e:?}").trim().to_owned())?;
        let own: BTreeSet<String> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
        Ok(Self::of(&set, &own))
    }

    /// Of compiled files; those that are only imported are somebody else's.
    fn of(set: &FileDescriptorSet, own: &BTreeSet<String>) -> Self {
        let mut all = Self::default();
        for file in set.file.iter().filter(|file| own.contains(file.name())) {
            let package = file.package().to_owned();
            all.options.insert(file.name().to_owned(), options(file));
            let syntax = if file.syntax().is_empty() { "proto2" } else { file.syntax() };
            all.packages.entry(package.clone()).or_default().insert(syntax.to_owned());
            for message in &file.message_type {
                all.take_message(&package, message);
            }
            for one in &file.enum_type {
                all.enums.insert(joined(&package, one.name()), one.clone());
            }
            for service in &file.service {
                let methods = service.method.iter().map(|m| (m.name().to_owned(), m.clone())).collect();
                all.services.insert(joined(&package, service.name()), methods);
            }
        }
        all
    }

    fn take_message(&mut self, within: &str, message: &DescriptorProto) {
        let name = joined(within, message.name());
        for one in &message.enum_type {
            self.enums.insert(joined(&name, one.name()), one.clone());
        }
        for nested in &message.nested_type {
            self.take_message(&name, nested);
        }
        self.messages.insert(name, message.clone());
    }
}

fn joined(within: &str, name: &str) -> String {
    if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") }
}

/// What a file says about generated code.
fn options(file: &FileDescriptorProto) -> BTreeMap<&'static str, String> {
    let options = file.options.clone().unwrap_or_default();
    let mut said = BTreeMap::from([("package", file.package().to_owned())]);
    let texts = [
        ("go_package", &options.go_package),
        ("java_package", &options.java_package),
        ("java_outer_classname", &options.java_outer_classname),
        ("csharp_namespace", &options.csharp_namespace),
        ("objc_class_prefix", &options.objc_class_prefix),
        ("php_namespace", &options.php_namespace),
        ("php_class_prefix", &options.php_class_prefix),
        ("php_metadata_namespace", &options.php_metadata_namespace),
        ("ruby_package", &options.ruby_package),
        ("swift_prefix", &options.swift_prefix),
    ];
    said.extend(texts.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
    said.insert("java_multiple_files", options.java_multiple_files().to_string());
    said.insert("java_string_check_utf8", options.java_string_check_utf8().to_string());
    said.insert("cc_enable_arenas", options.cc_enable_arenas().to_string());
    said.insert("cc_generic_services", options.cc_generic_services().to_string());
    said.insert("java_generic_services", options.java_generic_services().to_string());
    said.insert("py_generic_services", options.py_generic_services().to_string());
    said.insert("optimize_for", options.optimize_for().as_str_name().to_owned());
    said
}

/// Compares what two versions declare.
#[must_use]
pub fn compare(old: &Declared, new: &Declared, file: &str) -> Vec<Finding> {
    let mut found = Findings::of(file);
    for (package, syntaxes) in &old.packages {
        match new.packages.get(package) {
            None => found.add(&r::PROTO_FILE_CHANGED, package, "", "the package is gone"),
            Some(now) if now != syntaxes => {
                found.add(&r::PROTO_FILE_CHANGED, package, "", "its files have another syntax")
            }
            Some(_) => {}
        }
    }
    for (name, before) in &old.options {
        let Some(after) = new.options.get(name) else { continue };
        for (key, value) in before.iter().filter(|(key, value)| after.get(*key) != Some(*value)) {
            let rule = if *key == "package" { &r::PROTO_FILE_CHANGED } else { &r::PROTO_OPTION_CHANGED };
            found.add(rule, name, key, format!("it was {value:?}"));
        }
        for key in after.keys().filter(|key| !before.contains_key(*key)) {
            found.add(&r::PROTO_OPTION_CHANGED, name, key, "it is new");
        }
    }
    each(&old.messages, &new.messages, &r::PROTO_MESSAGE_REMOVED, &mut found, message);
    each(&old.enums, &new.enums, &r::PROTO_ENUM_REMOVED, &mut found, enumeration);
    each(&old.services, &new.services, &r::PROTO_SERVICE_REMOVED, &mut found, |name, old, new, found| {
        each(&prefixed(name, old), &prefixed(name, new), &r::PROTO_METHOD_REMOVED, found, method);
    });
    found.sorted()
}

fn prefixed(
    service: &str,
    methods: &BTreeMap<String, MethodDescriptorProto>,
) -> BTreeMap<String, MethodDescriptorProto> {
    methods.iter().map(|(name, method)| (format!("{service}/{name}"), method.clone())).collect()
}

/// Compares what both have, names what is gone and what is new.
fn each<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    removed: &'static Rule,
    found: &mut Findings,
    compare: impl Fn(&str, &T, &T, &mut Findings),
) {
    for (name, before) in old {
        match new.get(name) {
            None => found.add(removed, name, "", "it is gone"),
            Some(after) => compare(name, before, after, found),
        }
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        found.add(&r::PROTO_ADDED, name, "", "it is new");
    }
}

fn message(name: &str, old: &DescriptorProto, new: &DescriptorProto, found: &mut Findings) {
    let numbered = |of: &DescriptorProto| -> BTreeMap<i32, FieldDescriptorProto> {
        of.field.iter().map(|field| (field.number(), field.clone())).collect()
    };
    let (before, after) = (numbered(old), numbered(new));
    for (number, was) in &before {
        let at = format!("{} = {number}", was.name());
        match after.get(number) {
            None => found.add(&r::PROTO_FIELD_REMOVED, name, &at, "it is gone"),
            Some(is) => field(name, &at, (old, was), (new, is), found),
        }
    }
    for (number, is) in after.iter().filter(|(number, _)| !before.contains_key(number)) {
        let required = is.label() == Label::Required;
        let rule = if required { &r::PROTO_FIELD_CARDINALITY_CHANGED } else { &r::PROTO_ADDED };
        found.add(rule, name, &format!("{} = {number}", is.name()), "it is new");
    }
    let oneofs = |of: &DescriptorProto| -> BTreeSet<String> {
        let is_real =
            |n: usize| of.field.iter().any(|f| f.oneof_index == i32::try_from(n).ok() && !f.proto3_optional());
        of.oneof_decl.iter().enumerate().filter(|(n, _)| is_real(*n)).map(|(_, one)| one.name().to_owned()).collect()
    };
    for gone in oneofs(old).difference(&oneofs(new)) {
        found.add(&r::PROTO_ONEOF_REMOVED, name, gone, "it is gone");
    }
    let ranges = |of: &DescriptorProto| -> Vec<(i32, i32)> {
        of.reserved_range.iter().map(|r| (r.start(), r.end() - 1)).collect()
    };
    reserved(name, (&ranges(old), &old.reserved_name), (&ranges(new), &new.reserved_name), found);
    let set =
        |of: &DescriptorProto| of.options.as_ref().is_some_and(prost_types::MessageOptions::message_set_wire_format);
    if set(old) != set(new) {
        found.add(&r::PROTO_FIELD_OPTION_CHANGED, name, "message_set_wire_format", "it was changed");
    }
}

type InMessage<'a> = (&'a DescriptorProto, &'a FieldDescriptorProto);

fn field(name: &str, at: &str, (old, was): InMessage<'_>, (new, is): InMessage<'_>, found: &mut Findings) {
    if was.name() != is.name() || was.json_name() != is.json_name() {
        found.add(&r::PROTO_FIELD_RENAMED, name, at, format!("it is {} now, in JSON {}", is.name(), is.json_name()));
    }
    let kind = |f: &FieldDescriptorProto| (f.r#type().as_str_name().to_owned(), f.type_name().to_owned());
    if kind(was) != kind(is) {
        found.add(&r::PROTO_FIELD_TYPE_CHANGED, name, at, format!("{} became {}", said(was), said(is)));
    }
    // In proto3, `optional` is a oneof of one field.
    let cardinality = |f: &FieldDescriptorProto| (f.label(), f.proto3_optional());
    if cardinality(was) != cardinality(is) {
        found.add(&r::PROTO_FIELD_CARDINALITY_CHANGED, name, at, "repeated, optional or required was changed");
    }
    let oneof = |of: &DescriptorProto, f: &FieldDescriptorProto| {
        let index = f.oneof_index.filter(|_| !f.proto3_optional())?;
        Some(of.oneof_decl.get(usize::try_from(index).ok()?)?.name().to_owned())
    };
    if oneof(old, was) != oneof(new, is) {
        found.add(&r::PROTO_FIELD_ONEOF_CHANGED, name, at, "its oneof was changed");
    }
    let options = |f: &FieldDescriptorProto| {
        let options = f.options.clone().unwrap_or_default();
        (options.jstype(), options.ctype(), f.default_value().to_owned())
    };
    if options(was) != options(is) {
        found.add(&r::PROTO_FIELD_OPTION_CHANGED, name, at, "default, jstype or ctype was changed");
    }
}

fn said(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn enumeration(name: &str, old: &EnumDescriptorProto, new: &EnumDescriptorProto, found: &mut Findings) {
    let numbered = |of: &EnumDescriptorProto| {
        let mut all: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
        for value in &of.value {
            all.entry(value.number()).or_default().insert(value.name().to_owned());
        }
        all
    };
    let (before, after) = (numbered(old), numbered(new));
    for (number, was) in &before {
        let at = format!("{} = {number}", was.iter().next().map_or("", String::as_str));
        match after.get(number) {
            None => found.add(&r::PROTO_ENUM_VALUE_REMOVED, name, &at, "it is gone"),
            // Another name for the same number may join.
            Some(is) if !was.is_subset(is) => {
                found.add(&r::PROTO_ENUM_VALUE_RENAMED, name, &at, format!("it is {is:?} now"))
            }
            Some(_) => {}
        }
    }
    for (number, is) in after.iter().filter(|(number, _)| !before.contains_key(number)) {
        found.add(&r::PROTO_ADDED, name, &format!("{is:?} = {number}"), "it is new");
    }
    let ranges = |of: &EnumDescriptorProto| -> Vec<(i32, i32)> {
        of.reserved_range.iter().map(|r| (r.start(), r.end())).collect()
    };
    reserved(name, (&ranges(old), &old.reserved_name), (&ranges(new), &new.reserved_name), found);
}

/// Reserved numbers, from and to inclusive, and names.
type Reserved<'a> = (&'a [(i32, i32)], &'a [String]);

fn reserved(name: &str, old: Reserved<'_>, new: Reserved<'_>, found: &mut Findings) {
    for (from, to) in old.0.iter().filter(|(from, to)| !is_covered(*from, *to, new.0)) {
        found.add(&r::PROTO_RESERVED_REMOVED, name, &format!("{from} to {to}"), "it is not reserved anymore");
    }
    for gone in old.1.iter().filter(|gone| !new.1.contains(gone)) {
        found.add(&r::PROTO_RESERVED_REMOVED, name, gone, "it is not reserved anymore");
    }
}

/// Whether ranges together cover one.
fn is_covered(from: i32, to: i32, by: &[(i32, i32)]) -> bool {
    let mut sorted = by.to_vec();
    sorted.sort_unstable();
    let mut next = i64::from(from);
    for (start, end) in sorted {
        if i64::from(start) <= next && i64::from(end) >= next {
            next = i64::from(end) + 1;
        }
    }
    next > i64::from(to)
}

fn method(name: &str, old: &MethodDescriptorProto, new: &MethodDescriptorProto, found: &mut Findings) {
    let idempotency =
        |m: &MethodDescriptorProto| m.options.clone().unwrap_or_default().idempotency_level().as_str_name().to_owned();
    for (part, was, is) in [
        ("request", old.input_type().to_owned(), new.input_type().to_owned()),
        ("response", old.output_type().to_owned(), new.output_type().to_owned()),
        ("client streaming", old.client_streaming().to_string(), new.client_streaming().to_string()),
        ("server streaming", old.server_streaming().to_string(), new.server_streaming().to_string()),
        ("idempotency", idempotency(old), idempotency(new)),
    ] {
        if was != is {
            let bare = |text: &str| text.trim_start_matches('.').to_owned();
            found.add(&r::PROTO_METHOD_CHANGED, name, part, format!("it was {} and is {}", bare(&was), bare(&is)));
        }
    }
}
