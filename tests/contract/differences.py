"""Tests of the contract that some version of bd answers otherwise than 1.0.3, which the sandbox imitates, and how.

bdauto does not depend on what stands here. What it does depend on is in no version allowed to differ.
"""

IMITATED = "1.0.3"
_WORDS = "an error is worded or placed otherwise"
_FIELDS = "an answer has other fields, e.g. counts in 1.3, or no schema_version in 1.0.2"
_ACTOR = "1.3 closes a bead only for its assignee"
_LISTS = "a list hides or shows others: bdauto looks at each bead itself"
DIFFERENCES = {
    "test_a_list_of_ids_has_what_other_lists_hide": _ACTOR,
    "test_a_new_bead": _FIELDS,
    "test_all_fields_of_a_bead": _FIELDS,
    "test_claim_takes_only_unassigned_beads": "later versions claim for the assignee, too: bdauto does not use --claim",
    "test_comment": _FIELDS,
    "test_comments_written_at_once_are_all_there": _FIELDS,
    "test_create_refuses": _WORDS,
    "test_empty_is_absent": _FIELDS,
    "test_list_by_status": _LISTS,
    "test_list_refuses_an_unknown_status": _WORDS,
    "test_list_says_when_its_limit_hides_beads": _WORDS,
    "test_lists_have_default_limits": "other limits: bdauto gives one each time",
    "test_lists_show_what_show_shows": _FIELDS,
    "test_metadata_values_are_parsed": "a number may stay text: bdauto reads both",
    "test_note_refuses": _WORDS,
    "test_notes": _FIELDS,
    "test_query_refuses_what_it_does_not_know": _WORDS,
    "test_ready_filters_that_work_in_one_mode_only": "they work in both modes: bdauto uses none",
    "test_ready_follows_its_blockers": _ACTOR,
    "test_ready_leaves_out_children_of_what_waits": _LISTS,
    "test_ready_order_limit_and_priority": "within a priority the oldest may come first",
    "test_readonly_refuses_writes": _WORDS,
    "test_show_has_dependencies_and_dependents": _FIELDS,
    "test_show_known_and_unknown": _WORDS,
    "test_show_unknown": _WORDS,
    "test_started_and_closed_follow_the_status": _ACTOR,
    "test_update_answers_the_updated_beads": _FIELDS,
    "test_update_refuses": _WORDS,
    "test_update_unknown": _WORDS,
    "test_where": _FIELDS,
}
