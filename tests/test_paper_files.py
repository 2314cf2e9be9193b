"""With the files that papers released, every experiment draws what its paper drew.

The files are no part of erasebench: give the folder that they lie in by ``ERASEBENCH_PAPER_FILES``. They are known by their
content, whatever they are called.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.edits.released import known_lists, list_content
from erasebench.errors import UserError
from erasebench.prompts.choose import from_config
from erasebench.runs.estimate import images_without_a_model
from erasebench.runs.plan import drawn, prepare
from erasebench.tables.published_match import known_prompts, prompts_of

FOLDER = os.environ.get("ERASEBENCH_PAPER_FILES", "")

pytestmark = pytest.mark.skipif(not FOLDER, reason="give the folder of the papers' files by ERASEBENCH_PAPER_FILES")

DRAWN = {
    30000: "mace_coco_explicit",
    5000: "cure_objects uce_objects rece_objects esd_objects",
    4703: "cure_i2p esd_nudity uce_nudity rece_nudity rece_unsafe mace_explicit ant_explicit sld_i2p speed_nudity spm_nudity trce_unsafe",
    2000: "spm_artists",
    1000: "speed_celebrities_100 eraseeval_coco",
    931: "trce_sexual",
    142: "cure_redteam_unlearndiffatk rece_redteam safree_redteam unlearndiffatk_nudity",
    100: "cure_artists cure_artists_living cure_alpha esd_artists rece_artists rece_artists_living safree_artists",
}  # fmt: skip
"""How many images of one edit a paper drew, and the experiments that remake it."""


def _readable(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.iterdir() if path.suffix in (".csv", ".tsv", ".txt"))


@cache
def file_of(prompts: str) -> Path | None:
    """The file whose content is that of a known prompt set."""
    contents = set(known_prompts().content[known_prompts().prompts == prompts]) - {""}
    node = compose([f"prompts={prompts}", "prompts.source=x"]).prompts
    for path in _readable(Path(FOLDER)):
        try:
            found = from_config({**node, "source": str(path)}, node.kind or "object", ())
        except UserError:  # a file of other columns
            continue
        if found.content in contents:
            return path
    return None


@cache
def lists() -> tuple[str, ...]:
    """Overrides that give the lists of names that releases read, of those that are there."""
    found = {}
    for path in _readable(Path(FOLDER)):
        try:
            content = list_content(str(path))
        except UserError:
            continue
        found |= {name: path for name, known in known_lists().items() if known.content == content}
    return tuple(f"lists.{name}={path}" for name, path in found.items())


@pytest.mark.parametrize(
    ("name", "images"), [(name, images) for images, names in DRAWN.items() for name in names.split()]
)
def test_an_experiment_draws_as_many_images_as_its_paper(name: str, images: int, tmp_path: Path) -> None:
    path = file_of(prompts_of(name))
    if path is None:
        pytest.skip(f"the file of {prompts_of(name)} is not in the folder")
    given = lists()
    captions = tmp_path / "captions.txt"  # no image depends on which they are
    captions.write_text("a cat on a mat\na red bus\n", encoding="utf-8")
    others = {"captions": str(captions)}
    spare = [
        f"lists.{known}={others.get(known, 'task')}"
        for known in known_lists()
        if not any(text.startswith(f"lists.{known}=") for text in given)
    ]
    config = compose(
        [f"experiment={name}", f"prompts.source={path}", f"store.dir={tmp_path}", "device=cpu", *given, *spare]
    )
    prepared = prepare(config)
    (kind,) = prepared.groups
    group, prompts = prepared.groups[kind]
    for task in group.tasks:
        assert len(drawn(prompts.for_task(task), prepared.protocol)) == images
    edits = sum(1 for label, *_ in prepared.edits() if label != "none")
    assert images_without_a_model(prepared) <= images * (1 + edits)


def test_every_experiment_of_a_file_that_was_read_is_counted() -> None:
    known = known_prompts()
    hashed = set(known.prompts[known.content != ""])
    counted = {name for names in DRAWN.values() for name in names.split()}
    of_files = {name for name in groups()["experiment"] if prompts_of(name) in hashed}
    assert of_files <= counted, of_files - counted
