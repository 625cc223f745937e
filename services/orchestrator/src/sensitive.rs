//! Payloads that are marked sensitive: of which tools and queues, who may see them, and what others see instead. Pure.

use crate::admission::JobRequest;
use crate::model::{AttemptRecord, DeadLetter, Job, JobError, Schedule};
use agentforge_access::{Kind, Role, SCOPES_MAX, Scopes};
use agentforge_config::{Reader, Setting};
use agentforge_message_id::Queue;

const AUDIT_SENSITIVE_TOOLS: Setting = Setting::new(
    "AUDIT_SENSITIVE_TOOLS",
    None,
    "tools, comma separated, such as payroll,kyc-*; together with AUDIT_SENSITIVE_QUEUES at most 64",
    "Tools whose jobs have sensitive payloads: the audit log has each read of their args, results, errors and log tails, and viewers do not see them without a scope for the tool. A * at the end of a name stands for any rest.",
);
const AUDIT_SENSITIVE_QUEUES: Setting = Setting::new(
    "AUDIT_SENSITIVE_QUEUES",
    None,
    "queues, comma separated, such as hr,legal-*; together with AUDIT_SENSITIVE_TOOLS at most 64",
    "Queues whose jobs have sensitive payloads, as AUDIT_SENSITIVE_TOOLS.",
);

/// Settings of sensitive payloads.
pub const SETTINGS: &[Setting] = &[AUDIT_SENSITIVE_TOOLS, AUDIT_SENSITIVE_QUEUES];

/// What is shown of text that the caller may not see.
const HIDDEN: &str = "redacted: this payload is marked sensitive";
/// What is shown of JSON that the caller may not see.
const HIDDEN_JSON: &str = r#"{"redacted":"this payload is marked sensitive"}"#;

/// The tools and queues whose jobs have sensitive payloads. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Marks(Scopes);

impl Marks {
    /// By the settings; faults stay in the reader.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let mut words = Vec::new();
        for (setting, kind) in [(&AUDIT_SENSITIVE_TOOLS, Kind::Tool), (&AUDIT_SENSITIVE_QUEUES, Kind::Queue)] {
            let text = r.opt::<String>(setting).unwrap_or_default();
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let word = format!("{}:{name}", kind.as_str());
                if Scopes::parse([word.as_str()]).is_ok() {
                    words.push(word);
                } else {
                    let rule = "expected letters, digits, dots, hyphens, underscores, and a * at the end only";
                    r.fault(setting.key, format!("has {name:?}; {rule}"));
                }
            }
        }
        if words.len() > SCOPES_MAX {
            let (key, other) = (AUDIT_SENSITIVE_TOOLS.key, AUDIT_SENSITIVE_QUEUES.key);
            r.fault(key, format!("and {other} have {} names; at most {SCOPES_MAX} are allowed", words.len()));
        }
        Self(Scopes::parse(words.iter().map(String::as_str)).unwrap_or_default())
    }

    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        self.0.is_all()
    }

    /// Whether the payload of a job of this queue and tool is sensitive.
    pub fn has(&self, queue: &str, tool: &str) -> bool {
        self.0.names(Kind::Tool, tool) || self.0.names(Kind::Queue, queue)
    }

    /// Whether a caller with this role and these scopes sees the payload of such a job. A viewer does if its scopes name what
    /// is marked.
    pub fn shows(&self, role: Option<Role>, scopes: &Scopes, queue: &str, tool: &str) -> bool {
        let named = [(Kind::Tool, tool), (Kind::Queue, queue)];
        role.is_some_and(|role| role.includes(Role::Submit))
            || named.into_iter().all(|(kind, name)| !self.0.names(kind, name) || scopes.names(kind, name))
    }
}

/// Something whose payload may be sensitive.
pub trait Payload {
    /// What it is, as the audit log calls it.
    const KIND: &'static str;
    /// Its id.
    fn id(&self) -> String;
    /// The queue and the tool of its job.
    fn place(&self) -> (String, String);
    /// Takes the payload out, and leaves a word in its place.
    fn hide(&mut self);
}

impl Payload for Job {
    const KIND: &'static str = "job";

    fn id(&self) -> String {
        self.spec.id.to_string()
    }

    fn place(&self) -> (String, String) {
        (self.spec.queue.to_string(), self.spec.tool.to_string())
    }

