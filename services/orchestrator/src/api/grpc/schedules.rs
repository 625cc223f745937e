//! The Schedules service.

use super::call::Call;
use super::convert;
use crate::api::trace;
use crate::app::{App, ScheduleChange, ScheduleInput};
use crate::caller::Caller;
use crate::error::Error;
use crate::model::Schedule;
use agentforge_proto::time::{Micros, duration_from_proto};
use agentforge_proto::v1 as pb;
use agentforge_proto::v1::schedules_server::Schedules;
use tonic::{Request, Response, Status};

pub(super) struct Service {
    pub(super) app: App,
}

fn answer(call: &Call, schedule: Result<Schedule, Error>) -> Result<Response<pb::Schedule>, Status> {
    schedule.and_then(convert::schedule).map(Response::new).map_err(|e| call.refuse(&e))
}

impl Service {
    async fn create(&self, call: &Call, caller: &Caller, r: pb::CreateScheduleRequest) -> Result<Schedule, Error> {
        let input = ScheduleInput {
            name: r.name,
            cron: r.cron,
            time_zone: r.time_zone,
            job: convert::submit_input(r.job.unwrap_or_default(), trace::Origin::default())?,
            paused: r.paused,
            overlap: convert::overlap(r.overlap)?.unwrap_or_default(),
            catch_up: convert::catch_up(r.catch_up)?.unwrap_or_default(),
            deadline: convert::duration!("deadline", r.deadline)?,
        };
        call.app(&self.app).create_schedule(caller, input).await
    }

    async fn update(&self, call: &Call, caller: &Caller, r: pb::UpdateScheduleRequest) -> Result<Schedule, Error> {
        let job = r.job.map(|job| convert::submit_input(job, trace::Origin::default())).transpose()?;
        let change = ScheduleChange {
            name: r.name,
            cron: r.cron,
            time_zone: r.time_zone,
            job,
            overlap: convert::overlap(r.overlap)?,
            catch_up: convert::catch_up(r.catch_up)?,
            deadline: convert::duration!("deadline", r.deadline)?,
        };
        call.app(&self.app).update_schedule(caller, &r.id, change).await
    }
}

#[tonic::async_trait]
impl Schedules for Service {
    async fn create_schedule(
        &self,
        request: Request<pb::CreateScheduleRequest>,
    ) -> Result<Response<pb::Schedule>, Status> {
        let call = Call::of("CreateSchedule", &request);
        let r = request.into_inner();
        answer(&call, self.create(&call, call.caller()?, r).await)
    }

    async fn update_schedule(
        &self,
        request: Request<pb::UpdateScheduleRequest>,
    ) -> Result<Response<pb::Schedule>, Status> {
        let call = Call::of("UpdateSchedule", &request);
        let r = request.into_inner();
        answer(&call, self.update(&call, call.caller()?, r).await)
    }

    async fn run_schedule(
        &self,
        request: Request<pb::RunScheduleRequest>,
    ) -> Result<Response<pb::RunScheduleResponse>, Status> {
        let call = Call::of("RunSchedule", &request);
        let r = request.into_inner();
        let run = call
            .app(&self.app)
            .run_schedule(call.caller()?, &r.id, &r.idempotency_key)
            .await
            .map_err(|e| call.refuse(&e))?;
        let schedule = convert::schedule(run.schedule).map_err(|e| call.refuse(&e))?;
        let job_id = run.job.map(|id| id.to_string()).unwrap_or_default();
        Ok(Response::new(pb::RunScheduleResponse { schedule: Some(schedule), job_id }))
    }

    async fn get_schedule(&self, request: Request<pb::GetScheduleRequest>) -> Result<Response<pb::Schedule>, Status> {
        let call = Call::of("GetSchedule", &request);
        answer(&call, call.app(&self.app).read_schedule(call.caller()?, &request.get_ref().id).await)
    }

    async fn list_schedules(
        &self,
        request: Request<pb::ListSchedulesRequest>,
    ) -> Result<Response<pb::ListSchedulesResponse>, Status> {
        let call = Call::of("ListSchedules", &request);
        let r = request.into_inner();
        let page = call.app(&self.app).read_schedules(call.caller()?, r.limit, Some(&r.cursor)).await;
        let page = page.map_err(|e| call.refuse(&e))?;
        let schedules =
            page.items.into_iter().map(convert::schedule).collect::<Result<_, _>>().map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::ListSchedulesResponse { schedules, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn pause_schedule(
        &self,
        request: Request<pb::PauseScheduleRequest>,
    ) -> Result<Response<pb::Schedule>, Status> {
        let call = Call::of("PauseSchedule", &request);
        answer(&call, call.app(&self.app).pause_schedule(call.caller()?, &request.get_ref().id).await)
    }

    async fn resume_schedule(
        &self,
        request: Request<pb::ResumeScheduleRequest>,
    ) -> Result<Response<pb::Schedule>, Status> {
        let call = Call::of("ResumeSchedule", &request);
        let r = request.into_inner();
        answer(&call, call.app(&self.app).resume_schedule(call.caller()?, &r.id, r.catch_up).await)
    }

    async fn delete_schedule(
        &self,
        request: Request<pb::DeleteScheduleRequest>,
    ) -> Result<Response<pb::DeleteScheduleResponse>, Status> {
        let call = Call::of("DeleteSchedule", &request);
        call.app(&self.app)
            .delete_schedule(call.caller()?, &request.get_ref().id)
            .await
            .map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::DeleteScheduleResponse {}))
    }

    async fn list_next_runs(
        &self,
        request: Request<pb::ListNextRunsRequest>,
    ) -> Result<Response<pb::ListNextRunsResponse>, Status> {
        let call = Call::of("ListNextRuns", &request);
        let r = request.into_inner();
        let runs = call.app(&self.app).next_runs(&r.id, r.limit).await.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::ListNextRunsResponse { runs: runs.into_iter().map(Micros::to_proto).collect() }))
    }
}
