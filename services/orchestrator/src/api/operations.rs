//! The one table of what callers can do: each operation, its REST route, its RPC and the role it needs.
//!
//! Both guards read it and let nothing pass that is not in it; a test walks all routes and RPCs.

use super::auth::Role;
use crate::error::{Code, Error};
use agentforge_access::Principal;

/// One thing that a caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Name; also the `operationId` of the OpenAPI document.
    pub name: &'static str,
    /// What the caller's token must allow.
    pub role: Role,
    /// HTTP method in capitals, such as `POST`.
    pub method: &'static str,
    /// REST route, as axum and OpenAPI write it.
    pub route: &'static str,
    /// gRPC path; `None` where only REST has it.
    pub rpc: Option<&'static str>,
}

/// Operations that a caller with scopes may use: the application limits them to its jobs. All others are about the whole
/// installation, and what is new is among them until it is limited, too.
const WITHIN_SCOPES: &[&str] = &[
    "SubmitJob",
    "SubmitJobs",
    "ListJobs",
    "GetJob",
    "ListAttempts",
    "WatchJob",
    "GetJobOutput",
    "CancelJob",
    "CancelJobs",
    "RetryJob",
    "RetryJobs",
    "ListDeadLetters",
    "GetDeadLetter",
    "FindJobs",
    "ListQueues",
    "PauseQueue",
    "ResumeQueue",
    "CreateSchedule",
    "ListSchedules",
    "GetSchedule",
    "DeleteSchedule",
    "UpdateSchedule",
    "RunSchedule",
    "PauseSchedule",
    "ResumeSchedule",
    "ListNextRuns",
];

impl Operation {
    /// Refuses a caller with scopes where the operation is about everything; gives back others.
    ///
    /// # Errors
    /// `permission_denied`, with the caller.
    pub fn within_reach(&self, caller: Principal) -> Result<Principal, (Error, Option<Principal>)> {
        if caller.scopes.is_all() || WITHIN_SCOPES.contains(&self.name) {
            return Ok(caller);
        }
        let (operation, name, scopes) = (self.name, &caller.name, &caller.scopes);
        let message = format!("{operation} is about the whole installation; the token {name} is limited to {scopes}");
        Err((Error::new(Code::PermissionDenied, message), Some(caller)))
    }
}

const fn op(
    name: &'static str,
    role: Role,
    method: &'static str,
    route: &'static str,
    rpc: Option<&'static str>,
) -> Operation {
    Operation { name, role, method, route, rpc }
}

use Role::{Admin, Operator, Read, Submit};