    fn hide(&mut self) {
        HIDDEN_JSON.clone_into(&mut self.spec.args);
        // Where a large result is kept, and its digest, say something about it.
        let is_kept = self.output_ref.take().is_some();
        self.result = (is_kept || self.result.is_some()).then(|| HIDDEN_JSON.to_owned());
        self.error.iter_mut().for_each(hide_error);
    }
}

impl Payload for DeadLetter {
    const KIND: &'static str = "dead_letter";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn place(&self) -> (String, String) {
        (self.queue.clone(), self.tool.clone())
    }

    fn hide(&mut self) {
        hide_error(&mut self.error);
    }
}

impl Payload for Schedule {
    const KIND: &'static str = "schedule";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn place(&self) -> (String, String) {
        let template = serde_json::from_str::<JobRequest>(&self.template).unwrap_or_default();
        let queue = template.queue.filter(|queue| !queue.is_empty());
        (queue.unwrap_or_else(|| Queue::default().as_str().to_owned()), template.tool)
    }

    fn hide(&mut self) {
        let template = serde_json::from_str::<JobRequest>(&self.template).unwrap_or_default();
        let hidden = JobRequest { args: HIDDEN_JSON.to_owned(), ..template };
        self.template = serde_json::to_string(&hidden).expect("it holds strings and numbers only");
    }
}

fn hide_error(error: &mut JobError) {
    for text in [&mut error.message, &mut error.log_tail].into_iter().filter(|text| !text.is_empty()) {
        HIDDEN.clone_into(text);
    }
}

/// Takes out what a try says of its job's payload.
pub fn hide_attempt(attempt: &mut AttemptRecord) {
    attempt.error.iter_mut().for_each(hide_error);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn marks(tools: &str, queues: &str) -> Result<Marks, String> {
        let set = [("AUDIT_SENSITIVE_TOOLS", tools), ("AUDIT_SENSITIVE_QUEUES", queues)];
        let source: BTreeMap<String, String> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&source);
        let marks = Marks::read(&mut reader);
        reader.finish().map(|_| marks).map_err(|faults| faults.to_string())
    }

    #[test]
    fn tools_and_queues_are_marked_by_name_or_by_its_beginning() {
        let marked = marks("payroll, kyc-*", "hr").unwrap();
        for (queue, tool, is) in [
            ("default", "payroll", true),
            ("default", "payroll2", false),
            ("default", "kyc-eu", true),
            ("hr", "echo", true),
            ("default", "echo", false),
            ("payroll", "hr", false),
        ] {
            assert_eq!(marked.has(queue, tool), is, "{queue} {tool}");
        }
        assert!(marks("", "").unwrap().is_empty() && !marked.is_empty());
        assert!(!Marks::default().has("default", "echo"));
        assert!(marks("*", "").unwrap().has("default", "echo"));
    }

    #[test]
    fn what_is_no_name_or_too_much_is_a_fault() {
        for wrong in ["a b", "a*b", "q:a", "é"] {
            let fault = marks("", wrong).unwrap_err();
            assert!(fault.contains("AUDIT_SENSITIVE_QUEUES"), "{fault}");
        }
        let many = vec!["a"; 40].join(",");
        assert!(marks(&many, &many).unwrap_err().contains("64"));
    }

    #[test]
    fn a_viewer_sees_what_its_scopes_name() {
        let marked = marks("payroll", "hr").unwrap();
        let scopes = |text: &str| Scopes::parse(text.split_whitespace()).unwrap();
        for (role, given, queue, tool, sees) in [
            (Role::Read, "", "default", "payroll", false),
            (Role::Read, "tool:payroll", "default", "payroll", true),
            (Role::Read, "tool:pay*", "default", "payroll", true),
            (Role::Read, "queue:default", "default", "payroll", false),
            (Role::Read, "tool:payroll", "hr", "payroll", false),
            (Role::Read, "tool:payroll queue:hr", "hr", "payroll", true),
            (Role::Read, "", "default", "echo", true),
            (Role::Submit, "", "hr", "payroll", true),
            (Role::Admin, "", "hr", "payroll", true),
        ] {
            assert_eq!(marked.shows(Some(role), &scopes(given), queue, tool), sees, "{role:?} {given} {queue} {tool}");
        }
        assert!(!marked.shows(None, &Scopes::ALL, "hr", "payroll"));
    }
}
