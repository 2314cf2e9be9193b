"""What a config may name: classes of ours and of modules that the user allows, each of the kind of its place; no more."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from erasebench.config.build import build, find_class
from erasebench.config.compose import check_texts, compose
from erasebench.edits.eraser import Eraser
from erasebench.errors import UserError
from erasebench.methods.closed_form.cure import Cure
from erasebench.methods.compose import Compose
from erasebench.runs.plan import prepare
from erasebench.scores.metric import Metric

CURE = "erasebench.methods.closed_form.cure.Cure"
COMPOSE = "erasebench.methods.compose.Compose"


@dataclass(frozen=True)
class Mine(Eraser):
    """An eraser of somebody's own."""

    strength: float = 1.0

    name = "mine"

    def changes(self, pipe, task):
        return {}, {}


FOREIGN = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "pathlib.Path",
    "erasebench.store.pd.read_pickle",
    "erasebench.tiny.data.np.load",
    "erasebench.edits.edit.torch.load",
    "erasebench.edits.edit.torch.hub.load",
    "erasebench.files.write_text",
    "erasebench.files.Path",
    "erasebench.files.shutil.rmtree",
    "erasebench.store.Store",
    "erasebench.run.run",
    "erasebench.methods.closed_form.cure.torch.load",
    "erasebench.methods.closed_form.cure.hashlib.sha256",
    "erasebench.methods.closed_form.cure.Eraser",
    "erasebench.metrics.judge.Path",
    "erasebench.metrics._features.load_file",
    "erasebench.metrics.judge.Judge",
    "erasebench.edits.eraser.Eraser",
    "erasebench.methods",
    "erasebench.methods.",
    "erasebench.methods..cure.Cure",
    "erasebench.methodsx.Cure",
    "erasebench",
    "",
    ".",
]
"""None of these is an eraser; some of them run code or write files when they are called."""


@pytest.mark.parametrize("target", FOREIGN)
def test_nothing_but_an_eraser_is_built_where_an_eraser_is_asked_for(target: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    node = {"_target_": target, "path": str(mark), "text": "called"}
    with pytest.raises(UserError, match="method"):
        build(node, "method", Eraser)
    with pytest.raises(UserError, match="method.parts.first"):
        build({"_target_": COMPOSE, "parts": {"first": node}}, "method", Eraser)
    with pytest.raises(UserError, match="method.alpha"):
        build({"_target_": CURE, "alpha": node}, "method", Eraser)
    with pytest.raises(UserError, match="method.retain.1"):
        build({"_target_": CURE, "retain": ["a", node]}, "method", Eraser)
    assert not mark.exists()


@pytest.mark.parametrize("target", [None, 3, True, ["os.system"], {"_target_": "os.system"}, b"os.system"])
def test_a_target_that_is_no_text_is_refused(target: object) -> None:
    with pytest.raises(UserError, match="method._target_: .* is no text"):
        build({"_target_": target}, "method", Eraser)
    with pytest.raises(UserError, match="method.like._target_: .* is no text"):
        build({"_target_": "erasebench.methods.controls.random_edit.RandomEdit", "like": {"_target_": target}},
              "method", Eraser)  # fmt: skip


@given(st.lists(st.sampled_from(["erasebench", "methods", "metrics", "store", "pd", "read_pickle", "cure", "Cure", "os",
                                 "closed_form", "system", "__class__", "__init__", "..", ""]), max_size=6))  # fmt: skip
def test_whatever_is_named_is_an_eraser_of_ours_or_is_refused(words: list[str]) -> None:
    try:
        kind = find_class(".".join(words), "method", Eraser)
    except UserError:
        return
    assert issubclass(kind, Eraser) and kind.__module__.startswith("erasebench.methods.")


def test_a_metric_is_no_eraser_and_an_eraser_no_metric() -> None:
    with pytest.raises(UserError, match="is no Metric"):
        build({"_target_": CURE}, "metric.x", Metric)
    with pytest.raises(UserError, match="is no Eraser"):
        build({"_target_": "erasebench.metrics.judge.Judge"}, "method", Eraser)


def test_erasers_inside_an_eraser_are_built_by_the_same_rule() -> None:
    made = build({"_target_": COMPOSE, "parts": {"a": {"_target_": CURE, "alpha": 3.0}}}, "method", Eraser)
    assert isinstance(made, Compose) and made.parts["a"] == Cure(alpha=3.0)


def test_a_module_of_ones_own_must_be_named() -> None:
    node = {"_target_": f"{__name__}.Mine", "strength": 2.0}
    with pytest.raises(UserError, match=rf"plugins=\[{__name__}\].*--plugins {__name__}"):
        build(node, "method", Eraser)
    assert build(node, "method", Eraser, [__name__]) == Mine(2.0)
    with pytest.raises(UserError, match="is no Eraser"):
        build({"_target_": f"{__name__}.Path"}, "method", Eraser, [__name__])
    with pytest.raises(UserError, match=f"is defined in {__name__}"):
        sys.modules["another_module"] = sys.modules[__name__]
        try:
            build({"_target_": "another_module.Mine"}, "method", Eraser, ["another_module"])
        finally:
            del sys.modules["another_module"]


def test_a_module_that_is_not_named_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unasked.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="not one of our erasers"):
        build({"_target_": "unasked.Eraser"}, "method", Eraser)


def test_options_that_a_class_does_not_have_or_needs_are_named() -> None:
    with pytest.raises(UserError, match=r"method.alhpa: Cure has no such option. Did you mean 'alpha'\?"):
        build({"_target_": CURE, "alhpa": 1.0}, "method", Eraser)
    for hidden in ("_args_", "_partial_", "_recursive_", "_convert_"):
        with pytest.raises(UserError, match=f"method.{hidden}: Cure has no such option"):
            build({"_target_": CURE, hidden: ["x"]}, "method", Eraser)
    with pytest.raises(UserError, match=r"metric.clip: ClipScore needs variant; give it, e.g. metric.clip.variant"):
        build({"_target_": "erasebench.metrics.clip_score.ClipScore"}, "metric.clip", Metric)
    with pytest.raises(UserError, match="method: has no _target_"):
        build({"alpha": 1.0}, "method", Eraser)
    with pytest.raises(UserError, match=r"metric.fid: .*extractor: no 'incepton'. Did you mean 'inception'"):
        build({"_target_": "erasebench.metrics.fid.Fid", "extractor": "incepton"}, "metric.fid", Metric)


SECRET = "hf_this_is_a_token"


@pytest.mark.parametrize(
    "text", ["${oc.env:HF_TOKEN}", "of ${oc.env:HF_TOKEN}!", "${oc.${name}:HF_TOKEN}", "${ oc.env : HF_TOKEN }",
             "${oc.decode:${oc.env:HF_TOKEN}}"]
)  # fmt: skip
def test_no_setting_but_a_path_is_read_from_the_environment(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    config = compose(["task=object", "method=cure", f"store.dir={tmp_path / 'results'}"])
    config.task.anchor = text
    with pytest.raises(UserError, match="task.anchor: .*write the value itself") as refused:
        prepare(config)
    assert SECRET not in str(refused.value) and not (tmp_path / "results").exists()


def test_a_path_may_be_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    config = compose(["task=object", "method=cure", "store.dir=${oc.env:SCRATCH}/results"])
    assert prepare(config).store.root == tmp_path / "results"
    check_texts(OmegaConf.create({"a": "time: ${b}", "b": 1}))  # it points at another setting, no more