/// Every operation that asks for a role.
pub const OPERATIONS: &[Operation] = &[
    op("SubmitJob", Submit, "POST", "/v1/jobs", Some("/agentforge.v1.Jobs/SubmitJob")),
    op("SubmitJobs", Submit, "POST", "/v1/jobs:batch", Some("/agentforge.v1.Jobs/SubmitJobs")),
    op("ListJobs", Read, "GET", "/v1/jobs", Some("/agentforge.v1.Jobs/ListJobs")),
    op("GetJob", Read, "GET", "/v1/jobs/{id}", Some("/agentforge.v1.Jobs/GetJob")),
    op("ListAttempts", Read, "GET", "/v1/jobs/{id}/attempts", Some("/agentforge.v1.Jobs/ListAttempts")),
    op("WatchJob", Read, "GET", "/v1/jobs/{id}/watch", Some("/agentforge.v1.Jobs/WatchJob")),
    op("GetJobOutput", Read, "GET", "/v1/jobs/{id}/output", Some("/agentforge.v1.Jobs/GetJobOutput")),
    op("CancelJob", Submit, "POST", "/v1/jobs/{id}/cancel", Some("/agentforge.v1.Jobs/CancelJob")),
    op("RetryJob", Submit, "POST", "/v1/jobs/{id}/retry", Some("/agentforge.v1.Jobs/RetryJob")),
    op("CancelJobs", Operator, "POST", "/v1/jobs:cancel", Some("/agentforge.v1.Jobs/CancelJobs")),
    op("RetryJobs", Operator, "POST", "/v1/jobs:retry", Some("/agentforge.v1.Jobs/RetryJobs")),
    op("ListDeadLetters", Read, "GET", "/v1/dead-letters", Some("/agentforge.v1.Jobs/ListDeadLetters")),
    op(
        "RedriveDeadLetters",
        Operator,
        "POST",
        "/v1/dead-letters/redrive",
        Some("/agentforge.v1.Jobs/RedriveDeadLetters"),
    ),
    op("GetDeadLetter", Read, "GET", "/v1/dead-letters/{id}", Some("/agentforge.v1.Jobs/GetDeadLetter")),
    op(
        "DiscardDeadLetters",
        Operator,
        "POST",
        "/v1/dead-letters/discard",
        Some("/agentforge.v1.Jobs/DiscardDeadLetters"),
    ),
    op("ListOperations", Read, "GET", "/v1/operations", Some("/agentforge.v1.Operations/ListOperations")),
    op("GetOperation", Read, "GET", "/v1/operations/{id}", Some("/agentforge.v1.Operations/GetOperation")),
    op(
        "CancelOperation",
        Operator,
        "POST",
        "/v1/operations/{id}/cancel",
        Some("/agentforge.v1.Operations/CancelOperation"),
    ),
    op("FindJobs", Read, "GET", "/v1/jobs:find", Some("/agentforge.v1.Jobs/FindJobs")),
    op("GetJobCounts", Read, "GET", "/v1/jobs:counts", Some("/agentforge.v1.Jobs/GetJobCounts")),
    op("PauseQueue", Operator, "POST", "/v1/queues/{name}/pause", Some("/agentforge.v1.Jobs/PauseQueue")),
    op("ResumeQueue", Operator, "POST", "/v1/queues/{name}/resume", Some("/agentforge.v1.Jobs/ResumeQueue")),
    op("ListQueues", Read, "GET", "/v1/queues", Some("/agentforge.v1.Jobs/ListQueues")),
    op("ListParkedMessages", Read, "GET", "/v1/outbox/parked", None),
    op("RetryParkedMessages", Operator, "POST", "/v1/outbox/parked/retry", None),
    op("DiscardParkedMessages", Operator, "POST", "/v1/outbox/parked/discard", None),
    op("CreateSchedule", Admin, "POST", "/v1/schedules", Some("/agentforge.v1.Schedules/CreateSchedule")),
    op("ListSchedules", Read, "GET", "/v1/schedules", Some("/agentforge.v1.Schedules/ListSchedules")),
    op("GetSchedule", Read, "GET", "/v1/schedules/{id}", Some("/agentforge.v1.Schedules/GetSchedule")),
    op("DeleteSchedule", Admin, "DELETE", "/v1/schedules/{id}", Some("/agentforge.v1.Schedules/DeleteSchedule")),
    op("UpdateSchedule", Admin, "PATCH", "/v1/schedules/{id}", Some("/agentforge.v1.Schedules/UpdateSchedule")),
    op("RunSchedule", Operator, "POST", "/v1/schedules/{id}/run", Some("/agentforge.v1.Schedules/RunSchedule")),
    op("PauseSchedule", Operator, "POST", "/v1/schedules/{id}/pause", Some("/agentforge.v1.Schedules/PauseSchedule")),
    op(
        "ResumeSchedule",
        Operator,
        "POST",
        "/v1/schedules/{id}/resume",
        Some("/agentforge.v1.Schedules/ResumeSchedule"),
    ),
    op("ListNextRuns", Read, "GET", "/v1/schedules/{id}/next-runs", Some("/agentforge.v1.Schedules/ListNextRuns")),
    op("ListAgents", Read, "GET", "/v1/agents", Some("/agentforge.v1.Agents/ListAgents")),
    op("GetAgent", Read, "GET", "/v1/agents/{id}", Some("/agentforge.v1.Agents/GetAgent")),
    op("ListSites", Read, "GET", "/v1/sites", None),
    op("ListSlos", Read, "GET", "/v1/slo", None),
    op("ListAuditEntries", Admin, "GET", "/v1/audit", Some("/agentforge.v1.Audit/ListAuditEntries")),
    op("ListAuditChains", Admin, "GET", "/v1/audit/chains", Some("/agentforge.v1.Audit/ListAuditChains")),
    op("ReadAuditChain", Admin, "GET", "/v1/audit/chains/{chain}", Some("/agentforge.v1.Audit/ReadAuditChain")),
];

