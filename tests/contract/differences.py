"""Tests of the contract that a version of bd answers otherwise than 1.0.3, which the sandbox imitates, and how.

bdauto does not depend on what stands here. What it does depend on is in no version allowed to differ. A test that is
named here must fail on the versions that are given: what no longer differs has to go.
"""

from typing import NamedTuple

IMITATED = (1, 0, 3)


class Difference(NamedTuple):
    """Why a test fails: on 1.0.2 if it is `old`, and from the release `since` on, there in the cases `later`."""

    why: str
    since: tuple[int, int, int] | None = None
    old: bool = False
    later: tuple[str, ...] = ("",)
    """Parts of the names of the test's cases."""

    def holds(self, release: tuple[int, int, int], case: str) -> bool:
        """Whether this case of the test fails on this release."""
        if release < IMITATED:
            return self.old
        return self.since is not None and release >= self.since and any(part in case for part in self.later)


_WORDS = "an error is worded or placed otherwise"
_FIELDS = "an answer has other fields, e.g. counts in 1.0.5, or no schema_version in 1.0.2"
_LISTS = "a list hides or shows others: bdauto looks at each bead itself"
_NO_GATES = "1.0.2 has no beads of the type gate"
DIFFERENCES = {
    "test_a_list_of_ids_has_what_other_lists_hide": Difference(_NO_GATES, old=True),
    "test_a_new_bead": Difference(_FIELDS, (1, 0, 5), old=True),
    "test_all_fields_of_a_bead": Difference(_FIELDS, (1, 0, 5)),
    "test_claim_takes_only_unassigned_beads": Difference(
        "it claims for the assignee, too: bdauto does not use --claim", (1, 0, 4)
    ),
    "test_comment": Difference(_FIELDS, (1, 0, 5)),
    "test_comments_written_at_once_are_all_there": Difference(_FIELDS, (1, 0, 5)),
    "test_create_refuses": Difference(_WORDS, (1, 2, 2), old=True),
    "test_empty_is_absent": Difference(_FIELDS, (1, 0, 5)),
    "test_kv": Difference(_FIELDS, old=True),
    "test_list_by_status": Difference(_LISTS, (1, 2, 2), old=True),
    "test_list_refuses_an_unknown_status": Difference(_WORDS, (1, 2, 2), old=True),
    "test_list_says_when_its_limit_hides_beads": Difference(_WORDS, (1, 2, 2)),
    "test_lists_have_default_limits": Difference("other limits: bdauto gives one each time", (1, 0, 4)),
    "test_lists_show_what_show_shows": Difference(_FIELDS, (1, 3, 0)),
    "test_metadata_values_are_parsed": Difference("a number may stay text: bdauto reads both", (1, 3, 0)),
    "test_note_refuses": Difference(_WORDS, (1, 3, 0), old=True),
    "test_notes": Difference(_FIELDS, (1, 0, 5), old=True),
    "test_query_refuses_what_it_does_not_know": Difference(_WORDS, (1, 2, 2)),
    "test_readonly_reads": Difference(_FIELDS, old=True),
    "test_readonly_refuses_writes": Difference(_WORDS, (1, 2, 2), old=True),
    "test_ready_filters_that_work_in_one_mode_only": Difference(
        "they work in both modes, and in 1.0.2 in the other: bdauto uses none", (1, 0, 4), old=True
    ),
    "test_ready_is_open_work_only": Difference(_NO_GATES, old=True),
    "test_ready_leaves_out_children_of_what_waits": Difference(_LISTS, (1, 0, 5)),
    "test_ready_order_limit_and_priority": Difference("within a priority the oldest comes first", (1, 3, 0)),
    "test_show_has_dependencies_and_dependents": Difference(_FIELDS, (1, 0, 5), old=True),
    "test_show_known_and_unknown": Difference(_WORDS, (1, 3, 0)),
    "test_show_unknown": Difference(_WORDS, (1, 3, 0), old=True),
    "test_update_answers_the_updated_beads": Difference(_FIELDS, (1, 0, 5)),
    "test_update_refuses": Difference(_WORDS, (1, 3, 0), old=True, later=("args2", "args3")),
    "test_update_unknown": Difference(_WORDS, (1, 3, 0)),
    "test_version_needs_no_workspace": Difference(_FIELDS, old=True),
    "test_warnings_go_to_stderr_only": Difference("1.0.2 does not warn of the folder's mode", old=True),
    "test_where": Difference(
        "other fields where embedded; 1.0.2 does not heed --db: bdauto gives BEADS_DIR, too",
        (1, 0, 4),
        old=True,
        later=("embedded",),
    ),
}
