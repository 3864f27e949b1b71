"""The demos: they tell what really happens, need nothing, and leave nothing behind."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import BDAUTO
from tests.support.patience import seconds


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), ["dispatched", "refused", "dispatch failed HTTP 400", "no progress for 40m (threshold 30m)"]),
        (
            ("--local",),
            [
                "requeued  job w",
                "its check (sh): exit status 1: demo-",
                "blocked: which colours?",
                "$ bdauto logs demo-",
                "the others sleep on",
            ],
        ),
    ],
)
def test_a_demo_tells_its_story_and_leaves_nothing(tmp_path: Path, words: tuple[str, ...], told: list[str]) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "COLUMNS": "120"}
    done = subprocess.run(
        [BDAUTO, "demo", *words], env=env, capture_output=True, text=True, timeout=seconds(120), check=True
    )
    assert [line for line in told if line not in done.stdout] == []
    assert list(tmp_path.iterdir()) == []