/// REST routes that ask for no token: they hold no data of callers.
pub const OPEN_ROUTES: &[&str] = &["/", "/docs", "/openapi.json"];

/// gRPC services that ask for no token: health. Reflection asks for one that may read.
pub const OPEN_SERVICES: &[&str] = &["/grpc.health.v1.Health/"];

/// What a guard knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Asks for no token.
    Open,
    /// Asks for the operation's role.
    Guarded(&'static Operation),
    /// The route exists, but not with this method.
    MethodUnknown,
    /// Not in the table: refused.
    Unknown,
}

/// Looks a REST request up by its matched route.
pub fn of_route(method: &http::Method, route: &str) -> Access {
    // HEAD is GET without the body.
    let method = if method == http::Method::HEAD { "GET" } else { method.as_str() };
    if OPEN_ROUTES.contains(&route) {
        return if method == "GET" { Access::Open } else { Access::MethodUnknown };
    }
    let mut access = Access::Unknown;
    for operation in OPERATIONS.iter().filter(|o| o.route == route) {
        if operation.method == method {
            return Access::Guarded(operation);
        }
        access = Access::MethodUnknown;
    }
    access
}

/// Methods of a REST route, for the `Allow` header.
pub fn methods_of(route: &str) -> String {
    let mut methods: Vec<&str> = OPERATIONS.iter().filter(|o| o.route == route).map(|o| o.method).collect();
    if methods.is_empty() {
        methods.push("GET");
    }
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.join(", ")
}

/// Looks a gRPC request up by its path.
pub fn of_rpc(path: &str) -> Access {
    if OPEN_SERVICES.iter().any(|s| path.starts_with(s)) {
        return Access::Open;
    }
    OPERATIONS.iter().find(|o| o.rpc == Some(path)).map_or(Access::Unknown, Access::Guarded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use std::collections::BTreeSet;

    /// Every RPC of the contract is in the table, and the table has no others.
    #[test]
    fn each_rpc_of_the_contract_is_guarded() {
        let files = prost_types::FileDescriptorSet::decode(agentforge_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut rpcs = BTreeSet::new();
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    rpcs.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let table: BTreeSet<_> = OPERATIONS.iter().filter_map(|o| o.rpc).map(str::to_owned).collect();
        assert_eq!(rpcs, table);
        for o in OPERATIONS {
            assert!(o.rpc.is_none_or(|r| r.ends_with(&format!("/{}", o.name))), "{o:?}");
        }
    }

    #[test]
    fn a_caller_with_scopes_is_kept_to_what_can_be_limited() {
        for name in WITHIN_SCOPES {
            assert!(OPERATIONS.iter().any(|o| o.name == *name), "{name} is no operation");
        }
        let scopes = agentforge_access::Scopes::parse(["queue:a"]).unwrap();
        let caller = Principal { name: "ci".into(), role: Role::Admin, scopes };
        for o in OPERATIONS {
            assert_eq!(o.within_reach(caller.clone()).is_ok(), WITHIN_SCOPES.contains(&o.name), "{}", o.name);
            assert!(o.within_reach(Principal::anyone()).is_ok(), "{}", o.name);
        }
    }

    #[test]
    fn what_changes_something_needs_more_than_reading() {
        for o in OPERATIONS {
            // The audit log names every caller: reading it is for admins.
            let is_open_read = o.method == "GET" && !o.route.starts_with("/v1/audit");
            assert_eq!(is_open_read, o.role == Role::Read, "{o:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        let get = http::Method::GET;
        assert_eq!(of_route(&get, "/v1/secrets"), Access::Unknown);
        assert_eq!(of_route(&http::Method::PUT, "/v1/jobs"), Access::MethodUnknown);
        assert_eq!(of_route(&http::Method::POST, "/openapi.json"), Access::MethodUnknown);
        assert_eq!(of_route(&http::Method::HEAD, "/docs"), Access::Open);
        assert!(matches!(of_route(&http::Method::HEAD, "/v1/jobs"), Access::Guarded(o) if o.name == "ListJobs"));
        assert_eq!(of_rpc("/agentforge.v1.Jobs/Nothing"), Access::Unknown);
        assert_eq!(of_rpc("/grpc.health.v1.Health/Check"), Access::Open);
        assert_eq!(methods_of("/v1/jobs"), "POST, GET, HEAD");
    }
}
