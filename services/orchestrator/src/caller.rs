//! Who asks, from where and how: what the API knows of a call and the audit log keeps. The application takes it with
//! every call that changes something, so that no change is without its entry.

use agentforge_access::{Principal, Role};
use agentforge_audit::{Entry, OK, ORCHESTRATOR};
use agentforge_message_id::OperationId;
use agentforge_proto::time::Micros;
use std::net::IpAddr;
use std::sync::Arc;

/// The surface of the REST API.
pub const REST: &str = "rest";
/// The surface of the gRPC API.
pub const GRPC: &str = "grpc";
/// The surface of what an operation does after the call that started it.
pub const OPERATION: &str = "operation";

/// One call's caller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    name: String,
    role: &'static str,
    address: Option<IpAddr>,
    request_id: Option<String>,
    surface: &'static str,
    operation: &'static str,
    /// The operation that carries it out.
    under: Option<OperationId>,
}

/// What two calls must have in common to share an entry.
pub(crate) type Likeness<'c> = (&'c str, &'static str, Option<IpAddr>, &'static str, &'static str, Option<OperationId>);

impl Caller {
    /// Of a call that was admitted.
    pub fn new(
        principal: &Principal,
        address: Option<IpAddr>,
        request_id: Option<String>,
        surface: &'static str,
        operation: &'static str,
    ) -> Self {
        let (name, role) = (principal.name.as_ref().to_owned(), principal.role.as_str());
        Self(Arc::new(Parts { name, role, address, request_id, surface, operation, under: None }))
    }

    /// The orchestrator itself, for what follows from a call that was made before.
    pub fn itself(operation: &'static str) -> Self {
        let principal = Principal { name: ORCHESTRATOR.into(), ..Principal::anyone() };
        Self::new(&principal, None, None, ORCHESTRATOR, operation)
    }

    /// The one who started an operation, for what it does without its caller. The role, the address and the request are in the
    /// entry of its start.
    pub fn of_operation(started_by: Option<&str>, operation: &'static str, id: OperationId) -> Self {
        let name = started_by.unwrap_or(ORCHESTRATOR).to_owned();
        let (address, request_id, role) = (None, None, "");
        Self(Arc::new(Parts { name, role, address, request_id, surface: OPERATION, operation, under: Some(id) }))
    }

    /// The name of the caller's token: who submitted, who cancelled.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it may do; `None` for what an operation does.
    pub(crate) fn role(&self) -> Option<Role> {
        Role::from_word(self.0.role)
    }

    /// What was asked, by its name in the table of operations.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The operation that carries it out, where that is not the call itself.
    pub(crate) fn under(&self) -> Option<OperationId> {
        self.0.under
    }

    /// All but the request.
    pub(crate) fn likeness(&self) -> Likeness<'_> {
        (&self.0.name, self.0.role, self.0.address, self.0.surface, self.0.operation, self.0.under)
    }

    /// An entry of what is being done as asked.
    pub fn entry(&self) -> Entry {
        let p = &*self.0;
        Entry {
            id: Entry::new_id(),
            at: Micros::now(),
            surface: p.surface.into(),
            principal: p.name.clone(),
            role: p.role.into(),
            address: p.address.map(|a| a.to_canonical().to_string()),
            request_id: p.request_id.clone(),
            operation: p.operation.into(),
            object_kind: String::new(),
            object_id: None,
            outcome: OK.into(),
            calls: 1,
            detail: None,
        }
    }
}
