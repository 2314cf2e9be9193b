"""Protocols: whole, cited, obeyed, hashed; and numbers of two of them never share a column."""

from __future__ import annotations

import io
import json
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import diffusers
import pandas as pd
import pytest
import yaml
from rich.console import Console
from table_helpers import ABOUT, finish, make_plan, tabulate

from erasebench.cli import main
from erasebench.commands.protocol_page import page
from erasebench.config.choices import CONFIG_MODULE, groups
from erasebench.config.compose import compose
from erasebench.config.protocol import OBEYED, SAID, Protocol, shipped
from erasebench.config.settings import ProtocolSettings
from erasebench.errors import UserError
from erasebench.images.generate import generate
from erasebench.images.scheduler import scheduler_identity
from erasebench.models.load import Model
from erasebench.recipe import Recipe
from erasebench.runs.plan import drawn
from erasebench.store import Store
from erasebench.tables.comparable import alike, check_same, labels

NAMES = groups()["protocol"]
OURS = ("default", "embedded", "embedded_editing", "flow", "flow_flux", "flow_schnell", "turbo")
PAPERS = [name for name in NAMES if name not in OURS]
SENTENCES = ("differs", "unsure", "defects", "lacks", "cites", "name", "version")
SD = SimpleNamespace(
    scheduler=diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
)


def of(*overrides: str) -> Protocol:
    return Protocol.from_config(compose(overrides).protocol)


def written(name: str) -> dict:
    return yaml.safe_load(files(CONFIG_MODULE).joinpath("protocol", f"{name}.yaml").read_text(encoding="utf-8"))


def test_the_protocols_of_the_field_are_there() -> None:
    papers = [
        "esd",
        "uce2023",
        "uce2025",
        "rece",
        "mace",
        "speed",
        "spm",
        "safree",
        "unlearndiffatk",
        "cure",
        "unlearncanvas",
        "hub",
        "eraseeval_offline",
        "ace_editing",
    ]
    assert set(papers) <= set(NAMES)


def test_every_key_of_the_schema_is_obeyed_said_or_explains() -> None:
    schema = {entry.name for entry in fields(ProtocolSettings)}
    assert schema == {*OBEYED, *SAID, *SENTENCES} == {entry.name for entry in fields(Protocol)}


@pytest.mark.parametrize("name", PAPERS)
def test_every_choice_of_a_paper_is_cited(name: str) -> None:
    node = written(name)
    chosen = [key for key in (*OBEYED, "prompts", "metrics", "counting") if key in node and node[key] not in (None, {})]
    lacking = [key for key in chosen if key not in node["cites"] and not (key == "prompt_size" and not node[key])]
    lacking = [key for key in lacking if (key, node[key]) != ("images_per_prompt", 1)]
    assert not lacking, f"{name}: no source for {lacking}"
    known = {*OBEYED, *SAID, *node["counting"], *node["metrics"]}
    assert set(node.get("unsure", {})) <= known, "what is unsure is a choice that exists"
    for about in node.get("defects", {}).values():
        assert set(about) == {"what", "read", "as_released"} and len(about["what"]) > 20


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_names_metrics_that_exist_and_passes_its_check(name: str) -> None:
    protocol = shipped(name)
    assert set(protocol.metrics) <= set(groups()["metric"])
    protocol.check()
    text = page(name)
    assert protocol.hash in text and f"protocol={name}" in text
    for defect in protocol.defects:
        assert defect in text


@pytest.mark.parametrize("name", PAPERS)
def test_every_sampler_can_be_built_for_stable_diffusion_and_makes_its_steps(name: str) -> None:
    protocol = shipped(name)
    kind, settings = scheduler_identity(SD, protocol.scheduler, protocol.scheduler_config)
    scheduler = getattr(diffusers, kind)(**json.loads(settings))
    scheduler.set_timesteps(protocol.steps)
    assert len(scheduler.timesteps) >= protocol.steps and '"beta_start":0.00085' in settings


@pytest.mark.parametrize("name", PAPERS)
def test_every_variant_of_a_release_composes_and_changes_something(name: str) -> None:
    for about in shipped(name).defects.values():
        if about["as_released"]:
            groups_chosen = [text for text in about["as_released"] if text.startswith("prompts=")]
            plain = compose([f"protocol={name}", "model=sd14", *groups_chosen])
            variant = compose(["model=sd14", f"protocol={name}", *about["as_released"]])
            parts = ("protocol", "metric", "prompts")
            assert any(variant[part] != plain[part] for part in parts)


