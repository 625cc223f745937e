//! The Schedules service.

use super::{Call, convert};
use crate::api::trace;
use crate::app::{App, ScheduleInput};
use crate::error::Error;
use crate::model::Schedule;
use agentforge_proto::time::Micros;
use agentforge_proto::v1 as pb;
use agentforge_proto::v1::schedules_server::Schedules;
use tonic::{Request, Response, Status};

pub(super) struct Service {
    pub(super) app: App,
}

fn told(call: &Call, schedule: Result<Schedule, Error>) -> Result<Response<pb::Schedule>, Status> {
    schedule.and_then(convert::schedule).map(Response::new).map_err(|e| call.refuse(&e))
}

#[tonic::async_trait]
impl Schedules for Service {
    async fn create_schedule(
        &self,
        request: Request<pb::CreateScheduleRequest>,
    ) -> Result<Response<pb::Schedule>, Status> {
        let call = Call::of("CreateSchedule", &request);
        let r = request.into_inner();
        let job =
            convert::submit_input(r.job.unwrap_or_default(), trace::Origin::default()).map_err(|e| call.refuse(&e))?;
        let input = ScheduleInput { name: r.name, cron: r.cron, time_zone: r.time_zone, job, paused: r.paused };
        told(&call, self.app.create_schedule(input).await)
    }

    async fn get_schedule(&self, request: Request<pb::GetScheduleRequest>) -> Result<Response<pb::Schedule>, Status> {
        let call = Call::of("GetSchedule", &request);
        told(&call, self.app.schedule(&request.get_ref().id).await)
    }

    async fn list_schedules(
        &self,
        request: Request<pb::ListSchedulesRequest>,
    ) -> Result<Response<pb::ListSchedulesResponse>, Status> {
        let call = Call::of("ListSchedules", &request);
        let r = request.into_inner();
        let page = self.app.schedules(r.limit, Some(&r.cursor)).await.map_err(|e| call.refuse(&e))?;
        let schedules =
            page.items.into_iter().map(convert::schedule).collect::<Result<_, _>>().map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::ListSchedulesResponse { schedules, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn pause_schedule(
        &self,
        request: Request<pb::PauseScheduleRequest>,
    ) -> Result<Response<pb::Schedule>, Status> {
        let call = Call::of("PauseSchedule", &request);
        told(&call, self.app.set_schedule_paused(&request.get_ref().id, true).await)
    }

    async fn resume_schedule(
        &self,
        request: Request<pb::ResumeScheduleRequest>,
    ) -> Result<Response<pb::Schedule>, Status> {
        let call = Call::of("ResumeSchedule", &request);
        told(&call, self.app.set_schedule_paused(&request.get_ref().id, false).await)
    }

    async fn delete_schedule(
        &self,
        request: Request<pb::DeleteScheduleRequest>,
    ) -> Result<Response<pb::DeleteScheduleResponse>, Status> {
        let call = Call::of("DeleteSchedule", &request);
        self.app.delete_schedule(&request.get_ref().id).await.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::DeleteScheduleResponse {}))
    }

    async fn list_next_runs(
        &self,
        request: Request<pb::ListNextRunsRequest>,
    ) -> Result<Response<pb::ListNextRunsResponse>, Status> {
        let call = Call::of("ListNextRuns", &request);
        let r = request.into_inner();
        let runs = self.app.next_runs(&r.id, r.limit).await.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::ListNextRunsResponse { runs: runs.into_iter().map(Micros::to_proto).collect() }))
    }
}
