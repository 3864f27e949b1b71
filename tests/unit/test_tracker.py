"""Which tracker bd uses, and which folder is its project's, however it is reached."""

from pathlib import Path

import pytest

from bdauto.bd.client import Bd
from bdauto.bd.running import RunningCommand
from bdauto.bd.tracker import redirected, tracker_at
from bdauto.cli.validation import check_bd
from bdauto.common.errors import BdDrift, BdFailed, UsageError
from bdauto.domain.settings import BdSettings
from tests.support.fakes import Answered

ID = "ea09845b-56f6-43db-a6b9-778a9ae6025d"


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a tracker, and the working folder in it."""
    monkeypatch.delenv("BEADS_DIR", raising=False)
    project = tmp_path / "main"
    (project / ".beads").mkdir(parents=True)
    (project / ".git").mkdir()
    (project / ".beads" / "metadata.json").write_text(f'{{"project_id": "{ID}"}}')
    monkeypatch.chdir(project)
    return project


def home(tracker: Path, db: Path | None = None) -> Path:
    return tracker_at(tracker, {}, db).home


def test_a_tracker_is_known_by_its_own_id(main: Path) -> None:
    moved = main.rename(main.parent / "renamed")
    for folder in (main / ".beads", moved / ".beads"):
        assert tracker_at(folder, {"project_id": ID}, None).id == ID


@pytest.mark.parametrize("found", [None, 3, "", "../..", "x" * 99, [ID]])
def test_a_tracker_without_an_id_is_known_by_its_folder(main: Path, found: object) -> None:
    (main.parent / "link").symlink_to(main)
    for folder in (main / ".beads", main.parent / "link" / ".beads"):
        assert tracker_at(folder, {"project_id": found}, None).id == str(main / ".beads")


def test_the_home_of_a_tracker_is_where_its_folder_is(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (main / "src" / "deep").mkdir(parents=True)
    monkeypatch.chdir(main / "src" / "deep")
    assert home(main / ".beads") == main


def test_the_home_of_a_link_is_the_link_s_folder(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = main.parent / "link"
    link.mkdir()
    (link / ".beads").symlink_to(main / ".beads")
    monkeypatch.chdir(link)
    assert home(main / ".beads") == link
    monkeypatch.chdir("/")
    assert home(main / ".beads", link / ".beads") == link
    monkeypatch.setenv("BEADS_DIR", str(link / ".beads"))
    assert home(main / ".beads") == link


@pytest.mark.parametrize("has_beads", [False, True])
def test_the_home_in_a_linked_worktree_is_its_root(
    main: Path, monkeypatch: pytest.MonkeyPatch, has_beads: bool
) -> None:
    (tree := main.parent / "tree" / "src").mkdir(parents=True)
    (tree.parent / ".git").write_text(f"gitdir: {main}/.git/worktrees/tree")
    (main.parent / ".beads").mkdir()  # somebody else's, above
    if has_beads:
        (tree.parent / ".beads").mkdir()
    monkeypatch.chdir(tree)
    assert home(main / ".beads") == tree.parent


def test_a_redirect_is_followed_once_and_by_bd_s_rules(main: Path) -> None:
    there = main.parent / "there" / ".beads"
    there.mkdir(parents=True)
    for text in ("../main/.beads", f"# moved\n\n  {main}/.beads  \nignored"):
        (there / "redirect").write_text(text)
        assert redirected(there).resolve() == main / ".beads"
    for text in ("", "# nothing", "../no/such/.beads"):
        (there / "redirect").write_text(text)
        assert redirected(there) == there
    assert redirected(main / ".beads") == main / ".beads"


def test_bd_is_given_the_folder_behind_a_redirect(main: Path) -> None:
    """bd 1.0.3 would make an empty database in the folder with the redirect."""
    there = main.parent / "there" / ".beads"
    there.mkdir(parents=True)
    (there / "redirect").write_text("../main/.beads")
    settings = check_bd(BdSettings(db=there))
    assert str(main / ".beads") in [str(Path(word).resolve()) for word in Bd(settings)._prefix]


def answering(monkeypatch: pytest.MonkeyPatch, answer: object) -> Bd:
    def where(self: Bd, *_: object, **__: object) -> RunningCommand[object]:
        def result() -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return Answered(result)

    monkeypatch.setattr(Bd, "_object", where)
    return Bd(BdSettings())


def test_bd_says_where_the_tracker_is(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answering(monkeypatch, {"path": str(main / ".beads")}).tracker()
    assert (found.folder, found.id, found.home) == (main / ".beads", ID, main)


def test_init_is_advised_only_where_bd_finds_no_tracker(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="bd init"):
        answering(monkeypatch, BdFailed("bd where failed (exit 1): no_beads_directory")).tracker()
    with pytest.raises(BdFailed, match="locked"):
        answering(monkeypatch, BdFailed("bd where failed (exit 1): locked")).tracker()
    with pytest.raises(BdDrift):
        answering(monkeypatch, {"path": None}).tracker()


def test_a_worktree_s_folder_without_a_database_is_not_missed(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bd takes the main checkout's in a linked worktree that has what git tracks of .beads."""
    (tree := main.parent / "tree").mkdir()
    (tree / ".beads").mkdir()
    (tree / ".beads" / "config.yaml").touch()
    monkeypatch.chdir(tree)
    with pytest.raises(UsageError, match=r"no metadata\.json"):
        check_bd(BdSettings())
    (tree / ".git").write_text(f"gitdir: {main}/.git/worktrees/tree")
    assert check_bd(BdSettings()) == BdSettings()