def test_the_hash_is_of_all_that_decides_a_number_and_of_nothing_else() -> None:
    base = shipped("rece")
    other = {
        "scheduler": "DDIMScheduler", "scheduler_config": {}, "steps": 49, "guidance": 7.0, "prompt_guidance": False,
        "prompt_size": False, "negative_prompt": "x", "size": 256, "seeding": "cpu", "seeds": (1,),
        "images_per_prompt": 2, "dtype": "float16", "editing": {"by": "ddim"}, "prompts": {}, "metrics": (), "lacks": {}, "counting": {},
        "version": 2,
    }  # fmt: skip
    assert set(other) == {*OBEYED, *SAID, "version"}
    hashes = {replace(base, **{key: value}).hash for key, value in other.items()}
    assert len(hashes) == len(other) and base.hash not in hashes
    assert replace(base, cites={}, unsure={}, defects={}, name="x").hash == base.hash
    assert len({shipped(name).hash for name in NAMES}) == len(NAMES)


def test_what_was_changed_on_the_command_line_is_said() -> None:
    protocol = of("model=sd14", "protocol=cure", "protocol.steps=20")
    assert protocol.changed == {"steps": (20, 50)}
    assert "changed: steps 20 instead of 50" in protocol.described()
    assert "changed" not in of("protocol=cure").described()


def test_the_gpu_draws_only_where_there_is_one_and_that_is_said() -> None:
    rece = shipped("rece")
    assert (rece.noise_on("cuda:0"), rece.noise_on("cpu"), shipped("cure").noise_on("cuda")) == ("cuda", "cpu", "cpu")
    assert "seeding" in rece.differences("cpu", "float32") and "seeding" not in rece.differences("cuda", "float32")
    assert "seeding differs" in rece.described(rece.differences("cpu", "float32"))


def test_the_type_is_the_protocols_unless_another_is_asked_for() -> None:
    speed = shipped("speed")
    assert speed.weights_dtype("auto", "cuda") == "float16" and speed.weights_dtype("auto", "cpu") == "float32"
    assert (
        speed.weights_dtype("bfloat16", "cuda") == "bfloat16"
        and shipped("default").weights_dtype("auto", "cuda") == "auto"
    )
    assert speed.differences("cpu", "float32")["dtype"] == "float32 here, float16 in the release"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeding": "devise"}, "Did you mean 'device'"),
        ({"seeds": []}, "different whole numbers"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"seeds": [1, 2], "images_per_prompt": 2}, "one image a seed"),
        ({"images_per_prompt": 0}, "images_per_prompt=0: must be 1 or more"),
    ],
)
def test_values_that_cannot_be_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(shipped("default"), **change).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "many"}, "protocol: .*many"),
        ({"stepps": 3}, "protocol: .*stepps"),
        ({"scheduler_config": 3}, "protocol: "),
        ({"steps": "???"}, "protocol: .*steps"),
    ],
)
def test_a_node_that_is_no_protocol_is_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Protocol.from_config(written("cure") | {"name": "cure"} | change)


def test_a_stored_protocol_reads_nothing_of_its_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hidden")
    stored = written("cure") | {"name": "cure", "negative_prompt": "${oc.env:SECRET}"}
    assert Protocol.from_config(stored).negative_prompt == "${oc.env:SECRET}"


def test_seeds_of_a_protocol_and_images_of_a_prompt() -> None:
    rows = pd.DataFrame({"prompt_id": ["a", "b"], "seed": [5, 90], "prompt": ["x", "y"]})
    canvas = drawn(rows, of("protocol=unlearncanvas"))
    assert canvas.seed.tolist() == [188, 288, 588, 688, 888] * 2 and canvas.prompt_id.is_unique
    three = drawn(rows, of("protocol=default", "protocol.images_per_prompt=3"))
    assert three.seed.tolist() == [5, 6, 7, 90, 91, 92] and three.seed.dtype == "int64"
    assert drawn(rows, of("protocol=default")) is rows


def test_noise_of_a_gpu_is_another_image_and_is_refused_without_one(tiny_random_pipe, tmp_path: Path) -> None:
    base = {
        "model": "m", "revision": "r", "edit": "", "prompt": "p", "negative_prompt": "", "seed": 1, "steps": 1,
        "guidance": 1.0, "width": 64, "height": 64, "scheduler": "DDIMScheduler", "dtype": "float32",
        "scheduler_config": scheduler_identity(tiny_random_pipe, "DDIM", {})[1],
    }  # fmt: skip
    assert Recipe(**base, rng="cuda").key != Recipe(**base).key
    model = Model("m", "m", "r", tiny_random_pipe, "sd1", 64, "float32", "cpu")
    with pytest.raises(UserError, match="drawn on an NVIDIA GPU"):
        generate(model, [Recipe(**base, rng="cuda")], Store(tmp_path))


