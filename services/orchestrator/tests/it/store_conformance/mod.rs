//! What every store promises: one suite, run on SQLite always and on Postgres where there is one.
//!
//! Each case is a function over a [`World`]: a fresh, empty store with a clock that the case sets. Cases use only the
//! `Store` trait; tables are read only to check that nothing is left.

mod audit;
mod claims;
mod commit;
mod copies;
mod listing;
mod lists;
mod million;
mod operations;
mod ownership;
mod pauses;
mod plans;
mod schedules;
mod slo;
mod upkeep;
mod version_before;
mod ways_back;
mod world;

use world::World;

macro_rules! conformance {
    ($($module:ident: $($case:ident),+ $(,)?;)+) => {
        mod sqlite {
            $($(
                #[tokio::test]
                async fn $case() {
                    super::$module::$case(&super::World::sqlite().await).await;
                }
            )+)+
        }
        mod postgres {
            $($(
                #[tokio::test]
                async fn $case() {
                    let Some(()) = agentforge_harness::require("postgres") else { return };
                    super::$module::$case(&super::World::postgres(stringify!($case)).await).await;
                }
            )+)+
        }
    };
}

conformance! {
    commit:
        a_submission_can_be_repeated_but_not_changed,
        repeats_inside_one_group_are_one_job,
        a_key_belongs_to_its_mission,
        a_job_has_one_result_however_often_it_is_reported,
        a_late_result_of_an_earlier_attempt_is_fenced_off,
        a_retry_waits_and_keeps_its_error,
        every_state_is_published_once_and_in_order,
        states_shorter_than_a_commit_are_not_told,
        a_job_submitted_and_cancelled_in_one_group_never_runs,
        a_dead_job_makes_one_letter,
        bytes_that_were_no_job_make_one_letter,
        a_redriven_job_starts_anew,
        everything_a_job_is_made_of_comes_back,
        hostile_text_is_stored,
        two_stores_agree_on_one_job,
        a_dropped_commit_is_whole_or_nothing;
    audit:
        every_act_of_a_commit_has_its_entry,
        what_is_done_to_the_log_in_sql_is_found,
        what_cannot_be_audited_is_not_done,
        each_thing_of_many_is_named,
        stores_that_append_at_once_leave_whole_chains,
        a_pruned_log_is_still_checked,
        entries_of_other_services_are_taken_in_once,
        the_log_is_filtered_and_paged;
    claims:
        due_jobs_are_claimed_once_in_order,
        a_claim_at_submission_keeps_others_away,
        claims_that_run_out_come_back,
        released_jobs_are_due_at_once,
        only_ones_own_claims_can_be_released,
        claims_of_processes_that_ended_come_back,
        concurrent_claimers_share_without_overlap,
        a_claim_takes_no_more_than_it_can_carry,
        the_outbox_is_claimed_in_order_and_emptied_by_pubacks,
        concurrent_relays_send_each_message_once,
        the_next_due_moment_counts_claims_and_the_future,
        queues_are_claimed_apart,
        what_waits_is_counted_by_queue,
        lines_of_the_outbox_are_claimed_apart,
        parked_messages_are_kept_apart_and_come_back,
        parked_messages_are_bounded,
        a_refused_attempt_ends_its_job_with_a_letter;
    lists:
        filters_narrow_and_cursors_walk,
        labels_are_matched_all_at_once,
        a_rare_job_below_many_is_on_the_first_page,
        large_jobs_make_short_pages,
        versions_tell_what_changed,
        depths_measure_what_waits,
        dead_letters_are_filtered_and_paged;
    listing:
        every_filter_finds_what_a_reader_of_all_would,
        states_are_counted,
        labels_go_with_their_job;
    million:
        pages_among_very_many_jobs_are_found_soon,
        what_listing_costs_a_commit_is_measured;
    schedules:
        a_turn_is_taken_once,
        a_skipped_turn_moves_on_without_a_job,
        a_turn_waits_for_the_end_of_the_one_before,
        a_schedule_is_changed_as_it_was_read,
        a_schedule_goes_on_where_a_clock_that_was_set_back_is,
        names_are_unique_and_pages_sorted,
        a_paused_schedule_is_never_due,
        agents_are_kept_as_last_heard;
    upkeep:
        deadlines_end_open_jobs_only,
        a_published_job_expires_only_up_to_where_reports_are_read,
        stale_jobs_are_found_until_they_are_looked_at,
        pruning_leaves_nothing_of_a_job,
        a_store_survives_its_process,
        row_numbers_are_never_used_again;
    slo:
        a_minute_that_two_replicas_observed_counts_once,
        counts_of_a_minute_only_rise,
        many_minutes_are_kept_and_old_ones_forgotten,
        finished_jobs_are_counted_by_minute_and_outcome;
    operations:
        an_operation_is_carried_out_by_one_and_continued_by_another,
        an_operation_that_waits_is_cancelled_at_once,
        operations_of_a_process_that_ended_are_taken_up_at_the_start,
        operations_are_bounded_and_listed_newest_first;
    pauses:
        a_pause_is_one_row_that_every_store_sees,
        jobs_that_ended_are_counted_by_queue;
    ownership:
        preparing_again_changes_nothing,
        a_database_belongs_to_one_mission,
        a_changed_migration_is_refused,
        a_migration_of_a_later_version_is_tolerated;
    version_before:
        statements_of_the_version_before_run_on_this_schema,
        the_version_before_leaves_rows_of_several_messages_alone,
        the_version_before_finds_due_jobs_without_reading_finished_ones;
    ways_back:
        every_end_without_success_can_be_retried,
        a_retry_grants_the_same_time_again_however_often,
        a_retried_job_may_die_again_and_leaves_a_letter_each_time,
        waits_between_attempts_are_the_jobs_own,
        a_worker_whose_clock_is_ahead_ends_no_job,
        a_stale_cancel_at_a_worker_ends_no_job,
        a_key_is_used_again_where_the_caller_says_so,
        a_key_is_used_again_by_one_of_many,
        a_retry_and_a_new_use_of_the_key_exclude_each_other,
        id_and_key_are_both_honoured_or_both_refused,
        a_row_of_the_version_before_is_known_again,
        jobs_are_listed_by_when_they_came_and_ended,
        a_clock_that_goes_back_holds_nothing_up;
    copies:
        a_copy_taken_while_writing_is_whole,
        a_restore_replaces_only_when_forced;
}
