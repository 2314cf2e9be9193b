"""Labels of rows: made once from an eraser, short, told apart, and never read back from their text."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasebench.config.build import build, places
from erasebench.config.compose import compose
from erasebench.edits.eraser import Eraser
from erasebench.edits.label import Label, label_of, shared, short_rows, swept_option
from erasebench.errors import UserError
from erasebench.methods.closed_form.cure import Cure
from erasebench.methods.closed_form.leace import Leace
from erasebench.methods.closed_form.speed import Speed
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.controls.random_edit import RandomEdit


@dataclass(frozen=True)
class Many(Eraser):
    """An eraser with settings of every type."""

    strength: float = 1.0
    steps: int = 3
    fast: bool = False
    rule: str = "mean"
    texts: tuple[str, ...] = ()
    by_kind: dict[str, str] = field(default_factory=dict)

    name = "many"

    def changes(self, pipe, task):
        return {}, {}


def test_a_label_shows_what_is_not_its_default() -> None:
    assert label_of("cure", Cure()).text == "cure"
    assert label_of("cure", Cure(alpha=5.0)).text == "cure alpha=5.0"
    assert label_of("mine", Many(fast=True, texts=("a b", "c"), by_kind={"x": "y"})).text == (
        "mine fast=True texts=[a b, c] by_kind={x: y}"
    )
    assert label_of("uce", Uce()).number("lam") == Uce().lam and label_of("many", Many()).number("fast") is None


def test_a_name_that_says_a_setting_is_not_told_it_twice() -> None:
    assert label_of("uce2025", Uce(variant="2025")).text == "uce2025"
    assert label_of("uce", Uce(variant="2025")).text == "uce variant=2025"
    config = compose(["method=closed_form"])
    texts = {
        place.split(".")[1]: label_of(place.split(".")[1].split("__")[0], build(node, place, Eraser)).text
        for place, node in places(config.method, "method", "_target_").items()
    }
    assert texts["uce2025"] == "uce2025"


def test_a_list_from_a_file_is_a_few_words(tmp_path) -> None:
    file = tmp_path / "artists.csv"
    file.write_text("artist\n" + "\n".join(f"Artist Number {i}" for i in range(1734)))
    labels = {label_of("speed", Speed(retain=str(file))).text, label_of("leace", Leace(controls=str(file))).text}
    assert all("1734 names (" in text and len(text) < 60 for text in labels), labels
    file.write_text(file.read_text().replace("Number 7\n", "Number Seven\n"))
    assert labels.isdisjoint({label_of("speed", Speed(retain=str(file))).text}), "another list has another label"


@given(st.text(max_size=300), st.lists(st.text(max_size=30), max_size=40))
def test_a_label_is_short_whatever_its_settings_are(text: str, texts: list[str]) -> None:
    label = label_of("many", Many(rule=text, texts=tuple(texts)))
    assert len(label.text) < 200
    assert Label.from_json(json.loads(json.dumps(label.to_json()))) == label


def test_erasers_inside_an_eraser_stand_in_brackets_where_they_have_settings() -> None:
    parts = {"first": Uce(lam=1.0), "second": Cure()}
    label = label_of("compose", Compose(parts))
    assert label.text == "compose parts=(uce lam=1.0),cure" and label.number("lam") is None
    assert label_of("random", RandomEdit(Cure(alpha=3.0))).text == "random like=(cure alpha=3.0)"


CURE = [label_of("cure", Cure(alpha=alpha)) for alpha in (1.0, 2.0, 5.0)]


@pytest.mark.parametrize(
    ("labels", "option"),
    [
        (CURE, "alpha"),
        ([Label("none"), *CURE, label_of("uce", Uce())], "alpha"),
        ([label_of("uce", Uce()), label_of("uce", Uce(lam=9.0))], "lam"),
        ([label_of("cure", Cure()), *CURE], "alpha"),
        ([label_of("cure", Cure()), label_of("cure", Cure(alpha=9.0))], None),
        ([label_of("cure", Cure(alpha=9.0)), label_of("uce", Uce())], None),
        ([Label("cure", {"alpha": 1, "k": 3}), Label("cure", {"alpha": 2, "k": 3})], "alpha"),
        ([Label("cure", {"alpha": 1, "k": 3}), Label("cure", {"alpha": 2, "k": 4})], None),
        ([Label("cure", {"rule": "content"}), Label("cure", {"rule": "all"})], None),
        ([Label("cure", {"alpha": 1, "rule": "all"}), Label("cure", {"alpha": 2}, {"rule": "mean"})], "alpha"),
        ([label_of("compose", Compose({"a": Uce(lam=1.0), "b": Cure()})),
          label_of("compose", Compose({"a": Uce(), "b": Cure(alpha=2.5)}))], None),
        ([Label("cure alpha=1"), Label("cure alpha=2")], None),  # of an earlier version: a text, and nothing is read of it
        ([Label("cure", {"fast": True}), Label("cure", {"fast": False})], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_swept_option_is_the_one_number_that_tells_labels_apart(labels: list[Label], option: str | None) -> None:
    assert swept_option(labels) == option


def test_a_default_is_shown_where_it_is_varied() -> None:
    label = label_of("uce", Uce())
    assert label.text == "uce" and label.showing("lam").text == f"uce lam={Uce().lam}"
    assert label.showing("lam").showing("lam") == label.showing("lam") and label.showing("nothing") == label
    assert label.showing("lam").without(["lam"]).text == "uce"


def test_what_all_labels_show_alike_is_known() -> None:
    assert shared([Label("a", {"k": 1, "x": 2}), Label("a", {"k": 1, "x": 3})]) == {"k"}
    assert shared([Label("a", {"k": 1}), Label("a")]) == set()


def test_options_are_cut_off_where_the_name_alone_tells_rows_apart() -> None:
    rows = ["none", "cure alpha=1.0", "cure alpha=2.0", "esd iterations=150 lr=0.0001", "compose parts=uce,cure"]
    assert short_rows(rows) == {
        "none": "unedited", "cure alpha=1.0": "cure alpha=1.0", "cure alpha=2.0": "cure alpha=2.0",
        "esd iterations=150 lr=0.0001": "esd", "compose parts=uce,cure": "compose",
    }  # fmt: skip
    attacked = [
        "esd lr=0.1",
        "esd lr=0.1 + cce steps=9",
        "uce_irece parts=uce,irece + cce steps=9",
        "uce as released but for masks",
    ]
    short = ["esd", "esd + cce", "uce_irece + cce", "uce as released but for masks"]
    assert list(short_rows(attacked).values()) == short, "an attack, and what a release says, stay"
    budgets = ["esd + cce steps=9", "esd + cce steps=90"]
    assert list(short_rows(budgets).values()) == budgets


@pytest.mark.parametrize("values", [None, [], {"name": "x"}, {"name": "x", "options": [], "defaults": {}}, "cure"])
def test_what_is_no_label_is_refused(values: object) -> None:
    with pytest.raises(UserError, match="no label"):
        Label.from_json(values)


def test_reading_labels_loads_no_torch() -> None:
    code = "import sys; import erasebench.edits.label; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