def test_the_page_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "protocol", "unlearndiffatk"]) == 0
    text = capsys.readouterr().out
    assert "threshold_without_effect" in text and "[released code" in text and "(unsure)" not in text
    assert main(["show", "protocol", "uce"]) == 2
    assert "Did you mean 'uce20" in capsys.readouterr().err
    assert main(["show", "a", "b"]) == 2


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def mixed(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    plan = make_plan(prompts=2)
    for run, protocol, rest in (("one", "esd v1", "LMS; hash 11111111"), ("two", "mace v1", "DDIM; hash 22222222")):
        finish(store, run, plan, about=replace(ABOUT, protocol=f"{protocol} ({rest})", names={"protocol": protocol}))
    return store


def test_two_protocols_in_one_column_are_refused_with_what_differs(mixed: Store) -> None:
    with pytest.raises(UserError, match=r"protocol differs \(esd v1.*and mace v1.*--allow-mixed"):
        tabulate(["one", "two"], str(mixed.root), console=quiet())


def test_two_versions_of_a_metric_or_reference_sets_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("old", "new"):
        folder = finish(store, name, make_plan(prompts=1))
        manifest = folder / "manifest.json"
        if name == "old":
            manifest.write_text(manifest.read_text().replace("change@1", "change@0-otherreference"))
    folders = [store.root / "runs" / name for name in ("old", "new")]
    with pytest.raises(UserError, match="version or reference set of metric change differs .0-otherreference and 1"):
        check_same(folders)
    assert labels(alike(folders)) == ["change@0-otherreference", "change@1"]


def test_a_group_is_called_by_its_name_however_that_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for run, model in (("one", "mine (try 1)"), ("two", "mine (try 2)")):
        finish(store, run, make_plan(prompts=1), about=replace(ABOUT, model=f"{model} (ab, f)", names={"model": model}))
    groups = alike([store.root / "runs" / name for name in ("one", "two")])
    assert labels(groups) == ["mine (try 1)", "mine (try 2)"]


def test_allowed_mixing_gives_each_protocol_columns_of_its_own(mixed: Store, capsys) -> None:
    console = quiet()
    measured = tabulate(["one", "two"], str(mixed.root), console=console, allow_mixed=True)
    assert set(measured.metric[measured.metric.str.startswith("classifier")]) == {
        "classifier [esd v1]@1", "classifier [mace v1]@1",
    }  # fmt: skip
    text = next(mixed.root.glob("tables/*/object.md")).read_text()
    assert r"recognised by classifier \[esd v1\] % erased" in text and r"classifier \[mace v1\] % erased" in text
    assert r"\[esd v1\] esd v1 (LMS" in text and r"\[mace v1\] mace v1 (DDIM" in text
    single = tabulate(["one"], str(mixed.root), console=quiet())
    ours = measured[measured.metric == "classifier [esd v1]@1"]
    theirs = single[single.metric == "classifier@1"]
    assert ours.value.tolist() == theirs.value.tolist()


def test_runs_that_agree_need_no_labels_even_if_mixing_is_allowed(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), make_plan(prompts=1)
    finish(store, "a", plan)
    finish(store, "b", plan)
    assert "classifier@1" in set(tabulate(["a", "b"], str(tmp_path), console=quiet(), allow_mixed=True).metric)


def test_seeds_that_run_out_are_a_sentence() -> None:
    protocol = Protocol.from_config(compose(["protocol.images_per_prompt=3"]).protocol)
    assert protocol.seeds_of(2**63 - 3) == [2**63 - 3, 2**63 - 2, 2**63 - 1]
    with pytest.raises(UserError, match=r"images_per_prompt=3: a prompt has seed"):
        protocol.seeds_of(2**63 - 2)


@pytest.mark.parametrize("key", ["steps", "guidance", "images_per_prompt", "size", "prompt_size"])
def test_what_stands_for_a_value_is_no_value(key: str) -> None:
    """A received protocol may hold ``${oc.env:TOKEN}``: nothing resolves it, and no type of a field refuses it."""
    from dataclasses import asdict

    values = asdict(shipped("default"))
    for text in ("${x}", "${oc.env:HOME}"):
        with pytest.raises(UserError, match=rf"protocol\.{key}=\$.*: give the value itself"):
            Protocol.from_config(values | {key: text})
    for several in ("seeds", "metrics"):  # which OmegaConf refuses itself
        with pytest.raises(UserError, match="protocol"):
            Protocol.from_config(values | {several: "${x}"})
    with pytest.raises(UserError, match=r"protocol\.seeds="):
        Protocol.from_config(values | {"seeds": [1, "${x}"]}).check()
