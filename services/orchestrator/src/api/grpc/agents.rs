//! The Agents service.

use super::call::Call;
use super::convert;
use crate::app::App;
use agentforge_proto::time::Micros;
use agentforge_proto::v1 as pb;
use agentforge_proto::v1::agents_server::Agents;
use tonic::{Request, Response, Status};

pub(super) struct Service {
    pub(super) app: App,
}

#[tonic::async_trait]
impl Agents for Service {
    async fn get_agent(&self, request: Request<pb::GetAgentRequest>) -> Result<Response<pb::Agent>, Status> {
        let call = Call::of("GetAgent", &request);
        let agent = call.app(&self.app).agent(&request.get_ref().id).await.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(convert::agent(agent, Micros::now())))
    }

    async fn list_agents(
        &self,
        request: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        let call = Call::of("ListAgents", &request);
        let r = request.into_inner();
        let status = convert::presence(r.status).map_err(|e| call.refuse(&e))?;
        let page = call
            .app(&self.app)
            .agents(Some(&r.mission), r.limit, Some(&r.cursor))
            .await
            .map_err(|e| call.refuse(&e))?;
        let now = Micros::now();
        let agents = page.items.into_iter().filter(|a| status.is_none_or(|s| a.presence(now) == s));
        let agents = agents.map(|a| convert::agent(a, now)).collect();
        Ok(Response::new(pb::ListAgentsResponse { agents, next_cursor: page.next.unwrap_or_default() }))
    }
}
