//! The Audit service.

use super::call::Call;
use super::convert::{self, given};
use crate::app::{App, AuditQuery};
use crate::error::Error;
use agentforge_proto::time::Micros;
use agentforge_proto::v1 as pb;
use agentforge_proto::v1::audit_server::Audit;
use tonic::{Request, Response, Status};

pub(super) struct Service {
    pub(super) app: App,
}

#[tonic::async_trait]
impl Audit for Service {
    async fn list_audit_entries(
        &self,
        request: Request<pb::ListAuditEntriesRequest>,
    ) -> Result<Response<pb::ListAuditEntriesResponse>, Status> {
        let call = Call::of("ListAuditEntries", &request);
        let r = request.into_inner();
        let query = AuditQuery {
            principal: given(r.principal),
            operation: given(r.operation),
            object: given(r.object),
            outcome: given(r.outcome),
            since: convert::moment!("since", r.since).map_err(|e| call.refuse(&e))?,
            until: convert::moment!("until", r.until).map_err(|e| call.refuse(&e))?,
            limit: r.limit,
            cursor: given(r.cursor),
        };
        let page = self.app.audit(query).await.map_err(|e| call.refuse(&e))?;
        let entries = page.items.into_iter().map(|row| row.chained.into()).collect();
        Ok(Response::new(pb::ListAuditEntriesResponse { entries, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn list_audit_chains(
        &self,
        request: Request<pb::ListAuditChainsRequest>,
    ) -> Result<Response<pb::ListAuditChainsResponse>, Status> {
        let call = Call::of("ListAuditChains", &request);
        let chains = self.app.audit_chains().await.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::ListAuditChainsResponse { chains: chains.into_iter().map(Into::into).collect() }))
    }

    async fn read_audit_chain(
        &self,
        request: Request<pb::ReadAuditChainRequest>,
    ) -> Result<Response<pb::ReadAuditChainResponse>, Status> {
        let call = Call::of("ReadAuditChain", &request);
        let r = request.into_inner();
        let entries = self.app.audit_chain(r.chain, r.after, r.limit).await.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::ReadAuditChainResponse { entries: entries.into_iter().map(Into::into).collect() }))
    }
}
