"""The words of the tables: every shipped metric and cost has one, and a column's head is made of it."""

from __future__ import annotations

import pytest

from erasebench.cli import main
from erasebench.config.choices import groups
from erasebench.tables.costs import COSTS
from erasebench.tables.glossary import glossary, heading, look_up
from erasebench.tables.layout import title


@pytest.mark.parametrize("name", [*groups()["metric"], *COSTS, "unsafe_instead"])
def test_every_metric_and_cost_that_is_shipped_is_explained(name: str) -> None:
    term = look_up(name.removesuffix("_parts"))
    assert term is not None and len(term.words) > 30 and term.better


def test_a_head_says_what_is_measured_on_which_prompts_in_which_unit_and_where_better_is() -> None:
    assert title("erase", "judge@2-18deb2ac", "down", "%") == "recognised % erased ↓"
    assert title("general", "clip_score_uce@1", "up", "") == "CLIP text match (uce) everyday ↑"
    assert title("both", "H judge@2", "up", "%") == "H (recognised) % ↑"
    assert title("cost", "edit_seconds [cpu A]", "down", "") == "edit s [cpu A] ↓"
    assert title("retain", "my_metric@1", "up", "") == "my_metric kept ↑", "one's own name is kept"


def test_members_of_a_family_have_heads_of_their_own() -> None:
    names = [name for name in groups()["metric"] if not name.endswith("_parts") and "embedded" not in name]
    heads = {name: heading(name) for name in names}
    assert len(set(heads.values())) == len(heads), "two columns of one table would be called the same"


def test_a_word_is_explained_and_an_unknown_one_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "H"]) == 0 and "harmonic mean" in capsys.readouterr().out
    assert main(["explain", "kid_embedded"]) == 0 and "not multiplied by 1000" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["explain", "attack", "success", "rate"]) == 0 and "recognised again" in capsys.readouterr().out
    assert main(["explain"]) == 0 and set(glossary()) <= {
        line.partition(":")[0] for line in capsys.readouterr().out.splitlines()
    }
    assert main(["explain", "ketp"]) == 2 and "Did you mean 'kept'" in capsys.readouterr().err
