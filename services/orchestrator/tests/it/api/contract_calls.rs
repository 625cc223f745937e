//! The calls of the contract, as the OpenAPI document and the proto files have them, with messages that make them succeed. A
//! call that is new there is among them without being named here.

use super::server::Server;
use agentforge_proto::v1 as pb;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};
use reqwest::Method;
use serde_json::{Value, json};

/// What a method that only reads begins with.
const READS: [&str; 5] = ["Get", "List", "Watch", "Find", "Read"];

/// One call of the contract.
#[derive(Debug)]
pub struct Call {
    /// Its name there.
    pub operation: String,
    /// Whether it names what it is about.
    pub has_id: bool,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Rest { method: Method, route: String },
    Grpc { path: String, input: String },
}

/// Those of the OpenAPI document that change something.
pub fn rest_calls() -> Vec<Call> {
    rest(|method| method != Method::GET)
}

/// Those of it that read.
pub fn rest_reads() -> Vec<Call> {
    rest(|method| method == Method::GET)
}

fn rest(is_wanted: impl Fn(&Method) -> bool) -> Vec<Call> {
    let document: Value = serde_json::from_str(&agentforge_orchestrator::api::rest::openapi_json()).unwrap();
    let mut calls = Vec::new();
    for (route, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            if !is_wanted(&method) {
                continue;
            }
            let operation = operation["operationId"].as_str().unwrap().to_owned();
            let way = Way::Rest { method, route: route.clone() };
            calls.push(Call { operation, has_id: route.contains("{id}"), way });
        }
    }
    calls
}

/// Those of the proto files that change something.
pub fn grpc_calls() -> Vec<Call> {
    grpc(false)
}

/// Those of them that read.
pub fn grpc_reads() -> Vec<Call> {
    grpc(true)
}

fn grpc(reads: bool) -> Vec<Call> {
    let files = FileDescriptorSet::decode(agentforge_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut calls = Vec::new();
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                if READS.iter().any(|verb| method.name().starts_with(verb)) != reads {
                    continue;
                }
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let input = method.input_type().to_owned();
                let has = |name| message(&files, &input).field.iter().any(|f| f.name() == name);
                // The id of a submission is one that the caller chooses.
                let has_id = has("id") && !has("tool");
                calls.push(Call { operation: method.name().to_owned(), has_id, way: Way::Grpc { path, input } });
            }
        }
    }
    calls
}

impl Call {
    /// Makes it; the answer of REST.
    pub async fn make(&self, server: &Server, token: &str, request_id: &str, id: Option<&str>) -> Value {
        serde_json::from_str(&self.text(server, token, request_id, id).await).unwrap_or_default()
    }

    /// Makes it; what the answer has as text, of gRPC the messages' bytes.
    pub async fn text(&self, server: &Server, token: &str, request_id: &str, id: Option<&str>) -> String {
        let headers = [("authorization", token), ("x-request-id", request_id)];
        match &self.way {
            Way::Rest { method, route } => {
                let path = route.replace("{id}", id.unwrap_or_default()).replace("{name}", "audited");
                let text = if method == Method::GET { String::new() } else { body(&self.operation).to_string() };
                server.send(method.clone(), &path, &headers, &text).await.text().await.unwrap()
            }
            Way::Grpc { path, input } => {
                let files = FileDescriptorSet::decode(agentforge_proto::FILE_DESCRIPTOR_SET).unwrap();
                let reads = READS.iter().any(|verb| self.operation.starts_with(verb));
                let message = encoded(&files, input, id, reads);
                let mut framed = vec![0];
                framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
                framed.extend(message);
                let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
                let mut request = client.post(format!("{}{path}", server.grpc)).body(framed);
                request = request.header("content-type", "application/grpc").header("te", "trailers");
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let answer = request.send().await.unwrap();
                // Where the call has no answer but a status, it is here.
                let status = answer.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
                let status = status.map(|status| format!("grpc-status: {status}")).unwrap_or_default();
                status + &String::from_utf8_lossy(&answer.bytes().await.unwrap())
            }
        }
    }
}

fn name() -> String {
    format!("nightly {}", uuid::Uuid::now_v7())
}

/// A body with which the operation is done. What is not known here takes an empty one, or is refused.
fn body(operation: &str) -> Value {
    match operation {
        "SubmitJob" => json!({"tool": "echo", "args": {"password": "hunter2-hunter2"}}),
        "SubmitJobs" => json!([{"tool": "echo"}, {"tool": "echo"}]),
        "RetryJobs" => json!({"states": ["cancelled"]}),
        "CancelJobs" => json!({"states": ["queued"]}),
        "RetryParkedMessages" | "DiscardParkedMessages" => json!({"all": true}),
        "CreateSchedule" => {
            let job = json!({"tool": "echo", "args": {"password": "hunter2-hunter2"}});
            json!({"name": name(), "cron": "0 3 * * *", "job": job})
        }
        _ => json!({}),
    }
}

fn message<'f>(files: &'f FileDescriptorSet, full_name: &str) -> &'f DescriptorProto {
    let name = full_name.rsplit('.').next().unwrap();
    files.file.iter().flat_map(|file| &file.message_type).find(|m| m.name() == name).unwrap()
}

/// A message with which the method is done: those of its fields that we know by their names. A read has no filters.
fn encoded(files: &FileDescriptorSet, full_name: &str, id: Option<&str>, reads: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in &message(files, full_name).field {
        let mut put = |data: &[u8]| {
            // Length-delimited, which all of these are.
            varint(&mut bytes, (u64::try_from(field.number()).unwrap() << 3) | 2);
            varint(&mut bytes, data.len() as u64);
            bytes.extend(data);
        };
        match field.name() {
            "id" => _ = id.map(|id| put(id.as_bytes())),
            _ if reads => {}
            "queue" if full_name.contains("Queue") => put(b"audited"),
            "tool" => put(b"echo"),
            "args" => put(br#"{"password": "hunter2-hunter2"}"#),
            "name" => put(name().as_bytes()),
            "cron" => put(b"0 3 * * *"),
            "job" => put(&encoded(files, field.type_name(), None, reads)),
            "states" if full_name.contains("Cancel") => put(&[u8::try_from(pb::JobState::Queued as i32).unwrap()]),
            "states" => put(&[u8::try_from(pb::JobState::Cancelled as i32).unwrap()]),
            _ => {}
        }
    }
    bytes
}

fn varint(bytes: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        bytes.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
}
