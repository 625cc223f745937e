//! The Operations service.

use super::call::Call;
use super::convert;
use crate::app::App;
use agentforge_proto::v1 as pb;
use agentforge_proto::v1::operations_server::Operations;
use tonic::{Request, Response, Status};

pub(super) struct Service {
    pub(super) app: App,
}

#[tonic::async_trait]
impl Operations for Service {
    async fn list_operations(
        &self,
        request: Request<pb::ListOperationsRequest>,
    ) -> Result<Response<pb::ListOperationsResponse>, Status> {
        let call = Call::of("ListOperations", &request);
        let r = request.into_inner();
        let page = call.app(&self.app).operations(r.limit, Some(&r.cursor)).await.map_err(|e| call.refuse(&e))?;
        let operations = page.items.into_iter().map(convert::operation).collect();
        Ok(Response::new(pb::ListOperationsResponse { operations, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn get_operation(
        &self,
        request: Request<pb::GetOperationRequest>,
    ) -> Result<Response<pb::Operation>, Status> {
        let call = Call::of("GetOperation", &request);
        let operation = call.app(&self.app).operation(&request.get_ref().id).await;
        operation.map(|o| Response::new(convert::operation(o))).map_err(|e| call.refuse(&e))
    }

    async fn cancel_operation(
        &self,
        request: Request<pb::CancelOperationRequest>,
    ) -> Result<Response<pb::Operation>, Status> {
        let call = Call::of("CancelOperation", &request);
        let operation = call.app(&self.app).cancel_operation(call.caller()?, &request.get_ref().id).await;
        operation.map(|o| Response::new(convert::operation(o))).map_err(|e| call.refuse(&e))
    }
}
