//! Generates the gRPC types from `proto/`, and what each of them may take in memory. Pure Rust: no system
//! `protoc` is needed.

use std::{collections::BTreeMap, env, error::Error, fs, path::PathBuf};

use prost::Message;
use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

/// Services that anybody may call, with the bound on what their requests take in memory.
const PUBLIC: [(&str, &str); 2] = [
    ("ottla.v1.Admin", "crate::grpc::codec::ADMIN_MEMORY"),
    ("ottla.v1.Records", "crate::grpc::codec::RECORDS_MEMORY"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let folder = root.join("ottla/v1");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "proto"))
        .collect();
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("ottla_descriptor.bin"), descriptors.encode_to_vec())?;
    let pool = DescriptorPool::from_file_descriptor_set(descriptors.clone())?;
    fs::write(out.join("bounds.rs"), bounds(&pool)?)?;
    // `bytes` fields that carry batches or payloads slice the received buffer instead of copying it.
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::grpc::codec::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// `impl Bounded` for every message.
fn bounds(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut requests = BTreeMap::new();
    for (name, bound) in PUBLIC {
        let service = pool.get_service_by_name(name).ok_or("a public service is gone")?;
        let inputs = service
            .methods()
            .map(|method| method.input().full_name().to_owned());
        requests.extend(inputs.map(|input| (input, bound)));
    }
    let messages = pool.all_messages().filter(|message| !message.is_map_entry());
    let code = messages.map(|message| {
        let bound = match requests.get(message.full_name()) {
            Some(bound) => format!("Some({bound})"),
            None => "None".to_owned(),
        };
        let parts: String = message.fields().filter_map(|field| part(&field)).collect();
        format!(
            "impl crate::grpc::footprint::Bounded for {name} {{\n    \
                 const BOUND: Option<usize> = {bound};\n    \
                 const PARTS: &'static [crate::grpc::footprint::Part] = &[{parts}];\n}}\n",
            name = message.name(),
        )
    });
    Ok(code.collect())
}

/// What a field adds to its message's memory, unless it is a single value.
fn part(field: &FieldDescriptor) -> Option<String> {
    let kind = field.kind();
    let (element, packed, parts) = match &kind {
        Kind::Message(entry) if field.is_map() => {
            let value = entry.map_entry_value_field();
            let key = rust_type(&entry.map_entry_key_field().kind());
            // A table has a byte and some room beside each of its entries.
            let element = format!("2 * (size_of::<({key}, {})>() + 1)", rust_type(&value.kind()));
            (element, false, format!("&[{}]", part(&value).unwrap_or_default()))
        }
        Kind::Message(message) if field.is_list() => (size_of(&kind), false, parts_of(message)),
        // It is a part of the message that it stands in.
        Kind::Message(message) => ("0".to_owned(), false, parts_of(message)),
        Kind::String | Kind::Bytes if field.is_list() => (size_of(&kind), false, "&[]".to_owned()),
        _ if field.is_list() => (size_of(&kind), true, "&[]".to_owned()),
        _ => return None,
    };
    Some(format!(
        "crate::grpc::footprint::Part {{ number: {}, element: {element}, packed: {packed}, parts: {parts} }}, ",
        field.number(),
    ))
}

fn parts_of(message: &MessageDescriptor) -> String {
    format!("<{} as crate::grpc::footprint::Bounded>::PARTS", message.name())
}

fn size_of(kind: &Kind) -> String {
    format!("size_of::<{}>()", rust_type(kind))
}

/// The type that prost has for a value.
fn rust_type(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "bool",
        Kind::Float => "f32",
        Kind::Double => "f64",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Enum(_) => "i32",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "i64",
        Kind::Uint32 | Kind::Fixed32 => "u32",
        Kind::Uint64 | Kind::Fixed64 => "u64",
        Kind::String => "String",
        Kind::Bytes => "::prost::bytes::Bytes",
        Kind::Message(message) => return message.name().to_owned(),
    }
    .to_owned()
}
